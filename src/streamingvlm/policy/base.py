"""What a cache policy is, and the sizes that it computes its bound from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..spans import Piece, Span

Positions = Literal["contiguous", "append"]

#: Slack for comparing times that were added up as floats, seconds.
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Sizes:
    """Upper bounds of one stream's parts, in ids; what a policy computes its capacity from.

    ``step`` is the length of one step in seconds, ``preamble`` the system prompt and all markup before the first
    turn, ``history`` the words that are in the history block when the stream opens, ``instruction`` the budget of
    the standing instruction (and of a question), ``turn`` a turn's markup and time stamp, ``vision`` the largest
    video block of a step, ``reply`` the longest reply with its end of turn.
    """

    step: float
    preamble: int
    history: int
    instruction: int
    turn: int
    vision: int
    reply: int


class CachePolicy(Protocol):
    """What the engine needs of a policy."""

    @property
    def positions(self) -> Positions:
        """``contiguous``: survivors are numbered anew at every step; ``append``: a row keeps its first position."""
        ...

    @property
    def faithful(self) -> bool:
        """Whether the stream follows the public code bit by bit (see docs/differences.md)."""
        ...

    def plan(self, spans: Sequence[Span], now: float, step: float) -> list[Piece]:
        """What stays, in order. ``now``: when the step about to come ends; ``step``: a step's length. Seconds."""
        ...

    def capacity(self, sizes: Sizes) -> int:
        """Most rows a stream can ever hold."""
        ...

    def context_budget(self) -> int | None:
        """Most ids that a caller's context may have (None: no bound)."""
        ...

    def seconds_left(self, watched: float) -> float | None:
        """Seconds of video that still fit when ``watched`` seconds have been seen (None: there is no end)."""
        ...
