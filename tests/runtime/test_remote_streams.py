"""Streams that a model behind an endpoint watches: the runtime over the real protocol, with a server that fails."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamingvlm.core.errors import (
    CapacityError,
    EndpointError,
    OptionError,
    SessionError,
    StreamingVLMError,
)
from streamingvlm.core.events import (
    Alert,
    AnswerDelta,
    Answered,
    Arrival,
    Asked,
    Chunk,
    Closed,
    Commentary,
    Delta,
    Event,
    InstructionUpdated,
    Question,
    SourceStatus,
    StepFailed,
    StepInput,
)
from streamingvlm.engine.endpoint import Completion, Endpoint
from streamingvlm.engine.remote import RemoteOptions
from streamingvlm.engine.remote_call import Retreat
from streamingvlm.engine.remote_engine import LEFT_BEHIND, RemoteEngine
from streamingvlm.engine.snapshot import REMOTE, SnapshotError, Taken, read, write
from streamingvlm.runtime.clock import Pace
from streamingvlm.runtime.keeper import Keeper, SnapshotWriter
from streamingvlm.runtime.rules import AskedRule
from streamingvlm.runtime.runtime import Runtime, Stream
from streamingvlm.runtime.talk import Ask
from support import media
from support.chat_server import ChatServer, Fault, broken, hang_up, images, malformed, refusal, slow, texts, too_many

PLAIN = RemoteOptions(seconds=8, instruction="Call the game.")
Request = Mapping[str, Any]


def step(number: int) -> Chunk:
    """One flat frame, whose grey tells its number."""
    return Chunk(media.flat(number, 64, 48)[None], (float(number),), float(number), number + 1.0)


class Video:
    """``count`` steps of a second; live: one every ``pace`` seconds. ``told``: when each was handed out."""

    name, context, kind = "video", "Cup final", ""

    def __init__(self, count: int, pace: float | None = None, first: int = 0) -> None:
        self.count, self.pace, self.first, self.live = count, pace, first, pace is not None
        self.told: list[float] = []
        self.stopped = False

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.first, self.first + self.count):
            if self.stopped:
                return
            if self.pace is not None:
                time.sleep(self.pace)
            self.told.append(time.perf_counter())
            yield StepInput(step(number), Arrival(ready_at=self.told[-1])) if self.live else step(number)

    def close(self) -> None:
        self.stopped = True


class Kept:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None: ...

    def of(self, *kinds: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def outcomes(self) -> list[str]:
        """Of the steps, in order: a text, or what has gone wrong."""
        return [
            event.text if isinstance(event, Commentary) else event.code for event in self.of(Commentary, StepFailed)
        ]


def numbers(request: Request) -> list[int]:
    """Which frames a request shows, in its order."""
    found = []
    for url in images(request):
        data = base64.b64decode(url.partition(",")[2])
        (frame,) = av.CodecContext.create("mjpeg", "r").decode(av.Packet(data))
        found.append(media.index_of(frame.to_ndarray(format="rgb24")))
    return found


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


def engine_of(server: ChatServer, options: RemoteOptions = PLAIN, **more: Any) -> RemoteEngine:
    known = {"deadline": 5.0, "pause": 0.01} | more
    endpoint = Endpoint(server.url, "m", key=known.pop("key", None), timeout=known.pop("timeout", 5.0))
    return RemoteEngine(endpoint, options, **known)


def watch(server: ChatServer, video: Video, kept: Kept, pace: Pace = Pace.LIVE, **more: Any) -> Stream:
    """To the end of the video."""
    with Runtime(engine_of(server, **more)) as runtime:
        stream = runtime.start(video, sinks=[kept], pace=pace, context=video.context)
        stream.wait_ended()
    return stream


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.perf_counter() + seconds
    while not true():
        assert time.perf_counter() < end, "it never comes"
        time.sleep(0.005)


def sleepy(seconds: float) -> Callable[[Request], str]:
    def reply(_: Request) -> str:
        time.sleep(seconds)
        return "words"

    return reply


def test_a_file_step_by_step(server: ChatServer) -> None:
    server.reply = lambda request: f"{len(images(request))} seen"
    kept = Kept()
    stream = watch(server, Video(4), kept, Pace.FAST)
    assert stream.complete
    assert kept.outcomes == ["1 seen", "2 seen", "3 seen", "4 seen"]
    assert [numbers(request) for request in server.requests] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert "Cup final" in texts(server.requests[0])[0]
    assert texts(server.requests[3])[1] == "You have said so far: 1 seen 2 seen 3 seen"
    assert "".join(event.text for event in kept.of(Delta)) == "".join(kept.outcomes)
    assert [event.id.rpartition("-")[2] for event in kept.events if event.id] == [str(number) for number in range(1, 7)]
    assert (stream.stats.steps, stream.stats.dropped, stream.stats.failed) == (4, 0, 0)
    assert not any("cache" in line for line in stream.stats.summary())


def test_what_is_late_is_dropped_and_counted_and_still_seen(server: ChatServer) -> None:
    """Of a server that takes five steps' time, with the age of what it is shown."""
    video, kept, ages = Video(40, 0.02), Kept(), []

    def reply(request: Request) -> str:
        ages.append(len(video.told) - 1 - numbers(request)[-1])
        time.sleep(0.1)
        return "words"

    server.reply = reply
    stream = watch(server, video, kept)
    said = kept.of(Commentary)
    assert len(said) + sum(event.dropped for event in said) == 40
    assert 4 <= len(said) <= 12
    assert max(ages) <= 1
    assert said[-1].start == 39
    for request in server.requests:
        shown = numbers(request)
        assert shown == list(range(max(0, shown[-1] - 7), shown[-1] + 1))
    assert all(event.timing.lag < 0.35 for event in said)
    assert stream.stats.dropped == sum(event.dropped for event in said)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (too_many(), "rate_limit"),
        (broken(), "server"),
        (broken(503), "server"),
        (refusal(400, "A picture is broken."), "bad_request"),
        (hang_up(), "connection"),
        (malformed("<html>"), "malformed"),
        (Fault(cut=2), "connection"),
    ],
)
def test_a_failed_step_is_told_and_the_stream_goes_on(server: ChatServer, fault: Fault, code: str) -> None:
    server.faults += [fault]
    server.reply = lambda _: "one two three"
    kept = Kept()
    stream = watch(server, Video(8, 0.03), kept)
    assert stream.complete
    assert kept.outcomes[0] == code
    assert set(kept.outcomes[1:]) == {"one two three"}
    failed, *said = kept.of(StepFailed, Commentary)
    assert (failed.start, failed.end, failed.tries) == (0, 1, 1)
    assert failed.retry_in > 0
    assert "\n" not in failed.reason
    assert 1 + len(said) + sum(event.dropped for event in (failed, *said)) == 8
    assert numbers(server.requests[1])[0] == 0, "what a failed step showed goes with the next one"
    assert "said so far" not in "".join(texts(server.requests[1])), "what came of a failed reply does not count"


