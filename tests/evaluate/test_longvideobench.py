"""LongVideoBench: both published forms, subtitles in both shapes, the official rule, and data that is broken."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import OptionError, SourceError
from streamingvlm.evaluate.benchmark import Count, Defect, QuestionBenchmark, Video
from streamingvlm.evaluate.questions.items import Reply
from streamingvlm.evaluate.questions.longvideobench import LongVideoBench
from streamingvlm.evaluate.questions.metrics import intervals_by_video
from support import media
from support.question_data import longvideobench_entry, write_json, write_longvideobench


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LongVideoBench:
    return LongVideoBench(write_longvideobench(tmp_path_factory.mktemp("lvb")))


def replied(benchmark: LongVideoBench, *texts: str | None) -> dict[str, Reply]:
    return {item.id: Reply(item.id, text) for item, text in zip(benchmark.items, texts, strict=False)}


def test_items_are_as_published(tiny: LongVideoBench) -> None:
    benchmark: QuestionBenchmark = tiny
    assert isinstance(benchmark, QuestionBenchmark)
    assert [item.answer for item in tiny.items] == ["B", "E", "A", "C"]  # counted from zero in the data
    assert [item.time for item in tiny.items] == [8.5, 9.5, 10.5, 11.5]
    first = tiny.items[0]
    assert (first.id, first.video, first.task, first.start) == ("vid0_0", "vid0.mp4", "S2E", 0.0)
    assert first.options == ("choice a", "choice b", "choice c", "choice d")
    assert first.prompt.splitlines()[:3] == ["What comes after 0?", "A. choice a", "B. choice b"]
    assert tiny.counts == [Count("val", 4, 1337), Count("15 s", 2), Count("60 s", 1), Count("600 s", 1)]
    assert not tiny.defects


def test_the_parquet_form_is_the_same(tiny: LongVideoBench, tmp_path: Path) -> None:
    other = LongVideoBench(write_longvideobench(tmp_path, parquet=True))
    assert other.items == tiny.items
    assert other.revision != tiny.revision


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_longvideobench(tmp_path, parquet=True)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SourceError, match=r'pip install "streamingvlm\[parquet\]"'):
        LongVideoBench(tmp_path)


@pytest.mark.parametrize("number", [0, 1], ids=["timestamps", "clock"])
def test_subtitles_stand_before_the_question(tmp_path: Path, number: int) -> None:
    item = LongVideoBench(write_longvideobench(tmp_path), subtitles="yes").items[number]
    # The second line is 0.2 s wide, so it counts from 3.8 to 4.8 s; the third comes behind the video's end.
    assert item.prompt.splitlines()[:4] == [
        "Subtitles of the video:",
        "[1.0 s] first",
        "[4.3 s] short",
        f"What comes after {number}?",
    ]


def test_an_end_that_is_no_float_is_the_duration(tmp_path: Path) -> None:
    write_longvideobench(tmp_path, [longvideobench_entry(0, starting_timestamp_for_subtitles=0)])
    lines: list[Any] = [{"timestamp": [3.0, None], "text": "open"}, {"text": "no time"}, 7, {"start": "x", "end": "y"}]
    write_json(tmp_path / "subtitles" / "vid0_en.json", lines)
    (item,) = LongVideoBench(tmp_path, subtitles="yes").items
    assert item.prompt.startswith("Subtitles of the video:\n[5.8 s] open\nWhat")


def test_missing_subtitles_are_an_error_only_if_wanted(tmp_path: Path) -> None:
    write_longvideobench(tmp_path)
    (tmp_path / "subtitles" / "vid2_en.json").unlink()
    assert len(LongVideoBench(tmp_path).items) == 4
    with pytest.raises(SourceError, match=r"subtitles=yes: .*vid2_en\.json.*question vid2_0"):
        LongVideoBench(tmp_path, subtitles="yes")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("(C) choice c", "C"),
        ("The answer is D.", "D"),
        ("The best answer is E", "E"),
        ("Best option: A", "A"),
        ("Based on the video, D", "B"),  # the first capital, wherever it stands
        ("I would say c", None),
        ("The answer", None),
        ("", None),
        ("F", None),
        ("Answer: C", "A"),  # this phrase is none of the list
        ("the video shows a man who walks through a door and then sits", None),
    ],
)
def test_the_official_rule(tiny: LongVideoBench, reply: str, letter: str | None) -> None:
    assert tiny.parse(reply, tiny.items[0]) == letter
    mark = tiny.official(tiny.items[0], Reply("vid0_0", reply))
    assert mark == (float(letter == "B"), letter is not None)


def test_a_likelihood_stands_for_a_missing_text(tiny: LongVideoBench) -> None:
    likely = Reply("vid0_0", None, probabilities={"A": 0.2, "B": 0.7, "C": 0.1})
    assert tiny.official(tiny.items[0], likely) == (1.0, True)
    assert tiny.official(tiny.items[0], Reply("vid0_0", None)) == (0.0, False)


def test_a_score_has_categories_and_duration_groups(tiny: LongVideoBench) -> None:
    score = tiny.score(replied(tiny, "B", "no idea", "the video", "B or C"), "official")
    found = {(part.group, part.name): (part.correct, part.items, part.unparsed) for part in score.parts}
    assert found == {
        ("question category", "S2E"): (1, 2, 1),
        ("question category", "T3O"): (0, 1, 1),
        ("question category", "TOS"): (0, 1, 0),
        ("duration group", "15 s"): (1, 2, 0),
        ("duration group", "60 s"): (0, 1, 1),
        ("duration group", "600 s"): (0, 1, 1),
    }
    (overall,) = score.averages
    assert (overall.name, overall.value, overall.headline) == ("overall of a partial set", 25.0, False)
    assert "a reply without a letter is wrong" in overall.rule
    assert (score.found, score.expected, score.complete, score.unknown) == (4, 1337, False, 0)


def test_a_complete_set_has_the_headline(tiny: LongVideoBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "expected", 4)
    replies = replied(tiny, "B", "E", "A", "D")
    score = tiny.score(replies, "strict")
    assert [(one.name, one.value, one.headline) for one in score.averages] == [("overall", 75.0, True)]
    assert score.averages[0].rule == "pooled: right answers over all items"
    assert score.complete
    bounds = intervals_by_video(tiny.items, score, tiny.averages)
    assert bounds["overall"].value == 75.0
    assert set(bounds) == {"overall", "S2E", "T3O", "TOS"}
    (groups,) = tiny.views()
    assert intervals_by_video(groups, score, ())["15 s"].value == 50.0


def test_the_test_split_is_asked_and_not_scored(tmp_path: Path) -> None:
    rows = [longvideobench_entry(number) for number in range(2)]
    rows[0].pop("correct_choice")
    rows[1]["correct_choice"] = -1
    write_json(tmp_path / "lvb_test_wo_gt.json", rows)
    hidden = LongVideoBench(tmp_path, split="test")
    assert [item.answer for item in hidden.items] == ["", ""]
    assert hidden.counts[0] == Count("test", 2, 5341)
    score = hidden.score(replied(hidden, "A", "B"), "official")
    assert (list(score.parts), score.right, score.complete, score.unknown) == ([], {}, False, 0)
    assert [one.value for one in score.averages] == [None]
    assert score.notes == ("2 questions have no public answer and are not scored",)


def test_a_submission_is_read_like_lines(tiny: LongVideoBench, tmp_path: Path) -> None:
    submission = tiny.replies(write_json(tmp_path / "sub.json", {"vid0_0": "B", "vid1_0": None}))
    (tmp_path / "run.jsonl").write_text('{"id": "vid0_0", "reply": "B"}\n{"id": "vid1_0", "reply": null}\n')
    assert submission == tiny.replies(tmp_path / "run.jsonl")
    assert submission["vid0_0"] == Reply("vid0_0", "B")


@pytest.mark.parametrize("value", [[], ["B"], {"vid0_0": 1}, {"vid0_0": ["B"]}, "B", 3, None])
def test_another_json_file_is_refused(tiny: LongVideoBench, tmp_path: Path, value: Any) -> None:
    with pytest.raises(SourceError, match="no submission to LongVideoBench"):
        tiny.replies(write_json(tmp_path / "sub.json", value))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"candidates": "abc"}, "'candidates'"),
        ({"candidates": ["one"]}, "1 options"),
        ({"candidates": [f"{number}" for number in range(11)]}, "11 options"),
        ({"correct_choice": 4}, "none of the 4 options"),
        ({"correct_choice": "B"}, "none of the 4 options"),
        ({"correct_choice": True}, "none of the 4 options"),
        ({"duration": 0}, "'duration' is 0"),
        ({"duration": None}, "'duration'"),
        ({"duration": math.nan}, "'duration'"),
        ({"question": ""}, "'question'"),
        ({"video_path": None}, "'video_path'"),
        ({"video_path": "../other.mp4"}, "outside"),
        ({"id": "vid1_0"}, "second time"),
    ],
)
def test_a_row_that_cannot_be_used_is_a_defect(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    broken = longvideobench_entry(0, **change)
    benchmark = LongVideoBench(write_longvideobench(tmp_path, [longvideobench_entry(1), broken]))
    assert [item.id for item in benchmark.items] == ["vid1_0"]
    (defect,) = benchmark.defects
    assert defect.item == broken["id"]
    assert what in defect.what


def test_an_option_that_is_missing_in_the_middle_moves_no_letter(tmp_path: Path) -> None:
    rows = [longvideobench_entry(0), longvideobench_entry(1, candidates=["a", "N/A", "c"], correct_choice=2)]
    benchmark = LongVideoBench(write_longvideobench(tmp_path, rows, parquet=True))
    assert [item.id for item in benchmark.items] == ["vid0_0"]
    assert [defect.item for defect in benchmark.defects] == ["vid1_0"]


@pytest.mark.parametrize("row", [None, 3, "text", [], {}])
def test_rows_of_any_kind_are_defects(tmp_path: Path, row: Any) -> None:
    benchmark = LongVideoBench(write_longvideobench(tmp_path, [row, longvideobench_entry(0)]))
    assert [defect.item for defect in benchmark.defects] == ["row 1"]
    assert len(benchmark.items) == 1


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("lvb_val.json", b"[", "not JSON"),
        ("lvb_val.json", b"{}", "list of entries"),
        ("lvb_val.json", b"[]", "no question of longvideobench"),
        ("lvb_val.json", b"[1]", "no question of longvideobench: row 1"),
        ("lvb_val.json", b"\xff\xfe", "UTF-8"),
        ("validation-0.parquet", b"PAR", "not a Parquet file"),
        ("other.json", b"[]", "no data of LongVideoBench"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, error: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=error) as caught:
        LongVideoBench(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"split": "train"}, {"subtitle": "yes"}, {"subtitles": "on"}])
def test_unknown_options_are_refused(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="longvideobench"):
        LongVideoBench(write_longvideobench(tmp_path), **options)


def test_missing_data_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"does not exist.*lvb_val\.json"):
        LongVideoBench(tmp_path / "none")


def test_an_item_ends_with_its_video(tmp_path: Path) -> None:
    write_longvideobench(tmp_path, [longvideobench_entry(0, duration=duration) for duration in (4.0,)])
    videos = tmp_path / "videos"
    videos.mkdir()
    media.write_clip(videos / "vid0.mp4", count=10, fps=5)
    benchmark = LongVideoBench(tmp_path, videos)
    assert benchmark.items[0].time == 2.0
    assert benchmark.videos == [Video("vid0.mp4", videos / "vid0.mp4", 4.0)]
    assert benchmark.defects == [Defect("vid0_0", "asked at 4 s of a video of 2.0 s: moved there")]
    assert benchmark.score(replied(benchmark, "B"), "strict", without_defects=True).right == {}
