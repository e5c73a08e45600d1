"""Servers of video that do not behave: one fault a server, over real sockets, for RTSP, HTTP and RTMP.

::

    with FaultServer("rtsp", silent(after="DESCRIBE")) as server:
        open_source(server.url())
        server.requests       # the first line of every request that came
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

Flavour = Literal["rtsp", "http", "rtmp"]
SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\na=control:*\r\n"
    "m={media} 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:96 {codec}\r\na=control:track1\r\n"
)
#: An HTTP body that starts as a transport stream does.
TS = (b"\x47\x40\x11\x10" + bytes(184)) * 8


class Talk:
    """One connection. ``request`` is the first line of the last request, ``method`` its first word."""

    def __init__(self, peer: socket.socket, flavour: Flavour, requests: list[str]) -> None:
        self.peer, self.flavour, self.requests = peer, flavour, requests
        self.request = self.method = self.sequence = ""
        self.headers: dict[str, str] = {}
        self._left = b""

    def read(self) -> bool:
        """Wait for a request; false if the other side has gone."""
        while b"\r\n\r\n" not in self._left:
            more = self.peer.recv(65536)
            if not more:
                return False
            self._left += more
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        self.request, *lines = head.decode("latin-1").split("\r\n")
        self.method = self.request.partition(" ")[0]
        self.headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        self.sequence = self.headers.get("cseq", "")
        self.requests.append(self.request)
        return True

    def reply(self, status: str, headers: str = "", body: bytes = b"", length: int | None = None) -> None:
        """Answer; ``length``: what is told of the body's, which may be wrong."""
        self.peer.sendall(self.head(status, headers, len(body) if length is None else length) + body)

    def head(self, status: str, headers: str, length: int) -> bytes:
        """The bytes before a body."""
        version = "RTSP/1.0" if self.flavour == "rtsp" else "HTTP/1.1"
        sequence = f"CSeq: {self.sequence}\r\n" if self.flavour == "rtsp" else ""
        return f"{version} {status}\r\n{sequence}{headers}Content-Length: {length}\r\n\r\n".encode()

    def hold(self) -> None:
        """Say nothing until the other side goes."""
        with contextlib.suppress(OSError):
            while self.peer.recv(65536):
                pass

    def reset(self) -> None:
        """Break the connection: the other side gets a reset, not an end."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def usual(self, media: str = "video", codec: str = "H264/90000") -> None:
        """Answer the request as a good RTSP camera does."""
        if self.method == "OPTIONS":
            self.reply("200 OK", "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n")
        elif self.method == "DESCRIBE":
            self.reply("200 OK", "Content-Type: application/sdp\r\n", SDP.format(media=media, codec=codec).encode())
        elif self.method == "SETUP":
            self.reply("200 OK", "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")
        else:
            self.reply("200 OK", "Session: 1\r\n")


#: What is done with a connection.
Fault = Callable[[Talk], None]


def silent(after: str = "") -> Fault:
    """Accept, answer up to ``after`` (OPTIONS, DESCRIBE, SETUP, PLAY; "": nothing) and say nothing more.

    An HTTP server with ``after="GET"`` sends its headers and the first bytes.
    """

    def run(talk: Talk) -> None:
        while after and talk.read():
            if talk.flavour == "http":
                talk.reply("200 OK", "Content-Type: video/mp2t\r\n", TS, length=1 << 40)
                break
            talk.usual()
            if talk.method == after:
                break
        talk.hold()

    return run


def status(code: int, headers: str = "") -> Fault:
    """Every request gets this status; 401 comes with a challenge."""
    texts = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 500: "Internal Server Error", 503: "Unavailable"}
    challenge = 'WWW-Authenticate: Basic realm="camera"\r\n' if code == 401 and not headers else ""

    def run(talk: Talk) -> None:
        while talk.read():
            if talk.flavour == "rtsp" and talk.method == "OPTIONS":
                talk.usual()
            else:
                talk.reply(f"{code} {texts.get(code, 'Fault')}", headers + challenge)

    return run


def half_reply(close: bool = True) -> Fault:
    """Half of a reply's first line, then the end of the connection, or silence."""

    def run(talk: Talk) -> None:
        if talk.read():
            talk.peer.sendall(talk.head("200 OK", "", 0)[:12])
            if not close:
                talk.hold()

    return run


