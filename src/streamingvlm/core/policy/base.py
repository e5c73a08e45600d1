"""What a cache policy is, and the sizes that it computes its bound from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import PolicyError
from ..grammar import Grammar
from ..spans import PREAMBLE, Kind, Piece, Role, Span

Positions = Literal["contiguous", "append"]
HistoryKV = Literal["reuse", "recompute"]

#: Slack for comparing times that were added up as floats, seconds.
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Sizes:
    """Upper bounds of one stream's parts, in tokens; what a policy computes its capacity from.

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


@dataclass(frozen=True, slots=True)
class ReuseStates:
    """A step prefills the new turn alone; what stays keeps its states.

    ``rearchive`` (beyond the paper): text that moves into the history block is prefilled once more there, behind the
    text before it and without any picture, as in training.
    """

    rearchive: bool = False


@dataclass(frozen=True, slots=True)
class Recompute:
    """Every step prefills all that stays, frames included; no state is reused.

    ``frames``: how many of the newest frames the video block of a step shows, at most (None: those of its chunk).
    """

    frames: int | None = None


#: What a step prefills.
Feeding = ReuseStates | Recompute


class CachePolicy(ABC):
    """What stays in the cache of a stream, and how what stays is numbered and fed.

    ``positions``: ``contiguous`` numbers what stays anew at every step; ``append`` leaves every row its first position.
    """

    __slots__ = ()
    positions: Positions = "contiguous"

    @property
    def feeding(self) -> Feeding:
        """What a step prefills."""
        return ReuseStates()

    @abstractmethod
    def plan(self, spans: Sequence[Span], now: float, step: float) -> list[Piece]:
        """What stays, in order. ``now``: when the step about to come ends; ``step``: a step's length. Seconds."""

    @abstractmethod
    def capacity(self, sizes: Sizes) -> int:
        """Most rows a stream can ever hold."""

    def grammar(self, grammar: Grammar) -> Grammar:
        """The grammar of a stream under this policy, given the checkpoint's."""
        return grammar

    def context_budget(self) -> int | None:
        """Most tokens that a caller's context may have (None: no bound, it is never cut)."""
        return None

    def history(self, context: Sequence[int], replies: Sequence[Span]) -> list[int]:
        """Tokens of the history block of a stream that opens behind ``replies``, given those of the context."""
        return [*context, *(token for reply in replies for token in reply.tokens[: reply.words])]

    def seconds_left(self, watched: float) -> float | None:  # noqa: ARG002
        """Seconds of video that still fit when ``watched`` seconds have been seen (None: there is no end)."""
        return None


def check_positions(positions: str) -> None:
    """Raise :class:`PolicyError` for a way of numbering that does not exist."""
    if positions not in ("contiguous", "append"):
        raise PolicyError(f"positions must be contiguous or append, not {positions!r}")


def check_history_kv(history_kv: str) -> None:
    """Raise :class:`PolicyError` for a way of keeping the history that does not exist."""
    if history_kv not in ("reuse", "recompute"):
        raise PolicyError(f"history_kv must be reuse or recompute, not {history_kv!r}")


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
