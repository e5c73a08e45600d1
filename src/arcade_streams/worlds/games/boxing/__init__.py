"""Boxing: two boxers seen from above, punches, clinches, chases."""

from __future__ import annotations

from ...game import Game
from .reader import Reader
from .rules import ARMS, COLOURS, KINDS, RULES
from .world import World

BOXING = Game(
    name="boxing",
    colours=COLOURS,
    kinds=KINDS,
    rules=RULES,
    places=COLOURS,
    facts={f"{colour}_{arm}": 3 for colour in COLOURS for arm in ARMS},  # in, half out, fully out
    most=RULES.points_to_win,
    new_world=World,
    new_reader=Reader,
)
