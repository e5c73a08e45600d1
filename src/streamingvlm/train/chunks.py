"""Timed words of a stream to overlapped training chunks (paper section 2.2).

A chunk is W seconds of video with the words that end in each of its seconds; all earlier commentary is its previous
text. Chunks overlap by O seconds, so that the model meets a fresh window in the middle of what was said before, as it
does in a stream that never ends. Published clips, cut by their makers, are one chunk each unless they are cut again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..core.errors import OptionError
from ..data.words import EPS, Transcript

#: Words that a chunk must have for each of its seconds, unless the plan says how many in all (paper: 2 W).
WORDS_PER_SECOND = 2.0


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a chunk lies in its stream: ``steps`` steps from ``start`` (seconds on the words' clock) on."""

    start: float
    steps: int
    words: int


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """How streams are cut.

    ``window`` and ``overlap``: seconds (W, O); 0 overlap cuts side by side. ``min_words``: words that a chunk needs
    (None: two per second of a window; at least one of a published clip). ``sink`` and ``text``: the first and the last
    tokens of the previous text that stay. ``step``: seconds of a turn. ``recut``: cut published clips into windows too.
    ``longest``: seconds beyond which a published clip is left out (None: no bound).

    Raises OptionError for numbers that do not fit together.
    """

    window: float = 24.0
    overlap: float = 12.0
    min_words: int | None = None
    sink: int = 512
    text: int = 512
    step: float = 1.0
    recut: bool = False
    longest: float | None = None

    def __post_init__(self) -> None:
        if not (0 < self.step < math.inf):
            raise OptionError(f"step must be a number of seconds above 0, not {self.step}")
        for name, value in (("window", self.window), ("overlap", self.overlap)):
            if not 0 <= value < math.inf or abs(value / self.step - round(value / self.step)) > EPS:
                raise OptionError(f"{name} must be a whole number of steps of {self.step:g} s, not {value:g} s")
        if not self.overlap < self.window:
            raise OptionError(f"overlap must be shorter than the window of {self.window:g} s, not {self.overlap:g} s")
        for name, count in (("min_words", self.min_words or 0), ("sink", self.sink), ("text", self.text)):
            if count < 0:
                raise OptionError(f"{name} must be 0 or more, not {count}")
        if self.longest is not None and not self.longest > 0:
            raise OptionError(f"longest must be a number of seconds above 0, not {self.longest}")

    def is_whole(self, transcript: Transcript) -> bool:
        """Whether ``transcript`` is one chunk as it is."""
        return transcript.whole and not self.recut

    def cuts(self, transcript: Transcript, until: float) -> Iterator[Cut]:
        """All chunks of ``transcript`` up to ``until``, also those with too few words; only whole windows.

        A published clip that does not end with a step gets one more, as the public code does.
        """
        if self.is_whole(transcript):
            steps = max(math.ceil((until - transcript.start) / self.step - EPS), 0)
            if steps:
                yield Cut(
                    transcript.start, steps, transcript.count(transcript.start, transcript.start + steps * self.step)
                )
            return
        stride = self.window - self.overlap
        for number in range(max(math.floor((until - transcript.start - self.window) / stride + EPS) + 1, 0)):
            start = transcript.start + number * stride
            yield Cut(start, round(self.window / self.step), transcript.count(start, start + self.window))

    def enough(self, transcript: Transcript, cut: Cut) -> bool:
        """Whether a chunk has the words that it needs."""
        if self.min_words is not None:
            return cut.words >= self.min_words
        return cut.words >= (1 if self.is_whole(transcript) else WORDS_PER_SECOND * self.window)


def earlier(transcript: Transcript, start: float, step: float) -> list[str]:
    """What is said before ``start``, by steps, in the form of :meth:`Transcript.texts`; the previous text of a chunk.

    Each item is one reply of the history. What a published clip has as its previous text has no times: it is one item.
    """
    steps = round((start - transcript.start) / step)
    texts = transcript.texts(transcript.start, steps, step) if steps > 0 else []
    return [transcript.previous, *texts] if transcript.previous else texts
