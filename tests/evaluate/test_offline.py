"""Questions asked offline: which frames are shown, in what size, of what; resumption; broken and missing videos."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamingvlm.core.errors import OptionError, OutputError, SourceError
from streamingvlm.evaluate import generate
from streamingvlm.evaluate.jobs import Job
from streamingvlm.evaluate.presets import OFFLINE, OfflinePreset
from streamingvlm.evaluate.questions import offline
from streamingvlm.evaluate.questions.items import Form
from streamingvlm.evaluate.questions.log import ReplyLog
from support import media
from support.chat_server import ChatServer, broken, images, refusal, texts
from support.generate_tools import ask, item, predictions, rows, say, tiny_model, use_tiny
from support.question_data import (
    longvideobench_entry,
    mvbench_entry,
    ovo_choice,
    streaming_files,
    videomme_rows,
    write_longvideobench,
    write_mvbench,
    write_ovo,
    write_streamingbench,
    write_videomme,
    write_videos,
)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(autouse=True)
def _tiny(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny(monkeypatch, model)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a.mp4`` and ``b.mp4``: 8 s at 5 frames a second, each frame another grey."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("a.mp4", "b.mp4"):
        media.write_clip(folder / name, count=40, fps=5)
    return folder


@pytest.mark.parametrize(
    ("start", "end", "fps", "most", "shown"),
    [
        (0, 4, 1, 64, [0, 5, 10, 15]),
        (0, 4.9, 1, 64, [0, 6, 12, 18]),  # four frames, spread over all of it
        (2, 5, 2, 64, [10, 12, 15, 17, 20, 22]),
        (0, 8, 2, 4, [0, 10, 20, 30]),  # too many: spread evenly
        (0, 8, 2, 1, [0]),
        (0, 0.03, 1, 64, [0]),  # less than a frame is one
        (6.9, 7.0, 2, 64, [34]),
        (0, 8, 2, 17, [0, 2, 4, 7, 9, 11, 14, 16, 18, 21, 23, 25, 28, 30]),  # more than are held at once
        (0, 20, 0.5, 64, [0, 10, 20, 30]),  # a video that is shorter than it is asked about
    ],
)
def test_frames_are_sampled_as_the_preset_says(
    clips: Path, start: float, end: float, fps: float, most: int, shown: list[int]
) -> None:
    chunk = offline.sample(str(clips / "a.mp4"), start, end, OfflinePreset("p", fps, most))
    indices = [media.index_of(frame) for frame in chunk.frames]
    assert indices[: len(shown)] == shown or most == 17
    assert len(indices) == (16 if most == 17 else len(shown))
    assert len(chunk.times) == len(chunk.frames)
    assert list(chunk.times) == sorted(chunk.times)
    assert (chunk.start, chunk.end) == (0.0, pytest.approx(end - start))
    wanted = [max(index / 5 - start, 0.0) for index in indices]
    assert list(chunk.times) == pytest.approx(wanted, abs=0.2)


def test_frames_get_the_size_that_the_model_gives_them(model: Any, clips: Path) -> None:
    preset = OfflinePreset("p", 1.0, 64)
    (plain, sized) = (offline.sample(str(clips / "a.mp4"), 0, 3, preset, one) for one in (None, model.patcher))
    assert plain.frames.shape == (3, 48, 64, 3)
    assert sized.frames.shape[1:3] == model.patcher.size(48, 64)
    small = replace(preset, max_pixels=28 * 28 * 2)
    assert np.prod(offline.sample(str(clips / "a.mp4"), 0, 3, small, model.patcher).frames.shape[1:3]) <= 28 * 28 * 2


@pytest.mark.parametrize(("start", "end"), [(8.5, 9), (50, 60)])
def test_a_stretch_behind_the_end_is_one_line(clips: Path, start: float, end: float) -> None:
    with pytest.raises(SourceError, match=r"a\.mp4 .*8\.5|a\.mp4 .*50"):
        offline.sample(str(clips / "a.mp4"), start, end, OfflinePreset("p", 1.0, 64))


ITEMS = [
    item("one", 2.0),
    item("cut", 6.0, start=3.0),
    item("early", 0.03),
    item("free", 4.0, "b.mp4", form=Form.COUNT, options=()),
    item("whole", float("inf"), "b.mp4"),
    item("long", 3.0, "b.mp4", prompt="A subtitle. " * 500),
]


def test_replies_have_probabilities_and_are_resumed(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ask(monkeypatch, clips, ITEMS, tmp_path / "run", mode="offline", policy=None)
    asked: list[str] = []
    normal = offline.LocalAnswerer.answer

    def answer(self: Any, one: Any, shown: Any) -> Any:
        asked.append(one.id)
        return normal(self, one, shown)

    monkeypatch.setattr(offline.LocalAnswerer, "answer", answer)
    assert (say(job).found, say(job).found) == (len(ITEMS), len(ITEMS))
    assert asked == [one.id for one in ITEMS], "nothing is asked twice"
    told = {row["id"]: row for row in rows(tmp_path / "run" / "predictions.jsonl")}
    assert sum(told["cut"]["probabilities"].values()) == pytest.approx(1)
    assert "probabilities" not in told["free"]
    # Cut anywhere, a log is gone on from.
    whole = predictions(tmp_path / "run")
    for path in (tmp_path / "run" / "items").glob("*.jsonl"):
        content = path.read_bytes()
        for length in (0, 5, len(content) // 2, len(content) - 3):
            path.write_bytes(content[:length])
            say(job)
            assert path.read_bytes() == content
    assert predictions(tmp_path / "run") == whole
    # Parts, in any order.
    parts = replace(job, out=tmp_path / "parts")
    assert [say(parts, part).found for part in ("2/2", "1/2")][-1] == len(ITEMS)
    assert predictions(tmp_path / "parts") == whole


def test_a_log_that_another_process_writes_is_left_to_it(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ask(monkeypatch, clips, ITEMS[:1], tmp_path, mode="offline", policy=None, constant="A", model=None)
    say(job)
    (path,) = (tmp_path / "items").glob("*.jsonl")
    settings = rows(path)[0]
    with ReplyLog(path, settings), pytest.raises(OutputError, match="being written by another process"):
        say(job)


def test_one_bad_video_stops_no_other(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    (tmp_path / "clips" / "a.mp4").write_bytes(b"no video")
    job = ask(monkeypatch, tmp_path / "clips", ITEMS, tmp_path / "run", mode="offline", policy=None)
    with pytest.raises(SourceError, match=r"a\.mp4 is not a video") as error:
        say(job)
    assert "\n" not in str(error.value)
    assert len(rows(tmp_path / "run" / "predictions.jsonl")) == 3
    # Missing, it is refused before anything is done, or left out.
    (tmp_path / "clips" / "a.mp4").unlink()
    missing = replace(job, out=tmp_path / "missing")
    with pytest.raises(OptionError, match=r"1 videos .* are missing \(a\.mp4\)"):
        say(missing)
    assert not (tmp_path / "missing").exists()
    outcome = say(replace(missing, allow_missing=True))
    assert (outcome.found, outcome.expected) == (3, 6)
    outcome = say(replace(missing, out=tmp_path / "limited", limit=1, allow_missing=True))
    assert (outcome.found, outcome.expected) == (0, 3)


@pytest.mark.parametrize("change", [{"blind": True}, {"constant": "B", "model": None}])
def test_what_sees_nothing_reads_no_video(
    change: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "sample", None)
    job = ask(monkeypatch, tmp_path / "nowhere", ITEMS, tmp_path / "run", mode="offline", policy=None, **change)
    assert say(job).found == len(ITEMS)
    if "constant" in change:
        assert {row["reply"] for row in rows(tmp_path / "run" / "predictions.jsonl")} == {"B"}


def test_an_endpoint_is_shown_the_same_frames(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"mode": "offline", "policy": None, "model": None, "remote_model": "m"}
    with ChatServer(lambda request: f"B, {len(images(request))}") as server:
        job = ask(monkeypatch, clips, ITEMS, tmp_path / "run", endpoint=server.url, **more)
        server.faults += [broken(500)]
        assert say(job).found == len(ITEMS)
        said = [row["reply"] for row in rows(tmp_path / "run" / "predictions.jsonl")]
        assert said == ["B, 2", "B, 3", "B, 1", "B, 4", "B, 8", "B, 3"]
        assert any("A subtitle. A subtitle." in text for text in texts(server.requests[-1]))
        # A request that is refused for good is no reply.
        server.faults += [refusal(400, "too long")]
        again = replace(job, out=tmp_path / "again")
        with pytest.raises(Exception, match="too long"):
            say(again)
        assert say(again).found == len(ITEMS)
    assert predictions(tmp_path / "again") == predictions(tmp_path / "run")


def test_an_endpoint_is_shown_every_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media.write_clip(tmp_path / "a.mp4", count=120, fps=30000 / 1001)
    with ChatServer() as server:
        job = ask(monkeypatch, tmp_path, ITEMS[:1], tmp_path / "run", mode="offline", policy=None, model=None)
        say(replace(job, endpoint=server.url, remote_model="m"))
        assert [len(images(request)) for request in server.requests] == [2]


def write_folder(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        media.write_photo(folder / f"{number:05d}.jpg", 1, media.flat(number, 64, 48))


def benchmarks(folder: Path) -> dict[str, tuple[str, Path, int]]:
    """Tiny data of every benchmark with their clips: locator, data, items."""
    write_ovo(folder / "ovo", [ovo_choice(0, "EPM", realtime=3.5, video="videos/a.mp4")])
    write_videos(folder / "ovo", {"videos/a.mp4": 4})
    real = {"questions_real": streaming_files()["questions_real"]}
    write_streamingbench(folder / "sb", real)
    video = folder / "sb" / "a_real.mp4"
    media.write_clip(video, count=140, fps=1)
    write_longvideobench(folder / "lvb", [longvideobench_entry(0)])
    (folder / "lvb" / "videos").mkdir()
    media.write_clip(folder / "lvb" / "videos" / "vid0.mp4", count=9, fps=1)
    write_videomme(folder / "vm", videomme_rows(1))
    (folder / "vm" / "videos").mkdir()
    media.write_clip(folder / "vm" / "videos" / "id-0.mp4", count=9, fps=1)
    episodes = [mvbench_entry(0, video="show_0", start=1, end=2.0)]
    write_mvbench(folder / "mv", {"object_existence": [mvbench_entry()], "episodic_reasoning": episodes})
    write_folder(folder / "mv" / "video" / "tvqa" / "frames_fps3_hq" / "show_0", range(1, 13))
    clip = folder / "mv" / "video" / "clevrer" / "video_validation" / "clip_0.mp4"
    clip.parent.mkdir(parents=True)
    media.write_clip(clip, count=9, fps=1)
    return {
        "ovo": ("ovo", folder / "ovo", 1),
        "streamingbench": ("streamingbench?set=real", folder / "sb", 2),
        "longvideobench": ("longvideobench", folder / "lvb", 1),
        "videomme": ("videomme", folder / "vm", 3),
        "mvbench": ("mvbench", folder / "mv", 2),
    }


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path, int]]:
    return benchmarks(tmp_path_factory.mktemp("known"))


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        *((name, "ours") for name in ("ovo", "streamingbench", "longvideobench", "videomme", "mvbench")),
        *((name, preset) for preset, by in OFFLINE.items() if preset != "ours" for name in by),
    ],
)
def test_every_benchmark_under_every_preset(
    known: dict[str, tuple[str, Path, int]], name: str, preset: str, tmp_path: Path
) -> None:
    locator, data, count = known[name]
    outcome = say(Job(locator.partition("?")[0], data, None, tmp_path, preset=preset, mode="offline", model="tiny"))
    assert (outcome.found, outcome.expected) == (count, count)
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["fps"] > 0


@pytest.mark.parametrize("name", ["ovo", "videomme", "mvbench"])
def test_the_same_data_as_streams(known: dict[str, tuple[str, Path, int]], name: str, tmp_path: Path) -> None:
    locator, data, count = known[name]
    policy = "streaming:vision=3,turns=3,sink=200,text=8"
    assert say(Job(locator, data, None, tmp_path, model="tiny", policy=policy)).found == count


def test_a_preset_that_is_not_known_of_a_benchmark_is_one_line(
    known: dict[str, tuple[str, Path, int]], tmp_path: Path
) -> None:
    _, data, _ = known["mvbench"]
    with pytest.raises(OptionError, match=r"no preset 'official' is known of mvbench; known: paper, ours"):
        say(Job("mvbench", data, None, tmp_path, preset="official", mode="offline", model="tiny"))
