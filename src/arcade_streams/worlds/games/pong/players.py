"""Scripted players: where a paddle is at each frame."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from ...game import FRAMES_PER_SECOND
from .court import START_TOP

TOP_LIMIT, BOTTOM_LIMIT = 37, 175
REST_SPEED = 0.7


@dataclass(slots=True)
class Paddle:
    """A paddle that glides towards a goal, always sways a little, and now and then stands perfectly still.

    Heights are the top edge in screen pixels, speeds pixels per frame, moments frame numbers.
    """

    sway: float
    cycles: float
    phase: float
    middle: float = START_TOP
    goal: float = START_TOP
    speed: float = REST_SPEED
    start: int = 0
    frozen_until: int = -1
    shown: int = START_TOP

    @classmethod
    def draw(cls, rng: random.Random) -> Paddle:
        """A paddle with a sway of its own."""
        return cls(rng.uniform(3.0, 4.5), rng.uniform(0.27, 0.43), rng.uniform(0.0, 2 * math.pi))

    def go(self, goal: float, speed: float, start: int) -> None:
        """Glide to a height from a moment on."""
        self.goal, self.speed, self.start = goal, speed, start

    def freeze(self, until: int) -> None:
        """Stand still, from the next frame to a moment."""
        self.frozen_until = until

    def at(self, frame: int) -> int:
        """The top edge to show in a frame; call once for each frame."""
        sway = self.sway * math.sin(2 * math.pi * self.cycles * frame / FRAMES_PER_SECOND + self.phase)
        if frame < self.frozen_until:
            self.middle = self.shown - sway
            return self.shown
        if frame >= self.start:
            gap = self.goal - self.middle
            self.middle += max(-self.speed, min(self.speed, gap))
        self.shown = round(max(TOP_LIMIT, min(BOTTOM_LIMIT, self.middle + sway)))
        return self.shown


@dataclass(frozen=True, slots=True)
class Skill:
    """How well one side plays. ``miss``: chance to miss a return; ``tire``: what each return of a long rally adds.

    ``speed``: pixels per frame; ``react``: frames before a player follows the ball; ``freeze``: chance to stand still
    after a stroke.
    """

    miss: float
    tire: float
    speed: float
    react: int
    freeze: float

    @classmethod
    def draw(cls, rng: random.Random) -> Skill:
        """The skill of one side for a whole stream."""
        return cls(
            rng.uniform(0.3, 0.55), rng.uniform(0.03, 0.07), rng.uniform(1.6, 3.0), rng.randint(4, 16),
            rng.uniform(0.12, 0.22),
        )  # fmt: skip

    def misses(self, returns: int) -> float:
        """Chance to miss the next ball of a rally of that many returns."""
        return min(0.9, self.miss + self.tire * max(0, returns - 3))
