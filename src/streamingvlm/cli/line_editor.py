"""A line that a person types: from bytes of a terminal to keys, and from keys to a line. No terminal is touched."""

from __future__ import annotations

import codecs
import re
from collections import deque
from enum import StrEnum

#: Characters of a line; what is typed or pasted beyond is not taken.
MAX_LINE = 4000
#: Lines that can be called up again.
MAX_HISTORY = 100
#: Characters of an escape sequence; those of keys have fewer.
MAX_SEQUENCE = 32


class Key(StrEnum):
    """What a key does."""

    ENTER = "enter"
    BACKSPACE = "backspace"
    DELETE = "delete"
    LEFT = "left"
    RIGHT = "right"
    HOME = "home"
    END = "end"
    UP = "up"
    DOWN = "down"
    CLEAR = "clear"
    CLEAR_END = "clear to the end"
    CLEAR_WORD = "clear the word"


#: Control characters, as shells have them.
_CONTROLS = {
    "\r": Key.ENTER, "\n": Key.ENTER, "\x7f": Key.BACKSPACE, "\x08": Key.BACKSPACE, "\x04": Key.DELETE,
    "\x01": Key.HOME, "\x05": Key.END, "\x02": Key.LEFT, "\x06": Key.RIGHT, "\x10": Key.UP, "\x0e": Key.DOWN,
    "\x15": Key.CLEAR, "\x0b": Key.CLEAR_END, "\x17": Key.CLEAR_WORD,
}  # fmt: skip
#: What stands between ESC [ (or ESC O) and the end of an escape sequence, with its last letter.
_SEQUENCES = {
    "A": Key.UP, "B": Key.DOWN, "C": Key.RIGHT, "D": Key.LEFT, "H": Key.HOME, "F": Key.END,
    "1~": Key.HOME, "7~": Key.HOME, "4~": Key.END, "8~": Key.END, "3~": Key.DELETE,
}  # fmt: skip
#: A whole escape sequence (ECMA-48), one of three characters that keypads send, or ESC and another key.
_ESCAPE = re.compile(r"\x1b(?:\[(?P<csi>[0-?]*[ -/]*[@-~])|O(?P<ss3>[ -~])|(?=\x1b)|[^\[O\x1b])", re.DOTALL)
#: The beginning of one.
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?")
_PASTE, _PASTE_END = "200~", "\x1b[201~"
#: Seconds after which what has begun is not going on: an escape sequence, which comes at once, and a paste.
SEQUENCE_PATIENCE, PASTE_PATIENCE = 0.05, 2.0
#: Marks that change the direction of writing: they would turn what is drawn behind them, too.
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")


class KeyDecoder:
    """Bytes of a terminal as keys and typed text, however they are cut: UTF-8, escape sequences, bracketed pastes.

    Text comes as it is, without control characters; a pasted text is one line. Keys that nothing is known of are
    passed over.
    """

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""  # the beginning of an escape sequence
        self._pasting = False

    @property
    def patience(self) -> float | None:
        """Seconds to wait for more before :meth:`flush`; None where nothing has begun."""
        if self._pasting:
            return PASTE_PATIENCE
        return SEQUENCE_PATIENCE if self._rest else None

    def flush(self) -> None:
        """Nothing follows what has begun: it was a key by itself, or a paste whose end is lost."""
        self._rest, self._pasting = "", False

    def feed(self, data: bytes) -> list[Key | str]:
        """The keys and pieces of text that have come to their end with ``data``."""
        out: list[Key | str] = []
        text, self._rest = self._rest + self._utf8.decode(data), ""
        while text:
            if self._pasting:
                text = self._paste(text, out)
            elif text[0] == "\x1b":
                found = _ESCAPE.match(text)
                if found is None:
                    begun = _BEGUN.match(text)
                    assert begun is not None, "it begins with ESC"
                    text = text[begun.end() :]
                    self._rest = begun[0] if not text and len(begun[0]) < MAX_SEQUENCE else ""
                    continue
                text = text[found.end() :]
                name = found["csi"] or found["ss3"] or ""
                self._pasting = name == _PASTE
                if name in _SEQUENCES:
                    out.append(_SEQUENCES[name])
            else:
                text = _typed(text, out)
        return out

    def _paste(self, text: str, out: list[Key | str]) -> str:
        """Take pasted text up to its end; what stands behind that."""
        inside, end, rest = text.partition(_PASTE_END)
        self._pasting = not end
        if not end:
            # The end mark may have come in part.
            cut = next((n for n in range(len(_PASTE_END) - 1, 0, -1) if text.endswith(_PASTE_END[:n])), 0)
            inside, self._rest = text[: len(text) - cut], text[len(text) - cut :]
        if line := _one_line(inside):
            out.append(line)
        return rest


