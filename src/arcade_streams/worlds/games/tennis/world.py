"""Endless Tennis: rallies, points and games of varying length, and what happens at which frame."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from ...game import FRAMES_PER_SECOND, HALF, FrameLabel, Happening
from .court import BOUNCE, TICKS_PER_SECOND, Court
from .players import BASE_LINES, FASTEST, LEFT_LIMIT, NETS, REST_SPEED, RIGHT_LIMIT, RUN_SPEED, Figure, Skill
from .rules import COLOURS, POINTS_TO_WIN, ZONES
from .watch import Watch

FRAMES_PER_TICK = FRAMES_PER_SECOND // TICKS_PER_SECOND
LONGEST_RUN = 8
"""Points in a row after which the other side gets its point."""
POINT_TICKS = 230
"""No player misses on purpose earlier than this after the last point."""
STILL = 16
"""Ticks that a player stands after a stroke, as long as the racket is out."""
BOUNDS = (64, 98)
CORES = ((36, 54), (73, 89), (108, 126))
"""The ball's x that parts the zones; where, well inside each of ZONES, it reaches a player."""
CONTACT = 7
"""Rows in front of the feet in which a ball is hit."""
OFFSETS = ((7, 10), (-4, -1))
"""Where a ball is hit, from the x of a player: to the right, to the left."""
BODY = 5
"""From a body's left edge on the screen to the x half-way between the two."""
FAST, SLOW, HIGH, TO_NET = (32, 50), (62, 82), (68, 92), (32, 42)
"""Ticks that a flight lasts. Drawn anew for each, so that the words so far do not tell when the next stroke comes."""
LOB_CLIMB = 3.5
RUN, NEARER, FARTHER = 27, 18, 36
"""Pixels across that a player has gone to a ball from which on it is told; nobody goes less than ``FARTHER`` and more
than ``NEARER`` if there is another way."""
RUNS = 0.27
"""Chance that a flight makes the receiver run."""


def zone_of(x: float) -> str:
    """The zone of a ball with that x of the court."""
    return ZONES[(x >= BOUNDS[0]) + (x >= BOUNDS[1])]


