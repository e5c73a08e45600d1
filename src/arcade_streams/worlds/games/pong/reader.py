"""Pong from two frames a second: how the ball must have flown between them."""

from __future__ import annotations

from ...game import HALF, FrameLabel, Happening, Place
from .court import CENTRE, LEFT_CONTACT, PADDLE_HEIGHT, RIGHT_CONTACT
from .rules import COLOURS, KINDS
from .world import HOLD_FRAMES, NEAR, landing, zone_of

SPEEDS = (0.6, 2.0)
"""Pixels a frame that a ball can make."""
REACTION = {kind.name: kind.reaction for kind in KINDS}

Fact = tuple[str, str, str | None]
"""Kind, colour, zone."""


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
        self._late: list[Fact] = []
        self._still = dict.fromkeys(COLOURS, 0)

    def see(self, label: FrameLabel) -> list[Happening]:
        """Takes the next frame, half a second after the last; what it shows for the first time."""
        before = self._seen[-1] if self._seen else None
        self._seen = [*self._seen[-1:], label]
        told, self._late = self._late, []
        scores = before.scores if before is not None else label.scores
        ball = label.places["ball"]
        if ball is not None:
            told += self._ball(ball, label)
            told += self._holds(before, label)
        else:
            self._direction, self._leg = 0, []
            self._still = dict.fromkeys(COLOURS, 0)
        told += [("point", c, None) for c, a, b in zip(COLOURS, scores, label.scores, strict=True) if b > a]
        at = round(label.time * 2) * HALF
        return [Happening(at - REACTION[kind], kind, c, zone, label.scores) for kind, c, zone in told]

    def _ball(self, ball: Place, label: FrameLabel) -> list[Fact]:
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

    def _tell(self, kind: str, side: int, zone: str | None, elapsed: float) -> list[Fact]:
        fact: Fact = (kind, "green" if side > 0 else "orange", zone)
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
        paddle = label.places["green" if self._direction > 0 else "orange"]
        assert paddle is not None
        return zone_of(paddle[1] + PADDLE_HEIGHT / 2 - 2)

    def _holds(self, before: FrameLabel | None, label: FrameLabel) -> list[Fact]:
        told: list[Fact] = []
        for colour in COLOURS:
            playing = before is not None and before.places["ball"] is not None
            same = playing and before is not None and before.places[colour] == label.places[colour]
            self._still[colour] = self._still[colour] + HALF if same else 0
            if self._still[colour] == HOLD_FRAMES:
                told.append(("hold", colour, None))
        return told
