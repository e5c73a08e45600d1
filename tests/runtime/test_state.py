"""A stream goes on from its folder: what was told is not told again, and the words are those of an unbroken run."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import EndedError, OptionError, OutputError, SourceError
from streamingvlm.core.events import (
    Alert,
    Answer,
    Answered,
    Asked,
    Chunk,
    Closed,
    Commentary,
    Dropped,
    Event,
    Gap,
    Instructed,
    InstructionUpdated,
    Question,
    Rebased,
    Resumed,
    RuleChanged,
    SourceStatus,
    StepInput,
    StreamOpened,
)
from streamingvlm.engine import snapshot
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.snapshot import SnapshotError, previous, read
from streamingvlm.runtime import journal as journals
from streamingvlm.runtime import keeper as keepers
from streamingvlm.runtime import state_folder
from streamingvlm.runtime.clock import Pace
from streamingvlm.runtime.journal import read_journal
from streamingvlm.runtime.keeper import Moment, SnapshotWriter
from streamingvlm.runtime.rules import AskedRule, SaysRule
from streamingvlm.runtime.runtime import Runtime, Stream
from streamingvlm.runtime.shifted import NO_PICTURE, Shifted, by_clock
from streamingvlm.runtime.state_folder import (
    CLOCK_UNKNOWN,
    LONGEST_LOSS,
    NOT_RUNNING,
    UNANSWERED,
    StateFolder,
    folder_name,
    without_password,
)
from streamingvlm.runtime.watcher import Watcher
from streamingvlm.sources.open import open_source
from streamingvlm.testing import ScriptedModel, ScriptedSource

COUNT = 12


def says(start: float, end: float, patches: int) -> str:  # noqa: ARG001
    return f"from {start:g}"


class Film(ScriptedSource):
    """A recording that can be opened at a second; ``live``: it begins anew each time it is opened."""

    def __init__(self, count: int = COUNT, at: float = 0.0, live: bool = False, **options: Any) -> None:
        super().__init__(count, **options)
        if at >= count and not live:
            raise EndedError(f"it ends before {at:g} s")
        self.live, self.at = live, 0.0 if live else at

    def __iter__(self) -> Iterator[Chunk]:
        return itertools.islice(super().__iter__(), round(self.at), None)


def film(count: int = COUNT, **options: Any) -> Callable[[float | None], Film]:
    return lambda at: Film(count, at or 0.0, **options)


class Kept:
    def __init__(self, then: Callable[[Event], None] = lambda _: None) -> None:
        self.events: list[Event] = []
        self.then = then

    def write(self, event: Event) -> None:
        self.events.append(event)
        self.then(event)

    def close(self) -> None: ...


def run(
    folder: Path,
    open_: Callable[[float | None], Any] | None = None,
    *,
    sinks: Sequence[Any] = (),
    killed_after: int | None = None,
    every: float = 0.0,
    during: Callable[[Stream], None] = lambda _: None,
    before: Callable[[Stream], None] = lambda _: None,
    **options: Any,
) -> tuple[list[Event], Stream | None]:
    """One run of a program; what was told in it, and its stream. ``killed_after``: steps, then nothing is kept."""
    told = Kept()
    if killed_after is not None:
        sinks = [*sinks, _Killer(killed_after)]
    model = ScriptedModel(says)
    with StateFolder(folder, every=every) as state, Runtime(Engine(model, slots=2)) as runtime:
        stream = None

        def start() -> None:
            nonlocal stream
            stream = state.start(runtime, "film", open_ or film(), sinks=[told, *sinks], **options)
            if stream is not None:
                before(stream)

        runtime.call(start)
        if stream is not None:
            during(stream)
            stream.wait_ended()
    if killed_after is not None:
        _after_kill(folder)
    return told.events, stream


class _Killer:
    """Stops the stream; :func:`_after_kill` then removes what a killed process would not have written."""

    def __init__(self, after: int) -> None:
        self.left = after

    def write(self, event: Event) -> None:
        if isinstance(event, Commentary):
            self.left -= 1
            if not self.left:
                raise SourceError("killed")

    def close(self) -> None: ...


def _after_kill(folder: Path) -> None:
    """The snapshot that a clean end leaves is taken away, and the last events."""
    (one,) = folder.iterdir()
    before = previous(one / "snapshot")
    if before.exists():
        os.replace(before, one / "snapshot")
    else:
        (one / "snapshot").unlink()
    (file,) = one.glob("events-*")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(line for line in lines if b"stream.closed" not in line))


def words(events: Sequence[Event]) -> list[tuple[float, str]]:
    return [(event.start, event.text) for event in events if isinstance(event, Commentary)]


def only(events: Sequence[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def ids(events: Sequence[Event]) -> list[str]:
    return [event.id for event in events if event.id]


WHOLE = [(float(second), f"from {second}") for second in range(COUNT)]


# Recordings.


def test_a_run_that_is_never_ended_keeps_its_end(tmp_path: Path) -> None:
    events, _ = run(tmp_path)
    assert words(events) == WHOLE
    (one,) = tmp_path.iterdir()
    assert read(one / "snapshot").extra["complete"]
    for _ in range(2):
        assert run(tmp_path, lambda _: pytest.fail("it is not opened")) == ([], None)


@pytest.mark.parametrize("after", [1, 2, 5, COUNT - 1])
@pytest.mark.parametrize("every", [0.0, 1000.0])
def test_a_killed_run_goes_on_without_saying_anything_twice(tmp_path: Path, after: int, every: float) -> None:
    first, _ = run(tmp_path, killed_after=after, every=every)
    first = [event for event in first if not isinstance(event, Closed)]
    opened_at: list[float | None] = []

    def open_(at: float | None) -> Film:
        opened_at.append(at)
        return Film(at=at or 0.0)

    second, stream = run(tmp_path, open_)
    assert words(first) + words(second) == WHOLE
    assert ids(first) + ids(second) == [
        f"{first[0].id.partition('-')[0]}-{n}" for n in range(1, len(ids(first)) + len(ids(second)) + 1)
    ]
    kinds = [type(event) for event in second[:3]]
    assert kinds[:2] == [StreamOpened, Resumed]
    (resumed,) = only(second, Resumed)
    assert resumed.time == (opened_at[0] or 0.0)
    assert resumed.lost_seconds == 0.0
    assert not only(second, Gap)
    assert stream is not None
    assert stream.complete
    assert run(tmp_path)[1] is None


def test_many_restarts(tmp_path: Path) -> None:
    told: list[Event] = []
    while True:
        events, stream = run(tmp_path, killed_after=2)
        told += events
        if stream is None:
            break
        if stream.complete:
            break
        assert len(told) < 200
    said = [event for event in told if isinstance(event, Commentary)]
    assert words(said) == WHOLE


def test_a_clean_stop_goes_on_from_its_last_step(tmp_path: Path) -> None:
    def stop(stream: Stream) -> None:
        while stream.stats.steps < 3:
            time.sleep(0.002)
        stream.stop()

    first, _ = run(tmp_path, film(stuck=5), every=1000.0, during=stop)
    (one,) = tmp_path.iterdir()
    kept = read(one / "snapshot")
    assert kept.time == words(first)[-1][0] + 1.0
    assert not kept.extra["complete"]
    second, _ = run(tmp_path)
    assert words(first) + words(second) == WHOLE
    assert only(second, Resumed)[0].time == kept.time


def test_a_recording_that_has_no_more_is_complete(tmp_path: Path) -> None:
    """It was killed behind its last step."""
    run(tmp_path, film(4), killed_after=4)
    assert run(tmp_path, film(3))[1] is None
    with pytest.raises(EndedError):
        run(tmp_path / "other", lambda _: Film(3, 5.0))


def test_a_live_source_that_ends_is_never_complete(tmp_path: Path) -> None:
    run(tmp_path, film(2, live=True))
    events, stream = run(tmp_path, film(2, live=True))
    assert stream is not None
    assert len(words(events)) == 2


def test_instructions_that_came_behind_the_snapshot_hold_again(tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []

    def at_two(stream: Stream) -> Callable[[Event], None]:
        def instruct(event: Event) -> None:
            if isinstance(event, Commentary) and event.start in (2.0, 3.0):
                stream.pipeline.session.instruct(f"after {event.start:g}")

        return instruct

    first_sink = Kept()

    def before(stream: Stream) -> None:
        first_sink.then = at_two(stream)

    first, _ = run(tmp_path, sinks=[first_sink], before=before, killed_after=6, every=1000.0)
    assert [(event.version, event.start) for event in only(first, InstructionUpdated)] == [(1, 3.0), (2, 4.0)]

    def look(stream: Stream) -> None:
        session = stream.pipeline.session
        stream.pipeline._on_step = lambda request: seen.extend(
            (request.step.chunk.start, one.text) for one in request.result.instructions
        )
        assert session.version == 0

    second, stream = run(tmp_path, before=look)
    assert words(first) + words(second) == WHOLE
    assert seen == [(3.0, "after 2"), (4.0, "after 3")], "silently, at their steps"
    assert not only(second, InstructionUpdated)
    assert stream is not None
    assert stream.pipeline.session.version == 2


def at(second: float, act: Callable[[Stream], object]) -> dict[str, Any]:
    """Options of :func:`run`: does ``act`` when the step from ``second`` is told."""
    sink = Kept()

    def before(stream: Stream) -> None:
        def look(event: Event) -> None:
            if isinstance(event, Commentary) and event.start == second:
                act(stream)

        sink.then = look

    return {"sinks": [sink], "before": before}


def taken(into: list[tuple[float, int, str]]) -> Callable[[Stream], None]:
    """Has a stream note which instructions its model is told, and from which second on."""

    def watch(stream: Stream) -> None:
        stream.pipeline._on_step = lambda request: into.extend(
            (request.step.chunk.start, one.version, one.text) for one in request.result.instructions
        )

    return watch


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("every", [0.0, 1000.0])
def test_instructions_that_came_to_no_step_yet_outlive_a_kill(tmp_path: Path, every: float, live: bool) -> None:
    def instruct(stream: Stream) -> None:
        assert [stream.instruct("in verse"), stream.instruct("in prose")] == [1, 2]

    first, _ = run(tmp_path, film(live=live), **at(5.0, instruct), killed_after=6, every=every)
    assert [(one.version, one.text, one.time) for one in only(first, Instructed)] == [
        (1, "in verse", 6.0),
        (2, "in prose", 6.0),
    ]
    seen: list[tuple[float, int, str]] = []
    second, stream = run(tmp_path, film(live=live), before=taken(seen))
    new = words(second)[0][0]
    assert live or words(first) + words(second) == WHOLE
    assert seen == [(new, 1, "in verse"), (new, 2, "in prose")]
    assert [(one.version, one.start) for one in only(second, InstructionUpdated)] == [(1, None), (2, new)]
    assert not only(second, Instructed), "it was told already"
    assert stream is not None
    assert stream.pipeline.session.version == 2


def test_instructions_while_told_steps_are_watched_again_come_behind_them(tmp_path: Path) -> None:
    """Ended again meanwhile: nothing that was to be done again is lost, and no version is given twice."""
    run(tmp_path, **at(3.0, lambda stream: stream.pipeline.instruct("in verse")), killed_after=8, every=1000.0)

    def end(stream: Stream) -> None:
        assert stream.pipeline.session.version == 0
        assert stream.instruct("in prose") == 2
        with pytest.raises(OptionError, match="needs words"):
            stream.instruct(" ")
        stream.rebase(100.0)
        raise SourceError("killed")

    def before(stream: Stream) -> None:
        stream.pipeline._on_step = lambda request: end(stream) if request.step.chunk.start == 1.0 else None

    second, _ = run(tmp_path, before=before, every=1000.0)
    assert not words(second)
    seen: list[tuple[float, int, str]] = []
    third, stream = run(tmp_path, before=taken(seen))
    assert seen == [(4.0, 1, "in verse"), (8.0, 2, "in prose")]
    assert [(one.time, one.shown) for one in only(third, Rebased)] == [(8.0, 100.0)]
    assert words(third) == [(8.0 + n, f"from {100 + n}") for n in range(4)]
    assert stream is not None


def test_a_version_is_not_given_again_though_its_event_is_lost(tmp_path: Path) -> None:
    """The disk was full for a while."""

    def instruct(stream: Stream) -> None:
        for text in ("a", "b", "c"):
            stream.instruct(text)

    run(tmp_path, **at(5.0, instruct), killed_after=6, every=1000.0)
    (one,) = tmp_path.iterdir()
    (file,) = one.glob("events-*")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(line for line in lines if b'"text": "b"' not in line))
    seen: list[tuple[float, int, str]] = []
    _, stream = run(tmp_path, before=taken(seen))
    assert [(seen[0]), seen[-1]] == [(6.0, 1, "a"), (6.0, 3, "c")]
    assert stream is not None
    assert stream.pipeline.session.version == 3


def test_a_rebase_outlives_a_kill_though_no_step_comes(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "one", every=1000.0) as state, Runtime(Engine(ScriptedModel(says))) as runtime:
        folder = state.stream("film")
        stream = folder.start(runtime, film(stuck=3))
        assert stream is not None
        assert folder.keeper is not None
        until = time.monotonic() + 20
        while stream.stats.steps < 3 and time.monotonic() < until:
            time.sleep(0.002)
        stream.rebase(100.0)
        while (not folder.keeper.written or state.writer.busy) and time.monotonic() < until:
            time.sleep(0.002)
        shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns("lock"))
    second, _ = run(tmp_path / "two", killed_after=2)
    assert [(one.time, one.shown) for one in only(second, Rebased)] == [(3.0, 100.0)]
    assert words(second) == [(3.0, "from 100"), (4.0, "from 101")]
    third, _ = run(tmp_path / "two")
    assert not only(third, Rebased), "it is done once"
    assert words(third)[0] == (5.0, "from 102")


def test_a_live_stream_that_was_rebased_behind_its_snapshot_stays_so(tmp_path: Path) -> None:
    first, _ = run(tmp_path, film(6, live=True), companions=[_Rebases()], killed_after=4, every=1000.0)
    assert words(first)[-1] == (3.0, "from 101")
    second, _ = run(tmp_path, film(3, live=True))
    assert not only(second, Rebased)
    assert [text for _, text in words(second)] == [f"from {100 + start - 2:g}" for start, _ in words(second)]


A, B, C = (SaysRule(name=name, text=f"never {name}") for name in "abc")
OTHER_A, OTHER_B = (SaysRule(name=name, text="something else") for name in "ab")


@pytest.mark.parametrize("every", [0.0, 1000.0])
def test_rules_that_were_set_and_removed_outlive_a_kill(tmp_path: Path, every: float) -> None:
    def change(stream: Stream) -> None:
        stream.add_rule(C)
        stream.add_rule(OTHER_A)
        stream.remove_rule("b")

    run(tmp_path, rules=[A, B], **at(5.0, change), killed_after=6, every=every)
    second, stream = run(tmp_path, rules=[A, B], killed_after=2, every=every)
    assert not only(second, RuleChanged)
    assert stream is not None
    assert {*stream.rules} == {OTHER_A, C}
    third, stream = run(tmp_path, rules=[A, OTHER_B])
    assert [(one.rule, one.text) for one in only(third, RuleChanged)] == [("b", "says: something else")]
    assert stream is not None
    assert {*stream.rules} == {OTHER_A, OTHER_B, C}


@pytest.mark.parametrize("kept", [True, False])
def test_it_is_known_that_a_slot_for_the_questions_of_rules_is_needed(tmp_path: Path, kept: bool) -> None:
    engine = Engine(ScriptedModel(says), slots=2)
    with StateFolder(tmp_path / "one", every=0.0) as state, Runtime(engine, questions=True) as runtime:
        stream = state.start(runtime, "film", film(stuck=3))
        assert stream is not None
        stream.add_rule(AskedRule(name="door", text="it is open", every=1000.0))
        shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns("lock", "snapshot*"))
    with StateFolder(tmp_path / ("one" if kept else "two")) as state:
        past = state.stream("film").past
        assert past is not None
        assert (past.snapshot is not None) == kept
        assert past.asks


def test_a_live_stream_ends_at_the_same_second_as_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, film(4, live=True))
    (one,) = tmp_path.iterdir()
    earlier = Moment(**read(one / "snapshot").extra["moment"])
    monkeypatch.setattr(Moment, "now", staticmethod(lambda: Moment(earlier.wall + 10.0, "", 0.0)))
    second, _ = run(tmp_path, film(12, live=True), until=20.0)
    assert words(second)[-1][0] == 19.0

    def over(_: float | None) -> Film:
        raise EndedError("it was watched for 20 s")

    assert run(tmp_path, over) == ([], None)


def test_what_others_keep_comes_back(tmp_path: Path) -> None:
    run(tmp_path, film(stuck=4), during=_stop_after(3), extras={"rules": lambda: {"goal": [1, 2.5]}})
    with StateFolder(tmp_path) as state:
        past = state.stream("film").past
        assert past is not None
        assert past.own == {"rules": {"goal": [1, 2.5]}}


def _stop_after(steps: int) -> Callable[[Stream], None]:
    def stop(stream: Stream) -> None:
        while stream.stats.steps < steps:
            time.sleep(0.002)
        stream.stop()

    return stop


def test_questions_without_an_answer_are_ended_and_their_numbers_go_on(tmp_path: Path) -> None:
    def ask(stream: Stream) -> None:
        stream.pipeline.tell(
            Asked(1, "who?", 0.0),
            Answered(1, Answer(Question("who?"), 0.0, "Ann")),
            Asked(2, "where?", 0.0),
            Alert("goal", "raised", 1, 0.0, 0.0),
        )

    run(tmp_path, before=ask, killed_after=3, every=1000.0)
    with StateFolder(tmp_path) as state:
        past = state.stream("film").past
        assert past is not None
        assert past.numbering.asked == 2
        assert [alert.rule for alert in past.alerts] == ["goal"]
    events, _ = run(tmp_path)
    assert [(event.number, event.error) for event in only(events, Answered)] == [(2, UNANSWERED)]
    with StateFolder(tmp_path) as state:
        past = state.stream("film").past
        assert past is not None
        assert (past.numbering.asked, past.unanswered) == (2, ())


@pytest.mark.parametrize("every", [0.0, 1000.0])
@pytest.mark.parametrize("after", range(1, COUNT))
def test_alerts_are_told_once_wherever_it_is_killed(tmp_path: Path, after: int, every: float) -> None:
    rules = [SaysRule(name="goal", text="from [359]$", off_after=1, cooldown=0.0)]

    def alerts(events: Sequence[Event]) -> list[tuple[str, int, float]]:
        return [(event.kind, event.number, event.since) for event in only(events, Alert)]

    whole, _ = run(tmp_path / "whole", rules=rules)
    assert [kind for kind, *_ in alerts(whole)] == ["raised", "cleared"] * 3
    first, _ = run(tmp_path / "killed", rules=rules, killed_after=after, every=every)
    second, _ = run(tmp_path / "killed", rules=rules)
    assert words(first) + words(second) == WHOLE
    assert alerts(first) + alerts(second) == alerts(whole)


def test_a_rule_that_was_set_is_kept_at_once(tmp_path: Path) -> None:
    sink = Kept()

    def before(stream: Stream) -> None:
        def add(event: Event) -> None:
            if isinstance(event, Commentary) and event.start == 2.0:
                stream.add_rule(SaysRule(name="late", text="from 9"))

        sink.then = add

    run(tmp_path, sinks=[sink], before=before, killed_after=6, every=1000.0)
    second, _ = run(tmp_path)
    assert [alert.rule for alert in only(second, Alert)][:1] == ["late"]


def test_what_no_event_tells_is_kept_while_nothing_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that is down for hours: rules and instructions of that time outlive a loss of power."""
    go, write = threading.Event(), keepers.write

    def slow(path: Path, taken: Any) -> None:
        go.wait(10)
        write(path, taken)

    with StateFolder(tmp_path, every=1000.0) as state, Runtime(Engine(ScriptedModel(says))) as runtime:
        one = state.stream("film")
        stream = one.start(runtime, film(stuck=3))
        assert stream is not None
        while stream.stats.steps < 3:
            time.sleep(0.002)
        keeper = one.keeper
        assert keeper is not None

        def kept(change: Callable[[], object]) -> tuple[list[str], list[str]]:
            before = keeper.written
            change()
            until = time.monotonic() + 10
            while (keeper.written == before or state.writer.busy) and time.monotonic() < until:
                time.sleep(0.002)
            record, _ = snapshot.read_record(one.snapshot)
            rules = record["extra"]["own"]["rules"] or {"rules": []}
            return [rule["rule"]["name"] for rule in rules["rules"]], [text for _, text in record["instructions"]]

        assert kept(lambda: stream.add_rule(SaysRule(name="a", text="b"))) == (["a"], [])
        assert kept(lambda: stream.instruct("look left")) == (["a"], ["look left"])
        assert kept(lambda: stream.remove_rule("a")) == ([], ["look left"])

        def many() -> None:  # the disk is slow: the last one counts
            monkeypatch.setattr(keepers, "write", slow)
            for number in range(20):
                stream.add_rule(SaysRule(name=f"r{number % 3}", text=f"c{number}"))
            assert len(keeper._waiting) <= 1
            go.set()

        assert kept(many)[0] == ["r0", "r1", "r2"]


