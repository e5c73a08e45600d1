"""Texts about a game as facts, and how far two texts agree: the arithmetic of a judge that cannot be wrong."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from ..worlds.game import Game
from ..worlds.games import GAMES
from ..worlds.language import GameEvent

Facts = Counter[GameEvent]


def facts_of(text: str, game: Game) -> Facts:
    """What a text states, each statement as often as it is made. Its order and its wording do not matter."""
    return Counter(game.language.parse(text))


def game_of(text: str) -> Game | None:
    """The game whose words a text has most of; None if it states nothing of any game."""
    counts = {game.name: facts_of(text, game).total() for game in GAMES.values()}
    name = max(counts, key=lambda key: counts[key])  # the first of the table where they are equal
    return GAMES[name] if counts[name] else None


def f1(said: Facts, true: Facts) -> Fraction:
    """F1 of statements, exact: twice those in both, divided by all of both. 1 if neither states anything."""
    total = said.total() + true.total()
    return Fraction(2 * (said & true).total(), total) if total else Fraction(1)