def test_no_answer_for_long(server: ChatServer) -> None:
    server.faults += [slow(3)]
    kept = Kept()
    began = time.perf_counter()
    stream = watch(server, Video(12, 0.05), kept, deadline=0.2)
    assert time.perf_counter() - began < 2
    assert kept.outcomes[0] == "timeout"
    assert set(kept.outcomes[1:]) == {"ok"}
    assert "no answer within 0.2 s" in kept.of(StepFailed)[0].reason
    assert stream.complete


def test_a_reply_that_drips_is_too_late_as_well(server: ChatServer) -> None:
    server.faults += [Fault(cut=3, stall=3)]
    server.reply = lambda _: "one two three four"
    kept = Kept()
    watch(server, Video(8, 0.05), kept, deadline=0.15)
    assert kept.outcomes[0] == "timeout"
    assert kept.outcomes[-1] == "one two three four"
    assert "".join(event.text for event in kept.of(Delta) if event.start == 0) == "one two"


def test_calls_that_hang_are_not_heaped_up(server: ChatServer) -> None:
    """Calls that not even their own time-outs end; when they do, the stream goes on."""
    kept, over, calls = Kept(), threading.Event(), []
    engine = engine_of(server, deadline=0.03, pause=0.001)
    chat = engine.endpoint.chat

    def hang(*told: Any, **how: Any) -> Completion:
        calls.append(told)
        over.wait(5)
        return chat(*told, **how)

    engine.endpoint.chat = hang  # type: ignore[method-assign]
    with Runtime(engine) as runtime:
        stream = runtime.start(Video(40, 0.02), sinks=[kept], pace=Pace.LIVE)
        until(lambda: len(kept.of(StepFailed)) == LEFT_BEHIND)
        time.sleep(0.2)
        assert len(calls) == LEFT_BEHIND
        over.set()
        stream.wait()
    assert server.requests, "the stream goes on"
    assert kept.outcomes[-1] == "ok"
    assert all(len(request["messages"]) == 1 for request in server.requests)