def test_no_room_for_a_thread_ends_no_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer, fails = SnapshotWriter(), iter([True, True])

    class Thread(threading.Thread):
        def start(self) -> None:
            if self.name == "streamingvlm-snapshots" and next(fails, False):
                raise RuntimeError("can't start new thread")
            super().start()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keepers.threading, "Thread", Thread)
        keeper = keepers.Keeper(tmp_path / "snapshot", writer, every=0.0)
        with Runtime(Engine(ScriptedModel(says))) as runtime:
            stream = runtime.start(ScriptedSource(4), sinks=[keeper], companions=[keeper])
            assert stream.wait(10)
    assert stream.complete
    assert "can't start new thread" in caplog.text
    assert writer.close(10)
    assert keeper.failed == 2
    assert keeper.written >= 1


def test_all_that_stands_goes_on_behind_a_loss_of_power_in_a_hole(tmp_path: Path) -> None:
    """Rebased, with an alert that goes on and an instruction that nobody was told, while the camera is down."""

    class Camera(Film):
        def __iter__(self) -> Iterator[Any]:
            yield from ScriptedSource(4)
            yield Gap(4.0, 30.0, "timeout")
            time.sleep(3600)

    rules = [SaysRule(name="goal", text="from", off_after=1, cooldown=0.0)]
    first = Kept()
    with StateFolder(tmp_path / "one", every=0.0) as state, Runtime(Engine(ScriptedModel(says))) as runtime:
        folder = state.stream("film")
        stream = folder.start(runtime, lambda _: Camera(live=True), sinks=[first], rules=rules, companions=[_Rebases()])
        assert stream is not None
        assert folder.keeper is not None
        until = time.monotonic() + 20
        while not only(first.events, Gap) and time.monotonic() < until:
            time.sleep(0.002)
        written = folder.keeper.written
        stream.instruct("look left")
        while (folder.keeper.written == written or state.writer.busy) and time.monotonic() < until:
            time.sleep(0.002)
        shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns("lock"))
    (before,) = only(first.events, Alert)
    assert before.kind == "raised"
    second, resumed = run(tmp_path / "two", film(3, live=True), rules=rules)
    assert resumed is not None
    hole, (back,) = only(second, Gap)[0], only(second, Resumed)
    assert (hole.start, back.time) == (30.0, 4.0)
    assert hole.end >= hole.start
    steps = only(second, Commentary)
    assert steps[0].start >= hole.end
    assert [one.end for one in steps[:-1]] == [one.start for one in steps[1:]]
    assert [(one.version, one.text) for one in steps[0].instructions] == [(1, "look left")]
    assert steps[0].instructions[0].start == steps[0].start
    assert steps[0].text == f"from {100 + steps[0].start - 2:g}", "the model's time is still the rebased one"
    assert not only(second, Alert), "it goes on, and is not raised again"
    assert resumed.watcher is not None
    assert resumed.watcher.counts["goal"]["active"]
    told = [int(one.rpartition("-")[2]) for one in ids(second)]
    assert told == list(range(told[0], told[0] + len(told)))
    assert told[0] > max(int(one.rpartition("-")[2]) for one in ids(first.events) if "closed" not in one) - 2


