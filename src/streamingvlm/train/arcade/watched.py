"""Films behind the states of a stream.

A chunk's previous text is computed from its ids. In a stream its words keep the states that they were said with, behind
pictures that are gone by then. So parts of recordings are watched with every word given, through the timeline, policy
and positions of inference, and films are cut out of them that stand behind what the stream's cache holds there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ...policy import StreamingWindow
from .decoder import Example
from .films import RECENT, Library, Plan, aligned, cut_words
from .layout import Ids
from .record import Recording
from .retell import retold
from .rollout import Rollout
from .stories import Scribe, contradicted, spoil, words

#: Seconds of a watched part before the first film that is cut out of it. With true words all that stand in a text
#: window have a stream's states by then; of what the model itself said there is less, and only the newest have.
FULL, WARM = 64, 24


@dataclass(frozen=True, slots=True)
class Watched:
    """A part of a recording as a stream whose words are given, and where films are cut out of it.

    ``number`` and ``first``: the recording's place in the library, and its second that the stream begins with.
    ``history``: ids in front of it; ``replies``: of each second; ``cuts``: first seconds of the films, in the stream;
    ``unknown``: seconds of the stream whose true words do not follow from those that are given.
    """

    recording: Recording
    number: int
    first: int
    history: list[int]
    replies: list[Ids]
    cuts: list[int]
    unknown: frozenset[int]


def part(
    rng: random.Random, scribe: Scribe, library: Library, name: str, plan: Plan, seconds: int, films: int
) -> Watched:
    """So many seconds of a recording with true or spoiled words, around a chunk as :meth:`Library.pick` finds it."""
    number, target = library.pick(rng, name, plan.seconds)
    room = seconds - plan.seconds
    first = target - rng.randint(min(FULL, room), room)
    first = min(max(first, 0), len(library.recordings[number]) - seconds)
    recording, habits = retold(rng, library.recordings[number], first), library.habits[name]
    low = max(first - RECENT, 0)
    span = recording.events[low : first + seconds]
    said = spoil(rng, habits, span, plan.spoil) if rng.random() < plan.spoiled else span
    told = [words(habits.game, events) for events in (*recording.events[:low], *said)]
    return _cut(rng, scribe, library, plan, (number, first, min(FULL, target - first)), recording, told, films)


def own_part(
    rng: random.Random, scribe: Scribe, library: Library, name: str, plan: Plan, seconds: int, films: int
) -> Watched:
    """What the model has watched by itself, with the words that it said."""
    number, own = library.pick_own(rng, name)
    told = own.texts[: own.first + seconds]
    return _cut(rng, scribe, library, plan, (number, own.first, WARM), own.recording, told, films)


def _cut(
    rng: random.Random, scribe: Scribe, library: Library, plan: Plan, at: tuple[int, int, int], recording: Recording,
    told: Sequence[str], films: int,
) -> Watched:  # fmt: skip
    """``at``: the recording's number, the first second that is watched, and how many come before the first film."""
    (number, first, warm), last = at, len(told) - plan.seconds
    replies = [scribe.reply(text) for text in told]
    history = cut_words(rng, scribe, replace(plan, short=0.0), recording, replies[:first])
    within = number, min(first + warm if first else 0, last), last
    places = {aligned(library.pick(rng, recording.name, plan.seconds, within)[1], plan) for _ in range(films)}
    cuts = sorted({max(place - first, 0) for place in places})
    unknown = frozenset(second - first for second in contradicted(recording.game, recording.events, told))
    return Watched(recording, number, first, history, replies[first:], cuts, unknown)


def watch(
    model: Any, scribe: Scribe, library: Library, policy: StreamingWindow, rng: random.Random, plan: Plan,
    parts: Sequence[Watched],
) -> dict[str, list[Example]]:  # fmt: skip
    """The films of these parts by game, in any order. Nothing is learnt through the states in front of them.

    All parts are of one length.
    """
    features = [_features(library, one) for one in parts]
    rollout = Rollout(model, scribe.grammar, policy, features, [one.history for one in parts])
    held = rollout.watch([one.replies for one in parts], [one.cuts for one in parts])
    films: dict[str, list[Example]] = {name: [] for name in library.games}
    for one, found in zip(parts, held, strict=True):
        for cut, (history, past) in found.items():
            span, unknown = one.replies[cut : cut + plan.seconds], {second - cut for second in one.unknown}
            at = one.number, one.first + cut
            film = library.film(rng, scribe, one.recording, at, history, span, unknown)
            films[one.recording.name].append(replace(film, past=past))
    for own in films.values():
        rng.shuffle(own)
    return films


def _features(library: Library, one: Watched) -> Tensor:
    features = library.recordings[one.number].features
    assert features is not None
    return features[one.first :]
