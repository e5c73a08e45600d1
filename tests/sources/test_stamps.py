"""When a live frame was there."""

from __future__ import annotations

import pytest

from streamingvlm.sources.stamps import ArrivalClock


def moments(pairs: list[tuple[float | None, float]], paced: bool = False) -> list[float | None]:
    clock = ArrivalClock(0.5, paced)
    found = [clock.read(stamp, arrival) for stamp, arrival in pairs]
    return [None if one is None else round(one, 6) for one in found]


@pytest.mark.parametrize(
    ("what", "paced", "pairs", "expected"),
    [
        ("without stamps the arrivals", False, [(None, 5.0), (None, 5.3)], [5.0, 5.3]),
        (
            "stamps give the spacing where arrivals jitter",
            False,
            [(9.0, 5.0), (9.1, 5.15), (9.2, 5.21)],
            [5.0, 5.1, 5.2],
        ),
        ("never ahead of the clock", False, [(9.0, 5.0), (9.4, 5.1), (9.5, 5.2)], [5.0, 5.1, 5.2]),
        ("a first burst falls together", False, [(1.0, 5.0), (1.1, 5.0), (1.2, 5.0), (1.3, 5.1)], [5.0, 5.0, 5.0, 5.1]),
        (
            "a late frame is left out, two are a new anchor",
            False,
            [(1.0, 5.0), (1.1, 6.0), (1.2, 6.1)],
            [5.0, None, 6.1],
        ),
        ("stamps that go back", False, [(100.0, 5.0), (1.0, 5.1), (1.1, 5.2)], [5.0, None, 5.2]),
        ("a first frame without a stamp", False, [(None, 5.0), (7.0, 5.1), (7.1, 5.2)], [5.0, 5.1, 5.2]),
        ("paced: wait for the stamp", True, [(1.0, 5.0), (1.1, 5.0), (1.2, 5.0)], [5.0, 5.1, 5.2]),
        ("paced: a jump is none to wait for", True, [(1.0, 5.0), (90.0, 5.1), (90.1, 5.1)], [5.0, 5.1, 5.2]),
    ],
)
def test_moments(what: str, paced: bool, pairs: list[tuple[float | None, float]], expected: list[float | None]) -> None:
    assert moments(pairs, paced) == expected, what


def test_room_is_made_at_an_anchor() -> None:
    clock = ArrivalClock(0.5, paced=True, room=0.4)
    pairs = [(0.0, 5.0), (0.1, 5.0), (1.0, 6.3), (1.1, 7.5), (1.2, 7.5), (1.3, 7.5)]
    found = [clock.read(stamp, arrival) for stamp, arrival in pairs]
    assert [one if one is None else round(one, 6) for one in found] == [5.4, 5.5, 6.4, None, 7.9, 8.0]
    assert clock.late == pytest.approx(7.9 - 6.6)


def test_how_late_a_source_has_come_to_be_is_added_up() -> None:
    clock = ArrivalClock(0.5, paced=True)
    for stamp, arrival in [(0.0, 0.0), (0.1, 2.1), (0.2, 2.2), (0.3, 5.3), (0.4, 5.4)]:
        clock.read(stamp, arrival)
    assert clock.late == pytest.approx(5.0)


def test_a_slow_clock_is_followed() -> None:
    clock = ArrivalClock(0.5)
    last = [clock.read(0.09 * index, 0.1 * index) for index in range(1000)]
    assert sum(one is None for one in last) < 30
    assert last[-1] is not None
    assert 99.4 <= last[-1] <= 99.9
