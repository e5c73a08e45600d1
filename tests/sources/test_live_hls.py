"""Live playlists whose pieces are late, missing, the last, or of another size: what is shown, and what is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import media
from support.hls_script import RATE, HlsScript, write_pieces
from support.http_media import LiveHls, MediaServer
from support.live import Watched, watch


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MediaServer]:
    with MediaServer(tmp_path) as server:
        yield server


def shown(watched: Watched) -> list[int]:
    """Which frames were shown."""
    return [media.index_of(frame) for one in watched.steps for frame in one.chunk.frames]


def times(watched: Watched) -> list[float]:
    """When, by the stream's clock."""
    return [time for one in watched.steps for time in one.chunk.times]


def follow(server: MediaServer, **more: float) -> Watched:
    """Every frame has a slot of its own."""
    return watch(server.url("/live.m3u8"), fps=4.0 * RATE, step=0.2, **{"no_frame": 3.0, **more})


def pieces(*indices: int) -> list[str]:
    return [f"{index}.ts" for index in indices]


@pytest.mark.slow
def test_pieces_that_come_a_little_late_leave_no_hole(server: MediaServer, tmp_path: Path) -> None:
    """FFmpeg asks for a playlist too early and then waits: the next piece comes up to half a second too late."""
    missing = 0
    with LiveHls(tmp_path / "hls"):
        time.sleep(3.0)
        for phase in (0.1, 0.4, 0.7, 0.9):
            time.sleep(phase)
            url = server.url("/hls/live.m3u8")
            with watch(url, fps=4.0 * RATE, step=0.2, no_frame=4.0) as watched:
                watched.wait_steps(22, 15.0)
            assert [one.state for one in watched.statuses] == ["connecting", "running"]
            moments = times(watched)
            missing += round(moments[-1] * RATE) + 1 - len(moments)
    assert missing <= 3, "of 176"


def test_a_piece_that_is_missing(server: MediaServer, tmp_path: Path) -> None:
    write_pieces(tmp_path, 4)
    server.missing.add("/1.ts")
    with HlsScript(tmp_path) as playlist:
        playlist.add(*pieces(0))
        with follow(server) as watched:
            watched.wait_steps(1)
            playlist.add(*pieces(1, 2, 3))
            watched.wait(lambda: shown(watched)[-1] >= 2 * RATE + 5)
    frames = shown(watched)
    assert set(range(9)) <= set(frames), "FFmpeg leaves out the one before the hole"
    assert not set(range(10, 20)) & set(frames)
    assert frames == sorted(set(frames))
    assert watched.statuses[-1].state == "running"


@pytest.mark.slow
def test_a_playlist_that_stands_still_shows_nothing_again(server: MediaServer, tmp_path: Path) -> None:
    write_pieces(tmp_path, 5)
    with HlsScript(tmp_path) as playlist:
        playlist.add(*pieces(0, 1, 2))
        with follow(server, no_frame=1.0, first_frame=3.0) as watched:
            watched.wait(lambda: sum(one.code == "stalled" for one in watched.statuses) >= 3)
            assert shown(watched) == list(range(2 * RATE, 2 * RATE + len(shown(watched))))
            playlist.add(*pieces(3))
            watched.wait_status("running")
            watched.wait(lambda: shown(watched)[-1] >= 3 * RATE + 9)
    frames = shown(watched)
    assert frames == list(range(2 * RATE, 4 * RATE))
    assert watched.gaps


def test_a_playlist_that_ends(server: MediaServer, tmp_path: Path) -> None:
    write_pieces(tmp_path, 5)
    with HlsScript(tmp_path) as playlist:
        playlist.add(*pieces(0, 1, 2))
        with follow(server) as watched:
            watched.wait_steps(1)
            playlist.add(*pieces(3), end=True)
            watched.wait_end()
    assert watched.error is None
    assert shown(watched) == list(range(2 * RATE, 4 * RATE))
    assert (watched.statuses[-1].state, watched.statuses[-1].code) == ("ended", "")


def test_an_encoder_that_starts_anew(server: MediaServer, tmp_path: Path) -> None:
    """Another size and another clock, behind a mark that tells so."""
    write_pieces(tmp_path, 2)
    write_pieces(tmp_path, 2, first=2, size=(96, 64), tag="new", clock=-2.0)
    with HlsScript(tmp_path) as playlist:
        playlist.add(*pieces(0, 1))
        with follow(server) as watched:
            watched.wait_steps(1)
            playlist.add("new2.ts", "new3.ts", cut=True)
            watched.wait(lambda: len(watched.formats) == 2)
            watched.wait(lambda: shown(watched)[-1] >= 3 * RATE + 5)
    assert [(one.width, one.height) for one in watched.formats] == [(128, 96), (96, 64)]
    frames = shown(watched)
    assert frames == sorted(set(frames))
    assert set(range(10, 19)) <= set(frames)
    assert set(range(21, 35)) <= set(frames), "but one, at which the clock was seen to have jumped"
    assert watched.statuses[-1].state == "running"
