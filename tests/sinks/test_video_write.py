"""A clip that is written can be read again, and appears only when it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from streamingvlm.core.errors import OutputError
from streamingvlm.sinks.clip import write_video
from streamingvlm.sources.file import FileSource
from support import media


def test_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    frames = [media.flat(index, 64, 48) for index in range(50)]
    title = "first to 2 games ; player green Mina ; player orange Ada"
    assert write_video(path, iter(frames), fps=10, title=title, comment="streamingvlm arcade:pong seed=7") == 50
    source = FileSource(path, fps=2)
    assert (source.context, source.kind) == (title, "arcade:pong")
    assert [media.index_of(frame) for chunk in source for frame in chunk.frames] == list(range(0, 50, 5))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    assert list(tmp_path.iterdir()) == [path]


def test_small_moving_things_survive(tmp_path: Path) -> None:
    frame = np.full((210, 160, 3), (144, 72, 17), np.uint8)
    frame[100:104, 80:82] = 236
    big = frame.repeat(2, 0).repeat(2, 1)
    write_video(tmp_path / "clip.mp4", [big] * 4, fps=30)
    seen = next(iter(FileSource(tmp_path / "clip.mp4"))).frames[0].astype(int)
    assert abs(seen - big).mean() < 3
    assert seen[202:206, 161:163].min() > 200


def test_a_failed_run_leaves_what_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[NDArray[np.uint8]]:
        yield media.flat(0, 64, 48)
        raise KeyboardInterrupt

    path = tmp_path / "clip.mp4"
    path.write_text("precious")
    with pytest.raises(KeyboardInterrupt):
        write_video(path, failing(), fps=10)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_video(tmp_path / "none" / "clip.mp4", [media.flat(0, 64, 48)], fps=10)