def half_packet(close: bool = True) -> Fault:
    """RTSP: after PLAY the first tenth of a packet; HTTP: half of a packet of a transport stream. Then as above."""

    def run(talk: Talk) -> None:
        while talk.read():
            if talk.flavour == "http":
                talk.reply("200 OK", "Content-Type: video/mp2t\r\n", TS[:94], length=1 << 40)
                break
            talk.usual()
            if talk.method == "PLAY":
                talk.peer.sendall(b"$\0" + struct.pack(">H", 1000) + b"\x80\x60" + bytes(98))
                break
        if not close:
            talk.hold()

    return run


def reset(after: str = "") -> Fault:
    """Reset the connection once it is accepted, or when ``after`` has been answered."""

    def run(talk: Talk) -> None:
        while after and talk.read():
            talk.usual()
            if talk.method == after:
                break
        talk.reset()

    return run


def wrong_length(told: int, body: bytes = b"") -> Fault:
    """A body of another length than the reply says, then the end."""

    def run(talk: Talk) -> None:
        while talk.read():
            if talk.flavour == "rtsp" and talk.method != "DESCRIBE":
                talk.usual()
                continue
            kind = "application/sdp" if talk.flavour == "rtsp" else "video/mp2t"
            text = SDP.format(media="video", codec="H264/90000").encode() if talk.flavour == "rtsp" else TS
            talk.reply("200 OK", f"Content-Type: {kind}\r\n", body or text, length=told)
            return

    return run


def describes(media: str = "audio", codec: str = "L16/8000") -> Fault:
    """A camera that offers only sound, or a codec that nobody knows, and sends nothing."""

    def run(talk: Talk) -> None:
        while talk.read():
            talk.usual(media, codec)

    return run


def garbage(body: bytes = bytes(range(256)) * 64) -> Fault:
    """HTTP: a whole body that is no video. RTSP: the same bytes in place of a reply."""

    def run(talk: Talk) -> None:
        if talk.read():
            if talk.flavour == "http":
                talk.reply("200 OK", "Content-Type: application/octet-stream\r\n", body)
            else:
                talk.peer.sendall(body)

    return run


class FaultServer:
    """Listens on a free port of 127.0.0.1 while it is a context; ``fault`` may be replaced at any time.

    ``refuses``: the port is taken but nobody listens there. ``requests``: first lines, in order; ``connections``: how
    many came. ``certificate``: a file with certificate and key; all is then encrypted.
    """

    def __init__(
        self,
        flavour: Flavour,
        fault: Fault | None = None,
        *,
        refuses: bool = False,
        certificate: Path | None = None,
    ) -> None:
        self.flavour, self.fault, self.refuses = flavour, fault or silent(), refuses
        self._tls = None if certificate is None else ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self._tls is not None:
            self._tls.load_cert_chain(str(certificate))
        self.requests: list[str] = []
        self.connections = 0
        self._peers: list[socket.socket] = []
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def url(self, path: str = "/live", *, user: str = "", password: str = "") -> str:
        """Of the one camera there is; user and password as they are to stand in it."""
        login = f"{user}:{password}@" if user else ""
        return f"{self.flavour}{'s' if self._tls else ''}://{login}127.0.0.1:{self.port}{path}"

    def __enter__(self) -> FaultServer:
        if not self.refuses:
            self._listener.listen(64)
            threading.Thread(target=self._accept, name="fault-server", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._peers.append(peer)
            threading.Thread(target=self._serve, args=(peer,), name="fault-server", daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            if self._tls is None:
                self.fault(Talk(peer, self.flavour, self.requests))
                return
            with self._tls.wrap_socket(peer, server_side=True) as secure:
                self.fault(Talk(secure, self.flavour, self.requests))
