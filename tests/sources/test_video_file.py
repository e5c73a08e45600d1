"""Files of every kind become the right frames at the right times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamingvlm.core.errors import SourceError
from streamingvlm.core.events import Chunk, Source
from streamingvlm.sources.decode import Clock
from streamingvlm.sources.file import FileSource
from streamingvlm.sources.open import open_source
from support import media


def taken(chunks: list[Chunk]) -> list[int]:
    return [media.index_of(frame) for chunk in chunks for frame in chunk.frames]


def times(chunks: list[Chunk]) -> list[float]:
    return [round(time, 3) for chunk in chunks for time in chunk.times]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 frames, 10 a second."""
    path = tmp_path_factory.mktemp("clip") / "a b.mp4"
    return media.write_clip(path, count=25, title=" Ada \n vs  Boris ", comment="streamingvlm arcade:pong seed=7")


def test_samples_at_the_rate_asked_for(clip: Path) -> None:
    chunks = list(FileSource(clip, fps=2))
    assert [(chunk.start, chunk.end) for chunk in chunks] == [(0, 1), (1, 2), (2, 3)]
    assert taken(chunks) == [0, 5, 10, 15, 20]
    assert times(chunks) == [0, 0.5, 1, 1.5, 2]
    assert chunks[0].frames.shape == (2, 48, 64, 3)
    assert all(chunk.read_seconds > 0 for chunk in chunks)


@pytest.mark.parametrize(("fps", "step"), [(1, 1), (2, 0.5), (5, 0.4), (10, 1), (4, 0.75), (2, 3)])
def test_every_grid_takes_each_frame_once(clip: Path, fps: float, step: float) -> None:
    chunks = list(FileSource(clip, fps=fps, step=step))
    assert taken(chunks) == [int(k * 10 / fps + 1e-6) for k in range(int(2.5 * fps - 1e-6) + 1)]
    for index, chunk in enumerate(chunks):
        assert chunk.start == pytest.approx(index * step)
        assert chunk.end == pytest.approx((index + 1) * step)
        assert all(chunk.start - 1e-9 <= time < chunk.end for time in chunk.times)


def test_a_rate_above_the_files_repeats_frames_at_the_sample_times(clip: Path) -> None:
    chunks = list(FileSource(clip, fps=20, duration=0.3, step=0.3))
    assert taken(chunks) == [0, 0, 1, 1, 2, 2]
    assert times(chunks) == [0, 0.05, 0.1, 0.15, 0.2, 0.25]


def test_start_and_duration(clip: Path) -> None:
    chunks = list(FileSource(clip, start=1.2, duration=1.0, fps=5))
    assert taken(chunks) == [12, 14, 16, 18, 20]
    assert times(chunks) == [1.2, 1.4, 1.6, 1.8, 2.0]
    assert (chunks[0].start, chunks[-1].end) == (1.2, 2.2)


def test_start_seeks_in_a_long_file(tmp_path: Path) -> None:
    for name in ("long.mp4", "long.ts", "long.mkv"):
        path = media.write_clip(tmp_path / name, count=300, width=32, height=32)
        chunks = list(FileSource(path, start=25, duration=2))
        assert taken(chunks) == [250 % 55, 255 % 55, 260 % 55, 265 % 55], name


def test_is_a_source_and_can_be_read_twice(clip: Path) -> None:
    source = open_source(str(clip))
    assert isinstance(source, Source)
    assert (source.name, source.context, source.kind, source.live) == ("a b.mp4", "Ada vs Boris", "arcade:pong", False)
    assert taken(list(source)) == taken(list(source))


def test_variable_rate_holds_what_is_shown(tmp_path: Path) -> None:
    path = media.write_clip(tmp_path / "vfr.mp4", stamps=[0, 0.1, 0.2, 1.7, 1.8, 4.0])
    chunks = list(FileSource(path))
    assert taken(chunks) == [0, 2, 2, 2, 4, 4, 4, 4, 5]
    assert times(chunks) == [0, 0.2, 1, 1.5, 2, 2.5, 3, 3.5, 4]


