"""A file over HTTP whose connection breaks in the middle: it goes on behind the last frame, nothing twice or lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from streamingvlm.sources import reader
from support import media
from support.http_media import MediaServer, write_hls
from support.live import Watched, watch

COUNT, RATE = 30, 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MediaServer]:
    with MediaServer(tmp_path) as server:
        yield server


def write(path: Path, count: int = COUNT) -> int:
    """A clip that is large enough to break; how many bytes it has."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    media.write_clip(path, count=count, fps=RATE, width=128, height=96, grain=12, options=options)
    return path.stat().st_size


def shown(watched: Watched) -> list[int]:
    return [media.index_of(frame) for one in watched.steps for frame in one.chunk.frames]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.flv", "clip.avi"])
@pytest.mark.parametrize(
    ("ranges", "margin"),
    [(True, 10.0), (False, 10.0), pytest.param(False, 0.0, marks=pytest.mark.slow)],
    ids=["ranges", "no ranges", "no ranges, but sought"],
)
def test_a_file_goes_on_behind_the_last_frame(
    server: MediaServer,
    tmp_path: Path,
    name: str,
    ranges: bool,
    margin: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "SEEK_MARGIN", margin)
    size = write(tmp_path / name, 30)
    server.ranges = ranges
    server.breaks = [int(size * share) for share in (0.2, 0.5)]
    with watch(server.url(f"/{name}"), fps=4.0 * RATE, step=0.2) as watched:
        watched.wait_end(10.0)
    assert not server.breaks, "it has broken"
    assert watched.error is None
    assert (watched.statuses[-1].state, watched.statuses[-1].code) == ("ended", "")
    assert shown(watched) == list(range(30))
    assert not watched.gaps or not margin, "a seek that hangs takes its time"


@pytest.mark.slow
@pytest.mark.parametrize("margin", [10.0, 0.0])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_server_that_is_down_for_a_while(
    server: MediaServer, tmp_path: Path, name: str, margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "SEEK_MARGIN", margin)
    size = write(tmp_path / name)
    server.breaks = [size // 2]
    with watch(server.url(f"/{name}"), fps=4.0 * RATE, step=0.2) as watched:
        watched.wait_steps(1)
        server.kill()
        watched.wait_status("reconnecting", timeout=15.0)
        time.sleep(1.0)
        server.start()
        watched.wait_end(20.0)
    assert watched.statuses[-1].state == "ended"
    assert shown(watched) == list(range(COUNT))
    assert len(watched.gaps) == 1
    assert all(b.chunk.start >= a.chunk.end - 1e-6 for a, b in pairwise(watched.steps))


def test_a_recorded_playlist_whose_piece_breaks(server: MediaServer, tmp_path: Path) -> None:
    write_hls(tmp_path / "vod", seconds=3)
    second = sorted((tmp_path / "vod").glob("*.ts"))[1]
    server.breaks = [second.stat().st_size // 2]
    with watch(server.url("/vod/recording.m3u8"), fps=40.0, step=0.5) as watched:
        watched.wait_end(10.0)
    assert watched.error is None
    assert watched.statuses[-1].state == "ended"
    assert len(shown(watched)) >= 20, "FFmpeg leaves out the rest of the piece, and goes on"


@pytest.mark.parametrize("name", ["clip.h264", "clip.mjpeg"])
def test_a_bare_stream_is_watched_once(server: MediaServer, tmp_path: Path, name: str) -> None:
    codec = {"clip.mjpeg": "mjpeg"}.get(name, "libx264")
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    media.write_clip(tmp_path / name, count=20, codec=codec, pix_fmt=pix_fmt)
    with watch(server.url(f"/{name}"), fps=100.0, step=0.2) as watched:
        watched.wait_end(5.0)
    assert watched.error is None
    assert [one.state for one in watched.statuses] == ["connecting", "running", "ended"]
    assert shown(watched) == list(range(20))
    assert watched.steps[-1].chunk.end == pytest.approx(20 / 25), "at FFmpeg's rate for what tells none"
