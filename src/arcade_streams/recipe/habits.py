"""How a game goes, learnt from its own streams: what happens between two points, how often, how far apart.

Made-up games are pieced together from it and spoiled histories invent by it, so that nothing about a game is typed in.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from streamingvlm import OptionError

from ..worlds.game import Game
from ..worlds.language import COMMON, GameEvent

Events = Sequence[GameEvent]
Group = tuple[int, tuple[GameEvent, ...]]
"""Seconds since the group before (or the last point), and what was told in that second."""
Passage = tuple[Group, ...]
"""From one point to the next, which is in the last group."""


def plays(game: Game) -> tuple[str, ...]:
    """Kinds of the game's own, in its order: what the picture shows besides points and scores."""
    return tuple(kind for kind in game.language.kinds if kind not in COMMON)


def counted(game: Game) -> frozenset[str]:
    """Kinds that follow from how many others there were."""
    return frozenset(counted.kind for counted in game.rules.counted)


def happening(game: Game) -> frozenset[str]:
    """Kinds that happen and do not follow from others."""
    return frozenset((*plays(game), "point")) - counted(game)


@dataclass(frozen=True)
class Habits:
    """``openings``: passages that begin a game; ``passages``: the others; ``pool``: plays with a colour or a zone, each
    as often as it was told."""

    game: Game
    openings: tuple[Passage, ...]
    passages: tuple[Passage, ...]
    pool: tuple[GameEvent, ...]

    @staticmethod
    def of(game: Game, streams: Iterable[Sequence[Events]]) -> Habits:
        """From what is said in each second of some streams. OptionError if they hold no two points."""
        openings: list[Passage] = []
        passages: list[Passage] = []
        pool: list[GameEvent] = []
        for seconds in streams:
            for opens, passage in _passages(game, seconds):
                (openings if opens else passages).append(passage)
                pool += [e for _, group in passage for e in group if e.kind != "point" and (e.colour or e.zone)]
        if not openings or not passages:
            raise OptionError(f"the recorded streams of {game.name} have no two points of a game: record longer ones")
        return Habits(game, tuple(openings), tuple(passages), tuple(pool))

    def passage(self, rng: random.Random, winner: str, *, opens: bool, keep: int | None = None) -> Passage:
        """A passage that ends with a point of that colour; ``keep``: how many groups are left before it, None for all.

        Where the other side won it, the sides are exchanged throughout.
        """
        passage = rng.choice(self.openings if opens else self.passages)
        passage = passage[:-1][:keep] + passage[-1:]
        scorer = next(event.colour for event in passage[-1][1] if event.kind == "point")
        if scorer == winner:
            return passage
        return tuple((gap, tuple(exchanged(self.game, event) for event in group)) for gap, group in passage)

    def invention(self, rng: random.Random) -> GameEvent | None:
        """Something that might have happened in a second, None if the game has no plays with a colour or zone."""
        return exchanged(self.game, rng.choice(self.pool), rng.random() < 0.5) if self.pool else None


def exchanged(game: Game, event: GameEvent, really: bool = True) -> GameEvent:
    """The same of the other side, if it is one side's at all."""
    if event.colour is None or not really:
        return event
    return replace(event, colour=game.colours[event.colour == game.colours[0]])


def _passages(game: Game, seconds: Sequence[Events]) -> Iterable[tuple[bool, Passage]]:
    """Whether it begins a game, and the passage; what comes after the last point is left out."""
    heard = happening(game)
    groups: list[Group] = []
    last, opens = 0, True
    for second, events in enumerate(seconds):
        told = tuple(event for event in events if event.kind in heard)
        if not told:
            continue
        groups.append((second - last, told))
        last = second
        if any(event.kind == "point" for event in told):
            yield opens, tuple(groups)
            groups, opens = [], any(event.kind == "game" for event in events)