def _typed(text: str, out: list[Key | str]) -> str:
    """Take text or one control character; what stands behind that."""
    if (key := _CONTROLS.get(text[0])) is not None:
        out.append(key)
        return text[1:]
    end = next((at for at, character in enumerate(text) if character in _CONTROLS or character == "\x1b"), len(text))
    if line := _one_line(text[:end]):
        out.append(line)
    return text[end:]


def _one_line(text: str) -> str:
    """``text`` with a space for line ends and tabs, and without what cannot be seen."""
    spaced = re.sub(r"[\r\n\t]", " ", _DIRECTIONS.sub("", text))
    return "".join(character for character in spaced if character >= " " and not "\x7f" <= character < "\xa0")


class LineEditor:
    """A line, a cursor in it, and the lines before it."""

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        #: Whether the last piece of text was cut, since the line has no room for it.
        self.full = False
        self._history: deque[str] = deque(maxlen=MAX_HISTORY)
        self._place = 0  # from the end of the history; 0: the line that is being written
        self._draft = ""

    def feed(self, key: Key | str) -> str | None:
        """Do what a key does, or put text at the cursor. The line, where it has been ended with enter."""
        self.full = False
        if not isinstance(key, Key):
            self._insert(key)
            return None
        match key:
            case Key.ENTER:
                return self._enter()
            case Key.LEFT | Key.RIGHT | Key.HOME | Key.END:
                self._move(key)
            case Key.UP | Key.DOWN:
                self._recall(1 if key is Key.UP else -1)
            case _:
                self._clear(key)
        return None

    def _insert(self, text: str) -> None:
        room = MAX_LINE - len(self.text)
        self.full = len(text) > room
        self._set(self.text[: self.cursor] + text[:room] + self.text[self.cursor :], self.cursor + min(len(text), room))

    def _move(self, key: Key) -> None:
        step = {Key.LEFT: -1, Key.RIGHT: 1, Key.HOME: -len(self.text), Key.END: len(self.text)}[key]
        self.cursor = min(max(self.cursor + step, 0), len(self.text))

    def _clear(self, key: Key) -> None:
        before, behind = self.text[: self.cursor], self.text[self.cursor :]
        match key:
            case Key.BACKSPACE:
                before = before[:-1]
            case Key.DELETE:
                behind = behind[1:]
            case Key.CLEAR:
                before = ""
            case Key.CLEAR_END:
                behind = ""
            case Key.CLEAR_WORD:
                before = re.sub(r"\S*\s*$", "", before)
        self._set(before + behind, len(before))

    def _enter(self) -> str:
        line = self.text
        if line.strip() and (not self._history or self._history[-1] != line):
            self._history.append(line)
        self._place, self._draft = 0, ""
        self._set("", 0)
        return line

    def _recall(self, step: int) -> None:
        """The line before or behind in the history."""
        place = min(max(self._place + step, 0), len(self._history))
        if place == self._place:
            return
        if self._place == 0:
            self._draft = self.text
        self._place = place
        text = self._history[-place] if place else self._draft
        self._set(text, len(text))

    def _set(self, text: str, cursor: int) -> None:
        self.text, self.cursor = text, cursor
