"""Pong: two paddles, a ball, rallies."""

from __future__ import annotations

from ...game import Game
from .reader import Reader
from .rules import COLOURS, KINDS, RULES
from .world import World

PONG = Game(
    name="pong",
    colours=COLOURS,
    kinds=KINDS,
    rules=RULES,
    places=("ball", "green", "orange"),
    facts={"motion_x": 3, "motion_y": 3},
    most=RULES.points_to_win,
    new_world=World,
    new_reader=Reader,
)