class _Rebases:
    """Behind second 2, time stamps go on at 100."""

    def between(self, pipeline: Any) -> None:
        if pipeline.session.time == 2.0:
            pipeline.rebase(100.0)

    def close(self) -> None: ...


def test_a_folder_of_an_earlier_version_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells an instruction with its step alone, keeps less of rules, and nothing that is still to be done."""
    extra, state = keepers.Keeper._extra, Watcher.state

    def fewer(keeper: keepers.Keeper, pipeline: Any) -> dict[str, Any]:
        return {key: value for key, value in extra(keeper, pipeline).items() if key not in ("again", "rebase")}

    def less(watcher: Watcher) -> dict[str, Any]:
        return {key: value for key, value in state(watcher).items() if key != "given"}

    monkeypatch.setattr(keepers.Keeper, "_extra", fewer)
    monkeypatch.setattr(Watcher, "state", less)
    first, _ = run(tmp_path, rules=[A], killed_after=5, **at(1.0, lambda one: one.pipeline.session.instruct("brief")))
    monkeypatch.undo()
    second, stream = run(tmp_path, rules=[A])
    assert words(first) + words(second) == WHOLE
    assert not only(second, RuleChanged)
    assert stream is not None
    assert (stream.rules, stream.pipeline.session.version) == ((A,), 1)


# Refused.


def test_another_source_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path, killed_after=3)
    (one,) = tmp_path.iterdir()
    with pytest.raises(SnapshotError, match=f"is of a stream of film, not of other; to start .* remove {one}$"):
        state_folder.StreamFolder(one, "other", SnapshotWriter())
    state_folder.StreamFolder(one, "film", SnapshotWriter()).close()


def test_other_options_are_refused_and_named(tmp_path: Path) -> None:
    run(tmp_path, killed_after=3)
    (one,) = tmp_path.iterdir()
    with pytest.raises(SnapshotError, match=rf"seed 0, here 5; to start the stream anew, remove {one}$") as error:
        run(tmp_path, seed=5)
    assert "\n" not in str(error.value)
    events, _ = run(tmp_path)
    assert words(events)[-1] == WHOLE[-1], "nothing was lost by trying"


def test_a_broken_snapshot_is_replaced_by_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, _ = run(tmp_path, film(stuck=3), during=_stop_after(3), every=1000.0)
    first += run(tmp_path, film(stuck=7), during=_stop_after(4), every=1000.0)[0]
    (one,) = tmp_path.iterdir()
    content = bytearray((one / "snapshot").read_bytes())
    content[len(content) // 2] ^= 4
    (one / "snapshot").write_bytes(content)
    second, _ = run(tmp_path)
    assert words(first) + words(second) == WHOLE
    assert only(second, Resumed)[0].time == 3.0
    assert "goes on from the snapshot before" in caplog.text
    assert caplog.text.count("\n") == 1


def test_two_broken_snapshots_are_never_a_silent_new_start(tmp_path: Path) -> None:
    run(tmp_path, film(stuck=7), during=_stop_after(7))
    (one,) = tmp_path.iterdir()
    for file in (one / "snapshot", previous(one / "snapshot")):
        file.write_bytes(file.read_bytes()[:-9])
    for _ in range(2):
        with pytest.raises(SnapshotError, match=rf"checksum.*the one before.*to start the stream anew, remove {one}$"):
            run(tmp_path)


def test_two_programs_and_two_streams_of_one_name(tmp_path: Path) -> None:
    with StateFolder(tmp_path) as state, StateFolder(tmp_path) as other:
        state.stream("film")
        with pytest.raises(OutputError, match="in use by another program"):
            other.stream("film")
        with pytest.raises(OptionError, match="two streams of film"):
            state.stream("film")
        other.stream("film", "second")


@pytest.mark.parametrize(
    ("locator", "shown"),
    [
        ("rtsp://ann:s3cret@cam/live", "rtsp://cam/live"),
        ("rtsp://ann:a@b/s3cret?@cam:554/live", "rtsp://cam:554/live"),
        ("http://cam/v?user=ann&password=s3cret", "http://cam/v?user=ann&password=***"),
        ("rtsp://cam/user=ann&password=s3cret&channel=1", "rtsp://cam/user=ann&password=***&channel=1"),
        ("match.mp4", "match.mp4"),
        ("/a/b @ s3.mp4", "/a/b @ s3.mp4"),
    ],
)
def test_no_password_is_in_the_name_of_a_folder(locator: str, shown: str) -> None:
    assert without_password(locator) == shown
    assert "s3cret" not in folder_name(without_password(locator))


def test_two_channels_of_one_recorder_are_two_streams(tmp_path: Path) -> None:
    with StateFolder(tmp_path) as state:
        one, other = (state.stream(f"rtsp://ann:s3cret@dvr/cam?channel={number}&subtype=0") for number in (1, 2))
        assert one.folder != other.folder


def test_names_of_folders_are_safe_and_differ() -> None:
    names = [folder_name(text) for text in ("../x", "..", "", "a/b", "a-b", "a:b", "\udc80", "x" * 300, "CON", "ü")]
    assert len(set(names)) == len(names)
    assert all(len(name) < 80 and "/" not in name and not name.startswith(".") for name in names)


# Ids.


@pytest.mark.parametrize(
    ("note", "same"),
    [
        ({}, True),
        ({"boot": "another"}, False),
        ({"boot": "another", "clean": True}, True),
        ({"lost": True}, False),
    ],
)
def test_an_id_that_somebody_may_have_seen_is_not_given_to_another_event(
    tmp_path: Path, note: dict[str, Any], same: bool
) -> None:
    first, _ = run(tmp_path, killed_after=4)
    (one,) = tmp_path.iterdir()
    lock = state_folder.FolderLock(one)
    lock.note({"boot": Moment.now().boot, "clean": False, "lost": False} | note)
    lock.close()
    second, _ = run(tmp_path)
    epochs = [event.id.partition("-")[0] for event in (first[0], second[0])]
    assert (epochs[0] == epochs[1]) == same
    numbers = [int(one_id.partition("-")[2]) for one_id in ids(first)[:-1] + ids(second)]
    assert numbers == list(range(1, len(numbers) + 1))


# Live sources.


def test_a_camera_that_never_came_has_lost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Second 0 is the first frame, whichever run gets it."""
    run(tmp_path, film(0, live=True))
    later = Moment(Moment.now().wall + 3600)
    monkeypatch.setattr(Moment, "now", staticmethod(lambda: later))
    told, _ = run(tmp_path, film(2, live=True))
    assert [event for event in told if isinstance(event, Gap)] == []
    assert [event.lost_seconds for event in told if isinstance(event, Resumed)] == [0.0]
    assert [event.start for event in told if isinstance(event, Commentary)] == [0.0, 1.0]


