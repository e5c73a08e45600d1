"""What a game's streams are like: how much is said, how often, and how far apart what needs memory lies."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import Any

from ..worlds.game import Game
from ..worlds.stream import GameStream, Second

Gaps = dict[str, list[int]]


def survey(game: Game, seeds: Iterable[int], seconds: int) -> dict[str, Any]:
    """Metrics of the truth of some streams, pooled.

    ``per_minute``: by kind; ``events_per_minute``, ``words_per_minute``; ``silent``: share of seconds without a word;
    ``gaps``: (least, median, most) seconds between two tallies, two points, and two times the same name or town.
    """
    kinds: Counter[str] = Counter()
    gaps: Gaps = defaultdict(list)
    words = silent = streams = 0
    for seed in seeds:
        told = list(islice(GameStream(game, seed, render=False), seconds))
        kinds.update(event.kind for second in told for event in second.events)
        words += sum(len(second.text.split()) for second in told)
        silent += sum(not second.text for second in told)
        streams += 1
        _add_gaps(gaps, told)
    minutes = streams * seconds / 60
    return {
        "per_minute": {kind: kinds[kind] / minutes for kind in game.language.kinds},
        "events_per_minute": kinds.total() / minutes,
        "words_per_minute": words / minutes,
        "silent": silent / (streams * seconds),
        "gaps": {what: (min(each), statistics.median(each), max(each)) for what, each in gaps.items() if each},
    }


def _add_gaps(gaps: Gaps, told: list[Second]) -> None:
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, what, which in _memorable(told):
        places[what, which].append(at)
    for (what, _), times in places.items():
        gaps[what] += [after - before for before, after in pairwise(times)]


def _memorable(told: list[Second]) -> Iterator[tuple[int, str, str]]:
    """(second, what, which one) of what the gaps are between."""
    for second in told:
        for event in second.events:
            if event.kind in ("tally", "point"):
                yield second.index, event.kind, ""
            if event.name or event.town:
                yield second.index, "name", str(event.name or event.town)
