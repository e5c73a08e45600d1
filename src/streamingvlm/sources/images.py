"""A folder of pictures as a source of chunks: what some data sets publish in place of a video."""

from __future__ import annotations

import math
import re
import time
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import EndedError, SourceError
from ..core.events import Chunk
from .container import edge
from .decode import VideoFile

#: Pictures a second, unless the caller says how many: that of the published folders of TVQA.
RATE = 3.0
#: Names of pictures end with one of these, in any case.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
#: Slack for comparing times that were divided, seconds.
EPS = 1e-6


class ImagesSource:
    """Chunks of ``step`` seconds with ``fps`` frames a second from the pictures of a folder, ``rate`` of them a second.

    A picture that is called by its number (``00012.jpg``) is shown from number / ``rate`` seconds on, the first one
    from the start. Where one is called otherwise all stand in the order of their names, the first at 0 s. Sample ``k``
    is taken at ``start + k / fps``. All pictures get the size of the first that is read.

    Raises SourceError if the folder holds no picture or one that cannot be read, EndedError if it ends before
    ``start``.
    """

    live = False
    context = ""
    kind = ""

    def __init__(
        self,
        folder: str | Path,
        *,
        fps: float = 2.0,
        step: float = 1.0,
        start: float = 0.0,
        duration: float | None = None,
        rate: float = RATE,
    ) -> None:
        if not (fps > 0 and rate > 0 and step * fps >= 1 - 1e-9 and start >= 0 and (duration is None or duration > 0)):
            raise ValueError(f"a step needs at least one frame: {fps=}, {step=}, {start=}, {duration=}, {rate=}")
        self.fps, self.step, self.start = fps, step, start
        self._numbers, self._paths = _pictures(Path(folder))
        self.name = Path(folder).name
        self._rate = rate
        self.seconds = (self._numbers[-1] + 1) / rate
        self._stop = self.seconds if duration is None else min(start + duration, self.seconds)
        if start >= self.seconds - EPS:
            raise EndedError(f"{folder} ends before {start:g} s")

    def __iter__(self) -> Iterator[Chunk]:
        began = time.perf_counter()
        frames: list[NDArray[np.uint8]] = []
        times: list[float] = []
        index, shown, picture = 0, -1, None
        for sample in range(math.ceil((self._stop - self.start) * self.fps - EPS)):
            moment = self.start + sample / self.fps
            if (own := int(sample / self.fps / self.step + 1e-9)) != index:
                yield self._chunk(index, frames, times, time.perf_counter() - began)
                began, index, frames, times = time.perf_counter(), own, [], []
            place = max(bisect_right(self._numbers, moment * self._rate + EPS) - 1, 0)
            fresh = place != shown or picture is None
            if place != shown or picture is None:
                picture, shown = _read(self._paths[place], None if picture is None else picture.shape[:2]), place
            frames.append(picture)
            stands = max(self._numbers[place] / self._rate, self.start + index * self.step)
            times.append(min(stands, moment) if fresh else moment)
        yield self._chunk(index, frames, times, time.perf_counter() - began)

    def _chunk(self, index: int, frames: list[NDArray[np.uint8]], times: list[float], seconds: float) -> Chunk:
        start = self.start + index * self.step
        return Chunk(np.stack(frames), tuple(times), start, start + self.step, read_seconds=seconds)


def _pictures(folder: Path) -> tuple[list[int], list[Path]]:
    """Numbers and paths of the pictures of a folder, in order."""
    with edge(folder, "cannot be looked at"):
        found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    numbered = sorted((int(path.stem), path) for path in found if re.fullmatch("[0-9]{1,9}", path.stem))
    # A thumbnail beside numbered pictures is none of them.
    pairs = numbered or list(enumerate(sorted(found)))
    if not pairs:
        raise SourceError(f"{folder} is a folder without pictures ({', '.join(sorted(SUFFIXES))})")
    return [number for number, _ in pairs], [path for _, path in pairs]


def _read(path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """A picture in ``size`` (height, width; None: its own)."""
    file = VideoFile(path, threads=1)
    frame = next(file.frames(), None)
    picture = None if frame is None else file.picture(frame.frame, size)
    if picture is None:
        raise file.refuse("its picture cannot be shown")
    return picture
