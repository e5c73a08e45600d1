"""Endless boxing: rounds of attacks, clinches, chases and corners, and what happens at which frame."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...game import FRAMES_PER_SECOND, HALF, FrameLabel, Happening, Place, Scores
from .ring import LANDS_DX, MAX_X, MAX_Y, MIN_X, MIN_Y, Ring
from .rules import ARMS, COLOURS, RULES
from .watch import Watch

LONGEST_RUN = 8
"""Points in a row after which the other side gets its point."""
POINT_FRAMES = 360
"""No punch lands earlier than this after the last point."""
WAIT_FRAMES = (47, 62)
"""Frames that both stand after a punch; its arm is in by then."""
LURK_FRAMES = ((4, 14), (34, 76))
"""Frames that both stand before a punch, one or the other: the words so far do not tell when it will come."""
INNER_X, INNER_Y = (45, 94), (18, 72)
"""Places away from the corners."""
SHARES = {"attack": 0.62, "corner": 0.13, "clinch": 0.09, "chase": 0.1, "switch": 0.05, "part": 0.01}
"""How often boxers do what next. A clinch and a chase last several seconds, the others one or two."""

Frames = Iterator[None]
Pair = tuple[Place, Place]


@dataclass(frozen=True, slots=True)
class Hemmed:
    """A side in a corner: where it stands, on the left or right, above or below."""

    side: int
    place: Place
    west: bool
    north: bool

    def facing(self, dx: int, dy: int) -> Pair:
        """Places of white and black with the other one so far away."""
        x, y = self.place
        other = (x + dx if self.west else x - dx, y + dy if self.north else y - dy)
        return (self.place, other) if self.side == 0 else (other, self.place)


class World:
    """Two boxers in one ring. ``advance`` moves everything by one frame of 1/60 s."""

    def __init__(self, rng: random.Random) -> None:
        self.ring = Ring()
        self.frame = 0
        self.in_play = False
        self._rng = rng
        self._busy = rng.uniform(0.38, 0.62)
        self._sharp = (rng.uniform(0.5, 0.75), rng.uniform(0.5, 0.75))
        self._run = (0, 0)
        self._last_point = 0
        self._told: list[Happening] = []
        self._thrown: int | None = None
        for side, place in enumerate(((MIN_X, 45), (MAX_X, 45))):
            self.ring.put(side, place)
        self.ring.step()
        self._watch = Watch()
        self._watch.see(self.label())
        self._script = self._play()
        self._moves: dict[str, Callable[[], Frames]] = {
            "attack": self._attack, "corner": self._corner, "clinch": self._clinch, "chase": self._chase,
            "switch": self._switch, "part": self._part,
        }  # fmt: skip

    def advance(self) -> list[Happening]:
        """One frame on; what happened in it."""
        self.frame += 1
        self._told, self._thrown = [], None
        scores = self.ring.scores
        next(self._script)
        if self._thrown is not None:
            self._judge(self._thrown, scores)
        if self.frame % HALF == 0:
            for sight in self._watch.see(self.label()):
                self._tell(sight.kind, sight.colour, sight.zone)
        return self._told

    def screen(self) -> NDArray[np.uint8]:
        """The frame, (210, 160, 3) uint8 RGB."""
        return self.ring.screen()

    def label(self) -> FrameLabel:
        """Where the boxers are and how far each arm is out."""
        facts = {}
        for side, colour in enumerate(COLOURS):
            facts[f"{colour}_high"], facts[f"{colour}_low"] = self.ring.arms(side)
        return FrameLabel(
            time=self.frame / FRAMES_PER_SECOND,
            places=dict(zip(COLOURS, self.ring.drawn, strict=True)),
            facts=facts,
            scores=self.ring.scores,
            in_play=self.in_play,
        )

    def _tell(self, kind: str, colour: str | None = None, zone: str | None = None) -> None:
        self._told.append(Happening(self.frame, kind, colour, zone, self.ring.scores))

    def _play(self) -> Frames:
        """The whole stream; each step of it is one frame."""
        yield from self._stand(self._rng.randint(60, 180))
        while True:
            self.ring.begin()
            self.in_play = True
            self._last_point = self.frame
            yield from self._stand(1, "bell")
            yield from self._stand(self._rng.randint(5, 40))
            while RULES.winner(self.ring.scores) is None:
                yield from self._moves[self._rng.choices(list(SHARES), list(SHARES.values()))[0]]()
            self.in_play = False
            self.ring.rest()
            yield from self._rest(self._rng.randint(300, 360))

    def _stand(self, frames: int, kind: str | None = None) -> Frames:
        for _ in range(frames):
            self.ring.step()
            if kind is not None:
                self._tell(kind)
            yield

    def _walk(self, goals: Pair, speed: float, least: int = 1) -> Frames:
        """Both go straight to their goals and are there at the same time."""
        starts = self.ring.places
        way = max(math.dist(start, goal) for start, goal in zip(starts, goals, strict=True))
        frames = max(least, math.ceil(way / speed))
        for i in range(1, frames + 1):
            for side, ((x, y), (to_x, to_y)) in enumerate(zip(starts, goals, strict=True)):
                part = i / frames
                self.ring.put(side, (round(x + part * (to_x - x)), round(y + part * (to_y - y))))
            self.ring.step()
            yield

    def _facing(self, dx: int, dy: int) -> Pair:
        """Places of white and black near where they are: dx apart, the sides kept, white dy above black."""
        (x0, y0), (x1, y1) = self.ring.places
        left = min(max(self._near((x0 + x1 - dx) // 2, 25), INNER_X[0]), INNER_X[1] - dx)
        room = abs(dy) // 2
        top = min(max(self._near((y0 + y1) // 2, 25), INNER_Y[0] + room), INNER_Y[1] - room) - dy // 2
        xs = (left, left + dx) if x0 < x1 else (left + dx, left)
        return (xs[0], top), (xs[1], top + dy)

    def _near(self, place: int, reach: int) -> int:
        return place + self._rng.randint(-reach, reach)

    def _attack(self, hemmed: Hemmed | None = None) -> Frames:
        """One goes in and punches: it lands, is blocked or falls short by where the two stand."""
        rng = self._rng
        side = int(rng.random() >= (self._busy if hemmed is None else 0.25 + 0.5 * hemmed.side))
        if self._lands(side):
            dx, dy = rng.randint(20, 26), rng.randint(13, 25)
        elif rng.random() < 0.5:
            dx, dy = rng.randint(19, 25), rng.randint(2, 5)
        else:
            dx, dy = rng.randint(32, 40), rng.randint(12, 34)
        goals = self._facing(dx, rng.choice((dy, -dy))) if hemmed is None else hemmed.facing(dx, dy)
        yield from self._walk(goals, rng.uniform(1.0, 1.9))
        yield from self._stand(rng.randint(*rng.choice(LURK_FRAMES)))
        self._throw(side)
        yield from self._stand(rng.randint(*WAIT_FRAMES))

    def _lands(self, side: int) -> bool:
        if self.frame - self._last_point < POINT_FRAMES or (self._run[0] == side and self._run[1] >= LONGEST_RUN):
            return False
        return self._rng.random() < self._sharp[side]

    def _throw(self, side: int) -> None:
        """A punch, out with this frame's step and judged after it."""
        self.ring.punch(side)
        self._thrown = side

    def _judge(self, side: int, scores: Scores) -> None:
        """What the game made of a punch."""
        (x, _), (other_x, _) = self.ring.places
        if self.ring.scores != scores:
            self._tell("point", COLOURS[side])
            self._run = (side, self._run[1] + 1 if self._run[0] == side else 1)
            self._last_point = self.frame
        elif abs(x - other_x) < LANDS_DX:
            self._tell("block", COLOURS[1 - side])
        else:
            self._tell("miss", COLOURS[side], ARMS[self.ring.arms(side)[1] > 0])

    def _corner(self) -> Frames:
        """One backs into the corner behind it and is hemmed in there, or soon comes out."""
        rng, (white, black) = self._rng, self.ring.places
        side = rng.randrange(2)
        west, north = (white[0] < black[0]) == (side == 0), rng.random() < 0.5
        x = rng.randint(MIN_X, MIN_X + 3) if west else rng.randint(MAX_X - 3, MAX_X)
        y = rng.randint(MIN_Y, MIN_Y + 4) if north else rng.randint(MAX_Y - 4, MAX_Y)
        hemmed = Hemmed(side, (x, y), west, north)
        yield from self._walk(hemmed.facing(rng.randint(32, 38), rng.randint(14, 34)), rng.uniform(0.9, 1.5))
        yield from self._stand(rng.randint(10, 40))
        for _ in range(rng.choice((0, 2, 2, 3))):
            point = self._last_point
            yield from self._attack(hemmed)
            if self._last_point != point:  # whoever is hit is thrown out of place
                return

    def _clinch(self) -> Frames:
        """They hold each other, long enough to be told or not, and part."""
        rng = self._rng
        goals = self._facing(rng.randint(15, 16), rng.randint(-4, 4))
        yield from self._walk(goals, 1.1)
        frames = rng.randint(212, 265) if rng.random() < 0.7 else rng.randint(50, 140)
        shift_x, shift_y = rng.randint(-9, 9), rng.randint(-9, 9)
        there: Pair = (
            (goals[0][0] + shift_x, goals[0][1] + shift_y), (goals[1][0] + shift_x, goals[1][1] + shift_y)
        )  # fmt: skip
        yield from self._walk(there, 1.0, least=frames)
        yield from self._part()

    def _chase(self) -> Frames:
        """One runs from the other across the ring, for three seconds and more or shorter."""
        rng, (white, black) = self._rng, self.ring.places
        gap, lean, start = rng.randint(32, 36), rng.choice((-1, 1)) * rng.randint(3, 8), rng.randint(22, 30)
        ys = (start, MIN_Y + MAX_Y - start)
        xs = (MIN_X + 4, MAX_X - 4 - gap)
        begin, end = ((x, y) for x, y in zip(self._either(xs), self._either(ys), strict=True))
        yield from self._walk(self._row(begin, gap, lean), 1.4)
        frames = rng.randint(212, 255) if rng.random() < 0.75 else rng.randint(55, 110)
        throws = [rng.randint(20, 60), rng.randint(130, 190)]
        chaser = int((white[0] < black[0]) != (begin[0] < end[0]))
        for frame, _ in enumerate(self._walk(self._row(end, gap, lean), 2.0, least=frames)):
            yield
            if frame in throws:
                self._throw(chaser)
        yield from self._stand(rng.randint(*WAIT_FRAMES))

    def _either(self, pair: tuple[int, int]) -> tuple[int, int]:
        """The pair, or the other way round."""
        return pair if self._rng.random() < 0.5 else pair[::-1]

    def _row(self, at: Place, gap: int, lean: int) -> Pair:
        """Side by side, the left one there, the other a little higher or lower; whoever is on the left stays there."""
        (x, y), (white, black) = at, self.ring.places
        other = (x + gap, y + lean)
        return (at, other) if white[0] < black[0] else (other, at)

    def _switch(self) -> Frames:
        """They pass each other, one above the other."""
        rng, (white, black) = self._rng, self.ring.places
        ys = (rng.randint(6, 18), rng.randint(70, 84))
        if white[1] > black[1]:
            ys = ys[::-1]
        xs = (rng.randint(46, 58), rng.randint(80, 92))
        if white[0] > black[0]:
            xs = xs[::-1]
        yield from self._walk(((xs[0], ys[0]), (xs[1], ys[1])), 1.3)
        yield from self._walk(((xs[1], ys[0]), (xs[0], ys[1])), rng.uniform(1.0, 1.6))

    def _part(self) -> Frames:
        """Both step back."""
        rng = self._rng
        goals = self._facing(rng.randint(40, 48), rng.randint(-25, 25))
        yield from self._walk(goals, rng.uniform(0.7, 1.2))
        yield from self._stand(rng.randint(5, 30))

    def _rest(self, frames: int) -> Frames:
        """Back to the sides, and wait for the bell."""
        began = self.frame
        white, black = self.ring.places
        places = ((self._rng.randint(30, 34), self._near(45, 6)), (self._rng.randint(105, 109), self._near(45, 6)))
        yield from self._walk(places if white[0] < black[0] else places[::-1], 1.2)
        yield from self._stand(frames - (self.frame - began))
