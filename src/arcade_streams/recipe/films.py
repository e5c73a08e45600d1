"""Chunks of recorded streams with their pictures, oversampled where something rare happens."""

from __future__ import annotations

import random
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..worlds.game import Game
from ..worlds.language import COMMON
from .decoder import StoryExample
from .habits import Habits, plays
from .layout import ArcadeTurn, Ids, lay_out
from .probes import Board, followed, probe_labels, shown
from .record import Recording, rare
from .retell import retold
from .stories import Scribe, Spoil, contradicted, spoil, words

#: Seconds of words that are enough to fill any text window used here, and the sink.
RECENT, EARLY = 150, 60
#: Events that chunks are steered to, by share of the chunks; PLAYS: the share of the game's own kinds together, each
#: in it by how rare it is in the game's streams.
STEER = {"game": 0.16, "match": 0.1, "point": 0.08, "tally": 0.16, "streak": 0.1}
PLAYS = 0.2
#: How often a game is told anew in search of one that may be the last of its match.
TRIES = 12
#: Seconds of a film without words, and how many of them are over before what takes seconds is asked for.
SILENT, LEAD = 8, 4


@dataclass(frozen=True, slots=True)
class FilmPlan:
    """How chunks are cut. ``spoiled``: share of chunks with a spoiled history; ``sink`` and ``text``: ids of history;
    ``short``: share of chunks with less history than that; ``overlapping``: they begin anywhere, else at multiples of
    their length only."""

    seconds: int = 18
    sink: int = 96
    text: int = 256
    spoiled: float = 0.6
    short: float = 0.1
    overlapping: bool = True
    spoil: Spoil = field(default_factory=Spoil)


@dataclass(frozen=True, slots=True)
class Own:
    """A recording that a model has watched by itself from second ``first`` on.

    ``texts``: the words of every second up to where it stopped, the true ones before it began.
    """

    recording: Recording
    first: int
    texts: list[str]


