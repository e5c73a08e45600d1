"""Live sources on a real RTSP camera: power cuts, stalls, passwords, other sizes and codecs, slow readers."""

from __future__ import annotations

import gc
import os
import resource
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from streamingvlm import Engine, Runtime
from streamingvlm.core.events import Commentary, Event
from streamingvlm.runtime.clock import Pace
from streamingvlm.sources.live import LiveHub
from streamingvlm.sources.live_options import LiveOptions
from streamingvlm.sources.reader import left_behind
from streamingvlm.testing import ScriptedModel
from support.fault_server import FaultServer
from support.live import SHORT, Watched, watch
from support.rtsp_server import RtspServer

#: Every character that means something in a URL or in a header of a digest.
#: MB that 15 or more connections may leave: each holds about 3 in its decoder, and the allocator keeps some anyway.
GROWTH = 24.0
SPECIAL = "p@ss:/?#[]% &=+,;!'()*$é\\"


@pytest.fixture(scope="module")
def camera() -> Iterator[RtspServer]:
    """One that runs; tests leave it as it was."""
    with RtspServer() as server:
        yield server


def test_frames_come_as_they_are_made(camera: RtspServer) -> None:
    with watch(camera.url()) as watched:
        watched.wait_steps(4)
    assert [status.state for status in watched.statuses] == ["connecting", "running"]
    (told,) = watched.formats
    assert (told.width, told.height, told.codec) == (320, 240, "h264")
    # The first ones lay in the decoder while it looked at the stream.
    assert max(watched.ages[2:]) < 0.4
    starts = [one.chunk.start for one in watched.steps]
    assert starts == pytest.approx([0.5 * index for index in range(len(starts))])
    assert all(len(one.chunk.frames) >= 4 for one in watched.steps[1:])
    assert all(abs(one.chunk.wall + one.chunk.times[-1] - one.chunk.start - time.time()) < 10 for one in watched.steps)


@pytest.mark.parametrize("transport", ["udp", "auto"])
def test_other_transports(camera: RtspServer, transport: str) -> None:
    with watch(camera.url(), options={"transport": transport}) as watched:
        watched.wait_steps(2)
        assert watched.close() < 1.0
    assert [status.state for status in watched.statuses] == ["connecting", "running"]


@pytest.mark.slow
def test_a_reader_that_was_away_gets_the_newest_step(camera: RtspServer) -> None:
    with watch(camera.url(), step=0.5) as watched:
        watched.wait_steps(2)
        watched.paused.set()
        watched.wait_steps(1)
        time.sleep(2.5)
        before = len(watched.steps)
        watched.paused.clear()
        watched.wait_steps(2)
    step, last = watched.steps[before], watched.steps[before - 1]
    # The one that waited for it lies at most one step behind the next.
    assert watched.ages[before] < 0.5 + 0.4
    assert step.arrival.dropped >= 3
    assert step.chunk.start == pytest.approx(last.chunk.end + step.arrival.dropped * 0.5)


@pytest.mark.slow
def test_killed_and_started_again_with_another_size_and_codec() -> None:
    with RtspServer() as server, watch(server.url()) as watched:
        watched.wait_steps(2)
        server.kill()
        watched.wait_status("reconnecting")
        time.sleep(1.2)
        began = time.monotonic()
        server.start(codec="h265", width=640, height=360)
        watched.wait_steps(2)
        assert time.monotonic() - began < 0.2 + 5.0
    assert [(told.width, told.height, told.codec) for told in watched.formats] == [
        (320, 240, "h264"),
        (640, 360, "hevc"),
    ]
    (gap,) = watched.gaps
    assert gap.reason in ("ended", "refused")
    before = max(one.chunk.end for one in watched.steps if one.chunk.end <= gap.start + 1e-6)
    after = min(one.chunk.start for one in watched.steps if one.chunk.start >= gap.end - 1e-6)
    assert (gap.start, gap.end) == (before, after)
    # Time goes on while nothing is seen.
    assert 1.0 < gap.end - gap.start < 7.0
    assert all(b.chunk.start >= a.chunk.end for a, b in pairwise(watched.steps))
    assert {one.chunk.frames.shape[1:] for one in watched.steps} == {(240, 320, 3), (360, 640, 3)}


