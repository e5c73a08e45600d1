"""What was left out of the annotations or repaired, and why: counted, with examples, never silently replaced."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from ..core.errors import SourceError
from .words import LOSSES, Repair, Repairs

#: Cases of every reason that are named; the others are only counted.
NAMED = 5


class Reason(StrEnum):
    """Why a line or a chunk was left out."""

    MALFORMED = "malformed line"
    SEEK_INDEX = "seek index that does not fit its file"
    TIMES = "times out of order"
    MISSING = "missing video"
    EMPTY = "video of zero bytes"
    UNREADABLE = "video that cannot be read"
    DUPLICATE = "duplicate"
    TOO_LONG = "longer than asked"
    TOO_SHORT = "shorter than a window"
    BEYOND = "beyond the end of its video"
    FEW_WORDS = "too few words"
    NO_ROLLOUT = "no rollout"


class DataError(SourceError):
    """Data that cannot be read in the middle of a run.

    PyTorch hands an error of a worker over as one of the same kind whose text is the worker's traceback. Of such a text
    the last line is kept, which is the error's own.
    """

    def __init__(self, text: str) -> None:
        last = text.strip().rpartition("\n")[2]
        super().__init__(last.removeprefix(f"{type(self).__module__}.{type(self).__qualname__}: "))


class Unusable(Exception):  # noqa: N818 - not an error of the program: it ends in the report
    """A line or a video that cannot be used; ``reason`` and the message go into the report."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(slots=True)
class FileCount:
    """The chunks of one file or folder: those it holds, and those of an epoch. ``listed``: so often it was named."""

    chunks: int
    epoch: int = 0
    repeat: float = 0.0
    listed: int = 0

    def __str__(self) -> str:
        named = f", listed {self.listed} times" if self.listed > 1 else ""
        return f"{self.chunks} chunks{named}; {self.epoch} in an epoch (repeat {self.repeat:g})"


@dataclass(slots=True)
class Report:
    """What was read and what was left out.

    ``lines``: lines read; ``streams``: of these, streams and clips that gave at least one chunk; ``chunks``: chunks
    of an epoch, repeats counted, of which ``different`` are no repeats; ``seconds``: their video, repeats and overlaps
    counted each time; ``files``: chunks by file, as the files were named. ``skipped`` counts lines, videos and
    chunks by reason. ``repaired`` counts repaired words by repair, ``repaired_lines`` their lines; those of lines that
    were left out are not counted. ``named`` holds the first few cases of each reason and repair. ``notes``: what was
    read and not used, counted.
    """

    lines: int = 0
    streams: int = 0
    chunks: int = 0
    different: int = 0
    seconds: float = 0.0
    files: dict[str, FileCount] = field(default_factory=dict)
    skipped: Counter[Reason] = field(default_factory=Counter)
    repaired: Counter[Repair] = field(default_factory=Counter)
    repaired_lines: Counter[Repair] = field(default_factory=Counter)
    named: dict[Reason | Repair, list[str]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def skip(self, reason: Reason, detail: str) -> None:
        """Count one case."""
        self.skipped[reason] += 1
        self._name(reason, detail)

    def repair(self, repairs: Repairs, where: str) -> None:
        """Count the repaired words of one transcript; ``where``: the line that it comes from."""
        for kind, words in repairs.counts.items():
            self.repaired[kind] += words
            self.repaired_lines[kind] += 1
            first = f", the first is {repairs.first_lost}" if kind in LOSSES else ""
            self._name(kind, f"{where}: {words} of {repairs.read} words{first}")

    def _name(self, kind: Reason | Repair, detail: str) -> None:
        cases = self.named.setdefault(kind, [])
        if len(cases) < NAMED:
            cases.append(detail)

    def take(self, file: str, repeat: float, chunks: int, epoch: int) -> None:
        """Count the chunks of a file; once more, if it is listed once more."""
        one = self.files.setdefault(file, FileCount(chunks))
        one.epoch += epoch
        one.repeat += repeat
        one.listed += 1

    def to_json(self) -> dict[str, Any]:
        """The same as plain dictionaries: ``skipped`` maps a reason to its ``count`` and ``examples``, ``repaired`` a
        repair to its ``words`` and ``lines``, whether the words were ``lost``, and ``examples``."""
        return {
            "lines": self.lines,
            "streams": self.streams,
            "chunks": self.chunks,
            "different_chunks": self.different,
            "files": {name: asdict(one) for name, one in self.files.items()},
            "hours": round(self.seconds / 3600, 3),
            "skipped": {
                str(reason): {"count": count, "examples": self.named[reason]}
                for reason, count in self.skipped.most_common()
            },
            "repaired": {
                str(kind): {
                    "words": words,
                    "lines": self.repaired_lines[kind],
                    "lost": kind in LOSSES,
                    "examples": self.named[kind],
                }
                for kind, words in self.repaired.most_common()
            },
            "notes": dict(self.notes),
        }

    def __str__(self) -> str:
        repeats = "" if self.different == self.chunks else f" in an epoch ({self.different} different ones)"
        hours = f"{self.seconds / 3600:.1f} h of video"
        out = [f"{self.chunks} chunks{repeats}, {hours}, from {self.streams} of {self.lines} lines"]
        if len(self.files) > 1 or any(one.epoch != one.chunks for one in self.files.values()):
            out += [f"  {name}: {one}" for name, one in self.files.items()]
        for reason, count in self.skipped.most_common():
            out.append(f"  left out: {count} x {reason}")
            out += [f"    {case}" for case in self.named[reason]]
            if count > len(self.named[reason]):
                out.append(f"    and {count - len(self.named[reason])} more")
        for kind, words in self.repaired.most_common():
            out.append(f"  repaired: {words} words: {kind}")
            out += [f"    {case}" for case in self.named[kind]]
            if self.repaired_lines[kind] > NAMED:
                out.append(f"    and {self.repaired_lines[kind] - NAMED} more lines")
        out += [f"  note: {count} x {note}" for note, count in self.notes.items()]
        return "\n".join(out)
