"""Decoding: one video file to frames with repaired times, whatever the container got wrong."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from ..core.errors import SourceError
from .container import edge, may_jump, open_container, packet_clock, reason, spacing_of, tags_of
from .timestamps import CLOCK_BREAK, CLOCK_GAP, Clock, FrameStamps

#: Two times closer than this are the same moment: Matroska rounds stamps to whole milliseconds.
SAME_MOMENT = 1e-3
#: A seek that landed behind its target is tried again this much earlier before the file is read from its beginning.
SEEK_MARGIN = 10.0
#: So many failures to read the next packet, one after another, mean that the file ends here.
READ_FAILURES = 16
#: Packets that are kept on the way to a later start; with more since the last key frame, decoding begins.
MAX_KEPT = 2000
#: Frames that lie between the first and the last stamp that tells of the same break.
REORDERED = 8
#: A picture is shown at most so many seconds after it is decoded, where only the latter has a stamp.
DECODED_AHEAD = 1.0

#: Decoders that give a colour profile its name, which PyAV and FFmpeg would both free: a crash of the process.
NAMED_PROFILES = frozenset({"png", "apng"})
#: FFmpeg's filters that take away EXIF (31: it has no name there) and the profile. In this order: what is taken away
#: leaves its place to the last entry, and EXIF before the display matrix would hide it from :class:`_SideData`.
UNNAME = ("mode=delete:type=31", "mode=delete:type=ICC_PROFILE")

T = TypeVar("T")
END = object()
Packets = Iterator[tuple[float | None, Any]]


@dataclass(frozen=True, slots=True)
class Shown:
    """A decoded frame: shown from ``time`` on, for ``duration``; both in seconds, the first frame of the file at 0."""

    time: float
    duration: float
    frame: Any


@dataclass(slots=True, weakref_slot=True)
class VideoFile:
    """A file that is known to hold at least one frame that can be decoded.

    ``number``: which of its video streams, from 0 (None: the film). ``threads``: decoder threads (None: up to four).
    ``tags``: the container's metadata with lower-case keys. ``broken`` counts packets that could not be read or
    decoded and were skipped; ``breaks`` counts jumps of the file's clock that the time goes on across. Raises
    SourceError when the file is missing, broken or has no video track.
    """

    path: Path
    number: int | None = None
    threads: int | None = None
    tags: Mapping[str, str] = field(init=False)
    broken: int = field(default=0, init=False)
    breaks: int = field(default=0, init=False)
    _trouble: str = field(default="", init=False)
    _opened: _Pass | None = field(default=None, init=False)
    _reformatter: VideoReformatter = field(default_factory=VideoReformatter, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._opened = _Pass(self)
        self.tags = tags_of(self._opened.container)

    def __del__(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def frames(self, start: float = 0.0) -> Iterator[Shown]:
        """Frames in order from the last one at or before ``start`` (or a little earlier) to the end."""
        opened, self._opened = self._opened or _Pass(self), None
        with closing(opened):
            if opened.move_to(start):
                yield from opened.frames()
                return
        with closing(_Pass(self)) as opened:
            yield from opened.frames()

    def picture(self, frame: Any, size: tuple[int, int] | None = None) -> NDArray[np.uint8] | None:
        """:func:`to_rgb`; None if FFmpeg cannot convert this one, which then counts as broken."""
        return self.attempt(lambda: to_rgb(frame, size, self._reformatter))

    def attempt(self, call: Callable[[], T]) -> T | None:
        """What a call of the library gives; None if it raises, whatever it raises: then something is broken."""
        try:
            return call()
        except Exception as error:
            self.broken += 1
            self._trouble = reason(error)
            return None

    def refuse(self, what: str) -> SourceError:
        """The error for a file of which nothing can be used, with the last thing that the library said."""
        return SourceError(f"{self.path}: {what}" + (f" ({self._trouble})" if self._trouble else ""))


class _Pass:
    """One pass through a file, which stands at its first frame.

    ``move_to`` may move it to a later start, once; then ``frames`` gives what comes. Raises SourceError.
    """

    def __init__(self, video: VideoFile) -> None:
        self.video = weakref.proxy(video)  # no circle: a file that nobody reads is closed as it is dropped
        self.container, self.stream = open_container(video.path, video.number, video.threads)
        self.spacing = spacing_of(self.stream)
        self._jumps = may_jump(self.container)
        self._clock, self._stamps = packet_clock(self.container, self.stream), FrameStamps()
        self._first: Shown | None = None
        self._broke = -math.inf
        self._read_before: deque[tuple[float | None, Any]] = deque(maxlen=MAX_KEPT)
        self._packets = self._read()
        self._shown = Clock(self.spacing, gap=CLOCK_BREAK if self._jumps else CLOCK_GAP, back=CLOCK_BREAK)
        self._frames = self._timed(self._decoded(self._noted(self._packets)))
        self._first = next(self._frames, None)
        if self._first is None:
            self.close()
            raise video.refuse("its video track has no frame that can be decoded")
        self._origin = self._shown.origin

    def close(self) -> None:
        """Free the file and the decoder now: its threads must not be left to a process that is forked off later."""
        self.container.close()
        self._frames, self._packets = iter(()), iter(())
        self._first = None
        self._read_before.clear()
        self.container = self.stream = None

    def frames(self) -> Iterator[Shown]:
        if self._first is not None:
            yield self._first
        yield from self._frames

    def move_to(self, start: float) -> bool:
        """Go on to the last frame at or before ``start``; false if that failed and the pass cannot be used any more."""
        if start <= 0 or self._origin is None:
            return True
        if self._jumps:
            # Where stamps jump, a stamp does not tell a place: the packets are read, and decoded from there on.
            self._restart(self._skip(start))
            return self._before(start)
        targets = [start, start - SEEK_MARGIN] if start > SEEK_MARGIN else [start]
        return any(self._seek(target) and self._before(start) for target in targets)

    def _before(self, start: float) -> bool:
        return self._first is not None and self._first.time <= start + SAME_MOMENT

    def _seek(self, target: float) -> bool:
        stamp = int((target + (self._origin or 0.0)) / self.stream.time_base)
        try:
            self.container.seek(stamp, stream=self.stream)
        except Exception:  # not every file can, and the library has no list of what it raises then
            return False
        self._clock.forget()
        self._restart(self._read())
        return True

    def _restart(self, packets: Packets) -> None:
        """Decode from other packets on; what comes without a stamp before the first that has one cannot be placed."""
        with edge(self.video.path, "cannot be read on"):
            self.stream.codec_context.flush_buffers()
        self._stamps.forget()
        self._shown.last = None
        self._frames = self._timed(self._decoded(packets), placed=False)
        self._first = next(self._frames, None)

    def _skip(self, start: float) -> Packets:
        """All packets from the last key frame at or before ``start`` on."""
        kept: list[tuple[float | None, Any]] = []
        packets = chain(self._read_before, self._packets)
        for time, packet in packets:
            if packet.is_keyframe and self._shown_by(packet, time) <= start + SAME_MOMENT:
                kept = []
            kept.append((time, packet))
            if len(kept) > MAX_KEPT or (time is not None and time > start + CLOCK_BREAK):
                break
        yield from kept
        yield from packets

    def _shown_by(self, packet: Any, time: float | None) -> float:
        """When a packet's picture is there at the latest."""
        if packet.pts is not None:
            return (_seconds(packet.pts, packet.time_base) or 0.0) - (self._origin or 0.0)
        return math.inf if time is None else time + DECODED_AHEAD

    def _timed(self, frames: Iterator[Any], placed: bool = True) -> Iterator[Shown]:
        for frame in frames:
            stamp = self._stamps.read(frame_stamp(frame), _seconds(frame.dts, frame.time_base))
            if not placed and stamp is None:
                continue
            placed = True
            before = self._shown.breaks
            time = self._shown.read(stamp)
            if self._shown.breaks > before:
                self._note_break(time)
            length = _seconds(frame.duration, frame.time_base) or 0.0
            # A frame that lasts no time, or hours, is a damaged header.
            yield Shown(time, length if 2 * SAME_MOMENT < length <= self._shown.gap else self.spacing, frame)

    def _noted(self, packets: Packets) -> Packets:
        """The same, and remembered up to the first frame, if they will have to be skipped once more."""
        for item in packets:
            if self._jumps and self._first is None:
                self._read_before.append(item)
            yield item

    def _read(self) -> Packets:
        """All packets with their times; those that cannot be read are skipped and counted."""
        packets, failures = self.container.demux(self.stream), 0
        while failures < READ_FAILURES:
            packet = self.video.attempt(partial(next, packets, END))
            if packet is None:
                failures += 1
                packets = self.container.demux(self.stream)
                continue
            failures = 0
            if packet is END:
                return
            before = self._clock.breaks
            time = self._clock.mend(packet)
            if self._clock.breaks > before:
                self._note_break(time or 0.0)
            yield time, packet

    def _note_break(self, time: float) -> None:
        """Count a break, once: where frames are reordered, several stamps on both of its sides tell of it."""
        self.video.breaks += time > self._broke + REORDERED * self.spacing
        self._broke = time

    def _decoded(self, packets: Packets) -> Iterator[Any]:
        """All frames that can be decoded; packets that are broken are skipped and counted."""
        flushed = False
        for _, packet in packets:
            if packet.size == 0 and packet.dts is not None:
                continue  # how AVI says that the picture stays
            flushed = packet.size == 0
            yield from self._plain(self.video.attempt(packet.decode) or ())
        if not flushed:
            yield from self._plain(self.video.attempt(lambda: self.stream.codec_context.decode(None)) or ())

    def _plain(self, frames: Iterable[Any]) -> Iterator[Any]:
        """The frames, safe to be asked for their side data; one that cannot be made so counts as broken."""
        if self.stream.codec_context.name not in NAMED_PROFILES:
            yield from frames
            return
        for frame in frames:
            plain = self.video.attempt(partial(without_profile, frame))
            if plain is not None:
                yield plain


