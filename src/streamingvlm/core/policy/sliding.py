"""Sliding windows that the paper compares with: without overlap (start again) and with it (recompute everything)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

from ..errors import PolicyError
from ..spans import PREAMBLE, Kind, Piece, Span
from .base import EPS, CachePolicy, Feeding, Positions, Recompute, Sizes, check_positions, keep_turns
from .streaming import StreamingWindow


@dataclass(frozen=True, slots=True)
class SlidingReset(CachePolicy):
    """Sliding window without overlap (paper, figure 1): full attention that starts again.

    The cache grows for ``seconds`` of video; the step that would not fit any more finds nothing but the standing
    parts: system prompt, the caller's context, the instruction. With contiguous positions the tokens and positions from
    there on are those of a fresh stream; with ``append`` positions go on counting. An instruction that was given in
    mid-stream keeps the states that it was computed with.

    Raises :class:`PolicyError` for ``seconds`` that are not above 0 and finite.
    """

    seconds: float = 100.0
    positions: Positions = "contiguous"

    def __post_init__(self) -> None:
        if not 0 < self.seconds < inf:
            raise PolicyError(f"a sliding window starts again after some seconds: above 0, not {self.seconds:g}")
        check_positions(self.positions)

    def plan(self, spans: Sequence[Span], now: float, step: float) -> list[Piece]:
        """See :meth:`CachePolicy.plan`."""
        starts = [span.start for span in spans if span.kind is Kind.TIME]
        full = bool(starts) and (now - starts[0] > self.seconds + EPS or len(starts) >= self._most_turns(step))
        return keep_turns(spans, () if full else {span.turn for span in spans} - {PREAMBLE})

    def capacity(self, sizes: Sizes) -> int:
        """See :meth:`CachePolicy.capacity`."""
        standing = sizes.preamble + sizes.history + 2 * sizes.instruction
        return standing + self._most_turns(sizes.step) * (sizes.turn + sizes.vision + sizes.reply)

    def _most_turns(self, step: float) -> int:
        # Times alone would not bound the turns: a chunk may be shorter than a step.
        return max(ceil(self.seconds / step - EPS), 1)


@dataclass(frozen=True, slots=True)
class SlidingRecompute(CachePolicy):
    """Sliding window with overlap (paper, figure 1): the streaming window's layout, nothing reused.

    What stays, and at which positions, is what :class:`StreamingWindow` with the same ``vision``, ``turns``
    (seconds), ``sink`` and ``text`` (tokens) keeps. But every step encodes all retained frames and prefills all
    retained tokens anew, so states depend on nothing that is not there any more, as in training. The patches of
    the retained frames stay in the session: 16 s at 2 frames a second of 720p are 0.2 GB of host memory.

    Raises :class:`PolicyError` for negative or infinite numbers.
    """

    vision: float = 16.0
    turns: float = 16.0
    sink: int = 512
    text: int = 512

    def __post_init__(self) -> None:
        _ = self.layout

    @property
    def feeding(self) -> Feeding:
        """See :attr:`CachePolicy.feeding`."""
        return Recompute()

    @property
    def layout(self) -> StreamingWindow:
        """The policy whose layout this one shows."""
        return StreamingWindow(self.vision, self.turns, self.sink, self.text)

    def plan(self, spans: Sequence[Span], now: float, step: float) -> list[Piece]:
        """See :meth:`CachePolicy.plan`."""
        return self.layout.plan(spans, now, step)

    def history(self, context: Sequence[int], replies: Sequence[Span]) -> list[int]:
        """See :meth:`CachePolicy.history`."""
        return self.layout.history(context, replies)

    def capacity(self, sizes: Sizes) -> int:
        """See :meth:`CachePolicy.capacity`."""
        return self.layout.capacity(sizes)

    def context_budget(self) -> int | None:
        """See :meth:`CachePolicy.context_budget`: the context lives in the sink."""
        return self.layout.context_budget()
