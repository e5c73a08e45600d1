"""What a report shows: figures of pairs, windows with their texts and votes, scores of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..benchmark import Said
from ..bootstrap import Interval
from ..judging.votes import Choice, Vote
from ..questions.items import Average, Item, Part, Score


@dataclass(frozen=True, slots=True)
class Label:
    """How a row of a table names a contestant.

    ``mode``: ``stream``, ``offline`` or "" (a prediction file does not tell); ``found`` and ``expected``: games, or
    items; ``limit``: a run of the first videos alone (None: of all); ``asked``: how questions were put; ``blind``: it
    was shown nothing.
    """

    name: str
    mode: str = ""
    policy: str = ""
    preset: str = ""
    task: str = ""
    revision: str = ""
    found: int | None = None
    expected: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    asked: str = ""
    blind: bool = False

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Label:
        """Of what ``run.json`` says."""
        settings = about.get("settings") if isinstance(about.get("settings"), dict) else {}
        assert isinstance(settings, dict)
        return cls(
            name=str(about.get("name", "")),
            mode=str(about.get("mode", "")),
            policy=str(about.get("policy") or settings.get("policy") or ""),
            preset=str(about.get("preset", "")),
            task=str(about.get("task", "")),
            revision=str(about.get("revision", "")),
            found=_whole(about.get("found")),
            expected=_whole(about.get("expected")),
            settings=settings,
            origin=about["origin"] if isinstance(about.get("origin"), dict) else {},
            limit=_whole(settings.get("limit")),
            asked=str(settings.get("asked") or ""),
            blind=settings.get("blind") is True,
        )

    @property
    def complete(self) -> bool:
        """Whether everything was run, as far as it is known."""
        return self.limit is None and self._all_found

    @property
    def _all_found(self) -> bool:
        return self.expected is None or self.found is None or self.found >= self.expected


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate in percent with its interval, of ``n`` cases. ``name``: of the part of the votes that it is of."""

    name: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0

    @classmethod
    def of(cls, figure: Mapping[str, Any] | None, name: str = "") -> Rate:
        """Of a figure as :mod:`..judging.win_rates` gives it; without a case if there is none."""
        return cls(name, **{key: figure[key] for key in ("value", "low", "high", "n")}) if figure else cls(name)


@dataclass(frozen=True, slots=True)
class PairFigures:
    """How a fares against b: the figures of :func:`..judging.win_rates.win_rates`, typed.

    ``expected`` and ``judged``: votes; ``windows``: of the data; ``seen``: windows with a vote; ``wins_a``, ``ties``,
    ``wins_b``: votes; ``errors``: calls without a vote; ``empty_a``, ``empty_b``: windows of which a contestant said
    nothing; ``controlled_why``: why there is no win rate at equal length ("" if there is one).
    """

    windows: int
    seen: int
    videos: int
    expected: int
    judged: int
    errors: int
    wins_a: int
    ties: int
    wins_b: int
    empty_a: int
    empty_b: int
    rate: Rate
    without_empty: Rate
    controlled: Rate
    consistent: Rate
    flips: Rate
    first: Rate
    stable: Rate
    among_consistent: Rate
    controlled_why: str = ""
    fifths: Sequence[Rate] = ()
    groups: Sequence[Rate] = ()
    length: Sequence[Rate] = ()

    @property
    def complete(self) -> bool:
        """Whether every vote that was to be had is there."""
        return self.judged == self.expected


@dataclass(frozen=True, slots=True)
class WindowRow:
    """A window that was judged. ``reference``: None where no input holds it."""

    id: str
    video: str
    group: str
    title: str
    start: float
    end: float
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """What a contestant said of a window. ``steps``: as it was said, where that is known; silent steps left out."""

    text: str
    steps: Sequence[Said] = ()


@dataclass(frozen=True, slots=True)
class WindowVerdict:
    """The votes of one pair on one window. ``winner``: of most of its votes; None where all of them failed."""

    window: str
    winner: Choice | None
    flip: bool
    error: bool
    empty: str
    votes: Sequence[Vote]


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two contestants, by name, as one judge sees them.

    ``settings``: the first line of the votes' file; ``calibrated``: whether the judge has passed its calibration;
    ``uncalibrated``: why it counts as not calibrated.
    """

    a: str
    b: str
    judge: str
    file: Path
    settings: Mapping[str, Any]
    figures: PairFigures
    verdicts: Sequence[WindowVerdict]
    calibrated: bool = True
    uncalibrated: str = ""


@dataclass(frozen=True, slots=True)
class CommentaryReport:
    """Everything about commentary.

    ``texts``: contestant -> window id -> what it said; ``measured``: contestant -> figures that need no judge, where a
    benchmark was there to tell them.
    """

    contestants: Sequence[Label]
    windows: Sequence[WindowRow]
    texts: Mapping[str, Mapping[str, Text]]
    pairs: Sequence[PairRow]
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What an answer that takes no looking is worth: ``majority``, ``constant Yes``, ``blind``."""

    name: str
    score: Score


