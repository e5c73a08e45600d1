"""The picture with the words on it: H.264 in fragmented MP4, which a run that is killed leaves playable.

The picture is what the model sees, at its rate. The words of a step stand on the frames of that step, so frames wait
for them. An alert stands at the top from the step behind it until it is cleared. Where nothing was seen, the last
picture is shown, dimmed, with the reason.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ..core.errors import OutputError
from ..core.events import Alert, Chunk, Commentary, Event, Gap, RuleChanged, StepFailed, StepInput
from .cues import LINE, LINES, SENTENCE_ENDS, columns, hole_text, wrap
from .files import check_writable
from .film import COMMENT, MILLISECOND, FragmentFile, Past, find_past, open_film
from .lettering import WIDTH, Lettering
from .limits import ALERT_LINES, CAPTION_ITEMS, FRAME_BYTES, PATIENT_BYTES, WORDLESS_STEPS
from .text import printable

_LOG = logging.getLogger(__name__)

#: Letters that are told at most when no font has them.
TOLD_LETTERS = 20
#: Pixels: a narrower picture is enlarged by a whole number, so that words fit; a longer one is made smaller.
NARROWEST, LONGEST_SIDE = 480, 1280
#: Seconds between two key frames: so much is lost at most if the run is killed.
KEY_SECONDS = 2.0
#: Seconds that words stay when nothing more is said.
LINGER = 3.0
#: A hole has a picture at least every so many seconds, but not more than so many in all.
CARD_SECONDS, CARDS = 10.0, 100
#: The middle of the words, of the reason of a hole, of alerts, as a share of the height.
UNDER, CENTRE, TOP = 0.9, 0.5, 0.0
#: The box of an alert has so much red, green and blue at least.
RED = (170, 0, 0)
#: Two starts closer than this, seconds, are of the same step.
_SAME = 1e-3
#: The options of a rule behind what it watches for.
_RULE_OPTIONS = re.compile(r"(; \w+=[^;]*)+$")

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Step:
    """Frames of a step with what was said of it (None: nothing is known), and what stands at the top."""

    frames: tuple[Picture, ...]
    times: tuple[float, ...]
    said: Commentary | None
    alerts: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return sum(frame.nbytes for frame in self.frames)


@dataclass(frozen=True, slots=True)
class _Hole:
    gap: Gap
    alerts: tuple[str, ...]


class Alerts:
    """What was raised and not cleared, in lines."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._raised: dict[str, Alert] = {}

    def add(self, event: Alert | RuleChanged) -> None:
        """Take an event."""
        if isinstance(event, RuleChanged):
            self._texts[event.rule] = _RULE_OPTIONS.sub("", event.text)
        elif event.kind == "cleared":
            self._raised.pop(event.rule, None)
        else:
            self._raised.setdefault(event.rule, event)

    def lines(self) -> tuple[str, ...]:
        """The newest first: ``ALERT fall: a person is lying on the floor``."""
        lines = [self._line(alert) for alert in reversed(self._raised.values())]
        more = len(lines) - ALERT_LINES
        return (*lines[:ALERT_LINES], *([f"and {more} more"] if more > 0 else []))

    def _line(self, alert: Alert) -> str:
        """With what its rule watches for; of a rule on the words, and of one that is not known, with the words."""
        text = self._texts.get(alert.rule, "")
        what = alert.evidence if not text or text.startswith("says: ") else text
        return printable(f"ALERT {alert.rule}: {what}" if what else f"ALERT {alert.rule}")


