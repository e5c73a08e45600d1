"""What a cache policy is, and the sizes that it computes its bound from."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..errors import PolicyError
from ..spans import PREAMBLE, Kind, Piece, Role, Span

Positions = Literal["contiguous", "append"]
History = Literal["reused", "renewed"]

#: Slack for comparing times that were added up as floats, seconds.
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Sizes:
    """Upper bounds of one stream's parts, in ids; what a policy computes its capacity from.

    ``step`` is the length of one step in seconds, ``preamble`` the system prompt and all markup before the first
    turn, ``history`` the words that are in the history block when the stream opens, ``instruction`` the budget of
    the standing instruction (and of a question), ``turn`` a turn's markup and time stamp, ``vision`` the largest
    video block (of one step, or of a policy's ``frames``), ``reply`` the longest reply with its end of turn.
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

    @property
    def recompute(self) -> bool:
        """Whether every step feeds all that stays anew, frames included, instead of reusing its states."""
        ...

    @property
    def history(self) -> History:
        """``reused``: words that move into the history block keep the states that they were said with; ``renewed``:
        they get those that they have behind the words before them, without any picture, as in training."""
        ...

    @property
    def frames(self) -> int | None:
        """How many of the newest frames the video block of a step shows, at most; None: those of its chunk."""
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


def check_positions(positions: str) -> None:
    """Raise :class:`PolicyError` for a way of numbering that does not exist."""
    if positions not in ("contiguous", "append"):
        raise PolicyError(f"positions must be contiguous or append, not {positions!r}")


def check_history(history: str) -> None:
    """Raise :class:`PolicyError` for a kind of history that does not exist."""
    if history not in ("reused", "renewed"):
        raise PolicyError(f"history must be reused or renewed, not {history!r}")


def newest_query(spans: Sequence[Span]) -> tuple[int, int]:
    """Index and turn of the newest instruction; -1 and :data:`PREAMBLE` if there is none.

    Those before it were replaced. They go with the next step wherever they stand: a stream that is instructed in
    every step must not outgrow its bound, and never holds more than one instruction and the one that replaces it.
    """
    index = max((i for i, span in enumerate(spans) if span.kind is Kind.QUERY), default=-1)
    return index, spans[index].turn if index >= 0 else PREAMBLE


def keep_turns(spans: Sequence[Span], kept: Container[int]) -> list[Piece]:
    """The standing parts, then the whole turns whose numbers are in ``kept``.

    Standing parts: system prompt, history block, instruction. An instruction whose turn goes stands from then on as
    a message of its own.
    """
    newest, asked = newest_query(spans)
    before: list[Piece] = []
    standing: list[Piece] = []
    turns: list[Piece] = []
    for index, span in enumerate(spans):
        if span.kind is Kind.QUERY and index < newest:
            continue
        if span.turn == PREAMBLE and span.role is not Role.USER:
            before.append(Piece.whole(index, span))
        elif span.turn in kept:
            turns.append(Piece.whole(index, span))
        elif span.turn == asked and span.role is Role.USER and span.kind in (Kind.MARKUP, Kind.QUERY):
            standing.append(Piece(index, 0, len(span), span.kind, span.role))
    return [*before, *standing, *turns]
