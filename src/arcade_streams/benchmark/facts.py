"""Texts about a game as facts, and how far two texts agree: what the judge of the games decides by."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ..worlds.game import Game
from ..worlds.games import GAMES
from ..worlds.language import GameEvent

Facts = Sequence[GameEvent]


def facts_of(text: str, game: Game) -> Facts:
    """What a text states, in its order. Wordings do not matter; words that state nothing are skipped."""
    return game.language.parse(text)


def game_of(text: str) -> Game | None:
    """The game that a text makes most statements of; None if it states nothing of any game."""
    counts = {game.name: len(facts_of(text, game)) for game in GAMES.values()}
    name = max(counts, key=lambda key: counts[key])  # the first of the table where they are equal
    return GAMES[name] if counts[name] else None


def f1(said: Facts, true: Facts) -> Fraction:
    """F1 of statements, exact: twice those that both make in the same order, divided by all of both.

    1 if neither states anything. A statement counts as often as it is made: saying it twice does not pay.
    """
    total = len(said) + len(true)
    return Fraction(2 * in_order(said, true), total) if total else Fraction(1)


def in_order(one: Facts, other: Facts) -> int:
    """The length of the longest common subsequence."""
    best = [0] * (len(other) + 1)
    for fact in one:
        diagonal = 0
        for place, against in enumerate(other, 1):
            above = best[place]
            best[place] = diagonal + 1 if fact == against else max(above, best[place - 1])
            diagonal = above
    return best[-1]
