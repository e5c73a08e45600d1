"""Tennis from two frames a second: where the players stand, whose racket is out, how high the ball is."""

from __future__ import annotations

from ...game import HALF, FrameLabel, Happening
from .court import FEET, height_of
from .players import at_net
from .rules import COLOURS, KINDS
from .world import BODY, LOB, NET_FRAMES, RUN, zone_of

REACTION = {kind.name: kind.reaction for kind in KINDS}

Fact = tuple[str, int, str | None]
"""Kind, side, zone."""


class Reader:
    """Tells what happened between the frames that it sees.

    A racket is out for half a second from a stroke on, so that every stroke is seen once, and its player stands still.
    """

    def __init__(self) -> None:
        self._scores = (0, 0)
        self._across = self._from = [0, 0]
        self._begin()

    def _begin(self) -> None:
        """A new point: nobody has served."""
        self._playing = self._lobbed = False
        self._hitter = 0
        self._net_frames = [0, 0]

    def see(self, label: FrameLabel) -> list[Happening]:
        """Takes the next frame, half a second after the last; what it shows for the first time."""
        players = [place for place in (label.places[colour] for colour in COLOURS) if place is not None]
        near = [at_net(side, FEET[side] - top) for side, (_, top) in enumerate(players)]
        across = [left for left, _ in players]
        told = self._points(label) or [*self._strokes(label, near, across), *self._watch(label, near)]
        self._across, self._scores = across, label.scores
        at = round(label.time * 2) * HALF
        return [
            Happening(at - REACTION[kind], kind, COLOURS[side], zone, label.scores if kind == "point" else (0, 0))
            for kind, side, zone in told
        ]

    def _points(self, label: FrameLabel) -> list[Fact]:
        sides = [side for side in (0, 1) if label.scores[side] > self._scores[side]]
        if sides:
            self._begin()
        return [("point", side, None) for side in sides]

    def _strokes(self, label: FrameLabel, near: list[bool], across: list[int]) -> list[Fact]:
        told: list[Fact] = []
        for side, colour in enumerate(COLOURS):
            if not label.facts[f"swing_{colour}"]:
                continue
            if self._playing:
                told.append(("volley" if near[side] else "return", side, zone_of(across[side] + BODY)))
                if abs(across[side] - self._from[side]) >= RUN:
                    told.append(("run", side, None))
            else:
                told.append(("serve", side, None))
            self._playing, self._lobbed, self._hitter, self._from = True, False, side, self._across
        return told

    def _watch(self, label: FrameLabel, near: list[bool]) -> list[Fact]:
        """What takes time: a ball that has risen, a player who stays."""
        told: list[Fact] = []
        if self._playing and not self._lobbed and (height_of(label.places["ball"], label.places["shadow"]) or 0) >= LOB:
            self._lobbed = True
            told.append(("lob", self._hitter, None))
        for side in (0, 1):
            self._net_frames[side] = self._net_frames[side] + HALF if near[side] and self._playing else 0
            if self._net_frames[side] == NET_FRAMES + HALF:
                told.append(("net", side, None))
        return told
