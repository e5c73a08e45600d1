"""Annotation files to transcripts with their videos: lines read and video headers opened in threads, ahead of use."""

from __future__ import annotations

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

from rich.console import Console
from rich.progress import Progress

from ..core.errors import SourceError
from .annotations import Line, lines
from .report import Reason, Report, Unusable
from .videos import Clip, Videos
from .words import Transcript

T = TypeVar("T")
R = TypeVar("R")
#: Lines that are read and videos that are opened at the same time: most of the time is waiting for a disk or a network.
THREADS = 16
#: Lines that are looked at ahead of the one whose turn it is.
AHEAD = 16 * THREADS
#: Without a terminal a long scan says how far it has got every so many seconds.
TELL_EVERY = 30.0

#: Raises :class:`Unusable` for a transcript that is not wanted: asked before its video is opened, with None, and after.
Check = Callable[[Transcript, Clip | None], None]


@dataclass(frozen=True, slots=True)
class Annotated:
    """One usable line: where it begins, what is said, and the video that it is said of."""

    line: Line
    transcript: Transcript
    clip: Clip


def read_annotations(
    files: Sequence[Path], videos: Videos, report: Report, check: Check | None = None
) -> Iterator[Annotated]:
    """The usable lines of ``files`` in their order, each with the header of its video.

    What cannot be used is counted in ``report`` by reason, what was repaired by repair. ``check`` may refuse further
    lines; it is called in several threads. The same words of the same video are given once. Raises SourceError for a
    file that cannot be read. ``videos`` stays open: its cache is closed by :meth:`Videos.save`.
    """
    sizes = {file: _size(file) for file in files}
    seen: set[bytes] = set()
    done = 0
    with _progress(sum(sizes.values())) as tell, ThreadPoolExecutor(THREADS, "annotations") as pool:
        for file in files:
            for line, found in _ahead(pool, lambda line: _open(line, videos, check), lines(file, report)):
                report.lines += 1
                try:
                    yield _usable(line, found, seen, report)
                except Unusable as error:
                    report.skip(error.reason, f"{line}: {error}")
                tell(done + line.offset, report.lines)
            done += sizes[file]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise SourceError(f"cannot read {file} ({error.strerror or error})") from error


def _open(line: Line, videos: Videos, check: Check | None) -> Annotated | Unusable:
    """A line and the header of its video; in a thread of the pool."""
    try:
        transcript = line.transcript()
        if check is not None:
            check(transcript, None)
        clip = videos.clip(transcript.video, line.path.parent, transcript.start, transcript.end)
        if check is not None:
            check(transcript, clip)
    except Unusable as error:
        return error
    return Annotated(line, transcript, clip)


def _usable(line: Line, found: Annotated | Unusable, seen: set[bytes], report: Report) -> Annotated:
    """``found``, unless it cannot be used or is a duplicate; what was repaired in it and is not used is counted."""
    if isinstance(found, Unusable):
        raise found
    transcript = found.transcript
    told = repr((str(found.clip.path), transcript.start, transcript.end, transcript.words)).encode()
    key = blake2b(told, digest_size=12).digest()
    if key in seen:
        raise Unusable(Reason.DUPLICATE, f"{transcript.video} from {transcript.start:g} s again")
    seen.add(key)
    report.repair(transcript.repairs, str(line))
    if transcript.questions:
        report.notes["questions and answers, which are not used"] += transcript.questions
    if transcript.end is not None:
        outside = len(transcript.words) - transcript.count(transcript.start, transcript.end)
        if outside:
            report.notes["words outside the times of their clip, which are not used"] += outside
    return found


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
