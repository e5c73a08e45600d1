"""A video file as a source of chunks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import EndedError
from ..core.events import Chunk
from .decode import SAME_MOMENT, Shown, VideoFile

#: What stands in front of the kind in a file's comment tag.
KIND_TAG = "streamingvlm "
#: A title longer than this is cut: it becomes the context, which has a token budget.
TITLE_LIMIT = 200


def kind_comment(kind: str, note: str = "") -> str:
    """The comment tag for a recording of a source of ``kind`` (no white space); ``note``: anything else about it."""
    return f"{KIND_TAG}{kind} {note}".rstrip()


def kind_in_comment(comment: str) -> str:
    """The kind that :func:`kind_comment` put into a comment tag; "" for any other comment."""
    kind, *_ = comment.removeprefix(KIND_TAG).split() or [""]
    return kind if comment.startswith(KIND_TAG) else ""


class FileSource:
    """Chunks of ``step`` seconds with ``fps`` frames a second from any file that FFmpeg reads.

    Sample ``k`` is taken at ``start + k / fps`` and gets the last frame that is shown by then. A frame keeps its own
    time; where the video stands still and a frame is taken again, it gets the time of the sample. ``start`` and
    ``duration`` are seconds; times count from the first frame of the file, also when ``start`` is later. The last
    chunk may hold fewer frames. Each iteration reads the file anew.

    ``video_stream`` is one of the file's video streams, from 0 (None: the film, not a cover or thumbnail beside it).
    ``threads``: how many the decoder may use (None: up to four).

    Raises SourceError if the file is missing or broken, has no video track, or ends before ``start``.
    """

    live = False

    def __init__(
        self,
        path: str | Path,
        *,
        fps: float = 2.0,
        step: float = 1.0,
        start: float = 0.0,
        duration: float | None = None,
        video_stream: int | None = None,
        threads: int | None = None,
    ) -> None:
        if not (fps > 0 and step * fps >= 1 - 1e-9 and start >= 0 and (duration is None or duration > 0)):
            raise ValueError(f"a step needs at least one frame: fps={fps}, step={step}, {start=}, {duration=}")
        self.fps, self.step, self.start = fps, step, start
        self.stop = math.inf if duration is None else start + duration
        self.video = VideoFile(Path(path), video_stream, threads)
        # What was read to see whether there is anything at ``start`` is where the first iteration goes on.
        self._begun: Iterator[tuple[int, Shown]] | None = None
        if start > 0:
            samples = self._samples()
            first = next(samples, None)
            if first is None:
                raise EndedError(f"{path} ends before {start:g} s")
            self._begun = chain([first], samples)
        self.name = Path(path).name
        self.context = " ".join(self.video.tags.get("title", "").split())[:TITLE_LIMIT]
        self.kind = kind_in_comment(self.video.tags.get("comment", ""))

    @property
    def broken(self) -> int:
        """Packets skipped so far because they could not be read or decoded."""
        return self.video.broken

    @property
    def breaks(self) -> int:
        """Jumps of the file's clock so far; the time goes on across them."""
        return self.video.breaks

    def __iter__(self) -> Iterator[Chunk]:
        began = time.perf_counter()
        frames: list[NDArray[np.uint8]] = []
        times: list[float] = []
        used: Shown | None = None
        picture: NDArray[np.uint8] | None = None
        index = 0
        samples, self._begun = self._begun or self._samples(), None
        for sample, shown in samples:
            if self._chunk_of(sample) != index:
                yield self._chunk(index, frames, times, time.perf_counter() - began)
                began = time.perf_counter()
                index, frames, times = self._chunk_of(sample), [], []
            fresh = shown is not used
            if fresh or picture is None:
                picture = self._picture(shown, picture)
            frames.append(picture)
            times.append(max(shown.time, self.start + index * self.step) if fresh else self._time(sample))
            used = shown
        if frames:
            yield self._chunk(index, frames, times, time.perf_counter() - began)

    def _picture(self, shown: Shown, before: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """The frame in the size of the one before, which stays if this one cannot be converted."""
        picture = self.video.picture(shown.frame, None if before is None else before.shape[:2])
        if picture is None:
            picture = before
        if picture is None:
            raise self.video.refuse("its pictures cannot be shown")
        return picture

    def _samples(self) -> Iterator[tuple[int, Shown]]:
        """Sample number and the frame to take for it."""
        held: Shown | None = None
        sample = 0
        for shown in self.video.frames(self.start):
            while held is not None and self._time(sample) < shown.time - SAME_MOMENT:
                if self._time(sample) >= self.stop - 1e-9:
                    return
                yield sample, held
                sample += 1
            held = shown
        while held is not None and self._time(sample) < min(held.time + held.duration - SAME_MOMENT, self.stop - 1e-9):
            yield sample, held
            sample += 1

    def _time(self, sample: int) -> float:
        return self.start + sample / self.fps

    def _chunk_of(self, sample: int) -> int:
        return int(sample / self.fps / self.step + 1e-9)

    def _chunk(self, index: int, frames: list[NDArray[np.uint8]], times: list[float], seconds: float) -> Chunk:
        start = self.start + index * self.step
        end = self.start + (index + 1) * self.step
        return Chunk(np.stack(frames), tuple(times), start, end, read_seconds=seconds)
