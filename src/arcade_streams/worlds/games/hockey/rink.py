"""Ice Hockey on the console, both sides played by joystick, the puck's flights set by RAM writes.

Positions are pixels of the 160 x 210 screen: the left and top edge of the 2 x 2 puck, and of a skater the left edge of
his body (8 wide, 20 high) and the row of his skates. The ice lies between x = 32 and 127, y = 42 and 186. Blue defends
the goal at the top, yellow the one at the bottom.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ...console import Console

BLUE_BACK, YELLOW_FRONT, BLUE_FRONT, YELLOW_BACK = SKATERS = range(4)
"""Each side has one skater in the upper and one in the lower part of the ice; a back keeps his goal."""
BACKS = (BLUE_BACK, YELLOW_BACK)

TICK, PLAYS, ATTRACT, FRACTION = 4, 5, 12, 47
SCORES = (10, 11)
DOWN, SHOT_BY, SHOT_WAIT, AFTER_GOAL, FIGURE = 34, 45, 46, 48, 66
PUCK_Y_PART, PUCK_X_PART, PUCK_Y, PUCK_X, SHOWN_PUCK_Y = 49, 50, 51, 52, 91
SKATER_Y, SKATER_X, FACES_LEFT = 53, 57, 61
HOLDER, SPEED_HIGH_Y, SPEED_HIGH_X, SPEED_LOW_Y, SPEED_LOW_X = 90, 96, 97, 98, 99
SELECTED, YELLOW_STICK, YELLOW_BUTTON = 108, 115, 116

PUCK_X_OFFSET, SKATER_X_OFFSET, Y_MIRROR = 10, 9, 188
PLAYING, PAUSED, NOBODY, LYING = 255, 64, 255, 224
ICE_LEFT, ICE_RIGHT, ICE_TOP, ICE_BOTTOM = 32, 127, 42, 186
GOAL_LEFT, GOAL_RIGHT, GOAL_TOP, GOAL_BOTTOM = 64, 94, 44, 183
SKATER_LEFT, SKATER_RIGHT, SKATER_HEIGHT = 41, 111, 20
REACH = (-1, 6)
"""The puck minus the skater, in pixels sideways, at which he takes it, whichever way he faces."""
TICK_FRAMES = 4
"""Frames between two readings of the joysticks; a skater makes 1 pixel sideways and 2 up or down in each."""
DOWN_FRAMES = 8
"""Frames in one unit of the counter of a skater who lies on the ice."""

_ACTIONS = {(0, 0): 0, (0, -1): 2, (1, 0): 3, (-1, 0): 4, (0, 1): 5, (1, -1): 6, (-1, -1): 7, (1, 1): 8, (-1, 1): 9}
_ACTIONS_WITH_FIRE = {way: 1 if not action else action + 8 for way, action in _ACTIONS.items()}


@dataclass(frozen=True, slots=True)
class Stick:
    """What a side does with its joystick: right and down positive."""

    dx: int = 0
    dy: int = 0
    fire: bool = False


REST = Stick()


def side_of(skater: int) -> int:
    """The side of a skater: the place of his colour in COLOURS."""
    return skater % 2


def mate(skater: int) -> int:
    """The other skater of the same side."""
    return skater ^ 2


def opposite(skater: int) -> int:
    """The skater of the other side in the same part of the ice: a back keeps his goal against the opposite front."""
    return skater ^ 1


@cache
def _travels(speed: int) -> tuple[int, ...]:
    """Way in 1/256 pixel after each step of the puck, at first this fast (1/256 pixel a step), with the ice's drag."""
    way, ways = 0, []
    for _ in range(160):
        drag = speed >> 6
        speed -= drag if drag != -1 else 0
        way += speed
        ways.append(way)
    return tuple(ways)


def travel(speed: int, steps: int) -> float:
    """Pixels that a free puck makes in some steps (two frames each) that starts with a speed in 1/256 pixel a step."""
    return _travels(speed)[steps - 1] / 256 if steps else 0.0


def speed_for(pixels: float, steps: int) -> int:
    """The first speed, in 1/256 pixel a step, that makes this way in that many steps."""
    low, high = -4096, 4096
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if travel(middle, steps) < pixels else (low, middle)
    return low


