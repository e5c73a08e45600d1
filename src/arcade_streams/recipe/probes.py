"""What is asked of the decoder's hidden state behind each picture: everything that a game's labels and words tell.

The questions follow from the game's own protocol; those of several games stand side by side in one row of labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..worlds.game import Game
from ..worlds.language import EventKind, GameEvent
from .habits import plays
from .record import Labels, Recording

#: Columns and rows in which a place is told, seconds ahead at which a play is, frames for which a place stands still.
COLUMNS, ROWS, AHEAD, STILL = 7, 8, 3, 7
#: How much more than others some count, by the first word of their names: two digits drown among forty others.
WEIGHTS = {"score": 4.0, "fact": 2.0}

#: How names begin and end of those that one picture answers by itself.
_SHOWN = (("fact", "playing", "score"), ("column", "row", "right", "down"))

Column = NDArray[np.int64]


def probes(game: Game) -> dict[str, int]:
    """The number of classes of every probe of a game, by its name.

    For each kind of play and for points: nothing, or whose and in which zone; for plays, in how many seconds the next
    one is told; for what is counted, how often by now; for each place column, row, movement within the second, frames
    that it has stood still; the facts and scores of the last frame.
    """
    kinds = plays(game)
    sizes = {kind: 1 + _sides(game, game.language[kind]) * _zones(game.language[kind]) for kind in (*kinds, "point")}
    sizes |= {f"{kind} ahead": AHEAD + 1 for kind in kinds}
    sizes |= {f"{counted.kind} count": counted.at + 2 for counted in game.rules.counted}
    for place in game.places:
        sizes |= {f"{place} column": COLUMNS, f"{place} row": ROWS, f"{place} right": 3, f"{place} down": 3}
        sizes |= {f"{place} still": STILL + 1}
    sizes |= {f"fact {name}": classes + 1 for name, classes in game.facts.items()}
    return sizes | {"playing": 2} | {f"score {colour}": game.most + 1 for colour in game.colours}


def shown(game: Game) -> Tensor:
    """Which of the probes (n,) bool one second's picture answers by itself."""
    asked = [name.split() for name in probes(game)]
    return torch.tensor([parts[0] in _SHOWN[0] or (len(parts) > 1 and parts[-1] in _SHOWN[1]) for parts in asked])


def followed(game: Game) -> Tensor:
    """Which of the probes (n,) bool some seconds of pictures answer: all that is not counted since earlier."""
    counted = {counted.kind for counted in game.rules.counted}
    return torch.tensor([name.removesuffix(" count").removesuffix(" ahead") not in counted for name in probes(game)])


def probe_labels(recording: Recording) -> Tensor:
    """Labels (n, len(probes(game))) int64 of every second, -1 for unknown."""
    game, events, labels = recording.game, recording.events, recording.labels
    found: dict[str, Sequence[int] | NDArray[np.integer]] = {}
    for kind in (*plays(game), "point"):
        found[kind] = [_told(game, kind, told) for told in events]
    for kind in plays(game):
        found[f"{kind} ahead"] = _ahead(kind, events)
    for counted in game.rules.counted:
        found[f"{counted.kind} count"] = _counts(events, counted.of, (*counted.since, "point"), counted.at + 1)
    for i, place in enumerate(game.places):
        found |= {f"{place} {what}": column for what, column in _place(labels, i).items()}
    for i, name in enumerate(game.facts):
        found[f"fact {name}"] = labels.facts[:, -1, i] + 1
    found["playing"] = labels.playing[:, -1]
    for i, colour in enumerate(game.colours):
        found[f"score {colour}"] = labels.scores[:, -1, i]
    return torch.from_numpy(np.stack([np.asarray(found[name], np.int64) for name in probes(game)], axis=1))


class Board:
    """The probes of several games side by side. ``sizes``: classes of each; ``parts``: the columns of each game;
    ``weights``: how much each counts; ``shown``: those that one picture answers."""

    def __init__(self, games: Iterable[Game]) -> None:
        self.sizes: list[int] = []
        self.weights: list[float] = []
        self.shown: list[bool] = []
        self.parts: Mapping[str, slice] = {}
        for game in games:
            own = probes(game)
            self.parts |= {game.name: slice(len(self.sizes), len(self.sizes) + len(own))}
            self.sizes += own.values()
            self.shown += shown(game).tolist()
            self.weights += [WEIGHTS.get(name.split()[0], 1.0) for name in own]

    def spread(self, game: Game, labels: Tensor) -> Tensor:
        """Labels (n, probes of the game) as rows (n, len(sizes)), -1 in the columns of other games."""
        out = labels.new_full((len(labels), len(self.sizes)), -1)
        out[:, self.parts[game.name]] = labels
        return out


def _sides(game: Game, kind: EventKind) -> int:
    return len(game.colours) if "{colour}" in kind.wordings[0] else 1


def _zones(kind: EventKind) -> int:
    return len(kind.zones) or 1


def _told(game: Game, kind: str, events: Sequence[GameEvent]) -> int:
    """0 for nothing, then the colours and within each the zones; of several in a second the last."""
    told = [event for event in events if event.kind == kind]
    if not told:
        return 0
    event, about = told[-1], game.language[kind]
    side = 0 if event.colour is None else game.colours.index(event.colour)
    return 1 + side * _zones(about) + (0 if event.zone is None else about.zones.index(event.zone))


def _ahead(kind: str, events: Sequence[Sequence[GameEvent]]) -> list[int]:
    """Seconds until the kind is told next, less 1 and at most AHEAD; -1 where the end may hide it.

    A play that takes seconds (a clinch, a chase, somebody who stands still) has to be followed to be foreseen.
    """
    out, left = [0] * len(events), AHEAD
    for second in range(len(events) - 1, -1, -1):
        out[second] = left if left < AHEAD or second < len(events) - 1 - AHEAD else -1
        left = 0 if any(event.kind == kind for event in events[second]) else min(left + 1, AHEAD)
    return out


def _counts(events: Sequence[Sequence[GameEvent]], of: Sequence[str], since: Sequence[str], most: int) -> list[int]:
    out, count = [], 0
    for told in events:
        for event in told:
            count = 0 if event.kind in since else count + (event.kind in of)
        out.append(min(count, most))
    return out


def _place(labels: Labels, number: int) -> dict[str, Column]:
    """Columns of one place; what is not there has no place, and neither movement nor rest."""
    both = labels.places[:, :, number].astype(np.int64)
    there, always = both[:, -1, 0] >= 0, np.all(both[..., 0] >= 0, axis=1)
    moved = np.where(always[:, None], np.sign(both[:, 1] - both[:, 0]) + 1, -1)
    screen = (160, 210)
    return {
        "column": np.where(there, both[:, -1, 0] * COLUMNS // screen[0], -1),
        "row": np.where(there, both[:, -1, 1] * ROWS // screen[1], -1),
        "right": moved[:, 0],
        "down": moved[:, 1],
        "still": np.where(there, _still(both, labels.playing), -1),
    }


def _still(both: Column, playing: NDArray[np.int16]) -> list[int]:
    """Frames (of two a second) for which a place has been the same while a point is played."""
    out, count, before = [], 0, None
    for places, plays_on in zip(both, playing, strict=True):
        for place, on in zip(map(tuple, places.tolist()), plays_on, strict=True):
            count = count + 1 if on and place == before else 0
            before = place if on else None
        out.append(min(count, STILL))
    return out
