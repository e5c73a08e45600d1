"""Endless Ice Hockey: who carries, passes, shoots, loses and saves the puck, and what happens at which frame."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...game import HALF, FrameLabel, Happening, Place
from .plans import CORES, KEEPER_AHEAD, KEEPER_BEHIND, SPOT, Carry, Director, Flight, Plan
from .rink import BACKS, REST, SKATERS, Rink, Stick, mate, side_of
from .rules import COLOURS, ENDS, POINTS_TO_WIN, WINGS
from .skaters import loses, steer, unwanted

STILL_FRAMES = 180
"""Frames that a skater has lain, or has stood with the puck, when that is said."""
FREE = 4
"""Pixels from its place at which the puck is clearly off the spot of the face-off, or off the stick."""
PLACES = ("puck", "blue_back", "yellow_front", "blue_front", "yellow_back")
FACTS = {"holder": 4, **{f"{name}_down": 2 for name in PLACES[1:]}}
TACKLE = (14, 8)
"""Pixels sideways and up or down within which a skater is knocked over."""
SEEN_FRAMES = HALF + 4
"""Frames that the puck has been in one third before it is played from there, so that a frame that is seen shows it."""
LATE = 180
"""Frames after which somebody who cannot do with the puck what he should do plays it all the same."""
HEIGHT = 20


def wing_of(x: float) -> str:
    """The third of the ice in which a puck with this left edge lies."""
    return WINGS[max(0, min(2, int((x + 1 - 32) // 32)))]


def end_of(skater: int) -> str:
    """Whether a skater is his side's defence or attack."""
    return ENDS[skater not in BACKS]


def completes(played: int, taken: int) -> bool:
    """Whether a puck that one skater has played and another has taken is a pass, from a back to his mate, or a save."""
    if played in BACKS:
        return taken == mate(played)
    return taken in BACKS and side_of(taken) != side_of(played)


@dataclass(slots=True)
class Release:
    """A puck played off a stick: by whom, from where. ``told``: whether it has been seen to be free."""

    skater: int
    x: float
    y: float
    told: bool = False


