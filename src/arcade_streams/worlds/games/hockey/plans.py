"""What is to come: how long a skater keeps the puck and what then becomes of it, drawn at random."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ...game import FRAMES_PER_SECOND
from .rink import (
    BACKS,
    BLUE_FRONT,
    GOAL_BOTTOM,
    GOAL_TOP,
    SKATER_LEFT,
    SKATER_RIGHT,
    YELLOW_FRONT,
    Rink,
    mate,
    opposite,
    side_of,
    speed_for,
)
from .rules import WINGS

LONGEST_RUN = 8
"""Points in a row after which the other side gets its point."""
POINT_FRAMES = 490
"""No shot goes in earlier than this after the last point: two tallies are then more than 16 s apart."""
URGENT_FRAMES = 900
"""Frames after that in which the chance of a goal rises by 1, so that no point is awaited for minutes."""
WING_WIDTH = 32
CORES = {"left": (34, 57), "middle": (69, 89), "right": (102, 125)}
"""Left edges of the puck that lie well inside a third of the ice: shots are taken there."""
MIRROR = 228
"""The row of skates of a skater in one half and that of his counterpart in the other add up to this."""
BACK_ROWS, FRONT_ROWS = (64, 106), (104, 148)
"""Rows between which blue's back and blue's front carry the puck."""
SPOT = (79, 114)
"""The puck at a face-off."""
CATCH = (3, -1)
"""Where the puck should come to a skater, from his left edge and his row of skates."""
KEEPER_AHEAD, KEEPER_BEHIND = 26, 14
"""Nobody shoots with the keeper this few pixels nearer to the goal line or farther from it than himself."""
CARRIES, STARTS = ((45, 80), (45, 80), (110, 170)), 20
"""Frames for which somebody has the puck at least, one of these; and after he has stood with it."""
WAITS = 0.7, (3.4, 4.6), (0.8, 2.4)
LIES = 0.8, (3.3, 4.8), (0.8, 2.2)
"""How often somebody stands with the puck, or lies on the ice, for 3 s and more; for how many seconds then, or else."""
TACKLED = 0.95
"""How often somebody who loses the puck is knocked over."""
FACE_OFF = (YELLOW_FRONT, BLUE_FRONT) * 3 + BACKS
"""To whom the puck may drop."""
CLEAR_AHEAD = 20
"""A back plays the puck to somebody of the other side who is farther forward than this, else past him."""
PATIENCE = 90
"""Frames after a flight should have ended from which anybody may take the puck."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Skill:
    """How one side plays: how many of its shots go in or are saved, how often it loses the puck or stands with it."""

    goal: float
    save: float
    lose: float
    wait: float

    @classmethod
    def draw(cls, rng: random.Random) -> Skill:
        """The skill of one side for a whole stream."""
        return cls(rng.uniform(0.5, 0.75), rng.uniform(0.45, 0.65), rng.uniform(0.16, 0.26), rng.uniform(0.12, 0.17))


@dataclass(slots=True)
class Carry:
    """A skater has the puck, at least until a frame. ``end``: "pass", "clear", "shoot" or "lose".

    ``still_until``: he stands until then. ``wing``: the third of the ice that he shoots from. ``lies``: frames that he
    lies on the ice after he has lost the puck. ``way``: where he skates, until ``turn``. ``there``: frames for which
    the puck has been in one and the same third.
    """

    holder: int
    until: int
    end: str
    still_until: int
    wing: str
    lies: int
    way: Point = SPOT
    turn: int = 0
    there: int = 0


@dataclass(slots=True)
class Flight:
    """The puck is free. ``taker``: the only one who may take it before ``late``, nobody if it is to go in.

    ``aim``: where it flies. ``shooter``: who gets it back from the boards.
    """

    taker: int | None
    aim: Point
    late: int
    shooter: int | None = None


Plan = Carry | Flight


def uphill(skater: int, row: float) -> float:
    """A row given for blue, who attacks downwards, for the side of a skater."""
    return row if side_of(skater) == 0 else MIRROR - row


