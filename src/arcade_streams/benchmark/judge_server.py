"""A judge that knows the truth, behind the OpenAI protocol: commentary of the games is compared fact by fact.

``python -m arcade_streams.benchmark.judge_server --port 8010`` answers ``POST /v1/chat/completions`` (and ``GET
/v1/models``) with ``{"winner": "A"}``, ``"B"`` or ``"tie"``. The last user message with any blocks must hold three, in
this order: ``<reference>...</reference>``, ``<candidate_a>...</candidate_a>``, ``<candidate_b>...</candidate_b>`` (or
``transcript``, ``commentary_a``, ``commentary_b``); all other words of a prompt are skipped.

The candidate with the higher F1 of statements in order wins (:mod:`.facts`); equal F1 is a tie. The same texts always
get the same vote, whatever temperature and seed are asked for, and the vote does not depend on the order of the
candidates. Texts that cannot be judged are an error 400, never a vote; a prompt without any block, as clients send it
to try an endpoint, is answered with ``OK``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from threading import Thread
from typing import Any

from .facts import f1, facts_of, game_of

MODEL, FINGERPRINT = "arcade-facts", "arcade-facts-1"
MOST_BYTES = 8 << 20
"""The longest request that is read."""
#: What the three blocks are called; the first name is ours, the second that of this package's own judge prompts.
_NAMES = (("reference", "transcript"), ("candidate_a", "commentary_a"), ("candidate_b", "commentary_b"))
_TAG = re.compile(rf"</?({'|'.join(name for names in _NAMES for name in names)})>")


class RefusedError(Exception):
    """A request that cannot be answered; ``status`` is that of HTTP."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


def texts(prompt: str) -> tuple[str, str, str]:
    """Reference, candidate A, candidate B of a prompt.

    RefusedError unless each block is there once: a text that holds tags of its own cannot pass for another.
    """
    ends = [(tag[1], tag[0].startswith("</"), tag.start(), tag.end()) for tag in _TAG.finditer(prompt)]
    blocks = [
        (name, prompt[after:before].strip())
        for (name, closes, _, after), (other, closed, before, _) in pairwise(ends)
        if not closes and closed and name == other
    ]
    names = [name for name, _ in blocks]
    closing = sum(closes for _, closes, _, _ in ends)
    right = len(blocks) == closing == len(_NAMES)
    if not (right and all(name in known for name, known in zip(names, _NAMES, strict=True))):
        raise RefusedError(
            "the prompt must hold <reference>, <candidate_a> and <candidate_b>, each once, in this order"
        )
    reference, a, b = (text for _, text in blocks)
    return reference, a, b


def verdict(reference: str, a: str, b: str) -> str:
    """``A``, ``B`` or ``tie``. RefusedError for a reference that states nothing of any game."""
    game = game_of(reference)
    if game is None:
        raise RefusedError("the reference states nothing of any arcade game")
    true = facts_of(reference, game)
    one, other = (f1(facts_of(text, game), true) for text in (a, b))
    return "tie" if one == other else "A" if one > other else "B"


def completion(request: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a request for a chat completion, as a server of the protocol gives it. RefusedError."""
    if request.get("stream"):
        raise RefusedError("replies are not streamed here: leave out stream")
    if request.get("n", 1) != 1:
        raise RefusedError("one reply to a request: leave out n")
    prompt = _prompt(request.get("messages"))
    reply = json.dumps({"winner": verdict(*texts(prompt))}) if _TAG.search(prompt) else "OK"
    asked, said = len(prompt.split()), len(reply.split())
    return {
        "id": "chatcmpl-" + hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:24],
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "system_fingerprint": FINGERPRINT,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply, "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
    }


def _prompt(messages: Any) -> str:
    """The text of the last user message that holds blocks (a judge that is asked again is shown them only once)."""
    if not (isinstance(messages, list) and all(isinstance(message, dict) for message in messages)):
        raise RefusedError("messages must be a list of objects")
    asked = [_text(message.get("content")) for message in messages if message.get("role") == "user"]
    if not asked:
        raise RefusedError("no message of a user")
    return next((text for text in reversed(asked) if _TAG.search(text)), asked[-1])


def _text(content: Any) -> str:
    """Of a message: its content is a string or a list of parts."""
    parts = content if isinstance(content, list) else [{"text": content}]
    found = [part.get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in found if isinstance(text, str))


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """``/v1/models``."""
        if self.path.rstrip("/") == "/v1/models":
            self._send(
                200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "arcade_streams"}]}
            )
        else:
            self._refuse(RefusedError(f"nothing at {self.path}", 404))

    def do_POST(self) -> None:
        """``/v1/chat/completions``."""
        try:
            body = self._body()
            if self.path.rstrip("/") != "/v1/chat/completions":
                raise RefusedError(f"nothing at {self.path}", 404)
            try:
                request = json.loads(body)
            except (ValueError, RecursionError):
                raise RefusedError("the request is no JSON") from None
            if not isinstance(request, dict):
                raise RefusedError("the request is no JSON object")
            self._send(200, completion(request))
        except RefusedError as error:
            self._refuse(error)

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self.close_connection = True
            raise RefusedError("the length of the request is not told", 411)
        if int(length) > MOST_BYTES:
            self.close_connection = True
            raise RefusedError(f"a request has at most {MOST_BYTES} bytes", 413)
        return self.rfile.read(int(length))

    def _refuse(self, error: RefusedError) -> None:
        self._send(error.status, {"error": {"message": str(error), "type": "invalid_request_error", "code": None}})

    def _send(self, status: int, value: Mapping[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: requests are no news."""


@contextmanager
def running(host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The server in a thread of its own; gives its base URL (``http://127.0.0.1:PORT/v1``). Port 0: a free one."""
    server = ThreadingHTTPServer((host, port), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main(arguments: list[str] | None = None) -> int:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m arcade_streams.benchmark.judge_server", description=_HELP)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8010, help="0: a free one")
    options = parser.parse_args(arguments)
    try:
        server = ThreadingHTTPServer((options.host, options.port), Handler)
    except (OSError, OverflowError) as error:
        print(f"error: cannot listen on {options.host}:{options.port} ({error})", file=sys.stderr)
        return 2
    with server:
        print(f"http://{options.host}:{server.server_address[1]}/v1", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


_HELP = "Judges commentary of the arcade games by facts, as a server of the OpenAI protocol."

if __name__ == "__main__":
    raise SystemExit(main())
