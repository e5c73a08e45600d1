"""MVBench: tasks and stretches, where videos are looked for, the official rule, and what is wrong with the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import OptionError, SourceError
from streamingvlm.evaluate.benchmark import Count, Defect, QuestionBenchmark, Video
from streamingvlm.evaluate.questions.choices import WHOLE
from streamingvlm.evaluate.questions.items import Reply
from streamingvlm.evaluate.questions.mvbench import TASKS, MVBench
from support import media
from support.question_data import mvbench_entry, mvbench_tasks, write_json, write_mvbench


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> MVBench:
    return MVBench(write_mvbench(tmp_path_factory.mktemp("mvbench")))


def test_items_are_as_published(tiny: MVBench) -> None:
    benchmark: QuestionBenchmark = tiny
    assert isinstance(benchmark, QuestionBenchmark)
    assert [item.id for item in tiny.items] == [
        *(f"action_sequence-{number}" for number in range(2)),
        *(f"object_existence-{number}" for number in range(3)),
        *(f"action_count-{number}" for number in range(2)),
        *(f"episodic_reasoning-{number}" for number in range(2)),
    ]
    assert [item.answer for item in tiny.items] == ["A", "B", "A", "B", "C", "B", "B", "A", "B"]
    assert (tiny.items[1].start, tiny.items[1].time) == (1.5, 5.5)
    assert (tiny.items[2].start, tiny.items[2].time) == (0.0, WHOLE)
    assert tiny.items[0].video == "star/Charades_v1_480/clip_0.mp4"


def test_every_task_is_counted_and_no_missing_video_is_dropped(tiny: MVBench) -> None:
    assert len(tiny.counts) == len(TASKS) == 20
    assert sum(count.expected or 0 for count in tiny.counts) == 4000
    assert {count.part: count.found for count in tiny.counts if count.found} == {
        "action_sequence": 2,
        "object_existence": 3,
        "action_count": 2,
        "episodic_reasoning": 2,
    }
    assert Count("fine_grained_pose", 0, 200) in tiny.counts
    assert len(tiny.videos) == 9
    assert not any(video.path.exists() for video in tiny.videos)
    assert tiny.videos[0].seconds == 4.5


@pytest.mark.parametrize(
    ("answer", "candidates", "letter"),
    [
        ("a ball", ["a cube", "a ball"], "B"),
        ("A Ball", ["a ball", "a cube"], "A"),  # another case
        ("a ball", ["A ball", "a ball", "c"], "B"),  # the exact one first
        ("same", ["same", "same", "c"], "B"),  # of two the last, as published
        ("1", ["10", "1"], "B"),
    ],
)
def test_the_letter_is_that_of_the_candidate_with_the_answers_text(
    tmp_path: Path, answer: str, candidates: list[str], letter: str
) -> None:
    rows = {"action_count": [mvbench_entry(answer=answer, candidates=candidates)]}
    assert [item.answer for item in MVBench(write_mvbench(tmp_path, rows)).items] == [letter]


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B) A cube", "B"),
        ("(b)", "B"),
        ("B. A cube", "B"),
        ("B) A cube", "B"),
        ("(C", "C"),
        ("(A)nswer", "A"),
        ("  (B)\nbecause", "B"),
        ("a cube moves", "A"),  # the article counts as A, as published
        ("", None),  # right for every question, as published
        ("(", None),
        (".", None),
        ("   ", None),
        ("B: A cube", None),
        ("The answer is B", None),
        ("Best option: (B)", None),
        ("D", None),
        ("\n\n", None),
    ],
)
def test_the_official_rule(tiny: MVBench, reply: str, letter: str | None) -> None:
    item = tiny.items[3]
    assert item.answer == "B"
    assert tiny.parse(reply, item) == letter
    assert tiny.official(item, Reply(item.id, reply)) == (float(letter == "B"), letter is not None)


def test_an_empty_reply_is_never_right(tiny: MVBench) -> None:
    replies = {item.id: Reply(item.id, "") for item in tiny.items}
    for parser in ("official", "strict"):
        score = tiny.score(replies, parser)
        assert [part.correct for part in score.parts] == [0] * 4
        assert [part.unparsed for part in score.parts] == [part.items for part in score.parts]


def test_a_score_by_task(tiny: MVBench) -> None:
    score = tiny.score({item.id: Reply(item.id, "B") for item in tiny.items}, "official")
    assert {part.name: part.accuracy for part in score.parts} == {
        "action_sequence": 50.0,
        "object_existence": pytest.approx(100 / 3),
        "action_count": 100.0,
        "episodic_reasoning": 50.0,
    }
    assert [(one.name, round(one.value or 0, 2)) for one in score.averages] == [
        ("overall of a partial set", 55.56),
        ("mean of tasks of a partial set", 58.33),
    ]
    assert "an empty reply is wrong" in score.averages[0].rule
    assert score.expected == 4000


def test_a_complete_set_has_the_headline(tiny: MVBench, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {count.part: count.found for count in tiny.counts if count.found}
    monkeypatch.setattr(tiny, "expected", found)
    score = tiny.score({item.id: Reply(item.id, item.answer) for item in tiny.items}, "official")
    overall = score.averages[0]
    assert (overall.name, overall.value, overall.headline) == ("overall", 100.0, True)


@pytest.mark.parametrize(
    ("layout", "key", "stretch"),
    [
        ("star/Charades_v1_480", "star/Charades_v1_480/clip_0.mp4", (1.5, 4.5)),
        ("data0613/star/Charades_v1_480", "star/Charades_v1_480/clip_0.mp4", (1.5, 4.5)),
        ("star/Charades_segment", "star/Charades_segment/clip_0.mp4", (0.0, 4.0)),  # cut already: shown whole
    ],
)
def test_videos_are_found_in_every_published_layout(
    tmp_path: Path, layout: str, key: str, stretch: tuple[float, float]
) -> None:
    data = write_mvbench(tmp_path / "data", {"action_sequence": mvbench_tasks()["action_sequence"][:1]})
    folder = tmp_path / "videos" / layout
    folder.mkdir(parents=True)
    media.write_clip(folder / "clip_0.mp4", count=20 if "segment" in layout else 50, fps=5)
    benchmark = MVBench(data, tmp_path / "videos")
    (item,) = benchmark.items
    assert (item.video, item.start, item.time) == (key, *stretch)
    assert [video.path for video in benchmark.videos] == [folder / "clip_0.mp4"]


@pytest.mark.parametrize(
    ("start", "end", "shown", "what"),
    [
        (1.0, 3.5, (1.0, 3.5), ()),
        (1.0, 4.5, (1.0, 4.0), ()),  # how files round
        (1.0, 9.0, (1.0, 4.0), ("asked at 9 s of a video of 4.0 s: moved there",)),
        (5.0, 9.0, (0.0, 4.0), ("its stretch begins at 5 s of a video of 4.0 s: the whole video is shown",)),
    ],
)
def test_a_stretch_ends_with_its_video(
    tmp_path: Path, start: float, end: float, shown: tuple[float, float], what: tuple[str, ...]
) -> None:
    data = write_mvbench(tmp_path / "data", {"action_sequence": [mvbench_entry(start=start, end=end)]})
    folder = tmp_path / "star" / "Charades_v1_480"
    folder.mkdir(parents=True)
    media.write_clip(folder / "clip_0.mp4", count=20, fps=5)
    benchmark = MVBench(data, tmp_path)
    (item,) = benchmark.items
    assert (item.start, item.time) == shown
    assert benchmark.defects == [Defect("action_sequence-0", one) for one in what]


def test_videos_beside_the_data_are_found_without_being_named(tmp_path: Path) -> None:
    write_mvbench(tmp_path, {"object_existence": [mvbench_entry()]})
    clip = tmp_path / "video" / "clevrer" / "video_validation" / "clip_0.mp4"
    clip.parent.mkdir(parents=True)
    clip.touch()
    key = "clevrer/video_validation/clip_0.mp4"
    assert MVBench(tmp_path).videos == [Video(key, clip)]


def test_a_clip_of_episodic_reasoning_is_a_folder(tmp_path: Path) -> None:
    data = write_mvbench(tmp_path, {"episodic_reasoning": mvbench_tasks()["episodic_reasoning"][:1]})
    folder = tmp_path / "video" / "tvqa" / "frames_fps3_hq" / "show_0"
    folder.mkdir(parents=True)
    for number in (1, 2, 3, 4, 5, 6, 7, 10):
        (folder / f"{number:05d}.jpg").touch()
    (folder / "thumb.jpg").touch()
    (item,) = MVBench(data, tmp_path / "video").items
    (video,) = MVBench(data, tmp_path / "video").videos
    assert (video.path, item.start, item.time) == (folder, 1, 2.0)
    assert item.about == {"stills_fps": 3.0, "first_still": 1}


def test_repeated_questions_are_kept_and_told(tmp_path: Path) -> None:
    rows = {"action_count": [mvbench_entry(0), mvbench_entry(1), mvbench_entry(0)], "moving_count": [mvbench_entry(0)]}
    benchmark = MVBench(write_mvbench(tmp_path, rows))
    assert len(benchmark.items) == 4
    what = "the same question of the same video as action_count-0"
    assert benchmark.defects == [Defect("action_count-2", what)]
    replies = {item.id: Reply(item.id, item.answer) for item in benchmark.items}
    assert len(benchmark.score(replies, "strict").right) == 4
    assert set(benchmark.score(replies, "strict", without_defects=True).right) == set(replies) - {"action_count-2"}


@pytest.mark.parametrize(
    ("task", "change", "what"),
    [
        ("action_count", {"answer": "five"}, "'five' is none of the candidates"),
        ("action_count", {"candidates": ["a ball"]}, "1 options"),
        ("action_count", {"candidates": None}, "'candidates'"),
        ("action_count", {"video": ""}, "'video'"),
        ("action_count", {"video": "/abs.mp4"}, "outside"),
        ("action_sequence", {"start": 1.0}, "'end'"),
        ("action_sequence", {"start": 3.0, "end": 3.0}, "not behind its start"),
        ("action_sequence", {"start": "1", "end": 3.0}, "'start'"),
    ],
)
def test_a_row_that_cannot_be_used_is_a_defect(tmp_path: Path, task: str, change: dict[str, Any], what: str) -> None:
    rows = {"moving_count": [mvbench_entry()], task: [3, mvbench_entry(**change)]}
    benchmark = MVBench(write_mvbench(tmp_path, rows))
    assert [item.id for item in benchmark.items] == ["moving_count-0"]
    assert benchmark.defects[-1].item == f"{task}-1"
    assert what in benchmark.defects[-1].what
    assert len(benchmark.defects) == 2


def test_the_result_of_the_notebook_is_a_contestant(tiny: MVBench, tmp_path: Path) -> None:
    rows = [{"pred": "(B)", "gt": f"({item.answer}) {item.options['ABC'.index(item.answer)]}"} for item in tiny.items]
    replies = tiny.replies(write_json(tmp_path / "test.json", {"acc_dict": {}, "res_list": rows}))
    assert [reply.text for reply in replies.values()] == ["(B)"] * 9
    rows[4], rows[5] = rows[5], rows[4]
    with pytest.raises(SourceError, match=r"reply 5: its answer is .* not that of object_existence-2"):
        tiny.replies(write_json(tmp_path / "test.json", {"res_list": rows}))


@pytest.mark.parametrize(
    ("value", "error"),
    [([], "no result of MVBench"), ({"res_list": []}, "'res_list' of 9"), ({"res_list": [3] * 9}, "reply 1: it has")],
)
def test_another_json_file_is_refused(tiny: MVBench, tmp_path: Path, value: Any, error: str) -> None:
    with pytest.raises(SourceError, match=error):
        tiny.replies(write_json(tmp_path / "test.json", value))


def test_one_task_may_be_named(tmp_path: Path) -> None:
    write_mvbench(tmp_path)
    assert len(MVBench(tmp_path / "json" / "action_count.json").items) == 2
    with pytest.raises(SourceError, match="no task of MVBench"):
        MVBench(write_json(tmp_path / "other.json", []))
    with pytest.raises(SourceError, match="holds no task of MVBench"):
        MVBench(tmp_path / "json" / "nowhere")
    with pytest.raises(OptionError, match="mvbench has no option"):
        MVBench(tmp_path, split="val")
