"""Tennis from two frames a second: where the players stand, whose racket is out, how high the ball is."""

from __future__ import annotations

from ...game import HALF, FrameLabel, Happening
from .rules import COLOURS, KINDS
from .watch import Watch
from .world import BODY, RUN, zone_of

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
        self._playing = False
        self._watch = Watch()

    def see(self, label: FrameLabel) -> list[Happening]:
        """Takes the next frame, half a second after the last; what it shows for the first time."""
        across = [place[0] for place in (label.places[colour] for colour in COLOURS) if place is not None]
        told = self._points(label) or self._play(label, across)
        self._across, self._scores = across, label.scores
        at = round(label.time * 2) * HALF
        return [
            Happening(at - REACTION[kind], kind, COLOURS[side], zone, label.scores if kind == "point" else (0, 0))
            for kind, side, zone in told
        ]

    def _points(self, label: FrameLabel) -> list[Fact]:
        sides = [side for side in (0, 1) if label.scores[side] > self._scores[side]]
        if sides:
            self._playing = False
            self._watch.begin()
        return [("point", side, None) for side in sides]

    def _play(self, label: FrameLabel, across: list[int]) -> list[Fact]:
        told: list[Fact] = []
        for side, colour in enumerate(COLOURS):
            if label.facts[f"swing_{colour}"]:
                told += self._stroke(side, bool(label.facts[f"net_{colour}"]), across[side])
                self._watch.struck(side)
                self._playing, self._from = True, self._across
        if self._playing:
            told += [(kind, side, None) for kind, side in self._watch.see(label)]
        return told

    def _stroke(self, side: int, near: bool, across: int) -> list[Fact]:
        if not self._playing:
            return [("serve", side, None)]
        told: list[Fact] = [("volley" if near else "return", side, zone_of(across + BODY))]
        if abs(across - self._from[side]) >= RUN:
            told.append(("run", side, None))
        return told
