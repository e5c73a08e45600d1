"""The words of an arcade stream: events to text and back.

Every kind of event has a few wordings; a stream uses one of each, picked by its seed. A colour stands directly before
what belongs to it: the zone of a return, the number of a streak, a name, a town.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .context import COLOURS, NAMES, TOWNS

ZONES = ("top", "middle", "bottom")

WORDINGS: dict[str, tuple[str, ...]] = {
    "serve": ("{colour} serves", "serve {colour}", "{colour} to serve"),
    "return": ("{colour} returns {zone}", "{colour} hits {zone}", "{colour} plays {zone}"),
    "hold": ("{colour} holds still", "{colour} stays still", "{colour} is frozen"),
    "rally": ("long rally", "what a rally", "a long exchange"),
    "point": ("{colour} scores", "point {colour}", "{colour} wins the point"),
    "score": ("score {a} to {b}", "it is {a} to {b}", "now {a} to {b}"),
    "streak": ("{colour} {a} in a row", "{colour} {a} straight", "streak {colour} {a}"),
    "game_point": ("game point {colour}", "{colour} has game point", "game ball {colour}"),
    "game": ("game {who}", "game won by {who}", "{who} takes the game"),
    "tally": ("games {a} to {b}", "games stand {a} to {b}", "games are {a} to {b}"),
    "match": ("match home {colour} {town}", "match won by home {colour} {town}", "home {colour} {town} wins the match"),
}
"""Kind of event -> its wordings, in the order in which the events of one second are said."""

KINDS: tuple[str, ...] = tuple(WORDINGS)
JOINER = " ; "


@dataclass(frozen=True, slots=True)
class Event:
    """One thing said. Numbers: score and tally (green, orange); streak (points,). Unused facts are None or empty."""

    kind: str
    colour: str | None = None
    zone: str | None = None
    numbers: tuple[int, ...] = ()
    name: str | None = None
    town: str | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """Which wording a stream uses: one index for each of KINDS."""

    wording: tuple[int, ...]

    def template(self, kind: str) -> str:
        """The wording of a kind, with places for its facts."""
        return WORDINGS[kind][self.wording[KINDS.index(kind)]]


def style(seed: int) -> Style:
    """The style of a seed's stream."""
    rng = random.Random(f"pong style {seed}")
    return Style(tuple(rng.randrange(len(WORDINGS[kind])) for kind in KINDS))


def say(events: Iterable[Event], style: Style) -> str:
    """The words of one second: the clauses in the order of KINDS, "" for no events."""
    ordered = sorted(events, key=lambda event: KINDS.index(event.kind))
    return JOINER.join(_clause(event, style) for event in ordered)


def _clause(event: Event, style: Style) -> str:
    who = event.colour if event.name is None else f"player {event.colour} {event.name}"
    numbers = dict(zip("ab", event.numbers, strict=False))
    facts = {"colour": event.colour, "zone": event.zone, "town": event.town, "who": who, **numbers}
    return style.template(event.kind).format(**facts)


_GROUPS = {
    "{colour}": rf"(?P<colour>{'|'.join(COLOURS)})",
    "{zone}": rf"(?P<zone>{'|'.join(ZONES)})",
    "{a}": r"(?P<a>\d{1,3})",
    "{b}": r"(?P<b>\d{1,3})",
    "{town}": rf"(?P<town>{'|'.join(TOWNS)})",
    "{who}": rf"(?:player (?P<named>{'|'.join(COLOURS)}) (?P<name>{'|'.join(NAMES)})|(?P<plain>{'|'.join(COLOURS)}))",
}


def _pattern(template: str) -> re.Pattern[str]:
    for place, group in _GROUPS.items():
        template = template.replace(place, group)
    return re.compile(rf"(?<!\S){template.replace(' ', ' +')}(?!\w)")


_PATTERNS: list[tuple[str, re.Pattern[str]]] = [
    (kind, _pattern(wording))
    for kind, wording in sorted(
        ((kind, wording) for kind, wordings in WORDINGS.items() for wording in wordings),
        key=lambda pair: -len(pair[1].split()),
    )
]


def parse(text: str) -> list[Event]:
    """The events that a text states, in its order.

    Any wording of any style is understood; words that belong to no clause are skipped, so that a broken text gives
    the clauses that are whole. No clause reaches across a semicolon.
    """
    text = " ".join(re.sub(r"[^\w\s;]", " ", text).replace(";", " ; ").split())
    found, at = [], 0
    while at < len(text):
        for kind, pattern in _PATTERNS:
            match = pattern.match(text, at)
            if match is not None:
                found.append(_event(kind, match))
                at = match.end()
                break
        else:
            space = text.find(" ", at)
            at = len(text) if space < 0 else space
        at += 1
    return found


def _event(kind: str, match: re.Match[str]) -> Event:
    facts = match.groupdict()
    colour = facts.get("colour") or facts.get("named") or facts.get("plain")
    numbers = tuple(int(facts[place]) for place in "ab" if facts.get(place) is not None)
    return Event(kind, colour, facts.get("zone"), numbers, facts.get("name"), facts.get("town"))
