"""Live sources from end to end, with FFmpeg's own test pictures and with real pipes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from streamingvlm.core.errors import OptionError, SourceError
from streamingvlm.core.events import Commentary, Gap, Notice, SourceFormat, SourceStatus, StepInput
from streamingvlm.engine.engine import Engine
from streamingvlm.runtime.clock import Pace
from streamingvlm.runtime.runtime import Runtime
from streamingvlm.sources import inputs, reader
from streamingvlm.sources.hub import _Keeper
from streamingvlm.sources.inputs import input_of
from streamingvlm.sources.live import LiveHub, LiveSource, share
from streamingvlm.sources.live_options import LiveOptions
from streamingvlm.sources.open import is_locator, open_recording, open_source
from streamingvlm.sources.reader import left_behind
from streamingvlm.testing import ScriptedModel
from support import media

FAST = LiveOptions(
    no_frame=0.3, first_frame=2.0, name_lookup=0.3, io_timeout=0.3, ladder=((0.05, 1),), refused_wait=0.05, jitter=0.0
)
BARS = "lavfi:testsrc2=size=64x48:rate=50"


def quick(hub: LiveHub, **more: Any) -> LiveSource:
    """Steps of a tenth of a second."""
    return hub.subscribe(fps=20.0, step=0.1, **more)


def steps_in(items: list[StepInput | Notice]) -> list[StepInput]:
    return [item for item in items if isinstance(item, StepInput)]


def states_in(items: list[StepInput | Notice]) -> list[str]:
    return [item.state for item in items if isinstance(item, SourceStatus)]


def wait_for(what: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


def no_threads() -> bool:
    names = ("streamingvlm-reader", "streamingvlm-keeper")
    return not [thread for thread in threading.enumerate() if thread.name in names]


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    wait_for(no_threads)


def test_a_source_is_told_of_and_keeps_the_pace() -> None:
    began = time.perf_counter()
    items = list(quick(LiveHub(BARS), duration=0.5))
    assert 0.4 < time.perf_counter() - began < 3
    assert states_in(items) == ["connecting", "running"]
    assert [item for item in items if isinstance(item, SourceFormat)] == [
        SourceFormat(width=64, height=48, codec="wrapped_avframe", rate=50.0)
    ]
    steps = steps_in(items)
    assert [round(step.chunk.start, 3) for step in steps] == [0.0, 0.1, 0.2, 0.3, 0.4]
    for step in steps:
        assert step.chunk.frames.shape == (2, 48, 64, 3)
        assert step.arrival.ready_at is not None
        assert abs(time.time() - (step.chunk.wall or 0)) < 3
        assert all(step.chunk.start <= at < step.chunk.end for at in step.chunk.times)


def test_a_graph_that_ends_ends_the_source() -> None:
    items = list(quick(LiveHub(BARS + ":duration=0.25")))
    assert states_in(items) == ["connecting", "running", "ended"]
    assert [round(step.chunk.start, 3) for step in steps_in(items)] == [0.0, 0.1, 0.2]


def test_what_is_wrong_for_good_is_raised_in_one_line() -> None:
    items: list[StepInput | Notice] = []
    with pytest.raises(SourceError, match=r"^lavfi:nosuch=1: [^\n]*$"):
        items.extend(LiveHub("lavfi:nosuch=1").subscribe())
    assert [(item.state, item.code) for item in items if isinstance(item, SourceStatus)][-1] == ("ended", "format")


def test_a_camera_that_is_down_is_waited_for_and_closing_is_at_once() -> None:
    source = quick(LiveHub("rtsp://u:hunter22@127.0.0.1:1/x", live=FAST))
    told = []
    for item in source:
        told.append(item)
        if len(told) == 4:
            began = time.perf_counter()
            source.close()
            assert time.perf_counter() - began < 0.05
    assert [(item.state, item.code, item.tries) for item in told if isinstance(item, SourceStatus)] == [
        ("connecting", "", 1),
        ("connecting", "refused", 1),
        ("connecting", "refused", 2),
        ("connecting", "refused", 3),
    ]
    assert list(source) == [], "a closed source stays closed"


def test_one_decode_serves_all_and_ends_with_the_last() -> None:
    hub = LiveHub(BARS)
    first, second = share(quick(hub, duration=0.4), 2)
    late = hub.subscribe(fps=10.0, step=0.2, duration=0.2)
    found: dict[str, list[StepInput | Notice]] = {}
    threads = [
        threading.Thread(target=lambda name=name, source=source: found.update({name: list(source)}))  # type: ignore[misc]
        for name, source in [("first", first), ("second", second)]
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: hub._keeper is not None and hub._keeper._format is not None)
    readers = [thread for thread in threading.enumerate() if thread.name == "streamingvlm-reader"]
    own = list(late)
    for thread in threads:
        thread.join(5)
    assert len(readers) == 1
    assert [len(steps_in(found[name])) for name in ("first", "second")] == [4, 4]
    assert states_in(own) == ["running"], "who joins late is told where the source stands"
    assert isinstance(own[1], SourceFormat)
    assert [step.chunk.start for step in steps_in(own)] == [0.0]
    assert hub._keeper is None
    assert list(quick(hub, duration=0.1)), "and it can be opened again"


def test_only_a_live_source_is_shared(tmp_path: Path) -> None:
    file = open_source(str(media.write_clip(tmp_path / "a.mp4", count=5)))
    with pytest.raises(SourceError, match=r"a\.mp4 is not a live source"):
        share(file, 2)
    with pytest.raises(OptionError):
        share(open_source(BARS), 0)


def test_the_reader_goes_on_while_a_consumer_is_busy() -> None:
    source = quick(LiveHub(BARS))
    steps = []
    for item in source:
        if isinstance(item, StepInput):
            steps.append((time.time(), item))
            if len(steps) == 1:
                time.sleep(0.6)
            if len(steps) == 3:
                source.close()
    at, after = steps[1]
    assert 3 <= after.arrival.dropped <= 6
    assert at - (after.chunk.wall or 0) < 0.25, "the newest step, not the one after the first"
    total = 1 + after.arrival.dropped + 1
    assert after.chunk.end == pytest.approx(total * 0.1), "what was dropped adds up to the time"


class Camera:
    """An FFmpeg that is told what to do: frames until it breaks, in place of :func:`av.open`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *plans: str) -> None:
        self.plans, self.opened = list(plans), 0
        self._real = reader.av.open
        self.go = threading.Event()
        monkeypatch.setattr(reader.av, "open", self.open)

    def open(self, _: str, **options: Any) -> Any:
        plan = self.plans[min(self.opened, len(self.plans) - 1)]
        self.opened += 1
        if plan == "hang":
            self.go.wait(5)
            raise OSError(5, "at last")
        options.pop("format")
        return self._real(plan, format="lavfi", **options)