class Library:
    """Recordings with features, of one game or several, and where in them rare things happen.

    ``habits``: how each game goes in them. ``own``: by their number those that a model has watched by itself.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self.recordings = list(recordings)
        self.games: dict[str, Game] = {recording.name: recording.game for recording in recordings}
        self.board = Board(self.games.values())
        self.habits = {
            name: Habits.of(game, [recording.events for recording in recordings if recording.name == name])
            for name, game in self.games.items()
        }
        self.probes = [probe_labels(recording) for recording in recordings]
        self.own: dict[int, Own] = {}
        self.numbers: dict[str, list[int]] = {name: [] for name in self.games}
        self.places: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for number, recording in enumerate(recordings):
            self.numbers[recording.name].append(number)
            for second, events in enumerate(recording.events):
                for event in events:
                    self.places.setdefault((recording.name, event.kind), []).append((number, second))
        self.rare = {name: self._rare(name) for name in self.games}
        self.steer = {
            name: _steer({kind: len(at) for (game, kind), at in self.places.items() if game == name})
            for name in self.games
        }

    def cut(self, rng: random.Random, name: str, plan: FilmPlan) -> tuple[int, int]:
        """A recording of a game and the first second of a chunk of that plan."""
        number, first = self.pick(rng, name, plan.seconds)
        return number, _aligned(first, plan)

    def pick(self, rng: random.Random, name: str, seconds: int) -> tuple[int, int]:
        """A recording of a game and the first second of a chunk of that length."""
        dice = rng.random()
        for kind, share in self.steer[name].items():
            if 0 <= dice < share:
                number, second = rng.choice(self.places[name, kind])
                first = second - rng.randrange(seconds)
                return number, min(max(first, 0), len(self.recordings[number]) - seconds)
            dice -= share
        number = rng.choice(self.numbers[name])
        return number, 0 if rng.random() < 0.06 else rng.randint(0, len(self.recordings[number]) - seconds)

    def _rare(self, name: str) -> list[tuple[int, int]]:
        """Recordings and seconds of a game whose pictures show a rare fact."""
        own = self.numbers[name]
        facts = torch.from_numpy(np.concatenate([self.recordings[number].labels.facts for number in own]) + 1)
        at = [(number, second) for number in own for second in range(len(self.recordings[number]))]
        return [at[i] for i in rare(facts.long()).tolist()]

    def glance(self, rng: random.Random, scribe: Scribe, name: str) -> StoryExample:
        """One picture of a game and nothing else, half of them with a rare fact where the game has such.

        Only the probes learn from it, those that the picture answers by itself.
        """
        number = rng.choice(self.numbers[name])
        second = rng.randrange(len(self.recordings[number]))
        if self.rare[name] and rng.random() < 0.5:
            number, second = rng.choice(self.rare[name])
        labels = self.probes[number][second : second + 1].masked_fill(~shown(self.games[name]), -1)
        return self._silent(rng, scribe, (number, second), labels)

    def silent(self, rng: random.Random, scribe: Scribe, name: str) -> StoryExample:
        """Some seconds of a game without a word, around one of its plays, the rarer the more often.

        Only the probes learn from it. What takes seconds is asked for once they have been seen.
        """
        game = self.games[name]
        counted = {counted.kind for counted in game.rules.counted}
        told = {kind: 1 / len(self.places[name, kind]) for kind in plays(game) if (name, kind) in self.places}
        kinds = {kind: share for kind, share in told.items() if kind not in counted}
        number, second = rng.choice(self.places[name, rng.choices(list(kinds), list(kinds.values()))[0]])
        first = min(max(second - rng.randrange(LEAD, SILENT), 0), len(self.recordings[number]) - SILENT)
        labels = self.probes[number][first : first + SILENT].masked_fill(~followed(game), -1)
        if first:
            labels[:LEAD].masked_fill_(~shown(game), -1)
        return self._silent(rng, scribe, (number, first), labels)

    def _silent(self, rng: random.Random, scribe: Scribe, at: tuple[int, int], labels: Tensor) -> StoryExample:
        """The pictures from a recording's second on that the labels (n, probes of the game) are of."""
        recording, offset = self.recordings[at[0]], _offset(rng)
        assert recording.features is not None
        laid = lay_out(scribe.grammar, [], [ArcadeTurn(offset + i, (), (), ()) for i in range(len(labels))])
        features = recording.features[at[1] : at[1] + len(labels)]
        return StoryExample(laid, features, self.board.spread(recording.game, labels))

    def example(self, rng: random.Random, scribe: Scribe, name: str, plan: FilmPlan) -> StoryExample:
        """A chunk of a game with the true or a spoiled history."""
        number, first = self.cut(rng, name, plan)
        return self._told(rng, scribe, plan, (number, first), retold(rng, self.recordings[number], first))

    def verdict(self, rng: random.Random, scribe: Scribe, name: str, plan: FilmPlan) -> StoryExample:
        """A chunk up to a game that wins a match of the shortest length and no longer one; where none is found, any."""
        games, shortest = self.places.get((name, "game"), []), min(self.games[name].rules.lengths)
        for number, second in rng.choices(games, k=TRIES) if games else ():
            first = max(second - plan.seconds + 1, 0) if plan.overlapping else _aligned(second, plan)
            recording = retold(rng, self.recordings[number], first)
            tallies = [max(event.numbers) for event in recording.events[second] if event.kind == "tally"]
            if tallies == [shortest] and first + plan.seconds <= len(recording):
                return self._told(rng, scribe, plan, (number, first), recording)
        return self.example(rng, scribe, name, plan)

    def _told(
        self, rng: random.Random, scribe: Scribe, plan: FilmPlan, at: tuple[int, int], recording: Recording
    ) -> StoryExample:
        """A chunk of a recording that was told anew, from that number's second on."""
        (number, first), habits = at, self.habits[recording.name]
        low = max(first - RECENT, 0)
        span = recording.events[low : first + plan.seconds]
        spoiled = rng.random() < plan.spoiled
        said = spoil(rng, habits, span, plan.spoil) if spoiled else [list(events) for events in span]
        replies = [scribe.reply(words(habits.game, events)) for events in said]
        early = [scribe.reply(words(habits.game, events)) for events in recording.events[: min(low, EARLY)]]
        history = _history(rng, scribe, plan, recording, early + replies[: first - low])
        return self._film(rng, scribe, recording, (number, first), history, replies[first - low :])

    def own_example(self, rng: random.Random, scribe: Scribe, name: str, plan: FilmPlan) -> StoryExample:
        """A chunk of a game whose history is what the model itself said."""
        number = rng.choice([number for number in self.numbers[name] if number in self.own])
        recording, texts = self.own[number].recording, self.own[number].texts
        first = _aligned(rng.randint(self.own[number].first, len(texts) - plan.seconds), plan)
        # The grid's first place may lie before the model's own words: what stands there is true, and fits as well.
        own = [scribe.reply(text) for text in texts]
        low = max(first - RECENT, 0)
        history = _history(rng, scribe, plan, recording, own[: min(low, EARLY)] + own[low:first])
        unknown = {second - first for second in contradicted(recording.game, recording.events, texts)}
        span = own[first : first + plan.seconds]
        return self._film(rng, scribe, recording, (number, first), history, span, unknown)

    def _film(
        self, rng: random.Random, scribe: Scribe, recording: Recording, at: tuple[int, int], history: list[int],
        said: list[Ids], unknown: Container[int] = (),
    ) -> StoryExample:  # fmt: skip
        (number, first), last = at, at[1] + len(said)
        game, offset = recording.game, first if rng.random() < 0.6 else _offset(rng)
        turns = []
        for i, (ids, events) in enumerate(zip(said, recording.events[first:last], strict=True)):
            right = scribe.reply(words(game, events))
            weights = (0.0,) * len(right) if i in unknown else scribe.weigh(game, events)
            turns.append(ArcadeTurn(offset + i, ids, right, weights))
        assert recording.features is not None
        labels = self.board.spread(game, self.probes[number][first:last])
        return StoryExample(lay_out(scribe.grammar, history, turns), recording.features[first:last], labels)


def _offset(rng: random.Random) -> float:
    """The time at which a chunk may stand: its digits carry no meaning."""
    return float(int(10 ** rng.uniform(0, 5.5)))


def _aligned(first: int, plan: FilmPlan) -> int:
    """The second itself, or the last one before it at which a chunk of a plan without overlap begins."""
    return first if plan.overlapping else first - first % plan.seconds


def _steer(times: Mapping[str, int]) -> dict[str, float]:
    """The share of chunks that is steered to each kind, from how often it was recorded."""
    rare = {kind: 1 / count for kind, count in times.items() if kind not in COMMON}
    shares = {kind: share for kind, share in STEER.items() if kind in times}
    return shares | {kind: PLAYS * each / sum(rare.values()) for kind, each in rare.items()}


def _history(rng: random.Random, scribe: Scribe, plan: FilmPlan, recording: Recording, replies: list[Ids]) -> list[int]:
    text = plan.text if rng.random() >= plan.short else rng.choice((0, 16, 64, 128))
    return scribe.history(recording.context.text, replies, plan.sink, text)
