"""The same tables as the page has, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ...sinks.files import printable
from ..questions.items import Score
from .charts import bounds, percent
from .data import CommentaryReport, Label, PairRow, Questions, Rate, ReportData, WindowVerdict
from .scores_view import Cell, ScoreTable, score_table


def markdown(data: ReportData, title: str) -> str:
    """All tables, as GitHub shows them."""
    parts = [f"# {_cell(title)}", *_notes(data)]
    if data.commentary is not None:
        parts += ["## Commentary", _contestants(data.commentary.contestants)]
        if data.commentary.pairs:
            parts += [_pairs(data.commentary.pairs)]
            for pair in data.commentary.pairs:
                parts += list(_parts(pair))
        parts += [_measured(data.commentary)] if data.commentary.measured else []
    for questions in data.questions:
        parts += [f"## {_cell(questions.task)}", _scores(score_table(questions))]
    return "\n\n".join(parts) + "\n"


def report_json(data: ReportData) -> dict[str, Any]:
    """All figures and what they are of, without texts."""
    commentary = data.commentary
    return {
        "partial": data.partial,
        "uncalibrated": data.uncalibrated,
        "different": list(data.different),
        "commentary": None if commentary is None else _commentary_json(commentary),
        "questions": [_questions_json(part) for part in data.questions],
    }


def _commentary_json(commentary: CommentaryReport) -> dict[str, Any]:
    return {
        "contestants": [asdict(label) for label in commentary.contestants],
        "windows": len(commentary.windows),
        "without_judge": {name: dict(tree) for name, tree in commentary.measured.items()},
        "pairs": [
            {
                "a": pair.a,
                "b": pair.b,
                "settings": dict(pair.settings),
                "complete": pair.figures.complete,
                "calibrated": pair.calibrated,
                "figures": asdict(pair.figures),
                "windows": {one.window: _verdict_json(one) for one in pair.verdicts},
            }
            for pair in commentary.pairs
        ],
    }


def _verdict_json(one: WindowVerdict) -> dict[str, Any]:
    return {"winner": one.winner, "flip": one.flip, "error": one.error, "empty": one.empty}


def _questions_json(part: Questions) -> dict[str, Any]:
    return {
        "task": part.task,
        "revision": part.revision,
        "complete": part.complete,
        "contestants": [
            {
                "label": asdict(file.label),
                "complete": file.complete,
                "scores": [_score_json(score) for score in file.scores],
                "baselines": [{"name": one.name, "score": _score_json(one.score)} for one in file.baselines],
            }
            for file in part.files
        ],
    }


def _score_json(score: Score) -> dict[str, Any]:
    return {name: value for name, value in asdict(score).items() if name != "right"}


def _notes(data: ReportData) -> list[str]:
    notes = []
    if data.partial:
        notes.append("**Partial set: no headline figure.** " + "; ".join(_cell(line) for line in data.partial))
    if data.uncalibrated:
        notes.append(
            "**Judge not calibrated: no headline figure.** " + "; ".join(_cell(line) for line in data.uncalibrated)
        )
    if data.different:
        notes.append("**Settings differ.** " + "; ".join(_cell(line) for line in data.different))
    return notes


def _contestants(labels: Sequence[Label]) -> str:
    rows = [
        [one.name, one.mode or "not told", one.policy or "–", one.preset or "–", _of(one.found, one.expected)]
        for one in labels
    ]
    return table(["Contestant", "Mode", "Policy", "Preset", "Videos"], rows, right=())


def _pairs(pairs: Sequence[PairRow]) -> str:
    heads = ("A", "B", "Judge", "Win rate of A", "95%", "A / tie / B", "At equal length", "Orders agree")
    more = ("First wins", "Errors", "Empty A / B", "Votes")
    return table([*heads, *more], [_pair(pair) for pair in pairs], right=range(3, len(heads) + len(more)))


def _pair(pair: PairRow) -> list[str]:
    f = pair.figures
    mark = ("" if f.complete else " (partial)") + ("" if pair.calibrated else " (judge not calibrated)")
    return [
        pair.a,
        pair.b,
        pair.judge,
        percent(f.rate.value) + mark,
        bounds(f.rate),
        f"{f.wins_a} / {f.ties} / {f.wins_b}",
        _rate(f.controlled) or f.controlled_why,
        percent(f.consistent.value),
        percent(f.first.value),
        str(f.errors),
        f"{f.empty_a} / {f.empty_b}",
        f"{f.judged} of {f.expected}",
    ]


def _parts(pair: PairRow) -> Iterator[str]:
    for what, rates in (("Sport", pair.figures.groups), ("Fifth of the video", pair.figures.fifths)):
        if rates:
            rows = [[rate.name, percent(rate.value), bounds(rate), str(rate.n)] for rate in rates]
            yield f"{_cell(pair.a)} against {_cell(pair.b)}, by {what.lower()}:"
            yield table([what, "Win rate of A", "95%", "Votes"], rows, right=(1, 2, 3))


def _measured(commentary: CommentaryReport) -> str:
    kinds = ("words_per_second", "repeated_lines", "distinct_3", "longest_repeat")
    rows = []
    for name, tree in commentary.measured.items():
        told = [tree["windows"]["all"][kind] for kind in kinds] + [tree["mentions"]["names"]["share"]]
        rows.append([name, *("–" if value is None else f"{value:.3g}" for value in told)])
    return table(["Contestant", *(kind.replace("_", " ") for kind in kinds), "unsupported names"], rows, range(1, 6))


def _scores(view: ScoreTable) -> str:
    heads = ["Contestant", "Mode", "Policy", "Preset", "Figure"] + [column.name for column in view.columns]
    rows = [["", "", "", "", "n", *["" if column.n is None else str(column.n) for column in view.columns]]]
    for row in view.rows:
        label = row.label
        about = [label.mode or "not told", label.policy or "–", label.preset or "–"] if label else ["", "", ""]
        name = row.name + ("" if row.complete else " (partial)")
        if row.baseline:
            rows.append([name, *about, "baseline", *[_with_note(cell) for cell in row.cells]])
            continue
        rows.append([name, *about, "official", *[percent(cell.official) for cell in row.cells]])
        rows.append(["", "", "", "", "strict", *[percent(cell.strict) for cell in row.cells]])
        rows.append(["", "", "", "", "unparsed", *[percent(cell.unparsed) for cell in row.cells]])
    rules = "\n".join(f"- {_cell(column.name)}: {_cell(column.rule)}" for column in view.columns if column.rule)
    return table(heads, rows, right=range(5, len(heads))) + (f"\n\n{rules}" if rules else "")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int]) -> str:
    """A Markdown table. ``right``: columns of figures."""
    figures = set(right)
    line = "|".join("---:" if number in figures else "---" for number in range(len(heads)))
    return "\n".join([_row(heads), f"|{line}|", *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    plain = printable(text).replace("\\", "\\\\")
    for sign in "|`*_[]<>#":
        plain = plain.replace(sign, "\\" + sign)
    return plain


def _with_note(cell: Cell) -> str:
    return percent(cell.official) + (f" ({cell.note})" if cell.note else "")


def _rate(rate: Rate) -> str:
    return "" if rate.value is None else f"{percent(rate.value)} ({bounds(rate)})"


def _of(found: int | None, expected: int | None) -> str:
    if found is None:
        return "–"
    return str(found) if expected is None else f"{found} of {expected}"
