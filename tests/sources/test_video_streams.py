"""Which of a file's video streams is watched, and what is said if there is none that can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from av.stream import Disposition
from typer.testing import CliRunner

from streamingvlm.core.errors import SourceError
from streamingvlm.data.report import Reason, Unusable
from streamingvlm.data.videos import Videos
from streamingvlm.sources.file import FileSource
from streamingvlm.sources.open import open_source
from support import media

THUMBNAIL: dict[str, Any] = {"codec": "mjpeg", "count": 1, "size": (320, 240), "first": 40}
FILM: dict[str, Any] = {"codec": "libx264"}
NONE = Disposition(0)


def first(path: Path, number: int | None = None) -> tuple[int, int]:
    """Level of the first picture, and its width."""
    frame = next(iter(FileSource(path, video_stream=number))).frames[0]
    return media.index_of(frame), frame.shape[1]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi"])
def test_a_thumbnail_before_the_film_is_not_watched(tmp_path: Path, name: str) -> None:
    path = media.write_tracks(tmp_path / name, THUMBNAIL, FILM)
    assert first(path) == (0, 64)
    assert first(path, 0) == (40, 320)
    assert first(path, 1) == (0, 64)
    assert len(list(FileSource(path))) == 2
    assert first(path, None) == first(media.write_tracks(tmp_path / f"behind{name}", FILM, THUMBNAIL))


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("a.mp4", {**THUMBNAIL, "disposition": Disposition.attached_pic}),
        ("a.mkv", {**THUMBNAIL, "disposition": Disposition.attached_pic}),
        ("a.mp4", {**THUMBNAIL, "count": 2, "disposition": Disposition.default}),
        ("a.mkv", {**THUMBNAIL, "count": 2, "disposition": Disposition.default}),
        ("a.mov", {**THUMBNAIL, "codec": "png", "disposition": Disposition.default}),
    ],
)
def test_pictures_beside_a_film(tmp_path: Path, name: str, beside: dict[str, Any]) -> None:
    assert first(media.write_tracks(tmp_path / name, beside, {**FILM, "disposition": NONE})) == (0, 64)


def test_the_default_then_the_largest_then_the_longest(tmp_path: Path) -> None:
    large, other = {**FILM, "size": (128, 96), "first": 30}, {**FILM, "first": 20}
    marked = {**FILM, "disposition": Disposition.default}
    assert first(media.write_tracks(tmp_path / "d.mkv", {**large, "disposition": NONE}, marked)) == (0, 64)
    assert first(media.write_tracks(tmp_path / "s.mkv", FILM, large)) == (30, 128)
    assert first(media.write_tracks(tmp_path / "n.mkv", {**FILM, "count": 5}, other)) == (20, 64)
    assert first(media.write_tracks(tmp_path / "same.mkv", FILM, other)) == (0, 64)


def test_pictures_that_are_all_there_is_are_watched(tmp_path: Path) -> None:
    assert first(media.write_tracks(tmp_path / "one.mp4", THUMBNAIL)) == (40, 320)
    film = {**THUMBNAIL, "count": 30, "first": 3, "size": (64, 48)}
    assert first(media.write_tracks(tmp_path / "m.mov", THUMBNAIL, film)) == (3, 64)


def test_a_stream_that_is_not_there(tmp_path: Path) -> None:
    path = media.write_tracks(tmp_path / "a.mp4", THUMBNAIL, FILM)
    for number in (2, -1):
        with pytest.raises(SourceError) as error:
            open_source(str(path), video_stream=number)
        message = str(error.value)
        assert f"{path} has no video stream {number}" in message
        assert "0: mjpeg 320x240, frames: 1, 1: h264 64x48, frames: 20" in message
    with pytest.raises(SourceError, match="no video stream 0"):
        open_source(str(media.write_audio(tmp_path / "sound.m4a")), video_stream=0)
    with pytest.raises(SourceError, match="is a game"):
        open_source("arcade:pong?seed=1", video_stream=0)
    assert first(media.write_audio(tmp_path / "cover.m4a", cover=True), 0) == (0, 64)


def test_watch_takes_a_stream(tmp_path: Path) -> None:
    from streamingvlm.cli import commands  # the table of commands, as `streamingvlm` builds it

    path = media.write_tracks(tmp_path / "a.mp4", THUMBNAIL, FILM)
    result = CliRunner().invoke(commands.make_app(), ["watch", str(path), "--video-stream", "7"])
    assert isinstance(result.exception, SourceError)
    assert "has no video stream 7" in str(result.exception)


def unknown(path: Path, tag: bytes = b"XYZ1") -> Path:
    """Give the first H.264 track of an MP4 a codec that nobody knows."""
    data = path.read_bytes()
    at = data.index(b"avc1", data.index(b"stsd"))
    path.write_bytes(data[:at] + tag + data[at + 4 :])
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_a_codec_without_a_decoder_is_named(tmp_path: Path, name: str) -> None:
    path = unknown(media.write_clip(tmp_path / name))
    with pytest.raises(SourceError) as error:
        FileSource(path)
    message = str(error.value)
    assert str(path) in message
    assert "no decoder" in message
    assert "XYZ1" in message
    assert "\n" not in message


def test_a_film_without_a_decoder_is_not_its_thumbnail(tmp_path: Path) -> None:
    path = unknown(media.write_tracks(tmp_path / "a.mp4", THUMBNAIL, FILM))
    with pytest.raises(SourceError, match="XYZ1"):
        FileSource(path)
    assert first(path, 0) == (40, 320)
    other = unknown(media.write_tracks(tmp_path / "b.mp4", FILM, {**FILM, "first": 20}))
    assert first(other) == (20, 64)
    with pytest.raises(SourceError, match="no decoder"):
        FileSource(other, video_stream=0)


def test_training_counts_it_as_unreadable(tmp_path: Path) -> None:
    path = unknown(media.write_clip(tmp_path / "a.mp4"))
    with pytest.raises(Unusable) as error:
        Videos(tmp_path).clip("a.mp4", tmp_path, 0, None)
    assert error.value.reason is Reason.UNREADABLE
    assert "XYZ1" in str(error.value)
    assert str(path) in str(error.value)
