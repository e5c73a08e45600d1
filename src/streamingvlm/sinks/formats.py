"""Formats of commentary: WebVTT, SubRip and JSON lines.

Subtitles show what a viewer of the video wants to see: words, holes in the video and alerts. WebVTT has the details
of holes and alerts, and where a stream was resumed, as notes that players do not show. JSON lines have all events but
deltas.

To add a format, write a class with the members of :class:`Format` and one line in :data:`FORMATS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from ..core.events import Alert, AnswerDelta, Commentary, Delta, Event, Gap, Resumed
from .cues import Cue, CueMerger
from .records import TYPES, record_of
from .text import json_text, printable

#: What stands between the times of a cue may not stand in its words.
_ARROW = re.compile("-{2,}>")
#: The line of a cue that says when it is shown.
_TIMES = re.compile(r"^(?:(\d+)\n)?\d+:\d\d:\d\d[.,]\d{3} --> (\d+):(\d\d):(\d\d)[.,](\d{3})$", re.MULTILINE)


class Format(Protocol):
    """Turns events into text. A piece of text is written in one go, so it is whole on disk or not there.

    ``mark``: what every piece ends with, the head included, and what stands nowhere else.
    """

    mark: str

    def head(self) -> str:
        """What the file begins with."""
        ...

    def text(self, event: Event) -> Iterable[str]:
        """What can be written now that ``event`` is known."""
        ...

    def rest(self) -> Iterable[str]:
        """What is still to be written at the end."""
        ...

    def knows(self, beginning: str) -> bool:
        """Whether a file that begins so, or was cut off there, can be of this format."""
        ...

    def go_on(self, pieces: Sequence[str]) -> float | None:
        """Be what has written ``pieces``, the last ones of a file.

        Seconds until which they tell the stream; None if none of them says so.
        """
        ...


class _Subtitles:
    """What WebVTT and SubRip share."""

    mark = "\n\n"

    def __init__(self) -> None:
        self._cues = CueMerger()
        self._number = 0

    def text(self, event: Event) -> Iterator[str]:
        yield from map(self._cue, self._cues.add(event))

    def rest(self) -> Iterator[str]:
        yield from map(self._cue, self._cues.close())

    def go_on(self, pieces: Sequence[str]) -> float | None:
        for piece in reversed(pieces):
            if (found := _TIMES.match(piece)) is not None:
                number, hours, minutes, seconds, thousandths = found.groups()
                until = int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(thousandths) / 1000
                self._cues, self._number = CueMerger(until), int(number or 0)
                return until
        return None

    def _cue(self, cue: Cue) -> str:
        raise NotImplementedError


class WebVTT(_Subtitles):
    """https://www.w3.org/TR/webvtt1/"""

    def head(self) -> str:
        return "WEBVTT\n\n"

    def text(self, event: Event) -> Iterator[str]:
        if note := _note(event):
            yield f"NOTE {_ARROW.sub('->', printable(note))}\n\n"
        yield from super().text(event)

    def knows(self, beginning: str) -> bool:
        return beginning[:8] == self.head()[: len(beginning)]

    def _cue(self, cue: Cue) -> str:
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n\n"


class SubRip(_Subtitles):
    """Numbered cues with decimal commas, as players expect them."""

    def head(self) -> str:
        return ""

    def knows(self, beginning: str) -> bool:
        return re.match(r"\d+(\n|$)", beginning) is not None

    def _cue(self, cue: Cue) -> str:
        self._number += 1
        text = _ARROW.sub("->", cue.text)
        return f"{self._number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n\n"


class JsonLines:
    """One event a line, all but deltas."""

    mark = "\n"

    def __init__(self) -> None:
        #: Lines of an earlier run that may be told again.
        self._there: frozenset[str] = frozenset()

    def head(self) -> str:
        return ""

    def text(self, event: Event) -> Iterator[str]:
        if not isinstance(event, Delta | AnswerDelta) and (line := json_line(event) + "\n") not in self._there:
            yield line

    def rest(self) -> Iterator[str]:
        return iter(())

    def knows(self, beginning: str) -> bool:
        return beginning.startswith('{"type": "'[: len(beginning)])

    def go_on(self, pieces: Sequence[str]) -> float | None:
        self._there = frozenset(pieces)
        for piece in reversed(pieces):
            record = json.loads(piece)
            if record.get("type") in (TYPES[Commentary], TYPES[Gap]):
                return float(record["end"])
        return None


def json_line(event: Event, stream: str = "") -> str:
    """An event as one line of JSON, see :mod:`.records`; ``stream``: the name of its stream ("": none)."""
    return json_text(record_of(event) | ({"stream": stream} if stream else {}))


def _note(event: Event) -> str:
    """What WebVTT says of an event in a note ("": nothing)."""
    match event:
        case Gap(start=start, end=end, reason=reason):
            return f"no video from {_clock(start, '.')} to {_clock(end, '.')}: {reason}"
        case Alert(rule=rule, kind=kind, number=number, since=since, time=time):
            found = event.verdict if event.probability is None else f"{event.verdict} {event.probability:.2f}"
            said = f": {event.evidence}" if event.evidence else ""
            return f"alert {rule} {number} {kind} at {_clock(time, '.')}, since {_clock(since, '.')}, {found}{said}"
        case Resumed(time=time, lost_seconds=lost):
            return f"resumed at {_clock(time, '.')}; {lost:.1f} s were not watched"
    return ""


def _clock(seconds: float, point: str) -> str:
    total = round(seconds * 1000)
    return f"{total // 3600000:02}:{total // 60000 % 60:02}:{total // 1000 % 60:02}{point}{total % 1000:03}"


#: Suffix -> the format it stands for.
FORMATS: dict[str, Callable[[], Format]] = {
    ".vtt": WebVTT,
    ".srt": SubRip,
    ".jsonl": JsonLines,
}
