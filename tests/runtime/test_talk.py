"""Questions to running streams: answered beside the commentary, which stays what it is, to the last bit."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from streamingvlm.core.errors import CapacityError, OptionError, OutputError, SessionError, StreamingVLMError
from streamingvlm.core.events import (
    Answer,
    AnswerDelta,
    Answered,
    Arrival,
    Asked,
    Chunk,
    Closed,
    Commentary,
    Event,
    InstructionUpdated,
    Notice,
    Question,
    StepInput,
)
from streamingvlm.engine import slack
from streamingvlm.engine.engine import Engine
from streamingvlm.runtime import talk as rooms
from streamingvlm.runtime.clock import Pace
from streamingvlm.runtime.limits import ANSWER_SECONDS, ANSWER_TOKENS, QUESTIONS, WEIGHINGS
from streamingvlm.runtime.runtime import Runtime, Stream
from streamingvlm.runtime.talk import Replies
from streamingvlm.testing import ScriptedModel, ScriptedSource
from support import tiny
from support.streams import chunk

POLICIES = ["streaming:vision=3,sink=20,text=20", "public-code", "recent-frames", "sliding-recompute:vision=4"]
QUESTION = Question("who is ahead?", max_new_tokens=12)
LETTERS = Question("who is ahead? A. one; B. two", ("A", "B"))


class Kept:
    def __init__(self, then: Callable[[Event], None] = lambda _: None) -> None:
        self.events: list[Event] = []
        self.then = then

    def write(self, event: Event) -> None:
        self.events.append(event)
        self.then(event)

    def close(self) -> None: ...

    def all(self, *kinds: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def words(self) -> list[tuple[int, ...]]:
        return [event.tokens for event in self.all(Commentary)]

    @property
    def outcomes(self) -> list[str]:
        return [one.error or one.answer.text for one in self.all(Answered)]


class Hand:
    """A live source that yields what is put in by hand, and stands still in between."""

    name, context, kind, live = "camera", "", "", True

    def __init__(self) -> None:
        self.items: list[StepInput | Notice] = []
        self.changed = threading.Condition()
        self.ended = False

    def put(self, *items: StepInput | Notice) -> None:
        with self.changed:
            self.items.extend(items)
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def __iter__(self) -> Iterator[StepInput | Notice]:
        place = 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda at=place: self.ended or len(self.items) > at)  # type: ignore[misc]
                if self.ended and len(self.items) <= place:
                    return
                item = self.items[place]
            place += 1
            yield item


def says(start: float, end: float, _: int) -> str:
    return f"{start:g} to {end:g}"


def answers(turn: str) -> str:
    return "yes, quite" if "sure" in turn else "no"


def model(**options: Any) -> ScriptedModel:
    return ScriptedModel(says, answer=answers, **options)


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime(Engine(model(), slots=4), questions=True) as runtime:
        yield runtime


@pytest.fixture
def hand() -> Hand:
    return Hand()


def step(number: int, **arrival: Any) -> StepInput:
    return StepInput(list(ScriptedSource(number + 1))[number], Arrival(**arrival))


# --- An answer


def test_a_question_is_answered_while_the_stream_waits_for_its_camera(runtime: Runtime, hand: Hand) -> None:
    kept, heard = Kept(), list[str]()
    stream = runtime.start(hand, sinks=[kept], pace=Pace.LIVE)
    hand.put(step(0))
    until(lambda: kept.words)
    ask = stream.ask("are you sure?", heard.append)
    assert "".join(ask) == "yes, quite" == "".join(heard)
    answer = ask.result(20)
    assert (answer.text, answer.time, ask.number, ask.done) == ("yes, quite", 1.0, 1, True)
    assert answer.question.max_new_tokens == ANSWER_TOKENS
    assert "".join(ask) == "yes, quite", "it can be read again"
    ask.cancel()  # nothing happens
    assert stream.ask(replace(LETTERS, options=("no", "yes"))).result(20).text == "no"
    hand.close()
    assert stream.wait(20)
    (asked, second), (done, _) = kept.all(Asked), kept.all(Answered)
    assert (asked.number, asked.text, asked.time, second.number) == (1, "are you sure?", 1.0, 2)
    assert done == rooms.Answered(1, answer)
    places = [kept.events.index(event) for event in (asked, kept.all(AnswerDelta)[0], done)]
    assert places == sorted(places)
    assert {event.number for event in kept.all(AnswerDelta)} == {1}
    assert all(event.id for event in kept.all(Asked, Answered))


def test_the_stream_is_asked_between_two_of_its_steps(runtime: Runtime, hand: Hand) -> None:
    """Parts of a step have been shown: the question waits for its end."""
    stream = runtime.start(hand, sinks=[kept := Kept()], pace=Pace.LIVE, fps=4.0)
    whole = next(iter(ScriptedSource(1, frames=4)))
    first = replace(whole, frames=whole.frames[:2], times=whole.times[:2])
    rest = replace(whole, frames=whole.frames[2:], times=whole.times[2:])
    hand.put(StepInput(first, last=False))
    until(lambda: stream.pipeline.session.state.opened)
    ask = stream.ask("sure?")
    with pytest.raises(TimeoutError, match="no answer within"):
        ask.result(0.05)
    hand.put(StepInput(rest))
    assert ask.result(20).time == 1.0
    assert kept.all(Asked)[0].time == 0.0


def test_a_question_that_comes_from_a_sink(runtime: Runtime) -> None:
    """On the engine's thread: it is taken on there, and cannot be waited for."""
    asks: list[Any] = []

    def ask(event: Event) -> None:
        if isinstance(event, Commentary) and event.start == 1:
            asks.append(streams[0].ask("sure?"))
            for wait in (asks[0].result, lambda: next(iter(asks[0]))):
                with pytest.raises(SessionError, match="cannot wait"):
                    wait()

    streams: list[Stream] = []
    source = ScriptedSource(40, stuck=39)  # the stream is still there when the answer comes
    runtime.call(lambda: streams.append(runtime.start(source, sinks=[Kept(ask)])))
    until(lambda: asks)
    assert asks[0].result(20).time >= 2.0


