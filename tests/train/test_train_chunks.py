"""Timed words to overlapped chunks: every word once, in the second in which it ends."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamingvlm.core.errors import OptionError
from streamingvlm.data.words import Transcript, Word, spread
from streamingvlm.train.chunks import ChunkPlan, Cut, earlier
from streamingvlm.train.layout import cut, cut_history


def transcript(*words: tuple[float, float, str], **more: object) -> Transcript:
    return replace(Transcript("a.mp4", tuple(Word(*word) for word in words)), **more)


def dense(seconds: int, per_second: int = 3) -> Transcript:
    """Words all the time, the last of each second ending with it."""
    return Transcript("a.mp4", tuple(w for s in range(seconds) for w in spread(s, s + 1, "w " * per_second)))


def test_cutting_and_reading_need_no_torch() -> None:
    code = "import sys, streamingvlm.data.annotations, streamingvlm.data.videos; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_word_belongs_to_the_second_in_which_it_ends() -> None:
    told = transcript((0.2, 0.9, "one"), (0.9, 1.0, "two"), (0.9, 1.1, "three"), (3.5, 4.0, "four"))
    assert told.texts(0.0, 5, 1.0) == ["one two", "three", "", "four", ""]
    assert told.texts(1.0, 3, 1.0) == ["three", "", "four"]
    assert told.texts(0.0, 2, 2.0) == ["one two three", "four"]
    assert told.count(0.0, 1.0) == 2
    assert told.count(1.0, 4.0) == 2


def test_a_word_at_the_very_start_is_said_in_the_first_second() -> None:
    assert transcript((0.0, 0.0, "now")).texts(0.0, 1, 1.0) == ["now"]


def test_a_segment_is_spread_evenly_and_ends_with_its_time() -> None:
    assert spread(12.0, 14.0, "a b  c d") == [
        Word(12.0, 12.5, "a"), Word(12.5, 13.0, "b"), Word(13.0, 13.5, "c"), Word(13.5, 14.0, "d"),
    ]  # fmt: skip
    assert spread(1.0, 2.0, "  ") == []
    # A third of a second three times is not a second in floating point.
    words = spread(0.1 + 0.2, 1.0, "a b c")
    assert words[-1].end == 1.0
    assert Transcript("a", tuple(words)).texts(0.0, 2, 1.0) == ["a b c", ""]


def test_windows_step_by_window_less_overlap_and_are_whole() -> None:
    cuts = list(ChunkPlan().cuts(dense(61), 61.0))
    assert [one.start for one in cuts] == [0.0, 12.0, 24.0, 36.0]
    assert {one.steps for one in cuts} == {24}
    assert [one.start for one in ChunkPlan(overlap=0).cuts(dense(61), 61.0)] == [0.0, 24.0]
    assert list(ChunkPlan().cuts(dense(23), 23.9)) == []
    assert len(list(ChunkPlan().cuts(dense(24), 24.0))) == 1


def test_steps_other_than_a_second() -> None:
    plan = ChunkPlan(window=6.0, overlap=3.0, step=1.5, min_words=0)
    assert [(one.start, one.steps) for one in plan.cuts(dense(12), 12.0)] == [(0.0, 4), (3.0, 4), (6.0, 4)]


def test_a_chunk_needs_two_words_a_second() -> None:
    told = dense(24, 2)
    (one,) = ChunkPlan().cuts(told, 24.0)
    assert one.words == 48
    assert ChunkPlan().enough(told, one)
    assert not ChunkPlan().enough(told, replace(one, words=47))
    assert ChunkPlan(min_words=0).enough(told, replace(one, words=0))
    assert not ChunkPlan(min_words=49).enough(told, one)


def test_a_published_clip_is_one_chunk_unless_it_is_cut_again() -> None:
    clip = replace(dense(70), start=8.25, end=63.0, whole=True)
    assert [(one.start, one.steps) for one in ChunkPlan().cuts(clip, 63.0)] == [(8.25, 55)]
    assert [one.start for one in ChunkPlan(recut=True).cuts(clip, 63.0)] == [8.25, 20.25, 32.25]
    # One word is enough: what is published was chosen by its makers.
    assert ChunkPlan().enough(clip, Cut(8.25, 55, 1))
    assert not ChunkPlan().enough(clip, Cut(8.25, 55, 0))
    assert not ChunkPlan(recut=True).enough(clip, Cut(8.25, 24, 1))


def test_what_was_said_before_is_in_the_form_of_replies() -> None:
    told = transcript((0.0, 0.5, "one"), (2.0, 2.5, "two"), (3.0, 3.5, "three"))
    assert earlier(told, 3.0, 1.0) == ["one", "", "two"]
    assert earlier(told, 0.0, 1.0) == []
    assert earlier(replace(told, previous="long ago"), 1.0, 1.0) == ["long ago", "one"]


@given(
    st.lists(st.floats(0, 100, allow_nan=False), max_size=40).map(sorted),
    st.integers(1, 40),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_every_word_is_said_exactly_once(ends: list[float], steps: int, step: float) -> None:
    told = Transcript("a", tuple(Word(0.0, end, str(i)) for i, end in enumerate(ends)))
    whole = " ".join(told.texts(0.0, int(101 / step), step)).split()
    assert whole == [str(i) for i in range(len(ends))]
    before, after = earlier(told, steps * step, step), told.texts(steps * step, int(101 / step), step)
    assert " ".join([*before, *after]).split() == whole


@given(
    st.lists(st.integers(), max_size=9), st.lists(st.lists(st.integers(), max_size=4), max_size=12),
    st.integers(0, 8), st.integers(0, 8),
)  # fmt: skip
def test_the_lazy_cut_is_the_cut(head: list[int], parts: list[list[int]], sink: int, text: int) -> None:
    whole = [*head, *(token for part in parts for token in part)]
    assert cut_history(head, parts, lambda part: part, sink, text) == cut(whole, sink, text)


def test_the_lazy_cut_looks_at_no_more_than_it_needs() -> None:
    looked: list[int] = []

    def ids(part: int) -> list[int]:
        looked.append(part)
        return [part]

    assert cut_history([], range(10_000), ids, 3, 2) == [0, 1, 2, 9998, 9999]
    assert len(looked) < 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0.0}, {"window": 24.0, "overlap": 24.0}, {"overlap": -1.0}, {"window": 24.5}, {"overlap": 0.5},
        {"min_words": -1}, {"sink": -1}, {"text": -1}, {"step": 0.0}, {"longest": 0.0}, {"window": float("inf")},
        {"step": float("nan")},
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(reversed(wrong))):
        ChunkPlan(**wrong)
