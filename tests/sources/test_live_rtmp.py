"""Live sources on a real RTMP server, which is FFmpeg's own: power cuts, stalls, faults, passwords."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from streamingvlm.sources.reader import left_behind
from support.fault_server import FaultServer
from support.live import watch
from support.rtmp_server import RtmpServer


@pytest.fixture
def server() -> Iterator[RtmpServer]:
    with RtmpServer() as server:
        yield server


def test_a_broadcast_is_watched_as_it_is_made(server: RtmpServer) -> None:
    with watch(server.url()) as watched:
        watched.wait_steps(4)
        assert watched.close() < 1.0
    assert max(watched.ages[2:]) < 0.6
    (told,) = watched.formats
    assert (told.width, told.height, told.codec, told.rate) == (160, 120, "h264", 10.0)
    assert watched.statuses[-1].state == "running"
    assert {one.code for one in watched.statuses} <= {"", "refused"}
    assert not watched.gaps


def test_a_broadcast_that_is_cut_and_comes_back() -> None:
    with RtmpServer() as server, watch(server.url(), step=0.2) as watched:
        watched.wait_steps(2)
        server.kill()
        watched.wait(
            lambda: {"ended", "refused"} <= {one.code for one in watched.statuses if one.state == "reconnecting"}
        )
        server.start()
        watched.wait_status("running")
        watched.wait_steps(6)
    (gap,) = watched.gaps
    assert gap.reason == "ended"
    assert all(one.chunk.start >= gap.end or one.chunk.end <= gap.start for one in watched.steps)
    assert watched.ages[-1] < 0.6


def test_a_broadcast_that_stalls(server: RtmpServer) -> None:
    with watch(server.url(), io_timeout=30.0, step=0.2) as watched:
        watched.wait_steps(2)
        server.freeze()
        assert watched.wait_status("stalled", "stalled") < 2.0
        assert watched.close() < 1.0
        server.kill()
    wait_for_readers()


@pytest.mark.slow
def test_a_broadcast_that_goes_on(server: RtmpServer) -> None:
    with watch(server.url(), step=0.2) as watched:
        watched.wait_steps(2)
        server.freeze()
        watched.wait(lambda: watched.statuses[-1].state != "running")
        server.thaw()
        watched.wait_status("running", timeout=10.0)
        watched.wait_steps(2)


@pytest.mark.parametrize("login", ["viewer:hunter22", "viewer:p%40ss%3A%2F%3F%23%5B%5D%25"])
def test_a_password_is_never_told(login: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with RtmpServer() as server, watch(server.url(login=login)) as watched:
        watched.wait_steps(1)
        server.kill()
        watched.wait_status("reconnecting", "refused")
    told = "\n".join([watched.told(), repr(watched.source.hub.source), caplog.text, *capfd.readouterr()])
    assert watched.source.name == f"rtmp://***@127.0.0.1:{server.port}/live/match"
    for secret in (login.partition(":")[2], "p@ss:/?#[]%", "hunter22"):
        assert secret not in told


def wait_for_readers() -> None:
    """Until all that were left behind have ended."""
    deadline = time.monotonic() + 5
    while left_behind() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left_behind()


def handshake(share: float, then: str) -> object:
    """A server that sends a share of its part of the handshake and then closes, resets or says nothing."""

    def run(talk: object) -> None:
        peer = talk.peer  # type: ignore[attr-defined]
        peer.recv(65536)
        whole = bytes([3]) + bytes(1536) + bytes(1536)
        peer.sendall(whole[: round(len(whole) * share)])
        if then == "hold":
            talk.hold()  # type: ignore[attr-defined]
        elif then == "reset":
            talk.reset()  # type: ignore[attr-defined]

    return run


def noise(talk: object) -> None:
    """No RTMP at all."""
    peer = talk.peer  # type: ignore[attr-defined]
    peer.recv(65536)
    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200)


@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        (handshake(0.0, "hold"), {"timeout"}),
        (handshake(0.5, "hold"), {"timeout"}),
        (handshake(1.0, "hold"), {"timeout"}),
        (handshake(0.0, "close"), {"ended", "format"}),
        (handshake(0.5, "close"), {"ended", "format"}),
        (handshake(0.0, "reset"), {"ended"}),
        (handshake(1.0, "close"), {"ended", "format"}),
        (noise, {"format", "ended"}),
    ],
)
def test_a_server_that_does_not_behave(fault: object, codes: set[str]) -> None:
    with FaultServer("rtmp", fault) as server:  # type: ignore[arg-type]
        with watch(server.url(), io_timeout=0.3, first_frame=1.5) as watched:
            watched.wait(lambda: sum(bool(one.code) for one in watched.statuses) >= 2)
            assert watched.close() < 1.0
        assert {one.code for one in watched.statuses[1:]} <= codes
    wait_for_readers()