# --- The commentary


def quiet_and_asked(make: Callable[[], Any], policy: str, ask: Callable[[Runtime, Stream, int], None]) -> list[Kept]:
    """What a stream is told without questions, and where ``ask`` is called behind each of its steps."""
    out = []
    for questions in (False, True):
        kept = Kept()
        with Runtime(Engine(make(), slots=3), questions=questions) as runtime:
            streams: list[Stream] = []

            def behind(_: object, asked=questions, streams=streams, runtime=runtime) -> None:  # type: ignore[no-untyped-def]
                if asked and streams:
                    ask(runtime, streams[0], streams[0].stats.steps)

            def start(kept=kept, streams=streams, runtime=runtime, behind=behind) -> None:  # type: ignore[no-untyped-def]
                source = Listed([chunk(index) for index in range(9)])
                streams.append(
                    runtime.start(source, sinks=[kept], pace=Pace.INLINE, policy=policy, on_step=behind, seed=3)
                )

            runtime.call(start)
            runtime.wait()
        out.append(kept)
    return out


class Listed:
    name, context, kind, live = "list", "", "", False

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.chunks)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_the_commentary_is_the_same_to_the_last_bit(family: str, policy: str) -> None:
    checkpoint = tiny.model(family=family)
    cancelled = []

    def ask(runtime: Runtime, stream: Stream, number: int) -> None:
        one = stream.ask(QUESTION)
        if number % 3 == 2:
            one.cancel()
        if number % 3 == 1:
            cancelled.append(one)
        if number == 7:
            cancelled[0].cancel()
        runtime.talk.weigh(stream.pipeline, [LETTERS, LETTERS], lambda _: None)

    quiet, asked = quiet_and_asked(lambda: checkpoint, policy, ask)
    assert asked.words == quiet.words
    assert len(asked.words) == 9
    assert [one.rows for one in asked.all(Commentary)] == [one.rows for one in quiet.all(Commentary)]
    assert len(asked.outcomes) == 9
    assert sum(not one.error for one in asked.all(Answered)) >= 3


