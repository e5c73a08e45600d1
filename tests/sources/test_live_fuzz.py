"""Servers that do whatever a random generator says: no hang, no thread left, no fault of our own, always one line."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import pytest

from streamingvlm.core.events import SourceCode
from streamingvlm.sources.reader import left_behind
from support import media
from support.fault_server import FaultServer, Talk
from support.http_media import jpeg, mpegts
from support.live import watch

CODES = set(get_args(SourceCode))
#: What a server does next with a connection, and how it ends.
Act = Callable[[Talk, random.Random], None]


@cache
def clips() -> tuple[bytes, ...]:
    """Videos in several containers."""
    with TemporaryDirectory() as folder:
        files = [media.write_clip(Path(folder) / f"a.{kind}", count=20).read_bytes() for kind in ("mp4", "flv", "mkv")]
    return (mpegts(2.0), jpeg(0.0) * 5, *files)


def body_of(draw: random.Random) -> bytes:
    """Some video, whole, cut off or damaged, or none."""
    data = bytearray(draw.choice(clips()))
    for _ in range(draw.choice((0, 0, 5, 200))):
        data[draw.randrange(len(data))] = draw.randrange(256)
    if draw.random() < 0.4:
        del data[draw.randrange(1, len(data)) :]
    return bytes(data) if draw.random() < 0.85 else draw.randbytes(draw.choice((1, 100, 20_000)))


def playlist(draw: random.Random) -> bytes:
    """Some of what may stand in a playlist, in any order."""
    lines = [
        "#EXTM3U",
        "#EXT-X-TARGETDURATION:1",
        "#EXTINF:1.0,",
        "/piece.ts",
        "#EXT-X-ENDLIST",
        "#EXT-X-DISCONTINUITY",
    ]
    lines += ["/live.m3u8", "#EXT-X-STREAM-INF:BANDWIDTH=1", "file:///etc/passwd", "#EXTINF:-1e99,", "#EXT-X-KEY:URI=x"]
    lines += ["#EXT-X-MEDIA-SEQUENCE:18446744073709551615", "http://127.0.0.1:1/x.ts", "#EXT-X-MAP:URI=/init.mp4", "\0"]
    return "\n".join(["#EXTM3U", *draw.choices(lines, k=draw.randrange(2, 30))]).encode() + b"\n"


def drip(talk: Talk, data: bytes, draw: random.Random) -> None:
    """Send it in small bits with pauses."""
    until = time.monotonic() + 1.5
    while data and time.monotonic() < until:
        size = draw.randrange(1, 400)
        talk.peer.sendall(data[:size])
        data = data[size:]
        time.sleep(draw.random() * 0.03)


def answer(talk: Talk, draw: random.Random) -> None:
    body = playlist(draw) if ".m3u8" in talk.request else body_of(draw)
    told = draw.choice((len(body), len(body), len(body) // 2, len(body) + 1000, 1 << 40))
    kind = draw.choice(("video/mp2t", "video/mp4", "text/html", "application/vnd.apple.mpegurl", "multipart/x"))
    head = talk.head(draw.choice(("200 OK", "200 OK", "206 Partial", "299 x")), f"Content-Type: {kind}\r\n", told)
    drip(talk, head + body, draw) if draw.random() < 0.3 else talk.peer.sendall(head + body)


def redirect(talk: Talk, draw: random.Random) -> None:
    place = draw.choice(
        ("/again", "/live.m3u8", "http://127.0.0.1:1/", "file:///etc/passwd", "", "ftp://x/", "/" * 9000)
    )
    talk.reply(draw.choice(("301 x", "302 x", "307 x")), f"Location: {place}\r\n")


def refuse(talk: Talk, draw: random.Random) -> None:
    code = draw.choice((400, 401, 403, 404, 407, 416, 429, 500, 503, 999))
    talk.reply(
        f"{code} x", draw.choice(("", 'WWW-Authenticate: Digest realm="a", nonce="b"\r\n', "Retry-After: 1\r\n"))
    )


def headers(talk: Talk, draw: random.Random) -> None:
    """Headers without an end."""
    until = time.monotonic() + 1.0
    talk.peer.sendall(b"HTTP/1.1 200 OK\r\n" if talk.flavour == "http" else b"RTSP/1.0 200 OK\r\n")
    while time.monotonic() < until:
        talk.peer.sendall(b"X-Header: " + b"y" * draw.choice((1, 100, 5000)) + b"\r\n")
        time.sleep(0.002)


def chunks(talk: Talk, draw: random.Random) -> None:
    """A body in chunks, some with a length that is none."""
    talk.peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    data = body_of(draw)
    for at in range(0, len(data), 3000):
        part = data[at : at + 3000]
        size = draw.choice((f"{len(part):x}", f"{len(part):x}", f"{len(part):x}", "zz", "-5", "ffffffffffffffff"))
        talk.peer.sendall(f"{size}\r\n".encode() + part + b"\r\n")


def garbage(talk: Talk, draw: random.Random) -> None:
    talk.peer.sendall(draw.randbytes(draw.choice((1, 50, 5000, 100_000))))


def camera(talk: Talk, draw: random.Random) -> None:
    """What a camera would answer, or nearly."""
    codec = draw.choice(("H264/90000", "H265/90000", "JPEG/90000", "NONSENSE/90000", "H264/0", "H264"))
    talk.usual(draw.choice(("video", "video", "audio")), codec)
    if talk.method == "PLAY":
        for _ in range(draw.randrange(30)):
            data = b"\x80" + bytes([96 | draw.choice((0, 128))]) + draw.randbytes(draw.randrange(10, 1200))
            told = draw.choice((len(data), len(data), len(data), 65535, 0))
            talk.peer.sendall(bytes([36, draw.choice((0, 0, 0, 1, 7))]) + told.to_bytes(2, "big") + data)


def pause(_: Talk, draw: random.Random) -> None:
    time.sleep(draw.random())


WEB: tuple[Act, ...] = (answer, answer, answer, redirect, refuse, headers, chunks, garbage, pause)
CAMERA: tuple[Act, ...] = (camera, camera, camera, camera, camera, camera, refuse, headers, garbage, pause)


def script(seed: int, acts: tuple[Act, ...]) -> Callable[[Talk], None]:
    """The same for the same seed and number of a connection."""
    count, lock = [0], threading.Lock()

    def run(talk: Talk) -> None:
        with lock:
            count[0] += 1
            draw = random.Random(seed * 1000 + count[0])
        if draw.random() < 0.1:
            garbage(talk, draw)
        while talk.read():
            draw.choice(acts)(talk, draw)
            end = draw.random()
            if end < 0.1:
                talk.reset()
            elif end < 0.2:
                return
            elif end < 0.25:
                talk.hold()

    return run


def check(flavour: str, path: str, seed: int, acts: tuple[Act, ...]) -> None:
    before = threading.active_count()
    with FaultServer(flavour, script(seed, acts)) as server:  # type: ignore[arg-type]
        with watch(server.url(path), io_timeout=0.2, first_frame=0.6, no_frame=0.4, ladder=((0.02, 1000),)) as watched:
            deadline = time.monotonic() + 6
            while sum(bool(one.code) for one in watched.statuses) < 4 and not watched.ended:
                assert time.monotonic() < deadline, watched.told()
                time.sleep(0.01)
            assert watched.close() < 1.0
        assert watched.error is None, watched.told()
        assert {one.code for one in watched.statuses} <= CODES
        assert all("\n" not in one.reason and "127.0.0.1" not in one.reason for one in watched.statuses)
    deadline = time.monotonic() + 4
    while (left_behind() or threading.active_count() > before) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left_behind()


FEW, MANY = range(4), [pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 40)]


@pytest.mark.parametrize("seed", [*FEW, *MANY])
def test_a_web_server(seed: int) -> None:
    check("http", random.Random(seed).choice(("/live.ts", "/live.m3u8", "/clip.mp4")), seed, WEB)


@pytest.mark.parametrize("seed", [*FEW, *MANY])
def test_a_camera(seed: int) -> None:
    check("rtsp", "/live", seed, CAMERA)


@pytest.mark.parametrize("seed", [*FEW, *MANY])
def test_a_broadcast(seed: int) -> None:
    def run(talk: Talk) -> None:
        draw = random.Random(seed)
        talk.peer.recv(4096)
        if draw.random() < 0.7:
            talk.peer.sendall(bytes([3]) + draw.randbytes(3072))
        for _ in range(draw.randrange(5)):
            talk.peer.sendall(draw.randbytes(draw.choice((1, 12, 200, 4000))))
            time.sleep(draw.random() * 0.05)
        draw.choice((talk.reset, talk.hold, lambda: None))()

    with FaultServer("rtmp", run) as server:
        with watch(server.url("/a/b"), io_timeout=0.2, first_frame=0.6, ladder=((0.02, 1000),)) as watched:
            watched.wait(lambda: sum(bool(one.code) for one in watched.statuses) >= 3)
            assert watched.close() < 1.0
        assert {one.code for one in watched.statuses} <= CODES