class World:
    """Two players on one court. ``advance`` moves everything by one frame of 1/60 s, which is half a tick."""

    def __init__(self, rng: random.Random) -> None:
        self.court = Court()
        self.frame = 0
        self.in_play = False
        self._rng = rng
        self._skill = [Skill.draw(rng) for _ in COLOURS]
        self._figures = (Figure(0, y=142.0, goal=(76.0, 142.0)), Figure(1, y=7.0, goal=(76.0, 7.0)))
        self._hitter = 0
        self._seen = self._from = [76, 76]
        self._strokes = self._last_point = 0
        self._watch = Watch()
        self._run = (0, 0)
        self._reset_at = self._appear_at = self._serve_at = -1
        self._ready(rng.randint(20, 60))

    @property
    def tick(self) -> int:
        """Ticks since the start."""
        return self.frame // FRAMES_PER_TICK

    def advance(self) -> list[Happening]:
        """One frame on; what happened in it."""
        self.frame += 1
        if self.frame % FRAMES_PER_TICK:
            return []
        if self.tick == self._reset_at:
            self.court.score((0, 0))
        serve = not self.in_play and self._serves()
        pink, blue = (figure.at(self.tick) for figure in self._figures)
        scored = self.court.tick((pink, blue), serve)
        if self.frame % HALF == 0:
            self._seen = [figure.place[0] for figure in self._figures]
        hitter = self.court.hitter
        happened: list[Happening] = []
        if scored is not None:
            happened = [self._scored(scored)]
        elif hitter is not None and (not self.in_play or hitter != self._hitter):
            happened = self._struck(hitter)
        if self.in_play and self.frame % HALF == 0:
            seen = self._watch.see(self.label())
            happened += [Happening(self.frame, kind, COLOURS[side]) for kind, side in seen]
        return happened

    def _serves(self) -> bool:
        """Lets the ball bounce at the server once both players are in place; whether it is served now."""
        if self._serve_at < 0:
            if self.tick >= self._appear_at and all(figure.there for figure in self._figures):
                x, y = self._figures[self._hitter].place
                self.court.bounce(x + self._rng.choice((9, -3)), y)
                self._serve_at = self.tick + self._rng.randint(12, 48)
            return False
        return self.tick == self._serve_at

    def _struck(self, hitter: int) -> list[Happening]:
        """A serve, a return, a volley."""
        ball, figure, colour = self.court.ball, self._figures[hitter], COLOURS[hitter]
        assert ball is not None
        if not self.in_play:
            self.in_play, self._strokes = True, 0
            self._watch.begin()
            told = [Happening(self.frame, "serve", colour)]
        else:
            self._strokes += 1
            told = [Happening(self.frame, "volley" if figure.at_net else "return", colour, zone_of(ball[0]))]
            if abs(figure.place[0] - self._from[hitter]) >= RUN:
                told.append(Happening(self.frame, "run", colour))
        self._watch.struck(hitter)
        self._hitter, self._from = hitter, self._seen
        self._recover(figure)
        self._fly(ball[0], ball[1])
        return told

    def _recover(self, figure: Figure) -> None:
        """After a stroke: to the net, back from it, or about the base line."""
        rng, skill, rival = self._rng, self._skill[figure.side], self._figures[1 - figure.side]
        figure.to_net = not rival.to_net and rng.random() < (skill.stay if figure.at_net else skill.advance)
        rows = (NETS if figure.to_net else BASE_LINES)[figure.side]
        goal = (float(rng.randint(44, 106)), float(rng.randint(*rows)))
        speed = RUN_SPEED if figure.to_net != figure.at_net else REST_SPEED
        figure.go(goal, speed, self.tick + rng.randint(STILL, STILL + 5))

    def _fly(self, x: int, y: int) -> None:
        """Chooses the ball's next flight and what the player at its end will do."""
        rng, receiver = self._rng, self._figures[1 - self._hitter]
        miss = self._misses()
        flight, climb = rng.randint(*rng.choice((FAST, SLOW))), BOUNCE
        if receiver.to_net:
            flight = rng.randint(*TO_NET)
        elif flight >= SLOW[0] and rng.random() < self._skill[self._hitter].lob:
            flight, climb = rng.randint(*HIGH), LOB_CLIMB
        row = float(rng.randint(*(NETS if receiver.to_net else BASE_LINES)[receiver.side]))
        end = row + (CONTACT if receiver.side else -CONTACT)
        across = self._answer(receiver, row, flight, miss)
        self.court.aim((across - x) / flight, (end - y) / flight, climb)

    def _answer(self, receiver: Figure, row: float, flight: int, miss: bool) -> int:
        """Sends the receiver to the ball, or not quite; where the ball will be then."""
        rng, react = self._rng, self._skill[receiver.side].react
        time = flight - react - 3
        across, body = self._spot(receiver, FASTEST * time)
        if miss:
            across = rng.randint(*rng.choice(CORES))
            bodies = [across - 4 + sign * rng.randint(27, 46) for sign in (-1, 1)]
            bodies = [body for body in bodies if LEFT_LIMIT <= body <= RIGHT_LIMIT]
            body = min(bodies, key=lambda body: abs(body - receiver.x))
        far = max(abs(body - receiver.x), abs(row - receiver.y))
        receiver.go((float(body), row), max(RUN_SPEED, far / time), self.tick + react)
        return across

    def _spot(self, receiver: Figure, reach: float) -> tuple[int, int]:
        """Where the ball will be, and the body that hits it there: within reach, and far off or near as drawn."""
        rng, runs = self._rng, self._rng.random() < RUNS
        spots: list[tuple[int, int]] = []
        others: list[tuple[int, int]] = []
        for core in CORES * 4:
            across = rng.randint(*core)
            body = across - rng.randint(*rng.choice(OFFSETS))
            if abs(body - receiver.x) > reach or not LEFT_LIMIT <= body <= RIGHT_LIMIT:
                continue
            far = abs(body - self._from[receiver.side])
            (spots if (far >= FARTHER if runs else far <= NEARER) else others).append((across, body))
        return rng.choice(spots or others)

    def _misses(self) -> bool:
        if self._strokes == 0 or self.tick - self._last_point < POINT_TICKS:
            return False
        receiver, (side, length) = 1 - self._hitter, self._run
        if length >= LONGEST_RUN:
            return receiver == side
        return self._rng.random() < self._skill[receiver].misses(self._strokes)

    def _scored(self, side: int) -> Happening:
        pink, blue = self.court.scores
        scores = (pink + 1, blue) if side == 0 else (pink, blue + 1)
        self._run = (side, self._run[1] + 1 if self._run[0] == side else 1)
        self.in_play, self._last_point = False, self.tick
        self.court.score(scores)
        self.court.park()
        wait = self._rng.randint(45, 130)
        if max(scores) >= POINTS_TO_WIN:
            self._reset_at = self.tick + self._rng.randint(150, 180)
            wait += self._reset_at - self.tick
        self._ready(wait)
        return Happening(self.frame, "point", COLOURS[side], scores=scores)

    def _ready(self, wait: int) -> None:
        """Both players go where the next point begins; one of them is to serve."""
        rng = self._rng
        self._hitter = rng.randrange(2)
        self._appear_at, self._serve_at = self.tick + wait, -1
        for figure in self._figures:
            goal = (float(rng.randint(56, 96)), float(rng.randint(*BASE_LINES[figure.side])))
            figure.to_net = False
            figure.go(goal, RUN_SPEED, self.tick + rng.randint(4, 20))

    def label(self) -> FrameLabel:
        """What the frame shows: ball and shadow, players, who swings, who is at the net."""
        shown = self.court.shown
        across, down = self.court.motion if self.in_play else (-2, -2)
        facts = {"motion_x": across + 1, "motion_y": down + 1}
        facts |= {f"swing_{colour}": int(self.court.swings(side)) for side, colour in enumerate(COLOURS)}
        facts |= {f"net_{colour}": int(figure.at_net) for colour, figure in zip(COLOURS, self._figures, strict=True)}
        return FrameLabel(
            time=self.frame / FRAMES_PER_SECOND,
            places={"ball": shown.ball, "shadow": shown.shadow, "pink": shown.pink, "blue": shown.blue},
            facts=facts,
            scores=self.court.scores,
            in_play=self.in_play,
        )

    def screen(self) -> NDArray[np.uint8]:
        """The frame, (210, 160, 3) uint8 RGB."""
        return self.court.screen()
