"""Tennis: two players, a net between them, a ball and its shadow."""

from __future__ import annotations

from ...game import Game
from .reader import Reader
from .rules import COLOURS, KINDS, RULES
from .world import World

TENNIS = Game(
    name="tennis",
    colours=COLOURS,
    kinds=KINDS,
    rules=RULES,
    places=("ball", "shadow", "pink", "blue"),
    facts={"motion_x": 3, "motion_y": 3, "swing_pink": 2, "swing_blue": 2, "net_pink": 2, "net_blue": 2},
    most=RULES.points_to_win,
    new_world=World,
    new_reader=Reader,
)
