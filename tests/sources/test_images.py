"""A folder of pictures as a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingvlm.core.errors import EndedError, SourceError
from streamingvlm.sources.images import ImagesSource
from streamingvlm.sources.open import open_source
from support import media


def write(folder: Path, *names: str, width: int = 64) -> Path:
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        shown = media.flat(int(Path(name).stem) if Path(name).stem.isdecimal() else place, width, 48)
        media.write_photo(folder / name, 1, shown)
    return folder


def seen(source: ImagesSource) -> list[tuple[float, list[int]]]:
    return [(chunk.start, [media.index_of(frame) for frame in chunk.frames]) for chunk in source]


NUMBERED = [f"{number:05d}.jpg" for number in range(1, 10)]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"fps": 3}, [(0, [1, 1, 2]), (1, [3, 4, 5]), (2, [6, 7, 8]), (3, [9])]),
        ({"fps": 1}, [(0, [1]), (1, [3]), (2, [6]), (3, [9])]),
        ({"fps": 1, "rate": 1}, [(second, [max(second, 1)]) for second in range(10)]),
        ({"fps": 3, "start": 1, "duration": 1}, [(1, [3, 4, 5])]),
        ({"fps": 2, "start": 2.5, "step": 0.5}, [(2.5, [7]), (3.0, [9])]),
    ],
)
def test_pictures_stand_at_their_numbers(tmp_path: Path, options: dict[str, float], shown: list[object]) -> None:
    source = ImagesSource(write(tmp_path, *NUMBERED), **options)
    assert seen(source) == shown
    assert seen(source) == shown, "it can be read again"
    for chunk in source:
        assert list(chunk.times) == sorted(chunk.times)
        assert all(chunk.start <= time < chunk.end for time in chunk.times)


def test_gaps_names_and_other_files(tmp_path: Path) -> None:
    gap = write(tmp_path / "gap", "00001.jpg", "00004.jpg", "thumb.jpg")
    (gap / "notes.txt").touch()
    assert seen(ImagesSource(gap, fps=3)) == [(0, [1, 1, 1]), (1, [1, 4])]
    named = write(tmp_path / "named", "a.jpg", "b.jpeg", "c.JPG")
    assert seen(ImagesSource(named, fps=3)) == [(0, [0, 1, 2])]


def test_a_folder_is_opened_like_a_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "clip", *NUMBERED)
    for locator in (str(folder), f"file://{folder}"):
        source = open_source(locator, fps=1, start=1, duration=2)
        assert isinstance(source, ImagesSource)
        assert (source.name, len(list(source))) == ("clip", 2)
    with pytest.raises(SourceError, match="no video streams to choose from"):
        open_source(str(folder), video_stream=1)


def test_all_get_the_size_of_the_first(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg")
    write(tmp_path, "2.jpg", width=80)
    (chunk,) = ImagesSource(tmp_path, fps=3)
    assert chunk.frames.shape == (3, 48, 64, 3)


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="folder without pictures"):
        ImagesSource(tmp_path / "empty")
    folder = write(tmp_path / "clip", "1.jpg")
    with pytest.raises(EndedError, match="ends before 1 s"):
        ImagesSource(folder, start=1)
    with pytest.raises(ValueError, match="at least one frame"):
        ImagesSource(folder, fps=0.5)
    (folder / "2.jpg").write_bytes(b"no picture")
    (folder / "3.jpg").touch()
    with pytest.raises(SourceError, match=r"2\.jpg") as error:
        list(ImagesSource(folder, fps=3))
    assert "\n" not in str(error.value)
