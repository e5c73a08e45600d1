"""Ice Hockey: real play on the console, both sides played by script."""

from __future__ import annotations

from ...game import Game
from .reader import Reader
from .rules import COLOURS, KINDS, POINTS_TO_WIN, RULES
from .world import FACTS, PLACES, World

HOCKEY = Game(
    name="hockey",
    colours=COLOURS,
    kinds=KINDS,
    rules=RULES,
    places=PLACES,
    facts=FACTS,
    most=POINTS_TO_WIN,
    new_world=World,
    new_reader=Reader,
)
