"""What a stream's token sequence is made of: typed spans, and the timeline that tells what the cache holds.

The grammar (``prompt.py``) makes spans, a policy (``policy/``) decides which pieces of them stay, and the
timeline turns that decision into row numbers. Nothing is ever found again by scanning tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What the tokens of a span say."""

    SYSTEM = "system"
    HISTORY = "history"
    QUERY = "query"
    TIME = "time"
    VISION = "vision"
    COMMENTARY = "commentary"
    MARKUP = "markup"


class Role(StrEnum):
    """The chat message that a span stands in. ``HISTORY`` is the block of old words ("previous text")."""

    SYSTEM = "system"
    HISTORY = "history"
    USER = "user"
    ASSISTANT = "assistant"


#: Turn number of everything that stands before the first turn: system prompt, history, standing instruction.
PREAMBLE = -1


@dataclass(frozen=True, slots=True)
class Span:
    """A run of tokens that was made together and means one thing.

    A ``VISION`` span is one whole block: the start mark, ``t * h * w`` pad tokens, the end mark, where ``grid`` =
    ``(t, h, w)`` counts *merged* patches and ``patch_seconds`` is the time that one step along ``t`` covers.
    ``start`` and ``end`` are seconds from the stream's start. ``words`` counts the leading tokens of a ``COMMENTARY``
    span that are words; the tokens behind them close the reply.
    """

    kind: Kind
    role: Role
    tokens: tuple[int, ...]
    turn: int = PREAMBLE
    start: float = 0.0
    end: float = 0.0
    grid: tuple[int, int, int] | None = None
    patch_seconds: float = 1.0
    words: int = 0

    def __post_init__(self) -> None:
        if self.grid is not None:
            t, h, w = self.grid
            assert len(self.tokens) == t * h * w + 2, "a vision span is its grid plus two marks"

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens ``lo:hi`` of span number ``span`` stay, and are of ``kind`` in ``role`` and ``turn`` from then on."""

    span: int
    lo: int
    hi: int
    kind: Kind
    role: Role
    turn: int = PREAMBLE

    @staticmethod
    def whole(index: int, span: Span) -> Piece:
        """The piece that keeps all of ``span`` as it is."""
        return Piece(index, 0, len(span), span.kind, span.role, span.turn)
