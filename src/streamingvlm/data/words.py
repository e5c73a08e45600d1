"""Timed words: the transcript of the commentary of a stream or a clip, and what was repaired in it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

#: Slack for comparing times that were added up as floats, seconds.
EPS = 1e-6


class Word(NamedTuple):
    """One word; ``start`` and ``end`` in seconds on the stream's clock."""

    start: float
    end: float
    text: str


class Repair(StrEnum):
    """What was wrong with the times of a word, and what was done about it."""

    REVERSED = "start after the end: the word starts at its end"
    CLAMPED = "end before an earlier word's end, by at most 1 s: moved up to it"
    UNTIMED = "a time missing or impossible: placed at the time that it has, or between its neighbours"
    OUT_OF_ORDER = "end more than 1 s out of order: the word was dropped"
    UNPLACED = "no time, and no other word has one: the word was dropped"


#: Repairs that lose the word.
LOSSES = frozenset({Repair.OUT_OF_ORDER, Repair.UNPLACED})


@dataclass(frozen=True, slots=True)
class Repairs:
    """Repairs of one transcript.

    ``read``: words read, those with empty text not counted. ``counts``: words by repair; a word that was kept may have
    several repairs, a word that was lost has one. ``first_lost``: the first word lost, with its times as read.
    """

    read: int = 0
    counts: Mapping[Repair, int] = field(default_factory=dict)
    first_lost: str = ""

    @property
    def lost(self) -> int:
        """Words that were dropped."""
        return sum(self.counts.get(repair, 0) for repair in LOSSES)


@dataclass(frozen=True, slots=True)
class Transcript:
    """The timed commentary of a stream or a clip, as an annotation file has it.

    ``words``: their ends never go back. ``start`` and ``end``: seconds on the words' clock that are told (None: to the
    end of the video). ``video``: as the file that it comes from names it. ``context``: what is known before (a
    title), ``previous``: what was said before ``start``, as text; ``query``: what was asked. ``whole``: it was cut
    by its makers. ``questions``: how many questions and answers stand beside the words; they are not used.
    ``repairs``: what was wrong with the times of the words as they were read.
    """

    video: str
    words: tuple[Word, ...]
    start: float = 0.0
    end: float | None = None
    context: str = ""
    previous: str = ""
    query: str = ""
    whole: bool = False
    questions: int = 0
    repairs: Repairs = field(default_factory=Repairs)

    def texts(self, start: float, steps: int, step: float) -> list[str]:
        """What is said in each of ``steps`` steps from ``start`` on: the words that end in it ("" for silence).

        A word that ends exactly between two steps belongs to the first of them; one that ends at or before
        ``start`` belongs to none.
        """
        said: list[list[str]] = [[] for _ in range(steps)]
        for word in self._ending(start, start + steps * step):
            index = min(max(math.ceil((word.end - start) / step - EPS) - 1, 0), steps - 1)
            said[index].append(word.text)
        return [" ".join(words) for words in said]

    def count(self, start: float, end: float) -> int:
        """Words that end after ``start`` and not after ``end``."""
        return len(self._ending(start, end))

    def _ending(self, start: float, end: float) -> Sequence[Word]:
        lo = 0 if start <= 0 else bisect_right(self.words, start + EPS, key=lambda word: word.end)
        return self.words[lo : bisect_right(self.words, end + EPS, key=lambda word: word.end)]


def spread(start: float, end: float, text: str) -> list[Word]:
    """The words of a segment, spread evenly over its time, as the paper does for edited sentences (section 2.3)."""
    parts = text.split()
    if len(parts) == 1:  # as nearly all lines have them
        return [Word(start, end, parts[0])]
    each = (end - start) / max(len(parts), 1)
    # The last word ends with the segment to the last bit: it must not slip into the next second.
    ends = [start + (i + 1) * each for i in range(len(parts) - 1)] + [end]
    return [Word(start + i * each, stop, part) for i, (part, stop) in enumerate(zip(parts, ends, strict=False))]