def test_a_server_that_is_down_for_long(server: ChatServer) -> None:
    """The pauses grow; the pictures of all that was not asked go with the first call that comes through."""
    server.faults += [broken()] * 4
    kept = Kept()
    watch(server, Video(30, 0.02), kept, pause=0.02)
    failed, said = kept.of(StepFailed), kept.of(Commentary)
    assert [event.tries for event in failed] == [1, 2, 3, 4]
    assert all(0.8 * 0.02 * 2**n <= event.retry_in <= 1.2 * 0.02 * 2**n for n, event in enumerate(failed))
    assert len(failed) + len(said) + sum(event.dropped for event in (*failed, *said)) == 30
    shown = numbers(server.requests[4])
    assert len(shown) == 8
    assert shown == list(range(shown[0], shown[0] + 8))


def test_what_a_source_tells_does_not_wait_for_a_pause(server: ChatServer) -> None:
    class Camera(Video):
        def __iter__(self) -> Iterator[Any]:
            yield from Video.__iter__(self)
            until(lambda: bool(kept.of(StepFailed)))
            yield SourceStatus("reconnecting", "timeout")
            until(lambda: bool(kept.of(SourceStatus)))

    server.faults += [broken()]
    kept = Kept()
    began = time.perf_counter()
    stream = watch(server, Camera(1, 0.01), kept, pause=60)
    assert time.perf_counter() - began < 2
    assert stream.complete
    assert [type(event) for event in kept.of(StepFailed, SourceStatus, Closed)] == [StepFailed, SourceStatus, Closed]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (refusal(401, "Incorrect API key."), "key is missing, wrong"),
        (refusal(404, "The model does not exist.", code="model_not_found"), "no such model"),
        (refusal(400, "Unsupported parameter: 'seed'.", param="seed"), "a parameter is refused"),
    ],
)
def test_what_will_not_pass_ends_the_stream_at_its_first_step(server: ChatServer, fault: Fault, said: str) -> None:
    server.faults += [fault]
    kept = Kept()
    stream = watch(server, Video(4, 0.01), kept, options=replace(PLAIN, params={"seed": 1}))
    assert isinstance(stream.error, EndpointError)
    assert kept.outcomes == []
    (closed,) = kept.of(Closed)
    assert said in closed.error
    assert "\n" not in closed.error
    assert len(server.requests) == 1


def test_a_key_that_is_withdrawn_later_ends_nothing(server: ChatServer) -> None:
    server.faults += [Fault(), refusal(401, "Incorrect API key.")]
    kept = Kept()
    assert watch(server, Video(8, 0.02), kept).complete
    assert [one for one in kept.outcomes if one != "ok"] == ["auth"]
    assert kept.outcomes[-1] == "ok"


def test_a_model_that_declines_is_asked_again_at_once(server: ChatServer) -> None:
    server.faults += [malformed('{"choices": [{"message": {"content": null, "refusal": "I will not."}}]}')]
    kept = Kept()
    with Runtime(engine_of(server, pause=30)) as runtime:
        # Without deltas a reply is not streamed, as where a resumed stream is told what it has said already.
        runtime.start(Video(2), sinks=[kept], pace=Pace.FAST, said_until=9.0).wait()
    (failed,) = kept.of(StepFailed)
    assert (failed.code, failed.retry_in) == ("no_text", 0)


def test_a_file_waits_where_a_camera_would_go_on(server: ChatServer) -> None:
    server.faults += [too_many(0.01), broken()]
    kept = Kept()
    stream = watch(server, Video(3), kept, Pace.FAST)
    assert kept.outcomes == ["ok"] * 3
    assert (stream.stats.dropped, len(server.requests)) == (0, 5)


def test_two_streams_at_once(server: ChatServer) -> None:
    server.reply = sleepy(0.05)
    one, other = Kept(), Kept()
    with Runtime(engine_of(server)) as runtime:
        streams = [runtime.start(Video(6), sinks=[kept], pace=Pace.FAST) for kept in (one, other)]
        began = time.perf_counter()
        runtime.wait()
    assert time.perf_counter() - began < 0.55
    assert one.outcomes == other.outcomes == ["words"] * 6
    assert all(stream.complete for stream in streams)
    assert server.most_at_once == 2


def test_a_fault_stays_in_its_stream(server: ChatServer) -> None:
    """One hangs, the video of another one runs backwards; the third does not notice."""

    class Backwards(Video):
        def __iter__(self) -> Iterator[Any]:
            return iter([step(5), step(2)])

    server.reply = lambda request: sleepy(2)(request) if "hang" in texts(request)[-1] else "ok"
    kept = Kept()
    with Runtime(engine_of(server)) as runtime:
        runtime.start(Video(3), pace=Pace.FAST, instruction="hang")
        stream = runtime.start(Backwards(2), pace=Pace.FAST)
        with pytest.raises(ValueError, match="cannot follow"):
            stream.wait()
        runtime.start(Video(3), sinks=[kept], pace=Pace.FAST).wait()
    assert kept.outcomes == ["ok"] * 3


