"""Video over HTTP as cameras and players send it: HLS, MJPEG, MPEG-TS without end, and files.

::

    with MediaServer(folder) as server:
        with LiveHls(folder / "hls"):
            open_source(server.url("/hls/live.m3u8"))
        open_source(server.url("/mjpeg"))
        server.cut()      # every stream that is being sent ends

The pictures show when they were made: :func:`support.timecode.age`.
"""

from __future__ import annotations

import base64
import contextlib
import io
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
from av.codec.context import Flags

from . import timecode

KINDS = {".m3u8": "application/vnd.apple.mpegurl", ".ts": "video/mp2t", ".mp4": "video/mp4"}
SIZE = (160, 120)
FPS = 10
BOUNDARY = "frame"


class Encoder:
    """Pictures of the wall clock, encoded at their own pace into what PyAV can write."""

    def __init__(
        self,
        target: Any,
        container: str,
        options: dict[str, str] | None = None,
        codec: str = "libx264",
        headers: bool = False,
    ) -> None:
        """``headers``: the codec's headers go into the container's, not into the stream."""
        self.output = av.open(target, "w", format=container, options=options or {})
        stream = self.output.add_stream(codec, rate=FPS)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(FPS), "threads": "1"}
        if headers:
            stream.codec_context.flags |= Flags.global_header
        self.stream, self.count = stream, 0

    def add(self, now: float | None = None) -> None:
        """Encode the picture of ``now``."""
        frame = av.VideoFrame.from_ndarray(timecode.draw(*SIZE, now), format="rgb24")
        frame.pts, frame.time_base = self.count, Fraction(1, FPS)
        self.output.mux(self.stream.encode(frame))
        self.count += 1

    def close(self) -> None:
        self.output.mux(self.stream.encode())
        self.output.close()


class LiveHls:
    """A live playlist ``live.m3u8`` in ``folder``, a window of ``window`` segments of ``segment`` seconds.

    It goes on while it is a context; :meth:`stop` leaves it as it is, as an encoder that has died; with ``ends`` it
    then gets its end mark.
    """

    def __init__(self, folder: Path, *, segment: int = 1, window: int = 4, ends: bool = False) -> None:
        self.folder, self.segment, self.window, self.ends = folder, segment, window, ends
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-hls", daemon=True)

    def stop(self) -> None:
        """No segment follows."""
        self._stopped.set()
        self._thread.join(10)

    def __enter__(self) -> LiveHls:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not (self.folder / "live.m3u8").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        flags = "delete_segments+temp_file" + ("" if self.ends else "+omit_endlist")
        options = {"hls_time": str(self.segment), "hls_list_size": str(self.window), "hls_flags": flags}
        encoder = Encoder(str(self.folder / "live.m3u8"), "hls", options)
        began = time.monotonic()
        while not self._stopped.wait(max(began + encoder.count / FPS - time.monotonic(), 0)):
            encoder.add()
        encoder.close()