class World:
    """Four skaters on one rink. ``advance`` moves everything by one frame of 1/60 s."""

    def __init__(self, rng: random.Random) -> None:
        self.rink = Rink()
        self.frame = 0
        self._rng = rng
        self._director = Director(self.rink, rng)
        self._plan: Plan | None = None
        self._hold_until = rng.randint(60, 200)
        self._was_after_goal = self._over = False
        self._drop_told = True
        self._release: Release | None = None
        self._lain, self._stood = [0] * 4, 0

    def advance(self) -> list[Happening]:
        """One frame on; what happened in it."""
        self.frame += 1
        rink, plan = self.rink, self._plan
        sticks = (REST, REST)
        if not rink.playing:
            self._wait()
        elif plan is not None:
            sticks = self._sticks(plan)
            barred = unwanted(rink, plan, self.frame)
            if barred is not None:
                rink.bar(barred)
        scores, holder, puck, skaters = rink.scores, rink.holder, rink.puck, rink.skaters
        rink.hold_clock()
        rink.step(*sticks)
        if rink.scores != scores:
            return self._scored(scores)
        if not rink.playing:
            return []
        return self._watch(holder, puck, skaters)

    def _wait(self) -> None:
        """Before a face-off, or after a goal and before the skaters go there."""
        rink = self.rink
        if self._was_after_goal and not rink.after_goal:
            self._hold_until = self.frame + self._rng.randint(50, 130)
        self._was_after_goal = rink.after_goal
        if self.frame < self._hold_until:
            rink.pause()
            return
        if self._over:
            rink.reset_scores()
            self._over = False
        rink.resume()
        if not rink.after_goal:
            self._plan = self._director.face_off(self.frame)
            self._drop_told, self._release = False, None
            self._lain, self._stood = [0] * 4, 0

    def _sticks(self, plan: Plan) -> tuple[Stick, Stick]:
        if not self.rink.ticks:
            return REST, REST
        blue, yellow = (steer(self.rink, plan, side, self.frame) for side in (0, 1))
        if isinstance(plan, Carry) and self._releases(plan):
            fire = Stick(0, 0, fire=True)
            return (fire, yellow) if side_of(plan.holder) == 0 else (blue, fire)
        return blue, yellow

    def _releases(self, carry: Carry) -> bool:
        """Whether the one with the puck plays it now."""
        if self.frame < carry.until or carry.end == "lose":
            return False
        if self.frame >= carry.until + LATE:
            return True
        low, high = CORES[carry.wing]
        clear = carry.end != "shoot" or not -KEEPER_BEHIND < self._director.ahead(carry.holder) < KEEPER_AHEAD
        return low <= self.rink.puck[0] <= high and carry.there >= SEEN_FRAMES and clear

    def _watch(self, before: int | None, puck: tuple[float, float], skaters: tuple[Place, ...]) -> list[Happening]:
        rink, plan, told = self.rink, self._plan, self._dropped()
        holder = rink.holder
        if holder is not None and holder != before:
            told.append(self._taken(holder))
        elif holder is None and before is not None and isinstance(plan, Carry):
            self._released(plan, puck)
        elif isinstance(plan, Carry):
            self._carried(plan, puck)
        elif isinstance(plan, Flight) and plan.shooter is not None:
            self._rebound(plan)
        told += self._shown_free() + self._still(before, skaters)
        return told

    def _dropped(self) -> list[Happening]:
        x, y = self.rink.shown_puck
        if self._drop_told or max(abs(x - SPOT[0]), abs(y - SPOT[1])) < FREE:
            return []
        self._drop_told = True
        return [Happening(self.frame, "drop")]

    def _taken(self, holder: int) -> Happening:
        release, self._release = self._release, None
        self._plan = self._director.carry(self.frame, holder)
        kind, zone = "take", end_of(holder)
        if release is not None and completes(release.skater, holder):
            kind, zone = ("pass" if holder == mate(release.skater) else "save"), wing_of(release.x)
        return Happening(self.frame, kind, COLOURS[side_of(holder)], zone)

    def _released(self, carry: Carry, puck: tuple[float, float]) -> None:
        """The puck has left the stick: played, or lost because its holder has fallen."""
        if self.rink.fallen(carry.holder):
            self._plan = self._director.loose(self.frame, self.rink.selected(1 - side_of(carry.holder)), 0.5)
            return
        self._release = Release(carry.holder, *puck)
        played = self._director.passed if carry.holder in BACKS else self._director.shot
        self._plan = played(self.frame, carry)

    def _carried(self, carry: Carry, before: tuple[float, float]) -> None:
        carry.there = carry.there + 1 if wing_of(before[0]) == wing_of(self.rink.puck[0]) else 0
        if self.frame >= carry.turn and self.frame < carry.until:
            self._director.turn(self.frame, carry)
        rink, thief = self.rink, self.rink.selected(1 - side_of(carry.holder))
        if self.frame > carry.until + 2 * LATE and carry.end == "lose":
            carry.end, carry.until = ("pass" if carry.holder in BACKS else "shoot"), self.frame
        if not loses(carry, self.frame) or not carry.lies:
            return
        (x, y), (thief_x, thief_y) = rink.skater(carry.holder), rink.skater(thief)
        if abs(x - thief_x) <= TACKLE[0] and abs(y - thief_y) <= TACKLE[1]:
            rink.fell(carry.holder, carry.lies)
            self._plan = self._director.loose(self.frame, thief, 0.5)

    def _rebound(self, flight: Flight) -> None:
        """From the boards back to the one who has shot."""
        assert flight.shooter is not None
        up = self.rink.speed[1] < 0
        if up == (side_of(flight.shooter) == 0):
            self._plan = self._director.loose(self.frame, flight.shooter, self._rng.uniform(0.5, 0.9))

    def _shown_free(self) -> list[Happening]:
        release = self._release
        if release is None or release.told or abs(self.rink.shown_puck[1] - release.y) < FREE:
            return []
        release.told = True
        if release.skater in BACKS:
            return []
        return [Happening(self.frame, "shot", COLOURS[side_of(release.skater)])]

    def _still(self, before: int | None, skaters: tuple[Place, ...]) -> list[Happening]:
        """Counts frames that somebody lies, or stands with the puck; told once, at a frame that is seen."""
        rink, told = self.rink, []
        same = before is not None and rink.holder == before and rink.skater(before) == skaters[before]
        self._stood = self._stood + 1 if same else 0
        if before is not None and self._is_time(self._stood):
            told.append(Happening(self.frame, "wait", COLOURS[side_of(before)]))
        for i in SKATERS:
            self._lain[i] = self._lain[i] + 1 if rink.lies(i) else 0
            if self._is_time(self._lain[i]):
                told.append(Happening(self.frame, "down", COLOURS[side_of(i)]))
        return told

    def _is_time(self, still: int) -> bool:
        return self.frame % HALF == 0 and STILL_FRAMES <= still < STILL_FRAMES + HALF

    def _scored(self, before: tuple[int, int]) -> list[Happening]:
        now = self.rink.scores
        side = int(now[1] > before[1])
        told = [Happening(self.frame, "point", COLOURS[side], scores=now)]
        if self._release is not None:
            told.append(Happening(self.frame, "origin", None, wing_of(self._release.x)))
        self._director.scored(self.frame, side)
        self._plan = self._release = None
        self._over = max(now) >= POINTS_TO_WIN
        self._hold_until = self.frame + (self._rng.randint(300, 360) if self._over else self._rng.randint(40, 80))
        return told

    def label(self) -> FrameLabel:
        """What the frame shows."""
        rink = self.rink
        places: dict[str, Place | None] = {"puck": rink.shown_puck}
        for name, i in zip(PLACES[1:], SKATERS, strict=True):
            x, y = rink.skater(i)
            places[name] = (x, y + 1 - HEIGHT)
        facts = {"holder": -1 if rink.shown_holder is None else rink.shown_holder}
        facts |= {f"{name}_down": int(rink.lies(i)) for name, i in zip(PLACES[1:], SKATERS, strict=True)}
        return FrameLabel(self.frame / 60, places, facts, rink.shown_scores, rink.playing)

    def screen(self) -> NDArray[np.uint8]:
        """The frame, (210, 160, 3) uint8 RGB."""
        return self.rink.screen()
