"""Times of words that cannot be right are repaired and counted; a transcript that loses too many words is refused."""

from __future__ import annotations

import itertools
import json
import math
import pkgutil
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamingvlm.data
from streamingvlm.core.grammar import LONGEST_STREAM
from streamingvlm.data.annotations import parse
from streamingvlm.data.repair import MAX_LOST_SHARE, SLACK, TimedText, repair
from streamingvlm.data.report import NAMED, Reason, Report, Unusable
from streamingvlm.data.words import Repair, Repairs, Word
from support.train_data import conversation

NAN, INF = math.nan, math.inf


def repaired(*rows: tuple[float | None, float | None, str]) -> tuple[list[tuple[float, float, str]], dict[Repair, int]]:
    words, repairs = repair([TimedText(*row) for row in rows])
    assert len(words) + repairs.lost == repairs.read
    return [tuple(word) for word in words], dict(repairs.counts)


def seconds(count: int) -> list[list[Any]]:
    """A word in each of so many seconds."""
    return [[float(i), i + 0.5, f"w{i}"] for i in range(count)]


def line(content: list[Any]) -> bytes:
    return json.dumps({"video": "a.mp4", "content": content}).encode()


def test_good_times_are_left_as_they_are() -> None:
    rows = [(0.0, 0.4, "one"), (0.4, 0.4, "two"), (0.2, 0.9, "three")]
    assert repaired(*rows) == (rows, {})
    assert repaired() == ([], {})
    # The same beside a word that is repaired.
    assert repaired(*rows, (5.0, 4.0, "four")) == ([*rows, (4.0, 4.0, "four")], {Repair.REVERSED: 1})
    assert repaired((5.0, 1.0, " "), (None, None, ""), (0.0, 1.0, "one")) == ([(0.0, 1.0, "one")], {})


def test_a_start_after_its_end_becomes_the_end() -> None:
    words, counts = repaired((0.0, 1.0, "one"), (2.3, 2.0, "two"), (9.0, 3.0, "three four"))
    assert words == [(0.0, 1.0, "one"), (2.0, 2.0, "two"), (3.0, 3.0, "three"), (3.0, 3.0, "four")]
    assert counts == {Repair.REVERSED: 3}


def test_an_end_that_goes_back_by_a_second_is_moved_up_and_one_further_back_dropped() -> None:
    words, counts = repaired((0.0, 3.0, "one"), (1.5, 2.0, "two"), (1.0, 1.999, "three"), (3.0, 4.0, "four"))
    assert words == [(0.0, 3.0, "one"), (1.5, 3.0, "two"), (3.0, 4.0, "four")]
    assert counts == {Repair.CLAMPED: 1, Repair.OUT_OF_ORDER: 1}


def test_words_that_jump_back_together_are_dropped_together() -> None:
    rows = [(float(i), i + 0.5, f"w{i}") for i in range(40)]
    back = [(10.0 + i, 10.5 + i, "again") for i in range(5)]
    words, counts = repaired(*rows, *back, (40.0, 40.5, "on"))
    assert words == [*rows, (40.0, 40.5, "on")]
    assert counts == {Repair.OUT_OF_ORDER: 5}


def test_one_end_that_is_far_too_late_does_not_cost_the_rest() -> None:
    rows = [(float(i), i + 0.5, f"w{i}") for i in range(40)]
    rows[7] = (7.0, 7007.5, "late")
    words, counts = repaired(*rows)
    assert words == rows[:7] + rows[8:]
    assert counts == {Repair.OUT_OF_ORDER: 1}


def test_of_two_words_that_contradict_each_other_the_later_is_dropped() -> None:
    assert repaired((0.0, 9.0, "a"), (1.0, 2.0, "b")) == ([(0.0, 9.0, "a")], {Repair.OUT_OF_ORDER: 1})