def test_a_live_source_goes_on_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = run(tmp_path, film(4, live=True))
    (one,) = tmp_path.iterdir()
    kept = read(one / "snapshot").extra
    earlier = Moment(**kept["moment"])
    monkeypatch.setattr(Moment, "now", staticmethod(lambda: Moment(earlier.wall + 100.0, "", 0.0)))
    second, _ = run(tmp_path, film(4, live=True))
    opened, gap, resumed = second[:3]
    assert isinstance(opened, StreamOpened)
    assert isinstance(gap, Gap)
    assert isinstance(resumed, Resumed)
    assert (gap.start, gap.reason) == (4.0, NOT_RUNNING)
    assert gap.end == pytest.approx(kept["now"] + 100.0)
    assert resumed.time == 4.0
    assert resumed.lost_seconds == gap.end - gap.start
    starts = [start for start, _ in words(second)]
    assert starts == [starts[0] + n for n in range(4)]
    assert starts[0] == int(starts[0])
    assert gap.end <= starts[0] <= gap.end + 1
    assert ids(first) + ids(second) == [f"{kept['epoch']}-{n}" for n in range(1, len(ids(first) + ids(second)) + 1)]


@pytest.mark.parametrize("back", [-1e9, -5.0, 0.0])
def test_a_clock_that_was_set_back_never_takes_time_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: float
) -> None:
    run(tmp_path, film(4, live=True), killed_after=3)
    now = time.time()
    monkeypatch.setattr(Moment, "now", staticmethod(lambda: Moment(now + back, "another", 0.0)))
    second, _ = run(tmp_path, film(3, live=True))
    (gap,) = only(second, Gap)
    assert gap.start == 3.0
    assert gap.end == pytest.approx(3.0, abs=1.0)
    starts = [start for start, _ in words(second)]
    assert starts[0] >= 3.0
    assert starts == sorted(starts)


