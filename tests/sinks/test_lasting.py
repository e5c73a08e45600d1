"""An output of a live stream that cannot be written for a while."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import av
import numpy as np
import pytest

from streamingvlm.core.events import Chunk, Delta, Event, StepInput
from streamingvlm.sinks.lasting import LastingOutput
from streamingvlm.sinks.limits import OUTPUT_RETRY_SECONDS
from streamingvlm.sinks.outputs import open_outputs
from support.subtitles import said


class Clock:
    """Seconds, as they are set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def lasting(path: Path, clock: Clock) -> LastingOutput:
    (output,) = open_outputs([path])
    return LastingOutput(output, lambda: open_outputs([path], resume=True)[0], clock)


def fill(path: Path) -> None:
    """From now on the disk of this file is full."""
    path.with_suffix(".kept").write_bytes(path.read_bytes() if path.exists() else b"")
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/full")


def free(path: Path) -> None:
    """There is room again."""
    path.unlink()
    path.with_suffix(".kept").rename(path)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_takes_words_and_no_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, clock = tmp_path / "words.jsonl", Clock()
    fill(path)
    output = lasting(path, clock)
    with caplog.at_level(logging.WARNING):
        for second in range(3):
            output.write(said(second, "unseen"))
            output.write(Delta(second, second + 1, "unseen"))
        free(path)
        output.write(said(3, "too soon"))
        clock.now += OUTPUT_RETRY_SECONDS
        output.write(said(4, "again"))
        output.close()
    told = lines(path)
    assert [line["type"] for line in told] == ["stream.dropped", "commentary.done"]
    assert (told[0]["count"], told[1]["text"]) == (4, "again")
    assert output.loss == f"{path} lacks 4 events"
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot write {path} (No space left on device); the stream goes on, and this is tried again",
        f"{path} is written again; it lacks 4 events",
    ]


def test_a_file_that_is_removed_is_begun_anew(tmp_path: Path) -> None:
    path, clock = tmp_path / "words.vtt", Clock()
    output = lasting(path, clock)
    output.write(said(0, "one."))
    path.unlink()
    output.write(said(1, "two."))
    clock.now += OUTPUT_RETRY_SECONDS
    output.write(said(2, "three."))
    output.close()
    assert path.read_text().startswith("WEBVTT")
    assert "three." in path.read_text()
    assert output.lost == 1


def test_a_film_that_is_removed_is_begun_anew(tmp_path: Path) -> None:
    path, clock = tmp_path / "film.mp4", Clock()
    output = lasting(path, clock)

    def show(second: int) -> None:
        frames = np.full((2, 360, 640, 3), 128, np.uint8)
        output.see(StepInput(Chunk(frames, (second, second + 0.5), second, second + 1)))
        output.write(said(second, "word"))

    second = 0
    while not path.exists():
        show(second := second + 1)
    path.unlink()
    while output.output is not None:  # its thread finds out when it writes
        show(second := second + 1)
        time.sleep(0.005)
    clock.now += OUTPUT_RETRY_SECONDS
    for _ in range(4):
        show(second := second + 1)
    output.close()
    assert output.wait(30)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 8


def test_a_bug_is_not_hidden(tmp_path: Path) -> None:
    class Broken:
        path = tmp_path / "x.vtt"

        def write(self, event: Event) -> None:  # noqa: ARG002
            raise ZeroDivisionError

        def close(self) -> None: ...

    output = LastingOutput(Broken(), Broken)
    with pytest.raises(ZeroDivisionError):
        output.write(said(0, "a"))
