"""Frames that were shown over an earlier connection are known again by their stamps and bytes."""

from __future__ import annotations

from dataclasses import dataclass

import av
import pytest

from streamingvlm.sources.progress import Repeats


@dataclass
class Frame:
    pts: int | None


def packet(stamp: int | None, data: bytes) -> av.Packet:
    made = av.Packet(data)
    made.pts = stamp
    return made


def play(repeats: Repeats, *pieces: tuple[int | None, bytes]) -> list[bool]:
    """Which frames are old."""
    old = []
    for stamp, data in pieces:
        repeats.note(packet(stamp, data))
        old.append(repeats.is_old(Frame(stamp)))
        repeats.show(Frame(stamp))
    return old


def test_what_was_shown_before_is_old_and_what_follows_is_not() -> None:
    first = Repeats(10)
    assert play(first, (1, b"a"), (2, b"b"), (1, b"a")) == [False] * 3, "within a connection nothing is old"
    second = first.begin()
    assert play(second, (1, b"a"), (2, b"b"), (3, b"c")) == [True, True, False]
    assert play(second.begin(), (1, b"a"), (3, b"c"), (4, b"d")) == [True, True, False]


@pytest.mark.parametrize("piece", [(1, b"z"), (9, b"a"), (None, b"a")])
def test_another_encoder_counts_from_the_same_number(piece: tuple[int | None, bytes]) -> None:
    first = Repeats(10)
    play(first, (1, b"a"))
    assert play(first.begin(), piece) == [False]


def test_it_remembers_so_many() -> None:
    repeats = Repeats(3)
    play(repeats, *((index, b"a") for index in range(100)))
    assert len(repeats._shown) == 3
    assert play(repeats.begin(), (96, b"a"), (97, b"a"), (99, b"a")) == [False, True, True]
    for index in range(100):
        repeats.note(packet(index, b"a"))
    assert len(repeats._marks) == 3
