"""One thread, many streams: each starts, ends and fails by itself; commands come from any thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamingvlm.core.errors import CapacityError, OptionError, OutputError, SessionError, SourceError
from streamingvlm.core.events import (
    Closed,
    Commentary,
    Delta,
    Dropped,
    Event,
    Instructed,
    InstructionUpdated,
    StreamOpened,
)
from streamingvlm.engine.engine import Engine
from streamingvlm.runtime import runtime as rooms
from streamingvlm.runtime.clock import Pace
from streamingvlm.runtime.runtime import Runtime, Stream, Subscription
from streamingvlm.testing import ScriptedModel, ScriptedSource


def says(start: float, end: float, patches: int) -> str:
    return f"{start:g} to {end:g}: {patches}"


class Kept:
    """A sink that keeps what it is told; it raises at the event number ``fail_at``."""

    def __init__(self, fail_at: int | None = None, then: Callable[[Event], None] = lambda _: None) -> None:
        self.events: list[Event] = []
        self.fail_at, self.then, self.closed = fail_at, then, 0

    def write(self, event: Event) -> None:
        if len(self.events) == self.fail_at:
            raise OutputError("the disk is full")
        self.events.append(event)
        self.then(event)

    def close(self) -> None:
        self.closed += 1

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Commentary)]


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime(Engine(ScriptedModel(says), slots=4)) as runtime:
        yield runtime


WORDS = ["0 to 1: 1", "1 to 2: 1", "2 to 3: 1"]


@pytest.mark.parametrize("pace", [Pace.FAST, Pace.INLINE])
def test_a_stream_tells_its_sinks_everything_in_order(runtime: Runtime, pace: Pace) -> None:
    sink = Kept()
    stream = runtime.start(ScriptedSource(3, name="clip"), sinks=[sink], pace=pace, context="a film")
    assert stream.wait()
    assert sink.events[0] == StreamOpened("clip", "a film")
    assert sink.events[-1] == Closed()
    assert sink.texts == WORDS
    assert sink.closed == 1
    for start in range(3):
        deltas = [event.text for event in sink.events if isinstance(event, Delta) and event.start == start]
        assert deltas[0] == ""
        assert "".join(deltas) == WORDS[start]
    assert stream.ended
    assert stream.stats.steps == 3
    assert runtime.load.busy > 0


@pytest.mark.parametrize("lockstep", [False, True])
def test_many_streams_share_the_engine(lockstep: bool) -> None:
    sinks = [Kept() for _ in range(4)]
    with Runtime(Engine(ScriptedModel(says), slots=4), lockstep=lockstep) as runtime:
        for count, sink in enumerate(sinks, 1):
            runtime.start(ScriptedSource(count), sinks=[sink])
        runtime.wait()
        # Slots are free again.
        runtime.start(ScriptedSource(3), sinks=[last := Kept()]).wait()
    assert [len(sink.texts) for sink in sinks] == [1, 2, 3, 4]
    assert last.texts == WORDS


def test_lockstep_decodes_one_step_of_all_as_one_batch() -> None:
    seen: list[int] = []

    class Counted(ScriptedModel):
        def forward(self, embeds, batch, deepstack=None):  # type: ignore[no-untyped-def]
            if not batch.single:
                seen.append(len(batch.segments))
            return super().forward(embeds, batch, deepstack)

    with Runtime(Engine(Counted(says), slots=3), lockstep=True) as runtime:
        runtime.call(lambda: [runtime.start(ScriptedSource(4), pace=Pace.INLINE) for _ in range(3)])
        runtime.wait()
    assert seen == [3, 3, 3, 3]


def test_a_stream_that_fails_touches_no_other(runtime: Runtime) -> None:
    sinks = [Kept(), Kept(), Kept(fail_at=4), Kept()]
    sources = [ScriptedSource(3), ScriptedSource(2, error=SourceError("unplugged")), *[ScriptedSource(3)] * 2]
    streams = [runtime.start(source, sinks=[sink]) for source, sink in zip(sources, sinks, strict=True)]
    with pytest.raises(SourceError, match="unplugged"):
        streams[1].wait()
    with pytest.raises(OutputError, match="the disk is full"):
        streams[2].wait()
    assert streams[0].wait()
    assert streams[3].wait()
    assert sinks[0].texts == sinks[3].texts == WORDS
    assert sinks[1].texts == WORDS[:2], "what came before the error is said"
    assert sinks[1].events[-1] == Closed("unplugged")
    assert [sink.closed for sink in sinks] == [1, 1, 1, 1]
    assert str(streams[1].error) == "unplugged"


def test_a_sink_that_fails_takes_nothing_from_the_others(runtime: Runtime) -> None:
    good = [Kept(), Kept()]
    stream = runtime.start(ScriptedSource(3), sinks=[good[0], Kept(fail_at=3), good[1]])
    with pytest.raises(OutputError):
        stream.wait()
    assert good[0].events == good[1].events
    assert isinstance(good[0].events[-1], Closed)


def test_what_cannot_be_opened_is_refused_where_it_is_asked_for(runtime: Runtime) -> None:
    with pytest.raises(CapacityError, match="context"):
        runtime.start(ScriptedSource(1), context="x" * 1000)
    for _ in range(4):
        runtime.start(ScriptedSource(2, stuck=1))
    with pytest.raises(CapacityError, match="slots are taken"):
        runtime.start(ScriptedSource(1))


def test_instructions_come_from_any_thread(runtime: Runtime) -> None:
    told, go = Kept(), threading.Event()

    def first(event: Event) -> None:
        if isinstance(event, Commentary) and event.start == 0:
            go.set()

    told.then = first
    stream = runtime.start(ScriptedSource(200), sinks=[told])
    assert go.wait(10)
    assert stream.instruct("name the players") == 1
    with pytest.raises(OptionError, match="needs words"):
        stream.instruct(" ")
    stream.wait()
    (event,) = [event for event in told.events if isinstance(event, InstructionUpdated)]
    assert (event.version, event.text) == (1, "name the players")
    # It comes right before the commentary of the step that the model was told it with.
    after = told.events[told.events.index(event) + 1]
    assert isinstance(after, Commentary)
    assert after.start == event.start
    assert after.instructions == (event,)


def test_an_instruction_is_told_when_it_is_taken_on(runtime: Runtime) -> None:
    """While the source is down: nobody else knows of it yet."""
    told = Kept()
    stream = runtime.start(ScriptedSource(3, stuck=2), sinks=[told])
    while stream.stats.steps < 2:
        time.sleep(0.002)
    assert stream.instruct("name the players") == 1
    assert told.events[-1] == Instructed(1, "name the players", 2.0)
    assert not [event for event in told.events if isinstance(event, InstructionUpdated)]


def test_a_sink_may_send_commands_itself(runtime: Runtime) -> None:
    streams = []

    def stop(event: Event) -> None:
        if isinstance(event, Commentary) and event.start == 1:
            streams[0].stop()

    sink = Kept(then=stop)
    streams.append(runtime.start(ScriptedSource(1000, stuck=3), sinks=[sink]))
    assert streams[0].wait(10)
    assert sink.texts == WORDS[:2]
    assert sink.events[-1] == Closed()


def test_stop_ends_one_stream_and_not_its_neighbour(runtime: Runtime) -> None:
    stuck, sink = runtime.start(ScriptedSource(5, stuck=1)), Kept()
    other = runtime.start(ScriptedSource(3), sinks=[sink])
    began = time.perf_counter()
    stuck.stop()
    assert stuck.wait(1)
    assert time.perf_counter() - began < 1
    assert other.wait()
    assert sink.texts == WORDS


def test_closing_takes_less_than_a_second_though_sources_are_stuck() -> None:
    runtime = Runtime(Engine(ScriptedModel(says), slots=8))
    sinks = [Kept() for _ in range(8)]
    streams = [runtime.start(ScriptedSource(5, stuck=1), sinks=[sink]) for sink in sinks]
    began = time.perf_counter()
    runtime.close()
    assert time.perf_counter() - began < 1
    assert all(stream.ended for stream in streams)
    assert [sink.closed for sink in sinks] == [1] * 8
    runtime.close()
    with pytest.raises(SessionError, match="closed"):
        runtime.start(ScriptedSource(1))
    with pytest.raises(SessionError, match="closed"):
        streams[0].instruct("more")


def test_a_snapshot_is_taken_between_two_steps_and_gone_on_from(runtime: Runtime, tmp_path: Path) -> None:
    sink, ready = Kept(), threading.Event()
    sink.then = lambda event: ready.set() if isinstance(event, Commentary) else None
    stream = runtime.start(ScriptedSource(300), sinks=[sink])
    assert ready.wait(10)
    assert stream.snapshot(tmp_path / "state") == tmp_path / "state"
    with pytest.raises(OutputError):
        stream.snapshot(tmp_path / "no folder" / "state")
    assert stream.wait()
    at: list[float] = []

    def rest(session):  # type: ignore[no-untyped-def]
        at.append(session.time)
        return ScriptedSource(0)

    runtime.start(rest, restore=tmp_path / "state").wait()
    assert at[0] >= 1
    with pytest.raises(SessionError, match="the stream has ended"):
        stream.snapshot(tmp_path / "late")


def test_a_subscriber_that_sleeps_is_told_what_it_lost(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> None:
    monkeypatch.setattr(rooms, "SUBSCRIBER_EVENTS", 5)
    lazy = Subscription()
    runtime.start(ScriptedSource(3), sinks=[kept := Kept(), lazy]).wait()
    events = list(lazy)
    assert events[0] == Dropped(len(kept.events) - 5)
    assert events[1:] == kept.events[-5:]


def test_a_subscriber_reads_in_a_thread_of_its_own(runtime: Runtime) -> None:
    stream = runtime.start(ScriptedSource(3, stuck=2))
    subscription = stream.subscribe()
    stream.stop()
    assert list(subscription)[-1] == Closed()


def test_who_leaves_is_forgotten(runtime: Runtime) -> None:
    stream = runtime.start(ScriptedSource(2, stuck=1))
    before = len(stream.pipeline._sinks)
    with stream.subscribe() as subscription:
        assert len(stream.pipeline._sinks) == before + 1
    assert len(stream.pipeline._sinks) == before
    assert list(subscription)[:0] == [], "iterating ends"
    subscription.leave()  # nothing happens
    other = stream.subscribe()
    runtime.close()
    other.leave()


def test_live_drops_what_is_late_and_says_so() -> None:
    sink = Kept()
    model = ScriptedModel(lambda *_: "x", prefill_seconds=0.12)
    with Runtime(Engine(model)) as runtime:
        runtime.start(ScriptedSource(10, step=0.05, frames=4), sinks=[sink], pace=Pace.LIVE, step=0.05, fps=80.0).wait()
    said = [event for event in sink.events if isinstance(event, Commentary)]
    assert sum(event.dropped for event in said) + len(said) == 10
    assert sum(event.dropped for event in said) > 0
    assert {event.finish_reason for event in said} <= {"stop", "deadline"}


def test_the_engine_is_idle_while_nothing_comes(runtime: Runtime) -> None:
    stream = runtime.start(ScriptedSource(2, stuck=1))
    time.sleep(0.3)
    stream.stop()
    assert runtime.load.idle > 0.1


def test_a_session_of_its_own_stays_open(runtime: Runtime) -> None:
    session = runtime.call(lambda: runtime.engine.open())
    for _ in range(2):
        runtime.start(lambda s: iter_from(s.time), session=session).wait()
    assert not session.closed
    assert session.turn == 4


def iter_from(at: float) -> ScriptedSource:
    source = ScriptedSource(2)
    chunks = list(source)

    class Later(ScriptedSource):
        def __iter__(self):  # type: ignore[no-untyped-def]
            from dataclasses import replace

            for chunk in chunks:
                times = tuple(at + time for time in chunk.times)
                yield replace(chunk, times=times, start=at + chunk.start, end=at + chunk.end)

    return Later(2)


def within(seconds: float, act: Callable[[], object]) -> bool:
    """Whether ``act`` returns, well or not, within ``seconds``; it runs in a thread of its own."""

    def run() -> None:
        with contextlib.suppress(BaseException):
            act()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def test_closing_is_noticed_at_whatever_moment_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    runtimes: list[Runtime] = []

    class Late(threading.Event):
        """Closes the runtime right before a wish to wake is forgotten."""

        def clear(self) -> None:
            if runtimes:
                runtimes.pop().close()
            super().clear()

    monkeypatch.setattr(rooms.threading, "Event", Late)
    runtime = Runtime(Engine(ScriptedModel(says)))
    stream = runtime.start(ScriptedSource(2, stuck=1))
    while stream.stats.steps < 1:
        time.sleep(0.01)
    time.sleep(0.2)  # the engine's thread sleeps
    runtimes.append(runtime)
    runtime.call(lambda: None)
    assert within(5, stream.wait_ended)
    assert stream.ended


def test_what_is_started_while_a_runtime_closes_is_refused() -> None:
    runtime = Runtime(Engine(ScriptedModel(says), slots=3))
    refused: list[Exception] = []

    def again(event: Event) -> None:
        if isinstance(event, Closed):
            try:
                runtime.start(ScriptedSource(1))
            except SessionError as error:
                refused.append(error)

    stream = runtime.start(ScriptedSource(2, stuck=1), sinks=[Kept(then=again)])
    runtime.close()
    assert stream.wait(5)
    assert [str(error) for error in refused] == ["this runtime is closed"]


def test_who_subscribes_late_is_told_that_the_stream_has_ended(runtime: Runtime) -> None:
    stream = runtime.start(ScriptedSource(1))
    stream.wait()
    told: list[Event] = []
    assert within(5, lambda: told.extend(stream.subscribe()))
    assert told == [Closed()]


def test_a_sink_cannot_wait_for_its_own_stream(tmp_path: Path) -> None:
    """The engine's thread would wait for itself."""
    refused: list[str] = []
    streams: list[Stream] = []

    def ask(event: Event) -> None:
        if isinstance(event, Delta) and not event.text and event.start == 1:
            (stream,) = streams
            # The snapshot of a step that has been shown in part waits for the step's end.
            for act in (lambda: stream.snapshot(tmp_path / "state"), stream.wait, stream.wait_ended, runtime.wait):
                try:
                    act()
                except SessionError as error:
                    refused.append(str(error))

    with Runtime(Engine(ScriptedModel(says))) as runtime:
        source = ScriptedSource(2, frames=4)

        def start() -> None:
            options = {"pace": Pace.INLINE, "parts": True, "fps": 4.0}
            streams.append(runtime.start(source, sinks=[Kept(then=ask)], **options))

        runtime.call(start)
        assert within(5, streams[0].wait_ended)
        assert streams[0].complete
    assert len(refused) == 4
    assert all("engine's thread" in why for why in refused)
    assert not list(tmp_path.iterdir())


