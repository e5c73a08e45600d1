"""Annotation files to a list of chunks: what can be used, where it lies, and how often an epoch sees it."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from ..core.errors import SourceError
from ..data.annotations import Line, annotation_files, lines
from ..data.report import Reason, Report, Unusable
from ..data.videos import Clip, Videos
from ..data.words import EPS, Stream
from ..models.patches import Patcher
from .chunks import ChunkPlan, Cut
from .config import DataFile

T = TypeVar("T")
R = TypeVar("R")
#: Lines that are read and videos that are opened at the same time: most of the time is waiting for a disk or a network.
THREADS = 16
#: Lines that are looked at ahead of the one whose turn it is.
AHEAD = 16 * THREADS
#: Without a terminal a long scan says how far it has got every so many seconds.
TELL_EVERY = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk is found again: its line, its video, its cut."""

    line: Line
    clip: Clip
    cut: Cut


@dataclass(frozen=True, slots=True)
class Scan:
    """What annotation files hold.

    ``places``: the chunks that are used, each once, in the order of the files. ``numbers``: (n,) int64, the chunks of
    an epoch as indices of ``places``; one that is seen more often stands there as often.
    """

    places: list[Place]
    numbers: NDArray[np.int64]
    report: Report


def scan(files: Sequence[Path | DataFile], videos: Videos, plan: ChunkPlan, patcher: Patcher, *, seed: int = 0) -> Scan:
    """Read all lines of ``files`` (folders stand for the files in them) and the headers of their videos.

    A file that is named several times is read once and seen as often. ``seed`` chooses the chunks of files of which
    an epoch sees a part. Raises SourceError for a file that is not there or cannot be read.
    """
    entries = [file if isinstance(file, DataFile) else DataFile(str(file)) for file in files]
    paths = [annotation_files([Path(entry.file)]) for entry in entries]
    # Read by the first name that it is given: what lies beside a link need not lie beside its target.
    files_once: dict[Path, Path] = {}
    for path in (path for some in paths for path in some):
        files_once.setdefault(path.resolve(), path)
    scanner = _Scanner(videos, plan, patcher)
    try:
        read = scanner.run(list(files_once.values()))
        found = dict(zip(files_once, (numbers for _, numbers in read), strict=True))
    finally:
        videos.save()
    chosen: list[NDArray[np.int64]] = []
    for number, (entry, some) in enumerate(zip(entries, paths, strict=True)):
        chunks = np.array([chunk for path in some for chunk in found[path.resolve()]], np.int64)
        chosen.append(chunks[choose(len(chunks), entry, (seed, number))])
        scanner.report.take(entry.file, entry.repeat, len(chunks), len(chosen[-1]))
    return _epoch(scanner, np.concatenate(chosen) if chosen else np.zeros(0, np.int64))


def choose(count: int, entry: DataFile, seed: Sequence[int]) -> NDArray[np.int64]:
    """Which of ``count`` chunks an epoch sees, in order: at most ``entry.most`` of them, each ``entry.repeat`` times.

    Where not all are seen equally often, ``seed`` decides which; more repeats or chunks keep those of fewer.
    """
    order = np.random.default_rng(seed).permutation(count)[: entry.most or count]
    whole = math.floor(entry.repeat + EPS)
    times = np.full(len(order), whole)
    times[: round((entry.repeat - whole) * len(order))] += 1
    return np.sort(np.repeat(order, times))


def _epoch(scanner: _Scanner, numbers: NDArray[np.int64]) -> Scan:
    """The chunks that are seen, without those that are not."""
    used, places = np.unique(numbers, return_inverse=True)
    kept = [scanner.places[number] for number in used]
    report, step = scanner.report, scanner.plan.step
    report.chunks, report.different = len(numbers), len(kept)
    report.seconds = float(sum(kept[place].cut.steps for place in places) * step)
    return Scan(kept, places.astype(np.int64), report)


