"""The timeline's arrays are what plain lists of its tokens give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.core.positions import positions
from streamingvlm.core.spans import Kind, Piece, Role, Span
from streamingvlm.core.timeline import Timeline, token_array

START, PAD, END = 90, 91, 92


def text(*tokens: int, kind: Kind = Kind.COMMENTARY) -> Span:
    return Span(kind, Role.ASSISTANT, tokens, turn=1)


def block(t: int, h: int, w: int) -> Span:
    tokens = (START, *[PAD] * (t * h * w), END)
    return Span(Kind.VISION, Role.USER, tokens, turn=1, grid=(t, h, w), patch_seconds=0.7)


def keep(index: int, low: int, high: int) -> Piece:
    return Piece(index, low, high, Kind.COMMENTARY, Role.ASSISTANT, 1)


texts = st.lists(st.integers(0, 80), max_size=6).map(lambda tokens: text(*tokens))
blocks = st.builds(block, st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
timelines = st.lists(texts | blocks, max_size=12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(spans=timelines, data=st.data())
def test_arrays_are_what_lists_give(spans: list[Span], data: st.DataObject) -> None:
    timeline = Timeline(spans, data.draw(st.integers(0, sum(map(len, spans)))))
    tokens = [token for span in spans for token in span.tokens]
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, len(tokens))] * 2)))
    assert token_array(spans).tolist() == timeline.tokens == tokens
    assert timeline.distinct_tokens().tolist() == sorted(set(tokens))
    assert timeline.tokens_at(range(low, high)).tolist() == tokens[low:high]
    assert timeline.pending == tuple(tokens[timeline.cached :])
    for array in (token_array(spans), timeline.distinct_tokens(), timeline.tokens_at(range(low, high))):
        assert array.dtype == np.int64


@settings(max_examples=60, deadline=None, derandomize=True)
@given(spans=timelines, data=st.data())
def test_rows_that_stay_are_those_of_the_pieces(spans: list[Span], data: st.DataObject) -> None:
    """Pieces of some spans in another order, all of which have rows; the last span is pending and stays last."""
    serial = iter(range(1000))
    starts = [[next(serial) for _ in span.tokens] for span in spans]
    timeline = Timeline([*spans, text(1, 2)], sum(map(len, spans)))
    order = data.draw(st.permutations(range(len(spans))))
    order = order[: data.draw(st.integers(0, len(order)))]
    plan, wanted = [], []
    for index in order:
        span, low, high = spans[index], 0, len(spans[index])
        if span.grid is None:
            low, high = sorted(data.draw(st.tuples(*[st.integers(0, len(span))] * 2)))
        plan.append(Piece(index, low, high, span.kind, span.role, span.turn))
        wanted += starts[index][low:high]
    before = timeline.tokens
    rows = timeline.rearrange([*plan, keep(len(spans), 0, 2)])
    assert rows.dtype == np.int64
    assert rows.tolist() == wanted
    assert timeline.cached == len(wanted)
    assert timeline.tokens == [*(before[row] for row in wanted), 1, 2]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ([keep(0, 0, 2), keep(0, 1, 3)], "twice"),
        ([keep(1, 0, 2), keep(0, 0, 3), keep(1, 1, 2)], "twice"),
        ([keep(1, 0, 2), keep(0, 0, 1)], "pending"),
        ([keep(2, 0, 1), keep(1, 0, 1)], "pending"),
        ([keep(0, 1, 4)], "over the end"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(plan: list[Piece], message: str) -> None:
    timeline = Timeline([text(1, 2, 3), text(4, 5), text(6)], cached=4)
    with pytest.raises(AssertionError, match=message):
        timeline.rearrange(plan)
    assert (timeline.tokens, timeline.cached) == ([1, 2, 3, 4, 5, 6], 4)


def test_pending_tokens_may_go_and_those_that_stay_come_last() -> None:
    timeline = Timeline([text(1, 2, 3), text(4, 5, 6)], cached=4)
    assert timeline.rearrange([keep(0, 1, 3), keep(1, 0, 2)]).tolist() == [1, 2, 3]
    assert timeline.pending == (5,)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    spans=timelines,
    first=st.sampled_from([0.0, 0.3, 17.0, 5000.7]),
    per_second=st.sampled_from([None, 2.0, 1.3]),
)
def test_positions_count_token_by_token(spans: list[Span], first: float, per_second: float | None) -> None:
    wanted: list[list[np.float32]] = []
    here, run = first, 0
    for span in spans:
        if span.grid is None:
            wanted += [[np.float32(here) + np.float32(run + i)] * 3 for i in range(len(span))]
            run += len(span)
            continue
        wanted.append([np.float32(here) + np.float32(run)] * 3)
        start = np.float32(here + run + 1)
        time_step = np.float32(1.0 if per_second is None else span.patch_seconds * per_second)
        pads = [
            [np.float32(t) * time_step + start, np.float32(h) + start, np.float32(w) + start]
            for t, h, w in np.ndindex(*span.grid)
        ]
        wanted += pads
        here, run = float(np.max(pads)) + 1, 1
        wanted.append([np.float32(here)] * 3)
    got = positions(spans, per_second, first)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.array(wanted, np.float32).reshape(-1, 3).T)