def test_nothing_follows_closed_when_a_sink_stops_its_stream(runtime: Runtime) -> None:
    streams: list[Stream] = []

    def stop(event: Event) -> None:
        if isinstance(event, Commentary) and event.start == 1:
            streams[0].stop()

    stopping, behind = Kept(then=stop), Kept()
    runtime.call(lambda: streams.append(runtime.start(ScriptedSource(4), sinks=[stopping, behind])))
    assert streams[0].wait(5)
    assert behind.events == stopping.events
    assert behind.texts == WORDS[:2]
    assert behind.events[-1] == Closed()


def test_a_session_that_stays_open_gets_no_step_of_a_stopped_stream(runtime: Runtime) -> None:
    session = runtime.call(lambda: runtime.engine.open())
    streams: list[Stream] = []

    def stop(event: Event) -> None:
        if isinstance(event, Delta):
            streams[0].stop()

    runtime.call(lambda: streams.append(runtime.start(ScriptedSource(2), session=session, sinks=[Kept(then=stop)])))
    assert streams[0].wait(5)
    assert not runtime.call(lambda: runtime.engine.busy)
    assert runtime.call(lambda: session.turn) == 0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("moment", [StreamOpened, Commentary, Closed])
def test_an_exit_that_a_sink_raises_ends_its_stream_alone(
    runtime: Runtime, kind: type[BaseException], moment: type
) -> None:
    def leave(event: Event) -> None:
        if isinstance(event, moment):
            raise kind

    beside, other = Kept(), Kept()
    neighbour = runtime.start(ScriptedSource(3), sinks=[other])
    stream = runtime.start(ScriptedSource(3), sinks=[Kept(then=leave), beside])
    assert within(5, stream.wait_ended)
    assert isinstance(stream.error, kind)
    assert beside.closed == 1
    assert neighbour.wait(5)
    assert other.texts == WORDS


