"""Endless Pong: rallies, points and games of varying length, and what happens at which frame."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ...game import FRAMES_PER_SECOND, HALF, FrameLabel, Happening
from .court import (
    BALL_HEIGHT,
    BOUNCE_BOTTOM,
    BOUNCE_TOP,
    CENTRE,
    COURT_BOTTOM,
    COURT_TOP,
    GREEN_LEFT,
    LEFT_CONTACT,
    ORANGE_LEFT,
    PADDLE_HEIGHT,
    RIGHT_CONTACT,
    Court,
)
from .players import BOTTOM_LIMIT, REST_SPEED, TOP_LIMIT, Paddle, Skill
from .rules import COLOURS, POINTS_TO_WIN, ZONES

HOLD_FRAMES = 180
LONGEST_RUN = 8
"""Points in a row after which the other side gets its point."""
POINT_FRAMES = 410
"""No player misses on purpose earlier than this after the last point."""
CORES = ((39, 72), (102, 126), (156, 189))
"""Heights (of the ball's middle) at which a ball reaches a player, for each of ZONES, well inside the zone."""
LEG_FRAMES, SERVE_LEG_FRAMES = ((70, 100), (128, 165)), ((44, 54), (66, 84))
"""Frames that a flight lasts, fast or slow; a serve has half of the way. Drawn anew for each flight, so that the words
so far do not tell when the next return will come."""
NEAR = 7
"""Pixels before a contact over which the ball keeps the game's own pace of 1 pixel a frame."""


def zone_of(y: float) -> str:
    """The third of the court in which a ball with this top edge has its middle."""
    share = (y + BALL_HEIGHT / 2 - COURT_TOP) / (COURT_BOTTOM - COURT_TOP)
    return ZONES[max(0, min(2, int(share * 3)))]


@cache
def _flight_heights(y: int, dy: int) -> tuple[int, ...]:
    """Top edges of the ball, frame by frame, from a height on, as the game moves it between the walls."""
    heights = []
    for _ in range(LEG_FRAMES[1][1] + NEAR):
        heights.append(y)
        if (y <= BOUNCE_TOP and dy < 0) or (y >= BOUNCE_BOTTOM and dy > 0):
            dy = -dy
            y += 1 if dy > 0 else -1
        y += dy
    return tuple(heights)


def landing(y: int, dy: int, frames: int) -> int:
    """The ball's top edge after that many frames of free flight."""
    return _flight_heights(y, dy)[frames]


class World:
    """Two players on one court. ``advance`` moves everything by one frame of 1/60 s."""

    def __init__(self, rng: random.Random) -> None:
        self.court = Court()
        self.frame = 0
        self.in_play = False
        self._rng = rng
        self._skill = {colour: Skill.draw(rng) for colour in COLOURS}
        self._paddle = {colour: Paddle.draw(rng) for colour in COLOURS}
        self._still = dict.fromkeys(COLOURS, 0)
        self._last_point = 0
        self._returns = 0
        self._run: tuple[str, int] = ("green", 0)
        self._receiver: str = "green"
        self._extra = self._carry = 0.0
        self._serve_at = rng.randint(90, 240)
        self._reset_at = -1

    def screen(self) -> NDArray[np.uint8]:
        """The frame, (210, 160, 3) uint8 RGB."""
        return self.court.screen()

    def label(self) -> FrameLabel:
        """Ball and paddles, and the signs of the ball's movement as 0, 1, 2 for left or up, none, right or down."""
        court = self.court
        (green, orange), (right, down) = court.paddles, court.motion
        return FrameLabel(
            time=self.frame / FRAMES_PER_SECOND,
            places={"ball": court.ball, "green": (GREEN_LEFT, green), "orange": (ORANGE_LEFT, orange)},
            facts={"motion_x": right + 1, "motion_y": down + 1},
            scores=court.shown_scores,
            in_play=self.in_play,
        )

    def advance(self) -> list[Happening]:
        """One frame on; what happened in it."""
        self.frame += 1
        happened: list[Happening] = []
        if self.frame == self._reset_at:
            self.court.reset_scores()
        if not self.in_play and self.frame >= self._serve_at:
            happened.append(self._serve())
        if self.in_play:
            self._pace()
        before, scores = self.court.paddles, self.court.scores
        self.court.step(self._paddle["green"].at(self.frame), self._paddle["orange"].at(self.frame))
        if self.in_play and self.court.bounced:
            happened.append(self._returned())
        if self.in_play and self.court.scores != scores:
            happened.append(self._scored(scores))
        if self.in_play:
            happened += self._held(before)
        return happened

    def _pace(self) -> None:
        """Adds to or takes from the game's 1 pixel a frame, away from the paddles."""
        ball = self.court.ball
        if ball is None or not LEFT_CONTACT + NEAR < ball[0] < RIGHT_CONTACT - NEAR:
            return
        self._carry += self._extra
        pixels = int(self._carry)
        if pixels:
            self._carry -= pixels
            self.court.shift(pixels if self._receiver == "green" else -pixels)

    def _serve(self) -> Happening:
        server = self._rng.choice(COLOURS)
        y = self._rng.randint(60, 160)
        self.in_play, self._returns = True, 0
        self._still = dict.fromkeys(COLOURS, 0)
        dx = -1 if server == "green" else 1
        self.court.serve(y, dx, 0)
        self._leg(server, y, CENTRE, SERVE_LEG_FRAMES)
        return Happening(self.frame, "serve", server)

    def _returned(self) -> Happening:
        hitter, ball = self._receiver, self.court.ball
        assert ball is not None
        self._returns += 1
        self._rest(hitter)
        self._leg(hitter, ball[1], ball[0], LEG_FRAMES)
        return Happening(self.frame, "return", hitter, zone_of(ball[1]))

    def _rest(self, hitter: str) -> None:
        """After a stroke: drift somewhere, or stand still for a while."""
        paddle = self._paddle[hitter]
        if self._rng.random() < self._skill[hitter].freeze:
            seconds = self._rng.uniform(3.3, 4.8) if self._rng.random() < 0.7 else self._rng.uniform(0.8, 2.4)
            paddle.freeze(self.frame + round(60 * seconds))
        paddle.go(self._rng.uniform(60, 152), REST_SPEED, self.frame + self._rng.randint(5, 30))

    def _leg(self, hitter: str, y: int, x: int, flights: tuple[tuple[int, int], ...]) -> None:
        """Chooses the ball's next flight and what the player at its end will do."""
        self._receiver = "orange" if hitter == "green" else "green"
        frozen = any(paddle.frozen_until > self.frame for paddle in self._paddle.values())
        low, high = flights[-1] if frozen else self._rng.choice(flights)
        miss = self._misses()
        dy, flight, place = self._flight(y, low, high, miss)
        self.court.aim(-1 if hitter == "green" else 1, dy)
        distance = abs((LEFT_CONTACT if hitter == "green" else RIGHT_CONTACT) - x)
        # Near the paddles the ball makes 1 pixel a frame whatever its pace.
        near = NEAR if flights is SERVE_LEG_FRAMES else 2 * NEAR
        self._extra, self._carry = (distance - near) / (flight - near) - 1.0, 0.0
        self._answer(place, flight, miss)

    def _misses(self) -> bool:
        if self._returns == 0 or self.frame - self._last_point < POINT_FRAMES:
            return False
        colour, length = self._run
        if length >= LONGEST_RUN:
            return self._receiver == colour
        return self._rng.random() < self._skill[self._receiver].misses(self._returns)

    def _flight(self, y: int, low: int, high: int, miss: bool) -> tuple[int, int, float]:
        """(dy, frames, height at the end): a flight that ends well inside a zone drawn at random."""
        rng, paddle = self._rng, self._paddle[self._receiver]
        zone = rng.randrange(3)
        still = paddle.frozen_until > self.frame + low and not miss and rng.random() < 0.7
        best: tuple[float, int, int, float] | None = None
        for _ in range(60):
            dy, frames = rng.choice((-2, -1, 1, 2)), rng.randint(low, high)
            place = landing(y, dy, frames) + BALL_HEIGHT / 2
            inside = [i for i, (top, bottom) in enumerate(CORES) if top <= place <= bottom]
            reach = abs(paddle.shown + PADDLE_HEIGHT / 2 - place)
            cost = (0.0 if zone in inside else 1.0 if inside else 2.0) + (reach / 4 if still and reach > 4 else 0.0)
            if best is None or cost < best[0]:
                best = (cost, dy, frames, place)
            if cost == 0.0:
                break
        assert best is not None
        return best[1:]

    def _answer(self, place: float, flight: int, miss: bool) -> None:
        """Sends the receiver to the ball, or past it."""
        rng, skill, paddle = self._rng, self._skill[self._receiver], self._paddle[self._receiver]
        off = rng.uniform(-3, 3)
        if miss:
            off = rng.uniform(22, 48) * rng.choice((-1, 1))
            if not TOP_LIMIT <= place - PADDLE_HEIGHT / 2 + off <= BOTTOM_LIMIT:
                off = -off
        goal = place - PADDLE_HEIGHT / 2 + off
        start = self.frame + skill.react
        if paddle.frozen_until > self.frame:
            need = round(abs(goal - paddle.shown) / skill.speed) + 12 if abs(goal - paddle.shown) > 5 or miss else 0
            paddle.frozen_until = min(paddle.frozen_until, max(self.frame, self.frame + flight - need))
            start = max(start, paddle.frozen_until)
        time = max(8, self.frame + flight - start - 8)
        paddle.go(goal, max(skill.speed, abs(goal - paddle.middle) / time), start)

    def _scored(self, before: tuple[int, int]) -> Happening:
        now = self.court.scores
        colour: str = "green" if now[0] > before[0] else "orange"
        self._run = (colour, self._run[1] + 1 if self._run[0] == colour else 1)
        self.in_play, self._last_point = False, self.frame
        self.court.clear()
        for paddle in self._paddle.values():
            paddle.freeze(self.frame)
            paddle.go(self._rng.uniform(70, 142), REST_SPEED, self.frame + self._rng.randint(0, 40))
        self._serve_at = self.frame + self._rng.randint(62, 200)
        if max(now) >= POINTS_TO_WIN:
            self._reset_at = self.frame + self._rng.randint(300, 360)
            self._serve_at = self._reset_at + self._rng.randint(70, 180)
        return Happening(self.frame, "point", colour, scores=now)

    def _held(self, before: tuple[int, int]) -> list[Happening]:
        """Counts still frames; a paddle still for HOLD_FRAMES is told once, at a frame that is seen at 2 a second."""
        happened = []
        for colour, was, now in zip(COLOURS, before, self.court.paddles, strict=True):
            self._still[colour] = self._still[colour] + 1 if was == now else 0
            if self.frame % HALF == 0 and HOLD_FRAMES <= self._still[colour] < HOLD_FRAMES + HALF:
                happened.append(Happening(self.frame, "hold", colour))
        return happened