def test_a_break_is_mended_and_told_with_its_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(monkeypatch, "testsrc2=size=64x48:rate=50:duration=0.1", "testsrc2=size=32x64:rate=50")
    hub = LiveHub("rtsp://127.0.0.1/x", live=LiveOptions(ladder=((0.5, 1),), jitter=0.0))
    source, items = quick(hub), []
    for item in source:
        items.append(item)
        if isinstance(item, Gap):
            source.close()
    assert camera.opened == 2
    assert states_in(items) == ["connecting", "running", "reconnecting", "running"]
    assert [(item.width, item.height) for item in items if isinstance(item, SourceFormat)] == [(64, 48), (32, 64)]
    hole = items[-1]
    assert isinstance(hole, Gap)
    assert hole.reason == "ended"
    assert hole.end - hole.start >= 0.3


@pytest.mark.parametrize(("healthy", "waits"), [(0.0, [0.01, 0.01, 0.01]), (9.0, [0.01, 0.02, 0.02])])
def test_behind_healthy_seconds_the_waits_begin_anew(
    monkeypatch: pytest.MonkeyPatch, healthy: float, waits: list[float]
) -> None:
    Camera(monkeypatch, "testsrc2=size=64x48:rate=50:duration=0.1")
    options = LiveOptions(ladder=((0.01, 1), (0.02, 1)), jitter=0.0, healthy=healthy)
    source, told = quick(LiveHub("rtsp://127.0.0.1/x", live=options)), []
    for item in source:
        if isinstance(item, SourceStatus) and item.retry_in is not None:
            told.append(item.retry_in)
            if len(told) == len(waits):
                source.close()
    assert told == waits


