"""Endless Ice Hockey: two sides that carry out plans, one face-off after another."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from ...game import FRAMES_PER_SECOND, HALF, FrameLabel, Happening, Place
from .plans import CORES, KEEPER_AHEAD, KEEPER_BEHIND, Carry, Director, Flight, Plan
from .referee import LastFrame, Referee, wing_of
from .rink import BACKS, REST, SKATER_HEIGHT, SKATERS, Rink, Stick, side_of
from .rules import POINTS_TO_WIN
from .skaters import loses, steer, unwanted

NAMES = ("blue_back", "yellow_front", "blue_front", "yellow_back")
"""The skaters by number."""
PLACES = ("puck", *NAMES)
FACTS = {"holder": len(SKATERS), **{f"{name}_down": 2 for name in NAMES}}
TACKLE = (14, 8)
"""Pixels sideways and up or down within which a skater is knocked over."""
SEEN_FRAMES = HALF + 4
"""Frames that the puck has been in one third before it is played from there, so that a frame that is seen shows it."""
LATE = 180
"""Frames after which somebody who cannot do with the puck what he should do plays it all the same."""
LOOSE_PACE, REBOUND_PACE = (0.5, 0.5), (0.5, 0.9)
"""Pixels a frame of a puck that comes off a stick because somebody falls, and of one that comes off the boards."""
FIRST_WAIT, GOAL_WAIT, GAME_WAIT, FACE_OFF_WAIT = (60, 200), (40, 80), (300, 360), (50, 130)
"""Frames for which the play rests."""


class World:
    """Four skaters on one rink. ``advance`` moves everything by one frame of 1/60 s."""

    def __init__(self, rng: random.Random) -> None:
        self.rink = Rink()
        self.frame = 0
        self._rng = rng
        self._director, self._referee = Director(self.rink, rng), Referee(self.rink)
        self._plan: Plan | None = None
        self._hold_until = rng.randint(*FIRST_WAIT)
        self._was_after_goal = self._over = False

    def advance(self) -> list[Happening]:
        """One frame on; what happened in it."""
        self.frame += 1
        rink, plan, sticks = self.rink, self._plan, (REST, REST)
        if not rink.playing:
            self._rest()
        elif plan is not None:
            sticks = self._sticks(plan)
            barred = unwanted(rink, plan, self.frame)
            if barred is not None:
                rink.bar(barred)
        before = LastFrame.of(rink)
        rink.hold_clock()
        rink.step(*sticks)
        told = self._referee.watch(self.frame, before)
        if rink.scores != before.scores:
            self._scored(int(rink.scores[1] > before.scores[1]))
        elif rink.playing:
            self._follow(before)
        return told

    def _rest(self) -> None:
        """Before a face-off, or after a goal and before the skaters go there."""
        rink = self.rink
        if self._was_after_goal and not rink.after_goal:
            self._hold_until = self.frame + self._rng.randint(*FACE_OFF_WAIT)
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
            self._referee.face_off()

    def _scored(self, side: int) -> None:
        self._director.scored(self.frame, side)
        self._plan = None
        self._over = max(self.rink.scores) >= POINTS_TO_WIN
        self._hold_until = self.frame + self._rng.randint(*(GAME_WAIT if self._over else GOAL_WAIT))

    def _sticks(self, plan: Plan) -> tuple[Stick, Stick]:
        if not self.rink.ticks:
            return REST, REST
        blue, yellow = (steer(self.rink, plan, side, self.frame) for side in (0, 1))
        if isinstance(plan, Carry) and self._plays(plan):
            fire = Stick(fire=True)
            return (fire, yellow) if side_of(plan.holder) == 0 else (blue, fire)
        return blue, yellow

    def _plays(self, carry: Carry) -> bool:
        """Whether the one with the puck plays it now."""
        if self.frame < carry.until or carry.end == "lose":
            return False
        if self.frame >= carry.until + LATE:
            return True
        low, high = CORES[carry.wing]
        clear = carry.end != "shoot" or not -KEEPER_BEHIND < self._director.ahead(carry.holder) < KEEPER_AHEAD
        return low <= self.rink.puck[0] <= high and carry.there >= SEEN_FRAMES and clear

    def _follow(self, before: LastFrame) -> None:
        """The next plan, if this frame has ended one."""
        rink, plan, holder = self.rink, self._plan, self.rink.holder
        if holder is not None and holder != before.holder:
            self._plan = self._director.carry(self.frame, holder)
        elif isinstance(plan, Flight):
            self._rebound(plan)
        elif plan is not None and holder is None:
            if rink.fallen(plan.holder):
                self._lost(plan)
            else:
                played = self._director.passed if plan.holder in BACKS else self._director.shot
                self._plan = played(self.frame, plan)
        elif plan is not None:
            self._carry_on(plan, before)

    def _carry_on(self, carry: Carry, before: LastFrame) -> None:
        rink = self.rink
        carry.there = carry.there + 1 if wing_of(before.puck[0]) == wing_of(rink.puck[0]) else 0
        if carry.turn <= self.frame < carry.until:
            self._director.turn(self.frame, carry)
        if not loses(carry, self.frame):
            return
        if self.frame > carry.until + 2 * LATE:
            carry.end, carry.until = ("pass" if carry.holder in BACKS else "shoot"), self.frame
            return
        (x, y), (thief_x, thief_y) = rink.skater(carry.holder), rink.skater(rink.rival(carry.holder))
        if carry.lies and abs(x - thief_x) <= TACKLE[0] and abs(y - thief_y) <= TACKLE[1]:
            rink.fell(carry.holder, carry.lies)
            self._lost(carry)

    def _lost(self, carry: Carry) -> None:
        """The puck is off the stick of somebody who has fallen, and comes to the nearest of the other side."""
        self._plan = self._director.loose(self.frame, self.rink.rival(carry.holder), LOOSE_PACE)

    def _rebound(self, flight: Flight) -> None:
        """From the boards back to the one who has shot."""
        if flight.shooter is not None and (self.rink.speed[1] < 0) == (side_of(flight.shooter) == 0):
            self._plan = self._director.loose(self.frame, flight.shooter, REBOUND_PACE)

    def label(self) -> FrameLabel:
        """What the frame shows."""
        rink = self.rink
        places: dict[str, Place | None] = {"puck": rink.shown_puck if rink.puck_is_seen else None}
        facts = {"holder": -1 if rink.shown_holder is None else rink.shown_holder}
        for i, (name, (x, y)) in enumerate(zip(NAMES, rink.shown_skaters, strict=True)):
            places[name] = (x, y + 1 - SKATER_HEIGHT)
            facts[f"{name}_down"] = int(rink.shown_lying[i])
        return FrameLabel(self.frame / FRAMES_PER_SECOND, places, facts, rink.shown_scores, rink.playing)

    def screen(self) -> NDArray[np.uint8]:
        """The frame, (210, 160, 3) uint8 RGB."""
        return self.rink.screen()
