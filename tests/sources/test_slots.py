"""Live frames to steps, with frames and a clock that are made up."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from streamingvlm.core.events import Gap, Notice, SourceFormat, SourceStatus, StepInput
from streamingvlm.sources.live_options import LiveOptions
from streamingvlm.sources.slots import Assembler

#: The host's clock does not begin at 0, and its wall clock stands at another time.
BEGAN, WALL = 1000.0, 5e8


@dataclass
class Flat:
    """A picture of one grey, which counts how often it was converted."""

    moment: float
    arrival: float
    grey: int = 0
    height: int = 4
    spent: float = 0.0
    fails: bool = False
    converted: list[tuple[int, int] | None] = field(default_factory=list)

    @property
    def wall(self) -> float:
        return self.arrival - BEGAN + WALL

    def rgb(self, size: tuple[int, int] | None = None) -> NDArray[np.uint8] | None:
        self.converted.append(size)
        return None if self.fails else np.full((*(size or (self.height, 6)), 3), self.grey, np.uint8)


class Bench:
    """An assembler whose clock is turned by hand: ``at`` seconds from the beginning."""

    def __init__(self, fps: float = 2.0, step: float = 1.0, duration: float | None = None, **options: float) -> None:
        self.at = 0.0
        self.steps = Assembler(fps, step, duration, LiveOptions(**options), lambda: BEGAN + self.at)  # type: ignore[arg-type]

    def show(self, at: float, late: float = 0.0, **more: int | bool | float) -> Flat | None:
        """A frame of second ``at`` that comes ``late``; None if it was not wanted."""
        self.at = max(self.at, at + late)
        picture = Flat(BEGAN + at, BEGAN + at + late, **more)  # type: ignore[arg-type]
        if not self.steps.wants(picture.moment):
            return None
        self.steps.put(picture)
        return picture

    def play(self, start: float, end: float, rate: float = 10.0) -> int:
        """Frames at a rate; how many of them were converted."""
        count = round((end - start) * rate)
        return sum(self.show(round(start + index / rate, 6)) is not None for index in range(count))

    def taken(self) -> list[StepInput | Notice]:
        """All that is there now."""
        self.steps.end()
        out = []
        while (item := self.steps.take()) is not None:
            out.append(item)
        return out

    def step(self) -> StepInput:
        """The next step; what is told before it is passed over."""
        while not isinstance(item := self.steps.take(), StepInput):
            assert item is not None
        return item


def spans(items: list[StepInput | Notice]) -> list[tuple[float, float]]:
    return [(item.chunk.start, item.chunk.end) for item in items if isinstance(item, StepInput)]


def test_a_slot_takes_one_frame_and_no_other_is_converted() -> None:
    bench = Bench()
    assert bench.play(0, 0.5) == 1
    assert bench.play(0.5, 1.0) == 1
    step = bench.step()
    assert step.chunk.times == (0.0, 0.5)
    assert (step.chunk.start, step.chunk.end) == (0.0, 1.0)
    assert step.arrival.ready_at == BEGAN + 0.5, "it is whole with its last slot"
    assert step.chunk.wall == WALL


@pytest.mark.parametrize(
    ("fps", "step", "rate", "times"),
    [
        (1.0, 1.0, 10.0, [(0.0,), (1.0,), (2.0,)]),
        (4.0, 0.5, 20.0, [(0.0, 0.25), (0.5, 0.75), (1.0, 1.25)]),
        (2.0, 2.0, 10.0, [(0.0, 0.5, 1.0, 1.5), (2.0, 2.5, 3.0, 3.5)]),
        (2.0, 1.5, 10.0, [(0.0, 0.5, 1.0), (1.5, 2.0, 2.5)]),
        (2.0, 1.0, 1.0, [(0.0,), (1.0,), (2.0,)]),
    ],
)
def test_rates_and_steps(fps: float, step: float, rate: float, times: list[tuple[float, ...]]) -> None:
    bench = Bench(fps, step)
    found = []
    for index in range(round(4 * rate)):
        bench.show(round(index / rate, 6))
        found += [item.chunk.times for item in bench.steps._waiting if isinstance(item, StepInput)]
        bench.steps._waiting.clear()
    assert found[: len(times)] == times


def test_a_step_whose_time_is_over_is_handed_out_with_what_it_has() -> None:
    bench = Bench()
    bench.show(0.0)
    bench.at = 1.0
    step = bench.step()
    assert step.chunk.times == (0.0,)
    assert step.arrival.ready_at == BEGAN + 1.0, "it was not known before that no more would come"


def test_whoever_waits_is_woken_by_the_clock_or_a_frame() -> None:
    steps = Assembler(20.0, 0.1)
    found: list[StepInput | Notice | None] = []
    taken = threading.Event()

    def take() -> None:
        found.append(steps.take())
        taken.set()
        found.append(steps.take())

    thread = threading.Thread(target=take)
    thread.start()
    time.sleep(0.02)  # it waits without an end in sight
    now = time.perf_counter()
    steps.put(Flat(now, now))
    assert taken.wait(5), "the clock"
    steps.close()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(found[0], StepInput)
    assert found[1] is None


def test_a_frame_behind_its_step_belongs_to_the_next() -> None:
    bench = Bench()
    bench.show(0.0)
    bench.at = 1.0
    assert bench.step().chunk.times == (0.0,)
    bench.show(0.9, late=0.3)
    bench.show(1.5)
    assert bench.step().chunk.times == (1.0, 1.5)


def test_the_newest_step_waits_and_the_lost_ones_are_counted() -> None:
    bench = Bench()
    bench.play(0, 7)
    step = bench.step()
    assert step.chunk.start == 6.0
    assert step.arrival.dropped == 6
    bench.play(7, 8)
    assert bench.step().arrival.dropped == 0


@pytest.mark.parametrize(("hole", "gaps"), [(1.0, 0), (2.0, 0), (3.0, 1), (3600.0, 1)])
def test_a_hole_of_more_than_two_steps_is_told_once(hole: float, gaps: int) -> None:
    bench = Bench()
    bench.play(0, 2)
    assert bench.step().chunk.start == 1.0
    for _ in range(3):
        bench.steps.tell(SourceStatus("reconnecting", "refused"), "refused")
    bench.play(2 + hole, 4 + hole)
    told = [item for item in bench.taken() if isinstance(item, Gap | StepInput)]
    assert told[:-1] == [Gap(2.0, 2.0 + hole, "refused")] * gaps
    assert isinstance(told[-1], StepInput)
    assert told[-1].chunk.end == 4.0 + hole, "time goes on"
    first = 1  # of the two steps behind the hole, whose place the second one takes
    assert told[-1].arrival.dropped == first + (0 if gaps else hole), "shown, dropped and holes are all of the time"


def test_the_cause_of_a_hole_is_the_first_and_is_forgotten_behind_it() -> None:
    bench = Bench()
    bench.play(0, 1)
    bench.steps.tell(SourceStatus("stalled", "stalled"), "stalled")
    bench.steps.tell(SourceStatus("reconnecting", "timeout"), "timeout")
    bench.play(5, 6)
    bench.play(20, 21)
    assert [item for item in bench.taken() if isinstance(item, Gap)] == [Gap(1, 5, "stalled"), Gap(6, 20, "stalled")]


def test_steps_that_nobody_took_are_no_hole() -> None:
    bench = Bench()
    bench.play(0, 9)
    assert not [item for item in bench.taken() if isinstance(item, Gap)]


def test_notices_stay_in_order_and_have_a_bound() -> None:
    bench = Bench(notices=4)
    bench.play(0, 1)
    bench.play(9, 10)
    for width in range(10):
        bench.steps.tell(SourceFormat(width=width, height=1, codec="h264"))
    told = bench.taken()
    assert isinstance(told[0], Gap), "a hole is the last to be forgotten"
    assert [item.width for item in told if isinstance(item, SourceFormat)] == [7, 8, 9]


def test_the_frames_of_a_step_have_one_size() -> None:
    bench = Bench()
    bench.show(0.0, height=4)
    picture = bench.show(0.5, height=8)
    assert picture is not None
    assert picture.converted == [(4, 6)]
    bench.show(1.0, height=8)
    assert [item.chunk.frames.shape[1] for item in bench.taken() if isinstance(item, StepInput)] == [8]


def test_a_picture_that_cannot_be_shown_leaves_its_slot_free() -> None:
    bench = Bench()
    bench.show(0.0)
    bench.show(0.5, fails=True)
    bench.show(0.6, grey=9)
    step = bench.step()
    assert step.chunk.times == pytest.approx((0.0, 0.6))
    assert step.chunk.frames[1].max() == 9


def test_the_end_hands_out_what_there_is() -> None:
    bench = Bench(duration=2.5)
    bench.play(0, 2.4)
    bench.at = 2.5
    found = []
    while (item := bench.steps.take()) is not None:
        found.append(item)
    assert spans(found) == [(2.0, 3.0)]
    assert bench.show(2.6) is None


def test_a_source_that_shows_nothing_any_more_ends_in_time() -> None:
    bench = Bench(duration=3.0)
    bench.play(0, 1)
    assert bench.step().chunk.start == 0.0
    bench.at = 3.0
    assert bench.steps.take() is None


def test_an_error_comes_behind_the_rest() -> None:
    bench = Bench()
    bench.show(0.0)
    bench.steps.end(SourceStatus("ended"), error=RuntimeError("broken"))
    assert isinstance(bench.steps.take(), StepInput)
    assert bench.steps.take() == SourceStatus("ended")
    with pytest.raises(RuntimeError):
        bench.steps.take()


def test_a_closed_one_gives_nothing_and_takes_nothing() -> None:
    bench = Bench()
    bench.play(0, 3)
    bench.steps.close()
    assert bench.steps.take() is None
    assert bench.show(4.0) is None
    bench.steps.tell(SourceStatus("running"))
    assert bench.steps.take() is None


def test_work_on_the_source_is_counted_by_step() -> None:
    bench = Bench()
    bench.show(0.0, spent=1.0)
    bench.show(0.5, spent=1.5)
    bench.show(1.0, spent=1.75)
    first = bench.step()
    bench.show(1.5, spent=2.0)
    assert [first.chunk.read_seconds, bench.step().chunk.read_seconds] == [0.5, 0.5]
