"""Training chunks from what happened: the words of every second, spoiled histories, and how much each id counts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from streamingvlm.core.grammar import Grammar
from streamingvlm.train.layout import Ids, archived, cut_history

from ..worlds.context import NAMES
from ..worlds.game import Game
from ..worlds.games import find_game
from ..worlds.language import JOINER, GameEvent
from .habits import Events, Habits, plays

#: Kinds that follow from words long before them, and those behind which one of them can be told.
FOLLOWING = frozenset({"streak", "game", "tally", "match"})
ENDING = FOLLOWING | {"score", "game_point"}


@dataclass(frozen=True, slots=True)
class Weights:
    """How much ids count: the first id of an event or of a silence (the decision), words, words of what follows from
    words long before and whether that is said, whether a game is told with a name, and the closing ids."""

    speak: float = 2.0
    silent: float = 1.5
    word: float = 1.0
    follows: float = 4.0
    named: float = 8.0
    end: float = 0.2


@dataclass(frozen=True, slots=True)
class Spoil:
    """Chances that the history is wrong: a play left out, said a second early or late, said of any colour or zone, or
    invented in a silent second; and a wrong number in a score."""

    drop: float = 0.15
    shift: float = 0.12
    alter: float = 0.2
    invent: float = 0.08
    digits: float = 0.5


@dataclass(frozen=True, slots=True)
class Clause:
    """One event of a second, the ids of its clause with the joiner before it, and which of them decides whether a game
    is told with a name (None for all other kinds)."""

    event: GameEvent
    ids: Ids
    fork: int | None


class Scribe:
    """Words to ids for one grammar, remembered: the same seconds are said again and again."""

    def __init__(self, grammar: Grammar, weights: Weights | None = None) -> None:
        self.grammar = grammar
        self.weights = weights or Weights()
        #: The id that stands between two clauses.
        (self.joiner,) = grammar.tokenizer.encode(JOINER.rstrip())
        self.reply = lru_cache(maxsize=None)(self._reply)
        self.archived = lru_cache(maxsize=None)(self._archived)
        self._clauses = lru_cache(maxsize=None)(self._find_clauses)

    def _reply(self, text: str) -> Ids:
        return self.grammar.reply(text)

    def _archived(self, reply: Ids) -> Ids:
        return archived(self.grammar, reply)

    def clauses(self, game: Game, events: Events) -> tuple[Clause, ...]:
        """The clauses of a second: their ids are the words of its reply."""
        return self._clauses(game.name, tuple(events))

    def _find_clauses(self, name: str, events: tuple[GameEvent, ...]) -> tuple[Clause, ...]:
        game = find_game(name)
        found: list[Clause] = []
        for event in game.language.in_order(events):
            before = JOINER if found else ""
            ids = self._encode(game, event, before)
            fork = None
            if event.kind == "game":
                twin = self._encode(game, replace(event, name=NAMES[0] if event.name is None else None), before)
                fork = next(i for i, (one, other) in enumerate(zip(ids, twin, strict=False)) if one != other)
            found.append(Clause(event, ids, fork))
        return tuple(found)

    def _encode(self, game: Game, event: GameEvent, before: str) -> Ids:
        return tuple(self.grammar.tokenizer.encode(before + words(game, [event])))

    def weigh(self, game: Game, events: Events) -> tuple[float, ...]:
        """One weight per id of the true reply of a second."""
        w, clauses = self.weights, self.clauses(game, events)
        opening, closing = len(self.grammar.opening), len(self.grammar.closing)
        if not clauses:
            return (*[w.end] * opening, w.silent, *[w.end] * closing)
        out = [w.end] * opening
        for clause in clauses:
            each = [w.follows if clause.event.kind in FOLLOWING else w.word] * len(clause.ids)
            if clause.fork is not None:
                each[clause.fork] = w.named
            out += each
        out[opening] = w.speak
        # The first closing id says that there is no further clause: a decision as well.
        last = w.follows if clauses[-1].event.kind in ENDING else w.word
        return (*out, last, *[w.end] * closing)

    def history(self, context: str, replies: Sequence[Ids], sink: int, text: int) -> list[int]:
        """The history block of a stream with this context after these replies."""
        return cut_history(self.grammar.tokenizer.encode(context), replies, self.archived, sink, text)


def words(game: Game, events: Events) -> str:
    """What is said of a second. The model speaks one wording of each kind, so that whether to speak never competes with
    how."""
    return game.language.say(events, game.language.plain)


def spoil(rng: random.Random, habits: Habits, seconds: Sequence[Events], chance: Spoil) -> list[list[GameEvent]]:
    """A history as a model with imperfect eyes would have written it: plays and scores are wrong now and then.

    Points and what follows from words stay as they are.
    """
    game, seen = habits.game, frozenset(plays(habits.game))
    out: list[list[GameEvent]] = [[] for _ in seconds]
    for second, events in enumerate(seconds):
        for event in events:
            if event.kind in seen:
                at = _slip(rng, second, len(seconds), chance)
                if at is not None:
                    out[at].append(_alter(rng, game, event, chance))
            elif event.kind == "score" and rng.random() < chance.digits:
                numbers = game.rules.said((rng.randint(0, game.most), rng.randint(0, game.most)))
                out[second].append(replace(event, numbers=numbers or event.numbers))
            else:
                out[second].append(event)
        if not events and rng.random() < chance.invent and (invented := habits.invention(rng)) is not None:
            out[second].append(invented)
    return out


def _slip(rng: random.Random, second: int, count: int, chance: Spoil) -> int | None:
    dice = rng.random()
    if dice < chance.drop:
        return None
    if dice < chance.drop + chance.shift:
        return min(max(second + rng.choice((-1, 1)), 0), count - 1)
    return second


def _alter(rng: random.Random, game: Game, event: GameEvent, chance: Spoil) -> GameEvent:
    if rng.random() >= chance.alter:
        return event
    if event.colour is not None and (event.zone is None or rng.random() < 0.5):
        event = replace(event, colour=rng.choice(game.colours))
    return event if event.zone is None else replace(event, zone=rng.choice(game.language[event.kind].zones))


def contradicted(game: Game, truth: Sequence[Events], own: Sequence[str]) -> set[int]:
    """Seconds whose true tally or streak does not follow from what the model itself said: nothing to learn there."""
    out: set[int] = set()
    count = _Count(dict.fromkeys(game.colours, 0))
    for second, (events, text) in enumerate(zip(truth, own, strict=False)):
        if not _follows(count, events):
            out.add(second)
        for event in game.language.parse(text):
            count = count.after(event)
    return out


@dataclass(frozen=True, slots=True)
class _Count:
    """What earlier words tell: the games of each colour, and who won the last points."""

    games: Mapping[str, int]
    run: tuple[str | None, int] = (None, 0)

    def after(self, event: GameEvent) -> _Count:
        """The count once ``event`` has been said."""
        colour = event.colour
        if event.kind == "point":
            return replace(self, run=(colour, self.run[1] + 1 if self.run[0] == colour else 1))
        if event.kind == "game":
            return replace(self, games={side: n + (side == colour) for side, n in self.games.items()})
        if event.kind == "match":
            return replace(self, games=dict.fromkeys(self.games, 0))
        if event.kind == "tally":
            return replace(self, games=dict(zip(self.games, event.numbers, strict=True)))
        return self


def _follows(count: _Count, events: Events) -> bool:
    """Whether a second's true events agree with the words before it."""
    for event in events:
        if event.kind == "tally" and event.numbers != tuple(count.games.values()):
            return False
        if event.kind == "game" and (event.name is not None) == any(count.games.values()):
            return False
        count = count.after(event)
        if event.kind == "streak" and (event.colour, *event.numbers) != count.run:
            return False
    return True
