"""The clock, what is dropped, and that the thread behind it always ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from streamingvlm.core.errors import SourceError
from streamingvlm.core.events import Chunk, StepInput
from streamingvlm.runtime import clock as pace
from streamingvlm.runtime.limits import STEPS_AHEAD

STEP = 0.05


class Ticks:
    """``count`` steps of 50 ms; fails after the last if ``error`` is given."""

    name, context, kind, live = "ticks", "", "", False

    def __init__(self, count: int, error: Exception | None = None, origin: float = 0.0) -> None:
        self.count, self.error, self.origin, self.made = count, error, origin, 0

    def __iter__(self) -> Iterator[Chunk]:
        for index in range(self.count):
            start = self.origin + index * STEP
            self.made += 1
            yield Chunk(np.zeros((1, 2, 2, 3), np.uint8), (start + 0.01,), start, start + STEP)
        if self.error:
            raise self.error


#: Of sources that other tests have left behind, stuck as they are.
_STUCK: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _others() -> None:
    _STUCK.clear()
    _STUCK.update(threading.enumerate())


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "streamingvlm-source" and one not in _STUCK]


def test_fast_hands_on_everything_in_order() -> None:
    source = Ticks(20)
    paced = pace.fast(source)
    began = time.perf_counter()
    chunks = list(paced)
    assert time.perf_counter() - began < 20 * STEP
    assert [step.chunk.start for step in chunks] == [index * STEP for index in range(20)]
    assert all(step.arrival.ready_at is not None and step.arrival.ready_at >= began for step in chunks)
    assert all(step.arrival.due is None for step in chunks)
    assert not threads()


def test_fast_makes_only_a_little_ahead() -> None:
    source = Ticks(1000)
    with closing(iter(pace.fast(source))) as chunks:
        next(chunks)
        time.sleep(0.05)
        assert source.made <= 2 + STEPS_AHEAD
    assert not threads()


def test_chunks_are_prepared_in_the_sources_thread() -> None:
    def prepare(step: StepInput) -> StepInput:
        return replace(step, prepared=threading.current_thread().name)

    assert {step.prepared for step in pace.fast(Ticks(3), prepare)} == {"streamingvlm-source"}


def test_live_keeps_the_clock() -> None:
    seen = []
    began = time.perf_counter()
    for step in pace.live(Ticks(4, origin=100.0)):
        now = time.perf_counter()
        assert step.arrival.ready_at is not None
        seen.append((step, now - began))
        assert now - step.arrival.ready_at >= -1e-3  # never before its last frame
        assert step.arrival.due == pytest.approx(step.arrival.ready_at + step.chunk.end - step.chunk.start)
    # A busy machine may wake up late, never early.
    assert sum(step.arrival.dropped for step, _ in seen) + len(seen) == 4
    for step, moment in seen:
        assert step.chunk.times[-1] - 100 - 1e-3 <= moment < step.chunk.end - 100 + 1


def test_live_drops_to_the_newest_and_counts() -> None:
    seen = []
    for step in pace.live(Ticks(10)):
        seen.append(step)
        time.sleep(3.5 * STEP if len(seen) == 1 else 0)
    assert sum(step.arrival.dropped for step in seen) + len(seen) == 10
    assert seen[1].arrival.dropped >= 1
    assert seen[1].chunk.start - seen[0].chunk.start == pytest.approx((seen[1].arrival.dropped + 1) * STEP)
    assert seen[-1].chunk.start == pytest.approx(9 * STEP)


@pytest.mark.parametrize("wrap", [pace.fast, pace.live])
def test_errors_come_behind_what_was_made(wrap: object) -> None:
    seen: list[StepInput] = []
    with pytest.raises(SourceError, match="unplugged"):
        seen.extend(wrap(Ticks(3, SourceError("unplugged"))))  # type: ignore[operator]
    assert seen[-1].chunk.start == pytest.approx(2 * STEP)
    assert sum(step.arrival.dropped for step in seen) + len(seen) == 3
    assert not threads()


@pytest.mark.parametrize("wrap", [pace.fast, pace.live])
def test_closing_early_ends_the_thread(wrap: object) -> None:
    began = time.perf_counter()
    with closing(iter(wrap(Ticks(10_000)))) as chunks:  # type: ignore[operator]
        next(chunks)
    assert time.perf_counter() - began < 1
    assert not threads()