def test_a_clock_that_was_years_off_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, film(4, live=True))
    now = time.time()
    monkeypatch.setattr(Moment, "now", staticmethod(lambda: Moment(now + 2 * LONGEST_LOSS, "another", 0.0)))
    second, _ = run(tmp_path, film(3, live=True))
    (gap,) = only(second, Gap)
    assert (gap.start, gap.end, gap.reason) == (4.0, 4.0, CLOCK_UNKNOWN)
    assert words(second)[0][0] == 4.0


def test_instructions_of_a_live_stream_hold_from_the_first_step(tmp_path: Path) -> None:
    sink = Kept()

    def before(stream: Stream) -> None:
        def instruct(event: Event) -> None:
            if isinstance(event, Commentary) and event.start == 1.0:
                stream.pipeline.session.instruct("less")

        sink.then = instruct

    run(tmp_path, film(6, live=True), sinks=[sink], before=before, killed_after=4, every=1000.0)
    second, stream = run(tmp_path, film(3, live=True))
    (told,) = only(second, InstructionUpdated)
    assert (told.version, told.text, told.start) == (1, "less", words(second)[0][0])
    assert stream is not None


def test_hours_in_which_a_camera_was_down_are_no_less_when_the_program_is_ended_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uptime = [1000.0]
    monkeypatch.setattr(Moment, "now", staticmethod(lambda: Moment(5000.0, "boot", uptime[0])))
    monkeypatch.setattr(keepers, "_clock", lambda: uptime[0])

    kept = Kept()

    def down(stream: Stream) -> None:
        while len(words(kept.events)) < 3:
            time.sleep(0.002)
        uptime[0] += 10_000.0
        stream.stop()

    run(tmp_path, film(live=True, stuck=3), during=down, sinks=[kept])
    for _ in range(2):  # it is still down when it is started again
        uptime[0] += 100.0
        run(tmp_path, film(live=True, stuck=0), during=lambda stream: (time.sleep(0.02), stream.stop())[1])
        uptime[0] += 1000.0
    told, _ = run(tmp_path, film(2, live=True))
    assert only(told, Gap)[0].end == pytest.approx(3.0 + 10_000 + 2 * 1100, abs=1)
    assert only(told, Gap)[0].start == pytest.approx(3.0 + 10_000 + 1000 + 200, abs=1), "where the last one ended"
    assert only(told, Commentary)[0].start >= 12_203


