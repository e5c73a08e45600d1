"""Ice Hockey from two frames a second: who has played the puck to whom between them, and from where."""

from __future__ import annotations

from dataclasses import dataclass

from ...game import HALF, FrameLabel, Happening, Place
from .plans import SPOT
from .referee import FREE, STILL_FRAMES, end_of, outcome, wing_of
from .rink import BACKS, SKATER_HEIGHT, SKATERS, mate, side_of
from .rules import COLOURS, KINDS
from .world import NAMES

REACTION = {kind.name: kind.reaction for kind in KINDS}
FAR = 24
"""Pixels between two sticks across which no puck is taken off a stick: it was shot."""

NET = (79, 0)
"""Where a puck is that is not seen: in a goal, far from every stick."""

Fact = tuple[str, str | None, str | None]
"""Kind, colour, zone."""


@dataclass(slots=True)
class Away:
    """A puck played off a stick. ``x``: its left edge when it was last seen there."""

    skater: int
    x: int
    told: bool = False


class Reader:
    """Tells what happened between the frames that it sees."""

    def __init__(self) -> None:
        self._before: FrameLabel | None = None
        self._ready = False
        self._away: Away | None = None
        self._stood, self._lain = 0, [0] * 4

    def see(self, label: FrameLabel) -> list[Happening]:
        """Takes the next frame, half a second after the last; what it shows for the first time."""
        before, self._before = self._before, label
        facts: list[Fact] = []
        if before is not None and label.scores != before.scores:
            facts += self._goal(before, label)
        if label.in_play:
            facts += self._drop(label)
            if before is not None:
                facts += self._puck(before, label) + self._still(before, label)
        else:
            self._ready |= _puck(label) == SPOT
            self._stood, self._lain = 0, [0] * 4
        at = round(label.time * 2) * HALF
        return [Happening(at - REACTION[kind], kind, colour, zone, label.scores) for kind, colour, zone in facts]

    def _drop(self, label: FrameLabel) -> list[Fact]:
        (x, y), (spot_x, spot_y) = _puck(label), SPOT
        if not self._ready or max(abs(x - spot_x), abs(y - spot_y)) < FREE:
            return []
        self._ready = False
        return [("drop", None, None)]

    def _goal(self, before: FrameLabel, label: FrameLabel) -> list[Fact]:
        scored = [colour for colour, a, b in zip(COLOURS, before.scores, label.scores, strict=True) if b > a]
        if not scored:
            return []
        facts: list[Fact] = [("point", scored[0], None)]
        if self._away is None and before.facts["holder"] >= 0:
            self._away = Away(before.facts["holder"], _puck(before)[0])
        if self._away is not None:
            facts += self._shot(self._away)
            facts.append(("origin", None, wing_of(self._away.x)))
        self._away = None
        return facts

    def _shot(self, away: Away) -> list[Fact]:
        if away.told:
            return []
        away.told = True
        return [] if away.skater in BACKS else [("shot", COLOURS[side_of(away.skater)], None)]

    def _puck(self, before: FrameLabel, label: FrameLabel) -> list[Fact]:
        had, has = before.facts["holder"], label.facts["holder"]
        if had >= 0 and has != had and not _lies(label, had):
            x, y = _puck(before)
            gone = max(abs(_puck(label)[0] - x), abs(_puck(label)[1] - y))
            if has < 0 or has == mate(had) or gone > FAR:
                self._away = Away(had, x)
        away = self._away
        if away is not None and not away.told and _lies(label, away.skater):
            away = self._away = None
        facts: list[Fact] = []
        if away is not None and has < 0 and abs(_puck(label)[1] - _stick(label, away.skater)) >= FREE:
            facts += self._shot(away)
        if has >= 0 and has != had:
            facts += self._taken(has)
        return facts

    def _taken(self, has: int) -> list[Fact]:
        away, self._away = self._away, None
        colour = COLOURS[side_of(has)]
        if away is None:
            return [("take", colour, end_of(has))]
        return [*self._shot(away), (outcome(away.skater, has), colour, wing_of(away.x))]

    def _still(self, before: FrameLabel, label: FrameLabel) -> list[Fact]:
        facts: list[Fact] = []
        had, has = before.facts["holder"], label.facts["holder"]
        same = had >= 0 and has == had and _skater(before, had) == _skater(label, had)
        self._stood = self._stood + HALF if same else 0
        if self._stood == STILL_FRAMES:
            facts.append(("wait", COLOURS[side_of(had)], None))
        for i in SKATERS:
            self._lain[i] = self._lain[i] + HALF if _lies(label, i) and _lies(before, i) else 0
            if self._lain[i] == STILL_FRAMES:
                facts.append(("down", COLOURS[side_of(i)], None))
        return facts


def _puck(label: FrameLabel) -> Place:
    return label.places["puck"] or NET


def _skater(label: FrameLabel, skater: int) -> Place:
    """Left edge and row of skates."""
    place = label.places[NAMES[skater]]
    assert place is not None
    return place[0], place[1] + SKATER_HEIGHT - 1


def _stick(label: FrameLabel, skater: int) -> int:
    """The row in which a skater holds the puck."""
    return _skater(label, skater)[1] - 2 * side_of(skater)


def _lies(label: FrameLabel, skater: int) -> bool:
    return bool(label.facts[f"{NAMES[skater]}_down"])
