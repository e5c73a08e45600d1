"""The public code's own behaviour, bit by bit, where it differs from the paper (see docs/differences.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from ..errors import PolicyError
from ..grammar import Grammar
from ..spans import Kind, Span
from .base import EPS, Feeding, ReuseStates
from .full import KeepAll
from .streaming import StreamingWindow, last


@dataclass(frozen=True, slots=True)
class PublicCode(StreamingWindow):
    """The streaming window by the public code's rules.

    Windows count steps; the instruction goes with the first turn; two tokens are cut from every reply that moves into
    the history; the text window is one token short; a temporal patch counts as one second whatever the frame rate.
    Raises :class:`PolicyError` for windows below 1 and for ``history_kv`` other than ``reuse``.
    """

    def __post_init__(self) -> None:
        # No zero-argument super: slots make the class anew.
        StreamingWindow.__post_init__(self)
        if self.history_kv != "reuse":
            raise PolicyError("the public code's rules reuse the states of the history")
        if self.turns < 1 or self.vision < 1 or self.text < 1:
            raise PolicyError("the public code's rules need vision, turns and text of at least 1")

    @property
    def feeding(self) -> Feeding:
        """See :attr:`CachePolicy.feeding`."""
        return ReuseStates()

    def grammar(self, grammar: Grammar) -> Grammar:
        """See :meth:`CachePolicy.grammar`."""
        return grammar.of_public_code()

    def context_budget(self) -> int | None:
        """See :meth:`CachePolicy.context_budget`."""
        return None

    def _most_turns(self, step: float) -> tuple[int, int]:  # noqa: ARG002
        return max(ceil(self.turns - EPS), 1), max(ceil(self.vision - EPS), 1)

    def _kept_turns(self, spans: Sequence[Span], now: float, step: float) -> tuple[set[int], set[int]]:  # noqa: ARG002
        order = sorted({span.turn for span in spans if span.kind in (Kind.TIME, Kind.VISION)})
        return set(last(order, int(self.turns) - 1)), set(last(order, int(self.vision) - 1))

    def _instruction_stays(self) -> bool:
        return False

    def _archived(self, span: Span) -> int:
        return max(len(span) - 2, 0)

    def _recent(self) -> int:
        return self.text - 1


@dataclass(frozen=True, slots=True)
class PublicCodeKeepAll(KeepAll):
    """Full attention over a stream that is laid out as the public code lays it out."""

    def grammar(self, grammar: Grammar) -> Grammar:
        """See :meth:`CachePolicy.grammar`."""
        return grammar.of_public_code()
