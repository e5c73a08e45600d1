"""The arcade as a task that ``streamingvlm.evaluate`` runs: unseen matches, scored against their exact truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamingvlm import OptionError
from streamingvlm.evaluate.record import Record

from ..score.table import table
from ..worlds.context import EVALUATION_SEEDS
from ..worlds.games import GAMES
from .figures import Evaluation, Watched, measure
from .match import Match, matches

#: Streams of every game, and seconds of each, where none are asked for.
STREAMS, SECONDS = 8, 1200


@dataclass(frozen=True, slots=True)
class ArcadeTask:
    """Matches of which ``seconds`` each are watched."""

    examples: tuple[Match, ...]
    seconds: int

    @property
    def name(self) -> str:
        """What it is called while it runs."""
        return "arcade, names flipped" if any(match.flipped for match in self.examples) else "arcade"

    def measure(self, records: Sequence[Record], on_stream: Callable[[float], None] = lambda _: None) -> list[Watched]:
        """What was said of every match, counted; ``on_stream`` is told how many are."""
        watched: list[Watched] = []
        for match, record in zip(self.examples, records, strict=True):
            watched.append(measure(match, record))
            on_stream(len(watched))
        return watched

    def score(self, records: Sequence[Record]) -> dict[str, Any]:
        """All metrics with their intervals; docs/arcade_streams/evaluation.md defines them."""
        return Evaluation.of([("", stream) for stream in self.measure(records)]).json()

    def report(self, metrics: Mapping[str, Any]) -> str:
        """The metrics as tables in Markdown."""
        return table(metrics)


def open_task(options: Mapping[str, str]) -> ArcadeTask:
    """The entry point: ``arcade?game=pong,tennis&streams=2&seconds=60``. OptionError for what cannot be meant."""
    known = ("game", "streams", "seconds")
    if unknown := [key for key in options if key not in known]:
        raise OptionError(f"the task arcade has no option {unknown[0]!r} (known: {', '.join(known)})")
    games = options["game"].split(",") if "game" in options else list(GAMES)
    streams, seconds = _count(options, "streams", STREAMS), _count(options, "seconds", SECONDS)
    return ArcadeTask(tuple(matches(games, range(EVALUATION_SEEDS, EVALUATION_SEEDS + streams))), seconds)


def _count(options: Mapping[str, str], key: str, usual: int) -> int:
    text = options.get(key, str(usual))
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000):
        raise OptionError(f"{key} must be a whole number above 0, not {text!r}")
    return int(text)
