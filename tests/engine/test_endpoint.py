"""Calls of an endpoint over the real protocol."""

from __future__ import annotations

import builtins
import json
import logging
import pickle
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import pytest

from streamingvlm.core.errors import EndpointError, OptionError
from streamingvlm.engine.accepted import Accepted, Verdict
from streamingvlm.engine.chat_protocol import PATIENCE, Enough, read_stream
from streamingvlm.engine.endpoint import FIRST_WAIT, LONGEST_WAIT, CallLimit, Endpoint
from support.chat_server import ChatServer, Fault, broken, hang_up, malformed, refusal, slow, too_many

ASK = [{"role": "user", "content": "which one?"}]
KEY = "sk-secret-1234567890"
SCHEMA = {"type": "json_schema", "json_schema": {"name": "vote", "schema": {"type": "object"}}}


class Waits(list[float]):
    """Notes the waits in place of waiting."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def opened(server: ChatServer, **options: Any) -> Endpoint:
    return Endpoint(server.url, "judge", **{"key": None, "sleep": Waits(), **options})


def failed(server: ChatServer, params: dict[str, Any] | None = None, **options: Any) -> EndpointError:
    with opened(server, **options) as endpoint, pytest.raises(EndpointError) as caught:
        endpoint.chat(ASK, params or {})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"judge at {server.url}: ")
    return caught.value


def test_a_call_and_all_that_is_known_of_it() -> None:
    with ChatServer(lambda request: f"  «{request['messages'][0]['content']}» 🏀\n", key=KEY) as server:
        reply = opened(server, key=KEY + "\n").chat(ASK, {"temperature": 0, "seed": 7, "max_tokens": 30})
    assert reply.text == "  «which one?» 🏀\n"
    assert (reply.model, reply.fingerprint) == ("scripted-2026-01-01", "fp_scripted")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (2, 3)
    assert reply.sent == {"temperature": 0, "seed": 7, "max_tokens": 30}
    assert (reply.finish_reason, reply.tries, reply.refusal) == ("stop", 1, "")
    assert 0 < reply.seconds < 5
    assert server.requests == [{"model": "judge", "messages": ASK, **reply.sent}]


def test_a_reply_that_reached_its_bound() -> None:
    with ChatServer(lambda _: "one two three") as server:
        reply = opened(server).chat(ASK, {"max_tokens": 2})
    assert (reply.text, reply.finish_reason, reply.usage.completion_tokens) == ("one two", "length", 2)


@pytest.mark.parametrize(
    ("message", "text", "refusal"),
    [
        ({"content": None, "refusal": "I cannot help with that."}, "", "I cannot help with that."),
        ({"content": None}, "", ""),
        ({"content": "caf\ud83d é \ud83c\udfc0"}, "caf\ufffd é 🏀", ""),
        ({"content": [{"type": "text", "text": "A"}, {"type": "thinking"}, {"type": "text", "text": "B"}]}, "AB", ""),
    ],
)
def test_messages_that_are_no_plain_text(message: dict[str, Any], text: str, refusal: str) -> None:
    body = json.dumps({"choices": [{"message": message}]})
    with ChatServer(faults=[malformed(body)]) as server:
        reply = opened(server).chat(ASK, {})
    assert (reply.text, reply.refusal, reply.model, reply.fingerprint) == (text, refusal, "", "")
    assert reply.usage.prompt_tokens is None


@pytest.mark.parametrize("fault", [too_many(), broken(500), broken(503), hang_up(), Fault(cut=1), Fault(408)])
def test_what_may_pass_is_tried_again(fault: Fault) -> None:
    waits = Waits()
    with ChatServer(faults=[fault, fault]) as server:
        reply = opened(server, sleep=waits).chat(ASK, {"seed": 1})
    assert (reply.text, reply.tries) == ("ok", 3)
    assert server.requests == [{"model": "judge", "messages": ASK, "seed": 1}] * 3
    assert [FIRST_WAIT * 2**n / 2 <= wait <= FIRST_WAIT * 2**n for n, wait in enumerate(waits)] == [True, True]


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        (too_many(), "rate_limit", 429),
        (broken(502), "server", 502),
        (hang_up(), "connection", 0),
        (Fault(cut=1), "connection", 0),
        (slow(5), "timeout", 0),
        (Fault(408), "timeout", 408),
    ],
)
def test_tries_are_counted_and_bounded(fault: Fault, kind: str, status: int) -> None:
    waits = Waits()
    with ChatServer(faults=[fault] * 9) as server:
        error = failed(server, retries=2, sleep=waits, timeout=0.1)
    assert (error.kind, error.status, error.tries) == (kind, status, 3)
    assert "(3 tries)" in str(error)
    assert (len(server.requests), len(waits)) == (3, 2)


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        (refusal(400, "This picture cannot be read.", code="invalid_image"), "bad_request", 400),
        (refusal(400, "Too long.", param="messages", code="context_length_exceeded"), "bad_request", 400),
        (refusal(413, "Too large."), "bad_request", 413),
        (refusal(403, "Not for you."), "auth", 403),
        (refusal(400, "No such model.", param="model"), "not_found", 400),
        (refusal(301, "Moved."), "bad_request", 301),
        (too_many(code="insufficient_quota"), "rate_limit", 429),
        (malformed(), "malformed", 0),
        (malformed("<html>a portal</html>"), "malformed", 0),
        (malformed('{"choices": []}'), "malformed", 0),
        (malformed("[]"), "malformed", 0),
        (malformed('{"choices": [{"message": {"content": 7}}]}'), "malformed", 0),
    ],
)
def test_what_does_not_pass_is_not_tried_again(fault: Fault, kind: str, status: int) -> None:
    with ChatServer(faults=[fault]) as server:
        error = failed(server)
    assert (error.kind, error.status, error.tries, len(server.requests)) == (kind, status, 1, 1)


@pytest.mark.parametrize(
    ("text", "params"), [("half a character \ud83d", {}), ("whole", {"temperature": float("nan")}), ("", {"stop": {1}})]
)
@pytest.mark.parametrize("on_text", [None, print])
def test_what_cannot_be_sent(text: str, params: dict[str, Any], on_text: Any) -> None:
    with ChatServer() as server, pytest.raises(EndpointError, match="the request is refused") as caught:
        opened(server).chat([{"role": "user", "content": text}], params, on_text=on_text)
    assert (caught.value.kind, caught.value.tries, server.requests) == ("bad_request", 1, [])


def test_an_error_crosses_processes() -> None:
    with ChatServer(refuses={"seed"}) as server:
        error = failed(server, {"seed": 1})
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (EndpointError, str(error), vars(error))


def test_no_model_and_no_server() -> None:
    with ChatServer(models={"other"}) as server:
        error = failed(server)
        assert (error.kind, error.status) == ("not_found", 404)
        assert str(error).endswith("The model `judge` does not exist.; its models: other")
        with pytest.raises(EndpointError, match="the url ends with the version"):
            Endpoint(server.url.removesuffix("/v1"), "judge", key=None).chat(ASK, {})
        url = server.url
    with pytest.raises(EndpointError, match="refused") as caught:
        Endpoint(url, "judge", key=None, retries=0).chat(ASK, {})
    assert (caught.value.kind, caught.value.tries) == ("connection", 1)


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [("7", 7, 7), ("0.01", FIRST_WAIT / 2, FIRST_WAIT), ("soon", FIRST_WAIT / 2, FIRST_WAIT), ("DATE", 18, 20)],
)
def test_the_server_says_how_long_to_wait(asked: str, least: float, most: float) -> None:
    waits = Waits()
    asked = formatdate(time.time() + 20, usegmt=True) if asked == "DATE" else asked
    with ChatServer(faults=[too_many(asked)]) as server:
        assert opened(server, sleep=waits).chat(ASK, {}).tries == 2
    assert len(waits) == 1
    assert least <= waits[0] <= most


def test_a_server_that_asks_for_hours_is_not_waited_for() -> None:
    waits = Waits()
    with ChatServer(faults=[too_many(PATIENCE + 3480)]) as server:
        error = failed(server, sleep=waits)
    assert (error.kind, error.tries, waits) == ("rate_limit", 1, [])
    assert "it asks to wait 3600 s" in str(error)


def test_waits_do_not_grow_without_end() -> None:
    waits = Waits()
    with ChatServer(faults=[hang_up()] * 12) as server:
        opened(server, sleep=waits, retries=12).chat(ASK, {})
    assert LONGEST_WAIT / 2 <= max(waits) <= LONGEST_WAIT


def test_a_key_is_in_no_error_repr_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with ChatServer(key="sk-other") as server, opened(server, key=KEY) as endpoint:
        with pytest.raises(EndpointError, match=r"Incorrect API key provided: \*\*\*\.") as caught:
            endpoint.chat(ASK, {})
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
        assert repr(endpoint) == f"judge at {server.url}"
    error = caught.value
    assert (error.kind, error.status, error.__context__) == ("auth", 401, None)
    assert KEY not in "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error)) + caplog.text


def test_no_key_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "of-the-environment")
    with ChatServer() as server:
        opened(server).chat(ASK, {})
    assert "of-the-environment" not in repr(server.headers)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"url": "localhost:8000"}, "http"),
        ({"url": "http://host:99999/v1"}, "http"),
        ({"url": "http://host/v1/chat/completions/"}, "without /chat/completions"),
        ({"url": f"http://me:{KEY}@host/v1"}, "no user, password or query"),
        ({"url": f"http://host/v1?key={KEY}"}, "no user, password or query"),
        ({"model": " "}, "name of a model"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"in_flight": 0}, "in_flight"),
        ({"key": f"{KEY} and more"}, "key"),
        ({"key": f"{KEY}é"}, "key"),
        ({"accepted": Accepted("http://elsewhere/v1", "judge")}, "elsewhere"),
    ],
)
def test_arguments_that_cannot_be_meant(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        Endpoint(**{"url": "http://host/v1", "model": "judge", "key": None, **arguments})
    assert KEY not in str(caught.value)


def test_without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name == "openai":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(OptionError, match=r"streamingvlm\[endpoint\]"):
        Endpoint("http://host/v1", "judge", key=None)


def test_calls_at_once_are_bounded() -> None:
    everyone = threading.Barrier(3)

    def reply(request: Any) -> str:
        everyone.wait(timeout=5)  # passes only if three are under way together
        time.sleep(0.02)  # and leaves time for more of them
        return request["messages"][0]["content"]

    with ChatServer(reply) as server, opened(server, in_flight=3) as endpoint, ThreadPoolExecutor(9) as threads:
        asked = [[{"role": "user", "content": str(number)}] for number in range(9)]
        texts = list(threads.map(lambda one: endpoint.chat(one, {}).text, asked))
    assert texts == [str(number) for number in range(9)]
    assert server.most_at_once == 3


class TestStreaming:
    def test_text_as_it_comes(self) -> None:
        pieces: list[str] = []
        with ChatServer(lambda _: "one two 三 🏀 ") as server:
            reply = opened(server).chat(ASK, {"seed": 1}, on_text=pieces.append)
        assert (reply.text, "".join(pieces), len(pieces)) == ("one two 三 🏀 ", "one two 三 🏀 ", 4)
        assert (reply.model, reply.fingerprint) == ("scripted-2026-01-01", "fp_scripted")
        assert (reply.finish_reason, reply.usage.completion_tokens) == ("stop", 4)
        assert reply.sent == {"seed": 1, "stream": True, "stream_options": {"include_usage": True}}
        assert server.requests == [{"model": "judge", "messages": ASK, **reply.sent}]

    def test_an_empty_reply(self) -> None:
        pieces: list[str] = []
        with ChatServer(lambda _: "") as server:
            assert opened(server).chat(ASK, {}, on_text=pieces.append).text == ""
        assert pieces == []

    @pytest.mark.parametrize("fault", [Fault(cut=0), Fault(cut=1), Fault(cut=1, stall=5), too_many()])
    def test_what_breaks_before_the_first_text_is_tried_again(self, fault: Fault) -> None:
        pieces: list[str] = []
        with ChatServer(lambda _: "one two", faults=[fault]) as server:
            assert opened(server, timeout=0.1).chat(ASK, {}, on_text=pieces.append).tries == 2
        assert pieces == ["one", " two"]

    @pytest.mark.parametrize(("stall", "kind"), [(0, "connection"), (5, "timeout")])
    def test_what_breaks_later_is_an_error(self, stall: float, kind: str) -> None:
        pieces: list[str] = []
        fault = Fault(cut=3, stall=stall)
        with ChatServer(lambda _: "one two three", faults=[fault]) as server, pytest.raises(EndpointError) as caught:
            opened(server, timeout=0.1).chat(ASK, {}, on_text=pieces.append)
        assert (caught.value.kind, caught.value.tries, pieces) == (kind, 1, ["one", " two"])
        assert caught.value.__context__ is None

    def test_refusals_and_texts_in_parts(self) -> None:
        deltas = ['{"content": [{"type": "text", "text": "A"}]}', '{"refusal": "I "}', '{"refusal": "will not."}']
        ends = ["null", "null", '"stop"']
        body = "".join(
            f'data: {{"choices": [{{"delta": {delta}, "finish_reason": {end}}}]}}\n\n'
            for delta, end in zip(deltas, ends, strict=True)
        )
        with ChatServer(faults=[Fault(200, body, {"Content-Type": "text/event-stream"})]) as server:
            reply = opened(server).chat(ASK, {}, on_text=lambda text: None)  # noqa: ARG005
        assert (reply.text, reply.refusal, reply.usage.prompt_tokens) == ("A", "I will not.", None)

    def test_half_a_character(self) -> None:
        body = "".join(
            f'data: {{"choices": [{{"delta": {{"content": "{text}"}}, "finish_reason": {reason}}}]}}\n\n'
            for text, reason in (("caf\\ud83d", "null"), ("\\u00e9", '"stop"'))
        )
        pieces: list[str] = []
        with ChatServer(faults=[Fault(200, body, {"Content-Type": "text/event-stream"})]) as server:
            reply = opened(server).chat(ASK, {}, on_text=pieces.append)
        assert reply.text == "".join(pieces) == "caf\ufffdé"

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            ('data: {"choices": [{"delta": {"content": "half a"}}]}\n\ndata: [DONE]\n\n', "malformed"),
            ("data: {nothing}\n\n", "malformed"),
            ("data: 5\n\n", "malformed"),
            ('data: {"choices": 5}\n\n', "malformed"),
            ('data: {"choices": [{"delta": {"content": 5}}]}\n\n', "malformed"),
            ('data: {"error": {"message": "out of memory"}}\n\n', "server"),
            ('data: {"error": "out of memory"}\n\n', "server"),
        ],
    )
    def test_streams_that_are_none(self, body: str, kind: str) -> None:
        fault = Fault(200, body, {"Content-Type": "text/event-stream"})
        with ChatServer(faults=[fault]) as server, pytest.raises(EndpointError) as caught:
            opened(server, retries=0).chat(ASK, {}, on_text=lambda text: None)  # noqa: ARG005
        assert caught.value.kind == kind

    @pytest.mark.parametrize("field", ['data: {"error": "out of memory"}', 'error: {"message": "out of memory"}'])
    def test_the_words_of_an_error_in_the_middle(self, field: str) -> None:
        body = f"{field}\n\n"
        fault = Fault(200, body, {"Content-Type": "text/event-stream"})
        said = "the server has failed: .*out of memory"
        with ChatServer(faults=[fault]) as server, pytest.raises(EndpointError, match=said):
            opened(server, retries=0).chat(ASK, {}, on_text=print)

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            # Comments keep a connection alive; events without a name, an id or a choice say nothing.
            (
                ": OPENROUTER PROCESSING\n\n: keep-alive\n\nretry: 10\n\n{one}: more\n\n{two}{end}{usage}{done}",
                "one two",
            ),
            ('event: message\nid: 1\n{one}data: {{"choices": []}}\n\n{two}{end}{done}', "one two"),
            ("{thought}{one}{thought}{two}{end}{usage}{done}", "one two"),
            ("{thought}{thought}{end}{usage}{done}", ""),
            ("{one}{two}{end}", "one two"),  # no mark at the end
            ("{one}{two}{end}{end}{done}", "one two"),
            ("event: ping\n\ndata:\n\n{one}{two}{end}{done}", "one two"),
            ('{one}{two}data: {{\ndata: "choices": [{{"finish_reason": "stop"}}]}}\n\n{done}', "one two"),
        ],
    )
    def test_what_servers_add_to_a_stream(self, body: str, text: str) -> None:
        parts = {
            "one": {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "one"}, "finish_reason": None}]},
            "two": {"choices": [{"index": 0, "delta": {"content": " two", "reasoning_content": None}}]},
            "thought": {"choices": [{"index": 0, "delta": {"content": None, "reasoning_content": "Hm."}}]},
            "end": {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            "usage": {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}},
        }
        events = {name: f"data: {json.dumps(part)}\n\n" for name, part in parts.items()}
        stream = body.format(**events, done="data: [DONE]\n\n")
        pieces: list[str] = []
        with ChatServer(faults=[Fault(200, stream, {"Content-Type": "text/event-stream; charset=utf-8"})]) as server:
            reply = opened(server, retries=0).chat(ASK, {}, on_text=pieces.append)
        assert ("".join(pieces), reply.text, reply.finish_reason) == (text, text, "stop")
        assert reply.usage.prompt_tokens == (7 if "{usage}" in body else None)

    @pytest.mark.parametrize("ends", ["\n", "\r\n"])
    @pytest.mark.parametrize("size", [1, 3, 1000])
    def test_events_in_any_pieces(self, ends: str, size: int) -> None:
        words = ["caf\u00e9 \U0001f3c0", " \u2028\u0085 \x0b", "end"]
        events = [json.dumps({"choices": [{"delta": {"content": word}}]}, ensure_ascii=False) for word in words]
        data = "".join(f"data: {event}{ends}{ends}" for event in events).encode()
        chunks = (data[start : start + size] for start in range(0, len(data), size))
        assert [piece.text for piece in read_stream(chunks)] == words

    def test_a_server_that_does_not_stream(self) -> None:
        body = {
            "choices": [{"message": {"content": "one two"}, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 3},
        }
        pieces: list[str] = []
        with ChatServer(faults=[malformed(json.dumps(body))]) as server:
            reply = opened(server).chat(ASK, {}, on_text=pieces.append)
        assert (pieces, reply.text, reply.finish_reason, reply.usage.prompt_tokens) == (
            ["one two"],
            "one two",
            "length",
            3,
        )

    @pytest.mark.parametrize("on_text", [None, print])
    @pytest.mark.parametrize(
        ("body", "kind", "said"),
        [
            (
                '{"error": "Unexpected endpoint or method. (POST /chat/completions)"}',
                "not_found",
                "ends with the version",
            ),
            ('{"error": {"message": "out of memory"}}', "server", "has failed: out of memory"),
        ],
    )
    def test_errors_that_are_told_as_a_success(self, body: str, kind: str, said: str, on_text: Any) -> None:
        with ChatServer(faults=[malformed(body)]) as server, pytest.raises(EndpointError, match=said) as caught:
            opened(server, retries=0).chat(ASK, {}, on_text=on_text)
        assert caught.value.kind == kind

    def test_a_server_that_does_not_count_tokens(self) -> None:
        """Our own parameter is left out where it is refused; the caller's never are."""
        pieces: list[str] = []
        with ChatServer(lambda _: "one two", refuses={"stream_options"}) as server, opened(server) as endpoint:
            for _ in range(2):
                assert endpoint.chat(ASK, {"seed": 1}, on_text=pieces.append).text == "one two"
            server.refuses = {"seed"}
            with pytest.raises(EndpointError, match="a parameter is refused"):
                endpoint.chat(ASK, {"seed": 1}, on_text=pieces.append)
        assert pieces == ["one", " two"] * 2
        assert ["stream_options" in request for request in server.requests] == [True, False, False, False]

    def test_a_server_that_refuses_to_stream(self) -> None:
        pieces: list[str] = []
        with ChatServer(lambda _: "one two", refuses={"stream"}) as server, opened(server) as endpoint:
            for _ in range(2):
                reply = endpoint.chat(ASK, {}, on_text=pieces.append)
                assert (reply.text, reply.sent) == ("one two", {})
        assert pieces == ["one two"] * 2
        assert ["stream" in request for request in server.requests] == [True, True, False, False]

    def test_words_that_look_like_a_parameter(self) -> None:
        """The error is the one that is told without the parameter; nothing is learned of it."""
        faults = [refusal(400, "a broken stream of bytes")] * 3
        with ChatServer(lambda _: "one", faults=faults) as server, opened(server) as endpoint:
            with pytest.raises(EndpointError, match="the request is refused: a broken stream"):
                endpoint.chat(ASK, {}, on_text=print)
            assert endpoint.chat(ASK, {}, on_text=lambda _: None).sent["stream"] is True

    def test_no_more_than_the_caller_wants(self) -> None:
        pieces: list[str] = []

        def take(text: str) -> None:
            pieces.append(text)
            if len(pieces) == 2:
                raise Enough

        body = '{"choices": [{"message": {"content": "one two three"}, "finish_reason": "stop"}]}'
        with ChatServer(lambda _: "one two three") as server, opened(server) as endpoint:
            reply = endpoint.chat(ASK, {}, on_text=take)
            assert (pieces, reply.text, reply.finish_reason, reply.tries) == (["one", " two"], "one two", "length", 1)
            server.faults.append(malformed(body))
            pieces[1:] = []
            assert endpoint.chat(ASK, {}, on_text=take).text == "one two three"

    def test_an_error_of_the_caller_stays_his(self) -> None:
        with ChatServer(lambda _: "one two") as server, opened(server, in_flight=1) as endpoint:
            with pytest.raises(ZeroDivisionError):
                endpoint.chat(ASK, {}, on_text=lambda text: 1 // (len(text) - 3))
            assert endpoint.chat(ASK, {}).text == "one two"


class TestParameters:
    WANTED = {"temperature": 0, "seed": 42, "max_tokens": 16, "top_p": 0.9, "response_format": SCHEMA}  # noqa: RUF012

    def test_all_taken(self) -> None:
        with ChatServer() as server, opened(server) as endpoint:
            table = endpoint.probe(self.WANTED)
            assert [one.taken for one in table.verdicts] == [True] * 5
            sent = [{k: v for k, v in one.items() if k not in {"model", "messages"}} for one in server.requests]
            assert sent == [{name: value} for name, value in self.WANTED.items()]
            assert endpoint.probe(self.WANTED) is endpoint.accepted
            assert len(server.requests) == 5
            assert endpoint.chat(ASK, self.WANTED).sent == self.WANTED

    def test_what_is_refused_is_named_before_the_call(self) -> None:
        with ChatServer(refuses={"temperature", "response_format"}) as server, opened(server) as endpoint:
            endpoint.probe(self.WANTED)
            came = len(server.requests)
            for name in ("temperature", "response_format"):
                with pytest.raises(EndpointError, match=f"does not take {name}=") as caught:
                    endpoint.chat(ASK, {name: self.WANTED[name]})
                assert (caught.value.kind, caught.value.parameter) == ("refused_parameter", name)
                assert caught.value.tries == 0
            assert len(server.requests) == came
            assert endpoint.chat(ASK, {"temperature": 1}).sent == {"temperature": 1}
            assert endpoint.accepted.takes("temperature", 1) is None
            assert endpoint.accepted.takes("response_format", {"type": "json_schema", "other": 1}) is False
            assert endpoint.accepted.takes("response_format", {"type": "json_object"}) is None

    @pytest.mark.parametrize("refused", ["max_tokens", "max_completion_tokens"])
    def test_the_bound_goes_under_the_name_that_is_taken(self, refused: str) -> None:
        taken = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[refused]
        with ChatServer(refuses={refused}) as server, opened(server) as endpoint:
            with pytest.raises(EndpointError, match=f"'{refused}' is not supported"):
                endpoint.chat(ASK, {refused: 4})  # nothing is renamed on suspicion
            endpoint.probe({refused: 16})
            assert endpoint.chat(ASK, {refused: 4}).sent == {taken: 4}
            assert server.requests[-1][taken] == 4
            assert refused not in server.requests[-1]
            assert endpoint.chat(ASK, {taken: 5}).sent == {taken: 5}

    def test_no_bound_at_all(self) -> None:
        with ChatServer(refuses={"max_tokens", "max_completion_tokens"}) as server, opened(server) as endpoint:
            endpoint.probe({"max_tokens": 16})
            with pytest.raises(EndpointError, match="does not take max_tokens"):
                endpoint.chat(ASK, {"max_tokens": 16})

    def test_the_table_goes_into_results_and_back(self) -> None:
        with ChatServer(refuses={"temperature", "max_tokens"}) as server:
            table = opened(server).probe(self.WANTED)
            came = len(server.requests)
            again = Accepted.from_json(json.loads(json.dumps(table.as_json())))
            assert again == table
            endpoint = opened(server, accepted=again)
            assert endpoint.probe(self.WANTED) == table
            assert len(server.requests) == came
            assert [one.name for one in again.refused(self.WANTED)] == ["temperature"]

    @pytest.mark.parametrize(
        "table",
        [None, [], {}, {"url": "u", "model": "m", "parameters": [{}]}, {"url": 1, "model": "m", "parameters": []}],
    )
    def test_no_table(self, table: Any) -> None:
        with pytest.raises(OptionError, match="table of accepted parameters"):
            Accepted.from_json(table)

    @pytest.mark.parametrize(
        ("words", "param", "named"),
        [
            ("Unknown.", "seed", "seed"),
            ("Invalid schema.", "response_format.json_schema.schema", "response_format"),
            ("[{'type': 'extra_forbidden', 'loc': ('body', 'top_p')}]", None, "top_p"),
            ("max_completion_tokens is unknown", None, "max_completion_tokens"),
            ("this model is only served on seedless machines", None, ""),
            ("max_tokens or model output limit was reached", None, ""),
        ],
    )
    def test_how_servers_name_it(self, words: str, param: str | None, named: str) -> None:
        params = {"seed": 1, "response_format": SCHEMA, "top_p": 0.5, "max_tokens": 5, "max_completion_tokens": 5}
        with ChatServer(faults=[refusal(400, words, param=param)]) as server:
            error = failed(server, params)
        assert (error.kind, error.parameter) == ("refused_parameter" if named else "bad_request", named)

    def test_a_validator_that_lists_what_is_wrong(self) -> None:
        body = json.dumps({"detail": [{"loc": ["body", "seed"], "msg": "extra fields not permitted"}]})
        with ChatServer(faults=[Fault(422, body)]) as server:
            assert failed(server, {"seed": 1}).parameter == "seed"

    def test_a_refusal_that_names_nothing_is_checked_against_a_plain_call(self) -> None:
        vague = refusal(400, "This is not supported.")
        with ChatServer(faults=[vague]) as server, opened(server) as endpoint:
            assert endpoint.probe({"seed": 1}).verdicts == (Verdict("seed", 1, False, "This is not supported."),)
            assert len(server.requests) == 2
        with ChatServer(faults=[vague, vague]) as server, opened(server) as endpoint:
            with pytest.raises(EndpointError) as caught:
                endpoint.probe({"seed": 1})
            assert caught.value.kind == "bad_request"
            assert endpoint.accepted.verdicts == ()

    def test_a_bound_that_leaves_no_room_was_taken(self) -> None:
        full = refusal(400, "Could not finish: max_completion_tokens or model output limit was reached.")
        with ChatServer(faults=[full]) as server:
            assert opened(server).probe({"max_completion_tokens": 1}).takes("max_completion_tokens", 1)

    def test_other_failures_are_no_refusals(self) -> None:
        with ChatServer(key=KEY) as server, opened(server) as endpoint:
            with pytest.raises(EndpointError) as caught:
                endpoint.probe(self.WANTED)
            assert caught.value.kind == "auth"
            assert endpoint.accepted.verdicts == ()

    def test_threads_probe_once(self) -> None:
        with ChatServer() as server, opened(server) as endpoint, ThreadPoolExecutor(4) as threads:
            tables = list(threads.map(endpoint.probe, [self.WANTED] * 4))
        assert len(server.requests) == 5
        assert tables == [tables[0]] * 4


class TestLimits:
    def test_a_call_takes_no_longer_than_its_bound(self) -> None:
        with ChatServer(faults=[slow(3)]) as server:
            began = time.monotonic()
            with pytest.raises(EndpointError) as caught:
                opened(server, timeout=5.0).chat([{"role": "user", "content": "?"}], {}, limit=CallLimit(0.1))
            assert time.monotonic() - began < 1.0
            assert (caught.value.kind, caught.value.tries) == ("timeout", 1)

    @pytest.mark.parametrize(("limit", "tries"), [(CallLimit(retries=0), 1), (CallLimit(retries=1), 2), (None, 4)])
    def test_its_tries(self, limit: CallLimit | None, tries: int) -> None:
        with ChatServer(faults=[too_many(0.01)] * 9) as server:
            with pytest.raises(EndpointError) as caught:
                opened(server).chat([{"role": "user", "content": "?"}], {}, limit=limit)
            assert (caught.value.tries, len(server.requests)) == (tries, tries)
            assert caught.value.after == 0.01

    def test_no_try_is_begun_behind_it(self) -> None:
        with ChatServer(faults=[too_many(5)] * 9) as server:
            with pytest.raises(EndpointError) as caught:
                opened(server).chat([{"role": "user", "content": "?"}], {}, limit=CallLimit(1.0))
            assert (caught.value.kind, caught.value.after, len(server.requests)) == ("rate_limit", 5, 1)

    def test_nor_when_it_was_given_up(self) -> None:
        limit = CallLimit(30.0)

        class Left(ChatServer):
            def enter(self, request: dict[str, Any], headers: dict[str, str]) -> Fault:
                limit.given_up.set()
                return super().enter(request, headers)

        with Left(faults=[too_many(0.3)] * 9) as server:
            with pytest.raises(EndpointError):
                opened(server).chat([{"role": "user", "content": "?"}], {}, limit=limit)
            assert len(server.requests) == 1

    def test_a_turn_is_not_waited_for_longer(self) -> None:
        with ChatServer(faults=[slow(1)]) as server, ThreadPoolExecutor() as pool:
            endpoint = opened(server, in_flight=1)
            pool.submit(endpoint.chat, [{"role": "user", "content": "?"}], {})
            while not server.requests:
                time.sleep(0.005)
            with pytest.raises(EndpointError, match="under way") as caught:
                endpoint.chat([{"role": "user", "content": "?"}], {}, limit=CallLimit(0.1))
            assert (caught.value.kind, caught.value.tries) == ("timeout", 0)
