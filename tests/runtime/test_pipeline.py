"""What a pipeline tells beside commentary: ids, notices of a source, events of companions, steps that were said."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from streamingvlm.core.errors import OutputError
from streamingvlm.core.events import (
    Chunk,
    Closed,
    Commentary,
    Delta,
    Event,
    Gap,
    Notice,
    RuleChanged,
    SourceStatus,
    StepInput,
    StreamOpened,
)
from streamingvlm.engine.engine import Engine
from streamingvlm.runtime.clock import Pace, Threaded
from streamingvlm.runtime.limits import NOTICES
from streamingvlm.runtime.pipeline import Numbering, Pipeline
from streamingvlm.runtime.runtime import Runtime
from streamingvlm.testing import ScriptedModel, ScriptedSource


def says(start: float, _: float, __: int) -> str:
    return f"{start:g}"


class Camera:
    """A live source that yields what it is given."""

    name, context, kind, live = "camera", "", "", True

    def __init__(self, items: Sequence[StepInput | Notice]) -> None:
        self.items, self.closed = items, 0

    def __iter__(self) -> Iterator[StepInput | Notice]:
        for item in self.items:
            time.sleep(0.02)
            yield item

    def close(self) -> None:
        self.closed += 1


class Kept:
    def __init__(self, fail_on: type[Event] | None = None) -> None:
        self.events: list[Event] = []
        self.fail_on = fail_on

    def write(self, event: Event) -> None:
        if self.fail_on is not None and isinstance(event, self.fail_on):
            raise OutputError("the disk is full")
        self.events.append(event)

    def close(self) -> None: ...

    @property
    def told(self) -> list[Event]:
        return [event for event in self.events if not isinstance(event, Delta)]


def steps(count: int, wall: float | None = None) -> list[StepInput]:
    return [StepInput(replace(chunk, wall=wall)) for chunk in ScriptedSource(count)]


def run(source: Any, *sinks: Kept, **options: Any) -> Runtime:
    engine = Engine(ScriptedModel(says), slots=2)
    with Runtime(engine) as runtime:
        runtime.start(source, sinks=sinks, pace=options.pop("pace", Pace.FAST), **options)
        runtime.wait()
    return runtime


def test_notices_come_in_their_place() -> None:
    first, second = steps(2, wall=1000.0)
    running, gap = SourceStatus("running"), Gap(1.0, 5.0, "timeout")
    source, kept = Camera([running, first, gap, second]), Kept()
    run(source, kept)
    kinds = [type(event) for event in kept.told]
    assert kinds == [StreamOpened, SourceStatus, Commentary, Gap, Commentary, Closed]
    assert kept.told[3] == gap
    assert [event.wall_start for event in kept.told if isinstance(event, Commentary)] == [1000.0, 1000.0]
    assert source.closed == 1


def test_every_event_has_an_id_and_a_time() -> None:
    kept, other = Kept(), Kept()
    before = time.time()
    run(ScriptedSource(3), kept, other, numbering=Numbering("abc", 7))
    assert [event.id for event in kept.told] == [f"abc-{number}" for number in range(7, 7 + len(kept.told))]
    assert all(before <= event.wall <= time.time() for event in kept.events)
    assert [(event.id, event.wall) for event in kept.events] == [(event.id, event.wall) for event in other.events]
    assert {event.id for event in kept.events if isinstance(event, Delta)} == {""}


def test_what_was_said_is_watched_again_and_told_nobody() -> None:
    kept = Kept()
    run(ScriptedSource(5), kept, said_until=3.0)
    assert [event.start for event in kept.events if isinstance(event, Commentary)] == [3.0, 4.0]
    assert min(event.start for event in kept.events if isinstance(event, Delta)) == 3.0


class Counting:
    """A companion that tells an event behind every step, and one more while that is told."""

    def __init__(self) -> None:
        self.calls, self.closed = 0, 0
        self.error: Exception | None = None

    def between(self, pipeline: Pipeline) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error
        pipeline.tell(RuleChanged(f"rule {self.calls}", ""))

    def close(self) -> None:
        self.closed += 1


def test_companions_tell_events_between_two_steps() -> None:
    kept, companion = Kept(), Counting()
    run(ScriptedSource(2), kept, companions=[companion])
    kinds = [type(event) for event in kept.told]
    assert kinds == [StreamOpened, Commentary, RuleChanged, Commentary, RuleChanged, Closed]
    assert (companion.calls, companion.closed) == (2, 1)


def test_events_that_a_sink_tells_come_behind_the_one_under_way() -> None:
    class Echo(Kept):
        def write(self, event: Event) -> None:
            super().write(event)
            if isinstance(event, Commentary):
                pipelines[0].tell(RuleChanged(event.text, ""))

    pipelines: list[Pipeline] = []
    echo, kept = Echo(), Kept()
    with Runtime(Engine(ScriptedModel(says))) as runtime:
        runtime.call(lambda: pipelines.append(runtime.start(ScriptedSource(2), sinks=[echo, kept]).pipeline))
        runtime.wait()
    assert echo.told == kept.told
    assert [event.id.split("-")[1] for event in kept.told] == [str(number) for number in range(1, 7)]
    assert [type(event) for event in kept.told[1:5]] == [Commentary, RuleChanged, Commentary, RuleChanged]


def test_a_companion_that_fails_ends_its_stream_alone() -> None:
    bad, good, companion = Kept(), Kept(), Counting()
    companion.error = OutputError("the folder is gone")
    engine = Engine(ScriptedModel(says), slots=2)
    with Runtime(engine) as runtime:
        first = runtime.start(ScriptedSource(3), sinks=[bad], companions=[companion])
        second = runtime.start(ScriptedSource(3), sinks=[good])
        second.wait()
        with pytest.raises(OutputError, match="the folder is gone"):
            first.wait()
    assert bad.told[-1] == Closed("the folder is gone")
    assert companion.closed == 1
    assert len([event for event in good.events if isinstance(event, Commentary)]) == 3


def test_a_sink_that_fails_gets_no_more_and_the_others_get_all() -> None:
    bad, good = Kept(fail_on=Gap), Kept()
    with pytest.raises(OutputError, match="disk is full"):
        run(Camera([*steps(1), Gap(1.0, 9.0, "x"), SourceStatus("running")]), bad, good)
    assert [type(event) for event in good.told] == [StreamOpened, Commentary, Gap, Closed]
    assert [type(event) for event in bad.told] == [StreamOpened, Commentary, Closed]


def test_notices_do_not_pile_up_and_never_push_out_a_step() -> None:
    first, second = steps(2)
    notices = [SourceStatus("stalled", tries=number) for number in range(NOTICES + 9)]
    feed = Threaded(_Fast([first, *notices, second]), clock=False, newest=True)
    time.sleep(0.3)
    taken = []
    while (item := feed.poll()) is not None:
        taken.append(item)
    told = [item for item in taken if not isinstance(item, StepInput)]
    assert [item.tries for item in told if isinstance(item, SourceStatus)] == list(range(9, NOTICES + 9))
    (step,) = [item for item in taken if isinstance(item, StepInput)]
    assert (step.chunk.start, step.arrival.dropped) == (1.0, 1)


class _Fast(Camera):
    def __iter__(self) -> Iterator[StepInput | Notice]:
        yield from self.items


def test_a_chunk_may_tell_its_wall_clock() -> None:
    (step,) = steps(1, wall=5.0)
    assert isinstance(step.chunk, Chunk)
    assert step.chunk.wall == 5.0


def test_nothing_follows_closed_where_a_callback_tells_what_a_sink_refuses() -> None:
    streams: list[Any] = []
    bad, good = Kept(fail_on=RuleChanged), Kept()

    def on_step(_: object) -> None:
        streams[0].pipeline.tell(RuleChanged("a", ""))

    with Runtime(Engine(ScriptedModel(says))) as runtime:
        runtime.call(
            lambda: streams.append(runtime.start(ScriptedSource(3), sinks=[bad, good], on_step=on_step)),
        )
        with pytest.raises(OutputError, match="disk is full"):
            streams[0].wait()
    assert good.told[-1] == Closed("the disk is full")
    assert sum(isinstance(event, Closed) for event in good.told) == 1


def test_companions_are_not_called_behind_their_end() -> None:
    order: list[str] = []

    class Named(Counting):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def between(self, pipeline: Pipeline) -> None:
            order.append(self.name)
            super().between(pipeline)

        def close(self) -> None:
            order.append(f"{self.name} closed")

    first, second = Named("first"), Named("second")
    first.error = OutputError("the folder is gone")
    with pytest.raises(OutputError, match="the folder is gone"):
        run(ScriptedSource(3), companions=[first, second])
    assert order == ["first", "first closed", "second closed"]


def test_a_sink_that_comes_while_an_event_is_told_hears_the_next() -> None:
    late, pipelines = Kept(), list[Pipeline]()

    class Adds(Kept):
        def write(self, event: Event) -> None:
            super().write(event)
            if isinstance(event, Commentary) and event.start == 1.0:
                pipelines[0].add_sink(late)

    with Runtime(Engine(ScriptedModel(says))) as runtime:
        runtime.call(lambda: pipelines.append(runtime.start(ScriptedSource(3), sinks=[Adds()]).pipeline))
        runtime.wait()
    assert [event.start for event in late.events if isinstance(event, Commentary)] == [2.0]


def test_a_hole_is_the_last_notice_to_be_lost() -> None:
    gap = Gap(1.0, 9.0, "timeout")
    feed = Threaded(
        _Fast([gap, *(SourceStatus("stalled", tries=number) for number in range(NOTICES + 9))]),
        clock=False,
        newest=True,
    )
    feed._thread.join(10)
    assert feed.poll() == gap


@pytest.mark.parametrize("error", [OutputError("the disk is full"), MemoryError(), SystemExit("enough")])
def test_a_sink_that_cannot_see_ends_its_stream_alone(error: BaseException) -> None:
    class Blind(Kept):
        def see(self, step: StepInput) -> None:
            if step.chunk.start == 1.0:
                raise error

    bad, beside, good = Blind(), Kept(), Kept()
    with Runtime(Engine(ScriptedModel(says), slots=2)) as runtime:
        first = runtime.start(ScriptedSource(4), sinks=[bad, beside])
        second = runtime.start(ScriptedSource(4), sinks=[good])
        assert second.wait(20)
        with pytest.raises(type(error)):
            first.wait(20)
    assert [event.start for event in beside.events if isinstance(event, Commentary)] == [0.0]
    assert beside.told[-1] == bad.told[-1] == Closed(str(error) or "MemoryError")
    assert sum(isinstance(event, Commentary) for event in good.events) == 4