def test_a_read_that_hangs_is_left_behind_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(monkeypatch, "hang")
    options = LiveOptions(first_frame=0.1, ladder=((0.01, 1),), left_behind=2)
    source = quick(LiveHub("rtsp://127.0.0.1/x", live=options))
    items: list[StepInput | Notice] = []
    thread = threading.Thread(target=lambda: items.extend(source))
    thread.start()
    wait_for(lambda: left_behind() == 2)
    time.sleep(0.1)
    assert camera.opened == 2, "no third one while two hang"
    began = time.perf_counter()
    source.close()
    thread.join(1)
    assert time.perf_counter() - began < 0.5
    assert not thread.is_alive()
    assert [item.code for item in items if isinstance(item, SourceStatus)] == ["", "timeout", "timeout"]
    camera.go.set()
    wait_for(lambda: left_behind() == 0)


@pytest.mark.parametrize(("busy", "skips"), [(1e9, False), (0.0, True)])
def test_under_load_frames_are_skipped_that_no_other_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, busy: float, skips: bool
) -> None:
    path = media.write_clip(tmp_path / "a.mp4", count=30, codec_options={"bf": "2", "x264-params": "b-adapt=0"})
    real, shots = reader.av.open, []
    monkeypatch.setattr(reader.av, "open", lambda *_, **__: real(str(path)))
    monkeypatch.setattr(reader, "BUSY_WINDOW", 0.0)
    source = input_of("rtsp://127.0.0.1/x")
    one = reader.Reader(source, LiveOptions(busy=busy), lambda _, shot: shots.append(shot), lambda: None)
    one.run()
    assert (len(shots) < 27) == skips


def test_a_name_that_is_not_found_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(reader.socket, "getaddrinfo", lambda *_, **__: go.wait(5))
    source = quick(LiveHub("http://camera.example/x", live=FAST))
    codes = []
    for item in source:
        if isinstance(item, SourceStatus) and item.code:
            codes.append((item.code, item.reason))
            source.close()
    go.set()
    assert codes == [("dns", "its host name is not found (no answer within 0.3 s)")]


def test_a_fault_of_our_own_is_no_reason_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(reader, "ArrivalClock", broken)
    with pytest.raises(KeyError, match="a bug"):
        list(LiveHub(BARS).subscribe())


