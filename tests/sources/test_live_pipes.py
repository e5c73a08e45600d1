"""Video that is piped in, and a screen."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from streamingvlm.core.errors import SourceError
from support import media
from support.live import Watched, watch
from support.pipes import PipeWriter
from support.xvfb import Xvfb


def piped(monkeypatch: pytest.MonkeyPatch, writer: PipeWriter, **more: float) -> Watched:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=writer.reader))
    return watch("-", **more)


@pytest.mark.parametrize("container", ["mpegts", "matroska"])
def test_a_producer_at_its_own_pace(monkeypatch: pytest.MonkeyPatch, container: str) -> None:
    with PipeWriter(container) as writer, piped(monkeypatch, writer) as watched:
        watched.wait_steps(2)
        assert max(watched.ages) < 1.5
        writer.end()
        watched.wait_end()
    assert watched.error is None
    assert (watched.statuses[-1].state, watched.statuses[-1].code) == ("ended", "")
    assert not watched.gaps


@pytest.mark.slow
def test_what_was_piped_before_one_was_ready_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    with PipeWriter() as writer:
        time.sleep(4.0)
        with piped(monkeypatch, writer) as watched:
            watched.wait_steps(5)
    assert max(watched.ages) < 1.0
    assert all(len(one.chunk.frames) == 5 for one in watched.steps)


@pytest.mark.slow
def test_a_producer_that_starts_anew_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stamps are those of what was old when one began to read."""
    with PipeWriter() as writer:
        time.sleep(4.0)
        with piped(monkeypatch, writer) as watched:
            watched.wait_steps(2)
            writer.restart()
            watched.wait_steps(3)
        assert max(watched.ages) < 1.5
        assert not watched.gaps


@pytest.mark.parametrize("container", ["mpegts", "matroska"])
def test_a_producer_that_dies_in_the_middle_of_a_packet(monkeypatch: pytest.MonkeyPatch, container: str) -> None:
    with PipeWriter(container, after=2_345, fast=True) as writer, piped(monkeypatch, writer) as watched:
        watched.wait_end()
    assert watched.error is None
    assert watched.statuses[-1].state == "ended"
    assert watched.steps


def test_a_producer_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    with PipeWriter() as writer, piped(monkeypatch, writer) as watched:
        watched.wait_steps(1)
        writer.stall()
        assert watched.wait_status("stalled", "stalled") < 3.0
        assert watched.close() < 1.0


@pytest.mark.slow
def test_a_producer_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with PipeWriter() as writer, piped(monkeypatch, writer) as watched:
        watched.wait_steps(2)
        writer.stall()
        watched.wait_status("stalled")
        time.sleep(1.0)
        writer.go()
        watched.wait_status("running")
        watched.wait_steps(2)
    assert watched.gaps


def test_a_producer_that_never_sends_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = PipeWriter()
    writer.stall()
    with writer, piped(monkeypatch, writer, first_frame=0.5) as watched:
        watched.wait_status("stalled")
        assert watched.close() < 1.0


@pytest.mark.parametrize("data", [b"", b"no video at all\n" * 400])
def test_what_is_no_video(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    writer = PipeWriter(after=0)
    writer.write(data)
    with writer, piped(monkeypatch, writer) as watched:
        watched.wait_end()
    assert isinstance(watched.error, SourceError)
    assert "\n" not in str(watched.error)


def test_an_mp4_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clip = media.write_clip(tmp_path / "clip.mp4", count=20)
    with clip.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file))
        with watch("-") as watched:
            watched.wait_end()
    # From a file that is redirected it can be read; through a pipe it needs another container.
    assert watched.steps or "MPEG-TS" in str(watched.error)


def test_a_screen() -> None:
    with Xvfb(colour=0xFF0000) as screen, watch(f"screen:{screen.display}") as watched:
        watched.wait_steps(2)
        assert np.abs(watched.steps[-1].chunk.frames[-1].mean(axis=(0, 1)) - (255, 0, 0)).max() < 3
        screen.paint(0x0040FF)
        time.sleep(0.1)
        watched.wait_steps(2)
        assert np.abs(watched.steps[-1].chunk.frames[-1].mean(axis=(0, 1)) - (0, 64, 255)).max() < 3
        assert watched.close() < 1.0


def test_a_screen_that_is_not_there() -> None:
    with watch("screen::99") as watched:
        watched.wait(lambda: any(one.code for one in watched.statuses))
        assert not watched.steps
