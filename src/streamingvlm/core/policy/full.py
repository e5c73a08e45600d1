"""Full attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

from ..errors import PolicyError
from ..grammar import Grammar
from ..spans import PREAMBLE, Piece, Span
from .base import EPS, CachePolicy, Positions, Sizes, check_positions, keep_turns


@dataclass(frozen=True, slots=True)
class KeepAll(CachePolicy):
    """Full attention: nothing is ever evicted, so the stream ends after ``seconds``.

    Only an instruction that was replaced goes: the bound could not hold otherwise.
    """

    seconds: float = 600.0
    positions: Positions = "contiguous"

    def __post_init__(self) -> None:
        if not 0 < self.seconds < inf:
            raise PolicyError("full attention needs to know for how many seconds: seconds must be above 0")
        check_positions(self.positions)

    def plan(self, spans: Sequence[Span], now: float, step: float) -> list[Piece]:  # noqa: ARG002
        """See :meth:`CachePolicy.plan`."""
        return keep_turns(spans, {span.turn for span in spans} - {PREAMBLE})

    def capacity(self, sizes: Sizes) -> int:
        """See :meth:`CachePolicy.capacity`."""
        steps = ceil(self.seconds / sizes.step - EPS)
        start = sizes.preamble + sizes.history + 2 * sizes.instruction
        return start + steps * (sizes.turn + sizes.vision + sizes.reply)

    def seconds_left(self, watched: float) -> float | None:
        """See :meth:`CachePolicy.seconds_left`."""
        return self.seconds - watched


@dataclass(frozen=True, slots=True)
class PlainChat(KeepAll):
    """One message with all its frames, as the checkpoint's own chat template lays it out: offline question answering.

    ``seconds``: that the message's video covers. No block of old words and, in families that stamp no frames, no time.
    """

    def grammar(self, grammar: Grammar) -> Grammar:
        """See :meth:`CachePolicy.grammar`."""
        return grammar.of_plain_chat()
