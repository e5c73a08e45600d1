"""The words of an arcade stream: events to text and back.

Every kind of event has a few wordings; a stream uses one of each, picked by its seed. A colour stands directly before
what belongs to it: the zone of a return, the number of a streak, a name, a town.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .context import NAMES, TOWNS, Colours

JOINER = " ; "
COMMON = ("point", "score", "streak", "game_point", "game", "tally", "match")
"""Kinds that every game has, with wordings of its own: the announcer says them, the score counts by them."""


@dataclass(frozen=True, slots=True)
class GameEvent:
    """One thing said. Numbers: score and tally (first colour, second); streak (points,). Unused facts are None."""

    kind: str
    colour: str | None = None
    zone: str | None = None
    numbers: tuple[int, ...] = ()
    name: str | None = None
    town: str | None = None


@dataclass(frozen=True, slots=True)
class EventKind:
    """One kind of event and how it is said.

    Places of a wording: ``{colour}``, ``{zone}`` (one of ``zones``), ``{a}`` and ``{b}`` (numbers), ``{town}``, and
    ``{who}`` (a colour, or "player", a colour and its name). ``reaction``: frames after which the picture shows it.
    """

    name: str
    wordings: tuple[str, ...]
    zones: tuple[str, ...] = ()
    reaction: int = 0


@dataclass(frozen=True, slots=True)
class Style:
    """Which wording of each kind a stream uses: one index for each kind of its game, in their order."""

    wording: tuple[int, ...]


class Language:
    """What a game's events are called. ``kinds``: in the order in which the events of one second are said."""

    def __init__(self, colours: Colours, kinds: tuple[EventKind, ...]) -> None:
        self.colours = colours
        self.kinds = tuple(kind.name for kind in kinds)
        self._kinds = {kind.name: kind for kind in kinds}
        missing = [name for name in COMMON if name not in self._kinds]
        assert not missing, f"every game says {missing} too"
        self._order = {name: place for place, name in enumerate(self.kinds)}
        pairs = [(kind, wording) for kind in kinds for wording in kind.wordings]
        pairs.sort(key=lambda pair: -len(pair[1].split()))
        self._patterns = [(kind.name, self._pattern(kind, wording)) for kind, wording in pairs]

    def __getitem__(self, name: str) -> EventKind:
        """The kind of a name; KeyError if the game has none."""
        return self._kinds[name]

    def in_order(self, events: Iterable[GameEvent]) -> list[GameEvent]:
        """Events of one second in the order in which they are said."""
        return sorted(events, key=lambda event: self._order[event.kind])

    def draw(self, rng: random.Random) -> Style:
        """A style: one wording of each kind."""
        return Style(tuple(rng.randrange(len(kind.wordings)) for kind in self._kinds.values()))

    @property
    def plain(self) -> Style:
        """The first wording of each kind."""
        return Style((0,) * len(self.kinds))

    def say(self, events: Iterable[GameEvent], style: Style) -> str:
        """The words of one second: its clauses, "" for no events."""
        return JOINER.join(self._clause(event, style) for event in self.in_order(events))

    def _clause(self, event: GameEvent, style: Style) -> str:
        who = event.colour if event.name is None else f"player {event.colour} {event.name}"
        numbers = dict(zip("ab", event.numbers, strict=False))
        facts = {"colour": event.colour, "zone": event.zone, "town": event.town, "who": who, **numbers}
        return self._kinds[event.kind].wordings[style.wording[self._order[event.kind]]].format(**facts)

    def _pattern(self, kind: EventKind, wording: str) -> re.Pattern[str]:
        colours = "|".join(self.colours)
        groups = {
            "{colour}": rf"(?P<colour>{colours})",
            "{zone}": rf"(?P<zone>{'|'.join(kind.zones)})",
            "{a}": r"(?P<a>\d{1,3})",
            "{b}": r"(?P<b>\d{1,3})",
            "{town}": rf"(?P<town>{'|'.join(TOWNS)})",
            "{who}": rf"(?:player (?P<named>{colours}) (?P<name>{'|'.join(NAMES)})|(?P<plain>{colours}))",
        }
        for place, group in groups.items():
            wording = wording.replace(place, group)
        return re.compile(rf"(?<!\S){wording.replace(' ', ' +')}(?!\w)")

    def parse(self, text: str) -> list[GameEvent]:
        """The events that a text states, in its order.

        Any wording of any style is understood; words that belong to no clause are skipped, so that a broken text
        gives the clauses that are whole. No clause reaches across a semicolon.
        """
        text = " ".join(re.sub(r"[^\w\s;]", " ", text).replace(";", " ; ").split())
        found, at = [], 0
        while at < len(text):
            for kind, pattern in self._patterns:
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


def _event(kind: str, match: re.Match[str]) -> GameEvent:
    facts = match.groupdict()
    colour = facts.get("colour") or facts.get("named") or facts.get("plain")
    numbers = tuple(int(facts[place]) for place in "ab" if facts.get(place) is not None)
    return GameEvent(kind, colour, facts.get("zone"), numbers, facts.get("name"), facts.get("town"))