@pytest.mark.parametrize("fault", [slow(5), Fault(cut=1, stall=5)])
def test_closing_does_not_wait_for_a_call_that_hangs(server: ChatServer, fault: Fault) -> None:
    server.faults += [fault]
    kept = Kept()
    runtime = Runtime(engine_of(server))
    stream = runtime.start(Video(100, 0.02), sinks=[kept], pace=Pace.LIVE)
    until(lambda: bool(server.requests))
    began = time.perf_counter()
    runtime.close()
    assert time.perf_counter() - began < 0.9
    assert stream.ended
    assert len(kept.of(Closed)) == 1
    assert kept.outcomes == []


def test_the_loop_sleeps_while_calls_are_under_way(server: ChatServer) -> None:
    server.reply = sleepy(0.2)
    with Runtime(engine_of(server)) as runtime:
        runtime.start(Video(2), pace=Pace.FAST).wait()
        assert runtime.load.busy < 0.1
        assert runtime.load.idle > 0.3


def test_slots(server: ChatServer) -> None:
    with Runtime(engine_of(server, slots=1)) as runtime:
        stream = runtime.start(Video(100, 0.02), pace=Pace.LIVE)
        with pytest.raises(CapacityError, match="no free slot"):
            runtime.start(Video(1), pace=Pace.FAST)
        stream.stop()
        runtime.start(Video(1), pace=Pace.FAST).wait()


@pytest.mark.parametrize(
    "numbers", [{"deadline": 0}, {"deadline": float("nan")}, {"pause": -1}, {"loading": 0}, {"slots": 0}]
)
def test_numbers_that_cannot_be_meant(server: ChatServer, numbers: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="above 0"):
        engine_of(server, **numbers)


