"""The generated part of docs/arcade_streams/proof.md: every claim with its rows, from the JSON of ``eval claims``."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamingvlm import OptionError

from ..score.table import COSTS, ROWS, look, show
from .claims import CLAIMS, Claim

BEGIN, END = "<!-- begin: streamingvlm eval proof -->", "<!-- end: streamingvlm eval proof -->"
#: The file of the model's own figures, written by ``eval arcade --json``.
MODEL = "model.json"

_LABELS: dict[tuple[Hashable, ...], str] = {path: label for label, path in (ROWS | COSTS).items()}


@dataclass(frozen=True, slots=True)
class Target:
    """A figure of the bundled model and what it has to reach. ``most``: the figure may not be above it."""

    text: str
    path: tuple[str, ...]
    wanted: float
    most: bool = False


_STRICT, _MACRO = ("of_ceiling", "micro_f1_strict"), ("of_ceiling", "macro_f1_strict")
TARGETS = (
    Target("Pong: micro F1 in the same second, share of the ceiling", ("games", "pong", *_STRICT), 0.95),
    Target("mean of the games: the same", _STRICT, 0.88),
    Target("Pong: macro F1 in the same second, share of the ceiling", ("games", "pong", *_MACRO), 0.85),
    Target("mean of the games: the same", _MACRO, 0.75),
    Target("names and other roster facts, where one is due", ("names",), 0.97),
    Target("names and other roster facts that are said", ("names_said",), 0.97),
    Target("score", ("score",), 0.98),
    Target("tally steps", ("tally_steps", "all"), 0.995),
    Target("tallies in absolute terms", ("tally",), 0.85),
    Target("last half hour less first 10 minutes", ("drift",), -0.02),
    Target("longest repeat, rows", ("longest_repeat",), 5, most=True),
)  # fmt: skip


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of a folder by name: those of claims, and the model's own. OptionError for what is no JSON."""
    found = {}
    for name in (*CLAIMS, Path(MODEL).stem):
        path = folder / f"{name}.json"
        try:
            found[name] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise OptionError(f"{path} cannot be read: {error}") from None
    return found


def page(text: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """``text`` with what stands between the two marks made anew. OptionError if there are no such marks."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise OptionError(f"the page has no place for the results: put the lines {BEGIN} and {END} into it")
    parts = [section(claim, results.get(claim.name)) for claim in CLAIMS.values()]
    return f"{head}{BEGIN}\n{targets(results.get(Path(MODEL).stem))}\n\n{chr(10).join(parts)}{END}{tail}"


def section(claim: Claim, found: Mapping[str, Any] | None) -> str:
    """One claim: its question, its rows, what was expected and what is seen."""
    lines = [f"### {claim.name}", "", claim.question, ""]
    paths = list(claim.figures)
    if found is not None:
        lines += [_origin(found), ""]
    heads = ["row", *(_LABELS[path] for path in paths), "paper: win rate"]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in claim.rows:
        one = None if found is None else found["rows"].get(row.name)
        cells = [show(look(one, path)) for path in paths] if one else ["not measured yet", *[""] * (len(paths) - 1)]
        lines.append(f"| {' | '.join([row.name, *cells, row.paper or '-'])} |")
    lines += ["", *_stops(found), *_verdicts(claim, found)]
    return "\n".join([*lines, ""])


def _origin(found: Mapping[str, Any]) -> str:
    """Where the figures come from, and whether they may be compared."""
    gate = found["gate"]
    verdict = (
        "Gate passed."
        if gate["passed"]
        else f"**Gate not passed, compared all the same**: {'; '.join(gate['reasons'])}."
    )
    games = next(iter(found["rows"].values()))["games"]
    streams = ", ".join(f"{len(one['seeds'])} of {name}" for name, one in games.items())
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"Streams: {streams}, {found['seconds'] / 60:g} min each. {verdict} Model {found['model']}; "
        f"`{found['command']}`; {found['device']}; {versions}; {found['date']}."
    )


def _stops(found: Mapping[str, Any] | None) -> list[str]:
    """The rows that ended early, and why."""
    lines = []
    for name, row in (found or {"rows": {}})["rows"].items():
        stops = [why for game in row["games"].values() for why in game["stopped"].values()]
        if stops:
            lines.append(
                f"- {name} ({row['policy']}): {len(stops)} streams ended early: {'; '.join(sorted(set(stops)))}"
            )
    return lines


def _verdicts(claim: Claim, found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return [f"- {expectation.text}: not measured yet" for expectation in claim.expectations]
    lines = []
    for one in found["expectations"]:
        what = {"fall": "streaming less this", "times": "this / streaming", "value": "seen"}[one["how"]]
        lines.append(
            f"- {one['text']}: **{one['verdict']}** ({one['row']}; {what}: {show(one)}, wanted {one['least']:g})"
        )
        lines.append(f"  - {'; '.join(_of_games(one['games'], found['gate']['games']))}")
        if seeds := one.get("training_seeds"):
            found_by = (f"{name}: {own['verdict']}, {show(own)}" for name, own in seeds.items())
            lines.append(f"  - {'; '.join(found_by)}")
    return lines


def _of_games(seen: Mapping[str, Any], gates: Mapping[str, Any]) -> Iterator[str]:
    """What is seen in each game, and which of them pass the gate."""
    for game, one in seen.items():
        yield f"{game}{' (passes the gate)' if gates[game]['passed'] else ''}: {one['verdict']}, {show(one)}"


def targets(found: Mapping[str, Any] | None) -> str:
    """The bundled model against what it has to reach."""
    lines = ["### The bundled model", ""]
    if found is not None:
        lines += [f"`{found['command']}`; {found['device']}; {found['date']}.", ""]
    lines += ["| target | wanted | reached | |", "|---|---|---|---|"]
    for target in TARGETS:
        figure = look(found or {}, target.path)
        bound = "at most" if target.most else "at least"
        lines.append(f"| {target.text} | {bound} {target.wanted:g} | {_reached(target, figure)} |")
    return "\n".join(lines)


def _reached(target: Target, figure: Mapping[str, float | None] | None) -> str:
    if figure is None or (value := figure["value"]) is None:
        return "not measured yet | "
    good = value <= target.wanted if target.most else value >= target.wanted
    return f"{show(figure)} | {'reached' if good else 'missed'}"


def summary(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for every expectation, for the terminal."""
    return [
        f"{found['claim']}: {one['text']}: {one['verdict']} ({show(one)}, wanted {one['least']:g})"
        for found in results
        for one in found["expectations"]
    ]
