"""Which frames an item shows where it is asked offline: of files, and of clips that are folders of JPEGs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import Image

from streamingvlm.core.errors import SourceError
from streamingvlm.evaluate.benchmark import Video
from streamingvlm.evaluate.presets import OfflinePreset, Preset
from streamingvlm.evaluate.questions.examples import VideoQuestions
from streamingvlm.evaluate.questions.mvbench import MVBench, read_picture
from streamingvlm.evaluate.questions.offline import sample
from support import media
from support.question_data import mvbench_entry, write_mvbench


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four seconds: twelve JPEGs, number n at n / 3 s."""
    path = tmp_path / "show"
    path.mkdir()
    for number in range(1, 13):
        Image.fromarray(media.flat(number, 64, 48)).save(path / f"{number:05d}.jpg", quality=95)
    return path


@pytest.mark.parametrize(
    ("start", "end", "preset", "numbers", "times"),
    [
        (0.0, 4.0, OfflinePreset("p", 1.0, 64), [1, 3, 6, 9], [0, 1, 2, 3]),  # the first stands from the start
        (1.0, 3.0, OfflinePreset("p", 3.0, 64), [3, 4, 5, 6, 7, 8], [0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3]),
        (1.0, 3.0, OfflinePreset("p", 3.0, 2), [3, 6], [0, 1]),
        (0.0, 4.0, OfflinePreset("p", 30.0, 24), [1, *range(1, 12)], None),  # no more than the folder has
    ],
)
def test_a_folder_of_pictures(
    folder: Path, start: float, end: float, preset: OfflinePreset, numbers: list[int], times: list[float] | None
) -> None:
    shown = sample(str(folder), start, end, preset)
    assert [media.index_of(frame) for frame in shown.frames] == numbers
    assert len(shown.times) == len(numbers)
    if times is not None:
        assert shown.times == pytest.approx(times)


def test_a_stretch_without_pictures_is_one_line(folder: Path) -> None:
    with pytest.raises(SourceError, match="ends before 9 s"):
        sample(str(folder), 9.0, 12.0, OfflinePreset("p", 1.0, 8))
    (folder / "00003.jpg").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"00003\.jpg"):
        read_picture(folder / "00003.jpg")


def test_a_whole_video_whose_length_is_not_known_is_one_line(tmp_path: Path) -> None:
    data = write_mvbench(tmp_path, {"action_count": [mvbench_entry()]})
    (item,) = MVBench(data).items
    assert item.time == math.inf  # its video is not there
    with pytest.raises(SourceError, match="does not tell how long it is"):
        sample(str(tmp_path / "clip_0.mp4"), item.start, item.time, OfflinePreset("p", 1.0, 8))
    video = Video(item.video, tmp_path / "clip_0.mp4")
    watched = VideoQuestions(video, [item], Preset("p"), "likelihood", "")
    with pytest.raises(SourceError, match="does not tell how long it is"):
        _ = watched.end