class TestTalk:
    def test_an_instruction_while_the_model_is_looking(self, server: ChatServer) -> None:
        server.reply = sleepy(0.1)
        kept = Kept()
        with Runtime(engine_of(server)) as runtime:
            stream = runtime.start(Video(3), sinks=[kept], pace=Pace.FAST)
            until(lambda: len(server.requests) == 1)
            assert (stream.instruct("In verse."), stream.instruct("Auf Deutsch.")) == (1, 2)
            stream.wait()
        assert [texts(request)[-1].split(" Now")[0] for request in server.requests] == [
            "Call the game.",
            "Auf Deutsch.",
            "Auf Deutsch.",
        ]
        told = [(event.version, event.text, event.start) for event in kept.of(InstructionUpdated)]
        assert told == [(1, "In verse.", None), (2, "Auf Deutsch.", 1.0)]

    def test_a_question_while_the_stream_goes_on(self, server: ChatServer) -> None:
        asked = "Who leads?"
        server.reply = lambda request: "Ann does." if asked in texts(request)[-1] else "words"
        kept, plain = Kept(), Kept()
        watch(server, Video(10, 0.03), plain)
        with Runtime(engine_of(server), questions=True) as runtime:
            stream = runtime.start(Video(10, 0.03), sinks=[kept], pace=Pace.LIVE)
            until(lambda: len(kept.of(Commentary)) >= 2)
            handle = stream.ask(asked)
            answer = handle.result(5)
            stream.wait()
        assert (answer.text, answer.logprobs) == ("Ann does.", ())
        assert answer.time >= 2
        assert next(type(event) for event in kept.of(Asked, AnswerDelta, Answered)) is Asked
        assert "".join(event.text for event in kept.of(AnswerDelta)) == "Ann does."
        assert kept.of(Answered)[0].answer == answer
        assert set(kept.outcomes) == {"words"}
        (request,) = [request for request in server.requests if asked in texts(request)[-1]]
        assert numbers(request)[0] == 0
        assert not any("Ann" in text for request in server.requests for text in texts(request))

    def test_a_question_does_not_hold_up_the_steps(self, server: ChatServer) -> None:
        ended = threading.Event()

        def reply(request: Request) -> str:
            if texts(request)[-1] == "Why?":
                ended.wait(20)
            return "words"

        server.reply = reply
        kept = Kept()
        with Runtime(engine_of(server), questions=True) as runtime:
            stream = runtime.start(Video(25, 0.05), sinks=[kept], pace=Pace.LIVE)
            until(lambda: len(kept.of(Commentary)) >= 1)
            handle = stream.ask("Why?")
            until(lambda: any(texts(request)[-1] == "Why?" for request in server.requests))
            before = len(kept.of(Commentary))
            stream.wait()
            with pytest.raises(SessionError, match="the stream has ended"):
                handle.result(1)
            ended.set()
        assert len(kept.of(Commentary)) > before

    def test_a_question_that_hangs_can_be_cancelled(self, server: ChatServer) -> None:
        server.reply = lambda request: sleepy(2)(request) if texts(request)[-1] == "Why?" else "words"
        with Runtime(engine_of(server), questions=True) as runtime:
            stream = runtime.start(Video(100, 0.03), pace=Pace.LIVE)
            handle = stream.ask("Why?")
            until(lambda: any(texts(request)[-1] == "Why?" for request in server.requests))
            handle.cancel()
            with pytest.raises(StreamingVLMError, match="cancelled"):
                handle.result(1)
            assert stream.ask("Who?").result(5).text == "words"

    @pytest.mark.parametrize(
        ("fault", "said"),
        [(malformed(), "cannot be read"), (refusal(401, "No."), "key is missing"), (slow(2), "no answer within 0.3 s")],
    )
    def test_a_question_that_fails(self, server: ChatServer, fault: Fault, said: str) -> None:
        kept = Kept()
        with Runtime(engine_of(server, deadline=0.3), questions=True) as runtime:
            stream = runtime.start(Video(1), sinks=[kept], pace=Pace.FAST)
            until(lambda: bool(kept.of(Commentary)) or stream.ended)
            stream = runtime.start(Video(100, 5.0), sinks=[kept], pace=Pace.LIVE)  # no step is under way
            server.faults += [fault]
            with pytest.raises(EndpointError, match=said):
                stream.ask("Why?").result(5)
            assert said in kept.of(Answered)[0].error
            assert stream.ask("Who?").result(5).text == "ok"

    @pytest.mark.parametrize(
        ("reply", "chosen"),
        [
            ("A", "yes"),
            (" b. ", "no"),
            ("(C)", "unknown"),
            ("Yes.", "yes"),
            ("**no**", "no"),
            ("B. no", "no"),
            ("yes, nothing happens", None),
            ("A or B", None),
            ("", None),
            ("D", None),
        ],
    )
    def test_rules_get_an_option_or_an_error(self, server: ChatServer, reply: str, chosen: str | None) -> None:
        server.reply = lambda request: reply if "A. yes" in texts(request)[-1] else "words"
        found: list[Any] = []
        question = Question("Does it rain?", ("yes", "no", "unknown"))
        with Runtime(engine_of(server), questions=True) as runtime:
            stream = runtime.start(Video(100, 0.03), pace=Pace.LIVE)
            runtime.call(lambda: runtime.talk.weigh(stream.pipeline, [question], found.extend))
            until(lambda: bool(found))
        (one,) = found
        if chosen is None:
            assert isinstance(one, EndpointError)
            assert one.kind == "malformed"
        else:
            assert (one.text, one.probabilities) == (chosen, ())

    def test_a_rule_that_cannot_be_asked_is_refused_before_the_stream_begins(self, server: ChatServer) -> None:
        rule = AskedRule(name="ahead", text="green is ahead", as_commentary=True)
        with Runtime(engine_of(server), questions=True) as runtime:
            with pytest.raises(OptionError, match="rule 'ahead': a model behind an endpoint is asked in words"):
                runtime.start(Video(100, 0.03), pace=Pace.LIVE, rules=[rule])
            stream = runtime.start(Video(100, 0.03), pace=Pace.LIVE)
            with pytest.raises(OptionError, match="rule 'ahead': a model behind an endpoint is asked in words"):
                stream.add_rule(rule)

    @pytest.mark.parametrize(
        "question",
        [
            Question(" "),
            Question("Who?", ("a", "a")),
            Question("Who?", ("a", " ")),
            Question("Who?", prefix="It is"),
            Question("Who?", tuple(map(str, range(27)))),
            Question("\ud800?"),
        ],
    )
    def test_what_cannot_be_asked(self, server: ChatServer, question: Question) -> None:
        with Runtime(engine_of(server), questions=True) as runtime:
            stream = runtime.start(Video(100, 0.03), pace=Pace.LIVE)
            with pytest.raises(OptionError):
                stream.ask(question)


