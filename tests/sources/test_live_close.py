"""Letting a source go takes less than a second, whatever FFmpeg hangs in: for every protocol, in every state."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.sources import reader
from streamingvlm.sources.reader import left_behind
from support.fault_server import FaultServer, silent
from support.hls_script import HlsScript, write_pieces
from support.http_media import MediaServer
from support.live import Watched, watch
from support.rtmp_server import RtmpServer
from support.rtsp_server import RtspServer

#: FFmpeg would wait for minutes, and nobody here gives up before.
PATIENT = {"io_timeout": 60.0, "first_frame": 60.0, "no_frame": 60.0, "step": 0.2}


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while left_behind() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left_behind(), "a reader that was left behind has not ended with its server"


def close(watched: Watched) -> None:
    began = time.monotonic()
    watched.close()
    while [thread for thread in threading.enumerate() if thread.name == "streamingvlm-keeper"]:
        assert time.monotonic() - began < 1.0
        time.sleep(0.005)
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    ("flavour", "path", "after"),
    [
        ("rtsp", "/live", ""),
        ("rtsp", "/live", "OPTIONS"),
        ("rtsp", "/live", "DESCRIBE"),
        ("rtsp", "/live", "PLAY"),
        ("rtmp", "/live/match", ""),
        ("http", "/live.ts", ""),
        ("http", "/live.ts", "GET"),
        ("http", "/live.m3u8", ""),
        ("http", "/live.flv", ""),
        ("http", "/mjpeg", ""),
    ],
)
def test_while_it_is_opened(flavour: Any, path: str, after: str) -> None:
    with FaultServer(flavour, silent(after)) as server, watch(server.url(path), **PATIENT) as watched:
        deadline = time.monotonic() + 5
        while not server.connections and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.1)
        assert [one.state for one in watched.statuses] == ["connecting"]
        close(watched)


#: What gives a server in ``folder``: the URL, and what makes it hang.
Hanging = Callable[[Path, ExitStack], tuple[str, Callable[[], object]]]


def of_web(path: str) -> Hanging:
    def give(folder: Path, stack: ExitStack) -> tuple[str, Callable[[], object]]:
        server = stack.enter_context(MediaServer(folder))
        stack.callback(server.stalled.clear)
        return server.url(path), server.stalled.set

    return give


def of_playlist(*hanging: str) -> Hanging:
    def give(folder: Path, stack: ExitStack) -> tuple[str, Callable[[], object]]:
        write_pieces(folder, 3)
        server = stack.enter_context(MediaServer(folder))
        playlist = stack.enter_context(HlsScript(folder))
        playlist.add("0.ts", "1.ts")
        stack.callback(server.hanging.clear)

        def hang() -> None:
            server.hanging.update(hanging)
            playlist.add("2.ts")
            wait = time.monotonic() + 3
            while server.requests[-1:] != [hanging[0]] and time.monotonic() < wait:
                time.sleep(0.01)

        return server.url("/live.m3u8"), hang

    return give


def of_process(make: Callable[[], AbstractContextManager[Any]]) -> Hanging:
    def give(_: Path, stack: ExitStack) -> tuple[str, Callable[[], object]]:
        server = stack.enter_context(make())
        return server.url(), server.freeze

    return give


HANGING = {
    "rtsp": of_process(RtspServer),
    "rtmp": of_process(RtmpServer),
    "mpegts": of_web("/live.ts"),
    "flv": of_web("/live.flv"),
    "mjpeg": of_web("/mjpeg"),
    "hls, in the playlist": of_playlist("/live.m3u8"),
    "hls, in a piece": of_playlist("/2.ts"),
}


@pytest.mark.parametrize("name", HANGING)
def test_while_it_is_read(name: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        url, hang = HANGING[name](tmp_path, stack)
        with watch(url, **{**PATIENT, "no_frame": 3.0}) as watched:
            watched.wait_steps(1)
            hang()
            time.sleep(0.2)
            close(watched)
            assert left_behind() <= 1


class Slow:
    """A container that takes long to close."""

    def __init__(self, container: Any, go: threading.Event) -> None:
        self._container, self._go = container, go

    def close(self) -> None:
        self._go.wait(10)
        self._container.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)


@pytest.mark.parametrize("path", ["/live.ts", "/mjpeg"])
def test_while_it_is_closed(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, opened = threading.Event(), reader.av.open
    monkeypatch.setattr(reader.av, "open", lambda *args, **more: Slow(opened(*args, **more), go))
    with MediaServer(tmp_path) as server, watch(server.url(path), **PATIENT) as watched:
        watched.wait_steps(1)
        server.cut()
        watched.wait(lambda: any(one.state == "reconnecting" for one in watched.statuses))
        close(watched)
        go.set()
