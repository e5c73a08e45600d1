"""A stream that a model behind an endpoint watches, over the real protocol."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamingvlm.core.errors import EndpointError, OptionError, SessionError
from streamingvlm.core.events import Arrival, Chunk, InstructionUpdated, Question, StepInput
from streamingvlm.engine.endpoint import Endpoint
from streamingvlm.engine.options import INSTRUCTIONS
from streamingvlm.engine.remote import OURS, PAPER_BASELINE, RemoteOptions, RemoteSession
from streamingvlm.sources.open import open_source
from support import media
from support.chat_server import ChatServer, Fault, images, malformed, refusal, texts, too_many

PLAIN = RemoteOptions(fps=2, seconds=4, instruction="Call the game.")
Request = Mapping[str, Any]


def chunk(start: float, end: float, fps: float = 2, size: tuple[int, int] = (48, 64)) -> Chunk:
    """Frame ``i`` of the stream, at ``i / fps`` seconds, is flat and of grey ``level(i)``."""
    numbers = range(round(start * fps), round(end * fps))
    frames = np.stack([media.flat(number, size[1], size[0]) for number in numbers])
    return Chunk(frames, tuple(number / fps for number in numbers), start, end)


def pictures(request: Request) -> list[np.ndarray]:
    found = []
    for url in images(request):
        head, _, body = url.partition(",")
        assert head == "data:image/jpeg;base64"
        (frame,) = av.CodecContext.create("mjpeg", "r").decode(av.Packet(base64.b64decode(body)))
        found.append(frame.to_ndarray(format="rgb24"))
    return found


def numbers(request: Request) -> list[int]:
    """Which frames a request shows, in its order."""
    return [media.index_of(picture) for picture in pictures(request)]


def words(request: Request) -> str:
    return "\n".join(texts(request))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


def opened(server: ChatServer, options: RemoteOptions = PLAIN, **more: Any) -> RemoteSession:
    return RemoteSession(Endpoint(server.url, "m", key=None, sleep=lambda _: None), options, **more)


def counting() -> Callable[[Request], str]:
    said = iter(range(1, 1000))
    return lambda _: f"  word{next(said)} é🏀\n"


def test_a_step_and_what_it_sends(server: ChatServer) -> None:
    server.reply = counting()
    options = replace(PLAIN, context="Cup final", system="Be brief.", params={"seed": 3})
    session = opened(server, options)
    step = StepInput(replace(chunk(0, 1), read_seconds=0.5), Arrival(dropped=2))
    commentary = session.step(step)
    assert (commentary.start, commentary.end, commentary.text) == (0, 1, "word1 é🏀")
    assert (commentary.finish_reason, commentary.dropped, commentary.timing.read) == ("stop", 2, 0.5)
    assert commentary.timing.decode > 0
    assert commentary.timing.lag == 0
    assert (session.time, session.turn) == (1, 1)
    assert session.last is not None
    assert (session.last.sent, session.last.text) == ({"seed": 3}, "  word1 é🏀\n")
    (request,) = server.requests
    assert request["seed"] == 3
    system, user = request["messages"]
    assert (system["role"], system["content"]) == ("system", "Be brief.\n\nAbout the video: Cup final")
    assert user["role"] == "user"
    assert [part["type"] for part in user["content"]] == ["text", "image_url", "image_url", "text"]
    assert user["content"][-1]["text"] == "Call the game. Now comment on the video from 0 s to 1 s."
    assert numbers(request) == [0, 1]


def test_the_lag_of_a_live_step(server: ChatServer) -> None:
    assert opened(server).step(StepInput(chunk(0, 1), Arrival(ready_at=0.0))).timing.lag > 0


def test_own_words_and_the_newest_pictures_go_with_every_step(server: ChatServer) -> None:
    server.reply = counting()
    session = opened(server)
    said = [one.text for one in session.run(chunk(second, second + 1) for second in range(7))]
    assert said == [f"word{number} é🏀" for number in range(1, 8)]
    assert "said so far" not in words(server.requests[0])
    assert texts(server.requests[6])[0] == f"You have said so far: {' '.join(said[:6])}"
    assert [numbers(one) for one in server.requests] == [
        [0, 1],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5],
        *([2 * second + one for one in range(-6, 2)] for second in range(3, 7)),
    ]


def test_the_history_is_bounded(server: ChatServer) -> None:
    server.reply = counting()
    session = opened(server, replace(PLAIN, history_words=3))
    for second in range(4):
        session.step(chunk(second, second + 1))
    assert texts(server.requests[3])[0] == "You have said so far: é🏀 word3 é🏀"
    server.reply = lambda _: "字" * 500
    session.step(chunk(4, 5))
    assert session.state()["said"] == "字" * 24


def test_no_history(server: ChatServer) -> None:
    session = opened(server, replace(PLAIN, history_words=0))
    session.step(chunk(0, 1))
    session.step(chunk(1, 2))
    assert "said so far" not in words(server.requests[1])
    assert session.state()["said"] == ""


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        (replace(PLAIN, seconds=0), [0, 1, 2, 3], [4, 5, 6, 7]),
        (replace(PLAIN, seconds=3), [0, 1, 2, 3], [2, 3, 4, 5, 6, 7]),
        (replace(PLAIN, seconds=None, frames=6), [0, 1, 2, 3], [2, 3, 4, 5, 6, 7]),
        (replace(PLAIN, frames=3), [0, 1, 3], [4, 5, 7]),
        (replace(PLAIN, frames=2), [1, 3], [5, 7]),
        (replace(PLAIN, frames=1), [3], [7]),
        (replace(PLAIN, fps=1), [0, 2], [0, 2, 4, 6]),
        (replace(PLAIN, fps=0.4, seconds=0), [0], [5]),
        (replace(PLAIN, fps=0.1, seconds=0), [0], [4]),
        (replace(PLAIN, fps=0.1, seconds=2), [0], [4]),
        (replace(PLAIN, fps=0.1, seconds=4), [0], [0]),
        (replace(PLAIN, fps=30), [0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_which_pictures(server: ChatServer, options: RemoteOptions, first: list[int], second: list[int]) -> None:
    session = opened(server, options)
    session.step(chunk(0, 2))
    session.step(chunk(2, 4))
    assert [numbers(one) for one in server.requests] == [first, second]


def sampled(rate: float, fps: float, step: float, steps: int, late: float = 0.0) -> list[Chunk]:
    """Steps of a video of ``rate`` frames a second: of each moment asked for, the frame nearest to it (``late``: not
    before it is due)."""
    chunks = []
    for number in range(steps):
        wanted = [number * step + one / fps for one in range(round(step * fps))]
        times = tuple(round(moment * rate + late) / rate for moment in wanted)
        frames = np.stack([media.flat(round(moment * fps), 64, 48) for moment in wanted])
        chunks.append(Chunk(frames, times, number * step, (number + 1) * step))
    return chunks


@pytest.mark.parametrize("late", [0.0, 0.499])
@pytest.mark.parametrize(("rate", "fps"), [(29.97, 2), (29.97, 3), (29.97, 10), (23.976, 2), (25, 3), (59.94, 24)])
@pytest.mark.parametrize("asked", ["own", "every"])
def test_a_video_that_was_sampled_at_this_rate_keeps_every_picture(
    server: ChatServer, rate: float, fps: float, late: float, asked: str
) -> None:
    options = replace(PLAIN, fps=fps if asked == "own" else None, seconds=None, frames=1000)
    session = opened(server, options)
    chunks = sampled(rate, fps, 1.0, 8, late)
    for one in chunks:
        session.see(one)
    session.ask("What?")
    assert len(images(server.requests[0])) == sum(len(one.frames) for one in chunks)


@pytest.mark.parametrize(("seconds", "count"), [(1.0, 16), (0.25, 16)])
def test_a_denser_video_is_thinned_to_the_rate(server: ChatServer, seconds: float, count: int) -> None:
    """The frame that is nearest to each moment, also where that is a little early."""
    session = opened(server, replace(PLAIN, fps=2, seconds=None, frames=1000))
    times = [number / 29.97 for number in range(240)]
    for start in np.arange(0, 8, seconds):
        mine = tuple(one for one in times if start <= one < start + seconds)
        session.see(Chunk(np.zeros((len(mine), 8, 8, 3), np.uint8), mine, start, start + seconds))
    shown = session.state()["pictures"]
    assert len(shown) == count
    assert max(abs(one - number / 2) for number, one in enumerate(shown)) <= 0.5 / 29.97 + 1e-6


def test_what_was_encoded_ahead_is_what_is_sent(server: ChatServer) -> None:
    one, other = opened(server), opened(server)
    for chunks in (chunk(0, 1, fps=4), chunk(1, 2, fps=4)):
        one.step(chunks)
        other.step(StepInput(chunks, prepared=other.encode(chunks)))
    assert server.requests[0] == server.requests[1]
    assert server.requests[2] == server.requests[3]
    one.see(one.encode(chunk(2, 3)))
    assert one.time == 3


def test_a_fork_goes_on_by_itself(server: ChatServer) -> None:
    session = opened(server)
    session.step(chunk(0, 1))
    before, fork = session.state(), session.fork()
    fork.step(chunk(1, 2))
    fork.instruct("In verse.")
    assert session.state() == before
    assert (fork.turn, session.turn) == (2, 1)


def test_going_on_without_the_pictures(server: ChatServer) -> None:
    session = opened(server)
    session.step(chunk(0, 2))
    restored = opened(server, state=json.loads(json.dumps(session.state())))
    with pytest.raises(SessionError, match="show it the video"):
        restored.step(chunk(9, 10))
    restored.forget_pictures()
    restored.step(chunk(9, 10))
    assert numbers(server.requests[-1]) == [18, 19]
    assert texts(server.requests[-1])[0] == "You have said so far: ok"


def test_a_restored_stream_takes_the_pictures_that_it_had(server: ChatServer) -> None:
    """Also where only the end of a chunk is shown again, or the rate is not told."""
    session = opened(server, replace(PLAIN, fps=2, seconds=2))
    session.step(chunk(0, 4, fps=8))
    state = session.state()
    for fps in (2, None):
        restored = opened(server, replace(PLAIN, fps=fps, seconds=2), state=json.loads(json.dumps(state)))
        times = tuple(number / 8 for number in range(round(state["frames_from"] * 8), 32))
        restored.see(Chunk(np.zeros((len(times), 8, 8, 3), np.uint8), times, 0.0, 4.0))
        assert restored.state() == state


def test_what_is_kept_of_an_endless_stream_is_bounded(server: ChatServer) -> None:
    for options in (replace(PLAIN, seconds=None, frames=5), PLAIN):
        session = opened(server, options)
        for second in range(30):
            session.see(chunk(second, second + 1))
        assert 30 - session.state()["frames_from"] <= 5


class TestPresets:
    def test_the_papers_baseline(self, server: ChatServer) -> None:
        server.reply = lambda _: "A window in two sentences. Truly."
        session = opened(server, PAPER_BASELINE)
        said = [session.step(chunk(start, start + 100, fps=0.25, size=(720, 1280))).text for start in (0, 100)]
        assert said == ["A window in two sentences. Truly."] * 2
        for request, first in zip(server.requests, (0, 25), strict=True):
            assert request.keys() == {"model", "messages"}
            assert numbers(request) == list(range(first, first + 25))
            assert {one.shape for one in pictures(request)} == {(360, 640, 3)}
            assert "two to six sentences" in texts(request)[0]
            assert texts(request)[-1] == PAPER_BASELINE.instruction
            assert "Truly" not in words(request)

    def test_at_most_sixty_stills_spread_over_the_window(self, server: ChatServer) -> None:
        opened(server, replace(PAPER_BASELINE, fps=2)).step(chunk(0, 27.5))
        opened(server, replace(PAPER_BASELINE, fps=4)).step(chunk(0, 60, fps=2))
        few, many = (numbers(request) for request in server.requests)
        assert few == list(range(55))
        assert many == [number % 55 for number in range(1, 120, 2)]

    def test_thinning_to_the_baselines_rate(self, server: ChatServer) -> None:
        opened(server, PAPER_BASELINE).step(chunk(0, 20))
        assert numbers(server.requests[0]) == [0, 8, 16, 24, 32]

    def test_ours(self, server: ChatServer) -> None:
        session = opened(server, OURS)
        for second in range(20):
            session.step(chunk(second, second + 1))
        assert numbers(server.requests[19]) == list(range(8, 40))
        assert texts(server.requests[19])[-1].endswith("from 19 s to 20 s. Use at most 3 words.")
        assert server.requests[19].keys() == {"model", "messages"}


class TestSilence:
    @pytest.mark.parametrize("reply", ["", " \n", "...", " … ", "......"])
    @pytest.mark.parametrize("streamed", [False, True])
    def test_a_silent_step(self, server: ChatServer, reply: str, streamed: bool) -> None:
        server.reply = lambda _: reply
        pieces: list[str] = []
        session = opened(server)
        commentary = session.step(chunk(0, 1), on_text=pieces.append if streamed else None)
        assert (commentary.text, commentary.finish_reason, session.turn) == ("", "stop", 1)
        assert pieces == []
        assert session.state()["said"] == ""

    @pytest.mark.parametrize("reply", ["  one two \n", "... and he scores!", "plain", "…so close  yet", "So... "])
    def test_text_as_it_comes_is_the_text(self, server: ChatServer, reply: str) -> None:
        server.reply = lambda _: reply
        pieces: list[str] = []
        commentary = opened(server).step(chunk(0, 1), on_text=pieces.append)
        assert commentary.text == reply.strip() == "".join(pieces)
        assert "" not in pieces
        assert server.requests[0]["stream"] is True

    @pytest.mark.parametrize(
        ("reply", "text"),
        [
            ("<think>Is it out? I think so.</think>\n\nIt is out.", "It is out."),
            (" \n<think>Hm.</think>...", ""),
            ("<think>Hm.</think>", ""),
            ("<thin ice>", "<thin ice>"),
            ("It is <think> a </think>", "It is <think> a </think>"),
        ],
    )
    def test_thoughts_are_no_words(self, server: ChatServer, reply: str, text: str) -> None:
        server.reply = lambda _: reply
        pieces: list[str] = []
        assert opened(server).step(chunk(0, 1), on_text=pieces.append).text == "".join(pieces) == text
        answers: list[str] = []
        answer = opened(server).answer(Question("Is it out?"), on_text=answers.append)
        assert answer.text == "".join(answers) == (text or reply.rpartition("</think>")[2])

    @pytest.mark.parametrize("word", ["word ", "x" * 50, "\U0001f3c0"])
    def test_a_model_that_does_not_end_is_cut_off(self, server: ChatServer, word: str) -> None:
        """Far above the length that was asked for; the server is hung up, and can stop."""
        server.reply = lambda _: "<think>" + "Hm. " * 500 + "</think>" + word * 2000
        pieces: list[str] = []
        session = opened(server, replace(PLAIN, words_per_second=3))
        short = session.step(chunk(0, 1), on_text=pieces.append)
        assert (short.finish_reason, "".join(pieces)) == ("length", short.text)
        long = session.step(chunk(1, 21), on_text=pieces.append)
        if word != "word ":  # it comes in one piece
            return
        assert 32 * 8 <= len(short.text) <= 32 * 8 + len(word)
        assert 4 * 60 * 8 <= len(long.text) <= 4 * 60 * 8 + len(word)
        assert session.step(chunk(21, 22)).finish_reason == "stop", "what nobody waits for may be as long as it is"

    def test_an_answer_that_does_not_end_is_cut_off(self, server: ChatServer) -> None:
        server.reply = lambda _: "word " * 2000
        pieces: list[str] = []
        answer = opened(server).answer(Question("Why?", max_new_tokens=10), on_text=pieces.append)
        assert (answer.finish_reason, answer.text) == ("length", "".join(pieces))
        assert 80 <= len(answer.text) <= 85

    def test_thoughts_that_are_cut_are_no_words_either(self, server: ChatServer) -> None:
        server.reply = lambda _: "<think>Is it out? I think so.</think> It is out."
        session = opened(server, replace(PLAIN, params={"max_tokens": 3}))
        with pytest.raises(EndpointError, match="before its first word"):
            session.step(chunk(0, 1))

    def test_a_reply_that_was_cut(self, server: ChatServer) -> None:
        server.reply = lambda _: "one two three"
        commentary = opened(server, replace(PLAIN, params={"max_tokens": 2})).step(chunk(0, 1))
        assert (commentary.text, commentary.finish_reason) == ("one two", "length")


class TestInstructions:
    def test_the_newest_holds_from_the_next_step_on(self, server: ChatServer) -> None:
        session = opened(server)
        assert session.step(chunk(0, 1)).instructions == ()
        assert (session.instruct("In verse."), session.instruct("Auf Deutsch.")) == (1, 2)
        told = session.step(chunk(1, 2)).instructions
        assert told == (InstructionUpdated(1, "In verse.", None), InstructionUpdated(2, "Auf Deutsch.", 1))
        assert session.step(chunk(2, 3)).instructions == ()
        first, *later = (texts(request)[-1] for request in server.requests)
        assert first.startswith("Call the game.")
        assert all(text.startswith("Auf Deutsch.") for text in later)

    def test_so_many_wait_for_a_step(self, server: ChatServer) -> None:
        session = opened(server)
        for number in range(1, 501):
            assert session.instruct(f"number {number}") == number
        told = session.step(chunk(0, 1)).instructions
        assert [one.version for one in told] == list(range(501 - INSTRUCTIONS, 501))
        assert told[-1].text == "number 500"

    @pytest.mark.parametrize("text", [" ", "half a character \ud83d"])
    def test_what_is_no_instruction(self, server: ChatServer, text: str) -> None:
        with pytest.raises(OptionError, match="instruction"):
            opened(server).instruct(text)


class TestQuestions:
    def test_a_question_about_what_was_seen(self, server: ChatServer) -> None:
        session = opened(server, replace(PLAIN, context="Cup final"))
        session.step(chunk(0, 1))
        session.step(chunk(1, 2))
        before = session.state()
        server.reply = lambda _: " B. \n"
        assert session.ask("Who scored?", options=("Ann", "Béa")) == "B."
        request = server.requests[2]
        assert numbers(request) == [0, 1, 2, 3]
        assert texts(request)[-1] == "Who scored?\nA. Ann\nB. Béa\nAnswer with the letter of the right choice alone."
        assert "You have said so far: ok ok" in words(request)
        assert "Cup final" in words(request)
        assert session.state() == before
        session.ask("Who?")
        assert texts(server.requests[3])[-1] == "Who?"

    def test_of_a_window_the_whole_is_shown(self, server: ChatServer) -> None:
        session = opened(server, PAPER_BASELINE)
        session.step(chunk(0, 100, fps=0.25))
        session.ask("What?")
        assert numbers(server.requests[1]) == list(range(25))

    def test_before_anything_was_seen(self, server: ChatServer) -> None:
        assert opened(server).ask("What?") == "ok"
        assert images(server.requests[0]) == []

    @pytest.mark.parametrize(("question", "options"), [(" ", ()), ("\udc00?", ()), ("Who?", ("\udc00",))])
    def test_what_is_no_question(self, server: ChatServer, question: str, options: tuple[str, ...]) -> None:
        with pytest.raises(OptionError, match="question"):
            opened(server).ask(question, options=options)


class TestFailures:
    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            (too_many(code="insufficient_quota"), "rate_limit"),
            (refusal(400, "A picture is broken."), "bad_request"),
            (malformed(), "malformed"),
            (malformed('{"choices": [{"message": {"content": null, "refusal": "I will not."}}]}'), "no_text"),
            (malformed('{"choices": [{"message": {"content": "a"}, "finish_reason": "content_filter"}]}'), "no_text"),
            (malformed('{"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}'), "no_text"),
        ],
    )
    def test_a_failed_step_changes_nothing(self, server: ChatServer, fault: Fault, kind: str) -> None:
        session = opened(server)
        session.step(chunk(0, 1))
        session.instruct("In verse.")
        before, last = session.state(), session.last
        server.faults.append(fault)
        with pytest.raises(EndpointError) as caught:
            session.step(chunk(1, 2))
        assert caught.value.kind == kind
        assert (session.state(), session.last) == (before, last)
        commentary = session.step(chunk(1, 2))
        assert [one.text for one in commentary.instructions] == ["In verse."]
        assert server.requests[1] == server.requests[2]

    def test_so_does_a_stream_that_breaks_and_a_listener_that_fails(self, server: ChatServer) -> None:
        server.reply = lambda _: "one two three"
        session = opened(server)
        before, pieces = session.state(), []
        server.faults.append(Fault(cut=3))
        with pytest.raises(EndpointError, match="connection"):
            session.step(chunk(0, 1), on_text=pieces.append)
        with pytest.raises(ZeroDivisionError):
            session.step(chunk(0, 1), on_text=lambda text: 1 // (len(text) - 3))
        assert pieces == ["one", " two"]
        assert session.state() == before
        assert session.step(chunk(0, 1)).text == "one two three"

    def test_a_refused_parameter_is_named(self, server: ChatServer) -> None:
        server.refuses = {"temperature"}
        session = opened(server, replace(PLAIN, params={"temperature": 0.9}))
        with pytest.raises(EndpointError, match="temperature") as caught:
            session.step(chunk(0, 1))
        assert (caught.value.kind, caught.value.parameter, session.turn) == ("refused_parameter", "temperature", 0)

    def test_chunks_that_do_not_follow(self, server: ChatServer) -> None:
        session = opened(server)
        session.step(chunk(0, 2))
        with pytest.raises(ValueError, match="from 1 s cannot follow one that ended at 2 s"):
            session.step(chunk(1, 2))
        with pytest.raises(ValueError, match="cannot follow"):
            session.see(chunk(0, 1))
        assert session.step(chunk(5, 6)).start == 5
        assert numbers(server.requests[1]) == [10, 11]

    def test_closed(self, server: ChatServer) -> None:
        with opened(server) as session:
            session.step(chunk(0, 1))
        session.close()
        assert session.closed
        calls: list[Callable[[], object]] = [
            lambda: session.step(chunk(1, 2)),
            lambda: session.see(chunk(1, 2)),
            lambda: session.ask("What?"),
            lambda: session.instruct("In verse."),
        ]
        for call in calls:
            with pytest.raises(SessionError, match="closed"):
                call()

    def test_one_thread_at_a_time(self, server: ChatServer) -> None:
        asked, answer = threading.Event(), threading.Event()

        def reply(request: Request) -> str:  # noqa: ARG001
            asked.set()
            return "late" if answer.wait(5) else "never"

        server.reply = reply
        session = opened(server)
        with ThreadPoolExecutor(1) as thread:
            first = thread.submit(session.step, chunk(0, 1))
            assert asked.wait(5)
            with pytest.raises(SessionError, match="one thread"):
                session.step(chunk(0, 1))
            answer.set()
            assert first.result().text == "late"
        assert session.turn == 1

    @pytest.mark.parametrize(
        "options",
        [
            {"fps": 0},
            {"fps": float("inf")},
            {"seconds": None},
            {"seconds": -1},
            {"frames": 0},
            {"height": 0},
            {"quality": 0},
            {"quality": 101},
            {"history_words": -1},
            {"words_per_second": -1},
            {"context": "\ud83d"},
        ],
    )
    def test_options_that_cannot_be_meant(self, options: dict[str, Any]) -> None:
        with pytest.raises(OptionError, match=next(iter(options))):
            RemoteOptions(**options)


class TestResume:
    @pytest.mark.parametrize(
        "options",
        [
            PLAIN,
            OURS,
            PAPER_BASELINE,
            replace(PLAIN, seconds=None, frames=5),
            replace(PLAIN, fps=0.4),
            replace(PLAIN, fps=0.4, seconds=0),
            replace(PLAIN, frames=3, history_words=2),
        ],
    )
    @pytest.mark.parametrize("length", [1, 3])
    def test_a_restored_stream_goes_on_as_if_nothing_had_happened(
        self, server: ChatServer, options: RemoteOptions, length: int
    ) -> None:
        server.reply = lambda request: f"seen {len(images(request))} é🏀"
        session = opened(server, options)
        for start in range(0, 21, length):
            if start == 18:
                session.instruct("In verse.")
            session.step(chunk(start, start + length))
        session.instruct("Too late.")
        session.instruct("Auf Deutsch.")
        kept = json.loads(json.dumps(session.state()))
        assert len(json.dumps(kept)) < 5000

        restored = opened(server, options, state=kept)
        assert (restored.time, restored.turn) == (session.time, session.turn)
        assert restored.state() == kept
        start = kept["frames_from"]
        while start < kept["time"]:  # as a source gives it that begins there, in steps of its own
            end = min(start + 0.5 * np.ceil(length), kept["time"])
            restored.see(chunk(start, end))
            start = end
        assert restored.state() == kept
        came = len(server.requests)
        for one in (session, restored):
            one.ask("What?")
            told = [one.step(chunk(begin, begin + length)) for begin in (21, 21 + length)]
            assert [(e.version, e.text, e.start) for e in told[0].instructions] == [
                (2, "Too late.", None),
                (3, "Auf Deutsch.", 21),
            ]
        requests = server.requests[came:]
        assert requests[:3] == requests[3:]
        assert session.state() == restored.state()

    def test_from_a_file(self, server: ChatServer, tmp_path: Path) -> None:
        path = media.write_clip(tmp_path / "game.mp4", count=60, fps=4)
        session = opened(server)
        for one in open_source(str(path), fps=2, step=1, duration=9):
            session.step(one)
        restored = opened(server, state=session.state())
        start = session.state()["frames_from"]
        for one in open_source(str(path), fps=2, step=1, start=start, duration=session.time - start):
            restored.see(one)
        for each in (session, restored):
            for one in open_source(str(path), fps=2, step=1, start=9, duration=2):
                each.step(one)
        assert numbers(server.requests[8]) == [number % 55 for number in range(20, 36, 2)]
        assert server.requests[9:11] == server.requests[11:]

    def test_pictures_that_are_missing_are_asked_for(self, server: ChatServer) -> None:
        session = opened(server)
        for second in range(6):
            session.step(chunk(second, second + 1))
        restored = opened(server, state=session.state())
        for call in (lambda: restored.step(chunk(6, 7)), lambda: restored.ask("What?")):
            with pytest.raises(SessionError, match="from 2 s to 6 s first, with see"):
                call()
        with pytest.raises(ValueError, match="missing from 2 s on, not from 4 s"):
            restored.see(chunk(4, 6))
        restored.see(chunk(2, 4))
        with pytest.raises(SessionError, match="from 2 s to 6 s"):
            restored.step(chunk(6, 7))
        restored.see(chunk(4, 6))
        assert restored.step(chunk(6, 7)).text == "ok"

    def test_a_stream_that_has_seen_nothing(self, server: ChatServer) -> None:
        session = opened(server, state=opened(server).state())
        assert session.step(chunk(0, 1)).text == "ok"

    @pytest.mark.parametrize(
        "change",
        [{"format": 9}, {"time": "soon"}, {"pending": [1]}, {"said": None}, {"version": []}, {"frames_from": "x"}],
    )
    def test_what_is_no_state(self, server: ChatServer, change: dict[str, Any]) -> None:
        with pytest.raises(OptionError, match="state"):
            opened(server, state={**opened(server).state(), **change})
        with pytest.raises(OptionError, match="state"):
            opened(server, state={})

    def test_a_step_that_is_left_out_is_seen(self, server: ChatServer) -> None:
        session = opened(server)
        session.see(chunk(0, 1))
        assert (session.time, session.turn, server.requests) == (1, 0, [])
        session.step(chunk(1, 2))
        assert numbers(server.requests[0]) == [0, 1, 2, 3]


def test_sessions_in_threads_do_not_mix(server: ChatServer) -> None:
    server.reply = lambda request: texts(request)[-1].split()[0]
    endpoint = Endpoint(server.url, "m", key=None, in_flight=3)

    def watch(name: str) -> list[str]:
        session = RemoteSession(endpoint, replace(PLAIN, instruction=name))
        return [session.step(chunk(second, second + 1)).text for second in range(4)]

    with ThreadPoolExecutor(5) as threads:
        said = list(threads.map(watch, "ABCDE"))
    assert said == [[name] * 4 for name in "ABCDE"]
    assert server.most_at_once <= 3
    for request in server.requests:
        history = texts(request)[0].removeprefix("You have said so far: ")
        assert history.startswith("2 pictures") or set(history) <= {" ", texts(request)[-1][0]}
