"""A match as MPEG-TS over HTTP, for any number of clients; nothing beyond the standard library is needed."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from streamingvlm import OutputError

from .address import Address
from .match import EncodedFrame

#: Stretches from one key frame to the next that are kept; a client that is further behind goes on at the newest.
KEPT = 4
#: Clients at once; one more gets 503.
MAX_CLIENTS = 64
#: Seconds that a client may take nothing.
PATIENCE = 10.0
#: Bytes that the system may hold for a client: what lies there is old when it is read.
SEND_BUFFER = 1 << 14


class Broadcast:
    """The newest seconds of a stream, for many readers; it never waits for one."""

    def __init__(self) -> None:
        self._stretches: deque[list[bytes]] = deque(maxlen=KEPT)
        self._newest = -1
        self._closed = False
        self._changed = threading.Condition()

    def write(self, frame: EncodedFrame) -> None:
        """Take the next frame; those before the first key frame are left out."""
        with self._changed:
            if frame.key:
                self._stretches.append([])
                self._newest += 1
            if self._stretches:
                self._stretches[-1].append(frame.transport)
            self._changed.notify_all()

    def close(self) -> None:
        """All readers come to their end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def read(self) -> Iterator[bytes]:
        """From the newest key frame on, without end."""
        number, at = -1, 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._has(number, at))  # noqa: B023 - it runs here
                if self._closed:
                    return
                if number <= self._newest - len(self._stretches):  # it has just come, or was too slow
                    number, at = self._newest, 0
                stretch = self._stretches[number - self._newest - 1]
                data, at = b"".join(stretch[at:]), len(stretch)
                if number < self._newest:
                    number, at = number + 1, 0
            if data:
                yield data

    def _has(self, number: int, at: int) -> bool:
        return self._newest > number or (self._newest == number >= 0 and len(self._stretches[-1]) > at)


class HttpMatch:
    """Serves a broadcast while it is a context. ``port``: the one that was taken.

    Raises OutputError if the address cannot be listened on.
    """

    def __init__(self, address: Address) -> None:
        self.broadcast = Broadcast()
        try:
            family, _, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
            self._server = _Server(family, where, self.broadcast, address.path)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"cannot serve at {address.url(address.port)} ({reason})") from None
        self.port: int = self._server.server_address[1]

    def publish(self, frame: EncodedFrame) -> None:
        """Send a frame to everybody; never waits."""
        self.broadcast.write(frame)

    def __enter__(self) -> HttpMatch:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="match-http", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.broadcast.close()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, family: int, where: Any, broadcast: Broadcast, path: str) -> None:
        self.address_family = family
        self.broadcast, self.path = broadcast, path
        self.places = threading.Semaphore(MAX_CLIENTS)
        super().__init__(where, _Handler)

    def server_bind(self) -> None:
        """Without the look-up of the host's name that the standard library does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, *_: Any) -> None:
        """A client that goes in the middle of something is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    server: _Server

    def do_GET(self) -> None:
        """The stream, from the newest key frame on."""
        if not self._found():
            return
        if not self.server.places.acquire(blocking=False):
            self._refuse(503, f"{MAX_CLIENTS} clients watch already")
            return
        try:
            self._head()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            with contextlib.suppress(OSError):
                for data in self.server.broadcast.read():
                    self.wfile.write(data)
        finally:
            self.server.places.release()

    def do_HEAD(self) -> None:
        """What a GET would begin with."""
        if self._found():
            self._head()

    def log_message(self, format: str, *args: Any) -> None:
        """Standard error is for what a person must read."""

    def _found(self) -> bool:
        if self.path.partition("?")[0] == self.server.path:
            return True
        self._refuse(404, f"the match is at {self.server.path}")
        return False

    def _head(self) -> None:
        self.close_connection = True
        self.send_response(200)
        for name, text in (("Content-Type", "video/mp2t"), ("Cache-Control", "no-store"), ("Connection", "close")):
            self.send_header(name, text)
        self.end_headers()

    def _refuse(self, status: int, text: str) -> None:
        body = f"{text}\n".encode()
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
