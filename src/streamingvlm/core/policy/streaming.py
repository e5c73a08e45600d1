"""The paper's cache: recent video, recent turns, a sink and a window of old words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import ClassVar

from ..errors import PolicyError
from ..spans import PREAMBLE, Kind, Piece, Role, Span
from .base import EPS, History, Positions, Sizes, check_history, check_positions, newest_query


@dataclass(frozen=True, slots=True)
class StreamingWindow:
    """The paper's cache: recent video, recent turns, and old words cut to a sink and a window (section 2.1).

    ``vision``: seconds of video that stay, the coming step included; ``turns``: seconds whose turns (time stamp and
    words) stay in place; ``sink`` and ``text``: how many of the first and of the last ids of the history block stay.

    ``history`` (beyond the paper): words that move into the history block either keep the states that they were said
    with, behind pictures that are gone by then, or are read once more, behind the words before them: see
    :meth:`CachePolicy.history`.

    With ``faithful`` the public code's rules hold bit by bit: windows count steps, the instruction goes with the
    first turn, two ids are cut from every reply that moves into the history, and the text window is one id short.
    """

    vision: float = 16.0
    turns: float = 16.0
    sink: int = 512
    text: int = 512
    positions: Positions = "contiguous"
    history: History = "reused"
    faithful: bool = False
    recompute: ClassVar[bool] = False
    frames: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if not all(0 <= number < inf for number in (self.vision, self.turns, self.sink, self.text)):
            raise PolicyError("a window's numbers (vision, turns, sink, text) must be 0 or more, and finite")
        check_positions(self.positions)
        check_history(self.history)
        if self.faithful and self.history != "reused":
            raise PolicyError("the faithful rules reuse the states of the history")
        if self.faithful and (self.turns < 1 or self.vision < 1 or self.text < 1):
            raise PolicyError("the faithful rules need vision, turns and text of at least 1")

    def plan(self, spans: Sequence[Span], now: float, step: float) -> list[Piece]:
        """See :meth:`CachePolicy.plan`."""
        text_turns, vision_turns = self._kept_turns(spans, now, step)
        newest, asked = newest_query(spans)
        preamble: list[Piece] = []
        history: list[Piece] = []
        standing: list[Piece] = []
        turns: list[Piece] = []
        for index, span in enumerate(spans):
            if span.kind is Kind.QUERY and index < newest:
                continue
            if span.turn == PREAMBLE and span.role is not Role.USER:
                (history if span.kind is Kind.HISTORY else preamble).append(Piece.whole(index, span))
            elif span.turn in text_turns:
                if span.kind is not Kind.VISION or span.turn in vision_turns:
                    turns.append(Piece.whole(index, span))
            elif span.role is Role.ASSISTANT:
                if span.kind is Kind.COMMENTARY:
                    history.append(Piece(index, 0, self._archived(span), Kind.HISTORY, Role.HISTORY))
            elif span.turn in vision_turns:
                if span.kind is not Kind.TIME:
                    turns.append(Piece.whole(index, span))
            elif span.turn == asked and not self.faithful and span.kind in (Kind.MARKUP, Kind.QUERY):
                standing.append(Piece(index, 0, len(span), span.kind, span.role))
        # The history's footer is the last piece of the preamble; old words go in front of it.
        return [*preamble[:-1], *self._cut(history), *preamble[-1:], *standing, *turns]

    def capacity(self, sizes: Sizes) -> int:
        """See :meth:`CachePolicy.capacity`."""
        text_turns, vision_turns = self._most_turns(sizes.step)
        history = max(self.sink + self.text, sizes.history)
        return (
            sizes.preamble
            + history
            + 2 * sizes.instruction
            + max(text_turns, vision_turns) * sizes.turn
            + text_turns * sizes.reply
            + vision_turns * sizes.vision
        )

    def context_budget(self) -> int | None:
        """See :meth:`CachePolicy.context_budget`: the context lives in the sink.

        Without a sink nothing is protected: the context is the oldest text, and goes with the text window.
        """
        return None if self.faithful or not self.sink else self.sink

    def seconds_left(self, watched: float) -> float | None:  # noqa: ARG002
        """See :meth:`CachePolicy.seconds_left`: a stream may go on for ever."""
        return None

    def _most_turns(self, step: float) -> tuple[int, int]:
        """Most turns with words and most turns with video, the coming one included."""
        length = 1.0 if self.faithful else step
        # The newest turn always stays: its last ids may not be in the cache yet.
        least = 1 if self.faithful else 2
        return (
            max(ceil(self.turns / length - EPS), least),
            max(ceil(self.vision / length - EPS), 1),
        )

    def _kept_turns(self, spans: Sequence[Span], now: float, step: float) -> tuple[set[int], set[int]]:
        """Turns whose words stay, and turns whose video stays."""
        starts = {span.turn: span.start for span in spans if span.kind is Kind.TIME}
        starts |= {span.turn: span.start for span in spans if span.kind is Kind.VISION}
        order = sorted(starts)
        if self.faithful:
            return set(_last(order, int(self.turns) - 1)), set(_last(order, int(self.vision) - 1))
        text_most, vision_most = self._most_turns(step)
        text = [turn for turn in order if starts[turn] >= now - self.turns - EPS]
        vision = [turn for turn in order if starts[turn] >= now - self.vision - EPS]
        return {*_last(text, text_most - 1), *order[-1:]}, set(_last(vision, vision_most - 1))

    def _archived(self, span: Span) -> int:
        """How many ids of a reply move into the history."""
        return max(len(span) - 2, 0) if self.faithful else span.words

    def _cut(self, history: Sequence[Piece]) -> list[Piece]:
        recent = self.text - 1 if self.faithful else self.text
        total = sum(piece.hi - piece.lo for piece in history)
        if total <= self.sink + recent:
            return list(history)
        return [*_slice(history, 0, self.sink), *_slice(history, total - recent, total)]


def _last(items: Sequence[int], count: int) -> Sequence[int]:
    return items[max(len(items) - count, 0) :] if count > 0 else []


def _slice(pieces: Sequence[Piece], lo: int, hi: int) -> list[Piece]:
    """The ids ``lo:hi`` of the run that ``pieces`` make up."""
    out, offset = [], 0
    for piece in pieces:
        length = piece.hi - piece.lo
        first, last = max(lo - offset, 0), min(hi - offset, length)
        if first < last:
            out.append(Piece(piece.span, piece.lo + first, piece.lo + last, piece.kind, piece.role, piece.turn))
        offset += length
    return out