def frame_stamp(frame: Any) -> float | None:
    """Presentation stamp in seconds, on the file's own clock."""
    return _seconds(frame.pts, frame.time_base)


def _seconds(ticks: int | None, base: Any) -> float | None:
    """Ticks of a time base (falsy: unknown) in seconds."""
    return float(ticks * base) if ticks is not None and base else None


class _SideData(SideDataContainer):
    """A frame's side data up to the first kind that FFmpeg knows and this PyAV does not.

    The display matrix comes before those: decoders put it in before what they find in the picture itself.
    """

    def __init__(self, frame: Any) -> None:
        with suppress(ValueError):
            super().__init__(frame)  # type: ignore[call-arg]


def without_profile(frame: Any) -> Any:
    """The same picture without its colour profile and EXIF, which conversion to RGB does not use."""
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    filters = [graph.add("sidedata", args) for args in UNNAME]
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()


def to_rgb(
    frame: Any, size: tuple[int, int] | None = None, reformatter: VideoReformatter | None = None
) -> NDArray[np.uint8]:
    """``(height, width, 3)`` uint8 RGB, upright.

    ``size`` = ``(height, width)`` of the upright picture to scale to, for streams that change their size on the way.
    ``reformatter``: one that is kept for pictures of one kind. PyAV's own has threads, which a process that is forked
    from one that has used it would wait for in vain; this one has none.
    """
    flip_y, flip_x, transposed = _orientation(frame)
    height, width = size or (None, None)
    if transposed:
        height, width = width, height
    reformatter = reformatter or VideoReformatter()
    picture: Any = reformatter.reformat(frame, width, height, "rgb24", threads=1)  # in this thread
    pixels: NDArray[np.uint8] = picture.to_ndarray()
    if transposed:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def _orientation(frame: Any) -> tuple[bool, bool, bool]:
    """``(flip_y, flip_x, transposed)``: transpose first, then flip. Read off the frame's display matrix."""
    data = _SideData(frame).get("DISPLAYMATRIX")
    if data is None:
        return turn_of(frame.rotation)
    # Row vectors times ((a, b), (c, d)), y down: x' = a x + c y, y' = b x + d y. Only quarter turns are honoured.
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return d < 0, a < 0, False
    return b < 0, c < 0, True


def turn_of(degrees: int) -> tuple[bool, bool, bool]:
    """The same for a turn against the clock without a mirror, which is what PyAV always tells."""
    quarter = round(degrees / 90) % 4
    return [(False, False, False), (True, False, True), (True, True, False), (False, True, True)][quarter]
