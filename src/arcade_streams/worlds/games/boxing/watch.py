"""What two frames a second show over time: corners, chases, clinches, sides.

These facts are about places, half a second by half a second, and the same rule reads them off the world and off the
labels of the seen frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

from ...game import FrameLabel, Place
from .rules import COLOURS

CLINCH_GAP = (15, 8)
"""Pixels between the boxers, sideways and up and down, up to which they are in a clinch."""
STEPS, CORNER_STEPS = 6, 4
"""Half seconds for which a clinch or a chase, and a stay in a corner, has lasted when it is told."""
STRIDE, GROUND = 4.0, 8.0
"""Pixels that both move the same way in each half second of a chase, and that they cover towards the one in front."""
EDGE_X, EDGE_Y = (41, 106), (48, 118)
"""Left and top edges (of the drawn boxer) from which on outwards a boxer is in a corner."""
PAST = 6
"""Pixels by which boxers have to have passed each other."""


@dataclass(frozen=True, slots=True)
class Sight:
    """Something seen: a kind, whose, where."""

    kind: str
    colour: str | None = None
    zone: str | None = None


def corner(place: Place) -> str | None:
    """The corner that a boxer is in, None for none."""
    (x, y), (left, right), (top, bottom) = place, EDGE_X, EDGE_Y
    if left < x < right or top < y < bottom:
        return None
    return ("north" if y < (top + bottom) / 2 else "south") + ("west" if x < (left + right) / 2 else "east")


class Watch:
    """Takes the labels of two frames a second and tells what they show for the first time."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._path: list[tuple[Place, Place]] = []
        self._cornered = dict.fromkeys(COLOURS, 0)
        self._chased = False
        self._clinch = 0
        self._white_left: bool | None = None

    def see(self, label: FrameLabel) -> list[Sight]:
        """The next frame, half a second after the last."""
        white, black = (label.places[colour] for colour in COLOURS)
        if not label.in_play or white is None or black is None:
            self._forget()
            return []
        self._path = [*self._path[-STEPS:], (white, black)]
        return [*self._corners(), *self._chases(), *self._clinches(), *self._switches()]

    def _corners(self) -> list[Sight]:
        told = []
        for colour, place in zip(COLOURS, self._path[-1], strict=True):
            where = corner(place)
            self._cornered[colour] = 0 if where is None else self._cornered[colour] + 1
            if self._cornered[colour] == CORNER_STEPS + 1:
                told.append(Sight("corner", colour, where))
        return told

    def _chases(self) -> list[Sight]:
        chaser = self._chaser()
        fresh, self._chased = chaser is not None and not self._chased, chaser is not None
        return [Sight("chase", chaser)] if fresh else []

    def _chaser(self) -> str | None:
        """Who has run after the other for as long as it takes."""
        if len(self._path) <= STEPS:
            return None
        for then, now in zip(self._path, self._path[1:], strict=False):
            (ax, ay), (bx, by) = ((b[0] - a[0], b[1] - a[1]) for a, b in zip(then, now, strict=True))
            if hypot(ax, ay) < STRIDE or hypot(bx, by) < STRIDE or ax * bx + ay * by <= 0:
                return None
        (white, black), (white_now, black_now) = self._path[0], self._path[-1]
        ahead_x, ahead_y = black[0] - white[0], black[1] - white[1]
        run_x = white_now[0] + black_now[0] - white[0] - black[0]
        run_y = white_now[1] + black_now[1] - white[1] - black[1]
        ground = (run_x * ahead_x + run_y * ahead_y) / (2 * max(1.0, hypot(ahead_x, ahead_y)))
        return None if abs(ground) < GROUND else COLOURS[ground < 0]

    def _clinches(self) -> list[Sight]:
        white, black = self._path[-1]
        close = abs(white[0] - black[0]) <= CLINCH_GAP[0] and abs(white[1] - black[1]) <= CLINCH_GAP[1]
        self._clinch = self._clinch + 1 if close else 0
        return [Sight("clinch")] if self._clinch == STEPS + 1 else []

    def _switches(self) -> list[Sight]:
        (white, _), (black, _) = self._path[-1]
        if abs(white - black) < PAST:
            return []
        before, self._white_left = self._white_left, white < black
        return [] if before in (None, self._white_left) else [Sight("switch")]
