"""From what happens to what is said, and in which second."""

from __future__ import annotations

from collections import defaultdict

from .context import Context
from .language import Event
from .world import HALF, POINTS_TO_WIN, Happening

REACTION = {"serve": 6, "return": 6, "point": 1, "hold": 0}
"""Frames after which the picture shows that something has happened."""
LONG_RALLY = 4
STREAK = 3
TALLY_SUM = 3
"""The tally is restated with the point that brings the score to this sum, and at the end of a game."""


def second_of(happening: Happening) -> int:
    """The second that says it: the one that holds the first of the frames at 2 a second that shows it."""
    frame = happening.frame + REACTION[happening.kind]
    return -(-frame // HALF) // 2


class Announcer:
    """Keeps the count of returns, points, games and matches and fills seconds with events."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._said: dict[int, list[Event]] = defaultdict(list)
        self._returns = 0
        self._run: tuple[str, int] = ("", 0)
        self._games = {"green": 0, "orange": 0}

    def take(self, second: int) -> tuple[Event, ...]:
        """The events of a second, in order of time; call once for each second, in order."""
        return tuple(self._said.pop(second, ()))

    def hear(self, happening: Happening) -> None:
        """Takes note of one happening."""
        second, colour = second_of(happening), happening.colour
        if happening.kind == "serve":
            self._returns = 0
            self._say(second, Event("serve", colour))
        elif happening.kind == "hold":
            self._say(second, Event("hold", colour))
        elif happening.kind == "return":
            self._returns += 1
            self._say(second, Event("return", colour, happening.zone))
            if self._returns == LONG_RALLY:
                self._say(second, Event("rally"))
        else:
            self._point(second, colour, happening.scores)

    def _say(self, second: int, event: Event) -> None:
        self._said[second].append(event)

    def _point(self, second: int, colour: str, scores: tuple[int, int]) -> None:
        self._say(second, Event("point", colour))
        self._say(second, Event("score", numbers=scores))
        self._run = (colour, self._run[1] + 1 if self._run[0] == colour else 1)
        if self._run[1] >= STREAK:
            self._say(second, Event("streak", colour, numbers=(self._run[1],)))
        own = scores[0] if colour == "green" else scores[1]
        rival = "orange" if colour == "green" else "green"
        if own >= POINTS_TO_WIN:
            self._game(second, colour)
            return
        if POINTS_TO_WIN - 1 in scores:
            self._say(second, Event("game_point", colour if own == POINTS_TO_WIN - 1 else rival))
        if self._restates(scores):
            self._say(second, Event("tally", numbers=self._tally()))

    def _restates(self, scores: tuple[int, int]) -> bool:
        """Whether a point that does not end its game restates the tally."""
        return sum(scores) == TALLY_SUM

    def _tally(self) -> tuple[int, int]:
        return self._games["green"], self._games["orange"]

    def _game(self, second: int, colour: str) -> None:
        """The game, its tally, and the match if this game won it."""
        opening = not any(self._games.values())
        name = self._context.player(colour).name if opening else None
        self._games[colour] += 1
        self._say(second, Event("game", colour, name=name))
        self._say(second, Event("tally", numbers=self._tally()))
        if self._games[colour] == self._context.games_to_win:
            self._say(second, Event("match", colour, town=self._context.player(colour).town))
            self._games = {"green": 0, "orange": 0}