def test_with_faults_in_the_fork_too() -> None:
    """Whatever is raised for the spare slot, in the batch with the step, ends the question alone."""
    faults = iter([RuntimeError("the device\nis tired"), ValueError(), None, CapacityError("too much")] * 9)
    spare: list[int] = []

    class Faulty(ScriptedModel):
        def forward(self, embeds, batch, deepstack=None):  # type: ignore[no-untyped-def]
            if any(segment.slot in spare for segment in batch.segments) and len(batch.segments) == 1:
                if (fault := next(faults)) is not None:
                    raise fault
            elif any(segment.slot in spare for segment in batch.segments):
                raise RuntimeError("in company")  # it is run again one by one
            return super().forward(embeds, batch, deepstack)

    def ask(runtime: Runtime, stream: Stream, _: int) -> None:
        assert runtime.talk._fork is not None
        spare[:] = [runtime.talk._fork._stream.slot]
        stream.ask("sure?")

    quiet, asked = quiet_and_asked(lambda: Faulty(says, answer=answers), "streaming", ask)
    assert asked.words == quiet.words
    assert len(asked.outcomes) == 9
    assert {"the question has failed: the device", "the question has failed: ValueError", "too much"} <= {
        *asked.outcomes
    }


def test_a_slot_that_a_fault_has_taken_is_opened_again(runtime: Runtime, hand: Hand) -> None:
    stream = runtime.start(hand, sinks=[Kept()], pace=Pace.LIVE)
    assert stream.ask("sure?").result(20)
    runtime.call(lambda: runtime.talk._fork.close())  # type: ignore[union-attr]
    assert stream.ask("sure?").result(20).text == "yes, quite"


def test_a_listener_that_raises_ends_its_question_alone(runtime: Runtime, hand: Hand) -> None:
    def breaks(_: str) -> None:
        raise ValueError("no ears")

    stream = runtime.start(hand, sinks=[kept := Kept()], pace=Pace.LIVE)
    with pytest.raises(SessionError, match="the question has failed: no ears"):
        stream.ask("sure?", breaks).result(20)
    assert stream.ask("sure?").result(20)
    hand.put(step(0))
    until(lambda: kept.words)


def test_a_sink_that_fails_at_a_question_ends_its_stream_alone(runtime: Runtime) -> None:
    def full(event: Event) -> None:
        if isinstance(event, Answered):
            raise OutputError("the disk is full")

    bad = runtime.start(Hand(), sinks=[Kept(full)], pace=Pace.LIVE)
    good = runtime.start(Hand(), sinks=[kept := Kept()], pace=Pace.LIVE)
    asks = [bad.ask("sure?"), good.ask("sure?")]
    with pytest.raises(OutputError):
        bad.wait(20)
    assert asks[1].result(20).text == "yes, quite"
    assert kept.outcomes == ["yes, quite"]


# --- Bounds


def test_without_a_spare_slot_nothing_can_be_asked() -> None:
    replies: list[Replies] = []
    with Runtime(Engine(model(), slots=2)) as runtime:
        stream = runtime.start(Hand(), pace=Pace.LIVE)
        with pytest.raises(CapacityError, match=r"Runtime\(engine, questions=True\)"):
            stream.ask("sure?")
        runtime.call(lambda: runtime.talk.weigh(stream.pipeline, [LETTERS], replies.append))
        until(lambda: replies)
        assert isinstance(replies[0][0], CapacityError)
    with pytest.raises(OptionError, match="2 slots or more"):
        Runtime(Engine(model()), questions=True)


