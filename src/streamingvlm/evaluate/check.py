"""Whether the data of a benchmark are all there, before any model is loaded.

Of every video only the header is read. A video that is too short is named with the item that needs it; a video that
does not tell its length is not measured.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..data.report import Reason, Unusable
from ..data.videos import Videos
from ..sinks.files import printable
from .benchmark import Benchmark, CommentaryBenchmark, Count, Defect, QuestionBenchmark, Video

#: Headers that are read at once: disks of a network answer several as fast as one.
THREADS = 8
#: A video may be so much shorter than its items need, seconds: times are rounded up to whole seconds.
SLACK = 1.0
#: Cases of each kind that the text names; the JSON has them all.
NAMED = 10


class VideoState(StrEnum):
    """What was found of a video."""

    FOUND = "found"
    MISSING = "missing"
    EMPTY = "0 bytes"
    UNREADABLE = "unreadable"
    SHORT = "shorter than needed"


@dataclass(frozen=True, slots=True)
class VideoCheck:
    """One video. ``seconds``: its length (None: it does not tell); ``needed``: the length that items need."""

    key: str
    path: Path
    state: VideoState
    detail: str = ""
    seconds: float | None = None
    needed: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What is there of a benchmark. ``allow_missing``: whether a part may be missing."""

    benchmark: str
    revision: str
    counts: Sequence[Count]
    videos: Sequence[VideoCheck]
    defects: Sequence[Defect]
    allow_missing: bool = False

    @property
    def complete(self) -> bool:
        """Whether every part is as published and every video can be used. Defects of the data do not count."""
        return all(count.complete for count in self.counts) and not self.problems

    @property
    def exit_status(self) -> int:
        """1 unless all is there or a part may be missing."""
        return 0 if self.complete or self.allow_missing else 1

    @property
    def found(self) -> int:
        """Videos that can be used."""
        return len(self.videos) - len(self.problems)

    @property
    def problems(self) -> Sequence[VideoCheck]:
        """Videos that cannot be used."""
        return [video for video in self.videos if video.state is not VideoState.FOUND]

    def to_json(self) -> dict[str, Any]:
        """All of it; ``states`` counts the videos by what was found of them."""
        states = Counter(video.state for video in self.videos)
        return {
            "benchmark": self.benchmark,
            "revision": self.revision,
            "complete": self.complete,
            "allow_missing": self.allow_missing,
            "parts": [asdict(count) for count in self.counts],
            "videos": {
                "expected": len(self.videos),
                "found": self.found,
                "states": {str(state): states[state] for state in VideoState},
                "length_unknown": len(self._unmeasured()),
                "problems": [{**asdict(one), "path": str(one.path)} for one in self.problems],
            },
            "defects": [asdict(defect) for defect in self.defects],
        }

    def __str__(self) -> str:
        state = "all is there" if self.complete else "incomplete"
        allowed = ", as is allowed" if self.allow_missing and not self.complete else ""
        lines = [f"{self.benchmark}, revision {self.revision}: {state}{allowed}", *self._table()]
        for kind in VideoState:
            lines += _named(
                f"videos, {kind}", [f"{one.key}: {one.detail}" for one in self.problems if one.state is kind]
            )
        lines += _named("videos that do not tell their length", [one.key for one in self._unmeasured()])
        lines += _named("defects of the data", [f"{one.item}: {one.what}" for one in self.defects])
        return "\n".join(lines)

    def _unmeasured(self) -> Sequence[VideoCheck]:
        usable = (video for video in self.videos if video.state is VideoState.FOUND)
        return [video for video in usable if video.seconds is None and video.needed > 0]

    def _table(self) -> Sequence[str]:
        counts = [*self.counts, Count("videos", self.found, len(self.videos))]
        rows = [(printable(one.part), one.found, "-" if one.expected is None else one.expected) for one in counts]
        width = max(len(part) for part, _, _ in rows)
        head = f"  {'part':{width}}  {'found':>7}  {'expected':>8}"
        return [head, *(f"  {part:{width}}  {found:>7}  {expected:>8}" for part, found, expected in rows)]


def check(benchmark: Benchmark, allow_missing: bool = False) -> CheckReport:
    """What is there of a benchmark: its parts, its videos, and what is wrong with its items."""
    videos, needs = Videos(), _needs(benchmark)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda video: _look(video, videos, needs.get(video.key, ())), benchmark.videos))
    return CheckReport(
        benchmark.name, benchmark.revision, benchmark.counts, found, tuple(benchmark.defects), allow_missing
    )


def _look(video: Video, videos: Videos, needs: Sequence[tuple[float, str]]) -> VideoCheck:
    if video.made:
        return VideoCheck(video.key, video.path, VideoState.FOUND, "made as it is watched", needed=video.seconds)
    if os.path.isdir(video.path):
        # Some videos are published as a folder of pictures.
        filled = any(os.scandir(video.path))
        state = VideoState.FOUND if filled else VideoState.EMPTY
        return VideoCheck(video.key, video.path, state, "" if filled else f"nothing in {video.path}")
    if not os.path.isfile(video.path):
        return VideoCheck(video.key, video.path, VideoState.MISSING, f"no file {video.path}")
    try:
        seconds = videos.header(video.path).seconds
    except Unusable as error:
        state = VideoState.EMPTY if error.reason is Reason.EMPTY else VideoState.UNREADABLE
        return VideoCheck(video.key, video.path, state, str(error), needed=video.seconds)
    if seconds is None or seconds + SLACK >= video.seconds:
        return VideoCheck(video.key, video.path, VideoState.FOUND, "", seconds, video.seconds)
    detail = f"{seconds:.1f} s, needed {video.seconds:g} s{_by(seconds, needs)}"
    return VideoCheck(video.key, video.path, VideoState.SHORT, detail, seconds, video.seconds)


def _by(seconds: float, needs: Sequence[tuple[float, str]]) -> str:
    """Which item needs most, and how many others need more than there is."""
    beyond = sorted((end, item) for end, item in needs if end > seconds + SLACK)
    if not beyond:
        return ""
    others = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
    return f" by {beyond[-1][1]}{others}"


def _needs(benchmark: Benchmark) -> Mapping[str, Sequence[tuple[float, str]]]:
    """For each video the seconds up to which items need it."""
    needs: dict[str, list[tuple[float, str]]] = {}
    if isinstance(benchmark, QuestionBenchmark):
        for item in benchmark.items:
            needs.setdefault(item.video, []).append((max(item.time, item.until or 0.0), item.id))
    elif isinstance(benchmark, CommentaryBenchmark):
        for window in benchmark.windows:
            needs.setdefault(window.video, []).append((window.end, window.id))
    return needs


def _named(title: str, cases: Sequence[str]) -> Sequence[str]:
    if not cases:
        return []
    more = [f"  and {len(cases) - NAMED} more"] if len(cases) > NAMED else []
    return [f"{title}: {len(cases)}", *(f"  {printable(case)}" for case in cases[:NAMED]), *more]