def test_an_exit_that_a_source_raises_ends_its_stream_alone(runtime: Runtime) -> None:
    class Leaving(ScriptedSource):
        def __iter__(self):  # type: ignore[no-untyped-def]
            raise SystemExit

    neighbour = runtime.start(ScriptedSource(3), sinks=[other := Kept()])
    stream = runtime.start(Leaving(1))
    assert within(5, stream.wait_ended)
    assert isinstance(stream.error, SystemExit)
    assert neighbour.wait(5)
    assert other.texts == WORDS


def test_waiting_for_all_raises_what_had_ended_one_before(runtime: Runtime) -> None:
    failed = runtime.start(ScriptedSource(0, error=SourceError("unplugged")))
    failed.wait_ended()
    runtime.start(ScriptedSource(1))
    with pytest.raises(SourceError, match="unplugged"):
        runtime.wait()


def test_a_snapshot_does_not_wait_for_another_streams_source(tmp_path: Path) -> None:
    with Runtime(Engine(ScriptedModel(says), slots=2), lockstep=True) as runtime:
        streams: list[Stream] = []
        sources = [ScriptedSource(3), ScriptedSource(3, stuck=1)]
        runtime.call(lambda: streams.extend(map(runtime.start, sources)))
        while streams[0].stats.steps < 1:
            time.sleep(0.01)
        time.sleep(0.1)  # the next step of the first stream has come
        assert within(5, lambda: streams[0].snapshot(tmp_path / "state"))
        assert (tmp_path / "state").exists()


