"""A match as a live stream: over HTTP and RTSP, real clients, and what goes wrong with them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from arcade_streams.serve import http as http_module
from arcade_streams.serve import rtsp
from arcade_streams.serve.address import Address, parse_address
from arcade_streams.serve.http import KEPT, Broadcast, HttpMatch
from arcade_streams.serve.match import EncodedFrame, LiveMatch
from arcade_streams.serve.rtsp import RtspMatch
from arcade_streams.worlds.games.pong import PONG
from arcade_streams.worlds.record import clip_frame, frames_and_truth
from arcade_streams.worlds.stream import GameStream
from streamingvlm import OptionError, OutputError, cli

LOCAL = Address("http", "127.0.0.1", 0, "/match.ts")
READ = {"rtsp_transport": "tcp", "analyzeduration": "500000", "probesize": "65536"}


@contextlib.contextmanager
def played(server: HttpMatch | RtspMatch, seed: int = 3) -> Iterator[LiveMatch]:
    """A match that goes on in a thread."""
    match, stopped = LiveMatch(PONG, seed), threading.Event()
    thread = threading.Thread(target=match.run, args=(server.publish,), kwargs={"stopped": stopped})
    thread.start()
    try:
        yield match
    finally:
        stopped.set()
        thread.join()


def fetch(port: int, path: str = "/match.ts", method: str = "GET") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path)
    return connection.getresponse()


def frame(index: int, key: bool = False) -> EncodedFrame:
    return EncodedFrame(key, index / 30, b"", f"{'K' if key else '.'}{index:03}".encode())


def test_a_served_frame_is_that_of_a_clip() -> None:
    frames, _ = frames_and_truth(GameStream(PONG, 5), 2)
    world = PONG.world(5)
    assert all(np.array_equal(one, clip_frame(world, index)) for index, one in enumerate(frames))


def test_clients_come_at_any_time_and_see_the_match_at_its_pace() -> None:
    with HttpMatch(LOCAL) as server, played(server) as match:
        for _ in range(2):
            with av.open(LOCAL.url(server.port), options=READ) as container:
                began = match.seconds
                decoded = list(islice(container.decode(video=0), 40))
            assert decoded[0].key_frame
            times = [float(one.pts * one.time_base) for one in decoded]
            assert [b - a for a, b in pairwise(times)] == pytest.approx([1 / 30] * 39, abs=1e-3)
            # What lay behind the newest key frame came at once, the rest at its pace.
            assert began - 1.0 <= times[0] <= began + 0.05
            assert times[-1] == pytest.approx(match.seconds, abs=0.2)
        expected = clip_frame(PONG.world(3), round(times[-1] * 30)).astype(int)
        off = abs(expected - decoded[-1].to_ndarray(format="rgb24")).max(axis=-1) > 60
        assert off.mean() < 2e-4


def test_a_stream_begins_with_its_tables_and_a_key_frame() -> None:
    with HttpMatch(LOCAL) as server, played(server):
        time.sleep(0.3)
        answer = fetch(server.port)
        assert (answer.status, answer.getheader("Content-Type")) == (200, "video/mp2t")
        data = answer.read(188 * 4)
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    assert all(packet[0] == 0x47 for packet in packets)
    pids = [(packet[1] & 31) << 8 | packet[2] for packet in packets]
    assert [pid for pid in pids if pid != 0x11] == [0, 0x1000, 0x100]  # program tables, then the video
    assert data[188 * pids.index(0x100) + 1] & 0x40  # a picture begins


def test_a_reader_begins_at_the_newest_key_frame_and_waits_for_more() -> None:
    broadcast = Broadcast()
    for index in range(-1, 5):
        broadcast.write(frame(index, key=index in (0, 3)))
    reader = broadcast.read()
    assert next(reader) == b"K003.004"
    threading.Timer(0.05, broadcast.write, [frame(5)]).start()
    assert next(reader) == b".005"
    broadcast.close()
    assert list(reader) == []


def test_a_slow_reader_goes_on_at_the_newest_key_frame() -> None:
    broadcast = Broadcast()
    reader = None
    for index in range(3 * (KEPT + 3)):
        broadcast.write(frame(index, key=index % 3 == 0))
        if reader is None:
            reader = broadcast.read()
            assert next(reader) == b"K000"
    newest = 3 * (KEPT + 2)
    assert reader is not None
    assert next(reader) == f"K{newest:03}.{newest + 1:03}.{newest + 2:03}".encode()


def test_a_reader_that_is_little_behind_misses_nothing() -> None:
    broadcast = Broadcast()
    broadcast.write(frame(0, key=True))
    reader = broadcast.read()
    assert next(reader) == b"K000"
    for index in range(1, 3 * (KEPT - 1)):
        broadcast.write(frame(index, key=index % 3 == 0))
    read = b"".join(islice(reader, KEPT - 1))
    assert [int(read[at + 1 : at + 4]) for at in range(0, len(read), 4)] == list(range(1, 3 * (KEPT - 1)))


def test_one_that_never_reads_and_one_that_goes_leave_the_others_alone() -> None:
    with HttpMatch(LOCAL) as server, played(server) as match:
        deaf = socket.create_connection(("127.0.0.1", server.port))
        deaf.sendall(b"GET /match.ts HTTP/1.1\r\n\r\n")
        fetch(server.port).close()
        answer = fetch(server.port)
        began = time.monotonic()
        while time.monotonic() - began < 0.7:
            assert answer.read(188)
        assert match.late == 0
        deaf.close()


def test_a_full_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "MAX_CLIENTS", 1)
    with HttpMatch(LOCAL) as server, played(server):
        first = fetch(server.port)
        refused = fetch(server.port)
        assert (refused.status, refused.read()) == (503, b"1 clients watch already\n")
        assert fetch(server.port, method="HEAD").status == 200
        first.close()


def test_another_path_is_told_where_the_match_is() -> None:
    with HttpMatch(LOCAL) as server:
        answer = fetch(server.port, "/")
        assert (answer.status, answer.read()) == (404, b"the match is at /match.ts\n")


def test_time_goes_on_where_the_machine_does_not_keep_up() -> None:
    match, published = LiveMatch(PONG, 0), []

    def publish(one: EncodedFrame) -> None:
        published.append(one.time)
        if len(published) == 3:
            time.sleep(0.8)

    match.run(publish, seconds=1.5)
    assert 4 <= match.late <= 12
    assert published[-1] == pytest.approx(44 / 30)
    assert [start for start, _, _ in match.truth()] == [0.0]


@pytest.mark.slow
def test_over_rtsp() -> None:
    address = Address("rtsp", "127.0.0.1", 0, "/match")
    try:
        server = RtspMatch(address)
    except OutputError as error:
        pytest.skip(str(error))
    with server, played(server):
        for transport in ("tcp", "udp"):
            with av.open(address.url(server.port), options={**READ, "rtsp_transport": transport}) as container:
                decoded = list(islice(container.decode(video=0), 10))
            assert decoded[0].key_frame
            assert (decoded[0].width, decoded[0].height) == (320, 420)
        with pytest.raises(OutputError, match=r"cannot serve at rtsp://127\.0\.0\.1:\d+/match"):
            RtspMatch(Address("rtsp", "127.0.0.1", server.port, "/match"))
        server._process.kill()
        server._process.wait()
        with pytest.raises(OutputError, match="ended by itself"):
            server.publish(frame(0))


def test_without_the_rtsp_server_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rtsp, "INTERPRETERS", ("/usr/bin/false",))
    assert cli.main(["record", "arcade:pong", "--serve", "rtsp://127.0.0.1:0/match"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "install python3-gi gir1.2-gst-rtsp-server-1.0" in line
    assert "http://" in line


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with HttpMatch(LOCAL) as server:
        assert cli.main(["record", "arcade:pong", "--serve", LOCAL.url(server.port)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert "cannot serve at http://127.0.0.1:" in line


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("ftp://127.0.0.1:80/a", "--serve takes"),
        ("http://127.0.0.1/match.ts", "--serve takes"),
        ("http://127.0.0.1:99999/", "--serve takes"),
        ("http://:8080/", "--serve takes"),
        ("127.0.0.1:8080", "--serve takes"),
        ("http://127.0.0.1:8080/a?b=c", "--serve takes"),
        ("http://u:secret@127.0.0.1:8080/", "no passwords"),
        ("http://[::1:8080/", "--serve takes"),
    ],
)
def test_what_is_no_address(url: str, word: str) -> None:
    with pytest.raises(OptionError, match=word) as raised:
        parse_address(url)
    assert "secret" not in str(raised.value)


def test_addresses() -> None:
    assert parse_address("http://0.0.0.0:8080") == Address("http", "0.0.0.0", 8080, "/match.ts")
    assert parse_address("rtsp://localhost:0/") == Address("rtsp", "localhost", 0, "/match")
    assert parse_address("http://[::1]:1/a.ts").url(2) == "http://[::1]:2/a.ts"


def test_a_match_of_some_seconds_and_its_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, before = tmp_path / "truth.jsonl", time.time()
    arguments = ["record", "arcade:pong?seed=7", "--seconds", "1", "--serve", "http://127.0.0.1:0/", "-o", str(words)]
    assert cli.main(arguments) == 0
    record = json.loads(words.read_text())
    assert (record["game"], before < record["wall"] < time.time()) == ("pong", True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("serving pong, seed 7, at http://127.0.0.1:")
    assert lines[1].startswith("streamingvlm watch http://127.0.0.1:")
    assert record["title"] in lines[1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["-o", "OUT/a.mp4", "--serve", "http://127.0.0.1:0/"], ".jsonl"),
        (["-o", "OUT/none/a.jsonl", "--serve", "http://127.0.0.1:0/"], "cannot write"),
        ([], "-o PATH.mp4"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["record", "arcade:pong", *(part.replace("OUT", str(tmp_path)) for part in arguments)]) == 2
    assert word in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_signal_ends_it_with_whole_files(scheme: str, sign: int, code: int, tmp_path: Path) -> None:
    if scheme == "rtsp" and not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("needs Debian's gst-rtsp-server")
    words = tmp_path / "truth.jsonl"
    command = [sys.executable, "-m", "streamingvlm", "record", "arcade:pong", "-o", str(words)]
    process = subprocess.Popen(
        [*command, "--serve", f"{scheme}://127.0.0.1:0/"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.skip(process.communicate()[1])
    with av.open(line.split()[-1], options=READ) as container:
        assert len(list(islice(container.decode(video=0), 5))) == 5
        process.send_signal(sign)
        _, told = process.communicate(timeout=20)
    assert process.returncode == code, told
    assert told.startswith("served ")
    assert "Traceback" not in told
    assert json.loads(words.read_text())["game"] == "pong"
