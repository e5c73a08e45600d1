"""The waits between two tries."""

from __future__ import annotations

from streamingvlm.sources.backoff import Backoff
from streamingvlm.sources.live_options import LiveOptions


def test_the_ladder_is_climbed_and_its_last_rung_lasts() -> None:
    waits = Backoff(uniform=lambda: 0.5)
    assert [waits.next() for _ in range(25)] == [1.0] * 5 + [5.0] * 5 + [10.0] * 10 + [60.0] * 5


def test_jitter_is_a_fifth_to_both_sides() -> None:
    assert Backoff(uniform=lambda: 0.0).next() == 0.8
    assert Backoff(uniform=lambda: 1.0).next() == 1.2


def test_a_source_that_was_healthy_begins_at_the_bottom() -> None:
    waits = Backoff(uniform=lambda: 0.5)
    for _ in range(12):
        waits.next()
    waits.reset()
    assert waits.next() == 1.0


def test_a_wrong_password_begins_higher_and_never_goes_down() -> None:
    waits = Backoff(uniform=lambda: 0.5)
    assert [waits.next(10.0), waits.next(), waits.next(10.0)] == [10.0, 10.0, 10.0]
    assert [waits.next(10.0) for _ in range(8)] == [10.0] * 7 + [60.0]


def test_a_ladder_of_one_rung() -> None:
    waits = Backoff(LiveOptions(ladder=((0.1, 1),), jitter=0.0))
    assert [waits.next(), waits.next(5.0), waits.next()] == [0.1] * 3