class TestSaved:
    def test_words_and_instruction_are_kept_and_the_pictures_are_gone(self, server: ChatServer, tmp_path: Path) -> None:
        server.reply = lambda _: f"w{len(server.requests)}"
        path = tmp_path / "stream.json"
        with Runtime(engine_of(server)) as runtime:
            stream = runtime.start(Video(100, 0.03), pace=Pace.LIVE)
            until(lambda: len(server.requests) >= 3)
            stream.instruct("In verse.")
            until(lambda: "verse" in texts(server.requests[-1])[-1])
            stream.snapshot(path)
            stream.stop()
        with Runtime(engine_of(server)) as runtime:
            runtime.start(Video(2, first=200), pace=Pace.FAST, restore=path).wait()
        first, second = server.requests[-2:]
        assert (numbers(first), len(numbers(second))) == ([media.index_of(media.flat(200, 64, 48))], 2)
        assert texts(first)[0].startswith("You have said so far: w1 w2")
        assert texts(first)[-1].startswith("In verse.")

    def test_a_keeper_keeps_it_as_any_other(self, server: ChatServer, tmp_path: Path) -> None:
        path, writer, kept = tmp_path / "snapshot", SnapshotWriter(), Kept()
        with Runtime(engine_of(server)) as runtime:
            keeper = Keeper(path, writer, every=0.01)
            stream = runtime.start(Video(20, 0.02), sinks=[kept], pace=Pace.LIVE, companions=[keeper])
            stream.wait()
        assert writer.close(5)
        assert keeper.written >= 2
        assert keeper.failed == 0
        assert read(path).time == kept.of(Commentary)[-1].end == 20

    @pytest.mark.parametrize(
        ("content", "error", "said"),
        [
            (None, SnapshotError, "no snapshot"),
            (b"{", SnapshotError, "no snapshot"),
            ({"time": 0.0}, SnapshotError, "not of a stream that a model behind an endpoint watched"),
            ({"remote": 99, "time": 0.0, "state": {}}, SnapshotError, "not of a stream"),
            ({"remote": 1, "time": 0.0, "state": {}}, OptionError, "state of a stream"),
        ],
    )
    def test_a_file_that_is_none(
        self,
        server: ChatServer,
        tmp_path: Path,
        content: bytes | dict[str, Any] | None,
        error: type[Exception],
        said: str,
    ) -> None:
        path = tmp_path / "snapshot"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            write(path, Taken({}, {REMOTE if name == "remote" else name: one for name, one in content.items()}))
        with Runtime(engine_of(server)) as runtime, pytest.raises(error, match=said):
            runtime.start(Video(1), pace=Pace.FAST, restore=path)


def test_rules_are_asked_of_it(server: ChatServer) -> None:
    """What a rule is found to be follows from a letter alone; what cannot be read is unknown and raises nothing."""
    shown: list[int] = []

    def reply(request: Request) -> str:
        if "A. yes" not in texts(request)[-1]:
            return "yes, the ball is out"
        shown.append(numbers(request)[-1])
        return "yes, nothing happens" if shown[-1] < 5 else "A" if shown[-1] < 15 else "B"

    server.reply, kept = reply, Kept()
    rule = AskedRule(name="out", text="the ball is out", every=0, on_after=1, off_after=1, merge_gap=0, cooldown=0)
    with Runtime(engine_of(server), questions=True) as runtime:
        stream = runtime.start(Video(25, 0.04), sinks=[kept], pace=Pace.LIVE, rules=[rule])
        stream.wait()
    raised, cleared = kept.of(Alert)
    assert (raised.kind, raised.verdict, raised.probability) == ("raised", "yes", None)
    assert 5 <= raised.time <= 8
    assert (cleared.kind, cleared.verdict) == ("cleared", "no")
    assert 15 <= cleared.time <= 18
    assert sum(event.dropped for event in kept.of(Commentary)) <= 2


def test_a_rule_has_a_probability_where_the_server_tells_it(server: ChatServer) -> None:
    """Its threshold holds as with a local model, though the letter that is drawn says yes all the time."""

    def likely(request: Request) -> list[tuple[str, Mapping[str, float]]]:
        yes = 0.9 if 5 <= numbers(request)[-1] < 15 else 0.6
        return [("A", {"A": yes, "B": 1 - yes - 0.01, "The": 0.01})]

    server.reply, server.likely, kept = lambda request: "A", likely, Kept()  # noqa: ARG005
    rule = AskedRule(
        name="out", text="it is out", every=0, threshold=0.8, on_after=1, off_after=1, merge_gap=0, cooldown=0
    )
    with Runtime(engine_of(server), questions=True) as runtime:
        runtime.start(Video(25, 0.04), sinks=[kept], pace=Pace.LIVE, rules=[rule]).wait()
    raised, cleared = kept.of(Alert)
    assert (raised.kind, cleared.kind) == ("raised", "cleared")
    assert 5 <= raised.time <= 8
    assert 15 <= cleared.time <= 18
    assert raised.probability == pytest.approx(0.9 / 0.99)
    assert cleared.probability == pytest.approx(0.6 / 0.99)


