"""The games of the arcade. A new one is a folder that makes a ``Game``, and one line here."""

from __future__ import annotations

from streamingvlm import SourceError

from ..game import Game
from .boxing import BOXING
from .hockey import HOCKEY
from .pong import PONG
from .tennis import TENNIS

GAMES: dict[str, Game] = {game.name: game for game in (PONG, BOXING, TENNIS, HOCKEY)}


def find_game(name: str) -> Game:
    """The game of a name. Raises SourceError, which names those that there are."""
    if name not in GAMES:
        raise SourceError(f"unknown arcade game {name!r} (known: {', '.join(GAMES)})")
    return GAMES[name]