@pytest.mark.parametrize(
    ("earlier", "later", "seconds"),
    [
        (Moment(100.0, "a", 5.0), Moment(50.0, "a", 8.0), 3.0),
        (Moment(100.0, "a", 5.0), Moment(160.0, "b", 1.0), 60.0),
        (Moment(100.0, "a", 5.0), Moment(90.0, "b", 1.0), 0.0),
        (Moment(100.0), Moment(101.5), 1.5),
        (Moment(100.0), Moment(101.5, "a", 900.0), 1.5),
    ],
)
def test_seconds_between_two_runs(earlier: Moment, later: Moment, seconds: float) -> None:
    assert later.since(earlier) == seconds


def test_a_shifted_source_moves_all_times() -> None:
    class Camera:
        name, context, kind, live = "camera", "", "", True
        closed = False

        def __iter__(self) -> Iterator[Any]:
            chunks = list(ScriptedSource(3))
            yield SourceStatus("connecting")
            yield chunks[0]
            yield Gap(1.0, 2.0, "stalled")
            yield StepInput(chunks[2])

        def close(self) -> None:
            self.closed = True

    camera = Camera()
    status, first, gap, last = Shifted(camera, 100.0)
    assert status == SourceStatus("connecting")
    assert isinstance(first, StepInput)
    assert isinstance(last, StepInput)
    assert (first.chunk.start, first.chunk.end, first.chunk.times) == (100.0, 101.0, (100.0, 100.5))
    assert gap == Gap(101.0, 102.0, "stalled")
    assert last.chunk.start == 102.0
    shifted = Shifted(camera, by_clock(lambda: 57.8, 50.0), gone_on=50.0)
    _, hole, first, *_ = shifted
    assert hole == Gap(50.0, 57.0, NO_PICTURE)
    assert isinstance(first, StepInput)
    assert first.chunk.start == 57.0
    shifted.close()
    assert camera.closed
    *_, gap = Shifted(camera, 100.0, until=101.5)
    assert gap == Gap(101.0, 101.5, "stalled")