class TestServers:
    """What whoever runs a server of his own meets: one line or one event each, and the stream goes on."""

    @pytest.mark.parametrize(
        ("fault", "code", "said"),
        [
            (
                Fault(503, '{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}'),
                "server",
                "Loading model",
            ),
            (Fault(502, "<html>bad gateway</html>"), "server", "bad gateway"),
            (too_many(retry_after=0.01), "rate_limit", "too many requests"),
            (malformed('{"choices": []}'), "malformed", "no message"),
            (malformed('{"error": {"message": "CUDA out of memory"}}'), "server", "CUDA out of memory"),
            (refusal(400, "cannot identify image file"), "bad_request", "cannot identify image file"),
            (Fault(400, "{\"detail\": \"Server is pinned to 'a'; requested 'm'.\"}"), "bad_request", "pinned to 'a'"),
            (Fault(413, "<html>413 Request Entity Too Large</html>"), "bad_request", "Entity Too Large"),
        ],
    )
    def test_it_is_told_in_the_servers_words(self, server: ChatServer, fault: Fault, code: str, said: str) -> None:
        server.faults += [fault]
        kept = Kept()
        assert watch(server, Video(8, 0.03), kept).complete
        failed = kept.of(StepFailed)[0]
        assert (failed.code, failed.start) == (code, 0)
        assert said in failed.reason
        assert "\n" not in failed.reason
        assert kept.outcomes[1:] == ["ok"] * len(kept.outcomes[1:]) != []

    @pytest.mark.parametrize("asked", [0.6, 3600])
    def test_a_wait_that_the_server_asks_for(self, server: ChatServer, asked: float) -> None:
        """No call is made before it has passed; nobody waits for an hour."""
        server.faults += [too_many(retry_after=asked)]
        kept = Kept()
        with Runtime(engine_of(server)) as runtime:
            runtime.start(Video(100, 0.01), sinks=[kept], pace=Pace.LIVE)
            until(lambda: bool(kept.of(StepFailed)))
            assert kept.of(StepFailed)[0].retry_in == min(asked, 60)
            time.sleep(0.2)
            assert len(server.requests) == 1
            if asked < 1:
                until(lambda: bool(kept.of(Commentary)))

    def test_no_such_model(self, server: ChatServer) -> None:
        server.models = {"qwen2.5-vl", "llava"}
        kept = Kept()
        watch(server, Video(4, 0.01), kept)
        (closed,) = kept.of(Closed)
        assert closed.error.endswith("The model `m` does not exist.; its models: llava, qwen2.5-vl")

    @pytest.mark.parametrize(
        "fault", [Fault(404, "404 page not found"), malformed('{"error": "Unexpected endpoint or method. (POST /)"}')]
    )
    def test_an_address_without_its_version(self, server: ChatServer, fault: Fault) -> None:
        server.faults += [fault]
        kept = Kept()
        watch(server, Video(4, 0.01), kept)
        (closed,) = kept.of(Closed)
        assert "the url ends with the version, as in http://localhost:8000/v1" in closed.error
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("words", "takes", "most"),
        [
            ("At most 2 image(s) may be provided in one request.", 2, 2),
            ("You set image=1 (or defaulted to 1) in `--limit-mm-per-prompt`, but passed 2 image items.", 1, 1),
            ("This model's maximum context length is 256 tokens.", 5, 3),
        ],
    )
    def test_fewer_pictures_where_the_server_says_so(self, words: str, takes: int, most: int) -> None:
        """It is told with the step that fails; the next one is tried at once, with the newest pictures."""
        kept = Kept()

        class Picky(ChatServer):
            def _standing(self, request: Request, headers: Mapping[str, str]) -> Fault | None:
                return refusal(400, words) if len(images(request)) > takes else super()._standing(request, headers)

        with Picky() as picky, Runtime(engine_of(picky, pause=60)) as runtime:
            runtime.start(Video(12), sinks=[kept], pace=Pace.FAST).wait()
            shown = [numbers(request) for request in picky.requests]
        failed, said = kept.of(StepFailed), kept.of(Commentary)
        assert (len(failed), len(said)) == (1, 11)
        assert (failed[0].code, failed[0].retry_in) == ("bad_request", 0)
        assert f"{words}; from now on a call shows {most} pictures at most" in failed[0].reason
        assert shown[-1] == list(range(12 - most, 12))

    def test_one_picture_that_is_too_much_is_no_reason_to_show_none(self, server: ChatServer) -> None:
        server.faults += [refusal(400, "This model's maximum context length is 16 tokens.")]
        kept = Kept()
        watch(server, Video(2), kept, Pace.FAST)
        assert kept.outcomes == ["bad_request", "ok"]
        assert kept.of(StepFailed)[0].retry_in > 0

    @pytest.mark.parametrize("streamed", [True, False])
    def test_a_server_that_loads_its_model_with_the_first_call(self, streamed: bool) -> None:
        """It is told that there is no answer yet, but not hung up on: some servers begin to load anew then.

        As soon as it answers, the stream goes on, however long the pause would be.
        """
        gone: list[float] = []

        class Loading(ChatServer):
            def enter(self, request: dict[str, Any], headers: dict[str, str]) -> Fault:
                fault = super().enter(request, headers)
                if len(self.requests) == 1:
                    time.sleep(0.5)
                    gone.append(time.perf_counter())
                return fault

        with Loading() as loading, Runtime(engine_of(loading, deadline=0.1, pause=60, timeout=0.2)) as runtime:
            kept = Kept()
            said_until = 0.0 if streamed else 1e6
            stream = runtime.start(Video(200, 0.01), sinks=[kept], pace=Pace.LIVE, said_until=said_until)
            until(lambda: len(loading.requests) >= 3)
            assert time.perf_counter() - gone[0] < 2
            stream.stop()
        failed = kept.of(StepFailed)[0]
        assert failed.code == "timeout"
        assert "no answer within 0.1 s, nor before: it may be loading the model" in failed.reason

    def test_later_a_call_that_is_late_is_hung_up(self, server: ChatServer) -> None:
        server.faults += [Fault(), slow(3)]
        kept = Kept()
        watch(server, Video(20, 0.03), kept, deadline=0.15)
        (failed,) = kept.of(StepFailed)
        assert failed.reason.endswith("no answer within 0.15 s")