def test_frames_that_can_never_be_converted_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source whose frames come, but of which none can be shown, is not one that runs without a word."""

    def broken(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(reader, "to_rgb", broken)
    source, told = quick(LiveHub(BARS, live=FAST)), []
    for item in source:
        told.append(item)
        if isinstance(item, SourceStatus) and item.code:
            source.close()
    assert isinstance(told[-1], SourceStatus)
    assert told[-1].code == "format"
    assert "cannot be converted" in told[-1].reason
    assert "MemoryError" in told[-1].reason


@pytest.mark.parametrize("place", ["_connect", "start"])
def test_a_fault_of_whoever_watches_the_source_is_told(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_Keeper, place, broken)
    live_hub = LiveHub(BARS)
    with pytest.raises(RuntimeError, match="can't start"):
        list(quick(live_hub))
    monkeypatch.undo()
    assert steps_in(list(quick(live_hub, duration=0.2))), "the next one opens it anew"


def test_who_joins_while_it_is_down_is_told_so_and_gets_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    Camera(monkeypatch, "testsrc2=size=64x48:rate=50:duration=0.1", "testsrc2=size=64x48:rate=50")
    live_hub = LiveHub("rtsp://127.0.0.1/x", live=LiveOptions(ladder=((0.3, 1),), jitter=0.0))
    first, told = quick(live_hub), []
    for item in first:
        if isinstance(item, SourceStatus) and item.state == "reconnecting":
            told = list(quick(live_hub, duration=0.2))
            first.close()
    assert states_in(told)[:2] == ["reconnecting", "running"]
    assert steps_in(told)[0].chunk.start == 0.0


@pytest.mark.parametrize("state", ["connecting", "running", "ended"])
def test_who_leaves_within_its_own_notice(state: str) -> None:
    source = quick(LiveHub("lavfi:testsrc2=size=64x48:rate=50:duration=0.1"))
    for item in source:
        if isinstance(item, SourceStatus) and item.state == state:
            source.close()
    wait_for(no_threads)


def test_many_threads_join_and_leave() -> None:
    live_hub = LiveHub("lavfi:testsrc2=size=64x48:rate=100", live=FAST)
    faults: list[BaseException] = []

    def come_and_go(seed: int) -> None:
        random = Random(seed)
        try:
            for _ in range(50):
                source, most = quick(live_hub), random.randrange(3)
                for count, _ in enumerate(source):
                    if count >= most:
                        source.close()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=come_and_go, args=(seed,), daemon=True) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not faults
    assert not live_hub._subscribers
    assert live_hub._keeper is None
    wait_for(no_threads, 30)


# Standard input.


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """Puts a file in the place of standard input."""
    files: list[Any] = []

    def put(file: Any) -> None:
        files.append(file)
        monkeypatch.setattr(inputs.sys, "stdin", SimpleNamespace(buffer=file))

    yield put
    for file in files:
        file.close()


def ffmpeg(*arguments: str) -> subprocess.Popen[bytes]:
    graph = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25"]
    command = ["ffmpeg", "-v", "error", "-re", *graph, "-pix_fmt", "yuv420p", *arguments, "-"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "5")


@pytest.mark.parametrize(
    "arguments",
    [
        (*X264, "-f", "mpegts"),
        (*X264, "-f", "matroska"),
        ("-f", "mjpeg"),
        (*X264, "-movflags", "frag_keyframe+empty_moov", "-f", "mp4"),
    ],
    ids=["mpegts", "matroska", "mjpeg", "fragmented mp4"],
)
def test_video_comes_through_a_pipe(arguments: tuple[str, ...], piped: Callable[[Any], None]) -> None:
    with ffmpeg("-t", "0.6", *arguments) as process:
        piped(process.stdout)
        items = list(open_source("-", fps=10.0, step=0.2))
    assert states_in(items)[-1] == "ended"
    steps = steps_in(items)
    assert steps[0].chunk.start == 0.0
    assert 0.2 <= steps[-1].chunk.end <= 1.0
    assert steps[0].chunk.frames.shape[1:] == (48, 64, 3)


def test_a_producer_that_dies_in_a_packet_ends_the_source(tmp_path: Path, piped: Callable[[Any], None]) -> None:
    clip = media.write_clip(tmp_path / "a.ts", count=20, width=320, height=240)
    data = clip.read_bytes()
    read, write = os.pipe()
    piped(os.fdopen(read, "rb"))
    threading.Thread(target=lambda: (os.write(write, data[: len(data) * 2 // 3 + 77]), os.close(write))).start()
    items = list(open_source("-", fps=10.0, step=0.2))
    assert states_in(items) == ["connecting", "running", "ended"]
    assert steps_in(items)


def test_an_mp4_that_cannot_be_piped_says_what_can(tmp_path: Path, piped: Callable[[Any], None]) -> None:
    piped(media.write_clip(tmp_path / "a.mp4", count=200, width=320, height=240).open("rb"))
    with pytest.raises(SourceError, match=r"^stdin: .*MPEG-TS, Matroska or fragmented MP4"):
        list(open_source("-"))


@pytest.mark.parametrize("data", [b"", b"no video at all\n" * 100])
def test_a_pipe_without_video_is_one_line(data: bytes, piped: Callable[[Any], None], tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(data)
    piped(path.open("rb"))
    with pytest.raises(SourceError, match=r"^stdin: [^\n]*$"):
        list(open_source("-"))


def test_a_pipe_that_stays_silent_is_stalled_and_can_be_left(piped: Callable[[Any], None]) -> None:
    read, write = os.pipe()
    piped(os.fdopen(read, "rb"))
    source = quick(LiveHub("-", live=LiveOptions(first_frame=0.1)))
    for item in source:
        if isinstance(item, SourceStatus) and item.state == "stalled":
            source.close()
    os.close(write)


def test_nothing_is_piped_in(piped: Callable[[Any], None]) -> None:
    piped(SimpleNamespace(isatty=lambda: True, close=lambda: None))
    with pytest.raises(SourceError, match="nothing is piped in"):
        open_source("-")


# Locators.


@pytest.mark.parametrize(
    ("locator", "url", "form", "some"),
    [
        ("rtsp://cam/1", "rtsp://cam/1", None, {"rtsp_transport": "tcp", "timeout": "5000000", "probesize": "65536"}),
        ("http://cam/1", "http://cam/1", None, {"live_start_index": "-1", "reconnect": "1", "rw_timeout": "5000000"}),
        ("rtmp://cam/1", "rtmp://cam/1", None, {"rw_timeout": "5000000"}),
        ("screen::0", ":0", "x11grab", {"framerate": "10"}),
        ("screen:", "", "x11grab", {}),
        ("camera:0", "/dev/video0", "v4l2", {}),
        ("/dev/video2", "/dev/video2", "v4l2", {}),
        (BARS, BARS.removeprefix("lavfi:"), "lavfi", {}),
    ],
)
def test_how_ffmpeg_opens_each_kind(
    locator: str, url: str, form: str | None, some: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs.sys, "platform", "linux")
    source = input_of(locator)
    assert (source.url, source.format) == (url, form)
    assert {key: source.options.get(key) for key in some} == some
    assert is_locator(locator)
    if locator.startswith("http"):
        assert "file" not in source.options["protocol_whitelist"]
    if locator.startswith("rtmp"):
        assert "timeout" not in source.options, "FFmpeg would wait for a publisher"


def test_options_of_the_user_go_before_ours() -> None:
    source = input_of("rtsp://cam/1", options={"probesize": "1000", "transport": "udp", "kind": "kitchen"})
    assert source.options["probesize"] == "1000"
    assert source.options["rtsp_transport"] == "udp"
    assert "kind" not in source.options
    assert source.kind == "kitchen"
    assert "rtsp_transport" not in input_of("rtsp://cam/1", options={"transport": "auto"}).options


@pytest.mark.parametrize(
    ("locator", "more", "line"),
    [
        (
            "rtsp://cam/1",
            {"options": {"transport": "pigeon"}},
            "transport=pigeon is unknown; it is one of tcp, udp, auto",
        ),
        ("http://cam/1", {"options": {"transport": "tcp"}}, "http: has no transport to choose"),
        ("rtsp://cam/1", {"start": 5.0}, "rtsp://cam/1 is live"),
        ("camera:0", {"user": "u"}, "camera: takes no user"),
        ("camera:", {}, "camera:0 is the first one"),
        ("camera:abc", {}, "camera:0 is the first one"),
        ("lavfi:", {}, "has no filter graph"),
        ("a.mp4", {"options": {"a": "b"}}, "a.mp4 takes no options"),
        ("a.mp4", {"password": "hunter22"}, "a.mp4 takes no password"),
        ("arcade:pong", {"options": {"a": "b"}, "user": "u"}, "takes no options and no user"),
    ],
)
def test_what_cannot_be_meant_is_one_line(locator: str, more: dict[str, Any], line: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(locator, **more)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("more", [{"fps": 0.0}, {"step": 0.1}, {"duration": 0.0}, {"fps": float("nan")}])
def test_rates_that_cannot_be_meant(more: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        open_source(BARS, **more)  # type: ignore[arg-type]


def test_a_recording_is_wanted() -> None:
    with pytest.raises(SourceError, match="is live; only a recording"):
        open_recording(BARS)


def test_a_runtime_watches_a_live_source() -> None:
    told: list[object] = []
    source = quick(LiveHub(BARS), duration=0.4)
    with Runtime(Engine(ScriptedModel(lambda *_: "x"))) as runtime:
        stream = runtime.start(source, sinks=[SimpleNamespace(write=told.append, close=lambda: None)], pace=Pace.LIVE)
        assert stream.wait(10)
    assert [type(event).__name__ for event in told[:4]] == [
        "StreamOpened",
        "SourceStatus",
        "SourceStatus",
        "SourceFormat",
    ]
    words = [event for event in told if isinstance(event, Commentary)]
    assert sum(1 + event.dropped for event in words) == 4
    assert all(event.wall_start is not None for event in words)


@pytest.mark.slow
def test_a_program_ends_while_a_source_is_open() -> None:
    code = f"from streamingvlm.sources.open import open_source; next(iter(open_source({BARS!r}))); print('end')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
