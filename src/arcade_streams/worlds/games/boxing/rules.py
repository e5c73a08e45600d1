"""Boxing: its colours, its words, its numbers."""

from __future__ import annotations

from ...game import Counted, Rules
from ...language import EventKind

COLOURS = ("white", "black")
ARMS = ("high", "low")
CORNERS = ("northwest", "northeast", "southwest", "southeast")
POINTS_TO_WIN = 6

KINDS = (
    EventKind("bell", ("the bell rings", "a round begins", "they box again")),
    EventKind("corner", ("{colour} cornered {zone}", "{colour} trapped {zone}", "{colour} backs {zone}"), CORNERS),
    EventKind("chase", ("{colour} chases", "{colour} gives chase", "{colour} hunts")),
    EventKind("clinch", ("they clinch", "a long clinch", "locked together")),
    EventKind("switch", ("they switch sides", "sides change", "they swap sides")),
    EventKind("miss", ("{colour} misses {zone}", "{colour} swings {zone}", "{colour} punches {zone}"), ARMS),
    EventKind("block", ("{colour} blocks", "{colour} parries", "blocked by {colour}")),
    EventKind("flurry", ("toe to toe", "a long exchange", "what an exchange")),
    EventKind("point", ("{colour} lands", "{colour} connects", "a hit by {colour}")),
    EventKind("score", ("score {a} to {b}", "it is {a} to {b}", "now {a} to {b}")),
    EventKind("streak", ("{colour} {a} in a row", "{colour} {a} straight", "streak {colour} {a}")),
    EventKind("game_point", ("round point {colour}", "{colour} has round point", "one more for {colour}")),
    EventKind("game", ("round {who}", "round won by {who}", "{who} takes the round")),
    EventKind("tally", ("rounds {a} to {b}", "rounds stand {a} to {b}", "rounds are {a} to {b}")),
    EventKind(
        "match", ("bout home {colour} {town}", "bout won by home {colour} {town}", "home {colour} {town} wins the bout")
    ),
)
RULES = Rules(
    POINTS_TO_WIN,
    games="rounds",
    counted=(Counted("flurry", of=("miss", "block"), since=("bell",), at=4),),
)
