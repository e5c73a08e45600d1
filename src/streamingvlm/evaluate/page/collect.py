"""Puts runs, votes and scores together, and refuses what does not fit together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ...core.errors import SourceError
from ..benchmark import CommentaryBenchmark, Window
from ..judging.prompts import CUT
from ..judging.votes import Choice, Vote
from ..judging.votes_file import Judged, Place
from ..judging.win_rates import win_rates
from .data import (
    CommentaryReport,
    Label,
    PairFigures,
    PairRow,
    Questions,
    Rate,
    ReportData,
    ScoreFile,
    Text,
    WindowRow,
    WindowVerdict,
)
from .inputs import ReportedRun, Votes, words

#: Sections of a request, as :mod:`..judging.prompts` writes them.
_SECTION = re.compile(r"<(transcript|commentary_a|commentary_b)>\n(.*?)\n</\1>", re.DOTALL)
Side = Literal["a", "b"]
SIDES: tuple[Side, Side] = ("a", "b")


def collect(
    runs: Sequence[ReportedRun],
    votes: Sequence[Votes],
    scores: Sequence[ScoreFile],
    *,
    benchmark: CommentaryBenchmark | None = None,
    allow_different: bool = False,
) -> ReportData:
    """All of it, for a page.

    ``votes``: files with what is in them, each a pair of its own: votes of two judges are never pooled. ``benchmark``:
    for titles, references and texts that no request holds. SourceError for what does not fit together: two runs of one
    name, votes of other runs or other words, data of two revisions, presets that differ (unless ``allow_different``).
    """
    if not runs and not scores:
        raise SourceError("a report needs runs or scores")
    _check_names(runs, votes)
    different = [] if not runs else _check_alike([run.label for run in runs], "", allow_different)
    judged = [one.judged for one in votes]
    _check_data(runs, judged, benchmark)
    commentary = None
    if votes or any(run.said or run.texts for run in runs):
        commentary = _commentary(runs, votes, benchmark)
    questions = _questions(scores)
    for part in questions:
        different += _check_alike([file.label for file in part.files], part.task, allow_different)
    if commentary is None and not questions:
        raise SourceError("there is nothing to report: give votes of these runs, or scores")
    return ReportData(commentary, questions, list(dict.fromkeys(different)))


# What has to fit


def _check_names(runs: Sequence[ReportedRun], votes: Sequence[Votes]) -> None:
    by_name: dict[str, Path] = {}
    for run in runs:
        if run.label.name in by_name:
            raise SourceError(
                f"{by_name[run.label.name]} and {run.path} are both named {run.label.name!r}: a report cannot tell "
                "them apart; name one anew in its run.json, or leave it out"
            )
        by_name[run.label.name] = run.path
    seen: dict[str, Path] = {}
    for one in votes:
        path, judged = one.path, one.judged
        for side in SIDES:
            name = name_of(judged, side)
            if name not in by_name:
                known = ", ".join(by_name) or "none"
                raise SourceError(f"{path} holds votes on {name!r}, which is not among the runs ({known}); add its run")
        same = str(
            sorted((key, str(judged.settings.get(key))) for key in ("task", "a", "b", "judge", "prompt", "parameters"))
        )
        if same in seen:
            raise SourceError(
                f"{seen[same]} and {path} are votes of one judge on one pair; pool them before, or leave one out"
            )
        seen[same] = path


def _check_data(runs: Sequence[ReportedRun], judged: Sequence[Judged], benchmark: CommentaryBenchmark | None) -> None:
    """One task and one revision of its data, for all that is about commentary."""
    for what in ("task", "revision"):
        found: dict[str, str] = {}
        for run in runs:
            found.setdefault(str(getattr(run.label, what)).partition("?")[0], f"run {run.label.name}")
        for one in judged:
            found.setdefault(str(one.settings.get(what) or "").partition("?")[0], f"votes on {name_of(one, 'a')}")
        if benchmark is not None:
            found.setdefault(str(benchmark.name if what == "task" else benchmark.revision), "the data")
        found.pop("", None)
        if len(found) > 1:
            (one_is, whose), (other_is, others) = list(found.items())[:2]
            raise SourceError(
                f"{whose} is of {what} {one_is}, {others} of {what} {other_is}: one report holds one {what} of "
                "commentary"
            )


def _check_alike(labels: Sequence[Label], task: str, allowed: bool) -> list[str]:
    """In what rows of one table differ; SourceError if that is not allowed."""
    by_preset: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        if label.preset:
            by_preset[label.preset].append(label.name)
    if len(by_preset) < 2:
        return []
    told = "; ".join(f"{preset}: {', '.join(names)}" for preset, names in by_preset.items())
    told = f"{task + ': ' if task else ''}presets differ ({told})"
    if not allowed:
        raise SourceError(f"{told}; their figures do not compare. --allow-different reports them together, marked")
    return [told]


# Commentary


def name_of(judged: Judged, side: Side) -> str:
    """The name of a contestant of a votes file."""
    about = judged.settings.get(side)
    return str(about.get("name", "")) if isinstance(about, Mapping) else str(about or "")


def _commentary(
    runs: Sequence[ReportedRun], votes: Sequence[Votes], benchmark: CommentaryBenchmark | None
) -> CommentaryReport:
    data = {window.id: window for window in benchmark.windows} if benchmark is not None else {}
    windows = _windows([one.judged for one in votes], data)
    by_name = {run.label.name: run for run in runs}
    texts: dict[str, dict[str, Text]] = {run.label.name: {} for run in runs}
    for run in runs:
        for window in windows:
            said = run.text(window.id, window.video, window.start, window.end)
            if said is not None:
                texts[run.label.name][window.id] = said
    for one in votes:
        for side in SIDES:
            name = name_of(one.judged, side)
            _merge_shown(one.path, one.judged, side, by_name[name], texts[name])
    pairs = [_pair(one) for one in votes]
    measured = {run.label.name: run.figures for run in runs if run.figures is not None}
    return CommentaryReport([run.label for run in runs], windows, texts, pairs, measured)


def _windows(judged: Sequence[Judged], data: Mapping[str, Window]) -> list[WindowRow]:
    """All windows, by video and time."""
    places: dict[str, Place] = {}
    references: dict[str, str] = {}
    for one in judged:
        for place in one.places:
            places.setdefault(place.window, place)
        for vote in one.votes:
            if vote.window not in references and (shown := shown_texts(vote)) is not None:
                references[vote.window] = shown["reference"]
    for window in data.values():
        places.setdefault(window.id, Place(window.id, window.video, window.group, window.start, window.end))
        references[window.id] = window.reference
    rows = [
        WindowRow(
            id=place.window,
            video=place.video,
            group=place.group,
            title=data[place.window].title if place.window in data else "",
            start=place.start,
            end=place.end,
            reference=references.get(place.window),
        )
        for place in places.values()
    ]
    return sorted(rows, key=lambda row: (row.group, row.video, row.start, row.end, row.id))


def shown_texts(vote: Vote) -> dict[str, str] | None:
    """What the judge was shown, by ``reference``, ``a`` and ``b``; None for a vote without a request."""
    request = vote.call.get("request")
    contents = (
        [str(part.get("content", "")) for part in request if isinstance(part, Mapping)]
        if isinstance(request, list)
        else []
    )
    found = {tag: text for content in contents for tag, text in _SECTION.findall(content)}
    if len(found) != 3:
        return None
    first, second = vote.order
    return {"reference": found["transcript"], first: found["commentary_a"], second: found["commentary_b"]}


def _merge_shown(path: Path, judged: Judged, side: Side, run: ReportedRun, texts: dict[str, Text]) -> None:
    """Add the texts that the judge was shown. SourceError where the run says something else."""
    for vote in judged.votes:
        shown = {side: ""} if side in vote.empty else shown_texts(vote)
        if shown is None or side not in shown:
            continue
        known = texts.get(vote.window)
        if known is None:
            texts[vote.window] = Text(shown[side])
        elif not _same(known.text, shown[side]):
            raise SourceError(
                f"{path} is not of this run: {run.path} ({run.label.name}) says other words of window {vote.window} "
                "than the judge was shown; judge it anew"
            )


def _same(text: str, shown: str) -> bool:
    """Whether a judge was shown this text: it sees the beginning of a long one, and tags defused."""
    said, seen = words(text.replace("<", "‹")), words(shown.replace("<", "‹"))
    if said == seen:
        return True
    return len(shown) > CUT - 100 and said[: len(seen) - 1] == seen[:-1]


def _pair(found: Votes) -> PairRow:
    judged = found.judged
    by_window: dict[str, list[Vote]] = defaultdict(list)
    for vote in judged.votes:
        by_window[vote.window].append(vote)
    verdicts = [verdict(place.window, by_window.get(place.window, [])) for place in judged.places]
    return PairRow(
        a=name_of(judged, "a"),
        b=name_of(judged, "b"),
        judge=str(judged.settings.get("judge", "")) or "not told",
        file=found.path,
        settings=judged.settings,
        figures=_figures(judged, verdicts),
        verdicts=verdicts,
        calibrated=bool(found.calibration and found.calibration.get("passed")),
        uncalibrated=_uncalibrated(found.calibration),
    )


def _uncalibrated(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "was not calibrated"
    if verdict.get("passed"):
        return ""
    return f"failed its calibration ({', '.join(map(str, verdict.get('failed', ()))) or 'not told in what'})"


def verdict(window: str, votes: Sequence[Vote]) -> WindowVerdict:
    """What the votes on a window come to. It flips where two orders of one repeat disagree."""
    given = [vote for vote in votes if vote.choice is not None]
    worth = sum({"a": 1, "tie": 0, "b": -1}[vote.choice] for vote in given if vote.choice is not None)
    winner: Choice | None = ("a" if worth > 0 else "b" if worth < 0 else "tie") if given else None
    orders: dict[int, set[Choice | None]] = defaultdict(set)
    for vote in given:
        orders[vote.repeat].add(vote.choice)
    flip = any(choices >= {"a", "b"} for choices in orders.values())
    empty = next((vote.empty for vote in votes if vote.empty), "")
    ordered = sorted(votes, key=lambda vote: (vote.repeat, vote.order))
    return WindowVerdict(window, winner, flip, any(vote.choice is None for vote in votes), empty, ordered)


def _figures(judged: Judged, verdicts: Sequence[WindowVerdict]) -> PairFigures:
    tree = win_rates(judged)
    counts, figures = tree["counts"], tree["figures"]
    controlled = figures["length_controlled"]
    choices = [vote.choice for vote in judged.votes if vote.choice is not None]
    return PairFigures(
        windows=counts["windows"],
        seen=sum(one.winner is not None for one in verdicts),
        videos=counts["videos"],
        expected=counts["expected"],
        judged=counts["judged"],
        errors=counts["errors"],
        wins_a=choices.count("a"),
        ties=choices.count("tie"),
        wins_b=choices.count("b"),
        empty_a=sum("a" in one.empty for one in verdicts),
        empty_b=sum("b" in one.empty for one in verdicts),
        rate=Rate.of(figures.get("win_rate")),
        without_empty=Rate.of(figures.get("without_empty")),
        controlled=Rate.of(controlled.get("win_rate")),
        consistent=Rate.of(figures.get("consistent")),
        flips=Rate.of(figures.get("flips")),
        first=Rate.of(figures.get("first_position")),
        stable=Rate.of(figures.get("repeat_stability")),
        among_consistent=Rate.of(figures.get("win_rate_consistent")),
        controlled_why=controlled.get("reason", ""),
        fifths=_ordered(figures.get("fifths", {}), "12345"),
        groups=_ordered(figures.get("groups", {}), sorted(figures.get("groups", {}))),
        length=_ordered(figures.get("length", {}), "1234"),
    )


def _ordered(figures: Mapping[str, Any], names: Iterable[str]) -> list[Rate]:
    return [Rate.of(figures.get(name), name) for name in names] if figures else []


# Questions


def _questions(scores: Sequence[ScoreFile]) -> list[Questions]:
    by_task: dict[str, list[ScoreFile]] = defaultdict(list)
    for file in scores:
        by_task[file.task].append(file)
    found = []
    for task, files in by_task.items():
        names = [file.label.name for file in files]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SourceError(f"{task}: there are two scores of {twice!r}; leave one out")
        revisions = {file.label.revision: file.label.name for file in files if file.label.revision}
        if len(revisions) > 1:
            (one, whose), (other, others) = list(revisions.items())[:2]
            raise SourceError(
                f"{task}: {whose} is of revision {one} of the data, {others} of {other}; they do not compare"
            )
        found.append(Questions(task, next(iter(revisions), ""), files))
    return found
