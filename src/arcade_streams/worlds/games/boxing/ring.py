"""Boxing on the console in its game for two, both boxers moved by RAM writes. Side 0 is white, side 1 black.

Positions are those of the game's memory, x from 30 to 109, y from 3 to 87. Boxers whose x differ by less than 14 and y
by less than 48 would overlap, which the caller avoids. Addresses and rules follow from the ROM's code:

- A punch goes out with the arm on the opponent's side, by 8 a frame up to a reach of 40, 56 or 72, and back by 2.
- Fully out it lands if x differ by less than 29 and y by 11 to 28. It counts 1 with a reach of 72, as all have here
  that land, else 2.
- Whoever is hit is thrown about for 15 frames, both arms out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...console import Console
from ...game import FRAMES_PER_SECOND, Place, Scores

X, Y, SCORE = (32, 33), (34, 35), (18, 19)
MINUTES, SECONDS, TICKS, IDLE, COMPUTER = 16, 17, 20, 22, 89
STUNNED, REACH, LIMIT, BUTTON = 81, 55, 24, 99
"""The last three are the first of four arms, two addresses apart: white's upper, lower, black's upper, lower."""
MIN_X, MAX_X, MIN_Y, MAX_Y = 30, 109, 3, 87
BOXER_WIDTH, BOXER_HEIGHT = 14, 47
LANDS_DX, LANDS_DY = 29, (11, 28)
FAR, NEAR = 72, 56
"""Reach of an arm that has room, and of one that meets the other's gloves."""
HALF_OUT, FULLY_OUT = 48, 64
"""Reach from which on an arm is drawn half out and fully out."""
OUT_FRAMES = 36
"""Frames for which a punch that does not land is to be seen: more than the half second between two seen frames."""
COLON, TWO_MINUTES = 0x0B, 0x2B


class Ring:
    """One fight, advanced frame by frame. Everything moves only as it is told, but for who is hit."""

    def __init__(self) -> None:
        self._console = Console("boxing")
        self._console.write(COMPUTER, 0)
        for _ in range(FRAMES_PER_SECOND):
            self._console.advance()
        self._thrown: dict[int, int] = {}
        self._out: dict[int, tuple[int, int]] = {}
        self.rest()

    @property
    def ram(self) -> NDArray[np.uint8]:
        """The console's memory."""
        return self._console.ram

    def put(self, side: int, place: Place) -> None:
        """Moves a boxer to (x, y)."""
        self._console.write(X[side], place[0])
        self._console.write(Y[side], place[1])

    def punch(self, side: int) -> None:
        """Throws a punch, which is fully out in the next frame."""
        (x, y), (other_x, other_y) = self.places[side], self.places[1 - side]
        arm = 2 * (2 * side + (y < other_y))
        near = abs(x - other_x) < LANDS_DX and abs(y - other_y) < LANDS_DY[0]
        reach = NEAR if near else FAR
        self._console.write(LIMIT + arm, reach)
        self._console.write(REACH + arm, reach - 8)
        self._console.write(BUTTON + arm, 0)
        self._thrown[arm] = reach

    def rest(self) -> None:
        """Between rounds: the clock shows a second. At none the emulator would take the game to be over and stop."""
        self._console.write(MINUTES, COLON)
        self._console.write(SECONDS, 1)

    def begin(self) -> None:
        """A round: both scores 0, two minutes on the clock, which is held."""
        self._console.write(MINUTES, TWO_MINUTES)
        for address in (SECONDS, *SCORE):
            self._console.write(address, 0)

    def step(self) -> None:
        """One frame."""
        self._console.write(TICKS, FRAMES_PER_SECOND - 1)
        self._console.write(IDLE, 0)  # or else the game takes itself for idle after 18 minutes and changes its colours
        for arm, (reach, frames) in list(self._out.items()):
            self._console.write(REACH + arm, reach + 2)  # the game takes 2 back
            self._out[arm] = (reach, frames - 1)
            if frames == 1:
                del self._out[arm]
        scores = self.scores
        self._console.advance()
        if self.scores == scores:
            held = {arm: (reach, OUT_FRAMES - (reach - HALF_OUT) // 2) for arm, reach in self._thrown.items()}
            self._out |= held
        self._thrown.clear()

    @property
    def places(self) -> tuple[Place, Place]:
        """(x, y) of white and black in the game's memory."""
        white, black = ((int(self.ram[x]), int(self.ram[y])) for x, y in zip(X, Y, strict=True))
        return white, black

    @property
    def drawn(self) -> tuple[Place, Place]:
        """Left and top edge of white and black on the screen, arms in."""
        (x, y), (other_x, other_y) = self.places
        if x < other_x:
            return (x + 5, y + 38), (other_x + 3, other_y + 37)
        return (x + 3, y + 37), (other_x + 5, other_y + 38)

    @property
    def scores(self) -> Scores:
        """(white, black)."""
        white, black = (10 * (int(self.ram[at]) >> 4) + int(self.ram[at]) % 16 for at in SCORE)
        return white, black

    @property
    def stunned(self) -> bool:
        """Whether someone is being thrown about by a hit."""
        return bool(self.ram[STUNNED])

    def arms(self, side: int) -> tuple[int, int]:
        """How far the (upper, lower) arm is drawn: 0 in, 1 half out, 2 fully out."""
        upper, lower = (int(self.ram[REACH + 4 * side + arm]) for arm in (0, 2))
        return (upper >= HALF_OUT) + (upper >= FULLY_OUT), (lower >= HALF_OUT) + (lower >= FULLY_OUT)

    def screen(self) -> NDArray[np.uint8]:
        """The picture now, (210, 160, 3) uint8 RGB."""
        return self._console.screen()