def test_one_slot_is_kept_from_the_first_stream_on() -> None:
    with Runtime(Engine(model(), slots=3), questions=True) as runtime:
        streams = [runtime.start(Hand(), pace=Pace.LIVE) for _ in range(2)]
        with pytest.raises(CapacityError, match="all 3 slots are taken"):
            runtime.start(Hand(), pace=Pace.LIVE)
        streams[0].stop()
        runtime.start(Hand(), pace=Pace.LIVE)
        assert streams[1].ask("sure?").result(20)
    with Runtime(Engine(model(), slots=2), questions=True) as runtime:
        sessions = runtime.call(lambda: [runtime.engine.open() for _ in range(2)])
        with pytest.raises(CapacityError, match="no room for questions: all 2 slots are taken"):
            runtime.start(Hand(), session=sessions[0])
        runtime.call(sessions[1].close)
        assert runtime.start(Hand(), session=sessions[0]).ask("sure?").result(20)


def test_a_larger_stream_gets_a_larger_spare_slot(runtime: Runtime) -> None:
    small = runtime.start(Hand(), pace=Pace.LIVE, policy="streaming:vision=2,sink=8,text=8")
    before = small.ask("sure?").result(20)
    large = runtime.start(Hand(), pace=Pace.LIVE, policy="streaming:vision=40,turns=40")
    assert large.ask("sure?").result(20).tokens == small.ask("sure?").result(20).tokens == before.tokens


REFUSED = [
    ("x" * 600, CapacityError, "at most 512 fit"),
    (" \n", OptionError, "needs words"),
    (Question("sure?", max_new_tokens=129), CapacityError, "an answer of 129 tokens"),
    (Question("sure?", ("a", "a")), OptionError, "different texts"),
    ("\ud800", OptionError, "not text in Unicode"),
]


@pytest.mark.parametrize(("question", "error", "text"), REFUSED)
def test_what_cannot_be_asked_is_refused_at_once(
    runtime: Runtime, question: str | Question, error: type[Exception], text: str
) -> None:
    stream = runtime.start(Hand(), sinks=[kept := Kept()], pace=Pace.LIVE)
    with pytest.raises(error, match=text):
        stream.ask(question)
    assert stream.ask("sure?").number == 1
    assert len(kept.all(Asked)) == 1


def test_a_streams_queue_is_bounded(runtime: Runtime) -> None:
    full, other = (runtime.start(Hand(), pace=Pace.LIVE) for _ in range(2))

    def flood() -> list[Any]:
        asks = [full.ask(f"sure {number}?") for number in range(QUESTIONS)]
        with pytest.raises(CapacityError, match=f"{QUESTIONS} questions to this stream wait"):
            full.ask("one more?")
        return [*asks, other.ask("sure?")]

    asks = runtime.call(flood)
    assert [ask.number for ask in asks] == [*range(1, QUESTIONS + 1), 1]
    assert all(ask.result(20).text == "yes, quite" for ask in asks)
    assert full.ask("again?").number == QUESTIONS + 1


