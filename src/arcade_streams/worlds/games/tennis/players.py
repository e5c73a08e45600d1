"""Scripted players: where one stands at each tick, and how well each side plays."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ...game import Place

LEFT_LIMIT, RIGHT_LIMIT = 22, 132
"""Where a player's x may be."""
BASE_LINES = ((143, 147), (2, 8))
"""Rows in which pink and blue stand at the back of their halves; none in which a base line hides the ball's shadow."""
NETS = ((93, 98), (45, 51))
"""Rows in which they stand at the net."""
AT_NET = (106, 38)
"""Rows from which on they are at the net."""
REST_SPEED = 0.8
RUN_SPEED = 1.4
FASTEST = 2.6


@dataclass(slots=True)
class Figure:
    """A player who goes straight to a goal.

    Places are the court's pixels, speeds pixels a tick (the larger of x and y counts), moments ticks.
    """

    side: int
    x: float = 76.0
    y: float = 0.0
    goal: tuple[float, float] = (76.0, 0.0)
    speed: float = REST_SPEED
    start: int = 0
    to_net: bool = False

    def go(self, goal: tuple[float, float], speed: float, start: int) -> None:
        """Go to a place from a moment on."""
        self.goal, self.speed, self.start = goal, speed, start

    def at(self, tick: int) -> Place:
        """The place in a tick; call once for each."""
        way = (self.goal[0] - self.x, self.goal[1] - self.y)
        far = max(abs(way[0]), abs(way[1]))
        if tick >= self.start and far > self.speed:
            self.x += way[0] * self.speed / far
            self.y += way[1] * self.speed / far
        elif tick >= self.start:
            self.x, self.y = self.goal
        return self.place

    @property
    def place(self) -> Place:
        """The place that is shown."""
        return round(self.x), round(self.y)

    @property
    def at_net(self) -> bool:
        """Whether the player is at the net."""
        return at_net(self.side, self.place[1])

    @property
    def there(self) -> bool:
        """Whether the player has come to the goal."""
        return (self.x, self.y) == self.goal


def at_net(side: int, row: float) -> bool:
    """Whether feet in that row are at the net."""
    return row <= AT_NET[0] if side == 0 else row >= AT_NET[1]


@dataclass(frozen=True, slots=True)
class Skill:
    """How one side plays for a whole stream.

    ``miss``: chance to miss a ball; ``tire``: what each stroke of a long rally adds; ``react``: ticks before a player
    follows the ball; ``advance``: chance to go to the net after a stroke; ``stay``: chance to stay there after one;
    ``lob``: chance to make a slow stroke a lob.
    """

    miss: float
    tire: float
    react: int
    advance: float
    stay: float
    lob: float

    @classmethod
    def draw(cls, rng: random.Random) -> Skill:
        """The skill of one side."""
        return cls(
            rng.uniform(0.25, 0.45), rng.uniform(0.03, 0.07), rng.randint(2, 8), rng.uniform(0.3, 0.5),
            rng.uniform(0.65, 0.9), rng.uniform(0.1, 0.25),
        )  # fmt: skip

    def misses(self, strokes: int) -> float:
        """Chance to miss the next ball of a rally of that many returns and volleys."""
        return min(0.9, self.miss + self.tire * max(0, strokes - 3))