class TestPace:
    def test_the_lag_of_a_slow_server_does_not_grow(self, server: ChatServer) -> None:
        """A reply takes five steps' time: four of five are dropped; what is shown is as new at the end as before."""
        server.reply = sleepy(0.05)
        video, kept = Video(200, 0.01), Kept()
        stream = watch(server, video, kept)
        said = kept.of(Commentary)
        assert len(said) + stream.stats.dropped == 200
        third = len(said) // 3
        lags = [sorted(event.timing.lag for event in part)[third // 2] for part in (said[:third], said[-third:])]
        assert lags[1] < 1.5 * lags[0]
        assert max(event.timing.lag for event in said) < 0.3

    def test_a_question_has_a_connection_of_its_own(self, server: ChatServer) -> None:
        """Steps take as long as without it, while an answer takes ten of them."""

        def reply(request: Request) -> str:
            time.sleep(0.5 if texts(request)[-1] == "Why?" else 0.04)
            return "words"

        server.reply, kept = reply, Kept()
        with Runtime(engine_of(server), questions=True) as runtime:
            stream = runtime.start(Video(60, 0.02), sinks=[kept], pace=Pace.LIVE)
            until(lambda: len(kept.of(Commentary)) >= 3)
            before = [event.timing.lag for event in kept.of(Commentary)]
            stream.ask("Why?").result(5)
            during = [event.timing.lag for event in kept.of(Commentary)][len(before) :]
            stream.stop()
        assert len(during) >= 7
        usual = sorted(before)[len(before) // 2]
        assert sorted(during)[len(during) // 2] < usual + 0.1
        assert server.most_at_once == 2

    def test_eight_questions_wait_and_are_answered_in_order(self, server: ChatServer) -> None:
        def ask_all(stream: Stream) -> list[Ask]:
            handles = [stream.ask(f"Question {number}?") for number in range(8)]
            with pytest.raises(CapacityError, match="8 questions"):
                stream.ask("One more?")
            return handles

        server.reply = lambda request: sleepy(0.02)(request) + f" of {texts(request)[-1]}"
        kept = Kept()
        with Runtime(engine_of(server), questions=True) as runtime:
            stream = runtime.start(Video(300, 0.01), sinks=[kept], pace=Pace.LIVE)
            until(lambda: len(kept.of(Commentary)) >= 1)
            handles = runtime.call(lambda: ask_all(stream))
            before = len(kept.of(Commentary))
            answers = [handle.result(5).text for handle in handles]
            after = len(kept.of(Commentary))
            stream.stop()
        assert answers == [f"words of Question {number}?" for number in range(8)]
        assert [event.number for event in kept.of(Answered)] == list(range(1, 9))
        assert after - before >= 4, "the commentary goes on"
        assert server.most_at_once == 2, "one question at a time, beside a step"


def test_pauses() -> None:
    retreat = Retreat(lambda: 0.5)
    assert [retreat.failed() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert not retreat.over
    retreat.passed()
    assert retreat.over
    assert retreat.failed(least=7) == 7
    assert retreat.failed(least=1e6) == 60
    assert np.allclose([Retreat(lambda: 0.0).failed(), Retreat(lambda: 1.0).failed()], [0.8, 1.2])
