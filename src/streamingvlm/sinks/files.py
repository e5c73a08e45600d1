"""Writers of commentary: WebVTT, SubRip and JSON lines. What is on disk is valid at every moment.

Words are those of a model, names and titles those of a file's author: whatever is shown goes through
:func:`printable`, whatever is written as JSON through :func:`json_text`.

To add a format, write a class with the members of :class:`Format` and one line in :data:`FORMATS`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from uuid import uuid4

from ..core.errors import OutputError
from ..core.events import Commentary, Event
from .records import record_of

#: What stays readable: two lines of 42 characters, at most six seconds, a new cue after a second of silence.
LINE, LINES, LONGEST, SILENCE = 42, 2, 6.0, 1.0
#: A sentence ends a cue only if the cue has been there for this long (seconds), else it would flicker.
SHORTEST = 1.0
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
#: Two times closer than this (seconds) are the same: they were added up as floats.
_EPS = 1e-6

#: Embeddings, overrides and isolates: they turn what stands behind them round, also outside of the words.
_DIRECTIONS = "\u202a-\u202e\u2066-\u206f"
#: What terminals and players obey (C0, DEL, C1), and halves of surrogate pairs, which no file can hold.
_CONTROLS = "\x00-\x1f\x7f-\x9f\ud800-\udfff"
_DIRECTION, _CONTROL = re.compile(f"[{_DIRECTIONS}]"), re.compile(f"[{_CONTROLS}]")
#: What stands between the times of a cue may not stand in its words.
_ARROW = re.compile("-{2,}>")
_ESCAPED = re.compile(f"[{_DIRECTIONS}{_CONTROLS}\u2028\u2029]")


def printable(text: str) -> str:
    """``text`` as one line that is safe on a screen and in a subtitle.

    White space of any kind becomes single spaces, a control character or half a surrogate pair the replacement
    character; marks that change the direction of writing go. All that can be seen stays.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(_DIRECTION.sub("", text).split()))


def json_text(value: Any) -> str:
    """``value`` as one line of JSON that is safe on a screen: what :func:`printable` replaces is escaped, not lost."""
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Output(Protocol):
    """Takes events in order. ``start`` is when the run has passed every check: only then is anything overwritten."""

    def start(self) -> None: ...
    def write(self, event: Commentary) -> None: ...
    def close(self) -> None: ...


class Format(Protocol):
    """Turns events into text. A piece of text is written in one go, so it is whole on disk or not there."""

    def head(self) -> str:
        """What the file begins with."""
        ...

    def text(self, event: Commentary) -> Iterable[str]:
        """What can be written now that ``event`` is known."""
        ...

    def rest(self) -> Iterable[str]:
        """What is still to be written at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Cue:
    """Words shown from ``start`` to ``end`` seconds, at most two lines (joined by a line feed)."""

    start: float
    end: float
    text: str


class CueMerger:
    """Joins the words of consecutive steps into cues: in order, not overlapping, short enough to read."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._start = self._end = self._last = 0.0

    def add(self, event: Commentary) -> Iterator[Cue]:
        """The cues that are complete now that ``event`` is known."""
        words = printable(event.text).split()
        begin = event.start if words else event.end
        fits = len(_wrap([*self._words, *words])) <= LINES and event.end - self._start <= LONGEST + _EPS
        if self._words and (begin - self._end > SILENCE + _EPS or (words and not fits)):
            yield from self.close()
        if not words:
            return
        if self._words:
            self._words += words
        else:
            self._words, self._start = words, max(event.start, self._last)
        self._end = event.end
        if words[-1].rstrip("\"')»”").endswith(SENTENCE_ENDS) and self._end - self._start >= SHORTEST - _EPS:
            yield from self.close()

    def close(self) -> Iterator[Cue]:
        """The open cue, if any; as several, each with its share of the time, if its words are too many for one."""
        lines = _wrap(self._words)
        pages = ["\n".join(lines[index : index + LINES]) for index in range(0, len(lines), LINES)]
        start, left = self._start, sum(map(len, pages))
        end = min(self._end, start + LONGEST * len(pages))
        self._words, self._last = [], max(end, self._last)
        for page in pages:
            stop = start + (end - start) * len(page) / left
            left -= len(page)
            if stop > start:
                yield Cue(start, stop, page)
            start = stop


def _wrap(words: list[str]) -> list[str]:
    return textwrap.wrap(" ".join(words), LINE, break_on_hyphens=False)


class WebVTT:
    """https://www.w3.org/TR/webvtt1/"""

    def __init__(self) -> None:
        self._cues = CueMerger()

    def head(self) -> str:
        return "WEBVTT\n\n"

    def text(self, event: Commentary) -> Iterator[str]:
        yield from map(self._cue, self._cues.add(event))

    def rest(self) -> Iterator[str]:
        yield from map(self._cue, self._cues.close())

    def _cue(self, cue: Cue) -> str:
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n\n"


class SubRip:
    """Numbered cues with decimal commas, as players expect them."""

    def __init__(self) -> None:
        self._cues = CueMerger()
        self._number = 0

    def head(self) -> str:
        return ""

    def text(self, event: Commentary) -> Iterator[str]:
        yield from map(self._cue, self._cues.add(event))

    def rest(self) -> Iterator[str]:
        yield from map(self._cue, self._cues.close())

    def _cue(self, cue: Cue) -> str:
        self._number += 1
        text = _ARROW.sub("->", cue.text)
        return f"{self._number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n\n"


