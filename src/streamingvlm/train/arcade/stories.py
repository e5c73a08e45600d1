"""Training chunks from what happened: the words of every second, spoiled histories, and how much each id counts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ...arcade.games.pong import PONG
from ...arcade.games.pong.rules import COLOURS, ZONES
from ...arcade.language import JOINER, Event
from ...prompt import Grammar
from ..layout import Ids, archived, cut_history

#: The model speaks one wording of each kind, so that whether to speak never competes with how.
STYLE = PONG.language.plain
#: Kinds that follow from earlier words; whatever makes those wrong makes these unlearnable.
DERIVED = frozenset({"streak", "game_point", "game", "tally", "match"})
SEEN = frozenset({"serve", "return", "hold", "rally"})

Events = Sequence[Event]


@dataclass(frozen=True, slots=True)
class Weights:
    """How much ids count: the first id of an event or of a silence (the decision), words, whether a game is told with
    a name, and the closing ids."""

    speak: float = 2.0
    silent: float = 1.5
    word: float = 1.0
    named: float = 4.0
    end: float = 0.2


@dataclass(frozen=True, slots=True)
class Spoil:
    """Chances that the history is wrong: an event left out, said a second early or late, said of the other colour or
    zone, or invented in a silent second; and a wrong number in a score."""

    drop: float = 0.15
    shift: float = 0.12
    alter: float = 0.2
    invent: float = 0.08
    digits: float = 0.15


class Scribe:
    """Words to ids for one grammar, remembered: the same seconds are said again and again."""

    def __init__(self, grammar: Grammar, weights: Weights | None = None) -> None:
        self.grammar = grammar
        self.weights = weights or Weights()
        #: The id that stands between two clauses.
        (self.joiner,) = grammar.tokenizer.encode(JOINER.rstrip())
        #: The ids behind which a game is told with a name or without one.
        self.game, self.point = grammar.tokenizer.encode(" game point")
        self.reply = lru_cache(maxsize=None)(self._reply)
        self.archived = lru_cache(maxsize=None)(self._archived)
        self.weigh = lru_cache(maxsize=None)(self._weigh)

    def _reply(self, text: str) -> Ids:
        return self.grammar.reply(text)

    def _archived(self, reply: Ids) -> Ids:
        return archived(self.grammar, reply)

    def _weigh(self, reply: Ids) -> tuple[float, ...]:
        """One weight per id of a true reply."""
        w, count = self.weights, len(reply)
        opening, closing = len(self.grammar.opening), len(self.grammar.closing)
        words = count - opening - closing - 1
        if words == 0:
            return (*[w.end] * opening, w.silent, *[w.end] * closing)
        # The first closing id says that there is no further clause: a decision as well.
        out = [*[w.end] * opening, w.speak, *[w.word] * words, *[w.end] * closing]
        for at in range(opening + 1, count - closing):
            if reply[at - 1] == self.game and reply[at] != self.point:
                out[at] = w.named
        return tuple(out)

    def history(self, context: str, replies: Sequence[Ids], sink: int, text: int) -> list[int]:
        """The history block of a stream with this context after these replies."""
        return cut_history(self.grammar.tokenizer.encode(context), replies, self.archived, sink, text)


def words(events: Events) -> str:
    """What is said of a second."""
    return PONG.language.say(events, STYLE)


def spoil(rng: random.Random, seconds: Sequence[Events], chance: Spoil) -> list[list[Event]]:
    """A history as a model with imperfect eyes would have written it. What follows from words stays as it is."""
    out: list[list[Event]] = [[] for _ in seconds]
    for second, events in enumerate(seconds):
        for event in events:
            if event.kind in SEEN:
                at = _slip(rng, second, len(seconds), chance)
                if at is not None:
                    out[at].append(_alter(rng, event, chance))
            elif event.kind == "score" and rng.random() < chance.digits:
                out[second].append(replace(event, numbers=tuple(rng.randrange(6) for _ in range(2))))
            else:
                out[second].append(event)
        if not events and rng.random() < chance.invent:
            out[second].append(_invention(rng))
    return out


def _slip(rng: random.Random, second: int, count: int, chance: Spoil) -> int | None:
    dice = rng.random()
    if dice < chance.drop:
        return None
    if dice < chance.drop + chance.shift:
        return min(max(second + rng.choice((-1, 1)), 0), count - 1)
    return second


def _alter(rng: random.Random, event: Event, chance: Spoil) -> Event:
    if rng.random() >= chance.alter or event.colour is None:
        return event
    if event.zone is None or rng.random() < 0.5:
        event = replace(event, colour=rng.choice(COLOURS))
    return event if event.zone is None else replace(event, zone=rng.choice(ZONES))


def _invention(rng: random.Random) -> Event:
    colour = rng.choice(COLOURS)
    if rng.random() < 0.75:
        return Event("return", colour, rng.choice(ZONES))
    return Event(rng.choice(("serve", "hold")), colour)


def contradicted(truth: Sequence[Events], own: Sequence[str]) -> set[int]:
    """Seconds whose true tally or streak does not follow from what the model itself said: nothing to learn there."""
    out: set[int] = set()
    count = _Count()
    for second, (events, text) in enumerate(zip(truth, own, strict=False)):
        if not _follows(count, events):
            out.add(second)
        for event in PONG.language.parse(text):
            count = count.after(event)
    return out


@dataclass(frozen=True, slots=True)
class _Count:
    """What earlier words tell: the games of each side, and who won the last points."""

    games: tuple[int, ...] = (0, 0)
    run: tuple[str | None, int] = (None, 0)

    def after(self, event: Event) -> _Count:
        """The count once ``event`` has been said."""
        colour = event.colour
        if event.kind == "point":
            return replace(self, run=(colour, self.run[1] + 1 if self.run[0] == colour else 1))
        if event.kind == "game":
            return replace(self, games=(self.games[0] + (colour == "green"), self.games[1] + (colour == "orange")))
        if event.kind == "match":
            return replace(self, games=(0, 0))
        return replace(self, games=event.numbers) if event.kind == "tally" else self


def _follows(count: _Count, events: Events) -> bool:
    """Whether a second's true events agree with the words before it."""
    for event in events:
        if event.kind == "tally" and event.numbers != count.games:
            return False
        if event.kind == "game" and (event.name is not None) == any(count.games):
            return False
        count = count.after(event)
        if event.kind == "streak" and (event.colour, *event.numbers) != count.run:
            return False
    return True
