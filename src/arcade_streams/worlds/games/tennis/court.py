"""Tennis on the console: both players, the ball's flights, the serve and the score under control of memory writes.

The game runs its two-player, slow variation: it moves everything 30 times a second, a tick. Positions are the game's
own, in pixels: x from the left, y upwards from the bottom of the picture to the top, z the height above the ground.
The near player (blue) plays at y below 54, the far one (pink) above 90; between them stands the net. A player's place
is that of the feet: x the left edge of the body, y the row under the feet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...console import Console
from ...game import Place, Scores

VARIATION, TWO_PLAYERS, CLOCK, IDLE, SERVING, PAUSE, ENDS = 0, 1, 4, 8, 32, 75, 80
RIGHT_SCORE, LEFT_SCORE, HITTER, POINTS, SERVER, WIDE = 6, 7, 52, 69, 74, 81
BALL_Y, BALL_X, BALL_Z, BALL_ROW, SHADOW_ROW = 15, 16, 17, 54, 55
BALL_FRACTIONS = (12, 13, 14)
"""256ths of y, x and z."""
X_SPEED, Y_SPEED, Z_SPEED = (19, 22), (18, 21), (20, 23)
"""Whole pixels a tick, and 256ths, two's complement."""
PLAYER_Y, PLAYER_X, FACING, SWING_TIMER = 24, 26, 56, 67
"""Two bytes each: the far player's, then the near one's."""
SHAPES = (28, 30)
"""Two bytes each: the racket and the legs of a player who faces right; of one who faces left, the other way round."""
LEGS = (0x9C, 0xB5, 0xCE, 0xE7)
"""Shapes: standing, and the other three steps of a walk."""
AT_REST = 0x84
"""Shape of a racket that does not strike."""
SWING_TICKS, LATER_SWING_TICKS = 15, 8
"""Ticks for which a stroke is seen, half a second; the game gives its second and third picture 4 each."""
STRIDE, REST = 4, 3
"""Pixels between two steps; ticks without moving after which a player stands."""
RACKET = 8
"""How far the sprite of a player who faces left starts left of the body."""
NET, LINES, ROWS, BORDER = range(78, 92), (12, 14, 142), range(2, 172), 7
"""Rows in which the net or a base line hides a ball (of row 91 half may be seen); rows, and the left edge, from which
on one is drawn."""
SPLIT = 105
"""A top edge on the screen in the middle of the net. Below it everything is drawn a line lower than above."""
FEET = (166, 167)
"""Top edge of a body (pink, blue) and row of its feet together."""
NOWHERE = (80, 0, 0)
"""A place of the ball that is not drawn."""
BOUNCE = 2.5
"""Pixels a tick that a ball climbs after a bounce and, by the game, after a stroke. It loses 1/8 a tick."""
FIRE = 1
TICKS_PER_SECOND = 30


@dataclass(frozen=True, slots=True)
class ShownCourt:
    """Left and top edges on the screen of ball and shadow (2 x 2 pixels) and of the players' bodies (23 high).

    Ball and shadow are None behind the net, in a base line and above the picture; the shadow also right under the ball.
    """

    ball: Place | None
    shadow: Place | None
    pink: Place
    blue: Place


class Walk:
    """The legs of one player."""

    def __init__(self) -> None:
        self._place: Place | None = None
        self._way = self._rest = 0

    def step(self, place: Place) -> int:
        """Which of ``LEGS`` to draw at the next place; call once a tick."""
        old = self._place or place
        moved = max(abs(old[0] - place[0]), abs(old[1] - place[1]))
        self._place, self._way, self._rest = place, self._way + moved, 0 if moved else self._rest + 1
        return self._way // STRIDE % len(LEGS) if self._rest < REST else 0


