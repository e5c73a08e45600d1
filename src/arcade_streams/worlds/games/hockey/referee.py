"""What has happened on the rink, told at the frame from which the picture shows it."""

from __future__ import annotations

from dataclasses import dataclass

from ...game import HALF, Happening, Place
from .plans import SPOT, WING_WIDTH
from .rink import BACKS, ICE_LEFT, SKATERS, Rink, opposite, side_of
from .rules import COLOURS, ENDS, WINGS

STILL_FRAMES = 180
"""Frames that a skater has lain, or has stood with the puck, when that is said."""
FREE = 4
"""Pixels from its place at which the puck is clearly off the spot of the face-off, or off the stick."""


def wing_of(x: float) -> str:
    """The third of the ice in which a puck with this left edge lies."""
    return WINGS[max(0, min(2, int((x + 1 - ICE_LEFT) // WING_WIDTH)))]


def end_of(skater: int) -> str:
    """Whether a skater is his side's defence or attack."""
    return ENDS[skater not in BACKS]


def outcome(played: int, taken: int) -> str:
    """What a puck that one skater has played and one has taken was: a kind of the game's."""
    if side_of(taken) == side_of(played):
        return "rebound" if taken == played else "pass"
    return "save" if taken in BACKS and taken == opposite(played) else "intercept"


@dataclass(slots=True)
class Release:
    """A puck played off a stick: by whom, from where. ``told``: whether it has been seen to be free."""

    skater: int
    x: float
    y: float
    told: bool = False


@dataclass(frozen=True, slots=True)
class LastFrame:
    """The rink before a frame: score, who has the puck, where it is and where the skaters are."""

    scores: tuple[int, int]
    holder: int | None
    puck: tuple[float, float]
    skaters: tuple[Place, ...]

    @classmethod
    def of(cls, rink: Rink) -> LastFrame:
        """The rink now."""
        return cls(rink.scores, rink.holder, rink.puck, rink.skaters)


class Referee:
    """Watches a rink frame by frame."""

    def __init__(self, rink: Rink) -> None:
        self._rink = rink
        self._dropped = True
        self._release: Release | None = None
        self._lain, self._stood = [0] * len(SKATERS), 0

    def face_off(self) -> None:
        """The puck is about to drop."""
        self._dropped, self._release = False, None
        self._lain, self._stood = [0] * len(SKATERS), 0

    def watch(self, frame: int, before: LastFrame) -> list[Happening]:
        """What the frame that has just been played has brought."""
        rink, told = self._rink, []
        if rink.scores != before.scores:
            return self._goal(frame, int(rink.scores[1] > before.scores[1]))
        if not rink.playing:
            return []
        told += self._drop(frame)
        if rink.holder is not None and rink.holder != before.holder:
            told.append(self._taken(frame, rink.holder))
        elif rink.holder is None and before.holder is not None and not rink.fallen(before.holder):
            self._release = Release(before.holder, *before.puck)
        told += self._shot(frame)
        told += self._still(frame, before)
        return told

    def _goal(self, frame: int, side: int) -> list[Happening]:
        told = [Happening(frame, "point", COLOURS[side], scores=self._rink.scores)]
        if self._release is not None:
            told.append(Happening(frame, "origin", None, wing_of(self._release.x)))
        self._release = None
        return told

    def _drop(self, frame: int) -> list[Happening]:
        x, y = self._rink.shown_puck
        if self._dropped or max(abs(x - SPOT[0]), abs(y - SPOT[1])) < FREE:
            return []
        self._dropped = True
        return [Happening(frame, "drop")]

    def _taken(self, frame: int, holder: int) -> Happening:
        release, self._release = self._release, None
        colour = COLOURS[side_of(holder)]
        if release is None:
            return Happening(frame, "take", colour, end_of(holder))
        return Happening(frame, outcome(release.skater, holder), colour, wing_of(release.x))

    def _shot(self, frame: int) -> list[Happening]:
        """A puck that a front has played, once it has come off the row of his stick."""
        release = self._release
        if release is None or release.told or abs(self._rink.shown_puck[1] - release.y) < FREE:
            return []
        release.told = True
        return [] if release.skater in BACKS else [Happening(frame, "shot", COLOURS[side_of(release.skater)])]

    def _still(self, frame: int, before: LastFrame) -> list[Happening]:
        """Counts frames that somebody lies, or stands with the puck."""
        rink, told, holder = self._rink, [], before.holder
        same = holder is not None and rink.holder == holder and rink.skater(holder) == before.skaters[holder]
        self._stood = self._stood + 1 if same else 0
        if holder is not None and _is_time(frame, self._stood):
            told.append(Happening(frame, "wait", COLOURS[side_of(holder)]))
        for i, lies in enumerate(rink.lying):
            self._lain[i] = self._lain[i] + 1 if lies else 0
            if _is_time(frame, self._lain[i]):
                told.append(Happening(frame, "down", COLOURS[side_of(i)]))
        return told


def _is_time(frame: int, still: int) -> bool:
    """Whether something that has been still for so many frames is told now: once, at a frame that is seen."""
    return frame % HALF == 0 and STILL_FRAMES <= still < STILL_FRAMES + HALF