@dataclass
class Director:
    """Chooses what is to come, and sets the puck's flights accordingly."""

    rink: Rink
    rng: random.Random
    skill: tuple[Skill, Skill] = field(init=False)
    last_point: int = 0
    run: tuple[int, int] = (0, 0)
    """The side that has scored last, and how many times in a row."""

    def __post_init__(self) -> None:
        self.skill = (Skill.draw(self.rng), Skill.draw(self.rng))

    def scored(self, frame: int, side: int) -> None:
        """Takes note of a point."""
        self.last_point = frame
        self.run = (side, self.run[1] + 1 if self.run[0] == side else 1)

    def face_off(self, frame: int) -> Flight:
        """The puck drops towards one of the fronts, or past them to a back."""
        taker = self.rng.choice(FACE_OFF)
        return self._send(frame, SPOT, taker, self.rng.uniform(0.45, 0.9))

    def carry(self, frame: int, holder: int) -> Carry:
        """What a skater does with the puck that he has just taken."""
        rng = self.rng
        waits = rng.random() < self.skill[side_of(holder)].wait
        still = self._seconds(*WAITS) if waits else 0
        until = frame + max(rng.randint(*rng.choice(CARRIES)), still + STARTS)
        lies = self._seconds(*LIES) if rng.random() < TACKLED else 0
        carry = Carry(holder, until, self._end(holder), frame + still, rng.choice(WINGS), lies)
        self.turn(frame, carry)
        return carry

    def _seconds(self, share: float, long: tuple[float, float], short: tuple[float, float]) -> int:
        """Frames of a time that is long in this share of the cases."""
        return round(FRAMES_PER_SECOND * self.rng.uniform(*(long if self.rng.random() < share else short)))

    def _end(self, holder: int) -> str:
        if self.rng.random() < self.skill[side_of(holder)].lose:
            return "lose"
        if holder not in BACKS:
            return "shoot"
        return "pass" if self.rng.random() < 0.7 else "clear"

    def turn(self, frame: int, carry: Carry) -> None:
        """A new way for the one with the puck."""
        rows = BACK_ROWS if carry.holder in BACKS else FRONT_ROWS
        carry.way = (self.rng.uniform(SKATER_LEFT + 3, SKATER_RIGHT - 3), uphill(carry.holder, self.rng.uniform(*rows)))
        carry.turn = frame + self.rng.randint(50, 130)

    def passed(self, frame: int, carry: Carry) -> Flight:
        """A back has played the puck forward: to his mate, or to one of the other side."""
        back = carry.holder
        taker = mate(back)
        if carry.end == "clear" or self.rink.fallen(taker):
            front = opposite(back)
            taker = front if self.ahead(back) > CLEAR_AHEAD and not self.rink.fallen(front) else mate(front)
        return self._send(frame, self.rink.puck, taker, self.rng.uniform(0.7, 1.3))

    def shot(self, frame: int, carry: Carry) -> Flight:
        """A front has shot: it goes in, the other side's back saves it, or it comes back from the boards."""
        front, rng = carry.holder, self.rng
        keeper = opposite(front)
        fate = self._fate(frame, front, keeper)
        pace = rng.uniform(0.75, 1.5)
        if fate == "save":
            return self._send(frame, self.rink.puck, keeper, pace)
        line = GOAL_BOTTOM + 6 if front == BLUE_FRONT else GOAL_TOP - 4
        if fate == "goal":
            x = rng.choice((rng.uniform(68, 74), rng.uniform(82, 88)))
        else:
            x = rng.choice((rng.uniform(38, 54), rng.uniform(106, 122)))
        flight = self._fly(frame, self.rink.puck, (x, line), None, pace)
        flight.shooter = front if fate == "wide" else None
        return flight

    def ahead(self, skater: int) -> int:
        """How many pixels farther forward, as a skater sees it, the one of the other side in his part of the ice is."""
        lower = self.rink.skater(opposite(skater))[1] - self.rink.skater(skater)[1]
        return lower if side_of(skater) == 0 else -lower

    def _fate(self, frame: int, front: int, keeper: int) -> str:
        side, rng = side_of(front), self.rng
        scorer, length = self.run
        over = frame - self.last_point - POINT_FRAMES
        may = over >= 0 and not (length >= LONGEST_RUN and scorer == side)
        if may and rng.random() < self.skill[side].goal + over / URGENT_FRAMES:
            return "goal"
        saves = rng.random() < self.skill[1 - side].save and not self.rink.fallen(keeper)
        saves = saves and self.ahead(front) >= KEEPER_AHEAD
        return "save" if saves else "wide"

    def loose(self, frame: int, taker: int, pace: tuple[float, float]) -> Flight:
        """A puck that has come free goes to a skater, with so many pixels a frame."""
        return self._send(frame, self.rink.puck, taker, self.rng.uniform(*pace))

    def _send(self, frame: int, start: Point, taker: int, pace: float) -> Flight:
        x, y = self.rink.skater(taker)
        return self._fly(frame, start, (x + CATCH[0] + self.rng.uniform(-2, 2), y + CATCH[1]), taker, pace)

    def _fly(self, frame: int, start: Point, aim: Point, taker: int | None, pace: float) -> Flight:
        """Sends the puck, so fast that it makes this many pixels a frame on average, but for half a second at least."""
        dx, dy = aim[0] - start[0], aim[1] - start[1]
        frames = max(30, round(max(abs(dx), abs(dy)) / pace))
        self.rink.send(speed_for(dx, frames // 2), speed_for(dy, frames // 2))
        return Flight(taker, aim, frame + frames + PATIENCE)