@dataclass(frozen=True, slots=True)
class ScoreFile:
    """What ``eval score`` writes of one contestant on one benchmark.

    ``items``; ``replies``: item id -> raw reply (None: none); ``parsed``: parser -> item id -> answer (None: none was
    found). Without them the page has no list of items, or does not tell unparsed ones. ``intervals``: parser -> name of
    a task or average -> its 95% interval, percent.
    """

    task: str
    label: Label
    scores: Sequence[Score]
    baselines: Sequence[Baseline] = ()
    items: Sequence[Item] = ()
    replies: Mapping[str, str | None] = field(default_factory=dict)
    parsed: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)

    def score(self, parser: str) -> Score | None:
        """The score under ``official`` or ``strict``."""
        return next((score for score in self.scores if score.parser == parser), None)

    @property
    def complete(self) -> bool:
        """Whether every published item was there and has a reply."""
        return bool(self.scores) and self.label.complete and all(score.complete for score in self.scores)


@dataclass(frozen=True, slots=True)
class Column:
    """A figure that rows have: an average or a task. ``n``: items (None for averages)."""

    name: str
    group: str
    rule: str
    n: int | None
    headline: bool = False


@dataclass(frozen=True, slots=True)
class Questions:
    """All contestants on one benchmark of questions."""

    task: str
    revision: str
    files: Sequence[ScoreFile]

    @property
    def complete(self) -> bool:
        """Whether no contestant lacks an item."""
        return all(file.complete for file in self.files)


@dataclass(frozen=True, slots=True)
class ReportData:
    """A whole report. ``different``: settings in which rows differ though they stand in one table (allowed by flag)."""

    commentary: CommentaryReport | None
    questions: Sequence[Questions] = ()
    different: Sequence[str] = ()

    @property
    def partial(self) -> list[str]:
        """What is not complete, a line each; a report with any has no headline."""
        lines = []
        if self.commentary is not None:
            for label in self.commentary.contestants:
                if not label.complete:
                    limit = "" if label.limit is None else f" (limited to {label.limit})"
                    lines.append(f"{label.name}: {label.found} of {label.expected} games{limit}")
            for pair in self.commentary.pairs:
                lines += _partial_pair(pair)
        for part in self.questions:
            for file in part.files:
                if not file.complete:
                    lines.append(f"{part.task}, {file.label.name}: {_replied(file)}")
        return lines

    @property
    def uncalibrated(self) -> list[str]:
        """Judges whose votes prove nothing, a line each; such a pair has no headline."""
        pairs = self.commentary.pairs if self.commentary is not None else ()
        return [f"{pair.a} vs {pair.b}: {pair.judge} {pair.uncalibrated}" for pair in pairs if not pair.calibrated]


def part_of(score: Score | None, name: str, group: str) -> Part | None:
    """A task's part of a score."""
    return next((part for part in score.parts if (part.name, part.group) == (name, group)), None) if score else None


def average_of(score: Score | None, name: str) -> Average | None:
    """An average of a score."""
    return next((average for average in score.averages if average.name == name), None) if score else None


def columns(part: Questions) -> list[Column]:
    """Averages, then tasks, of any contestant; a task's ``n`` is the largest that any of them has."""
    averages: dict[str, Column] = {}
    tasks: dict[tuple[str, str], Column] = {}
    for file in part.files:
        for score in file.scores:
            for average in score.averages:
                averages.setdefault(average.name, Column(average.name, "", average.rule, None, average.headline))
            for task in score.parts:
                key, known = (task.name, task.group), tasks.get((task.name, task.group))
                if known is None or (known.n or 0) < task.items:
                    tasks[key] = Column(task.name, task.group, "", task.items)
    return [*averages.values(), *tasks.values()]


def _partial_pair(pair: PairRow) -> list[str]:
    figures = pair.figures
    if figures.complete:
        return []
    calls = "1 call" if figures.errors == 1 else f"{figures.errors} calls"
    failed = f", {calls} failed" if figures.errors else ""
    return [f"{pair.a} vs {pair.b}: {figures.judged} of {figures.expected} votes{failed}"]


def _replied(file: ScoreFile) -> str:
    if not file.scores:
        return "no scores"
    score = file.scores[0]
    answered = sum(part.answered for part in score.parts)
    return f"{answered} of {score.expected if score.expected is not None else score.found} items have a reply"


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
