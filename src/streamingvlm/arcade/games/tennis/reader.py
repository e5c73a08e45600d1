"""Tennis from two frames a second: where ball, shadow and players are, whose racket is out."""

from __future__ import annotations

from dataclasses import dataclass

from ...game import HALF, FrameLabel, Happening, Scores
from .court import FEET, LINES, NET, row_of
from .players import at_net
from .rules import COLOURS
from .world import CLEAR, CONTACT, FRAMES_PER_TICK, LOB, LONG_RALLY, NET_FRAMES, zone_of

TICKS = HALF // FRAMES_PER_TICK
"""Ticks between two frames that are seen."""
TURNED = 12
"""Rows that a ball which flies on can be short of where it should be."""
NEAR = 12
"""Rows from the server within which the ball bounces before a serve."""
USUAL_SPEED = 2.0
"""Rows a tick."""
HIDDEN = (NET[len(NET) // 2], *LINES)
"""Rows where a shadow may be that is not seen."""


@dataclass(frozen=True, slots=True)
class Sight:
    """The ball over the ground in one frame: x, row, and the height if ball and shadow are seen."""

    x: int
    row: int
    height: int | None


def _up(receiver: int) -> int:
    """The direction in which rows grow towards a receiver."""
    return -1 if receiver else 1


class Reader:
    """Tells what happened between the frames that it sees."""

    def __init__(self) -> None:
        self._label: FrameLabel | None = None
        self._feet = (0, 0)
        self._begin()

    def _begin(self) -> None:
        """A new point: nobody has served."""
        self._playing = self._lobbed = False
        self._net_frames = [0, 0]
        self._hitter = self._strokes = 0
        self._flight: list[Sight] = []
        self._pending: tuple[str, str | None] | None = None

    def see(self, label: FrameLabel) -> list[Happening]:
        """Takes the next frame, half a second after the last; what it shows for the first time."""
        before = self._label.scores if self._label is not None else label.scores
        self._frame = round(label.time * 2) * HALF
        was_at_net, self._feet = self._at_net(), self._rows(label)
        ball = self._ball(label)
        if self._playing and ball is not None:
            self._follow(ball, label, was_at_net)
        elif ball is not None:
            self._await(ball, label)
        told = self._points(before, label) or [*self._stroke(ball), *self._watch(ball)]
        self._label = label
        return told

    def _points(self, before: Scores, label: FrameLabel) -> list[Happening]:
        for colour, old, new in zip(COLOURS, before, label.scores, strict=True):
            if new > old:
                self._begin()
                return [Happening(self._frame, "point", colour, scores=label.scores)]
        return []

    def _rows(self, label: FrameLabel) -> tuple[int, int]:
        tops = [place[1] for place in (label.places[colour] for colour in COLOURS) if place is not None]
        return FEET[0] - tops[0], FEET[1] - tops[1]

    def _at_net(self) -> list[bool]:
        return [at_net(side, row) for side, row in enumerate(self._feet)]

    def _ball(self, label: FrameLabel) -> Sight | None:
        """Where the ball is; None if neither ball nor shadow is seen."""
        ball, shadow = label.places["ball"], label.places["shadow"]
        if shadow is not None:
            row = row_of(shadow[1])
            return Sight(shadow[0] + 2, row, None if ball is None else row_of(ball[1]) - row)
        if ball is None:
            return None
        # The shadow is under the ball, or where it cannot be seen.
        top = row_of(ball[1])
        expected = self._expected(label)
        return Sight(
            ball[0] + 2, min((top, *(row for row in HIDDEN if row < top)), key=lambda row: abs(row - expected)), None
        )

    def _expected(self, label: FrameLabel) -> float:
        """About the row of the ball: at a player who serves or swings, or where it flies on to."""
        receiver = 1 - self._hitter
        if not self._playing:
            return self._feet[self._hitter]
        if label.facts[f"swing_{COLOURS[receiver]}"]:
            return self._line(receiver)
        return self._flies_to()

    def _line(self, receiver: int) -> int:
        """The row in which the receiver hits the ball."""
        return self._feet[receiver] - _up(receiver) * CONTACT

    def _flies_to(self) -> float:
        """The row of a ball that flies on."""
        speed = self._speed()
        return self._flight[-1].row + TICKS * (USUAL_SPEED * _up(1 - self._hitter) if speed is None else speed[1])

    def _speed(self) -> tuple[float, float] | None:
        """Of this flight, pixels a tick across and along, from its last two frames."""
        if len(self._flight) < 2:
            return None
        one, two = self._flight[-2:]
        return (two.x - one.x) / TICKS, (two.row - one.row) / TICKS

    def _await(self, ball: Sight, label: FrameLabel) -> None:
        """Before a serve the ball bounces at the server's feet."""
        away = [abs(ball.row - row) for row in self._feet]
        if min(away) < NEAR:
            self._hitter = away.index(min(away))
        if min(away) >= NEAR or label.facts[f"swing_{COLOURS[self._hitter]}"]:
            self._playing, self._pending, self._flight = True, ("serve", None), [ball]

    def _follow(self, ball: Sight, label: FrameLabel, was_at_net: list[bool]) -> None:
        receiver = 1 - self._hitter
        speed, line, up = self._speed(), self._line(receiver), _up(receiver)
        expected = self._flies_to()
        turned = up * (expected - line) >= 0 and up * (expected - ball.row) > TURNED
        if speed is None or not (turned or label.facts[f"swing_{COLOURS[receiver]}"]):
            self._flight.append(ball)
            return
        last = self._flight[-1]
        ticks = min(TICKS, max(0.0, (line - last.row) / speed[1])) if speed[1] else 0.0
        volley = was_at_net[receiver] or self._at_net()[receiver]
        self._pending = ("volley" if volley else "return", zone_of(last.x + speed[0] * ticks))
        self._hitter, self._flight, self._lobbed = receiver, [ball], False
        self._strokes += 1

    def _stroke(self, ball: Sight | None) -> list[Happening]:
        """The last stroke, once the ball has come away from the player."""
        if self._pending is None or ball is None or abs(ball.row - self._feet[self._hitter]) < CLEAR:
            return []
        (kind, zone), self._pending = self._pending, None
        told = [Happening(self._frame, kind, COLOURS[self._hitter], zone)]
        if self._strokes == LONG_RALLY:
            told.append(Happening(self._frame, "rally"))
        return told

    def _watch(self, ball: Sight | None) -> list[Happening]:
        told: list[Happening] = []
        if self._playing and ball is not None and (ball.height or 0) >= LOB and not self._lobbed:
            self._lobbed = True
            told.append(Happening(self._frame, "lob", COLOURS[self._hitter]))
        for side, near in enumerate(self._at_net()):
            self._net_frames[side] = self._net_frames[side] + HALF if near and self._playing else 0
            if self._net_frames[side] == NET_FRAMES + HALF:
                told.append(Happening(self._frame, "net", COLOURS[side]))
        return told
