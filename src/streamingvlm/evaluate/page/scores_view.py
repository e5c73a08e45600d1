"""The table of tasks and contestants of one benchmark of questions, as the page and the Markdown show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from ..bootstrap import Interval
from ..questions.items import Score
from .data import Baseline, Column, Label, Questions, ScoreFile, average_of, columns, part_of

OFFICIAL, STRICT = "official", "strict"
#: How constant answers among the baselines are called: one of them for each answer.
ALWAYS = "always "


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure, percent. ``unparsed``: share of the replies; ``n`` and ``of``: items of this row, and of the column.

    ``best``: of the contestants; ``low``: not above the best baseline; ``note``: what stands beside a baseline.
    """

    official: float | None
    strict: float | None = None
    unparsed: float | None = None
    n: int | None = None
    of: int | None = None
    bounds: Interval | None = None
    note: str = ""
    best: bool = False
    low: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A contestant, or a baseline."""

    name: str
    cells: Sequence[Cell]
    label: Label | None = None
    complete: bool = True
    baseline: bool = False


@dataclass(frozen=True, slots=True)
class Headline:
    """A benchmark's official figure of a complete set."""

    contestant: str
    name: str
    rule: str
    value: float
    bounds: Interval | None


@dataclass(frozen=True, slots=True)
class Band:
    """Columns of one group."""

    name: str
    span: int


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Everything about one benchmark."""

    task: str
    revision: str
    complete: bool
    columns: Sequence[Column]
    bands: Sequence[Band]
    rows: Sequence[Row]
    headlines: Sequence[Headline]


def score_table(part: Questions) -> ScoreTable:
    """The table; a set that is not complete has no headlines."""
    heads = columns(part)
    base = _baselines(part, heads)
    best_base = [_most([row.cells[number].official for row in base]) for number in range(len(heads))]
    contestants = [[_cell(file, column) for column in heads] for file in part.files]
    best = [_most([cells[number].official for cells in contestants]) for number in range(len(heads))]
    rows = []
    for file, cells in zip(part.files, contestants, strict=True):
        marked = [_marked(*each, several=len(part.files) > 1) for each in zip(cells, best, best_base, strict=True)]
        rows.append(Row(file.label.name, marked, file.label, file.complete))
    return ScoreTable(part.task, part.revision, part.complete, heads, _bands(heads), [*rows, *base], _headlines(part))


def unparsed(file: ScoreFile) -> list[str] | None:
    """Ids of items whose reply has no answer under the official parser (None: the file does not tell)."""
    answers = file.parsed.get(OFFICIAL) or file.parsed.get(STRICT)
    if answers is None:
        return None
    return [item for item, answer in answers.items() if answer is None and file.replies.get(item) is not None]


def _figure(score: Score | None, column: Column) -> float | None:
    if score is None:
        return None
    if column.n is None:
        average = average_of(score, column.name)
        return average.value if average else None
    part = part_of(score, column.name, column.group)
    return part.accuracy if part else None


def _cell(file: ScoreFile, column: Column) -> Cell:
    official, strict = file.score(OFFICIAL), file.score(STRICT)
    told = official or strict
    part = part_of(told, column.name, column.group) if column.n is not None else None
    parts = [part] if part else told.parts if told and column.n is None else []
    answered = sum(one.answered for one in parts)
    share = 100 * sum(one.unparsed for one in parts) / answered if answered else None
    bounds = file.intervals.get(OFFICIAL, {}).get(column.name)
    return Cell(
        _figure(official, column), _figure(strict, column), share, part.items if part else None, column.n, bounds
    )


def _marked(cell: Cell, best: float | None, base: float | None, *, several: bool) -> Cell:
    value = cell.official
    if value is None:
        return cell
    return Cell(
        value, cell.strict, cell.unparsed, cell.n, cell.of, cell.bounds, cell.note,
        best=several and value == best,
        low=base is not None and value <= base,
    )  # fmt: skip


def _baselines(part: Questions, heads: Sequence[Column]) -> list[Row]:
    """A row for each baseline; constant answers make one row, of the best of them for each column."""
    found: dict[str, Baseline] = {}
    for file in part.files:
        for one in file.baselines:
            same = found.setdefault(one.name, one)
            if [task.accuracy for task in same.score.parts] != [task.accuracy for task in one.score.parts]:
                found[f"{one.name}, {file.label.name}"] = one
    constant = {name: one for name, one in found.items() if name.startswith(ALWAYS)}
    rows = []
    if constant:
        rows.append(Row("best constant answer", [_best_constant(constant, column) for column in heads], baseline=True))
    for name, one in found.items():
        if name not in constant:
            rows.append(Row(name, [Cell(_figure(one.score, column)) for column in heads], baseline=True))
    return rows


def _best_constant(constant: dict[str, Baseline], column: Column) -> Cell:
    values = {name: _figure(one.score, column) for name, one in constant.items()}
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return Cell(None)
    name = max(known, key=lambda one: known[one])
    return Cell(known[name], note=name.removeprefix(ALWAYS))


def _headlines(part: Questions) -> list[Headline]:
    if not part.complete:
        return []
    found = []
    for file in part.files:
        score = file.score(OFFICIAL)
        for average in score.averages if score else ():
            if average.headline and average.value is not None:
                bounds = file.intervals.get(OFFICIAL, {}).get(average.name)
                found.append(Headline(file.label.name, average.name, average.rule, average.value, bounds))
    return found


def _bands(heads: Sequence[Column]) -> list[Band]:
    """Groups of the columns, from left to right; none if no task has a group."""
    if not any(column.group for column in heads):
        return []
    return [Band(name, len(list(members))) for name, members in groupby(heads, key=lambda column: column.group)]


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
