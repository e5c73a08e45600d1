"""The paper's cache: recent video, recent turns, a sink and a window of old words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

from ..errors import PolicyError
from ..spans import PREAMBLE, Kind, Piece, Role, Span
from .base import (
    EPS,
    CachePolicy,
    Feeding,
    HistoryKV,
    Positions,
    ReuseStates,
    Sizes,
    check_history_kv,
    check_positions,
    newest_query,
)


@dataclass(frozen=True, slots=True)
class StreamingWindow(CachePolicy):
    """The paper's cache: recent video, recent turns, and old words cut to a sink and a window (section 2.1).

    ``vision``: seconds of video that stay, the coming step included; ``turns``: seconds whose turns (time stamp and
    words) stay in place; ``sink`` and ``text``: how many of the first and of the last tokens of the history block
    stay.

    ``history_kv`` (beyond the paper): text that moves into the history block keeps the states that it was written with
    (``reuse``), behind pictures that are gone by then, or is prefilled once more behind the text before it
    (``recompute``): see :class:`ReuseStates`.
    """

    vision: float = 16.0
    turns: float = 16.0
    sink: int = 512
    text: int = 512
    positions: Positions = "contiguous"
    history_kv: HistoryKV = "reuse"

    def __post_init__(self) -> None:
        if not all(0 <= number < inf for number in (self.vision, self.turns, self.sink, self.text)):
            raise PolicyError("a window's numbers (vision, turns, sink, text) must be 0 or more, and finite")
        check_positions(self.positions)
        check_history_kv(self.history_kv)

    @property
    def feeding(self) -> Feeding:
        """See :attr:`CachePolicy.feeding`."""
        return ReuseStates(rearchive=self.history_kv == "recompute")

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
            elif span.turn == asked and self._instruction_stays() and span.kind in (Kind.MARKUP, Kind.QUERY):
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
        return self.sink or None

    def history(self, context: Sequence[int], replies: Sequence[Span]) -> list[int]:
        """See :meth:`CachePolicy.history`: cut as the stream's own replies will be. The context alone is not cut."""
        if not replies:
            return list(context)
        tokens = [*context, *(token for reply in replies for token in reply.tokens[: self._archived(reply)])]
        recent = self._recent()
        if len(tokens) <= self.sink + recent:
            return tokens
        return [*tokens[: self.sink], *tokens[len(tokens) - recent :]]

    def _most_turns(self, step: float) -> tuple[int, int]:
        """Most turns with words and most turns with video, the coming one included."""
        # The newest turn always stays: its last tokens may not be in the cache yet.
        return max(ceil(self.turns / step - EPS), 2), max(ceil(self.vision / step - EPS), 1)

    def _kept_turns(self, spans: Sequence[Span], now: float, step: float) -> tuple[set[int], set[int]]:
        """Turns whose words stay, and turns whose video stays."""
        starts = {span.turn: span.start for span in spans if span.kind is Kind.TIME}
        starts |= {span.turn: span.start for span in spans if span.kind is Kind.VISION}
        order = sorted(starts)
        text_most, vision_most = self._most_turns(step)
        text = [turn for turn in order if starts[turn] >= now - self.turns - EPS]
        vision = [turn for turn in order if starts[turn] >= now - self.vision - EPS]
        return {*last(text, text_most - 1), *order[-1:]}, set(last(vision, vision_most - 1))

    def _instruction_stays(self) -> bool:
        """Whether an instruction outlives the turn that it was given in."""
        return True

    def _archived(self, span: Span) -> int:
        """How many tokens of a reply move into the history."""
        return span.words

    def _recent(self) -> int:
        """How many of the last tokens of the history stay."""
        return self.text

    def _cut(self, history: Sequence[Piece]) -> list[Piece]:
        recent = self._recent()
        total = sum(piece.hi - piece.lo for piece in history)
        if total <= self.sink + recent:
            return list(history)
        return [*_slice(history, 0, self.sink), *_slice(history, total - recent, total)]


def last(items: Sequence[int], count: int) -> Sequence[int]:
    """The last ``count`` items (none if that is not above 0)."""
    return items[max(len(items) - count, 0) :] if count > 0 else []


def _slice(pieces: Sequence[Piece], lo: int, hi: int) -> list[Piece]:
    """The tokens ``lo:hi`` of the run that ``pieces`` make up."""
    out, offset = [], 0
    for piece in pieces:
        length = piece.hi - piece.lo
        first, last = max(lo - offset, 0), min(hi - offset, length)
        if first < last:
            out.append(Piece(piece.span, piece.lo + first, piece.lo + last, piece.kind, piece.role, piece.turn))
        offset += length
    return out