@pytest.mark.parametrize("none", [None, NAN, INF, -INF, -0.5, 2 * LONGEST_STREAM])
def test_a_word_without_times_stands_between_its_neighbours(none: float | None) -> None:
    words, counts = repaired((0.0, 1.0, "lead"), (none, none, "7"), (none, none, "2-1"), (2.0, 2.5, "now"))
    assert words == [(0.0, 1.0, "lead"), (1.0, 1.5, "7"), (1.5, 2.0, "2-1"), (2.0, 2.5, "now")]
    assert counts == {Repair.UNTIMED: 2}
    # Where the neighbours overlap there is no time between them.
    assert repaired((0.0, 1.0, "a"), (none, none, "7"), (0.8, 1.2, "b"))[0][1] == (1.0, 1.0, "7")
    # What is dropped is no neighbour.
    words, _ = repaired((0.0, 5.0, "a"), (1.0, 2.0, "back"), (none, none, "7"), (6.0, 7.0, "b"))
    assert words[1] == (5.0, 6.0, "7")


def test_at_the_edges_a_word_without_times_stands_at_its_one_neighbour() -> None:
    words, counts = repaired((None, None, "7 up"), (3.0, 4.0, "a"), (None, None, "2"), (None, NAN, "1"))
    assert words == [(3.0, 3.0, "7"), (3.0, 3.0, "up"), (3.0, 4.0, "a"), (4.0, 4.0, "2"), (4.0, 4.0, "1")]
    assert counts == {Repair.UNTIMED: 4}


def test_a_word_with_one_time_stands_at_it() -> None:
    words, counts = repaired((None, 1.0, "a"), (1.5, NAN, "b"), (-0.01, 2.0, "c"))
    assert words == [(1.0, 1.0, "a"), (1.5, 1.5, "b"), (2.0, 2.0, "c")]
    assert counts == {Repair.UNTIMED: 3}


def test_words_without_any_time_among_them_are_lost() -> None:
    assert repaired((None, None, "a b"), (NAN, INF, "c")) == ([], {Repair.UNPLACED: 3})


TIMES = st.one_of(
    st.none(), st.floats(), st.floats(0, 30), st.floats(-2, 2 * LONGEST_STREAM), st.integers(-1, 12).map(float)
)
TEXTS = st.lists(st.tuples(TIMES, TIMES, st.sampled_from(["", " ", "x", "x x", "x x x"])), max_size=40)


@given(TEXTS)
def test_whatever_times_come_in(rows: list[tuple[float | None, float | None, str]]) -> None:
    """Ends never go back, starts are not after ends, texts keep their order, counts add up."""
    numbers = itertools.count()
    texts = [TimedText(a, b, " ".join(f"w{next(numbers)}" for _ in text.split())) for a, b, text in rows]
    words, repairs = repair(texts)
    assert all(0 <= word.start <= word.end <= LONGEST_STREAM for word in words)
    assert all(a.end <= b.end for a, b in itertools.pairwise(words))
    order = [int(word.text[1:]) for word in words]
    assert order == sorted(set(order))
    assert repairs.read == sum(len(text.text.split()) for text in texts)
    assert len(words) + repairs.lost == repairs.read
    assert all(0 < count <= repairs.read for count in repairs.counts.values())
    assert bool(repairs.lost) == bool(repairs.first_lost)


@given(TEXTS)
def test_what_was_repaired_needs_no_repair(rows: list[tuple[float | None, float | None, str]]) -> None:
    words, _ = repair([TimedText(*row) for row in rows])
    assert repair([TimedText(*word) for word in words]) == (words, Repairs(len(words)))


@given(TEXTS)
def test_an_end_is_moved_up_by_no_more_than_the_slack(rows: list[tuple[float | None, float | None, str]]) -> None:
    texts = [TimedText(a, b, f"w{number}") for number, (a, b, _) in enumerate(rows)]
    for word in repair(texts)[0]:
        _, end, _ = texts[int(word.text[1:])]
        if end is not None and 0 <= end <= LONGEST_STREAM:
            assert end <= word.end <= end + SLACK + 1e-5