class JsonLines:
    """One event a line."""

    def head(self) -> str:
        return ""

    def text(self, event: Commentary) -> Iterator[str]:
        yield json_line(event) + "\n"

    def rest(self) -> Iterator[str]:
        return iter(())


def json_line(event: Event, stream: str = "") -> str:
    """An event as one line of JSON, see :mod:`.records`; ``stream``: the name of its stream ("": none)."""
    return json_text(record_of(event) | ({"stream": stream} if stream else {}))


def _clock(seconds: float, point: str) -> str:
    total = round(seconds * 1000)
    return f"{total // 3600000:02}:{total // 60000 % 60:02}:{total // 1000 % 60:02}{point}{total % 1000:03}"


#: Suffix -> the format it stands for.
FORMATS: dict[str, Callable[[], Format]] = {
    ".vtt": WebVTT,
    ".srt": SubRip,
    ".jsonl": JsonLines,
}


class FileOutput:
    """A file in the format that its suffix names.

    Making one checks that the file can be written and changes nothing; the first commentary empties it.
    All raise OutputError: for a full disk (what is there ends behind a whole piece then), or for a file that somebody
    removed meanwhile.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in FORMATS:
            raise OutputError(f"cannot write {path}: its name must end in one of {', '.join(FORMATS)}")
        self.path = path
        self._format = FORMATS[path.suffix.lower()]()
        self._file: IO[bytes] | None = None
        self._error: OutputError | None = None
        #: Bytes of whole pieces.
        self._length = 0
        check_writable(path)
        if _is_truth(path):
            raise OutputError(f"{path} holds the true words of a clip; choose another name for what is said")

    def write(self, event: Event) -> None:
        """Write what is complete now that ``event`` is known; the first commentary overwrites what was there."""
        if not isinstance(event, Commentary):
            return
        try:
            with _one_line(self.path):
                if self._file is None:
                    # Appending: a piece that did not fit is cut off again, and the next must not leave a hole.
                    self._file = open(self.path, "wb", buffering=0, opener=_appending)  # noqa: SIM115
                    self._put(self._file, [self._format.head()])
                self._put(self._file, self._format.text(event))
        except OutputError as error:
            self._error = error
            raise

    def close(self) -> None:
        """Write what is left. Nothing happens if nothing was written; what went wrong earlier is raised again."""
        if self._file is not None:
            file, self._file = self._file, None
            with _one_line(self.path), file:
                if self._error is not None:
                    raise self._error
                self._put(file, self._format.rest())

    def _put(self, file: IO[bytes], pieces: Iterable[str]) -> None:
        """Write pieces in one go: a killed run ends between two cues, not within one, and so does a full disk."""
        state = os.fstat(file.fileno())
        plain = stat.S_ISREG(state.st_mode)
        if plain and not state.st_nlink:
            raise OutputError(f"{self.path} was removed while it was written")
        left = memoryview("".join(pieces).encode())
        size = len(left)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            if plain:
                os.ftruncate(file.fileno(), self._length)
            raise
        self._length += size


def _appending(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_APPEND, 0o666)


def check_writable(path: Path) -> None:
    """Raise OutputError if ``path`` cannot be written; leave everything as it is."""
    with _one_line(path):
        try:
            target = os.path.realpath(path)
            mode = os.stat(target).st_mode if os.path.lexists(target) else None
            # Opening is the only honest test: access bits say nothing about read-only systems or a superuser.
            if mode is None:
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
                os.unlink(target)
            elif not stat.S_ISFIFO(mode):  # a pipe would wait for its reader
                os.close(os.open(target, os.O_WRONLY))
        except ValueError:  # a zero character, or half a surrogate pair
            raise OutputError(f"cannot write {str(path)!r}: no file can have this name") from None


def write_whole(path: Path, text: str) -> None:
    """Write a whole file. What was there stays if that fails; raises OutputError then."""
    with _one_line(path):
        target = Path(os.path.realpath(path))
        there = target.exists()
        if there and not target.is_file():  # a device or a pipe
            target.write_text(text, encoding="utf-8", errors="replace")
            return
        # Another process may write the same file: whoever is last replaces a whole file.
        part = target.with_name(f".{target.name}.{uuid4().hex}.part")
        try:
            with part.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if there:
                shutil.copymode(target, part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)


def _is_truth(path: Path) -> bool:
    """Whether a file is what ``streamingvlm record`` wrote beside a clip: it cannot be made again by watching."""
    if path.suffix.lower() != ".jsonl" or not path.is_file():
        return False
    with _one_line(path), path.open(encoding="utf-8", errors="replace") as file:
        return '"content":' in file.readline()


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error})") from error


def make_folder(folder: Path) -> None:
    """Make a folder with its parents; OutputError if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder} ({error.strerror})") from error


def open_outputs(paths: Iterable[Path], inputs: Iterable[str] = ()) -> list[FileOutput]:
    """Check all of them before any is touched. ``inputs``: what is read, and so may not be written. OutputError."""
    outputs: list[FileOutput] = []
    for path in paths:
        if any(_same(path, other.path) for other in outputs):
            raise OutputError(f"{path} is named twice as an output")
        if any(_same(path, Path(read)) for read in inputs):
            raise OutputError(f"{path} is the video that is watched; choose another name for what is said")
        outputs.append(FileOutput(path))
    return outputs


def _same(one: Path, other: Path) -> bool:
    """Whether two names are of one file, there or not."""
    try:
        if os.path.realpath(one) == os.path.realpath(other):
            return True
        return one.is_file() and other.is_file() and os.path.samefile(one, other)
    except (OSError, ValueError):
        return False  # whoever opens it will tell
