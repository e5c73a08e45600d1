"""Pong on the console, with its ball, paddles, scores and serve under control of RAM writes.

Positions are pixels of the 160 x 210 screen: the left edge of the 2 x 4 ball, the top edge of it, the top edge of a
4 x 16 paddle. The court lies between y = 34 and 194.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...console import Console
from ...game import FRAMES_PER_SECOND

ORANGE_SCORE, GREEN_SCORE, ORANGE_TOP, GREEN_TOP, GREEN_DIAL = 13, 14, 21, 51, 60
BALL_X, BALL_Y, BALL_DY, BALL_DX, HITS, SERVE_TIMER, CLOCK = 49, 54, 56, 58, 17, 11, 8
IDLE = 9
SHOWN_ORANGE = 50
X_OFFSET, Y_OFFSET, ORANGE_OFFSET, GREEN_OFFSET = 49, 14, 15, 14
COURT_TOP, COURT_BOTTOM = 34, 194
BALL_HEIGHT, PADDLE_HEIGHT = 4, 16
LEFT_CONTACT, RIGHT_CONTACT, CENTRE = 19, 139, 77
ORANGE_LEFT, GREEN_LEFT = 16, 140
BOUNCE_TOP, BOUNCE_BOTTOM = 31, 192
HOLD_TIMER = 40
START_TOP = 106


class Court:
    """One emulator, advanced frame by frame. Everything that it shows is set here or moved by the game itself.

    ``shown_scores``: (green, orange) as drawn; a new score is drawn one frame after it is counted.
    """

    def __init__(self) -> None:
        self._console = Console("pong")
        self._dx, self._wait = 0, True
        self.shown_scores = (0, 0)
        for _ in range(2 * FRAMES_PER_SECOND):
            self._console.advance()
        self.clear()
        self.step(START_TOP, START_TOP)

    @property
    def ram(self) -> NDArray[np.uint8]:
        """The console's memory."""
        return self._console.ram

    def _write(self, address: int, value: int) -> None:
        self._console.write(address, value)

    def clear(self) -> None:
        """Takes the ball away and waits for ``serve``."""
        self._write(BALL_Y, 0)
        self._dx, self._wait = 0, True

    def serve(self, y: int, dx: int, dy: int) -> None:
        """Puts the ball at the centre line, at height y, moving by dx (+1 or -1) and dy pixels a frame."""
        self._write(SERVE_TIMER, 0)
        self._write(BALL_X, CENTRE + X_OFFSET)
        self._write(BALL_Y, y + Y_OFFSET)
        self._wait = False
        self.aim(dx, dy)

    def aim(self, dx: int, dy: int) -> None:
        """Sets the ball's speed in pixels a frame."""
        self._write(BALL_DX, 1 if dx < 0 else 255)
        self._write(BALL_DY, dy % 256)
        self._write(HITS, 0)
        self._dx = dx

    def shift(self, pixels: int) -> None:
        """Moves the ball sideways, on top of its own motion."""
        self._write(BALL_X, int(self.ram[BALL_X]) + pixels)

    def reset_scores(self) -> None:
        """Both scores to 0."""
        self._write(GREEN_SCORE, 0)
        self._write(ORANGE_SCORE, 0)

    def step(self, green: int, orange: int) -> None:
        """One frame with the paddles' top edges at these heights."""
        self._write(GREEN_TOP, green + GREEN_OFFSET)
        self._write(GREEN_DIAL, green + GREEN_OFFSET)
        self._write(ORANGE_TOP, self._before_own_move(orange + ORANGE_OFFSET))
        if self._wait:
            self._write(SERVE_TIMER, HOLD_TIMER)
        self.shown_scores = self.scores
        self._write(IDLE, 1)  # or else the game takes itself for idle after 18 minutes and changes its colours
        self._console.advance()

    def _before_own_move(self, wanted: int) -> int:
        """What to write so that the game's own opponent, which moves 2 towards the ball, ends where it should."""
        if int(self.ram[CLOCK]) % 8 == 0:
            return wanted
        y = int(self.ram[BALL_Y])
        dy = int(self.ram[BALL_DY])
        ahead = 0 if self._wait or y == 0 else y + (dy - 256 if dy > 127 else dy)
        return wanted - 2 if ahead >= wanted else wanted + 2

    @property
    def ball(self) -> tuple[int, int] | None:
        """(x, y) of the ball, None when there is none."""
        y = int(self.ram[BALL_Y])
        return None if y == 0 or self._wait else (int(self.ram[BALL_X]) - X_OFFSET, y - Y_OFFSET)

    @property
    def motion(self) -> tuple[int, int]:
        """Signs of the ball's movement, right and down positive; (0, 0) when there is none."""
        if self.ball is None:
            return 0, 0
        dx, dy = (int(self.ram[address]) for address in (BALL_DX, BALL_DY))
        return -1 if dx < 128 else 1, (dy > 0) - 2 * (dy > 127)

    @property
    def bounced(self) -> bool:
        """Whether a paddle has turned the ball since ``aim``."""
        return not self._wait and (int(self.ram[BALL_DX]) < 128) != (self._dx < 0)

    @property
    def scores(self) -> tuple[int, int]:
        """(green, orange)."""
        return int(self.ram[GREEN_SCORE]), int(self.ram[ORANGE_SCORE])

    @property
    def paddles(self) -> tuple[int, int]:
        """Top edges of (green, orange) as drawn: the game draws green at even and orange at odd heights only."""
        green, orange = int(self.ram[GREEN_TOP]) - GREEN_OFFSET, int(self.ram[SHOWN_ORANGE]) - ORANGE_OFFSET
        return green + green % 2, orange + 1 - orange % 2

    def screen(self) -> NDArray[np.uint8]:
        """The picture now, (210, 160, 3) uint8 RGB. Ball and paddles are drawn in every frame."""
        return self._console.screen()