class Court:
    """One console. ``scores``: (pink, blue) as drawn, digits from 0 to 7."""

    def __init__(self) -> None:
        self.console = Console("tennis")
        self.scores: Scores = (0, 0)
        self.shown = ShownCourt(None, None, (0, 0), (0, 0))
        self._parked, self._drawn = True, False
        self._walks = (Walk(), Walk())
        for _ in range(TICKS_PER_SECOND):
            self.console.advance()
        for address, value in ((VARIATION, 3), (TWO_PLAYERS, 1), (ENDS, 0), (SERVER, 0)):
            self.console.write(address, value)
        self.park()
        self.tick(((76, 142), (76, 7)))

    def park(self) -> None:
        """Takes the ball away, from the next tick until ``bounce``. No stroke, no point."""
        self.console.write(SERVING, 255)
        self._parked = True

    def bounce(self, x: int, y: int) -> None:
        """Lets the ball bounce on the spot, for a serve by the player who stands at it."""
        self._parked = False
        self._put((x, y, 0))
        self._speed((0.0, 0.0, BOUNCE))

    def aim(self, x_speed: float, y_speed: float, z_speed: float = BOUNCE) -> None:
        """Sets the ball's speeds, pixels a tick."""
        for address in BALL_FRACTIONS:
            self.console.write(address, 0)
        self._speed((x_speed, y_speed, z_speed))

    def tick(self, places: tuple[Place, Place], serve: bool = False) -> int | None:
        """A thirtieth of a second: the game moves ball and rackets, the players stand where they are told to.

        ``places``: (x, y) of pink and blue. ``serve``: whoever the ball bounces at hits it. Returns the side that has
        won the point by the game's rules (0 pink, 1 blue), None while there is none: the score is the caller's.
        """
        for address, value in ((IDLE, 0), (PAUSE, 255), (CLOCK, 0), (WIDE, 0), (POINTS, 0), (POINTS + 1, 0)):
            self.console.write(address, value)
        self._stand(places)
        if self._parked:
            self._put(NOWHERE)
            self._speed((0.0, 0.0, 0.0))
        before = self.hitter
        self.console.advance(FIRE if serve else 0)
        if self.hitter is not None and self.hitter != before:
            self.console.write(SWING_TIMER + self.hitter, SWING_TICKS - LATER_SWING_TICKS)
        self._stand(places)
        for side, (walk, to) in enumerate(zip(self._walks, places, strict=True)):
            # The game moves only the legs of players that it moves itself.
            self.console.write(self._shape(side, legs=True), LEGS[walk.step(to)])
        self._settle()
        return next((side for side in (0, 1) if self.console.ram[POINTS + side]), None)

    def score(self, scores: Scores) -> None:
        """Sets the score that is drawn."""
        self.scores, self._drawn = scores, False

    def _settle(self) -> None:
        """Takes down where everything is now that it has moved."""
        ram = [int(value) for value in self.console.ram]
        x, ball, shadow = ram[BALL_X] - 2, ram[BALL_ROW], ram[SHADOW_ROW]
        self.shown = ShownCourt(
            spot(x, ball), spot(x, shadow) if shadow != ball else None, self._body(0), self._body(1)
        )
        self._drawn = False

    def _body(self, side: int) -> Place:
        x, y = (int(self.console.ram[address + side]) for address in (PLAYER_X, PLAYER_Y))
        return x + RACKET * self.faces_left(side) - 2, FEET[side] - y

    def _stand(self, places: tuple[Place, Place]) -> None:
        for side, (x, y) in enumerate(places):
            self.console.write(PLAYER_Y + side, y)
            self.console.write(PLAYER_X + side, x - RACKET * self.faces_left(side))

    def _put(self, place: tuple[int, int, int]) -> None:
        for address, value in zip((BALL_X, BALL_Y, BALL_Z), place, strict=True):
            self.console.write(address, value)

    def _speed(self, speed: tuple[float, float, float]) -> None:
        for (whole, part), value in zip((X_SPEED, Y_SPEED, Z_SPEED), speed, strict=True):
            units = round(value * 256)
            self.console.write(whole, (units >> 8) % 256)
            self.console.write(part, units % 256)

    def faces_left(self, side: int) -> bool:
        """Whether a player has the racket on the left: the game turns players to where the ball is."""
        return bool(self.console.ram[FACING + side])

    def swings(self, side: int) -> bool:
        """Whether a player's racket is drawn as it strikes: in the 15 ticks after the one in which the ball is hit."""
        return bool(self.console.ram[self._shape(side, legs=False)] != AT_REST)

    def _shape(self, side: int, legs: bool) -> int:
        return SHAPES[legs != self.faces_left(side)] + side

    @property
    def ball(self) -> tuple[int, int, int] | None:
        """(x, y, z) of the ball, None when there is none."""
        x, y, z = (int(self.console.ram[address]) for address in (BALL_X, BALL_Y, BALL_Z))
        return None if self._parked else (x, y, z)

    @property
    def hitter(self) -> int | None:
        """Who has hit the ball last (0 pink, 1 blue), None before the serve."""
        return None if self.console.ram[SERVING] > 127 else int(self.console.ram[HITTER])

    @property
    def motion(self) -> tuple[int, int]:
        """Signs of the ball's movement over the ground, right and down positive; 0 below 1/4 pixel a tick."""
        across, up = (self._read_speed(pair) for pair in (X_SPEED, Y_SPEED))
        return _sign(across), -_sign(up)

    def _read_speed(self, pair: tuple[int, int]) -> float:
        whole, part = (int(self.console.ram[address]) for address in pair)
        return (whole - 256 * (whole > 127)) + part / 256

    def screen(self) -> NDArray[np.uint8]:
        """The picture now, (210, 160, 3) uint8 RGB. Nothing flickers.

        Drawn when it is asked for, by a frame in which the game moves nothing: in its own, it moves the players too.
        """
        if not self._drawn:
            left, right = self.scores
            for address, value in ((PAUSE, 255), (CLOCK, 1), (LEFT_SCORE, left), (RIGHT_SCORE, right)):
                self.console.write(address, value)
            self.console.advance()
            self._drawn = True
        return self.console.screen()


def _sign(speed: float) -> int:
    return (speed >= 0.25) - (speed <= -0.25)


def spot(x: int, row: int) -> Place | None:
    """Left and top edge on the screen of a ball or shadow in a row of the court, None where it is not seen."""
    if x < BORDER or row not in ROWS or row in NET or row in LINES:
        return None
    return x, (190 if row < NET.start else 189) - row


def height_of(ball: Place | None, shadow: Place | None) -> int | None:
    """Rows between a ball and its shadow, given as top edges on the screen; None if one of them is not seen."""
    if ball is None or shadow is None:
        return None
    return (ball[1] > SPLIT) - (shadow[1] > SPLIT) + shadow[1] - ball[1]