class Rink:
    """One emulator, advanced frame by frame. ``shown_*`` is what the picture shows, the rest what the game holds.

    The game moves the skaters before it draws a frame and the puck after it.
    """

    def __init__(self) -> None:
        self._console = Console("ice_hockey")
        self.shown_puck, self.shown_scores = (0, 0), (0, 0)
        self.shown_holder: int | None = None
        self.shown_skaters, self.shown_lying = self.skaters, self.lying
        self.pause()
        self.step(REST, REST)

    @property
    def ram(self) -> NDArray[np.uint8]:
        """The console's memory."""
        return self._console.ram

    def _write(self, address: int, value: int) -> None:
        self._console.write(address, value % 256)

    def step(self, blue: Stick, yellow: Stick) -> None:
        """One frame with these joysticks; they count in one frame of TICK_FRAMES, when ``ticks``."""
        way = (yellow.dx, yellow.dy)
        pressed = (way[1] < 0) + 2 * (way[1] > 0) + 4 * (way[0] < 0) + 8 * (way[0] > 0)
        self._write(YELLOW_STICK, 15 - pressed)
        self._write(YELLOW_BUTTON, 0 if yellow.fire else 255)
        self._write(ATTRACT, 0)  # or else the game takes itself for idle after 9 minutes and changes its colours
        self.shown_puck = int(self.ram[PUCK_X]) - PUCK_X_OFFSET, Y_MIRROR - int(self.ram[SHOWN_PUCK_Y])
        self.shown_scores, self.shown_holder = self.scores, self.holder
        before, after_goal = (self.skaters, self.lying), self.after_goal
        self._console.advance((_ACTIONS_WITH_FIRE if blue.fire else _ACTIONS)[blue.dx, blue.dy])
        goes_to_face_off = after_goal and not self.after_goal  # which the game does after it has drawn the frame
        self.shown_skaters, self.shown_lying = before if goes_to_face_off else (self.skaters, self.lying)

    @property
    def ticks(self) -> bool:
        """Whether the next frame reads the joysticks."""
        return int(self.ram[TICK]) % TICK_FRAMES == 0

    def pause(self) -> None:
        """Holds everything for a second; call it each frame to hold longer."""
        self._write(PLAYS, PAUSED)

    def resume(self) -> None:
        """Ends a pause with the next frame: after a goal the skaters go to the face-off, from there the play begins."""
        self._write(PLAYS, 1)

    @property
    def after_goal(self) -> bool:
        """Whether the pause is the one after a goal, before the skaters have gone to the face-off."""
        return bool(self.ram[AFTER_GOAL])

    @property
    def playing(self) -> bool:
        """Whether the puck is in play, and not held before a face-off or after a goal."""
        return int(self.ram[PLAYS]) == PLAYING and not self.ram[AFTER_GOAL]

    def hold_clock(self) -> None:
        """Keeps the game's clock where it is."""
        self._write(FRACTION, 0)

    def reset_scores(self) -> None:
        """Both scores to 0."""
        for address in SCORES:
            self._write(address, 0)

    def send(self, x: int, y: int) -> None:
        """Sets the puck's speed, right and down positive, in 1/256 pixel a step of two frames."""
        for high, low, speed in ((SPEED_HIGH_X, SPEED_LOW_X, x), (SPEED_HIGH_Y, SPEED_LOW_Y, -y)):
            self._write(high, speed >> 8)
            self._write(low, speed)

    def fell(self, skater: int, frames: int) -> None:
        """Lays a skater on the ice for about that many frames; a puck that he has is loose."""
        self._write(DOWN + skater, -(-frames // DOWN_FRAMES))
        if self.holder == skater:
            self._write(HOLDER, NOBODY)

    def bar(self, skater: int) -> None:
        """Keeps one skater from taking the puck in the next frame."""
        self._write(SHOT_BY, skater)
        self._write(SHOT_WAIT, 2)

    @property
    def puck(self) -> tuple[float, float]:
        """(x, y) of the puck, which the picture shows one frame later."""
        x = int(self.ram[PUCK_X]) + int(self.ram[PUCK_X_PART]) / 256 - PUCK_X_OFFSET
        return x, Y_MIRROR - int(self.ram[PUCK_Y]) - int(self.ram[PUCK_Y_PART]) / 256

    @property
    def puck_is_seen(self) -> bool:
        """Whether the puck shows: in the mouth of a goal it is black on black."""
        x, y = self.shown_puck
        return GOAL_TOP < y <= GOAL_BOTTOM or not GOAL_LEFT <= x <= GOAL_RIGHT

    @property
    def speed(self) -> tuple[int, int]:
        """(x, y) speed of a free puck, right and down positive, in 1/256 pixel a step of two frames."""
        parts = ((SPEED_HIGH_X, SPEED_LOW_X), (SPEED_HIGH_Y, SPEED_LOW_Y))
        x, y = ((int(self.ram[high]) << 8 | int(self.ram[low])) for high, low in parts)
        return x - (x >> 15 << 16), (y >> 15 << 16) - y

    def skater(self, skater: int) -> tuple[int, int]:
        """(x, y) of a skater."""
        return int(self.ram[SKATER_X + skater]) - SKATER_X_OFFSET, Y_MIRROR - int(self.ram[SKATER_Y + skater])

    @property
    def skaters(self) -> tuple[tuple[int, int], ...]:
        """(x, y) of the four."""
        return tuple(self.skater(i) for i in SKATERS)

    def faces_left(self, skater: int) -> bool:
        """Whether a skater has his stick at his left."""
        return bool(self.ram[FACES_LEFT + skater])

    def fallen(self, skater: int) -> bool:
        """Whether a skater can do nothing because he has fallen; the picture shows it within DOWN_FRAMES."""
        return bool(self.ram[DOWN + skater])

    @property
    def lying(self) -> tuple[bool, ...]:
        """Which of the four are drawn lying on the ice."""
        return tuple(int(self.ram[FIGURE + 2 * i]) == LYING for i in SKATERS)

    @property
    def holder(self) -> int | None:
        """The skater who has the puck."""
        holder = int(self.ram[HOLDER])
        return holder if holder in SKATERS else None

    def selected(self, side: int) -> int:
        """The skater whom a side's joystick moves: the game picks the one nearer to the puck."""
        return int(self.ram[SELECTED + side])

    def rival(self, skater: int) -> int:
        """Whom the joystick of the other side moves."""
        return self.selected(1 - side_of(skater))

    @property
    def scores(self) -> tuple[int, int]:
        """(blue, yellow)."""
        blue, yellow = (int(self.ram[address]) for address in SCORES)
        return blue, yellow

    def screen(self) -> NDArray[np.uint8]:
        """The picture now, (210, 160, 3) uint8 RGB. Nothing in it flickers."""
        return self._console.screen()
