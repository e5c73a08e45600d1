"""A real HTTP server that takes webhooks, and behaves as it is told."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Request:
    """What has come in one request."""

    path: str
    headers: dict[str, str]
    body: bytes


#: What it does with a request: answers with a status, or anything else.
Behaviour = int | Callable[["Handler"], None]


@dataclass
class Receiver:
    """``behaviours``: one for each request, the last for all that follow."""

    behaviours: Sequence[Behaviour] = (200,)
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    port: int = 0

    def wait(self, count: int, seconds: float = 5.0) -> list[Request]:
        """Until so many requests have come."""
        until = time.monotonic() + seconds
        while len(self.requests) < count and time.monotonic() < until:
            time.sleep(0.005)
        assert len(self.requests) >= count, f"{len(self.requests)} requests have come"
        return self.requests


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    receiver: Receiver

    def do_POST(self) -> None:
        """Keep the request, then behave."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.receiver.requests.append(Request(self.path, dict(self.headers), body))
        behaviours = self.receiver.behaviours
        behaviour = behaviours[min(len(self.receiver.requests), len(behaviours)) - 1]
        if callable(behaviour):
            behaviour(self)
        else:
            self.answer(behaviour)

    do_GET = do_POST  # noqa: N815

    def answer(self, status: int, **headers: str) -> None:
        """A reply without a body."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def hang_up(handler: Handler) -> None:
    """End the connection without a reply, by a reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()


def drip(handler: Handler) -> None:
    """A header that never ends, a byte at a time."""
    with suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(200):
            handler.wfile.write(b"x")
            time.sleep(0.02)


def no_http(handler: Handler) -> None:
    """Something that is no HTTP."""
    handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")
    handler.close_connection = True


def sleep(seconds: float) -> Behaviour:
    """Answer late."""

    def late(handler: Handler) -> None:
        time.sleep(seconds)
        with suppress(OSError):
            handler.answer(200)

    return late


@contextmanager
def receiver(*behaviours: Behaviour, certificate: str | None = None, port: int = 0) -> Iterator[Receiver]:
    """A server on this machine. ``certificate``: a PEM file with its key, for TLS."""
    state = Receiver(behaviours or (200,))
    handler = type("OneHandler", (Handler,), {"receiver": state})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    state.port = server.server_address[1]
    state.url = f"{scheme}://127.0.0.1:{state.port}/hook?token=tokensecret"
    thread = threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
