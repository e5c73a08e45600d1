"""Tennis: its colours, its words, its numbers."""

from __future__ import annotations

from ...game import Counted, Rules
from ...language import Kind

COLOURS = ("pink", "blue")
ZONES = ("left", "middle", "right")
POINTS_TO_WIN = 5
REACTION = 2
"""Frames after a ball is hit in which the racket is seen to strike."""

KINDS = (
    Kind("serve", ("{colour} serves", "serve {colour}", "{colour} to serve"), reaction=REACTION),
    Kind("return", ("{colour} returns {zone}", "{colour} hits {zone}", "{colour} plays {zone}"), ZONES, REACTION),
    Kind("volley", ("{colour} volleys {zone}", "volley {colour} {zone}", "{colour} at net {zone}"), ZONES, REACTION),
    Kind("run", ("{colour} runs far", "{colour} on the run", "a long way {colour}"), reaction=REACTION),
    Kind("lob", ("{colour} lobs", "lob {colour}", "{colour} plays high")),
    Kind("net", ("{colour} stays at the net", "{colour} holds the net", "{colour} waits at the net")),
    Kind("rally", ("long rally", "what a rally", "a long exchange")),
    Kind("point", ("{colour} scores", "point {colour}", "{colour} wins the point")),
    Kind("score", ("score {a} to {b}", "it is {a} to {b}", "now {a} to {b}")),
    Kind("streak", ("{colour} {a} in a row", "{colour} {a} straight", "streak {colour} {a}")),
    Kind("game_point", ("game point {colour}", "{colour} has game point", "game ball {colour}")),
    Kind("game", ("game {who}", "game won by {who}", "{who} takes the game")),
    Kind("tally", ("games {a} to {b}", "games stand {a} to {b}", "games are {a} to {b}")),
    Kind(
        "match",
        ("match home {colour} {town}", "match won by home {colour} {town}", "home {colour} {town} wins the match"),
    ),
)
RULES = Rules(POINTS_TO_WIN, counted=(Counted("rally", of=("return", "volley"), since=("serve",), at=4),))
