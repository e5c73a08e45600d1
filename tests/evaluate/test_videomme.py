"""Video-MME: both published forms, subtitles, the official rule and its denominators, result files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import OptionError, SourceError
from streamingvlm.evaluate.benchmark import Count, QuestionBenchmark
from streamingvlm.evaluate.questions import videomme
from streamingvlm.evaluate.questions.choices import WHOLE
from streamingvlm.evaluate.questions.items import Reply
from streamingvlm.evaluate.questions.videomme import VideoMME
from support import media
from support.question_data import videomme_result, videomme_rows, write_json, write_parquet, write_videomme


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> VideoMME:
    return VideoMME(write_videomme(tmp_path_factory.mktemp("videomme")))


def test_items_are_as_published(tiny: VideoMME) -> None:
    benchmark: QuestionBenchmark = tiny
    assert isinstance(benchmark, QuestionBenchmark)
    assert len(tiny.items) == 9
    first = tiny.items[0]
    assert (first.id, first.video, first.task, first.time) == ("001-1", "id-0.mp4", "short", WHOLE)
    assert (first.options, first.answer) == (("red", "green", "blue", "none of them"), "A")
    assert "A. red\nB. green" in first.prompt
    assert tiny.counts == [Count(duration, 3, 900) for duration in ("short", "medium", "long")]
    assert [video.path.name for video in tiny.videos] == ["id-0.mp4", "id-1.mp4", "id-2.mp4"]


def test_the_template_of_the_result_file_holds_the_same_questions(tiny: VideoMME, tmp_path: Path) -> None:
    other = VideoMME(write_json(tmp_path / "template.json", videomme_result()))
    assert [(item.id, item.prompt, item.answer) for item in other.items] == [
        (item.id, item.prompt, item.answer) for item in tiny.items
    ]
    assert other.items[0].video == "001.mp4"  # the template does not name the files


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        (["A. red", "B. green"], ("red", "green")),
        (["(A) red", "B: green"], ("red", "green")),
        (["red", "green"], ("red", "green")),
        (["A. Lincoln", "G. Washington"], ("A. Lincoln", "G. Washington")),  # no letters of options
    ],
)
def test_letters_are_taken_from_options(tmp_path: Path, options: list[str], plain: tuple[str, ...]) -> None:
    row = {**videomme_rows(1)[0], "options": options}
    (item,) = VideoMME(write_parquet(tmp_path / "test.parquet", [row])).items
    assert item.options == plain


def test_subtitles_stand_before_the_question(tmp_path: Path) -> None:
    benchmark = VideoMME(write_videomme(tmp_path), subtitles="yes")
    lines = "Subtitles of the video:\n[1.0 s] Hello there\n[5.0 s] second line\nWhat is 0?"
    assert benchmark.items[0].prompt.startswith(lines)
    assert benchmark.items[3].prompt.startswith("What is 0?")  # most videos have none
    assert benchmark.counts[-1] == Count("videos with subtitles", 1, 744)
    (tmp_path / "subtitle" / "id-0.srt").unlink()
    with pytest.raises(SourceError, match=r"subtitles=yes: there is no subtitle/ID\.srt"):
        VideoMME(tmp_path, subtitles="yes")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("A", "A"),
        ("(B) green", "B"),
        ("The best answer is C.", "C"),
        ("The correct option is D", "D"),
        ("Option: B", "B"),
        ("Answer: C", "C"),
        ("Best option: A", "B"),  # as published: two missing commas keep this phrase, and "Best" begins with B
        ("Best answer: C", "B"),
        ("Colour is not told", "C"),
        ("E", None),
        ("the second one", None),
        ("", None),
        ("  \n", None),
    ],
)
def test_the_official_rule(tiny: VideoMME, reply: str, letter: str | None) -> None:
    assert tiny.parse(reply, tiny.items[0]) == letter
    expected = (None, False) if letter is None else (float(letter == "A"), True)
    assert tiny.official(tiny.items[0], Reply("001-1", reply)) == expected


def scored(benchmark: VideoMME, parser: str, **replies: str | None) -> Any:
    return benchmark.score({name: Reply(name, text) for name, text in replies.items()}, parser)


def test_replies_without_a_letter_leave_the_denominator(tiny: VideoMME) -> None:
    texts = {item.id: item.answer for item in tiny.items} | {"001-1": "sorry", "001-2": "D", "003-3": None}
    score = scored(tiny, "official", **texts)
    found = {one.name: one.value for one in score.averages}
    assert found == {
        "overall of a partial set": pytest.approx(100 * 6 / 7),
        "short of a partial set": 50.0,
        "medium of a partial set": 100.0,
        "long of a partial set": 100.0,
        "overall, every reply counts of a partial set": pytest.approx(100 * 6 / 9),
    }
    short = score.parts[0]
    assert (short.name, short.items, short.left_out, short.unparsed, short.correct) == ("short", 2, 1, 1, 1)
    assert "001-1" not in score.right
    strict = scored(tiny, "strict", **texts)
    assert strict.averages[0].value == pytest.approx(100 * 6 / 9)
    assert len(strict.averages) == 4


def test_parts_by_duration_task_type_and_domain(tiny: VideoMME) -> None:
    score = scored(tiny, "official", **{item.id: "A" for item in tiny.items})
    assert [(part.group, part.name, part.items) for part in score.parts] == [
        ("duration", "short", 3),
        ("duration", "medium", 3),
        ("duration", "long", 3),
        ("task type", "Counting Problem", 6),
        ("task type", "OCR Problems", 3),
        ("domain", "Knowledge", 6),
        ("domain", "Life Record", 3),
        ("sub-category", "Law", 9),
    ]


@pytest.mark.parametrize(("videos", "headline"), [(6, True), (5, False), (7, False)])
def test_the_headline_needs_all_videos_of_each_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: int, headline: bool
) -> None:
    monkeypatch.setattr(videomme, "VIDEOS", 2)
    monkeypatch.setattr(VideoMME, "expected", dict.fromkeys(videomme.DURATIONS, 6))
    benchmark = VideoMME(write_json(tmp_path / "a.json", videomme_result(videos)))
    score = scored(benchmark, "official", **{item.id: "A" for item in benchmark.items})
    assert [one.name for one in score.averages if one.headline] == (["overall"] if headline else [])
    assert score.complete is headline


def test_questions_of_one_video_under_many_names_make_no_headline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VideoMME, "expected", dict.fromkeys(videomme.DURATIONS, 3))
    benchmark = VideoMME(write_json(tmp_path / "a.json", videomme_result()))
    score = scored(benchmark, "official", **{item.id: "A" for item in benchmark.items})
    assert score.complete
    assert not any(one.headline for one in score.averages)  # one video of each duration, not 300


def test_a_result_file_is_a_contestant(tiny: VideoMME, tmp_path: Path) -> None:
    result = videomme_result(response="A")
    result[0]["questions"][0].pop("response")
    result[0]["questions"][1]["response"] = None
    result[0]["questions"][2]["answer"] = "D"
    replies = tiny.replies(write_json(tmp_path / "result.json", result))
    assert len(replies) == 8
    assert replies["001-2"] == Reply("001-2", None)
    assert tiny.score(replies, "strict").notes == (
        "1 questions have another answer in the result file; the data's is taken",
    )


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({}, "no result of Video-MME"),
        (["text"], "question 1: it has no question_id"),
        ([{"questions": 3}], "question 1: it has no question_id"),
        ([{"questions": [{"question_id": "001-1", "response": ["A"]}]}], "a text or null, not list"),
        ([{"questions": [{"question_id": "001-1", "response": "A"}] * 2}], "has a reply already"),
    ],
)
def test_another_json_file_is_refused(tiny: VideoMME, tmp_path: Path, value: Any, error: str) -> None:
    with pytest.raises(SourceError, match=error):
        tiny.replies(write_json(tmp_path / "result.json", value))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"answer": "E"}, "none of the 4 options"),
        ({"answer": ""}, "'answer'"),
        ({"answer": "AB"}, "none of the 4 options"),
        ({"duration": "huge"}, "'duration' 'huge'"),
        ({"options": []}, "'options'"),
        ({"options": {"A": "red"}}, "'options'"),
        ({"question": 3}, "'question'"),
    ],
)
def test_a_row_that_cannot_be_used_is_a_defect(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    result = videomme_result(1)
    result[0]["questions"][1] |= change
    benchmark = VideoMME(write_json(tmp_path / "a.json", result))
    assert [item.id for item in benchmark.items] == ["001-1", "001-3"]
    (defect,) = benchmark.defects
    assert (defect.item, what in defect.what) == ("001-2", True)


@pytest.mark.parametrize("row", [3, None, "text", {"video_id": "009", "questions": 3}, {"questions": [None, 3]}])
def test_rows_of_any_kind_are_defects(tmp_path: Path, row: Any) -> None:
    benchmark = VideoMME(write_json(tmp_path / "a.json", [*videomme_result(1), row]))
    assert len(benchmark.items) == 3
    assert benchmark.defects


def test_a_folder_with_several_json_files_is_refused(tmp_path: Path) -> None:
    for name in ("one.json", "two.json"):
        write_json(tmp_path / name, videomme_result())
    with pytest.raises(SourceError, match=r"several files .* one\.json"):
        VideoMME(tmp_path)


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="videomme"):
        VideoMME(write_videomme(tmp_path), frames="8")


def test_an_item_ends_with_its_video(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    media.write_clip(tmp_path / "data" / "id-1.mp4", count=10, fps=5)
    benchmark = VideoMME(write_videomme(tmp_path), tmp_path)
    assert [item.time for item in benchmark.items[::3]] == [WHOLE, 2.0, WHOLE]
    assert benchmark.videos[1].path == tmp_path / "data" / "id-1.mp4"
    assert not benchmark.defects
