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

VARIATION, TWO_PLAYERS, CLOCK, RIGHT_SCORE, LEFT_SCORE, IDLE = 0, 1, 4, 6, 7, 8
BALL_Y, BALL_X, BALL_Z = 15, 16, 17
Y_SPEED, X_SPEED, Z_SPEED = (18, 21), (19, 22), (20, 23)
"""Whole pixels a tick, and 256ths, two's complement; ``BALL_FRACTIONS``: the 256ths of the places y, x, z."""
BALL_FRACTIONS = (12, 13, 14)
PLAYER_Y, PLAYER_X, LEFT_SHAPE, RIGHT_SHAPE, FACING, SWING = 24, 26, 28, 30, 56, 65
"""Two bytes each: the far player's, then the near one's."""
SERVING, HITTER, BALL_ROW, SHADOW_ROW, POINTS, GAMES, PAUSE, BOUNCES, ENDS, SERVER, DEUCE = (
    32, 52, 54, 55, 69, 71, 75, 76, 80, 74, 81,
)  # fmt: skip
LEGS = (0x9C, 0xB5, 0xCE, 0xE7)
"""Standing, and the other three steps of a walk."""
STRIDE, REST = 4, 3
"""Pixels between two steps; ticks without moving after which a player stands."""
FIRE = 1
NET = range(78, 91)
"""Rows in which the net hides a ball."""
LINES = (12, 14, 142)
"""Rows in which a ball is lost in a base line."""
ROWS = range(2, 162)
"""Rows that are drawn."""
SPLIT = 105
"""A top edge on the screen in the middle of the net. Below it everything is drawn a line lower than above."""
FEET = (166, 167)
"""Top edge of a body (pink, blue) and row of its feet together."""
NOWHERE = (80, 0, 0)
"""A place of the ball that is not drawn."""
RACKET = 8
"""How far a player's sprite starts left of the body when the racket is there."""
REACH_Y, REACH_X = 8, (-8, 15)
"""A ball is hit nearer than this to the feet in y, and in x from here to there from the body's left edge."""
BOUNCE, LOB = 2.5, 3.5
"""Pixels a tick that a ball climbs after a bounce and, by the game, after a stroke; after a lob. It loses 1/8 a tick."""
TICKS_PER_SECOND = 30


@dataclass(frozen=True, slots=True)
class Shown:
    """Left and top edges on the screen of ball and shadow (2 x 2 pixels) and of the players' bodies (23 high).

    Ball and shadow are None behind the net, in a base line and above the picture; the shadow also right under the ball.
    """

    ball: Place | None
    shadow: Place | None
    pink: Place
    blue: Place

    @property
    def height(self) -> int | None:
        """Rows between ball and shadow, None if one of them is not seen."""
        return None if self.ball is None or self.shadow is None else row_of(self.ball[1]) - row_of(self.shadow[1])


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
        self.shown = Shown(None, None, (0, 0), (0, 0))
        self._parked, self._drawn = True, False
        self._walks = (Walk(), Walk())
        while self.console.ram[PAUSE] != 255:
            self.console.advance()
        for address, value in ((VARIATION, 3), (TWO_PLAYERS, 1), (ENDS, 0), (SERVER, 0)):
            self.console.write(address, value)
        self.park()
        self.tick((76, 142), (76, 7))

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

    def tick(self, pink: Place, blue: Place, serve: bool = False) -> int | None:
        """A thirtieth of a second: the game moves ball and rackets, then the picture is drawn.

        The players stand where they are told to. ``serve``: whoever the ball bounces at hits it. Returns the side that
        has won the point by the game's rules (0 pink, 1 blue), None while there is none: the score is the caller's.
        """
        places = (pink, blue)
        for address, value in ((IDLE, 0), (PAUSE, 255), (CLOCK, 0), (DEUCE, 0), (POINTS, 0), (POINTS + 1, 0)):
            self.console.write(address, value)
        self._stand(places)
        if self._parked:
            self._put(NOWHERE)
            self._speed((0.0, 0.0, 0.0))
        self.console.advance(FIRE if serve else 0)
        scored = [int(self.console.ram[POINTS + side]) for side in (0, 1)]
        self._stand(places)
        for side, (walk, to) in enumerate(zip(self._walks, places, strict=True)):
            # The game moves only the legs of players that it moves itself.
            self.console.write((LEFT_SHAPE if self.faces_left(side) else RIGHT_SHAPE) + side, LEGS[walk.step(to)])
        self._settle()
        return scored.index(1) if any(scored) else None

    def score(self, scores: Scores) -> None:
        """Sets the score that is drawn."""
        self.scores, self._drawn = scores, False

    def _settle(self) -> None:
        """Takes down where everything is now that it has moved."""
        ram = [int(value) for value in self.console.ram]
        x, ball, shadow = ram[BALL_X] - 2, ram[BALL_ROW], ram[SHADOW_ROW]
        self.shown = Shown(
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
        """Whether a player's racket is out, as it is for about 12 ticks from a stroke on."""
        return bool(self.console.ram[SWING + side])

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
        """Signs of the ball's movement over the ground, right and down positive; slower than a pixel in 4 ticks is 0."""
        across, up = (self._read_speed(pair) for pair in (X_SPEED, Y_SPEED))
        return _sign(across), -_sign(up)

    def _read_speed(self, pair: tuple[int, int]) -> float:
        whole, part = (int(self.console.ram[address]) for address in pair)
        return (whole - 256 * (whole > 127)) + part / 256

    def away(self, side: int) -> int:
        """Rows between a player's feet and the ball's shadow."""
        return abs(int(self.console.ram[SHADOW_ROW]) - int(self.console.ram[PLAYER_Y + side]))

    def screen(self) -> NDArray[np.uint8]:
        """The picture now, (210, 160, 3) uint8 RGB. Nothing flickers.

        Drawn when it is asked for, by a frame in which the game moves nothing: in its own, it moves the players too.
        """
        if not self._drawn:
            for address, value in ((PAUSE, 255), (CLOCK, 1), (LEFT_SCORE, self.scores[0]), (RIGHT_SCORE, self.scores[1])):
                self.console.write(address, value)
            self.console.advance()
            self._drawn = True
        return self.console.screen()


def _sign(speed: float) -> int:
    return (speed >= 0.25) - (speed <= -0.25)


def row_of(top: int) -> int:
    """The row of the court of a ball or shadow with that top edge: the reverse of ``spot``."""
    return (190 if top > SPLIT else 189) - top


def spot(x: int, row: int) -> Place | None:
    """Left and top edge on the screen of a ball or shadow in a row of the court, None where it is not seen."""
    if row not in ROWS or row in NET or row in LINES:
        return None
    return x, (190 if row < NET.start else 189) - row