# Snapshots while it runs.


def test_snapshots_are_written_beside_the_steps_and_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that hangs keeps no step waiting, and nothing queues up."""
    go, writing = threading.Event(), threading.Event()
    write = keepers.write
    calls: list[str] = []

    def slow(path: Path, taken: Any) -> None:
        calls.append(threading.current_thread().name)
        writing.set()
        go.wait(10)
        write(path, taken)

    monkeypatch.setattr(keepers, "write", slow)
    with StateFolder(tmp_path, every=0.0) as state, Runtime(Engine(ScriptedModel(says))) as runtime:
        one = state.stream("film")
        stream = one.start(runtime, film(50))
        assert stream is not None
        assert stream.wait(10), "it has ended while the first snapshot was being written"
        keeper = one.keeper
        assert keeper is not None
        assert len(calls) == 1
        assert keeper.skipped == 1, "once due, and late since"
        go.set()
        assert state.close()
        assert (len(calls), keeper.written, keeper.failed) == (2, 2, 0)
        assert set(calls) == {"streamingvlm-snapshots"}
    assert read(one.snapshot).time == 50.0
    assert read(one.snapshot).extra["complete"]


def test_what_a_loss_of_power_leaves_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The events are on the disk before the snapshot that knows them, and each with its name in the folder."""
    done: list[str] = []
    sync, replace = os.fsync, os.replace
    folder = tmp_path / folder_name("film")

    def noted(handle: int) -> None:
        number = os.fstat(handle).st_ino
        done.extend(one.name for one in (folder, *folder.iterdir()) if one.stat().st_ino == number)
        sync(handle)

    def renamed(old: Path, new: Path) -> None:
        replace(old, new)
        done.append(f"{old.name} -> {new.name}")

    monkeypatch.setattr(journals, "SYNC", 60.0)  # nothing is synced but for the snapshot
    with StateFolder(tmp_path, every=0.0) as state, Runtime(Engine(ScriptedModel(says))) as runtime:
        monkeypatch.setattr(os, "fsync", noted)
        monkeypatch.setattr(os, "replace", renamed)
        sink = Kept(lambda _: time.sleep(0.02))
        stream = state.start(runtime, "film", film(5), sinks=[sink])
        assert stream is not None
        stream.wait()
    at = done.index("snapshot.part")
    assert done[at - 2 : at + 3] == [
        "events-00000001.jsonl",
        folder.name,
        "snapshot.part",
        "snapshot.part -> snapshot",
        folder.name,
    ]


