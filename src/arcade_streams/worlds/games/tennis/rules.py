"""Tennis: its colours, its words, its numbers."""

from __future__ import annotations

from ...game import Counted, Rules
from ...language import EventKind

COLOURS = ("pink", "blue")
ZONES = ("left", "middle", "right")
POINTS_TO_WIN = 5
REACTION = 2
"""Frames after a ball is hit in which the racket is seen to strike."""

KINDS = (
    EventKind("serve", ("{colour} serves", "serve {colour}", "{colour} to serve"), reaction=REACTION),
    EventKind("return", ("{colour} returns {zone}", "{colour} hits {zone}", "{colour} plays {zone}"), ZONES, REACTION),
    EventKind(
        "volley", ("{colour} volleys {zone}", "volley {colour} {zone}", "{colour} at net {zone}"), ZONES, REACTION
    ),
    EventKind("run", ("{colour} runs far", "{colour} on the run", "a long way {colour}"), reaction=REACTION),
    EventKind("lob", ("{colour} lobs", "lob {colour}", "{colour} plays high")),
    EventKind("net", ("{colour} stays at the net", "{colour} holds the net", "{colour} waits at the net")),
    EventKind("rally", ("long rally", "what a rally", "a long exchange")),
    EventKind("point", ("{colour} scores", "point {colour}", "{colour} wins the point")),
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
RULES = Rules(POINTS_TO_WIN, counted=(Counted("rally", of=("return", "volley"), since=("serve",), at=4),))
