"""Boxing: its colours, its words, its numbers."""

from __future__ import annotations

from ...game import Counted, Rules
from ...language import Kind

COLOURS = ("white", "black")
ARMS = ("high", "low")
CORNERS = ("northwest", "northeast", "southwest", "southeast")
POINTS_TO_WIN = 6

KINDS = (
    Kind("bell", ("the bell rings", "a round begins", "they box again")),
    Kind("corner", ("{colour} cornered {zone}", "{colour} trapped {zone}", "{colour} backs {zone}"), CORNERS),
    Kind("chase", ("{colour} chases", "{colour} gives chase", "{colour} hunts")),
    Kind("clinch", ("they clinch", "a long clinch", "locked together")),
    Kind("switch", ("they switch sides", "sides change", "they swap sides")),
    Kind("miss", ("{colour} misses {zone}", "{colour} swings {zone}", "{colour} punches {zone}"), ARMS),
    Kind("block", ("{colour} blocks", "{colour} parries", "blocked by {colour}")),
    Kind("flurry", ("toe to toe", "a long exchange", "what an exchange")),
    Kind("point", ("{colour} lands", "{colour} connects", "a hit by {colour}")),
    Kind("score", ("score {a} to {b}", "it is {a} to {b}", "now {a} to {b}")),
    Kind("streak", ("{colour} {a} in a row", "{colour} {a} straight", "streak {colour} {a}")),
    Kind("game_point", ("round point {colour}", "{colour} has round point", "one more for {colour}")),
    Kind("game", ("round {who}", "round won by {who}", "{who} takes the round")),
    Kind("tally", ("rounds {a} to {b}", "rounds stand {a} to {b}", "rounds are {a} to {b}")),
    Kind(
        "match", ("bout home {colour} {town}", "bout won by home {colour} {town}", "home {colour} {town} wins the bout")
    ),
)
RULES = Rules(
    POINTS_TO_WIN,
    games="rounds",
    counted=(Counted("flurry", of=("miss", "block"), since=("bell",), at=4),),
)