class Late:
    """A clock that is moved on by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.perf_counter() + self.ahead


def test_a_question_has_thirty_seconds(runtime: Runtime, hand: Hand) -> None:
    """Of a step only a part has come, and the camera is dead."""
    runtime.talk.clock = clock = Late()
    replies: list[Replies] = []
    stream = runtime.start(hand, sinks=[kept := Kept()], pace=Pace.LIVE)
    hand.put(StepInput(step(0).chunk, last=False))
    until(lambda: stream.pipeline.session.state.opened)
    ask = stream.ask("sure?")
    runtime.call(lambda: runtime.talk.weigh(stream.pipeline, [LETTERS], replies.append))
    clock.ahead = ANSWER_SECONDS - 1
    with pytest.raises(TimeoutError):
        ask.result(0.05)
    clock.ahead = ANSWER_SECONDS + 1
    with pytest.raises(SessionError, match="too late"):
        ask.result(20)
    until(lambda: replies)
    assert "too late" in str(replies[0][0])
    assert "too late" in kept.outcomes[0]
    assert not stream.ended


def test_a_question_that_is_being_answered_can_be_cancelled_and_come_too_late() -> None:
    for late in (False, True):
        with Runtime(Engine(model(decode_seconds=0.02), slots=2), questions=True) as runtime:
            runtime.talk.clock = clock = Late()
            stream = runtime.start(Hand(), sinks=[kept := Kept()], pace=Pace.LIVE)
            ask = stream.ask("sure?")
            assert next(iter(ask)) == "ye"
            if late:
                clock.ahead = ANSWER_SECONDS
            else:
                ask.cancel()
            with pytest.raises(SessionError, match="too late" if late else "cancelled") as first:
                ask.result(20)
            with pytest.raises(SessionError) as again:
                list(ask)
            assert first.value is again.value
            assert kept.outcomes == [str(first.value)]
            assert stream.ask("sure?").result(20).text == "yes, quite"


# --- Ends


def test_a_streams_questions_end_with_it_and_are_told_before_its_end(runtime: Runtime) -> None:
    stream = runtime.start(Hand(), sinks=[kept := Kept()], pace=Pace.LIVE)
    other = runtime.start(Hand(), pace=Pace.LIVE)
    replies: list[Replies] = []

    def leave() -> list[Any]:
        asks = [stream.ask("sure?"), other.ask("sure?"), stream.ask("really?")]
        runtime.talk.weigh(stream.pipeline, [LETTERS] * 2, replies.append)
        stream.stop()
        return asks

    asks = runtime.call(leave)
    for ask in asks[::2]:
        with pytest.raises(SessionError, match="the stream has ended"):
            ask.result(20)
    assert asks[1].result(20)
    assert kept.outcomes == ["the stream has ended"] * 2
    assert isinstance(kept.events[-1], Closed)
    assert [str(one) for one in replies[0]] == ["the stream has ended"] * 2
    with pytest.raises(SessionError, match="nothing to ask"):
        stream.ask("sure?")
    runtime.call(lambda: runtime.talk.weigh(stream.pipeline, [LETTERS], replies.append))
    until(lambda: len(replies) == 2)
    assert isinstance(replies[1][0], SessionError)


def test_a_runtime_that_closes_leaves_nobody_waiting() -> None:
    engine = Engine(model(decode_seconds=0.02), slots=3)
    replies: list[Replies] = []
    with Runtime(engine, questions=True) as runtime:
        streams = [runtime.start(Hand(), pace=Pace.LIVE) for _ in range(2)]
        asks = [stream.ask(f"sure {number}?") for stream in streams for number in range(3)]
        runtime.call(lambda: runtime.talk.weigh(streams[0].pipeline, [LETTERS], replies.append))
    for ask in asks:
        with pytest.raises(SessionError, match="ended"):
            ask.result(20)
        ask.cancel()
    assert len(replies) == 1
    with pytest.raises(SessionError, match="closed"):
        streams[0].ask("sure?")
    assert sorted(engine.pool._free) == [0, 1, 2]


# --- Rules


def test_a_batch_is_asked_on_one_copy_behind_people(runtime: Runtime) -> None:
    replies: list[Replies] = []
    stream = runtime.start(ScriptedSource(400), sinks=[kept := Kept()])
    order: list[str] = []

    def both() -> Any:
        questions = [replace(LETTERS, text=text) for text in ("sure?", "x" * 600, "well?")]
        questions = [replace(one, options=("yes, quite", "no")) for one in questions]
        runtime.talk.weigh(stream.pipeline, questions, lambda all_: (replies.append(all_), order.append("rule")))
        return stream.ask("sure?", lambda _: order.append("person"))

    ask = runtime.call(both)
    ask.result(20)
    until(lambda: replies)
    first, second, third = replies[0]
    assert isinstance(first, Answer)
    assert isinstance(third, Answer)
    assert isinstance(second, CapacityError)
    assert (first.text, third.text, first.time) == ("yes, quite", "no", third.time)
    assert order.index("rule") == len(order) - 1
    assert len(kept.all(Asked)) == 1, "what rules ask is told nobody"
    stream.stop()


def test_a_batch_without_questions_and_one_too_many(runtime: Runtime) -> None:
    replies: list[tuple[str, Replies]] = []
    stream = runtime.start(Hand(), pace=Pace.LIVE)

    def fill() -> None:
        runtime.talk.weigh(stream.pipeline, [], lambda all_: replies.append(("empty", all_)))
        for number in range(WEIGHINGS):
            runtime.talk.weigh(stream.pipeline, [LETTERS], lambda all_, name=str(number): replies.append((name, all_)))
        assert not replies, "nobody is called back within the call"

    runtime.call(fill)
    until(lambda: len(replies) == WEIGHINGS + 1)
    found = dict(replies)
    assert found["empty"] == []
    assert isinstance(found[str(WEIGHINGS - 1)][0], CapacityError)
    assert all(isinstance(found[str(number)][0], Answer) for number in range(WEIGHINGS - 1))


def test_who_asks_again_when_called_back_is_answered_again(runtime: Runtime) -> None:
    times: list[float] = []
    stream = runtime.start(ScriptedSource(30, stuck=29), pace=Pace.FAST)

    def again(replies: Replies) -> None:
        (reply,) = replies
        assert isinstance(reply, Answer)
        times.append(reply.time)
        if len(times) < 4:
            runtime.talk.weigh(stream.pipeline, [LETTERS], again)

    runtime.call(lambda: runtime.talk.weigh(stream.pipeline, [LETTERS], again))
    until(lambda: len(times) == 4)
    assert times == sorted(times)


def test_who_asks_again_when_refused_keeps_nobody_waiting(runtime: Runtime) -> None:
    """Also where the runtime closes: whoever was told that nothing can be asked asks again, for ever."""
    stream, calls = runtime.start(Hand(), pace=Pace.LIVE), list[Replies]()
    stream.stop()

    def again(replies: Replies) -> None:
        calls.append(replies)
        if len(calls) < 5000:
            runtime.talk.weigh(stream.pipeline, [LETTERS], again)

    runtime.call(lambda: runtime.talk.weigh(stream.pipeline, [LETTERS], again))
    until(lambda: calls)
    assert runtime.call(lambda: len(calls)) < 4000, "the engine's thread does other things between"
    runtime.close()
    assert not runtime._thread.is_alive()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_that_a_listener_raises_ends_no_stream(runtime: Runtime, kind: type[BaseException]) -> None:
    asked, other, ruled = (runtime.start(Hand(), pace=Pace.LIVE) for _ in range(3))

    def leave(_: object) -> None:
        raise kind("enough")

    with pytest.raises(SessionError, match="enough"):
        asked.ask("sure?", leave).result(20)
    runtime.call(lambda: runtime.talk.weigh(ruled.pipeline, [LETTERS], leave))
    with pytest.raises(kind, match="enough"):
        ruled.wait(20)
    assert asked.ask("sure?").result(20)
    assert other.ask("sure?").result(20)


def test_a_rule_that_fails_when_called_back_ends_its_stream_alone(runtime: Runtime) -> None:
    bad, good = (runtime.start(Hand(), pace=Pace.LIVE) for _ in range(2))

    def breaks(_: Replies) -> None:
        raise ValueError("no such rule")

    runtime.call(lambda: runtime.talk.weigh(bad.pipeline, [LETTERS], breaks))
    with pytest.raises(ValueError, match="no such rule"):
        bad.wait(20)
    assert good.ask("sure?").result(20)


# --- Everything at once


def storm(runtime: Runtime, stream: Stream, seed: int) -> list[Any]:
    """Ask, cancel, instruct, weigh, open and close at random."""
    dice, asks = random.Random(seed), []
    for _ in range(13):
        act = dice.choice(["ask", "ask", "ask", "cancel", "instruct", "weigh", "open", "read"])
        try:
            if act == "ask":
                asks.append(stream.ask(dice.choice(["sure?", "well?", QUESTION, LETTERS])))
            elif act == "instruct":
                stream.instruct(f"say {seed}")
            elif act == "weigh":
                runtime.call(lambda: runtime.talk.weigh(stream.pipeline, [LETTERS], lambda _: None))
            elif act == "open":
                other = runtime.start(ScriptedSource(2), policy=dice.choice(["streaming", "streaming:vision=30"]))
                asks.append(other.ask("sure?"))
                other.stop()
            elif asks and act == "cancel":
                dice.choice(asks).cancel()
            elif asks:
                dice.choice(asks).result(dice.random() * 0.01)
        except (StreamingVLMError, TimeoutError):
            continue
        time.sleep(dice.random() * 0.005)
    return asks


def test_two_hundred_commands_of_sixteen_threads() -> None:
    engine = Engine(model(decode_seconds=0.0005), slots=4)
    kept = [Kept(), Kept()]
    with Runtime(engine, questions=True) as runtime:
        streams = [runtime.start(ScriptedSource(60), sinks=[sink]) for sink in kept]
        with ThreadPoolExecutor(16) as pool:
            jobs = [pool.submit(storm, runtime, streams[seed % 2], seed) for seed in range(16)]
            asks = [ask for job in jobs for ask in job.result(30)]
        for stream in streams:
            assert stream.wait(20)
        until(lambda: all(ask.done for ask in asks))
        until(lambda: runtime.talk.rest is None)
        until(lambda: len(engine.pool._free) == 3)
    for sink in kept:
        assert [one.text for one in sink.all(Commentary)] == [says(n, n + 1, 1) for n in range(60)]
        asked, ended = ([one.number for one in sink.all(kind)] for kind in (Asked, Answered))
        assert asked == list(range(1, len(asked) + 1))
        assert sorted(ended) == asked, "every question ends once"
        for one in sink.all(Answered):
            assert one.error or one.answer.text in ("yes, quite", "no", "A", "B")
        versions = [one.version for one in sink.all(InstructionUpdated)]
        assert versions == sorted(versions)
        assert isinstance(sink.events[-1], Closed)


# --- Lag


def test_live_steps_do_not_wait_for_answers(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long answer in the slack of a live stream: no round of a step has it in its batch."""
    for bound in ("PATIENCE", "TOTAL_PATIENCE"):
        monkeypatch.setattr(slack, bound, 600.0)  # a busy machine may take its time
    monkeypatch.setattr(rooms, "ANSWER_SECONDS", 600.0)
    together: list[int] = []
    streams: list[Stream] = []
    kept = Kept()

    class Seen(ScriptedModel):
        def forward(self, embeds, batch, deepstack=None):  # type: ignore[no-untyped-def]
            slots = {segment.slot for segment in batch.segments}
            together.append(len(slots))
            out = super().forward(embeds, batch, deepstack)
            asked = bool(streams) and streams[0].pipeline.session.stream.slot not in slots
            if asked and len(kept.words) == len(hand.items) < 4:
                hand.put(step(len(kept.words)))  # a step comes while the answer is under way
                until(lambda: streams[0].pipeline._feed._box.step_waits)
            return out

    slow = Seen(lambda *_: "step", answer=lambda _: "word " * 24, decode_seconds=0.002)
    with Runtime(Engine(slow, slots=2), questions=True) as runtime:
        streams.append(runtime.start(hand, sinks=[kept], pace=Pace.LIVE))
        hand.put(step(0))
        until(lambda: kept.words)
        ask = streams[0].ask(Question("sure?", max_new_tokens=ANSWER_TOKENS))
        assert ask.result(120).finish_reason == "stop"
        assert len(kept.words) == 4
    assert set(together) == {1}
    first, last = (kept.events.index(kept.all(kind)[0]) for kind in (AnswerDelta, Answered))
    assert sum(isinstance(one, Commentary) for one in kept.events[first:last]) >= 2, "the stream went on meanwhile"
