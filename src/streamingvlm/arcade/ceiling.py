"""What is visible at all at 2 frames a second: the commentary of a rule that reads only those frames.

The reader gets positions of ball and paddles and the scores in the sampled frames, as exact as pixels, the context and
its own past words. It knows how the game moves. What it gets wrong, no model that watches the same frames can know.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from .announcer import REACTION, Announcer
from .context import COLOURS, Colour
from .court import CENTRE, LEFT_CONTACT, PADDLE_HEIGHT, RIGHT_CONTACT
from .language import say, style
from .pong import FrameLabel, PongStream
from .score import score_many
from .world import HALF, HOLD_FRAMES, NEAR, Happening, landing, zone_of

SPEEDS = (0.6, 2.0)
"""Pixels a frame that a ball can make."""


def ceiling(seeds: Iterable[int], seconds: int) -> dict[str, Any]:
    """The figures of ``score`` for the reader's commentary, pooled over the streams of some seeds."""
    return score_many(_read(seed, seconds) for seed in seeds)


def _read(seed: int, seconds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    stream = PongStream(seed, fps=2.0, render=False)
    reader, announcer, said, true = Reader(), Announcer(stream.context), [], []
    for second in islice(stream, seconds):
        for label in second.labels:
            for happening in reader.see(label):
                announcer.hear(happening)
        text = say(announcer.take(second.index), style(seed))
        said.append({"start": second.start, "end": second.end, "text": text})
        if second.text:
            true.append([second.start, second.end, second.text])
    return {"video": "", "title": stream.context.text, "content": true}, said


def _frames(pixels: int, speed: float) -> float:
    """Frames that the last pixels of a flight take."""
    near = min(NEAR, pixels)
    return near + (pixels - near) / speed


class Reader:
    """Tells what happened between the frames that it sees."""

    def __init__(self) -> None:
        self._seen: list[FrameLabel] = []
        self._direction = 0
        self._leg: list[tuple[int, int]] = []
        self._late: list[tuple[str, Colour, str | None]] = []
        self._still = dict.fromkeys(COLOURS, 0)

    def see(self, label: FrameLabel) -> list[Happening]:
        """Takes the next frame, half a second after the last; what it shows for the first time."""
        before = self._seen[-1] if self._seen else None
        self._seen = [*self._seen[-1:], label]
        told, self._late = self._late, []
        scores = before.scores if before is not None else label.scores
        if label.ball is not None:
            told += self._ball(label.ball, label)
            told += self._holds(before, label)
        else:
            self._direction, self._leg = 0, []
            self._still = dict.fromkeys(COLOURS, 0)
        told += [("point", c, None) for c, a, b in zip(COLOURS, scores, label.scores, strict=True) if b > a]
        at = round(label.time * 2) * HALF
        return [Happening(at - REACTION[kind], kind, c, zone, label.scores) for kind, c, zone in told]

    def _ball(self, ball: tuple[int, int], label: FrameLabel) -> list[tuple[str, Colour, str | None]]:
        if not self._leg:
            self._direction = 1 if ball[0] > CENTRE else -1
            self._leg = [ball]
            return self._tell("serve", -self._direction, None, abs(ball[0] - CENTRE))
        elapsed = self._since_contact(ball)
        if elapsed is None:
            self._leg.append(ball)
            return []
        zone = self._zone(elapsed, label)
        self._leg, hitter = [ball], self._direction
        self._direction = -hitter
        return self._tell("return", hitter, zone, elapsed)

    def _tell(self, kind: str, side: int, zone: str | None, elapsed: float) -> list[tuple[str, Colour, str | None]]:
        fact: tuple[str, Colour, str | None] = (kind, "green" if side > 0 else "orange", zone)
        if elapsed >= REACTION[kind]:
            return [fact]
        self._late.append(fact)
        return []

    def _since_contact(self, ball: tuple[int, int]) -> float | None:
        """Frames since a paddle turned the ball, None if none did since the last frame."""
        if not LEFT_CONTACT <= ball[0] <= RIGHT_CONTACT:
            return None
        way = self._left(self._leg[-1][0])
        onward = (ball[0] - self._leg[-1][0]) * self._direction
        back = self._left(ball[0])
        speed = self._speed()
        if speed is not None:
            frames = _frames(way, speed)
            return HALF - frames if frames <= HALF - 0.5 and onward < SPEEDS[1] * HALF else None
        if onward >= SPEEDS[0] * HALF:
            return None
        return HALF * back / max(1, way + back)

    def _left(self, x: int) -> int:
        """Pixels from x to the paddle that the ball flies to."""
        return max(0, RIGHT_CONTACT - x if self._direction > 0 else x - LEFT_CONTACT)

    def _speed(self) -> float | None:
        """The pace of this flight in mid-court, from its last two frames."""
        if len(self._leg) < 2:
            return None
        (x0, _), (x1, _) = self._leg[-2:]
        behind = abs(RIGHT_CONTACT - LEFT_CONTACT) - self._left(x0)
        near = max(0, NEAR - behind) + max(0, NEAR - self._left(x1))
        return max(0.1, (abs(x1 - x0) - near) / (HALF - near))

    def _zone(self, elapsed: float, label: FrameLabel) -> str:
        """The zone of a contact: the ball's line carried on, or else the place of the paddle."""
        (_, y1), frames = self._leg[-1], round(HALF - elapsed)
        if len(self._leg) > 1:
            y0 = self._leg[-2][1]
            errors = [(abs(landing(y0, dy, HALF) - y1), dy) for dy in (-2, -1, 1, 2)]
            dy = min(errors)[1]
            turned = landing(y0, dy, HALF + 1) - landing(y0, dy, HALF)
            return zone_of(landing(y1, dy if turned * dy > 0 else -dy, frames))
        top = label.paddles[0 if self._direction > 0 else 1]
        return zone_of(top + PADDLE_HEIGHT / 2 - 2)

    def _holds(self, before: FrameLabel | None, label: FrameLabel) -> list[tuple[str, Colour, str | None]]:
        told: list[tuple[str, Colour, str | None]] = []
        playing = before is not None and before.ball is not None
        for i, colour in enumerate(COLOURS):
            same = playing and before is not None and before.paddles[i] == label.paddles[i]
            self._still[colour] = self._still[colour] + HALF if same else 0
            if self._still[colour] == HOLD_FRAMES:
                told.append(("hold", colour, None))
        return told
