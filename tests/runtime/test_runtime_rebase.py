"""Streams that outlive the time stamps of their checkpoint: rebased by themselves, and when asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from streamingvlm.core.errors import OptionError, SessionError
from streamingvlm.core.events import Chunk, Closed, Commentary, Delta, Event, Rebased, StreamOpened
from streamingvlm.engine.engine import Engine
from streamingvlm.models.base import LONGEST_TIME
from streamingvlm.runtime.clock import Pace
from streamingvlm.runtime.pipeline import REBASE_TO
from streamingvlm.runtime.runtime import Runtime, Stream
from streamingvlm.testing import ScriptedModel, ScriptedSource

DAYS = 864_000.0


def says(start: float, _: float, __: int) -> str:
    """The time that the model is told."""
    return f"{start:g}"


class Late(ScriptedSource):
    """Its steps begin ``since`` seconds late, those from number ``hole`` on another ``since`` later."""

    def __init__(self, count: int, since: float, hole: int | None = None, frames: int = 2) -> None:
        super().__init__(count, frames=frames)
        self.since, self.hole = since, hole

    def __iter__(self) -> Iterator[Chunk]:
        for index, one in enumerate(super().__iter__()):
            by = self.since if self.hole is None else self.since * (index >= self.hole)
            times = tuple(time + by for time in one.times)
            yield replace(one, times=times, start=one.start + by, end=one.end + by)


class Kept:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None: ...


def watch(source: ScriptedSource, **options: Any) -> list[Event]:
    kept = Kept()
    with Runtime(Engine(ScriptedModel(says))) as runtime:
        runtime.start(source, sinks=[kept], **options).wait()
    return [event for event in kept.events if not (isinstance(event, Delta) and event.text)]


def told(events: list[Event]) -> list[tuple[float, str]]:
    return [(event.start, event.text) for event in events if isinstance(event, Commentary)]


def rebased(events: list[Event]) -> list[tuple[float, float]]:
    return [(event.time, event.shown) for event in events if isinstance(event, Rebased)]


@pytest.mark.parametrize("options", [{}, {"pace": Pace.INLINE}, {"policy": "sliding-recompute"}])
def test_it_is_rebased_by_itself_before_a_stamp_is_too_large(options: dict[str, Any]) -> None:
    events = watch(ScriptedSource(9, frames=4), longest_time=5.0, fps=4, **options)
    shown = ["0", "1", "2", "3", "4", "2.5", "3.5", "2.5", "3.5"]
    assert told(events) == [(float(second), text) for second, text in enumerate(shown)]
    assert rebased(events) == [(5.0, 2.5), (7.0, 2.5)]
    kinds = [type(event) for event in events]
    assert kinds[:3] == [StreamOpened, Delta, Commentary]
    assert kinds[11:14] == [Rebased, Delta, Commentary]
    assert [event.id.split("-")[1] for event in events if event.id] == [str(one) for one in range(1, 14)]


@pytest.mark.parametrize("policy", ["streaming", "sliding-recompute"])
def test_a_step_that_is_shown_in_parts_is_rebased_before_its_first(policy: str) -> None:
    options = {"pace": Pace.INLINE, "parts": True, "policy": policy, "fps": 6}
    events = watch(ScriptedSource(9, frames=6), longest_time=5.0, **options)
    assert rebased(events) == [(5.0, 2.5), (7.0, 2.5)]
    assert [start for start, _ in told(events)] == list(range(9))


def test_behind_a_hole_of_days_a_stream_begins_where_its_memory_is_full() -> None:
    events = watch(Late(4, DAYS, hole=2))
    assert LONGEST_TIME < DAYS
    assert told(events) == [(0.0, "0"), (1.0, "1"), (DAYS + 2, "600"), (DAYS + 3, "601")]
    assert rebased(events) == [(DAYS + 2, REBASE_TO)]


@pytest.mark.parametrize("longest", [None, DAYS + 4, math.inf])
def test_the_checkpoint_or_the_caller_says_what_is_too_large(longest: float | None) -> None:
    model = ScriptedModel(says)
    model.defaults = replace(model.defaults, longest_time=DAYS + 4)
    kept = Kept()
    with Runtime(Engine(model)) as runtime:
        runtime.start(Late(5, DAYS), sinks=[kept], longest_time=longest).wait()
    assert rebased(kept.events) == ([] if longest == math.inf else [(DAYS + 4, REBASE_TO)])


def test_a_rebase_that_was_told_by_an_earlier_run_is_not_told_again() -> None:
    events = watch(ScriptedSource(8), longest_time=5.0, said_until=6.0)
    assert told(events) == [(6.0, "3.5"), (7.0, "2.5")]
    assert rebased(events) == [(7.0, 2.5)]


def test_a_stream_is_rebased_when_that_is_asked_for() -> None:
    kept, streams = Kept(), list[Stream]()

    def ask(*_: Any) -> None:
        (stream,) = streams
        if stream.stats.steps == 2:
            stream.rebase(100.0)
            assert rebased(kept.events) == []
        if stream.stats.steps == 4:
            stream.rebase()

    with Runtime(Engine(ScriptedModel(says))) as runtime:
        streams += [runtime.call(lambda: runtime.start(ScriptedSource(6), sinks=[kept], on_step=ask))]
        streams[0].wait()
        for wrong in (-1.0, math.nan, LONGEST_TIME):
            with pytest.raises(SessionError, match="the stream has ended"):
                streams[0].rebase(wrong)
    assert [text for _, text in told(kept.events)] == ["0", "1", "100", "101", "600", "601"]
    assert rebased(kept.events) == [(2.0, 100.0), (4.0, 600.0)]


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf, LONGEST_TIME])
def test_a_rebase_to_what_no_checkpoint_knows_is_refused(wrong: float) -> None:
    kept = Kept()
    with Runtime(Engine(ScriptedModel(says))) as runtime:
        stream = runtime.start(ScriptedSource(3, stuck=2), sinks=[kept])
        with pytest.raises(OptionError, match=r"^a rebase goes to 0 s or more and less than 14400 s, not"):
            stream.rebase(wrong)


def test_a_sink_that_stops_the_stream_at_a_rebase_gets_nothing_more() -> None:
    streams = list[Stream]()

    class Stops(Kept):
        def write(self, event: Event) -> None:
            super().write(event)
            if isinstance(event, Rebased):
                streams[0].stop()

    kept = Stops()
    with Runtime(Engine(ScriptedModel(says))) as runtime:
        streams += [runtime.call(lambda: runtime.start(ScriptedSource(9), sinks=[kept], longest_time=3.0))]
        streams[0].wait()
    assert [type(event) for event in kept.events[-2:]] == [Rebased, Closed]
