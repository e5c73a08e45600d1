"""The turn that a stream is being shown, and what of it has to be prefilled. No tensors here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..core.events import Chunk, Timing
from ..core.positions import FloatArray, positions
from ..core.spans import Kind, Span
from ..core.timeline import IntArray, token_array

if TYPE_CHECKING:
    from ..models.patches import Patches

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PrefillInput:
    """What has to be prefilled now.

    ``tokens``: (n,) int64; ``pads``: (n,) bool, which are pads of video; ``positions``: (3, n) float32;
    ``patches``: one for every video block (or part of one) among them, in order; all of them have to be encoded.
    ``at``: the row of the first token, if they have rows already, to be written anew (None: behind all rows).
    """

    tokens: IntArray
    pads: BoolArray
    positions: FloatArray
    patches: list[Patches]
    at: int | None = None

    def split(self, most: int) -> list[PrefillInput]:
        """The same in pieces of at most ``most`` tokens, to be prefilled one behind the other; text alone."""
        assert not self.patches, "what is shown stays in one piece"
        assert self.at is None, "and so does what is written anew"
        return [
            PrefillInput(self.tokens[i : i + most], self.pads[i : i + most], self.positions[:, i : i + most], [])
            for i in range(0, len(self.tokens), most)
        ]


@dataclass(slots=True)
class OpenTurn:
    """The turn that is being shown: it grows by a part of the step's frames at a time, until the step is whole.

    ``before``: what was pending when it was opened, with the ``numbers`` (3, n) of its tokens; ``at``: the number
    of the turn's first span; ``first``: the position of its first token; ``fed``: how many tokens of all
    these have rows.
    """

    before: list[Span]
    numbers: FloatArray
    at: int
    first: float
    start: float
    fed: int = 0
    frames: int = 0
    patches: list[Patches] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    #: Work that was done for the parts so far.
    timing: Timing = field(default_factory=Timing)

    def add(self, chunk: Chunk, patches: Patches, times: Sequence[float]) -> None:
        """One more part."""
        if self.patches and self.patches[0].merged[1:] != patches.merged[1:]:
            raise ValueError("the frames of one step must be of one size")
        self.frames += len(chunk.frames)
        self.patches.append(patches)
        self.times += times

    @property
    def grid(self) -> tuple[int, int, int]:
        """The video block so far, in merged patches."""
        _, height, width = self.patches[0].merged
        return sum(part.merged[0] for part in self.patches), height, width

    def take_unfed(
        self, spans: list[Span], tokens_per_second: float | None, last: bool
    ) -> tuple[IntArray, BoolArray, FloatArray]:
        """What has no row yet: tokens, which of them are pads, and positions; then it counts as fed.

        ``spans``: those of the turn so far. It goes up to the last pad, or to the end if the ``last`` frame is in.
        """
        every = [*self.before, *spans]
        tokens = token_array(every)
        numbers = np.concatenate([self.numbers, positions(spans, tokens_per_second, self.first)], axis=1)
        pads = np.zeros(len(tokens), np.bool_)
        at = 0
        for span in every:
            if span.kind is Kind.VISION:
                pads[at + 1 : at + len(span) - 1] = True
            at += len(span)
        there = slice(self.fed, len(tokens) if last else int(pads.nonzero()[0][-1]) + 1)
        self.fed = there.stop
        return tokens[there], pads[there], numbers[:, there]