@pytest.mark.slow
def test_another_size_within_the_connection() -> None:
    with RtspServer() as server, watch(server.url()) as watched:
        watched.wait_steps(2)
        server.resize(640, 360)
        watched.wait(lambda: len(watched.formats) > 1)
        watched.wait_steps(2)
        server.resize(240, 320)
        watched.wait(lambda: len(watched.formats) > 2)
        watched.wait_steps(2)
    assert [(told.width, told.height) for told in watched.formats] == [(320, 240), (640, 360), (240, 320)]
    assert [status.state for status in watched.statuses] == ["connecting", "running"]
    assert watched.steps[-1].chunk.frames.shape[1:] == (320, 240, 3)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stall", "freeze"])
def test_a_stall_is_told_and_ends_by_itself(how: str) -> None:
    with RtspServer() as server, watch(server.url(), io_timeout=30.0, first_frame=2.0) as watched:
        watched.wait_steps(2)
        getattr(server, how)()
        took = watched.wait_status("stalled", "stalled")
        assert 0.5 < took < 1.0 + 1.0
        if how == "freeze":
            server.thaw()
        server.go()
        watched.wait_steps(2, 10.0)
        states = [status.state for status in watched.statuses]
        assert states[-1] == "running"
    assert watched.gaps


@pytest.mark.parametrize("how", ["stall", "freeze"])
def test_close_does_not_wait_for_a_read(how: str) -> None:
    with RtspServer() as server, watch(server.url(), io_timeout=30.0, no_frame=30.0) as watched:
        watched.wait_steps(2)
        getattr(server, how)()
        time.sleep(0.3)
        assert watched.close() < 1.0
        assert left_behind() >= 1
        server.kill()
        deadline = time.monotonic() + 5
        while left_behind() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not left_behind()


def test_a_camera_that_is_down_at_first_starts_by_itself() -> None:
    server = RtspServer()
    with FaultServer("rtsp", refuses=True) as reserved:
        server.port = reserved.port
    try:
        with watch(server.url()) as watched:
            watched.wait(lambda: [status.tries for status in watched.statuses] == [1, 1, 2])
            assert {status.code for status in watched.statuses[1:]} == {"refused"}
            assert not watched.formats
            server.start()
            watched.wait_steps(2)
            states = [status.state for status in watched.statuses]
            assert set(states[:-1]) == {"connecting"}
            assert states[-1] == "running"
    finally:
        server.kill()


@pytest.mark.parametrize("auth", ["basic", "digest"])
@pytest.mark.parametrize("password", ["plain", SPECIAL])
def test_passwords(auth: str, password: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture) -> None:
    with RtspServer(user="viewer", password=password, auth=auth) as server:
        with watch(server.url()) as encoded:
            encoded.wait_steps(1)
        with watch(server.plain_url, user="viewer", password=password) as apart:
            apart.wait_steps(1)
        for right, url in ((False, server.plain_url), (False, server.url("wrong" + password))):
            with watch(url) as refused:
                refused.wait_status("connecting", "auth")
                assert not refused.steps, right
    told = "\n".join([encoded.told(), apart.told(), refused.told(), caplog.text, *capfd.readouterr()])
    assert password not in told
    assert server.url().split("@")[0].rpartition(":")[2] not in told.replace("viewer", "")
    assert encoded.source.name == f"rtsp://***@127.0.0.1:{server.port}/live"


def test_a_path_that_is_not_there(camera: RtspServer) -> None:
    with watch(camera.url() + "/none") as watched:
        watched.wait_status("connecting", "not_found")


