"""What replies are worth: tasks, averages named by their rules, and how sure each figure is.

An item without a reply is left out of its task and counted as missing; a reply without text (a call that failed) is
wrong. As soon as anything is missing, no average has the name of the benchmark's headline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from ..bootstrap import RESAMPLES, SEED, Interval, interval, replicate
from .items import Average, Item, Part, Reply, Score
from .parsers import Mark, Rule


class AverageRule(StrEnum):
    """How one figure is made of several tasks."""

    POOLED = "pooled: right answers over all items"
    TASKS = "mean of the tasks' accuracies"
    GROUPS = "mean of the categories, each the mean of its tasks' accuracies"


#: Behind the name of an average that leaves items out.
WITHOUT = "without items that are known to be wrong"
#: Tasks that a rule names one by one, at most.
NAMED = 6


@dataclass(frozen=True, slots=True)
class AverageOf:
    """An average to make. ``tasks``: of which tasks (None: of all).

    ``counts_as``: of a pooled one: a task that weighs as if it had so many items. ``headline``: the benchmark's own
    figure.
    """

    name: str
    rule: AverageRule
    tasks: tuple[str, ...] | None = None
    headline: bool = False
    counts_as: Mapping[str, float] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """The rule in words."""
        weights = "".join(f"; {task} counts as {count:g} items" for task, count in self.counts_as.items())
        tasks = ""
        if self.tasks is not None:
            named = ", ".join(self.tasks) if len(self.tasks) <= NAMED else f"{len(self.tasks)} tasks"
            tasks = f" of {named}"
        return f"{self.rule}{tasks}{weights}"


def score_replies(
    items: Sequence[Item],
    replies: Mapping[str, Reply],
    rule: Rule,
    averages: Sequence[AverageOf],
    *,
    parser: str,
    expected: int | Mapping[str, int] | None = None,
    without: Collection[str] = frozenset(),
) -> Score:
    """What ``replies`` to ``items`` are worth under ``rule``.

    ``parser``: what the rule is called; ``expected``: items as published, in all or by task (an average over some tasks
    is then complete as soon as those are); ``without``: ids of items that are left out of the count because they are
    known to be wrong (an average that this changes is no headline).
    """
    marks = {item.id: rule(item, replies[item.id]) for item in items if item.id in replies}
    counted = [item for item in items if item.id not in without]
    parts = make_parts(counted, replies, marks)
    there = Counter(item.task for item in items if item.id in replies)
    lacking = _lacking(items, there, expected)
    unread = {task for one in averages for task in one.tasks or ()} - {item.task for item in items}
    dropped = {item.task for item in items if item.id in without}
    named = [_named(average(parts, one), one, lacking | unread, dropped) for one in averages]
    right = {item.id: value for item in counted if (value := _value(marks, item)) is not None}
    unknown = len(replies.keys() - {item.id for item in items})
    notes = tuple(getattr(replies, "notes", ()))
    total = sum(expected.values()) if isinstance(expected, Mapping) else expected
    return Score(parser, parts, named, right, total, there.total(), not lacking, unknown, notes)


def _lacking(items: Sequence[Item], there: Counter[str], expected: int | Mapping[str, int] | None) -> set[str]:
    """Tasks of which not every published item has a reply."""
    read = Counter(item.task for item in items)
    if isinstance(expected, Mapping):
        return {task for task in {*read, *expected} if not there[task] == read[task] == expected.get(task)}
    if not items or (expected is not None and len(items) != expected):
        return {*read, ""}
    return {task for task in read if there[task] != read[task]}


def _named(made: Average, of: AverageOf, lacking: Collection[str], dropped: Collection[str]) -> Average:
    """The average under the name that it may have."""

    def touches(tasks: Collection[str]) -> bool:
        return bool(tasks) and (of.tasks is None or "" in tasks or bool(set(of.tasks) & set(tasks)))

    if touches(lacking):
        return replace(made, name=f"{made.name} of a partial set", headline=False)
    if touches(dropped):
        return replace(made, name=f"{made.name} {WITHOUT}", headline=False)
    return made


def make_parts(items: Sequence[Item], replies: Mapping[str, Reply], marks: Mapping[str, Mark]) -> list[Part]:
    """A part for every task, in the order of the items."""
    tasks: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        tasks.setdefault((item.task, item.group), []).append(item)
    return [_part(task, group, members, replies, marks) for (task, group), members in tasks.items()]


def _part(
    task: str, group: str, items: Sequence[Item], replies: Mapping[str, Reply], marks: Mapping[str, Mark]
) -> Part:
    there = [item for item in items if item.id in marks]
    values = [value for item in there if (value := marks[item.id].value) is not None]
    answered = [item for item in there if replies[item.id].text is not None or replies[item.id].probabilities]
    unparsed = sum(not marks[item.id].parsed for item in answered)
    return Part(
        task,
        group,
        items=len(values),
        answered=len(answered),
        correct=sum(values),
        unparsed=unparsed,
        missing=len(items) - len(there),
        left_out=len(there) - len(values),
    )


def average(parts: Sequence[Part], of: AverageOf) -> Average:
    """One figure; its value is None where a task that it is made of has no items."""
    counts = np.array([[part.correct, part.items] for part in parts], np.float64).reshape(len(parts), 2)
    value = _Averager(parts, of)(counts)
    return Average(of.name, of.told, value, of.headline)


def intervals_by_video(
    items: Sequence[Item],
    score: Score,
    averages: Sequence[AverageOf],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Interval]:
    """95% intervals of each task (by its name) and average (by the name in ``averages``), percent.

    Videos are resampled, not items: questions about one video are not independent. A name that is both a task's and an
    average's is the average.
    """
    # A benchmark may count its items a second time under other names: those parts are not these items'.
    own = {(item.task, item.group) for item in items}
    parts = [part for part in score.parts if (part.name, part.group) in own]
    places = {(part.name, part.group): place for place, part in enumerate(parts)}
    rows: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}
    for item in items:
        if item.id in score.right:
            row = rows.setdefault(item.video, np.zeros((len(places), 2)))
            row[places[item.task, item.group]] += (score.right[item.id], 1)
    if not rows:
        return {}
    table = np.stack(list(rows.values()))
    figures = {part.name: _Averager([part], AverageOf("", AverageRule.POOLED)) for part in parts}
    at = {part.name: place for place, part in enumerate(parts)}
    made = {one.name: _Averager(parts, one) for one in averages}

    def statistic(videos: Sequence[int]) -> dict[str, float | None]:
        counts = table[np.asarray(videos)].sum(axis=0)
        tasks = {name: figure(counts[at[name]][None]) for name, figure in figures.items()}
        return tasks | {name: figure(counts) for name, figure in made.items()}

    (found,) = replicate([range(len(table))], statistic, resamples, seed)
    return {str(path[0]): interval(value, drawn) for path, (value, drawn) in found.items()}


class _Averager:
    """The value of an average from the counts of the parts: an array of (right, items) rows."""

    def __init__(self, parts: Sequence[Part], of: AverageOf) -> None:
        self.rule = of.rule
        self.places = [place for place, part in enumerate(parts) if of.tasks is None or part.name in of.tasks]
        self.absent = of.tasks is not None and not set(of.tasks) <= {part.name for part in parts}
        self.weights = np.array([of.counts_as.get(parts[place].name, np.nan) for place in self.places])
        groups = [parts[place].group for place in self.places]
        self.groups = [[n for n, group in enumerate(groups) if group == one] for one in dict.fromkeys(groups)]

    def __call__(self, counts: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float | None:
        right, items = counts[self.places].T if self.places else (np.zeros(0), np.zeros(0))
        if self.absent or not len(items) or not items.all():
            return None
        accuracy = 100 * right / items
        if self.rule is AverageRule.POOLED:
            weights = np.where(np.isnan(self.weights), items, self.weights)
            return float((accuracy * weights).sum() / weights.sum())
        if self.rule is AverageRule.TASKS:
            return float(accuracy.mean())
        return float(np.mean([accuracy[members].mean() for members in self.groups]))


def _value(marks: Mapping[str, Mark], item: Item) -> float | None:
    mark = marks.get(item.id)
    return None if mark is None else mark.value
