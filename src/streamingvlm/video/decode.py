"""Decoding: one video file to frames with repaired times, whatever the container got wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from ..errors import SourceError

#: Two times closer than this are the same moment: Matroska rounds stamps to whole milliseconds.
SAME_MOMENT = 1e-3
#: A step back of more than this, or forward of more than ``CLOCK_GAP``, is a new clock (a wrapped or joined stream).
CLOCK_BACK = 0.25
CLOCK_GAP = 3600.0
#: A seek that landed behind its target is tried again this much earlier before the file is read from its beginning.
SEEK_MARGIN = 10.0
#: So many failures to read the next packet, one after another, mean that the file ends here.
READ_FAILURES = 16
#: Demuxers that would show a text file as pictures of letters.
TEXT_FORMATS = frozenset({"tty", "bin", "xbin", "adf", "idf"})


@dataclass(frozen=True, slots=True)
class Shown:
    """A decoded frame: shown from ``time`` on, for ``duration``; both in seconds, the first frame of the file at 0."""

    time: float
    duration: float
    frame: Any


@dataclass(slots=True)
class Clock:
    """Turns presentation stamps into seconds from the first frame that never go back.

    ``spacing`` is the time between frames where a stamp is missing. ``origin`` is the stamp of the first frame, if
    it is known. A stamp that goes back a little is held; one that jumps starts a new clock that goes on from here.
    """

    spacing: float
    origin: float | None = None
    last: float | None = None

    def read(self, stamp: float | None) -> float:
        """Seconds from the first frame for the next frame in order of presentation."""
        expected = 0.0 if self.last is None else self.last + self.spacing
        if stamp is None:
            time = expected
        else:
            if self.origin is None:
                self.origin = stamp - expected
            time = stamp - self.origin
            if self.last is not None:
                if time < self.last - CLOCK_BACK or time > self.last + CLOCK_GAP:
                    self.origin = stamp - expected
                    time = expected
                time = max(time, self.last)
        self.last = time
        return time


def open_container(path: Path, threads: int | None = None) -> tuple[Any, Any]:
    """Open a file and pick its video stream; ``(container, stream)``. Raises SourceError.

    ``threads``: of the decoder (None: up to four, as many as there are processors).
    """
    if not path.exists():
        raise SourceError(f"{path}: no such file")
    if not path.is_file():
        raise SourceError(f"{path} is not a file")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty")
    try:
        # An absolute path cannot be taken for a protocol; a broken title must not stop the video.
        container = av.open(str(path.absolute()), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{path} is not a video that can be read ({reason})") from error
    if container.format.name in TEXT_FORMATS:
        container.close()
        raise SourceError(f"{path} is a text file, not a video")
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads or min(4, os.cpu_count() or 1)
            return container, stream
    container.close()
    raise SourceError(f"{path} has no video track")


@dataclass(slots=True)
class VideoFile:
    """A file that is known to hold at least one frame that can be decoded.

    ``tags``: the container's metadata with lower-case keys. ``broken`` counts packets that could not be read or
    decoded and were skipped. ``threads``: see :func:`open_container`. Raises SourceError when the file is missing,
    broken or has no video track.
    """

    path: Path
    threads: int | None = None
    tags: Mapping[str, str] = field(init=False)
    origin: float | None = field(init=False)
    broken: int = 0

    def __post_init__(self) -> None:
        container, stream = open_container(self.path, self.threads)
        with container:
            self.tags = {key.lower(): value for key, value in container.metadata.items()}
            first = next(self._packets(container, stream), None)
        self.broken = 0
        if first is None:
            raise SourceError(f"{self.path}: its video track has no frame that can be decoded")
        self.origin = _stamp(first)

    def frames(self, start: float = 0.0) -> Iterator[Shown]:
        """Frames in order from the last one at or before ``start`` (or a little earlier) to the end."""
        targets: list[float | None] = [None]
        if start > 0 and self.origin is not None:
            targets = [start, start - SEEK_MARGIN, None] if start > SEEK_MARGIN else [start, None]
        for target in targets:
            frames = self._from(target)
            head = next(frames, None)
            if target is None or (head is not None and head.time <= start + SAME_MOMENT):
                if head is not None:
                    yield head
                yield from frames
                return

    def _from(self, target: float | None) -> Iterator[Shown]:
        """Frames from the key frame before ``target`` (None: from the beginning); none if the file cannot seek."""
        container, stream = open_container(self.path, self.threads)
        with container:
            if target is not None:
                stamp = int((target + (self.origin or 0.0)) / stream.time_base)
                try:
                    container.seek(stamp, stream=stream)
                except (av.error.FFmpegError, OSError, ValueError):
                    return
            rate = stream.guessed_rate or stream.average_rate
            clock = Clock(float(1 / rate) if rate else 1 / 25, self.origin)
            for frame in self._packets(container, stream):
                length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
                yield Shown(clock.read(_stamp(frame)), length or clock.spacing, frame)

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        """All frames that can be decoded; packets that are broken are skipped and counted."""
        packets, failures = container.demux(stream), 0
        while failures < READ_FAILURES:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError, ValueError):
                failures += 1
                self.broken += 1
                packets = container.demux(stream)
                continue
            failures = 0
            yield from self._decode(packet)
        yield from self._decode(None, stream)

    def _decode(self, packet: Any, stream: Any = None) -> Iterator[Any]:
        try:
            frames = stream.codec_context.decode(None) if packet is None else packet.decode()
        except (av.error.FFmpegError, OSError, ValueError):
            self.broken += 1
            return
        yield from frames


def _stamp(frame: Any) -> float | None:
    """Presentation stamp in seconds, on the file's own clock."""
    return None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)


def to_rgb(frame: Any, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """``(height, width, 3)`` uint8 RGB, upright.

    ``size`` = ``(height, width)`` of the upright picture to scale to, for streams that change their size on the way.
    """
    flip_y, flip_x, transposed = _orientation(frame)
    height, width = size or (None, None)
    if transposed:
        height, width = width, height
    pixels: NDArray[np.uint8] = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    if transposed:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def _orientation(frame: Any) -> tuple[bool, bool, bool]:
    """``(flip_y, flip_x, transposed)``: transpose first, then flip. Read off the frame's display matrix."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    # Row vectors times ((a, b), (c, d)), y down: x' = a x + c y, y' = b x + d y. Only quarter turns are honoured.
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return d < 0, a < 0, False
    return b < 0, c < 0, True
