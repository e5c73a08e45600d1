"""Subtitles that stand beside the videos of a benchmark, and how they come into a prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import SourceError
from .reading import load_json

_TIME = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")
_SPAN = re.compile(rf"\s*({_TIME.pattern})\s*-->\s*({_TIME.pattern})")
#: Markup of a line: <i>, {\an8}, and the line break of ASS.
_MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")


@dataclass(frozen=True, slots=True)
class Line:
    """What is said from ``start`` to ``end``, seconds."""

    start: float
    end: float
    text: str

    @property
    def middle(self) -> float:
        """Where the line stands among the frames."""
        return (self.start + self.end) / 2


def clock(stamp: str) -> float:
    """Seconds of ``hh:mm:ss.mmm``, ``mm:ss`` or with a comma. ValueError for anything else."""
    found = _TIME.fullmatch(stamp.strip())
    if found is None:
        raise ValueError(f"{stamp!r} is no time")
    hours, minutes, rest = found.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))


def read_srt(path: Path) -> list[Line]:
    """The lines of an ``.srt`` file, markup and empty lines taken away. SourceError if it cannot be read."""
    try:
        content = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror or error})") from None
    lines: list[Line] = []
    for block in re.split(r"\n\s*\n", content.replace("\r\n", "\n")):
        rows = block.split("\n")
        for number, row in enumerate(rows):
            if span := _SPAN.match(row):
                said = " ".join(_MARKUP.sub("", part.replace("\\N", " ")).strip() for part in rows[number + 1 :])
                if said.strip():
                    lines.append(Line(clock(span.group(1)), clock(span.group(5)), said.strip()))
                break
    return lines


def read_longvideobench(path: Path, offset: float, duration: float) -> list[Line]:
    """The lines of a JSON file of LongVideoBench, on the clock of the video: ``offset`` is subtracted.

    Two shapes are published: ``{"timestamp": [start, end], "text"}`` in seconds, where an end that is no float means
    the ``duration``, and ``{"start", "end", "line"}`` with ``hh:mm:ss.mmm``. Entries that are neither are left out.
    SourceError if the file cannot be read.
    """
    entries = load_json(path)
    if not isinstance(entries, list):
        raise SourceError(f"{path} holds no list of subtitles")
    read = (_entry(entry, duration) for entry in entries)
    return [Line(one.start - offset, one.end - offset, one.text) for one in read if one is not None]


def _entry(entry: Any, duration: float) -> Line | None:
    try:
        if "timestamp" in entry:
            start, end = entry["timestamp"]
            end = end if isinstance(end, float) else duration
            return Line(float(start), float(end), str(entry["text"]).strip())
        return Line(clock(entry["start"]), clock(entry["end"]), str(entry["line"]).strip())
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def shown(lines: Iterable[Line], duration: float, fps: float = 1.0) -> list[Line]:
    """The lines in which a frame lies, by their middle. A line counts as at least one second wide.

    Frames stand at 0, 1 / ``fps``, ... below ``duration``; a frame at the very edge of a line is not in it.
    """
    kept: list[Line] = []
    for line in lines:
        start, end = line.start, line.end
        if end - start < 1:
            start, end = line.middle - 0.5, line.middle + 0.5
        first = max(0, int(start * fps) + 1 if start >= 0 else 0)
        if line.text and first / fps < min(end, duration):
            kept.append(line)
    return sorted(kept, key=lambda line: line.middle)


def as_prompt(lines: Iterable[Line]) -> str:
    """Lines with the second of their middle, one below the other."""
    return "\n".join(f"[{max(line.middle, 0.0):.1f} s] {line.text}" for line in lines)
