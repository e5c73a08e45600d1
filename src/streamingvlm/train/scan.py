"""Annotation files to a list of chunks: what can be used, where it lies, and how often an epoch sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import SourceError
from ..data.annotations import Line, annotation_files
from ..data.reader import Annotated, read_annotations
from ..data.report import Reason, Report, Unusable
from ..data.videos import Clip, Videos
from ..data.words import EPS, Transcript
from ..models.patches import Patcher
from .chunks import ChunkPlan, Cut
from .config import DataFile


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
        found = scanner.run(list(files_once.values()))
    finally:
        videos.save()
    chosen: list[NDArray[np.int64]] = []
    for number, (entry, some) in enumerate(zip(entries, paths, strict=True)):
        chunks = np.array([chunk for path in some for chunk in found[files_once[path.resolve()]]], np.int64)
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

    def run(self, files: Sequence[Path]) -> dict[Path, list[int]]:
        """For each file the numbers of its places."""
        found: dict[Path, list[int]] = {file: [] for file in files}
        for one in read_annotations(files, self.videos, self.report, self._check):
            before = len(self.places)
            self._cut(one)
            found[one.line.path] += range(before, len(self.places))
            self.report.streams += len(self.places) > before
        return found

    def _check(self, transcript: Transcript, clip: Clip | None) -> None:
        """Refuse a whole clip that is longer than asked, and a video whose frames cannot be resized."""
        whole = self.plan.is_whole(transcript)
        if clip is None:
            if whole and transcript.end is not None:
                self._check_length(transcript, transcript.end)
            return
        try:
            self.patcher.size(clip.header.height, clip.header.width)
        except SourceError as error:
            raise Unusable(Reason.UNREADABLE, f"{clip.path}: {error}") from None
        if whole and transcript.end is None:
            self._check_length(transcript, self._until(transcript, _video_end(clip)))

    def _check_length(self, transcript: Transcript, until: float) -> None:
        seconds = until - transcript.start
        if self.plan.longest is not None and seconds > self.plan.longest + EPS:
            raise Unusable(Reason.TOO_LONG, f"{seconds:g} s of {transcript.video}")

    def _cut(self, one: Annotated) -> None:
        """The chunks of one line."""
        line, transcript, beyond = one.line, one.transcript, _video_end(one.clip)
        until = self._until(transcript, beyond)
        cuts = list(self.plan.cuts(transcript, until))
        if not cuts:
            self.report.skip(Reason.TOO_SHORT, f"{line}: {until - transcript.start:g} s of {transcript.video}")
        told = _last_end(transcript)
        if transcript.end is None and told > beyond + self.plan.step:
            text = f"{line}: words to {told:g} s of {transcript.video}, which ends at {beyond:g} s"
            self.report.skip(Reason.BEYOND, text)
        for cut in cuts:
            self._keep(Place(line, one.clip, cut), transcript, beyond)

    def _keep(self, place: Place, transcript: Transcript, beyond: float) -> None:
        cut, step = place.cut, self.plan.step
        what = f"{place.line}: {cut.start:g}-{cut.start + cut.steps * step:g} s of {transcript.video}"
        if cut.start + (cut.steps - 1) * step >= beyond:
            self.report.skip(Reason.BEYOND, f"{what}, which ends at {beyond:g} s")
        elif not self.plan.enough(transcript, cut):
            self.report.skip(Reason.FEW_WORDS, f"{what}: {cut.words} words")
        else:
            self.places.append(place)

    def _until(self, transcript: Transcript, beyond: float) -> float:
        """Where the chunks end at the latest, on the words' clock; ``beyond``: where the video ends."""
        if transcript.end is not None:
            return transcript.end
        told = _last_end(transcript)
        if self.plan.is_whole(transcript):
            return min(told, beyond)
        # A stream without an end is told as long as its video lasts.
        return told if beyond == math.inf else beyond


def _last_end(transcript: Transcript) -> float:
    return transcript.words[-1].end if transcript.words else transcript.start


def _video_end(clip: Clip) -> float:
    """Where a video ends on the clock of its words; infinite where its header does not say."""
    return math.inf if clip.header.seconds is None else clip.header.seconds + clip.offset
