"""Pong: its colours, its words, its numbers."""

from __future__ import annotations

from ...game import Counted, Rules
from ...language import EventKind

COLOURS = ("green", "orange")
ZONES = ("top", "middle", "bottom")
POINTS_TO_WIN = 5
REACTION = 6
"""Frames after which a ball has come away from the centre line or a paddle."""

KINDS = (
    EventKind("serve", ("{colour} serves", "serve {colour}", "{colour} to serve"), reaction=REACTION),
    EventKind("return", ("{colour} returns {zone}", "{colour} hits {zone}", "{colour} plays {zone}"), ZONES, REACTION),
    EventKind("hold", ("{colour} holds still", "{colour} stays still", "{colour} is frozen")),
    EventKind("rally", ("long rally", "what a rally", "a long exchange")),
    EventKind("point", ("{colour} scores", "point {colour}", "{colour} wins the point"), reaction=1),
    EventKind("score", ("score {a} to {b}", "it is {a} to {b}", "now {a} to {b}")),
    EventKind("streak", ("{colour} {a} in a row", "{colour} {a} straight", "streak {colour} {a}")),
    EventKind("game_point", ("game point {colour}", "{colour} has game point", "game ball {colour}")),
    EventKind("game", ("game {who}", "game won by {who}", "{who} takes the game")),
    EventKind("tally", ("games {a} to {b}", "games stand {a} to {b}", "games are {a} to {b}")),
    EventKind(
        "match",
        ("match home {colour} {town}", "match won by home {colour} {town}", "home {colour} {town} wins the match"),
    ),
)
RULES = Rules(POINTS_TO_WIN, counted=(Counted("rally", of=("return",), since=("serve",), at=4),))
