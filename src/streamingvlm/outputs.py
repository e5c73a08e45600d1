"""Writers of commentary: WebVTT, SubRip and JSON lines. What is on disk is valid at every moment.

To add a format, write a class with the members of :class:`Format` and one line in :data:`FORMATS`.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from .errors import OutputError
from .events import Commentary

#: What stays readable: two lines of 42 characters, at most six seconds, a new cue after a second of silence.
LINE, LINES, LONGEST, SILENCE = 42, 2, 6.0, 1.0
#: A sentence ends a cue only if the cue has been there for this long (seconds), else it would flicker.
SHORTEST = 1.0
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
#: Two times closer than this (seconds) are the same: they were added up as floats.
_EPS = 1e-6


#: What a terminal or a player would obey and not show: control characters (C0 but tab and line feed, DEL, C1), line and
#: paragraph separators, overrides of the writing direction, halves of surrogate pairs.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: Those of them that part words.
_BREAKS = "\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"


def printable(text: str) -> str:
    """``text`` without characters that a terminal or a player would obey; those that part words become a blank."""
    return _OBEYED.sub(lambda found: " " if found[0] in _BREAKS else "", text)


def json_text(value: Any) -> str:
    """``value`` as one line of JSON without a raw control character: what is taken out of words is escaped here."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


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
        text = cue.text.replace("-->", "->")
        return f"{self._number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n\n"


class JsonLines:
    """One event a line."""

    def head(self) -> str:
        return ""

    def text(self, event: Commentary) -> Iterator[str]:
        yield json_line(event) + "\n"

    def rest(self) -> Iterator[str]:
        return iter(())


def json_line(event: Commentary) -> str:
    """An event as one line of JSON, without a raw control character; times, lag and work in seconds."""
    record: dict[str, Any] = {
        "start": round(event.start, 6),
        "end": round(event.end, 6),
        "text": event.text,
        "cut": event.cut,
        "dropped": event.dropped,
        "lag": round(event.timing.lag, 6),
        "work": round(event.timing.work, 6),
        "rows": {str(kind): count for kind, count in event.rows.items()},
    }
    if event.instructions:
        record["instructions"] = [asdict(one) for one in event.instructions]
    return json_text(record)


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

    Making one checks that the file can be written and changes nothing; ``start`` empties it. Both raise OutputError,
    as do ``write`` and ``close`` (a full disk).
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in FORMATS:
            raise OutputError(f"cannot write {path}: its name must end in one of {', '.join(FORMATS)}")
        self.path = path
        self._format = FORMATS[path.suffix.lower()]()
        self._file: IO[str] | None = None
        check_writable(path)
        if _is_truth(path):
            raise OutputError(f"{path} holds the true words of a clip; choose another name for what is said")

    def start(self) -> None:
        """Overwrite what was there."""
        with _one_line(self.path):
            self._file = self.path.open("w", encoding="utf-8", errors="replace", newline="\n")
            self._put([self._format.head()])

    def write(self, event: Commentary) -> None:
        """Write what is complete now that ``event`` is known."""
        with _one_line(self.path):
            self._put(self._format.text(event))

    def close(self) -> None:
        """Write what is left. Nothing happens if the output never started."""
        if self._file is not None:
            file, self._file = self._file, None
            with _one_line(self.path), file:
                file.write("".join(self._format.rest()))

    def _put(self, pieces: Iterable[str]) -> None:
        assert self._file is not None, "write comes after start"
        # One flush is one write to the file: a killed run ends between two cues, not within one.
        self._file.write("".join(pieces))
        self._file.flush()


def check_writable(path: Path) -> None:
    """Raise OutputError if ``path`` cannot be written; leave everything as it is."""
    with _one_line(path):
        fresh = not path.exists()
        # Opening is the only honest test: access bits say nothing about read-only systems or a superuser.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
        if fresh:
            path.unlink()


def _is_truth(path: Path) -> bool:
    """Whether a file is what ``streamingvlm record`` wrote beside a clip: it cannot be made again by watching."""
    if path.suffix.lower() != ".jsonl" or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return '"content":' in file.readline()


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error})") from error


def open_outputs(paths: Iterable[Path]) -> list[FileOutput]:
    """Check all of them before any is touched. Raises OutputError."""
    outputs: list[FileOutput] = []
    for path in paths:
        if any(path.absolute() == other.path.absolute() for other in outputs):
            raise OutputError(f"{path} is named twice as an output")
        outputs.append(FileOutput(path))
    return outputs