@pytest.mark.parametrize(
    ("matrix", "white"),
    [
        ((1, 0, 0, 1), (0, 0)),
        ((0, 1, -1, 0), (0, 1)),
        ((-1, 0, 0, -1), (1, 1)),
        ((0, -1, 1, 0), (1, 0)),
        ((-1, 0, 0, 1), (0, 1)),
        ((0, 1, 1, 0), (0, 0)),
    ],
)
def test_rotated_and_mirrored(tmp_path: Path, matrix: tuple[int, int, int, int], white: tuple[int, int]) -> None:
    path = media.turn(media.write_clip(tmp_path / "r.mp4", count=2, picture=media.corner(64, 48)), matrix)
    frame = next(iter(FileSource(path))).frames[0]
    assert frame.shape == ((64, 48, 3) if matrix[0] == 0 else (48, 64, 3))
    height, width = frame.shape[:2]
    quarters = frame.reshape(2, height // 2, 2, width // 2, 3).mean(axis=(1, 3, 4))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == white
    assert (quarters > 128).sum() == 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("odd.mkv", {"pix_fmt": "yuv444p"}),
        ("odd.avi", {"codec": "mjpeg", "pix_fmt": "yuvj444p"}),
        ("odd.mov", {"codec": "png", "pix_fmt": "rgb24"}),
    ],
)
def test_odd_sizes(tmp_path: Path, name: str, arguments: dict[str, str]) -> None:
    path = media.write_clip(tmp_path / name, count=6, width=65, height=49, **arguments)  # type: ignore[arg-type]
    chunk = next(iter(FileSource(path)))
    assert chunk.frames.shape == (2, 49, 65, 3)
    assert taken([chunk]) == [0, 5]


@pytest.mark.parametrize("name", ["a.h264", "a.ts", "a.mkv", "a.flv"])
def test_files_that_do_not_tell_their_length(tmp_path: Path, name: str) -> None:
    options = {"live": "1"} if name == "a.mkv" else {"flvflags": "no_duration_filesize"} if name == "a.flv" else {}
    path = media.write_clip(tmp_path / name, count=25, fps=25, options=options)
    chunks = list(FileSource(path, fps=5))
    assert taken(chunks) == [0, 5, 10, 15, 20]
    assert [chunk.start for chunk in chunks] == [0]