def test_more_senders_than_the_queue_takes_are_told_that_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "COMMANDS", 1)
    runtime = Runtime(Engine(ScriptedModel(says)), patience=0.0)
    go = threading.Event()
    threads = [threading.Thread(target=lambda: within(20, lambda: runtime.call(go.wait)), daemon=True)]
    ended: list[bool] = []
    for _ in range(8):
        act = lambda: ended.append(within(5, lambda: runtime.call(lambda: None)))  # noqa: E731
        threads.append(threading.Thread(target=act, daemon=True))
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    runtime.close()
    go.set()
    for thread in threads:
        thread.join(10)
    assert ended == [True] * 8


def test_a_stuck_source_that_is_let_go_keeps_no_other_stream_waiting(runtime: Runtime) -> None:
    stuck = [runtime.start(ScriptedSource(5, stuck=1)) for _ in range(3)]
    took: list[float] = []

    def stop(event: Event) -> None:
        if isinstance(event, Commentary) and stuck:
            began = time.perf_counter()
            stuck.pop().stop()
            took.append(time.perf_counter() - began)

    runtime.start(ScriptedSource(4), sinks=[Kept(then=stop)]).wait()
    assert len(took) == 3
    assert max(took) < 0.1


@pytest.mark.parametrize("policy", ["streaming", "sliding-recompute:vision=2,turns=2", "recent-frames:frames=3"])
def test_live_parts_under_every_way_of_feeding(policy: str) -> None:
    sink = Kept()
    model = ScriptedModel(lambda *_: "x", prefill_seconds=0.04)
    with Runtime(Engine(model)) as runtime:
        source = ScriptedSource(12, step=0.1, frames=4)
        runtime.start(source, sinks=[sink], pace=Pace.LIVE, policy=policy, step=0.1, fps=40.0).wait()
        runtime.call(lambda: runtime.engine.open().close())  # the slot is free again
    said = [event for event in sink.events if isinstance(event, Commentary)]
    assert sum(event.dropped for event in said) + len(said) == 12
    assert [event.start for event in said] == sorted(event.start for event in said)
