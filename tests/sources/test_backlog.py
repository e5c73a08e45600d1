"""What comes through a pipe when one begins to read: old pictures of a live producer, or a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import pytest

from streamingvlm.sources.backlog import MOST_BYTES, MOST_SECONDS, read_backlog

FPS = 10


@dataclass(frozen=True)
class Packet:
    """A key frame every second."""

    index: int
    pts: int | None
    size: int = 1000
    time_base: Fraction = Fraction(1, FPS)

    @property
    def is_keyframe(self) -> bool:
        return self.index % FPS == 0


class Producer:
    """Packets, each at its moment by a clock of its own."""

    def __init__(
        self, moments: Sequence[float], *, stamps: Sequence[int | None] | None = None, size: int = 1000
    ) -> None:
        self.clock, self.taken = 0.0, 0
        self._moments, self._size = moments, size
        self._stamps = range(len(moments)) if stamps is None else stamps

    def now(self) -> float:
        return self.clock

    def __iter__(self) -> Iterator[Packet]:
        for index, (moment, stamp) in enumerate(zip(self._moments, self._stamps, strict=True)):
            self.clock, self.taken = max(self.clock, moment), index + 1
            yield Packet(index, stamp, self._size)


def at_rate(count: int, rate: float = 1.0, since: float = 0.0) -> list[float]:
    return [since + index / FPS / rate for index in range(count)]


def backlog(seconds: float, then: int = 30) -> list[float]:
    """So many seconds at once, then ``then`` packets at their own pace."""
    return [0.0] * round(seconds * FPS) + at_rate(then, since=1 / FPS)


@pytest.mark.parametrize(
    ("moments", "old"),
    [
        (at_rate(50), 0.3),
        (backlog(0.5), 0.7),
        (backlog(12.0), 12.2),
        (at_rate(50, rate=1.2), 0.3),
        (at_rate(50, rate=0.5), 0.1),  # it does not even keep up
        ([index // 10 * 1.0 for index in range(50)], 0.9),  # in parts of a second, as Matroska has them
    ],
)
def test_what_lies_before_the_live_end_is_old(moments: Sequence[float], old: float) -> None:
    producer = Producer(moments)
    held, stamp = read_backlog(iter(producer), producer.now)
    assert stamp == pytest.approx(old, abs=0.11)
    assert held[0].is_keyframe
    assert held[-1].index == producer.taken - 1
    assert len(held) <= FPS


@pytest.mark.parametrize(
    "producer",
    [
        Producer([0.0] * 2000),  # all at once
        Producer(at_rate(2000, rate=3.0)),  # a download
        Producer([0.0] * 30),  # short, and already ended
        Producer([]),
        Producer([0.0] * 100, size=MOST_BYTES // 50),
        Producer([0.0] * 50, stamps=[None] * 50),
    ],
)
def test_a_file_is_kept_whole_and_read_ahead_within_bounds(producer: Producer) -> None:
    packets = iter(producer)
    held, stamp = read_backlog(packets, producer.now)
    assert stamp is None
    assert [packet.index for packet in held] == list(range(producer.taken))
    assert producer.taken <= MOST_SECONDS * FPS + 2
    assert sum(packet.size for packet in held[:-1]) <= MOST_BYTES
    rest = [packet.index for packet in packets]
    assert rest == list(range(len(held), len(held) + len(rest)))


def test_frames_out_of_order_and_without_a_stamp() -> None:
    stamps: list[int | None] = [index ^ 1 for index in range(60)]
    stamps[::7] = [None] * len(stamps[::7])
    producer = Producer(backlog(3.0), stamps=stamps)
    held, stamp = read_backlog(iter(producer), producer.now)
    assert stamp == pytest.approx(3.3, abs=0.3)
    assert held[0].is_keyframe
