"""What a contestant's replies are worth: under both parsers, with and without known defects, beside all baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from .benchmark import QuestionBenchmark
from .bootstrap import Interval
from .page.data import Baseline, Label, ScoreFile
from .questions import parsers
from .questions.baselines import CHANCE, MAJORITY, baselines, chance, majority
from .questions.items import Average, Item, Part, Reply, Score
from .questions.metrics import WITHOUT, intervals_by_video, score_replies
from .runs import Contestant

PARSERS = (parsers.OFFICIAL, parsers.STRICT)
OWN = "* the benchmark's own figure"
#: How the names of constant baselines begin.
ALWAYS = "always "


@runtime_checkable
class Remarks(Protocol):
    """A benchmark that has figures of its own beside the score, each told in a line."""

    def remarks(self, replies: Mapping[str, Reply]) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Scored:
    """What is written, and what a person is told besides: how replies were read."""

    file: ScoreFile
    notes: Sequence[str]

    def __str__(self) -> str:
        """Tables as a person reads them."""
        return "\n".join(_lines(self.file, self.notes))


def score_contestant(benchmark: QuestionBenchmark, contestant: Contestant, wanted: Sequence[str] = PARSERS) -> Scored:
    """Score the replies of a contestant under the ``wanted`` parsers, with all baselines that need no video.

    Where defects of the data are known, also without the items that have them.
    """
    replies = benchmark.replies(contestant.predictions)
    scores = [benchmark.score(replies, parser) for parser in wanted]
    intervals = {score.parser: intervals_by_video(benchmark.items, score, benchmark.averages) for score in scores}
    if benchmark.defects:
        without = [benchmark.score(replies, parser, without_defects=True) for parser in wanted]
        scores += [replace(score, parser=f"{score.parser}, no defects") for score in without]
    file = ScoreFile(
        task=benchmark.name,
        label=Label.of(dict(contestant.about)),
        scores=scores,
        baselines=_baselines(benchmark, [item for item in benchmark.items if item.answer]),
        items=benchmark.items,
        replies={key: reply.text for key, reply in replies.items()},
        parsed={parsers.STRICT: _parsed(benchmark.items, replies)},
        intervals=intervals,
    )
    notes = [*getattr(replies, "notes", ()), *(note for score in scores for note in score.notes)]
    if isinstance(benchmark, Remarks):
        notes += benchmark.remarks(replies)
    return Scored(file, list(dict.fromkeys(notes)))


def _baselines(benchmark: QuestionBenchmark, items: Sequence[Item]) -> list[Baseline]:
    found = [Baseline(name, benchmark.score(made, parsers.OFFICIAL)) for name, made in baselines(items).items()]
    drawn = score_replies(items, majority(items), chance(items), benchmark.averages, parser=CHANCE)
    return [*found, Baseline(CHANCE, drawn)]


def _parsed(items: Sequence[Item], replies: Mapping[str, Reply]) -> dict[str, str | None]:
    return {item.id: parsers.read(item, replies[item.id]) for item in items if item.id in replies}


def _lines(file: ScoreFile, notes: Sequence[str]) -> list[str]:
    first = file.scores[0]
    found = sum(part.answered for part in first.parts)
    expected = first.expected if first.expected is not None else first.found
    told = "" if file.complete else "; the set is not complete: none of these is the benchmark's own figure"
    heads = ["task", "n", "unparsed", *(score.parser for score in file.scores), "majority", "chance", "best constant"]
    averages = ["average", *(score.parser for score in file.scores), "95 %", "rule"]
    return [
        f"{file.task}: {file.label.name}, {found} of {expected} items have a reply{told}",
        "",
        *_table(heads, [_part_row(file, part) for part in first.parts]),
        "",
        *_table(averages, _averages(file)),
        *(
            ["", "* the benchmark's own figure"]
            if any(one.headline for one in first.averages) and file.complete
            else []
        ),
        *([""] if notes else []),
        *(f"note: {note}" for note in notes),
    ]


def _part_row(file: ScoreFile, part: Part) -> list[str]:
    def of(score: Score | None) -> float | None:
        parts = score.parts if score is not None else ()
        one = next((other for other in parts if (other.name, other.group) == (part.name, part.group)), None)
        return one.accuracy if one is not None and one.answered else None

    named = {one.name: one.score for one in file.baselines}
    constant = [of(score) for name, score in named.items() if name.startswith(ALWAYS)]
    best = max((value for value in constant if value is not None), default=None)
    values = [*(of(score) for score in file.scores), of(named.get(MAJORITY)), of(named.get(CHANCE)), best]
    return [f"{part.group} {part.name}".strip(), str(part.items), str(part.unparsed), *map(_shown, values)]


def _averages(file: ScoreFile) -> list[list[str]]:
    first = file.scores[0]
    bounds = file.intervals.get(first.parser, {})
    rows = []
    for average in first.averages:
        values = [_value(score.averages, average.name) for score in file.scores]
        name = f"{average.name} *" if average.headline and file.complete else average.name
        rows.append([name, *map(_shown, values), _range(bounds.get(average.name)), average.rule])
    return rows


def _value(averages: Sequence[Average], name: str) -> float | None:
    return next((one.value for one in averages if one.name in (name, f"{name} {WITHOUT}")), None)


def _range(bounds: Interval | None) -> str:
    if bounds is None or bounds.low is None or bounds.high is None:
        return "-"
    return f"{bounds.low:.1f} - {bounds.high:.1f}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
