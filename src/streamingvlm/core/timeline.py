"""The timeline of a stream: which spans it has, and how many of their tokens have rows in the cache.

A policy decides which pieces of the spans stay; the timeline turns that decision into row numbers. Nothing is ever
found again by scanning tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .spans import Kind, Piece, Role, Span

IntArray = NDArray[np.int64]


@dataclass(slots=True)
class Timeline:
    """The only truth about what a stream's cache holds: its spans, in order, and how many of their tokens have rows.

    The tokens behind row ``cached - 1`` are *pending*: they are part of the text but not yet in the cache (the last
    sampled token, a forced end of turn, a turn about to be fed). Pending tokens always stand at the end.
    """

    spans: list[Span] = field(default_factory=list)
    cached: int = 0

    def __len__(self) -> int:
        return sum([len(span.tokens) for span in self.spans])  # asked for every token: without a call for each span

    @property
    def tokens(self) -> list[int]:
        """All tokens, those in the cache first."""
        return [token for span in self.spans for token in span.tokens]

    @property
    def pending(self) -> tuple[int, ...]:
        """Tokens that belong to the text but have no row yet."""
        return tuple(self.tokens_at(range(self.cached, len(self))).tolist())

    def tokens_at(self, rows: range) -> IntArray:
        """The tokens of neighbouring rows: (n,) int64."""
        out: list[int] = []
        at = 0
        for span in self.spans:
            if rows.start < at + len(span) and at < rows.stop:
                out += span.tokens[max(rows.start - at, 0) : rows.stop - at]
            at += len(span)
        return np.array(out, np.int64)

    def distinct_tokens(self) -> IntArray:
        """Every token that occurs, once, in ascending order: (n,) int64.

        A vision block is one pad over and over, so its thousands of tokens are not looked at one by one.
        """
        distinct: set[int] = set()
        for span in self.spans:
            distinct.update(span.tokens if span.grid is None else (*span.tokens[:2], span.tokens[-1]))
        return np.array(sorted(distinct), np.int64)

    def pending_spans(self) -> list[Span]:
        """The pending tokens as spans; the first may be the tail of a commentary."""
        out: list[Span] = []
        left = len(self) - self.cached
        for span in reversed(self.spans):
            if left <= 0:
                break
            take = min(left, len(span))
            whole = take == len(span)
            out.append(span if whole else replace(span, tokens=span.tokens[-take:], words=0))
            left -= take
        return out[::-1]

    @property
    def rows_by_kind(self) -> dict[Kind, int]:
        """How many tokens (with or without a row) there are of each kind."""
        counts: Counter[Kind] = Counter()
        for span in self.spans:
            counts[span.kind] += len(span)
        return dict(counts)

    def append(self, *spans: Span) -> None:
        """Put spans behind what is there; their tokens are pending until :meth:`commit`."""
        self.spans.extend(span for span in spans if span.tokens)

    def replace_last(self, span: Span) -> None:
        """Put ``span`` in the place of the last one, which it continues (a commentary that is being written)."""
        last = self.spans[-1]
        assert span.tokens[: len(last)] == last.tokens, "the last span may only grow"
        self.spans[-1] = span

    def replace_from(self, first: int, spans: Sequence[Span]) -> None:
        """Put ``spans`` in the place of those from number ``first`` on; tokens that have rows must stay."""
        before = sum(map(len, self.spans[:first]))
        held = self.cached - before
        if held > 0:
            old, new = (
                [token for span in part for token in span.tokens[:held]] for part in (self.spans[first:], spans)
            )
            assert old[:held] == new[:held], "what is in the cache cannot be written anew"
        self.spans[first:] = [span for span in spans if span.tokens]

    def commit(self, count: int) -> None:
        """Say that the first ``count`` pending tokens have rows now."""
        self.cached += count
        assert self.cached <= len(self), "more rows than tokens"

    def forget(self) -> None:
        """Say that no token has a row any more: all of them are pending, to be fed anew."""
        self.cached = 0

    def rearrange(self, plan: Sequence[Piece]) -> IntArray:
        """Keep the pieces of ``plan`` in its order and return the source row of every row that stays: (rows,) int64.

        Pending tokens may be dropped; those that stay must still stand behind everything that has a row.
        """
        rows = _rows(self.spans, plan, self.cached)
        spans: list[Span] = []
        for piece in plan:
            span = self.spans[piece.span]
            assert 0 <= piece.lo <= piece.hi <= len(span), "a piece reaches over the end of its span"
            if piece.lo == piece.hi:
                continue
            whole = piece.hi - piece.lo == len(span)
            assert whole or span.grid is None, "a vision block stays whole or goes"
            kept = span
            if not whole or (piece.kind, piece.role, piece.turn) != (span.kind, span.role, span.turn):
                tokens = span.tokens[piece.lo : piece.hi]
                kept = replace(span, kind=piece.kind, role=piece.role, turn=piece.turn, tokens=tokens)
            if kept.kind is Kind.HISTORY and spans and spans[-1].kind is Kind.HISTORY:
                # Old words are one run: thousands of steps must not leave thousands of spans.
                spans[-1] = replace(spans[-1], tokens=spans[-1].tokens + kept.tokens, end=span.end)
            else:
                spans.append(kept)
        self.spans, self.cached = spans, len(rows)
        return rows


def token_array(spans: Sequence[Span]) -> IntArray:
    """The n tokens of ``spans``: (n,) int64. A vision block is one pad over and over, so it is filled in at once."""
    out = np.empty(sum(map(len, spans)), np.int64)
    at = 0
    for span in spans:
        there = out[at : at + len(span)]
        if span.grid is None:
            there[:] = span.tokens
        else:
            there[0], there[1:-1], there[-1] = span.tokens[0], span.tokens[1], span.tokens[-1]
        at += len(span)
    return out


def newly_archived(spans: Sequence[Span], plan: Sequence[Piece]) -> range:
    """Where the words that a plan moves into the history block will stand, and what closes that block: as tokens."""
    first, at = None, 0
    for piece in plan:
        moved = piece.kind is Kind.HISTORY and spans[piece.span].kind is not Kind.HISTORY
        if first is None and moved and piece.hi > piece.lo:
            first = at
        if first is not None and piece.role is not Role.HISTORY:
            break
        at += piece.hi - piece.lo
    return range(at if first is None else first, at)


def _rows(spans: Sequence[Span], plan: Sequence[Piece], cached: int) -> IntArray:
    """The rows of the pieces of ``plan``, in its order; only the first ``cached`` tokens of ``spans`` have one."""
    starts = _offsets(spans)
    runs: list[tuple[int, int]] = []  # first token, behind the last
    for piece in plan:
        low, high = starts[piece.span] + piece.lo, starts[piece.span] + piece.hi
        if runs and runs[-1][1] == low:
            runs[-1] = (runs[-1][0], high)
        elif low < high:
            runs.append((low, high))
    ordered = sorted(runs)
    assert all(one[1] <= other[0] for one, other in pairwise(ordered)), "a plan may not keep a token twice"
    whole = next((i for i, (_, high) in enumerate(runs) if high > cached), len(runs))
    assert all(low >= cached for low, _ in runs[whole + 1 :]), "a pending token may not move in front of a cached one"
    parts = [np.arange(low, min(high, cached), dtype=np.int64) for low, high in runs[: whole + 1] if low < cached]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _offsets(spans: Iterable[Span]) -> list[int]:
    offsets, total = [], 0
    for span in spans:
        offsets.append(total)
        total += len(span)
    return offsets