class _Scanner:
    """Lines to :attr:`places`, and what is wrong with them into :attr:`report`."""

    def __init__(self, videos: Videos, plan: ChunkPlan, patcher: Patcher) -> None:
        self.videos, self.plan, self.patcher = videos, plan, patcher
        self.places: list[Place] = []
        self.report = Report()
        self._seen: set[bytes] = set()

    def run(self, files: Sequence[Path]) -> Iterator[tuple[Path, list[int]]]:
        """Each file with the numbers of its places."""
        sizes = {file: file.stat().st_size for file in files}
        done = 0
        with _progress(sum(sizes.values())) as tell, ThreadPoolExecutor(THREADS, "scan") as pool:
            for file in files:
                before = len(self.places)
                for line, opened in _ahead(pool, self._open, _lines(file, self.report)):
                    self._add(line, opened)
                    tell(done + line.offset, self.report.lines)
                done += sizes[file]
                yield file, list(range(before, len(self.places)))

    def _open(self, line: Line) -> tuple[Stream, Clip] | Unusable:
        """A line and the header of its video; in a thread of the pool."""
        try:
            stream = line.stream()
            if self.plan.is_whole(stream) and stream.end is not None:
                self._check_length(stream, stream.end - stream.start)
            clip = self.videos.clip(stream.video, line.path.parent, stream.start, stream.end)
            self._check_size(clip)
        except Unusable as error:
            return error
        return stream, clip

    def _add(self, line: Line, opened: tuple[Stream, Clip] | Unusable) -> None:
        """The chunks of one line, in the order of the lines."""
        self.report.lines += 1
        try:
            if isinstance(opened, Unusable):
                raise opened
            stream, clip = opened
            self._check_new(stream, clip)
            until, beyond = self._until(stream, clip)
        except Unusable as error:
            self.report.skip(error.reason, f"{line}: {error}")
            return
        self._note(stream)
        before = len(self.places)
        cuts = list(self.plan.cuts(stream, until))
        if not cuts:
            self.report.skip(Reason.TOO_SHORT, f"{line}: {until - stream.start:g} s of {stream.video}")
        if stream.end is None and stream.words and stream.words[-1].end > beyond + self.plan.step:
            told = f"{line}: words to {stream.words[-1].end:g} s of {stream.video}, which ends at {beyond:g} s"
            self.report.skip(Reason.BEYOND, told)
        for cut in cuts:
            self._keep(Place(line, clip, cut), stream, beyond)
        self.report.streams += len(self.places) > before

    def _keep(self, place: Place, stream: Stream, beyond: float) -> None:
        cut, step = place.cut, self.plan.step
        what = f"{place.line}: {cut.start:g}-{cut.start + cut.steps * step:g} s of {stream.video}"
        if cut.start + (cut.steps - 1) * step >= beyond:
            self.report.skip(Reason.BEYOND, f"{what}, which ends at {beyond:g} s")
        elif not self.plan.enough(stream, cut):
            self.report.skip(Reason.FEW_WORDS, f"{what}: {cut.words} words")
        else:
            self.places.append(place)

    def _note(self, stream: Stream) -> None:
        """What a line holds that is not used."""
        if stream.questions:
            self.report.notes["questions and answers, which are not used"] += stream.questions
        if stream.end is not None:
            outside = len(stream.words) - stream.count(stream.start, stream.end)
            if outside:
                self.report.notes["words outside the times of their clip, which are not used"] += outside

    def _check_length(self, stream: Stream, seconds: float) -> None:
        if self.plan.longest is not None and seconds > self.plan.longest + EPS:
            raise Unusable(Reason.TOO_LONG, f"{seconds:g} s of {stream.video}")

    def _check_size(self, clip: Clip) -> None:
        try:
            self.patcher.size(clip.header.height, clip.header.width)
        except SourceError as error:
            raise Unusable(Reason.UNREADABLE, f"{clip.path}: {error}") from None

    def _check_new(self, stream: Stream, clip: Clip) -> None:
        told = repr((str(clip.path), stream.start, stream.end, stream.words)).encode()
        key = blake2b(told, digest_size=12).digest()
        if key in self._seen:
            raise Unusable(Reason.DUPLICATE, f"{stream.video} from {stream.start:g} s again")
        self._seen.add(key)

    def _until(self, stream: Stream, clip: Clip) -> tuple[float, float]:
        """Where the stream ends, and where its video does (both on the words' clock; infinite where unknown)."""
        seconds = clip.header.seconds
        beyond = math.inf if seconds is None else seconds + clip.offset
        told = stream.words[-1].end if stream.words else stream.start
        if stream.end is not None:
            return stream.end, beyond
        if self.plan.is_whole(stream):
            until = min(told, beyond)
            self._check_length(stream, until - stream.start)
            return until, beyond
        # A stream without an end is told as long as its video lasts.
        return (told if beyond == math.inf else beyond), beyond


def _lines(file: Path, report: Report) -> Iterator[Line]:
    try:
        yield from lines(file, report)
    except OSError as error:
        raise SourceError(f"cannot read {file} ({error.strerror or error})") from error


def _ahead(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterator[T]) -> Iterator[tuple[T, R]]:
    """Each item with its result, in order; a bounded number of them is worked on at a time."""
    running: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            running.append((item, pool.submit(work, item)))
            if len(running) >= AHEAD:
                first, result = running.popleft()
                yield first, result.result()
        while running:
            first, result = running.popleft()
            yield first, result.result()
    finally:
        for _, result in running:
            result.cancel()


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], None]]:
    """What is told bytes and lines that are done: a bar where a person sees it, else a line now and then."""
    if sys.stderr.isatty():
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("reading annotations", total=total)
            yield lambda done, _: bar.update(task, completed=done)
        return
    due = time.monotonic() + TELL_EVERY

    def tell(done: int, count: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + TELL_EVERY
            print(f"reading annotations: {done / max(total, 1):.0%}, {count:,} lines", file=sys.stderr)

    yield tell
