"""A real HTTP server that speaks ``/v1/chat/completions``, with scripted replies and scripted faults.

::

    with ChatServer(lambda request: "A") as server:
        server.faults += [too_many(retry_after=1), hang_up()]   # each is used up by one request
        Endpoint(server.url, "judge", key=None).chat(...)
        server.requests                                         # the JSON of every request, in order
"""

from __future__ import annotations

import json
import math
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

#: What is replied to a request (its JSON).
ReplyTo = Callable[[Mapping[str, Any]], str]
#: Of every token of that reply: its text, and how probable it and others were.
LikelyTo = Callable[[Mapping[str, Any]], Sequence[tuple[str, Mapping[str, float]]]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What one request meets in place of a reply; ``slow``: seconds before it, then a reply as usual.

    ``status`` 0: none is sent. ``cut``: the connection ends after this many pieces of a streamed reply, or in the
    middle of the body of any other; 0: before anything is sent. ``stall``: seconds of silence before a streamed reply
    is cut.
    """

    status: int = 0
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    slow: float = 0.0
    cut: int | None = None
    stall: float = 0.0


def refusal(status: int, message: str, *, param: str | None = None, code: str | None = None, **headers: str) -> Fault:
    """An error in OpenAI's form."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Fault(status, json.dumps({"error": error}), {name.replace("_", "-"): text for name, text in headers.items()})


def too_many(retry_after: float | str | None = None, *, code: str = "rate_limit_exceeded") -> Fault:
    """429, with or without ``Retry-After``."""
    headers = {} if retry_after is None else {"Retry_After": str(retry_after)}
    return refusal(429, "Rate limit reached, try again later.", code=code, **headers)


def broken(status: int = 500) -> Fault:
    """A server error, with a page as a proxy sends it."""
    return Fault(status, "<html>upstream failed</html>", {"Content-Type": "text/html"})


def slow(seconds: float) -> Fault:
    """The reply comes, but late."""
    return Fault(slow=seconds)


def hang_up() -> Fault:
    """The connection is closed without a word."""
    return Fault(cut=0)


def malformed(body: str = '{"choices": [') -> Fault:
    """200 with a body that is no JSON, or not that of a reply."""
    return Fault(200, body)


class ChatServer:
    """Listens on a free port of this machine while it is a context.

    ``reply``: its text goes out as it is. ``model``: what replies name as their model. ``models``: those that exist
    (None: every name). ``key``: the only one that is let in (None: anyone). ``refuses``: parameters answered with 400;
    ``temperature`` only when it is not 1. ``faults``: each is used up by one request, in order. ``likely``: what is
    told where ``logprobs`` are asked for (None: it leaves them out). ``requests`` and ``headers``: of every request
    that came, refused or not.
    """

    def __init__(
        self,
        reply: ReplyTo = lambda request: "ok",  # noqa: ARG005
        *,
        model: str = "scripted-2026-01-01",
        models: Collection[str] | None = None,
        key: str | None = None,
        refuses: Collection[str] = (),
        faults: Sequence[Fault] = (),
        fingerprint: str | None = "fp_scripted",
        likely: LikelyTo | None = None,
    ) -> None:
        self.reply, self.model, self.models, self.key, self.refuses = reply, model, models, key, refuses
        self.fingerprint, self.likely = fingerprint, likely
        self.faults = list(faults)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self.stopping = threading.Event()
        self._at_once = 0
        self._lock = threading.Lock()
        self._http: _Server | None = None

    @property
    def url(self) -> str:
        """What an SDK takes as its base."""
        assert self._http is not None, "the server runs as a context: with ChatServer() as server"
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        chat = self

        class Handler(_Handler):
            server_of_chat = chat

        self._http = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._http is not None
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def enter(self, request: dict[str, Any], headers: dict[str, str]) -> Fault:
        """Note a request that has come; what it meets."""
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            fault = self.faults.pop(0) if self.faults else Fault()
        standing = self._standing(request, headers)
        return fault if fault != Fault() or standing is None else standing

    def leave(self) -> None:
        """A request is done with."""
        with self._lock:
            self._at_once -= 1

    def _standing(self, request: Mapping[str, Any], headers: Mapping[str, str]) -> Fault | None:
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if self.key is not None and given != self.key:
            return refusal(401, f"Incorrect API key provided: {given}.", code="invalid_api_key")
        if self.models is not None and request.get("model") not in self.models:
            return refusal(404, f"The model `{request.get('model')}` does not exist.", code="model_not_found")
        for name in sorted(set(self.refuses) & request.keys()):
            if name != "temperature":
                hint = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
                text = f"Unsupported parameter: '{name}' is not supported with this model.{hint}"
                return refusal(400, text, param=name, code="unsupported_parameter")
            if request[name] != 1:
                text = f"Unsupported value: 'temperature' does not support {request[name]} with this model."
                return refusal(
                    400, f"{text} Only the default (1) value is supported.", param=name, code="unsupported_value"
                )
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of those who left without waiting for an answer."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server_of_chat: ChatServer
    protocol_version = "HTTP/1.1"
    # Headers and body leave as two packets: without this each reply waits for an acknowledgement (40 ms).
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        names = sorted(self.server_of_chat.models or ())
        if self.path.endswith("/v1/models") and names:
            self._send(
                200, json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]}), {}
            )
        else:
            self._send(404, "404 page not found", {"Content-Type": "text/plain"})

    def do_POST(self) -> None:
        chat = self.server_of_chat
        body = self.rfile.read(size := int(self.headers["Content-Length"]))
        if len(body) < size:  # who asked has gone in the middle of it
            self.close_connection = True
            return
        request = json.loads(body)
        fault = chat.enter(request, {name.lower(): text for name, text in self.headers.items()})
        try:
            if not self.path.endswith("/chat/completions"):
                fault = refusal(404, f"There is nothing at {self.path}.")
            if fault.slow:
                chat.stopping.wait(fault.slow)
            if fault.status:
                self._send(fault.status, fault.body, fault.headers)
            else:
                self._reply(request, fault)
        except OSError:
            self.close_connection = True  # who asked did not wait
        finally:
            chat.leave()

    def _reply(self, request: Mapping[str, Any], fault: Fault) -> None:
        if fault.cut == 0:
            self._hang_up()
            return
        completion = _completion(self.server_of_chat, request)
        if request.get("stream"):
            self._stream(completion, request, fault)
        else:
            self._send(200, json.dumps(completion), {}, fault.cut)

    def _send(self, status: int, body: str, headers: Mapping[str, str], cut: int | None = None) -> None:
        data = body.encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data if cut is None else data[: len(data) // 2])
        if cut is not None:
            self._hang_up()

    def _stream(self, completion: Mapping[str, Any], request: Mapping[str, Any], fault: Fault) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, piece in enumerate(_pieces(completion, request)):
            if number == fault.cut:
                self.server_of_chat.stopping.wait(fault.stall)
                self._hang_up()
                return
            self._chunk(f"data: {json.dumps(piece)}\n\n".encode())
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what came is in :attr:`ChatServer.requests`."""


def texts(request: Mapping[str, Any]) -> list[str]:
    """All texts of a request's messages, in order."""
    return [part["text"] for part in parts(request) if part["type"] == "text"]


def images(request: Mapping[str, Any]) -> list[str]:
    """The URLs of all pictures of a request, in order."""
    return [part["image_url"]["url"] for part in parts(request) if part["type"] == "image_url"]


def parts(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of all messages, in order; a plain text is a part of its own."""
    found: list[dict[str, Any]] = []
    for message in request["messages"]:
        content = message["content"]
        found += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return found


def _completion(chat: ChatServer, request: Mapping[str, Any]) -> dict[str, Any]:
    """A reply of at most ``max_tokens`` words: here a word is a token, and a picture is 85."""
    text, limit = chat.reply(request), request.get("max_tokens", request.get("max_completion_tokens"))
    words = re.findall(r"\s*\S+", text)
    longer = limit is not None and len(words) > limit
    prompt = sum(len(one.split()) for one in texts(request)) + 85 * len(images(request))
    reply = min(len(words), limit) if limit is not None else len(words)
    message = {"role": "assistant", "content": "".join(words[:limit]) if longer else text}
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": chat.model,
        "system_fingerprint": chat.fingerprint,
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": "length" if longer else "stop",
                **_logprobs(chat, request),
            }
        ],
        "usage": {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply},
    }


def _logprobs(chat: ChatServer, request: Mapping[str, Any]) -> dict[str, Any]:
    if not request.get("logprobs") or chat.likely is None:
        return {}
    rows = []
    for text, likely in chat.likely(request):
        best = sorted(likely.items(), key=lambda one: -one[1])[: request.get("top_logprobs", 0)]
        told = [{"token": token, "logprob": math.log(one), "bytes": list(token.encode())} for token, one in best]
        own = math.log(likely[text]) if likely.get(text) else -9999.0
        rows.append({"token": text, "logprob": own, "bytes": list(text.encode()), "top_logprobs": told})
    return {"logprobs": {"content": rows, "refusal": None}}


def _pieces(completion: Mapping[str, Any], request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    head = {**completion, "object": "chat.completion.chunk"}
    choice, usage = completion["choices"][0], head.pop("usage")
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word} for word in re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", choice["message"]["content"])]
    for delta in deltas:
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]}
    if (request.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": usage}
