"""A published benchmark as this package reads it: its videos, its parts, and what is known to be wrong with it.

A benchmark is either of commentary (:class:`CommentaryBenchmark`: windows of a stream, judged in pairs) or of questions
(:class:`QuestionBenchmark`: items with an answer). Another package registers one as an entry point of the group
``streamingvlm.benchmarks``: a callable that gets the folder of the data and that of the videos and returns it;
:class:`SourceError` for data that cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..data.words import Transcript
from ..sources.open import is_locator
from .questions.items import Item, Reply, Score
from .questions.metrics import AverageOf


@dataclass(frozen=True, slots=True)
class Video:
    """A video of a benchmark.

    ``key``: as the data names it, with its folders (two games may share a file name); ``path``: where its file is
    looked for; ``seconds``: how long it has to be at least (0: any length).
    """

    key: str
    path: Path
    seconds: float = 0.0

    @staticmethod
    def find(key: str, root: Path, seconds: float = 0.0) -> Video:
        """The video that the data call ``key``: below ``root``, or a kind of source that needs no file."""
        return Video(key, Path(key) if is_locator(key) else root / key, seconds)

    @property
    def made(self) -> bool:
        """Whether it has no file: a source makes it as it is watched."""
        return is_locator(str(self.path))


@dataclass(frozen=True, slots=True)
class Count:
    """Items of a part of the data (a task, a subset): how many were found, how many were published (None: unknown)."""

    part: str
    found: int
    expected: int | None = None

    @property
    def complete(self) -> bool:
        """Whether the part is as it was published."""
        return self.expected is None or self.found == self.expected


@dataclass(frozen=True, slots=True)
class Defect:
    """Something that is wrong with an item of the data: known of the published revision, or found while reading."""

    item: str
    what: str


@dataclass(frozen=True, slots=True)
class Said:
    """What was said in one step, seconds on the video's clock."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Game:
    """A stream of which commentary is generated: ``video`` from ``start`` to ``end`` seconds on its clock.

    ``name``: what its files are called, different for every game; ``previous``: the human words that end by ``start``,
    joined by spaces; ``words``: all human words; ``group``: its sport or class ("" if unknown).
    """

    name: str
    video: Video
    title: str
    group: str
    start: float
    end: float
    previous: str
    words: Transcript


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a game that is judged: ``reference`` are the human words that end in (``start``, ``end``]."""

    id: str
    game: str
    video: str
    title: str
    group: str
    start: float
    end: float
    reference: str


@runtime_checkable
class Benchmark(Protocol):
    """What ``eval check`` needs of a benchmark. ``revision``: sha256 of its data files, the first 16 digits."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def counts(self) -> Sequence[Count]: ...
    @property
    def videos(self) -> Sequence[Video]: ...
    @property
    def defects(self) -> Sequence[Defect]: ...


@runtime_checkable
class CommentaryBenchmark(Benchmark, Protocol):
    """Games to be commented, and the windows of them that are judged."""

    @property
    def games(self) -> Sequence[Game]: ...
    @property
    def windows(self) -> Sequence[Window]: ...

    def published(self, game: Game, said: Sequence[Said]) -> Iterable[Mapping[str, Any]]:
        """The lines of a prediction file, in the benchmark's published form, of what was said of ``game``."""
        ...

    def texts(self, path: Path) -> Mapping[str, str]:
        """Window id -> text, of a prediction file in the published form, whoever wrote it.

        A window without any words has ""; one that the file does not speak of is missing.
        """
        ...


@runtime_checkable
class QuestionBenchmark(Benchmark, Protocol):
    """Items with one right answer each."""

    @property
    def items(self) -> Sequence[Item]: ...
    @property
    def averages(self) -> Sequence[AverageOf]:
        """The benchmark's own averages."""
        ...

    def replies(self, path: Path) -> Mapping[str, Reply]:
        """Item id -> reply, of a file in the benchmark's published form, or of lines as ``eval generate`` writes."""
        ...

    def score(self, replies: Mapping[str, Reply], parser: str, *, without_defects: bool = False) -> Score:
        """What the replies are worth. ``parser``: ``official`` (the benchmark's own rule) or ``strict``."""
        ...
