"""Live playlists whose pieces are late, missing, the last, or of another size: what is shown, and what is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from support import media
from support.hls_script import RATE, HlsScript, write_pieces
from support.http_media import MediaServer
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


@pytest.mark.parametrize("phase", [0.0, pytest.param(0.5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("late", [0.0, pytest.param(0.3, marks=pytest.mark.slow)])
def test_nothing_is_lost_at_the_start(server: MediaServer, tmp_path: Path, phase: float, late: float) -> None:
    write_pieces(tmp_path, 5)
    with HlsScript(tmp_path) as playlist:
        playlist.play(pieces(*range(5)), [0.0, 0.0, late])
        time.sleep(phase)
        with follow(server) as watched:
            watched.wait(lambda: bool(watched.steps) and shown(watched)[-1] >= 2 * RATE + 5, 10.0)
    frames, moments = shown(watched), times(watched)
    assert frames == list(range(frames[0], frames[-1] + 1))
    assert max(b - a for a, b in pairwise(moments)) < 1.5 / RATE, moments
    assert len(watched.statuses) == 2


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
