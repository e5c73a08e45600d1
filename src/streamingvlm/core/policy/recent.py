"""The newest frames and nothing else: the baseline that streaming methods have to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import PolicyError
from ..spans import Piece, Span
from .base import CachePolicy, Feeding, Recompute, Sizes, keep_turns


@dataclass(frozen=True, slots=True)
class RecentFrames(CachePolicy):
    """Every step sees the standing parts and the newest ``frames`` frames, and no earlier word (arXiv 2604.02317).

    The frames are one video block of the step's turn, whatever their number per step, stamped from the first of them
    to the end of the step. A number that does not fill the checkpoint's temporal patches has its last frame repeated,
    as a short chunk has. Nothing is reused from step to step.

    Raises :class:`PolicyError` for less than one frame.
    """

    frames: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.frames, int) or self.frames < 1:
            raise PolicyError(f"frames must be a whole number of at least 1, not {self.frames}")

    @property
    def feeding(self) -> Feeding:
        """See :attr:`CachePolicy.feeding`."""
        return Recompute(self.frames)

    def plan(self, spans: Sequence[Span], now: float, step: float) -> list[Piece]:  # noqa: ARG002
        """See :meth:`CachePolicy.plan`: every turn goes, the coming one brings all frames along."""
        return keep_turns(spans, ())

    def history(self, context: Sequence[int], replies: Sequence[Span]) -> list[int]:  # noqa: ARG002
        """See :meth:`CachePolicy.history`: no earlier word is seen."""
        return list(context)

    def capacity(self, sizes: Sizes) -> int:
        """See :meth:`CachePolicy.capacity`."""
        standing = sizes.preamble + sizes.history + 2 * sizes.instruction
        return standing + sizes.turn + sizes.vision + sizes.reply
