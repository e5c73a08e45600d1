"""What is said of Ice Hockey, and the numbers of a match."""

from __future__ import annotations

from ...game import Rules
from ...language import EventKind

COLOURS = ("blue", "yellow")
WINGS = ("left", "middle", "right")
"""Thirds of the ice, as it is on the screen."""
ENDS = ("defence", "attack")
"""Which of his side's two skaters somebody is: the one nearer to his own goal or the other."""
POINTS_TO_WIN = 5

KINDS = (
    EventKind("drop", ("puck drops", "face off", "puck in play")),
    EventKind("take", ("{colour} takes in {zone}", "{colour} gains in {zone}", "{colour} wins in {zone}"), ENDS, 1),
    EventKind(
        "pass", ("{colour} passes from {zone}", "pass {colour} from {zone}", "{colour} plays from {zone}"), WINGS, 1
    ),
    EventKind(
        "intercept",
        ("{colour} intercepts from {zone}", "cut {colour} from {zone}", "{colour} cuts in from {zone}"),
        WINGS,
        1,
    ),
    EventKind("wait", ("{colour} waits", "{colour} takes time", "{colour} stands with it")),
    EventKind("down", ("{colour} stays down", "{colour} is hurt", "{colour} lies there")),
    EventKind("shot", ("{colour} shoots", "shot {colour}", "{colour} fires")),
    EventKind(
        "save", ("{colour} saves from {zone}", "save {colour} from {zone}", "{colour} stops from {zone}"), WINGS, 1
    ),
    EventKind(
        "rebound",
        ("{colour} rebounds from {zone}", "rebound {colour} from {zone}", "{colour} recovers from {zone}"),
        WINGS,
        1,
    ),
    EventKind("point", ("{colour} scores", "goal {colour}", "point {colour}"), reaction=1),
    EventKind("origin", ("from {zone}", "off {zone}", "via {zone}"), WINGS, 1),
    EventKind("score", ("score {a} to {b}", "now {a} to {b}", "goals {a} to {b}")),
    EventKind("streak", ("{colour} {a} in a row", "{colour} {a} straight", "streak {colour} {a}")),
    EventKind("game_point", ("game point {colour}", "{colour} has game point", "{colour} needs one more")),
    EventKind("game", ("game {who}", "game to {who}", "{who} takes game")),
    EventKind("tally", ("games {a} to {b}", "tally {a} to {b}", "series {a} to {b}")),
    EventKind("match", ("match home {colour} {town}", "title home {colour} {town}", "home {colour} {town} wins")),
)
"""What follows from a goal is said with it, in words so few that a second in which a match ends fits into one reply."""
RULES = Rules(POINTS_TO_WIN)