@pytest.mark.parametrize("fails", ["fsync", "replace", "_write"])
def test_a_snapshot_that_cannot_be_written_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    caplog.set_level(logging.WARNING)
    with StateFolder(tmp_path, every=0.0) as state, Runtime(Engine(ScriptedModel(says))) as runtime:
        one = state.stream("film")

        def full(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(snapshot if fails == "_write" else os, fails, full)
        sink = Kept(lambda _: time.sleep(0.005))
        stream = one.start(runtime, film(10), sinks=[sink])
        assert stream is not None
        stream.wait()
        assert words(sink.events) == WHOLE[:10]
        keeper = one.keeper
        assert keeper is not None
        assert keeper.written == 0
        until = time.monotonic() + 5
        while state.writer.busy and time.monotonic() < until:
            time.sleep(0.005)
        assert keeper.failed >= 2
        monkeypatch.undo()
    told = [record.getMessage() for record in caplog.records]
    told = [line for line in told if "cannot send" not in line]  # the journal's own
    assert len(told) == 1
    assert "cannot write" in told[0]
    assert "No space left on device" in told[0]
    events, _ = run(tmp_path, film(10))
    assert not words(events), "the journal knows what was said"


def test_what_works_again_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fails = [True]
    write = keepers.write

    def sometimes(path: Path, taken: Any) -> None:
        if fails[0]:
            raise OutputError(f"cannot write {path} (No space left on device)")
        write(path, taken)

    monkeypatch.setattr(keepers, "write", sometimes)
    sink = Kept()

    def works_again(event: Event) -> None:
        time.sleep(0.005)
        if isinstance(event, Commentary) and event.start == 5.0:
            fails.clear()
            fails.append(False)

    sink.then = works_again
    run(tmp_path, film(10), sinks=[sink])
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "cannot write" in told[0]
    assert "again" in told[1]


def test_what_cannot_be_taken_ends_no_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    events, stream = run(tmp_path, extras={"bad": lambda: {1, 2}})
    assert words(events) == WHOLE
    assert stream is not None
    assert stream.complete
    assert "no snapshot for" in caplog.text
    assert caplog.text.count("\n") == 1


def test_no_memory_for_a_copy_ends_no_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    def before(stream: Stream) -> None:
        monkeypatch.setattr(stream.pipeline.session, "take", full)

    events, stream = run(tmp_path, before=before)
    assert words(events) == WHOLE
    assert stream is not None
    assert stream.complete
    assert caplog.text.count("\n") == 1
    assert "MemoryError" in caplog.text
    assert not words(run(tmp_path)[0]), "the journal knows what was said"


@pytest.mark.parametrize("jump", [-3600.0, 86400.0])
def test_a_wall_clock_that_is_set_during_a_run_moves_no_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    offset, real = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    camera = "lavfi:testsrc2=size=64x48:rate=20"

    def set_clock(event: Event) -> None:
        if isinstance(event, Commentary) and event.end == 0.5:
            offset[0] = jump

    def open_(_: float | None) -> Any:
        return open_source(camera, step=0.5, fps=4, duration=1.0)

    options = {"pace": Pace.LIVE, "fps": 4.0, "step": 0.5}
    first, _ = run(tmp_path, open_, sinks=[Kept(set_clock)], **options)
    second, _ = run(tmp_path, open_, **options)
    for told in (first, second):
        ends = [0.0, *(one.end for one in only(told, Commentary))]
        assert ends == sorted(ends)
    (hole,) = only(second, Gap)
    assert 1.0 - 1e-6 <= hole.start <= hole.end < 12.0
    assert only(second, Commentary)[0].start >= hole.end - 1e-6
    (one,) = tmp_path.iterdir()
    assert ids(list(read_journal(one))) == ids(first) + ids(second), "nothing of it is lost in the journal"


def test_a_folder_that_is_removed_while_it_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def remove(event: Event) -> None:
        if isinstance(event, Commentary) and event.start == 3.0:
            shutil.rmtree(tmp_path / "state")

    events, stream = run(tmp_path / "state", sinks=[Kept(remove)])
    assert words(events) == WHOLE
    assert stream is not None
    assert stream.complete
    assert "was removed" in caplog.text
    assert run(tmp_path / "state")[1] is None, "what was kept since holds"


def test_a_state_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the folder"):
        StateFolder(tmp_path / "file")


def test_streams_take_their_snapshots_at_different_moments(tmp_path: Path) -> None:
    due = sorted(
        (keepers.Keeper(tmp_path / "s", SnapshotWriter(), every=10.0, number=n)._due - time.monotonic())
        for n in range(8)
    )
    assert due[0] > 0
    assert due[-1] < 10
    assert min(b - a for a, b in itertools.pairwise(due)) > 0.4


# Real disks and sources.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill_up(disk: Path) -> Path:
    """Leave no room on a disk; the file to remove for it."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return filler


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The system itself refuses: the journal and the snapshots come back when there is room again."""
    caplog.set_level(logging.WARNING)

    def fill(event: Event) -> None:
        time.sleep(0.002)
        if isinstance(event, Commentary) and 3.0 <= event.start <= 50.0:
            filler = fill_up(small_disk)
            if event.start == 50.0:
                filler.unlink()

    events, stream = run(small_disk / "state", film(70), sinks=[Kept(fill)])
    assert stream is not None
    assert stream.complete
    assert len(words(events)) == 70
    (one,) = (small_disk / "state").iterdir()
    kept = list(read_journal(one))
    (lost,) = only(kept, Dropped)
    assert lost.count + len(kept) - 1 == len(ids(events))
    told = [record.getMessage() for record in caplog.records]
    assert sum("cannot write" in line and "events-" in line for line in told) == 1
    assert sum("is written again" in line for line in told) == 1
    assert sum("cannot write" in line and "snapshot" in line for line in told) == 1
    assert sum("snapshots are written to" in line for line in told) == 1
    assert len(told) == 4
    assert run(small_disk / "state", film(70))[1] is None


def test_a_disk_that_is_full_or_read_only_at_the_start_is_one_line(small_disk: Path) -> None:
    filler = fill_up(small_disk)
    with pytest.raises(OutputError, match=r"cannot (make|write) .*No space left") as error:
        run(small_disk / "state")
    assert "\n" not in str(error.value)
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OutputError, match=r"cannot (make|write) .*Read-only") as error:
        run(small_disk / "other")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_real_live_source_goes_on(tmp_path: Path) -> None:
    opened: list[float | None] = []

    def open_(at: float | None) -> Any:
        opened.append(at)
        return open_source("lavfi:testsrc2=size=64x48:rate=10", start=at or 0.0, duration=3.0)

    first, _ = run(tmp_path, open_, pace=Pace.LIVE)
    time.sleep(1.5)
    second, stream = run(tmp_path, open_, pace=Pace.LIVE)
    assert stream is not None
    assert opened == [None, None]
    assert len(words(first)) == len(words(second)) == 3
    gap = only(second, Gap)[0]
    assert gap.start == words(first)[-1][0] + 1.0
    assert gap.end >= gap.start + 1.5
    starts = [start for start, _ in words(second)]
    assert starts[0] >= gap.end
    assert starts == [starts[0] + n for n in range(3)]
    late, early = only(second, Commentary)[0], only(first, Commentary)[0]
    passed = late.wall - late.timing.lag - early.wall + early.timing.lag
    assert starts[0] - words(first)[0][0] == pytest.approx(passed, abs=1.0), "stream time is the clock's"