def test_null_and_missing_times_are_read_in_all_forms() -> None:
    rows = [[0, 1, "lead"], [None, None, "7"], {"word": "2-1"}, {"text": "to", "start": 1.8, "end": None}, [2, 3, "x"]]
    told = parse(line(rows))
    assert told.words == (
        Word(0, 1, "lead"), Word(1.0, 1.4, "7"), Word(1.4, 1.8, "2-1"), Word(1.8, 1.8, "to"), Word(2, 3, "x"),
    )  # fmt: skip
    assert told.repairs == Repairs(5, {Repair.UNTIMED: 3})
    assert parse(json.dumps(conversation("a.mp4", 0.0, 3.0, rows)).encode()).words == told.words
    assert parse(line([[0, 1, "a"], [NAN, 10**400, "b"]])).words[1] == Word(1.0, 1.0, "b")
    for broken in ([0, 1], ["a", "b", "c"], [True, 1, "c"], [0, 1, None], {"start": 0, "end": 1}, "word", None):
        with pytest.raises(Unusable) as caught:
            parse(line([[0, 1, "a"], broken]))
        assert caught.value.reason == Reason.MALFORMED


def test_a_line_is_refused_above_two_in_a_hundred_words_lost() -> None:
    assert MAX_LOST_SHARE == 0.02
    content = seconds(98)
    content[50:50] = [[1, 2, "once"], [2, 3, "more"]]
    told = parse(line(content))
    assert (len(told.words), told.repairs.lost) == (98, 2)
    del content[-1]
    with pytest.raises(Unusable) as caught:
        parse(line(content))
    assert caught.value.reason == Reason.TIMES
    assert str(caught.value) == (
        "2 of 99 words lost, more than 2% (end more than 1 s out of order: the word was dropped); "
        "the first is 'once' at 1-2 s"
    )
    with pytest.raises(Unusable, match=r"^1 of 1 words lost, .* no other word has one.*'7' at none-none s$"):
        parse(line([[None, None, "7"]]))


def test_repairs_that_lose_nothing_never_refuse() -> None:
    told = parse(line([[9, 1, "a"], [9, 2, "b"], [None, None, "c"], [1, 1.5, "d"]]))
    assert [word.text for word in told.words] == ["a", "b", "c", "d"]
    assert told.repairs.counts == {Repair.REVERSED: 2, Repair.UNTIMED: 1, Repair.CLAMPED: 1}


def test_the_report_counts_words_by_repair() -> None:
    report = Report()
    for number in range(NAMED + 1):
        report.repair(Repairs(50, {Repair.REVERSED: 2}), f"a.jsonl, byte {number}")
    report.repair(Repairs(80, {Repair.OUT_OF_ORDER: 1}, "'x' at 1-2 s"), "b.jsonl, byte 0")
    assert report.repaired == {Repair.REVERSED: 12, Repair.OUT_OF_ORDER: 1}
    told = report.to_json()["repaired"]
    assert json.loads(json.dumps(told)) == told
    assert [(one["words"], one["lines"], one["lost"], len(one["examples"])) for one in told.values()] == [
        (12, NAMED + 1, False, NAMED), (1, 1, True, 1),
    ]  # fmt: skip
    shown = str(report)
    assert "  repaired: 12 words: start after the end" in shown
    assert "    a.jsonl, byte 0: 2 of 50 words\n" in shown
    assert "    and 1 more lines\n" in shown
    assert "    b.jsonl, byte 0: 1 of 80 words, the first is 'x' at 1-2 s" in shown


def test_the_room_needs_neither_torch_nor_training() -> None:
    modules = [f"streamingvlm.data.{module.name}" for module in pkgutil.iter_modules(streamingvlm.data.__path__)]
    assert len(modules) > 4
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules or 'streamingvlm.train' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
