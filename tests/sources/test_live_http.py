"""Live video over HTTP: playlists, pictures one after the other, transport streams, files, and traps in playlists."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from streamingvlm.sources.playlists import forbidden
from support import media
from support.fault_server import FaultServer, status
from support.http_media import LiveHls, MediaServer, mpegts, write_evil_playlist, write_hls
from support.live import watch


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MediaServer]:
    with MediaServer(tmp_path) as server:
        yield server


@pytest.mark.parametrize("path", ["/mjpeg", "/live.ts"])
def test_a_stream_without_end(server: MediaServer, path: str) -> None:
    with watch(server.url(path)) as watched:
        watched.wait_steps(4)
        assert max(watched.ages[2:]) < 0.6
        assert watched.close() < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/mjpeg", "/live.ts"])
def test_a_stream_that_is_cut_is_opened_again(server: MediaServer, path: str) -> None:
    with watch(server.url(path)) as watched:
        watched.wait_steps(2)
        server.cut()
        watched.wait_status("reconnecting")
        watched.wait_steps(2)
        server.kill()
        watched.wait_status("reconnecting", "refused")
        server.start()
        watched.wait_steps(2)


@pytest.mark.parametrize("path", ["/mjpeg", "/live.ts"])
def test_a_stream_that_stalls(server: MediaServer, path: str) -> None:
    with watch(server.url(path), io_timeout=30.0) as watched:
        watched.wait_steps(2)
        server.stalled.set()
        assert watched.wait_status("stalled", "stalled") < 2.0
        assert watched.close() < 1.0


def test_a_web_camera_with_a_password(tmp_path: Path) -> None:
    with MediaServer(tmp_path, user="viewer", password="p@ss:/?#[]%") as server:
        with watch(server.url("/mjpeg"), user="viewer", password="p@ss:/?#[]%") as watched:
            watched.wait_steps(2)
        with watch(server.url("/mjpeg")) as refused:
            refused.wait_status("connecting", "auth")
        with watch(server.url("/none"), user="viewer", password="p@ss:/?#[]%") as missing:
            missing.wait_status("connecting", "not_found")


@pytest.mark.slow
def test_a_live_playlist_is_followed_close_to_its_end(server: MediaServer, tmp_path: Path) -> None:
    with LiveHls(tmp_path / "hls"):
        time.sleep(3.0)
        with watch(server.url("/hls/live.m3u8"), no_frame=4.0) as watched:
            watched.wait_steps(16, 20.0)
    # A segment lasts 1 s; a player may be one that is being written and one that is read behind.
    assert sorted(watched.ages)[len(watched.ages) // 2] < 3.0
    assert max(watched.ages) < 4.0
    assert not watched.gaps
    assert [one.state for one in watched.statuses] == ["connecting", "running"]
    # Segments come with jitter; the reader makes room for it once, at the beginning.
    starts = [one.chunk.start for one in watched.steps]
    assert starts[-1] <= 0.5 * (len(starts) - 1 + 2)


@pytest.mark.slow
def test_a_live_playlist_that_stands_still_is_told(server: MediaServer, tmp_path: Path) -> None:
    with LiveHls(tmp_path / "hls") as hls:
        time.sleep(2.0)
        with watch(server.url("/hls/live.m3u8"), no_frame=3.0) as watched:
            watched.wait_steps(3, 10.0)
            hls.stop()
            watched.wait(lambda: any(one.state in ("stalled", "reconnecting") for one in watched.statuses), 15.0)
            assert watched.close() < 1.0


@pytest.mark.slow
def test_a_live_playlist_that_ends(server: MediaServer, tmp_path: Path) -> None:
    with LiveHls(tmp_path / "hls", ends=True) as hls:
        time.sleep(2.0)
        with watch(server.url("/hls/live.m3u8"), no_frame=5.0) as watched:
            watched.wait_steps(3, 10.0)
            hls.stop()
            watched.wait(lambda: any(one.state in ("ended", "reconnecting") for one in watched.statuses), 15.0)


def test_a_recorded_playlist_is_watched_to_its_end(server: MediaServer, tmp_path: Path) -> None:
    write_hls(tmp_path / "vod", seconds=2)
    with watch(server.url("/vod/recording.m3u8")) as watched:
        watched.wait_end(10.0)
    assert watched.error is None
    assert watched.statuses[-1].state == "ended"
    assert len(watched.steps) == 4


@pytest.mark.parametrize("name", ["front.mp4", "end.mp4", "clip.mkv", "clip.ts"])
def test_a_file_is_watched_to_its_end(server: MediaServer, tmp_path: Path, name: str) -> None:
    # Large enough that FFmpeg has to go back and forth in it; noise cannot be compressed.
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    options = {"movflags": "faststart"} if name == "front.mp4" else {}
    lossless = {"qp": "1", "g": "1"}
    media.write_clip(
        tmp_path / name, count=20, width=320, height=240, picture=noise, options=options, codec_options=lossless
    )
    assert (tmp_path / name).stat().st_size > 1 << 20
    with watch(server.url(f"/{name}")) as watched:
        watched.wait_end(10.0)
    assert watched.error is None
    assert watched.statuses[-1].state == "ended"
    assert [one.chunk.start for one in watched.steps] == [0.0, 0.5, 1.0, 1.5]
    assert sum(len(one.chunk.frames) for one in watched.steps) >= 19


#: Ways to write a path of this machine; {} is the path.
WRAPS = ["file://{}", "file:{}", "{}", "concat:{}", "subfile,,start,0,end,0,,:{}", "crypto:file:{}", "async:file:{}"]


@pytest.mark.parametrize("wrap", [*WRAPS[:2], *(pytest.param(wrap, marks=pytest.mark.slow) for wrap in WRAPS[2:])])
def test_a_playlist_cannot_lead_into_the_files_of_this_machine(server: MediaServer, tmp_path: Path, wrap: str) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(mpegts(2.0))
    write_evil_playlist(tmp_path / "evil.m3u8", wrap.format(secret))
    with watch(server.url("/evil.m3u8"), first_frame=1.0) as watched:
        watched.wait(lambda: any(one.code for one in watched.statuses))
        assert not watched.steps
        assert not watched.formats
        status = watched.statuses[-1]
    if ":" in wrap and "," not in wrap:
        assert status.code == "format"
        assert status.reason.endswith(f"its playlist leads to {wrap.partition(':')[0]}:, which is not followed)")


@pytest.mark.parametrize("login", ["", "viewer:p%40ss"])
def test_where_a_playlist_leads_is_found_behind_a_password(tmp_path: Path, login: str) -> None:
    user, _, password = login.partition(":")
    with MediaServer(tmp_path, user=user, password=unquote(password)) as server:
        write_evil_playlist(tmp_path / "evil.m3u8")
        assert forbidden(server.url("/evil.m3u8", login=login), {}, 1.0) == "file"
        write_evil_playlist(tmp_path / "good.m3u8", "/piece.ts")
        assert forbidden(server.url("/good.m3u8", login=login), {}, 1.0) == ""
        assert forbidden(server.url("/none.m3u8", login=login), {}, 1.0) == ""
        assert "/piece.ts" not in server.requests
    assert forbidden(server.url("/good.m3u8", login=login), {}, 1.0) == ""


def test_the_same_segment_over_http_is_shown(server: MediaServer, tmp_path: Path) -> None:
    (tmp_path / "open.ts").write_bytes(mpegts(2.0))
    write_evil_playlist(tmp_path / "good.m3u8", server.url("/open.ts"))
    with watch(server.url("/good.m3u8")) as watched:
        watched.wait_steps(1)


@pytest.mark.parametrize("scheme", ["https", "rtsps"])
def test_a_server_without_encryption_is_told_so(server: MediaServer, scheme: str) -> None:
    with watch(server.url("/live.ts").replace("http", scheme, 1)) as watched:
        watched.wait_status("connecting", "tls")


def test_a_redirection_cannot_lead_into_the_files_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "secret.ts").write_bytes(mpegts(1.0))
    away = status(302, f"Location: file://{tmp_path}/secret.ts\r\n")
    with FaultServer("http", away) as fault, watch(fault.url()) as watched:
        watched.wait(lambda: any(one.code for one in watched.statuses))
        assert not watched.formats
    with MediaServer(tmp_path) as target:
        near = status(302, f"Location: {target.url('/secret.ts')}\r\n")
        with FaultServer("http", near) as fault, watch(fault.url()) as watched:
            watched.wait_steps(1)