def write_hls(folder: Path, seconds: int = 4) -> Path:
    """A recording: a playlist that has all segments and its end mark."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recording.m3u8"
    encoder = Encoder(str(path), "hls", {"hls_time": "1", "hls_list_size": "0", "hls_playlist_type": "vod"})
    for index in range(seconds * FPS):
        encoder.add(index / FPS)
    encoder.close()
    return path


def write_evil_playlist(path: Path, target: str = "file:///etc/passwd") -> Path:
    """A playlist whose segment is something that no stranger may make a program read."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", "#EXTINF:1.0,", target]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class MediaServer:
    """Serves the files of ``folder``, ``/mjpeg`` (multipart) and ``/live.ts`` (MPEG-TS without end).

    ``user``: whoever comes needs it, with ``password`` (basic). ``stalled``: streams stay open and send nothing.
    ``missing``: paths that are answered with 404, ``hanging``: those that are not answered at all. ``requests``: the
    paths that were asked for. ``certificate``: a file with certificate and key, for https.

    ``breaks``: bytes of a file behind which a connection is reset, each once; ``ranges``: whether parts of a file can
    be asked for.
    """

    def __init__(
        self, folder: Path, *, user: str = "", password: str = "", port: int = 0, certificate: Path | None = None
    ) -> None:
        self.folder, self.port, self.certificate = folder, port, certificate
        self.key = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        self.stalled = threading.Event()
        self.missing: set[str] = set()
        self.hanging: set[str] = set()
        self.breaks: list[int] = []
        self.ranges = True
        self.requests: list[str] = []
        self._generation = 0
        self._http: _Server | None = None

    def url(self, path: str, *, login: str = "") -> str:
        """``login``: ``user:password`` as it is to stand in the URL."""
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{login + '@' if login else ''}127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        """Listen, again on the same port."""
        self._http = _Server(("127.0.0.1", self.port), _Handler)
        self._http.media = self
        self.port = self._http.server_address[1]
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            # The handshake belongs to the thread of a connection: others are not to wait for it.
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), name="media-server", daemon=True).start()

    def cut(self) -> None:
        """End all streams that are being sent."""
        self._generation += 1

    def kill(self) -> None:
        """Refuse connections from now on."""
        self.cut()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def __enter__(self) -> MediaServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def beats(self) -> Iterator[float]:
        """The moments of frames, until the streams are cut."""
        generation, began, count = self._generation, time.monotonic(), 0
        while generation == self._generation:
            wait = began + count / FPS - time.monotonic()
            time.sleep(max(wait, 0))
            count += 1
            if not self.stalled.is_set():
                yield time.time()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    media: MediaServer

    def handle_error(self, *_: Any) -> None:  # a client that has gone is not worth a traceback
        return


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        media = self.server.media
        path = self.path.partition("?")[0]
        media.requests.append(path)
        if media.key and self.headers.get("Authorization") != f"Basic {media.key}":
            self._answer(401, {"WWW-Authenticate": 'Basic realm="camera"'})
        elif path in media.missing:
            self._answer(404)
        elif path in media.hanging:
            self._hang(path)
        elif path == "/mjpeg":
            self._stream(f"multipart/x-mixed-replace; boundary={BOUNDARY}", self._send_jpegs)
        elif path == "/live.ts":
            self._stream("video/mp2t", self._send_ts)
        elif path == "/live.flv":
            self._stream("video/x-flv", self._send_flv)
        else:
            self._send_file(media.folder / path.lstrip("/"))

    def log_message(self, *_: Any) -> None:
        return

    def _hang(self, path: str) -> None:
        self.close_connection = True
        while path in self.server.media.hanging:
            time.sleep(0.02)

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", start: int = 0) -> None:
        """``start``: where in its file the body begins."""
        self.send_response(status)
        for name, text in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, text)
        self.end_headers()
        breaks = self.server.media.breaks
        cut = next((at for at in breaks if start <= at < start + len(body)), None)
        if cut is None:
            self.wfile.write(body)
            return
        breaks.remove(cut)
        self.wfile.write(body[: cut - start])
        self.wfile.flush()
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _send_file(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError:
            self._answer(404)
            return
        kind = {"Content-Type": KINDS.get(path.suffix, "application/octet-stream")}
        if self.server.media.ranges:
            kind["Accept-Ranges"] = "bytes"
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes=") and self.server.media.ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) if last else len(data) - 1
            if start >= len(data):
                self._answer(416, {"Content-Range": f"bytes */{len(data)}"})
                return
            where = {"Content-Range": f"bytes {start}-{min(end, len(data) - 1)}/{len(data)}"}
            self._answer(206, {**kind, **where}, data[start : end + 1], start)
        else:
            self._answer(200, kind, data)

    def _stream(self, kind: str, send: Any) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):
            send()

    def _send_jpegs(self) -> None:
        for now in self.server.media.beats():
            data = jpeg(now)
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")

    def _send_ts(self) -> None:
        encoder = Encoder(_Writes(self.wfile), "mpegts", {"flush_packets": "1"})
        for now in self.server.media.beats():
            encoder.add(now)

    def _send_flv(self) -> None:
        encoder = Encoder(_Writes(self.wfile), "flv", {"flush_packets": "1", "flvflags": "no_duration_filesize"})
        for now in self.server.media.beats():
            encoder.add(now)


class _Writes:
    """A file to PyAV that can only be written."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, data: bytes) -> int:
        self.file.write(data)
        return len(data)


def jpeg(now: float) -> bytes:
    """A picture of the wall clock."""
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height = SIZE
    context.pix_fmt, context.time_base = "yuvj420p", Fraction(1, FPS)
    frame = av.VideoFrame.from_ndarray(timecode.draw(*SIZE, now), format="rgb24").reformat(format="yuvj420p")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def mpegts(seconds: float) -> bytes:
    """A clip as a transport stream."""
    buffer = io.BytesIO()
    encoder = Encoder(buffer, "mpegts")
    for index in range(round(seconds * FPS)):
        encoder.add(index / FPS)
    encoder.close()
    return buffer.getvalue()