class Kept:
    """Every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None: ...

    @property
    def said(self) -> list[Commentary]:
        return [event for event in list(self.events) if isinstance(event, Commentary)]


def say(server: RtspServer, live: LiveOptions, down: float) -> tuple[Kept, float]:
    """Commentary over a power cut of ``down`` seconds; how long it took to go on behind it."""
    kept = Kept()
    model = ScriptedModel(lambda start, end, _: f"{start:g}-{end:g}")
    source = LiveHub(server.url(), live=live).subscribe(fps=4, step=0.5)
    with Runtime(Engine(model)) as runtime:
        stream = runtime.start(source, sinks=[kept], pace=Pace.LIVE)
        until(lambda: len(kept.said) >= 1)
        server.kill()
        time.sleep(down)
        server.start()
        began, count = time.monotonic(), len(kept.said)
        until(lambda: len(kept.said) > count, 90.0)
        took = time.monotonic() - began
        assert not stream.ended
        stream.stop()
    return kept, took


def until(condition: object, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "too late"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("live", "down", "wait"),
    [
        (SHORT, 0.3, 0.2),
        pytest.param(LiveOptions(), 1.0, 1.2, marks=pytest.mark.slow),
        pytest.param(LiveOptions(), 15.0, 6.0, marks=pytest.mark.slow),
    ],
)
def test_commentary_goes_on_behind_a_power_cut(live: LiveOptions, down: float, wait: float) -> None:
    with RtspServer() as server:
        kept, took = say(server, live, down)
    assert took < wait + 5.0
    assert all(one.text == f"{one.start:g}-{one.end:g}" for one in kept.said)
    starts = [one.start for one in kept.said]
    assert starts == sorted(set(starts))
    assert max(b - a for a, b in pairwise(starts)) > down


def usage() -> tuple[int, int, float]:
    """Threads, file descriptors, and megabytes of memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return threading.active_count(), len(os.listdir("/proc/self/fd")), pages * resource.getpagesize() / 1e6


def settle(goal: tuple[int, int, float]) -> tuple[int, int, float]:
    """Usage, once threads that are on their way out have gone."""
    deadline = time.monotonic() + 5
    while (now := usage())[:2] > goal[:2] and time.monotonic() < deadline:
        time.sleep(0.05)
    return now


@pytest.mark.slow
def test_opening_and_closing_leaves_nothing_behind(camera: RtspServer) -> None:
    def once() -> None:
        with watch(camera.url()) as watched:
            watched.wait_steps(1)

    for _ in range(3):
        once()
    before = settle((0, 0, 0.0))
    for _ in range(20):
        once()
    after = settle(before)
    assert after[:2] == before[:2]
    assert after[2] - before[2] < GROWTH


@pytest.mark.slow
def test_power_cuts_leave_nothing_behind() -> None:
    with RtspServer() as server, watch(server.url(), keep=False) as watched:
        for _ in range(3):
            watched.wait_steps(1, 10.0)
            server.restart()
            watched.wait_status("running")
        watched.wait_steps(2)
        before = usage()
        for _ in range(15):
            server.restart()
            watched.wait_status("running")
            watched.wait_steps(1)
        watched.wait_steps(2)
        after = settle(before)
        assert after[:2] == before[:2]
        assert after[2] - before[2] < GROWTH


def test_two_watch_one_connection(camera: RtspServer) -> None:
    hub = LiveHub(camera.url(), live=SHORT)
    with Watched(hub.subscribe(fps=10, step=0.5)) as first:
        first.wait_steps(1)
        with Watched(hub.subscribe(fps=2, step=1.0)) as second:
            second.wait_steps(1)
            assert sum(thread.name == "streamingvlm-reader" for thread in threading.enumerate()) == 1
            assert second.steps[0].chunk.start == 0.0
            assert max(second.ages) < 1.0
        first.wait_steps(1)


def test_a_runtime_ends_at_once_whatever_the_camera_does() -> None:
    kept = Kept()
    with RtspServer() as server:
        source = LiveHub(server.url(), live=SHORT).subscribe(fps=4, step=0.5)
        runtime = Runtime(Engine(ScriptedModel(lambda start, end, _: f"{start:g}-{end:g}")))
        stream = runtime.start(source, sinks=[kept], pace=Pace.LIVE)
        until(lambda: len(kept.said) >= 1)
        server.freeze()
        time.sleep(0.2)
        began = time.monotonic()
        stream.stop()
        runtime.close()
        assert time.monotonic() - began < 1.0
        assert stream.ended
