"""Chunks of recorded streams with their pictures, oversampled where something rare happens."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...arcade.games.pong.rules import COLOURS, ZONES
from ...arcade.language import Event
from .decoder import Example
from .layout import Ids, Turn, lay_out
from .record import Recording
from .stories import Scribe, Spoil, contradicted, spoil, words

#: Classes of each probe: serve, return (colour and zone), point, hold, rally; ball's direction, column, row; scores;
#: each paddle's movement within the second, and frames that it has stood still; returns of this rally.
PROBES = (3, 7, 3, 3, 2, 3, 7, 8, 6, 6, 3, 3, 8, 8, 6)
#: Seconds of words that are enough to fill any text window used here, and the sink.
RECENT, EARLY = 150, 60
#: Rare events that chunks are steered to, by share of the chunks.
STEER = (("game", 0.16), ("match", 0.1), ("hold", 0.12), ("rally", 0.08), ("point", 0.14))


def probe_labels(recording: Recording) -> Tensor:
    """Labels (n, len(PROBES)) int64 of every second, -1 for unknown."""
    rows, still, returns = [], [0, 0], 0
    before: list[int] | None = None
    for events, frames in zip(recording.events, recording.labels.tolist(), strict=True):
        for frame in frames:
            paddles = frame[4:6]
            playing = frame[0] >= 0 and before is not None
            same = [playing and a == b for a, b in zip(paddles, before or paddles, strict=True)]
            still = [n + 1 if unmoved else 0 for n, unmoved in zip(still, same, strict=True)]
            before = paddles
        for event in events:
            returns = 0 if event.kind in ("serve", "point") else returns + (event.kind == "return")
        rows.append([*_probe(events, frames), *(min(n, 7) for n in still), min(returns, 5)])
    return torch.tensor(rows)


def _probe(events: Sequence[Event], frames: list[list[int]]) -> list[int]:
    kinds = {event.kind: event for event in events}

    def side(kind: str) -> int:
        event = kinds.get(kind)
        return 0 if event is None or event.colour is None else 1 + ("green", "orange").index(event.colour)

    hit = kinds.get("return")
    zone = 0 if hit is None or hit.zone is None else 1 + 3 * (side("return") - 1) + ZONES.index(hit.zone)
    x, y, dx, _, _, _, green, orange = frames[-1]
    moved = [1 + (now > then) - (now < then) for then, now in zip(frames[0][4:6], frames[-1][4:6], strict=True)]
    return [
        side("serve"), zone, side("point"), side("hold"), int("rally" in kinds),
        dx + 1 if x >= 0 else -1, min(x // 23, 6) if x >= 0 else -1, min(max(y - 34, 0) // 20, 7) if x >= 0 else -1,
        min(green, 5), min(orange, 5), *moved,
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """How chunks are cut. ``spoiled``: share of chunks with a spoiled history; ``sink`` and ``text``: ids of history;
    ``short``: share of chunks with less history than that."""

    seconds: int = 18
    sink: int = 96
    text: int = 256
    spoiled: float = 0.6
    short: float = 0.1
    spoil: Spoil = field(default_factory=Spoil)


class Library:
    """Recordings with features, and where in them rare things happen.

    ``own``: for recordings that a model has watched by itself, the first second it did and the texts of every second
    up to where it stopped (the true ones before it began).
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self.recordings = list(recordings)
        self.probes = [probe_labels(recording) for recording in recordings]
        self.own: dict[int, tuple[int, list[str]]] = {}
        self.places: dict[str, list[tuple[int, int]]] = {kind: [] for kind, _ in STEER}
        for number, recording in enumerate(recordings):
            for second, events in enumerate(recording.events):
                for event in events:
                    if event.kind in self.places:
                        self.places[event.kind].append((number, second))

    def pick(self, rng: random.Random, seconds: int) -> tuple[int, int]:
        """A recording and the first second of a chunk."""
        dice = rng.random()
        for kind, share in STEER:
            if 0 <= dice < share and self.places[kind]:
                number, second = rng.choice(self.places[kind])
                first = second - rng.randrange(seconds)
                return number, min(max(first, 0), len(self.recordings[number]) - seconds)
            dice -= share
        number = rng.randrange(len(self.recordings))
        return number, 0 if rng.random() < 0.06 else rng.randint(0, len(self.recordings[number]) - seconds)

    def example(self, rng: random.Random, scribe: Scribe, plan: Plan) -> Example:
        """A chunk with the true or a spoiled history."""
        number, first = self.pick(rng, plan.seconds)
        recording = self.recordings[number]
        low = max(first - RECENT, 0)
        span = recording.events[low : first + plan.seconds]
        said = spoil(rng, span, plan.spoil) if rng.random() < plan.spoiled else [list(events) for events in span]
        replies = [scribe.reply(words(events)) for events in said]
        early = [scribe.reply(words(events)) for events in recording.events[: min(low, EARLY)]]
        history = _history(rng, scribe, plan, recording, early + replies[: first - low])
        true = [scribe.reply(words(events)) for events in recording.events[first : first + plan.seconds]]
        return self._film(rng, scribe, (number, first), history, replies[first - low :], true)

    def own_example(self, rng: random.Random, scribe: Scribe, plan: Plan) -> Example:
        """A chunk whose history is what the model itself said."""
        number = rng.choice(sorted(self.own))
        began, texts = self.own[number]
        first = rng.randint(began, len(texts) - plan.seconds)
        recording, own = self.recordings[number], [scribe.reply(text) for text in texts]
        low = max(first - RECENT, 0)
        history = _history(rng, scribe, plan, recording, own[: min(low, EARLY)] + own[low:first])
        true = [scribe.reply(words(events)) for events in recording.events[first : first + plan.seconds]]
        unknown = {second - first for second in contradicted(recording.events, texts)}
        return self._film(rng, scribe, (number, first), history, own[first : first + plan.seconds], true, unknown)

    def _film(
        self, rng: random.Random, scribe: Scribe, at: tuple[int, int], history: list[int], said: list[Ids],
        true: list[Ids], unknown: Container[int] = (),
    ) -> Example:  # fmt: skip
        number, first = at
        offset = first if rng.random() < 0.6 else int(10 ** rng.uniform(0, 5.5))
        turns = [
            Turn(float(offset + i), ids, right, (0.0,) * len(right) if i in unknown else scribe.weigh(right))
            for i, (ids, right) in enumerate(zip(said, true, strict=True))
        ]
        recording = self.recordings[number]
        assert recording.features is not None
        last = first + len(turns)
        return Example(
            lay_out(scribe.grammar, history, turns), recording.features[first:last], self.probes[number][first:last]
        )


def _history(rng: random.Random, scribe: Scribe, plan: Plan, recording: Recording, replies: list[Ids]) -> list[int]:
    text = plan.text if rng.random() >= plan.short else rng.choice((0, 16, 64, 128))
    return scribe.history(recording.context.text, replies, plan.sink, text)


assert COLOURS == ("green", "orange"), "the probes number the colours so"