class BurnedOutput:
    """A sink that writes ``path`` (.mp4) in a thread of its own.

    It is a :class:`~streamingvlm.core.events.FrameSink`. Making one checks that the file can be written and changes
    nothing; the first step that has ended overwrites what was there, if that is a file of this kind. ``resume``: what
    is there is continued, and what it has is passed over; where its head is that of another encoder, ``name-2.mp4`` is
    written (or 3, and so on). ``patient``: whoever writes waits for the encoder; otherwise frames are left out while it
    is too slow; ``dropped`` counts them. Raises OutputError, also later for what has gone wrong in the thread.
    """

    def __init__(self, path: Path, *, resume: bool = False, patient: bool = False) -> None:
        self.path = path
        check_writable(path)
        _check_ours(path)
        self._encoder = _Encoder(path, resume)
        self._alerts = Alerts()
        self._patient = patient
        self.dropped = 0
        self._wordless: deque[Chunk] = deque()
        self._items: deque[_Step | _Hole] = deque()
        self._bytes = 0
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="streamingvlm-burned", daemon=True)

    def see(self, step: StepInput) -> None:
        """See :meth:`FrameSink.see`."""
        self._wordless.append(step.chunk)
        starts = sorted({chunk.start for chunk in self._wordless})
        if len(starts) > WORDLESS_STEPS:
            self._release(starts[0], None)

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`."""
        match event:
            case Commentary():
                self._release(event.start, event)
            case StepFailed():
                self._release(event.start, None)
            case Gap():
                self._release(event.start, None)
                self._put(_Hole(event, self._alerts.lines()))
            case Alert() | RuleChanged():
                self._alerts.add(event)

    def close(self) -> None:
        """See :meth:`Sink.close`: returns at once, see :meth:`wait`. What went wrong earlier is raised."""
        if self._wordless:
            self._release(self._wordless[-1].start, None)
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            if self._error is not None:
                raise self._error

    def wait(self, seconds: float) -> bool:
        """Behind :meth:`close`: until the file is whole or time is up; whether it is whole. Raises what went wrong."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def _release(self, start: float, said: Commentary | None) -> None:
        """Hand over the frames of the steps up to the one that starts at ``start``, which ``said`` is about."""
        while self._wordless and self._wordless[0].start < start - _SAME:
            chunk = self._wordless.popleft()
            self._put(_Step(tuple(chunk.frames), chunk.times, None, self._alerts.lines()))
        chunks = []
        while self._wordless and self._wordless[0].start < start + _SAME:
            chunks.append(self._wordless.popleft())
        frames = tuple(frame for chunk in chunks for frame in chunk.frames)
        if frames or said is not None:
            times = tuple(time for chunk in chunks for time in chunk.times)
            self._put(_Step(frames, times, said, self._alerts.lines()))

    def _put(self, item: _Step | _Hole) -> None:
        with self._changed:
            size = item.size if isinstance(item, _Step) else 0
            if self._patient:
                self._changed.wait_for(lambda: self._fits(size) or self._error is not None)
            if self._error is not None:
                raise self._error
            if isinstance(item, _Step) and not self._fits(size):
                self.dropped += len(item.frames)
                item, size = _Step((), (), item.said), 0  # the words still count
            if len(self._items) >= CAPTION_ITEMS:
                old = next((one for one in self._items if isinstance(one, _Hole) or not one.frames), None)
                if old is not None:
                    self._items.remove(old)
            self._items.append(item)
            self._bytes += size
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._bytes or self._bytes + size <= (PATIENT_BYTES if self._patient else FRAME_BYTES)

    # The encoder's thread.

    def _run(self) -> None:
        try:
            with _one_line(self.path):
                while (item := self._next()) is not None:
                    self._encoder.add(item)
                    if isinstance(item, _Step):
                        with self._changed:
                            self._bytes -= item.size
                            self._changed.notify_all()
                self._encoder.close()
        except BaseException as error:  # whoever waits for this thread must know
            self._encoder.give_up()
            with self._changed:
                self._error = error
                self._items.clear()
                self._changed.notify_all()

    def _next(self) -> _Step | _Hole | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._ended)
            return self._items.popleft() if self._items else None


class _Encoder:
    """Draws and encodes; the file is begun, or continued, with the first frame. ``path``: where it is."""

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self._resume = resume
        self._file: FragmentFile | None = None
        self._container: Any = None
        self._stream: Any = None
        self._lettering: Lettering | None = None
        self._captions = Captions(LINE)
        self._last: Picture | None = None  # without words
        self._origin = 0.0
        #: Of the last frame in the file; before it ``_there`` is that of the last one of an earlier run.
        self._pts = self._there = -1
        self._key: int | None = None
        self._told_missing = self._told_unjoined = False

    def add(self, item: _Step | _Hole) -> None:
        if self._container is None:
            self._begin(item)
        if isinstance(item, _Hole):
            self._add_hole(item)
            return
        lines = self._captions.lines(item.said, item.times)
        for frame, time, under in zip(item.frames, item.times, lines, strict=True):
            self._last = fit(frame, self._stream.width, self._stream.height)
            self._show(self._last, time, item.alerts, under, UNDER)

    def close(self) -> None:
        if self._container is not None:
            self._container.mux(self._stream.encode())
            self._container.close()
        if self._file is not None:
            self._file.close()

    def give_up(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._container is not None:
            with suppress(av.error.FFmpegError, OSError, ValueError):
                self._container.close()

    def _begin(self, item: _Step | _Hole) -> None:
        """Continue what an earlier run has left, or begin with the first frame."""
        past = None
        if self._resume:
            self.path, past = find_past(self.path)
        if past is not None:
            self._origin, self._pts, self._there = past.origin or 0.0, past.last, past.last
            self._last = np.zeros((past.height, past.width, 3), np.uint8)
            self._open(past.width, past.height, past)
        elif isinstance(item, _Step) and item.frames:
            self._origin = item.times[0]
            self._open(*canvas(item.frames[0].shape[1], item.frames[0].shape[0]), None)

    def _open(self, width: int, height: int, past: Past | None) -> None:
        self._file = FragmentFile(self.path, past)
        self._container, self._stream = open_film(self._file, width, height, self._origin, past)
        scale = _scale(width, height)
        self._lettering = Lettering(scale)
        self._captions = Captions(min(LINE * WIDTH * scale, width - WIDTH * scale), self._lettering.width)

    def _add_hole(self, hole: _Hole) -> None:
        if self._last is None:
            return
        gap, lines = hole.gap, self._captions.wrapped(hole_text(hole.gap.reason))
        length = max(gap.end - gap.start, 0.0)
        count = min(math.ceil(length / CARD_SECONDS), CARDS)
        for index in range(count):
            self._show(self._last // 3, gap.start + length * index / count, hole.alerts, lines, CENTRE)

    def _show(self, picture: Picture, time: float, alerts: tuple[str, ...], lines: list[str], middle: float) -> None:
        pts = round((time - self._origin) * 1000)
        if pts <= self._there:  # told again
            return
        drawn = picture.copy()
        if self._lettering is not None:
            self._lettering.draw(drawn, lines, middle)
            self._lettering.draw(drawn, [self._captions.cut(line) for line in alerts], TOP, RED)
            self._tell(self._lettering)
        frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
        # Two frames may have the same time; in a file they may not.
        self._pts = max(pts, self._pts + 1)
        frame.pts, frame.time_base = self._pts, MILLISECOND
        if self._key is None or self._pts - self._key >= KEY_SECONDS * 1000:
            self._key, frame.pict_type = self._pts, av.video.frame.PictureType.I
        self._container.mux(self._stream.encode(frame))

    def _tell(self, lettering: Lettering) -> None:
        """Say once that letters are missing, or stand wrong."""
        if lettering.missing and not self._told_missing:
            self._told_missing = True
            letters = " ".join(sorted(lettering.missing)[:TOLD_LETTERS])
            _LOG.warning(
                "%s: no font on this machine has %s; plainer letters or question marks are drawn. Install a font that "
                "has them (Debian: fonts-noto-core, fonts-noto-cjk)",
                *(self.path, letters),
            )
        if lettering.unjoined and not self._told_unjoined:
            self._told_unjoined = True
            _LOG.warning("%s: letters are not joined and ordered as their script needs it; install FriBiDi", self.path)


class Captions:
    """The words under the picture: two lines of ``limit`` that fill up, then begin anew.

    They begin anew behind a sentence too, and go ``LINGER`` seconds after the last word. ``width``: of a text, in what
    ``limit`` is in.
    """

    def __init__(self, limit: float, width: Callable[[str], float] = columns) -> None:
        self._limit, self._width = limit, width
        self._lines: list[str] = []
        self._end = 0.0

    def lines(self, said: Commentary | None, times: tuple[float, ...]) -> list[list[str]]:
        """The lines for each frame of a step, of which ``said`` tells the words."""
        words = printable(said.text).split() if said else []
        if said is not None and words:
            return self._speak(words, said.end, len(times))
        return [self._lines if time < self._end + LINGER else [] for time in times]

    def wrapped(self, text: str) -> list[str]:
        """As much of ``text`` as is shown at once."""
        return wrap(text.split(), self._limit, self._width)[:LINES]

    def cut(self, line: str) -> str:
        """``line``, or its beginning with dots if it is too long."""
        return line if self._width(line) <= self._limit else self._dotted(line)

    def _dotted(self, line: str) -> str:
        # The lengths up to the first that is too long.
        fitting = bisect_right(range(len(line)), self._limit, key=lambda count: self._width(line[:count] + "..."))
        return line[: max(fitting - 1, 0)] + "..."

    def _speak(self, words: list[str], end: float, count: int) -> list[list[str]]:
        lines = wrap(words, self._limit, self._width, self._lines)
        if len(lines) > LINES or "".join(self._lines[-1:]).endswith(SENTENCE_ENDS):
            lines = wrap(words, self._limit, self._width)
        pages = [lines[index : index + LINES] for index in range(0, len(lines), LINES)]
        self._lines, self._end = pages[-1], end
        if count < len(pages):  # more than the frames can show
            pages = pages[: max(count, 1)]
            pages[-1] = [*pages[-1][:-1], self._dotted(pages[-1][-1])]
        return [pages[index * len(pages) // count] for index in range(count)]


def canvas(width: int, height: int) -> tuple[int, int]:
    """The size of the video for pictures of ``width`` x ``height`` pixels: even, readable, not too large."""
    scale = Fraction(max(-(-NARROWEST // width), 1))
    if max(width, height) * scale > LONGEST_SIDE:
        scale = Fraction(LONGEST_SIDE, max(width, height))
    return max(int(width * scale) & ~1, 2), max(int(height * scale) & ~1, 2)


def fit(frame: Picture, width: int, height: int) -> Picture:
    """A ``(h, w, 3)`` picture in ``width`` x ``height`` pixels, with black bars where its shape is another one."""
    scale = min(width / frame.shape[1], height / frame.shape[0])
    inner = [
        max(min(round(side * scale), most), 1) for side, most in zip(frame.shape[1::-1], (width, height), strict=True)
    ]
    # The canvas is even, the picture need not be: a column that is missing is no bar.
    inner = [most if most - one <= 2 else one for one, most in zip(inner, (width, height), strict=True)]
    source = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    how = "POINT" if scale >= 1 else "AREA"
    scaled = source.reformat(*inner, format="rgb24", interpolation=how).to_ndarray()
    if inner == [width, height]:
        return np.ascontiguousarray(scaled)
    whole = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    whole[top : top + inner[1], left : left + inner[0]] = scaled
    return whole


def _scale(width: int, height: int) -> int:
    """How much letters are enlarged."""
    return max(min(height // 240, width // (LINE * WIDTH)), 1)


def _check_ours(path: Path) -> None:
    """Raise OutputError if a video is there that was not made here: a film is not easily had again."""
    if not path.is_file() or not path.stat().st_size:
        return
    with _one_line(path), path.open("rb") as file:
        beginning = file.read(1 << 16)
        # Behind a power failure a file can be zeros.
        if beginning.strip(b"\0") and COMMENT.encode() not in beginning:
            raise OutputError(f"{path} is no video with captions of an earlier run; choose another name or remove it")


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """The one place where what FFmpeg raises becomes an OutputError."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error})") from error
    except av.codec.codec.UnknownCodecError as error:
        raise OutputError(f"cannot write {path}: this FFmpeg has no {error}") from error
