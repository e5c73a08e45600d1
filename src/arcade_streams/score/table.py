"""The figures of ``streamingvlm eval arcade`` as Markdown: what the command prints and what a model card shows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

#: What stands in the table -> where it is in the figures.
ROWS: dict[str, tuple[str, ...]] = {
    "micro F1, same second": ("micro_f1_strict",),
    "micro F1, within 1 s": ("micro_f1",),
    "macro F1, same second": ("macro_f1_strict",),
    "macro F1, within 1 s": ("macro_f1",),
    "play": ("play",),
    "names": ("names",),
    "names that are said": ("names_said",),
    "score": ("score",),
    "tally": ("tally",),
    "tally steps": ("tally_steps", "all"),
    "tally steps, gap <= 16 s": ("tally_steps", "<=16s"),
    "tally steps, gap > 16 s": ("tally_steps", ">16s"),
    "streak": ("streak",),
    "colours": ("colours",),
    "zones": ("zones",),
    "silence precision": ("silence_precision",),
    "repetition": ("repetition",),
    "longest repeat, rows": ("longest_repeat",),
    "last 30 minutes less first 10": ("drift",),
}
#: What it cost, on a machine that may have had other work.
COSTS: dict[str, tuple[str, ...]] = {
    "work per second of video, s": ("work_per_second",),
    "lag p95, s": ("lag", "p95"),
    "most cache rows": ("rows",),
}


def table(found: Mapping[str, Any], *, costs: bool = True) -> str:
    """The mean over the games, beside chance and ceiling; then every game; then the fifths of the video."""
    lines = ["| figure | value | chance | ceiling |", "|---|---|---|---|"]
    for label, path in (ROWS | COSTS if costs else ROWS).items():
        if (value := show(look(found, path))) != "-":
            others = (show(look(found.get(part, {}), path)) for part in ("chance", "ceiling"))
            lines.append(f"| {label} | {value} | {' | '.join(others)} |")
    lines += ["", *_games(found["games"]), "", *_fifths(found["fifths"])]
    return "\n".join(lines)


def kinds(games: Mapping[str, Any]) -> str:
    """F1 of every kind of event of every game."""
    lines = []
    for name, game in games.items():
        heads = ("same second", "within 1 s", "cases", "ceiling, same second")
        lines += [f"| {name} | {' | '.join(heads)} |", "|---|---|---|---|---|"]
        for kind, part in game["by_kind"].items():
            best = show(look(game, ("ceiling", "by_kind", kind, "strict")))
            cells = (show(part["strict"]), show(part["within_1s"]), str(game["cases"].get(kind, 0)), best)
            lines.append(f"| {kind} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _games(games: Mapping[str, Any]) -> list[str]:
    labels = ("micro F1, same second", "macro F1, same second", "play", "names", "score", "tally steps", "tally")
    lines = [f"| game | {' | '.join(labels)} | of the ceiling |", "|---" * (len(labels) + 2) + "|"]
    for name, game in games.items():
        cells = [
            show(look(game, path)) for path in (*(ROWS[label] for label in labels), ("of_ceiling", "micro_f1_strict"))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _fifths(fifths: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [show(part["micro_f1_strict"]) for part in fifths]
    return ["| fifth of the video | 1 | 2 | 3 | 4 | 5 |", "|---|---|---|---|---|---|",
            f"| micro F1, same second | {' | '.join(cells)} |"]  # fmt: skip


def look(found: Any, path: Sequence[Hashable]) -> Any:
    """What is at the end of a path of keys, None where that leads nowhere."""
    for key in path:
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found


def show(figure: Mapping[str, float | None] | None, digits: int = 3) -> str:
    """``0.912 (0.900 to 0.923)``; "-" for nothing."""
    if figure is None or figure["value"] is None:
        return "-"
    whole = figure["value"] > 1 and figure["value"] == int(figure["value"])
    digits = 0 if whole or figure["value"] >= 100 else 1 if figure["value"] >= 10 else digits
    text = f"{figure['value']:.{digits}f}"
    if figure["low"] is None or figure["high"] is None:
        return text
    return f"{text} ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"
