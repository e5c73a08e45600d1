"""From what happens to what is said, and in which second."""

from __future__ import annotations

from collections import Counter, defaultdict

from .context import Context
from .game import Game, Happening, Scores
from .language import GameEvent


class Announcer:
    """Keeps the count of plays, points, games and matches and fills seconds with events.

    ``games``: won so far by each side, less than a match needs.
    """

    def __init__(self, game: Game, context: Context, games: tuple[int, int] = (0, 0)) -> None:
        self._game, self._context = game, context
        self._said: dict[int, list[GameEvent]] = defaultdict(list)
        self._plays: Counter[str] = Counter()
        self._run: tuple[str, int] = ("", 0)
        self._games = [*games]

    def take(self, second: int) -> tuple[GameEvent, ...]:
        """The events of a second, in order of time; call once for each second, in order."""
        return tuple(self._said.pop(second, ()))

    def hear(self, happening: Happening) -> None:
        """Takes note of one happening."""
        second = self._game.second_of(happening)
        if happening.kind == "point":
            assert happening.colour is not None
            self._plays.clear()
            self._point(second, happening.colour, happening.scores)
            return
        self._say(second, GameEvent(happening.kind, happening.colour, happening.zone))
        for counted in self._game.rules.counted:
            if happening.kind in counted.since:
                self._plays[counted.kind] = 0
            elif happening.kind in counted.of:
                self._plays[counted.kind] += 1
                if self._plays[counted.kind] == counted.at:
                    self._say(second, GameEvent(counted.kind))

    def _say(self, second: int, event: GameEvent) -> None:
        self._said[second].append(event)

    def _point(self, second: int, colour: str, scores: Scores) -> None:
        """A point and all that follows from it, which is said with it."""
        rules, colours = self._game.rules, self._game.colours
        self._say(second, GameEvent("point", colour))
        said = rules.said(scores)
        if said is not None:
            self._say(second, GameEvent("score", numbers=said))
        self._run = (colour, self._run[1] + 1 if self._run[0] == colour else 1)
        if self._run[1] >= rules.streak:
            self._say(second, GameEvent("streak", colour, numbers=(self._run[1],)))
        if rules.winner(scores) is not None:
            self.win(second, colour)
            return
        near = rules.game_point(scores, colours.index(colour))
        if near is not None:
            self._say(second, GameEvent("game_point", colours[near]))
        if self.restates(scores):
            self._say(second, GameEvent("tally", numbers=self._tally()))

    def restates(self, scores: Scores) -> bool:
        """Whether a point that does not end its game restates the tally."""
        return self._game.rules.restates(scores)

    def _tally(self) -> tuple[int, int]:
        return self._games[0], self._games[1]

    def win(self, second: int, colour: str) -> None:
        """Say a game, its tally, and the match if this game won it."""
        name = None if any(self._games) else self._context.player(colour).name
        side = self._game.colours.index(colour)
        self._games[side] += 1
        self._say(second, GameEvent("game", colour, name=name))
        self._say(second, GameEvent("tally", numbers=self._tally()))
        if self._games[side] == self._context.games_to_win:
            self._say(second, GameEvent("match", colour, town=self._context.player(colour).town))
            self._games = [0, 0]