def test_one_frame(tmp_path: Path) -> None:
    for path in (
        media.write_clip(tmp_path / "one.mp4", count=1),
        media.write_clip(tmp_path / "one.png", count=1, codec="png", pix_fmt="rgb24", container="image2"),
    ):
        (chunk,) = FileSource(path)
        assert 1 <= len(chunk.frames) <= 2
        assert (chunk.start, chunk.end) == (0, 1)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("ten.mkv", "libx264", "yuv420p10le"),
        ("alpha.mov", "qtrle", "argb"),
        ("palette.gif", "gif", "rgb8"),
        ("grey.mkv", "ffv1", "gray"),
        ("web.webm", "libvpx-vp9", "yuv420p"),
    ],
)
def test_pixels_of_all_kinds_become_rgb(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    path = media.write_clip(tmp_path / name, count=6, codec=codec, pix_fmt=pix_fmt)
    frames = next(iter(FileSource(path))).frames
    assert (frames.shape, frames.dtype) == ((2, 48, 64, 3), np.uint8)
    assert [media.index_of(frame) for frame in frames] == pytest.approx([0, 5], abs=4 if codec == "gif" else 1)


def test_first_stamp_is_not_zero(tmp_path: Path) -> None:
    path = media.write_clip(tmp_path / "late.ts", stamps=[7 + index / 10 for index in range(12)])
    chunks = list(FileSource(path))
    assert (taken(chunks), times(chunks)) == ([0, 5, 10], [0, 0.5, 1])


def test_joined_streams_go_on(tmp_path: Path) -> None:
    one = media.write_clip(tmp_path / "1.ts", count=20)
    two = media.write_clip(tmp_path / "2.ts", count=20)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    chunks = list(FileSource(joined))
    assert taken(chunks) == [0, 5, 10, 15, 0, 5, 10, 15]
    assert times(chunks) == sorted(times(chunks))


def test_size_changes_on_the_way(tmp_path: Path) -> None:
    one = media.write_clip(tmp_path / "1.ts", count=10)
    two = media.write_clip(tmp_path / "2.ts", count=10, width=128, height=80)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    assert [chunk.frames.shape[1:3] for chunk in FileSource(joined)] == [(48, 64), (48, 64)]


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.ts"])
def test_a_file_that_breaks_off(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name == "cut.mp4" else {}
    path = media.cut(media.write_clip(tmp_path / name, count=55, options=options), 0.6)
    chunks = list(FileSource(path))
    assert 1 <= len(chunks) <= 4
    assert taken(chunks)[:2] == [0, 5]


@pytest.mark.parametrize("name", ["bad.mp4", "bad.mkv", "bad.ts"])
def test_broken_packets_are_skipped(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name == "bad.mp4" else {}
    path = media.spoil(media.write_clip(tmp_path / name, count=55, options=options), 0.5, 0.6)
    chunks = list(FileSource(path))
    assert [chunk.start for chunk in chunks] == [0, 1, 2, 3, 4, 5]
    assert taken(chunks)[0] == 0
    assert taken(chunks)[-1] == 50


def refused(path: Path, **arguments: float) -> str:
    with pytest.raises(SourceError) as error:
        FileSource(path, **arguments)  # type: ignore[arg-type]
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_what_is_no_video(tmp_path: Path, clip: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.mp4")
    assert "not a file" in refused(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "empty" in refused(tmp_path / "empty.mp4")
    for name in ("text.txt", "text.mp4"):
        (tmp_path / name).write_text("no video here\n" * 50)
        refused(tmp_path / name)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    refused(tmp_path / "noise.mp4")
    refused(media.cut(media.write_clip(tmp_path / "no_index.mp4"), 0.5))
    assert "no video track" in refused(media.write_audio(tmp_path / "sound.m4a"))
    assert "no video track" in refused(media.write_audio(tmp_path / "cover.m4a", cover=True))
    assert "ends before 9 s" in refused(clip, start=9)


def test_numbers_that_leave_a_step_without_a_frame(clip: Path) -> None:
    for arguments in ({"fps": 0.5}, {"fps": 0}, {"start": -1}, {"duration": 0}):
        with pytest.raises(ValueError, match="at least one frame"):
            FileSource(clip, **arguments)  # type: ignore[arg-type]


def test_sound_beside_the_video_is_ignored(tmp_path: Path) -> None:
    path = media.write_clip(tmp_path / "both.mp4", count=10, audio=True)
    assert taken(list(FileSource(path))) == [0, 5]


def test_unknown_scheme() -> None:
    with pytest.raises(SourceError, match="unknown kind of source gopher:"):
        open_source("gopher://example.org/x.mp4")


def test_clock_repairs_what_containers_get_wrong() -> None:
    def read(*stamps: float | None) -> list[float]:
        clock = Clock(0.5)
        return [clock.read(stamp) for stamp in stamps]

    assert read(-3.0, -2.5, -2.0) == [0, 0.5, 1]
    assert read(None, None, None) == [0, 0.5, 1]
    assert read(10, None, 11) == [0, 0.5, 1]
    assert read(None, 20, 20.5) == [0, 0.5, 1]
    assert read(10, 9.8, 10.5) == [0, 0, 0.5]  # a little out of order
    assert read(95000, 95000.5, 0.25, 0.75) == [0, 0.5, 1, 1.5]  # wrapped
    assert read(0, 0.5, 95000, 95000.5) == [0, 0.5, 1, 1.5]  # jumped
