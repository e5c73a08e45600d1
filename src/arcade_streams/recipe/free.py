"""Metrics of free-running words against what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..score.score import score_many
from ..worlds.record import truth_record
from .record import Recording
from .stories import words


@dataclass(frozen=True, slots=True)
class Metrics:
    """All figures of the arcade's score of one game, and the most telling ones in a line."""

    all: dict[str, Any]

    @property
    def line(self) -> str:
        """Micro F1 strict and within 1 s, macro, facts, then F1 strict by kind."""
        names = ("micro_f1_strict", "micro_f1", "macro_f1_strict", "colours", "zones", "score", "names", "tally")
        parts = [f"{name} {_show(self.all[name])}" for name in names]
        parts += [f"tally steps {_show(self.all['tally_steps']['all'])}"]
        parts += [f"{kind} {_show(part['strict'])}" for kind, part in self.all["by_kind"].items()]
        return " | ".join(parts)


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def figures(recordings: Sequence[Recording], texts: Sequence[Sequence[str]]) -> dict[str, Metrics]:
    """Metrics of what was said of the first seconds of some recordings, pooled for each game, by its name."""
    pairs: dict[str, list[tuple[dict[str, Any], list[dict[str, Any]]]]] = {}
    for recording, said in zip(recordings, texts, strict=True):
        rows = [{"start": i, "end": i + 1, "text": text} for i, text in enumerate(said)]
        true = [(i, i + 1.0, words(recording.game, events)) for i, events in enumerate(recording.events[: len(said)])]
        truth = truth_record(recording.game, "", recording.context.text, true)
        pairs.setdefault(recording.name, []).append((truth, rows))
    return {name: Metrics(score_many(own)) for name, own in pairs.items()}
