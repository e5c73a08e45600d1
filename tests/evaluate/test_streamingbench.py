"""StreamingBench from files in their published form to its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import OptionError, SourceError
from streamingvlm.evaluate.benchmark import QuestionBenchmark
from streamingvlm.evaluate.questions import baselines, metrics, streamingbench
from streamingvlm.evaluate.questions.items import Form, Item, Part, Reply
from streamingvlm.evaluate.questions.reading import Malformed
from streamingvlm.evaluate.questions.streamingbench import StreamingBench, read_options, read_stamp
from support.question_data import (
    streaming_entry,
    streaming_files,
    streaming_output,
    streaming_question,
    write_json,
    write_streamingbench,
    write_videos,
)

REAL = "Object Recognition"


@pytest.fixture
def bench(tmp_path: Path) -> StreamingBench:
    return StreamingBench(write_streamingbench(tmp_path))


def item(bench: StreamingBench, id: str) -> Item:
    return next(one for one in bench.items if one.id == id)


def real(tmp_path: Path, *questions: Any, window: str = "[0:00:00 - 0:01:00]") -> StreamingBench:
    """A benchmark of one entry with these questions."""
    entry = streaming_entry("a_real.mp4", *questions, window=window)
    return StreamingBench(write_streamingbench(tmp_path, {"questions_real": [entry]}))


def test_the_items_of_all_subsets(bench: StreamingBench) -> None:
    assert isinstance(bench, QuestionBenchmark)
    real, omni, sqa = ["real_0_0", "real_0_1"], ["omni_0_0", "omni_1_0"], ["sqa_0_0", "sqa_0_1", "sqa_0_2"]
    assert [one.id for one in bench.items] == [*real, *omni, *sqa, "proactive_0_0"]
    assert [one.group for one in bench.items] == [
        *["real-time"] * 2,
        "omni-source",
        *["contextual"] * 5,
    ]
    assert sum(count.expected or 0 for count in bench.counts) == 4500
    assert bench.defects == []
    first = bench.items[0]
    assert (first.video, first.time, first.start, first.answer) == ("a_real.mp4", 130.0, 0.0, "B")
    assert first.options == ("Red.", "Green.", "Blue.", "None.")
    assert first.prompt.splitlines()[:3] == [f"{REAL}?", "A. Red.", "B. Green."]
    assert {video.key: video.seconds for video in bench.videos} == {
        "a_real.mp4": 130.0,
        "b_omni.mp4": 55.0,
        "s_sqa.mp4": 100.0,
        "p_proactive.mp4": 29.0,
    }


def test_earlier_questions_stand_in_the_prompt_with_their_true_answers(bench: StreamingBench) -> None:
    assert item(bench, "sqa_0_0").after == ()
    third = item(bench, "sqa_0_2")
    assert third.after == ("sqa_0_0", "sqa_0_1")
    lines = third.prompt.splitlines()
    assert lines[1] == "[0:00:36] Who serves 0? (A. Wang.; B. Fan.; C. Xu.; D. Ma.) Answer: A"
    assert lines[2] == "[0:01:02] Who serves 1? (A. Wang.; B. Fan.; C. Xu.; D. Ma.) Answer: C"
    assert lines[4:6] == ["Who serves 2?", "A. Wang."]
    assert "Answer" not in item(bench, "real_0_1").prompt


def test_a_proactive_item_is_polled_until_four_seconds_behind_its_truth(bench: StreamingBench) -> None:
    one = item(bench, "proactive_0_0")
    assert (one.form, one.time, one.start, one.truth_time, one.until) == (Form.PROACTIVE, 20.0, 20.0, 29.0, 33.0)
    assert one.answer == "3 points"
    assert 'Is this the moment to output "3 points"?' in one.prompt
    assert one.about["first_poll"] == 21.0
    assert "Output it now" in one.about["then"]
    assert baselines.at_once(bench.items) == {one.id: Reply(one.id, "3 points", 21.0)}


def test_the_context_of_the_paper(tmp_path: Path) -> None:
    bench = StreamingBench(write_streamingbench(tmp_path), None, context="60")
    assert [one.start for one in bench.items] == [70.0, 0.0, 0.0, 0.0, 0.0, 2.0, 40.0, 20.0]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"context": "0"}, "context=0 has to be whole seconds, or -1"),
        ({"context": "60s"}, "context=60s has to be whole seconds"),
        ({"layout": "x"}, "layout=x is none of: entries, stream"),
        ({"subset": "x"}, "subset=x is none of: all, real, omni, sqa, proactive"),
        ({"fps": "1"}, "has no option 'fps'"),
    ],
)
def test_options_that_cannot_be_meant(tmp_path: Path, options: dict[str, str], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        StreamingBench(write_streamingbench(tmp_path), None, **options)


def test_which_files_are_read(tmp_path: Path) -> None:
    files = streaming_files()
    grouped = {
        "questions": [streaming_question(REAL, "00:24", time="[0:00:00 - 0:00:30]")],
        "video_path": "./videos/z.mp4",
    }
    write_streamingbench(tmp_path, files | {"questions_real_stream": [grouped], "questions_proactive_50": []})
    assert len(StreamingBench(tmp_path, None, subset="sqa").items) == 3
    assert len(StreamingBench(tmp_path / "questions_omni.json").items) == 2
    stream = StreamingBench(tmp_path, None, layout="stream")
    assert [one.id for one in stream.items] == ["real_0_0", "proactive_0_0"]
    assert stream.items[0].time == 24.0, "the window is the question's own"
    assert {count.part: count.expected for count in StreamingBench(tmp_path, None, proactive="50").counts}[
        "Proactive Output"
    ] == 51
    with pytest.raises(SourceError, match=r"has no questions_sqa_stream\.json"):
        StreamingBench(tmp_path, None, layout="stream", subset="sqa")


@pytest.mark.parametrize(
    ("stamp", "window", "seconds", "mended"),
    [
        ("00:03:10", None, 190, False),
        ("0:03:10", "[9:00:00 - 9:01:00]", 190, False),  # the window is no limit
        ("01:00:00", "[0:59:30 - 0:59:40]", 3600, False),
        ("00:12450", "[0:12:00 - 0:13:00]", 765, True),
        ("00:24", "[0:00:00 - 0:00:30]", 24, True),
        ("00:00:8", "0:00:00 - 0:00:10", 8, True),
        ("05:11:00", "[0:05:00-0:06:10】", 311, True),
        ("05:11:00", None, 18660, False),
        ("00:24", None, None, False),
        ("00:24", "[0:01:00 - 0:02:00]", None, False),
        ("soon", "[0:00:00 - 0:00:30]", None, False),
        ("1:2:3:4", "[0:00:00 - 0:00:30]", None, False),
        ("0:00:²", "[0:00:00 - 0:00:30]", None, False),
        ("9" * 5000, "[0:00:00 - 0:00:30]", None, False),
        ("-0:00:10", "[0:00:00 - 0:00:30]", None, False),
    ],
)
def test_time_stamps(stamp: str, window: str | None, seconds: float | None, mended: bool) -> None:
    if seconds is None:
        with pytest.raises(Malformed, match="cannot be read"):
            read_stamp(stamp, window)
        return
    found, what = read_stamp(stamp, window)
    assert (found, bool(what)) == (seconds, mended)


def test_a_mended_stamp_is_told(tmp_path: Path) -> None:
    bench = real(tmp_path, streaming_question(REAL, "00:12450"), window="[0:12:00 - 0:13:00]")
    (defect,) = bench.defects
    assert (bench.items[0].time, defect.item) == (765.0, "real_0_0")
    assert defect.what == "time stamp '00:12450' is read as 0:12:45, which lies in its window (0:12:00 - 0:13:00)"


@pytest.mark.parametrize(
    ("published", "options", "what"),
    [
        (["A. x", "B. y", "C. z", "D. w"], ["x", "y", "z", "w"], None),
        (["x.", "y.", "z.", "w."], ["x.", "y.", "z.", "w."], None),
        (["A.Lebrun.", "Fan Z.D.", "Xu.", "Ma."], ["A.Lebrun.", "Fan Z.D.", "Xu.", "Ma."], None),
        (["A. x", "and so", "B. y", "C. z", "D. w"], ["x, and so", "y", "z", "w"], "has 5 options: 1 joined"),
        (["A. x", "", "B. y", "C. z", "", "D. w"], ["x", "y", "z", "w"], "has 6 options: 2 joined"),
        (
            ["A. x", "B. y", "C. z", "D. w", "E. .", "F. v"],
            ["x", "y", "z", "w"],
            "0 joined to the one before, 2 left out",
        ),
        (["A. x", "B. y", "C. z", "D. w", "D. v"], ["x", "y", "z", "w"], "1 left out"),
        (["A. x", "C. z", "B. y", "D. w"], ["x", "y", "z", "w"], "are A, C, B, D: sorted by them"),
        (["A. x", "B. y", "B. z", "D. w"], ["x", "y", "z", "w"], "are A, B, B, D: taken in the order"),
    ],
)
def test_options(published: list[str], options: list[str], what: str | None) -> None:
    found, told = read_options(published)
    assert list(found) == options
    assert told == [] if what is None else what in told[0]


@pytest.mark.parametrize(
    ("question", "complaint"),
    [
        ({}, "'task_type' has to be a text"),
        (7, "'task_type' has to be a text"),
        (streaming_question("Flying", "00:00:10"), "'Flying' is no task of this file"),
        (streaming_question("Proactive Output", "00:00:10"), "'Proactive Output' is no task of this file"),
        (streaming_question(REAL, "00:00:10", "E"), "the answer 'E' is the letter of none of 4 options"),
        (streaming_question(REAL, "00:00:10", ""), "'answer' has to be a text, not empty"),
        (streaming_question(REAL, "00:00:10", options=["A. x"]), "it has 1 option"),
        (streaming_question(REAL, "00:00:10", options="A"), "'options' is not the list"),
        (streaming_question(REAL, "soon"), "the time stamp 'soon' cannot be read"),
        (streaming_question(REAL, "00:00:10", time_stamp=10), "'time_stamp' has to be a text, not a number"),
    ],
)
def test_a_question_that_cannot_be_used_is_a_defect(tmp_path: Path, question: Any, complaint: str) -> None:
    bench = real(tmp_path, streaming_question(REAL, "00:00:10"), question, streaming_question(REAL, "00:00:12"))
    assert [one.id for one in bench.items] == ["real_0_0", "real_0_2"], "the place of the others stays"
    (defect,) = bench.defects
    assert defect.item == "real_0_1"
    assert complaint in defect.what


def test_a_proactive_item_whose_truth_is_before_it(tmp_path: Path) -> None:
    files = streaming_files()
    files["questions_proactive"][0]["questions"][0]["ground_truth_time_stamp"] = "00:00:10"
    bench = StreamingBench(write_streamingbench(tmp_path, files))
    assert "before it is asked for" in bench.defects[0].what


@pytest.mark.parametrize(
    ("told", "complaint"),
    [({}, "has to hold a list"), ([7], "entry 0 has no list of questions"), ([], "holds no question"), ("x", "a list")],
)
def test_a_file_that_is_none(tmp_path: Path, told: Any, complaint: str) -> None:
    with pytest.raises(SourceError, match=complaint):
        StreamingBench(write_streamingbench(tmp_path, {"questions_real": told}))


def test_a_folder_or_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no question file"):
        StreamingBench(tmp_path)
    write_json(tmp_path / "data.json", [])
    with pytest.raises(SourceError, match=r"data\.json does not say what it holds"):
        StreamingBench(tmp_path / "data.json")


def test_videos_after_the_preparation_of_the_benchmark_and_their_ends(tmp_path: Path) -> None:
    entry = streaming_entry("", streaming_question(REAL, "00:00:03"), streaming_question(REAL, "00:00:10"))
    entry["video_path"] = "/home/someone/StreamingBench/src/data/videos/a_real.mp4"
    write_streamingbench(tmp_path, {"questions_real": [entry]})
    write_videos(tmp_path / "videos", {"a_real.mp4": 4.0})
    bench = StreamingBench(tmp_path, tmp_path / "videos")
    assert [one.time for one in bench.items] == [3.0, pytest.approx(4.0, abs=0.05)]
    assert bench.videos[0].path == tmp_path / "videos" / "a_real.mp4"
    assert bench.defects[0].item == "real_0_1"
    assert "behind the end of its video" in bench.defects[0].what
    score = bench.score({one.id: Reply(one.id, "B") for one in bench.items}, "strict", without_defects=True)
    assert set(score.right) == {"real_0_0"}


CHOICE = Item("1", "v", "T", "G", 1.0, "?", "B", "?", Form.CHOICE, tuple("wxyz"))
OUTPUT = Item("1", "v", "T", "G", 1.0, "?", "3 points", "?", Form.PROACTIVE, truth_time=29.0)


@pytest.mark.parametrize(
    ("asked", "reply", "mark"),
    [
        (CHOICE, Reply("1", "B"), (1, True)),
        (CHOICE, Reply("1", "B. x"), (1, True)),
        (CHOICE, Reply("1", "Both"), (1, True)),  # the first character, whatever word it begins
        (CHOICE, Reply("1", " B"), (0, False)),
        (CHOICE, Reply("1", "(B)"), (0, False)),
        (CHOICE, Reply("1", "The answer is B"), (0, False)),
        (CHOICE, Reply("1", "C"), (0, True)),
        (CHOICE, Reply("1", ""), (None, False)),  # left out of the count
        (CHOICE, Reply("1", None), (None, False)),
        (CHOICE, Reply("1", None, None, {"A": 0.1, "B": 0.9}), (1, True)),
        (OUTPUT, Reply("1", "It is 3 points", 31.0), (1, True)),
        (OUTPUT, Reply("1", "It is 3 points", 31.5), (0, True)),
        (OUTPUT, Reply("1", "3 Points", 29.0), (0, True)),
        (OUTPUT, Reply("1", "no"), (0, True)),
        (OUTPUT, Reply("1", None), (None, False)),
    ],
)
def test_the_official_rule(asked: Item, reply: Reply, mark: tuple[float | None, bool]) -> None:
    assert streamingbench.official(asked, reply) == mark


def test_output_files_of_every_subset(bench: StreamingBench, tmp_path: Path) -> None:
    polled = [{"role": "assistant", "content": text, "time": 30} for text in ("yes", "3 points")]

    def reply(question: dict[str, Any]) -> Any:
        return {"answered": 30, "dialog_history": polled} if "ground_truth_output" in question else question["answer"]

    for name, entries in streaming_files().items():
        write_json(tmp_path / "out" / f"{name}_output.json", streaming_output(entries, reply))
    replies = bench.replies(tmp_path / "out")
    assert len(replies) == 8
    assert replies["proactive_0_0"] == Reply("proactive_0_0", "3 points", 30.0)
    for parser in ("official", "strict"):
        score = bench.score(replies, parser)
        assert {part.accuracy for part in score.parts} == {100.0}
        assert (score.found, score.expected, score.complete) == (8, 4500, False)
        assert not any(one.headline for one in score.averages)
        assert score.averages[-1].name == "Proactive Output, timing alone"
        assert score.averages[-1].value == 100.0


def test_timing_alone_does_not_ask_what_was_said(bench: StreamingBench) -> None:
    score = bench.score({"proactive_0_0": Reply("proactive_0_0", "something else", 28.0)}, "strict")
    assert score.averages[-1].value == 100.0
    assert score.parts[-1].accuracy == 0.0


def test_a_model_that_never_speaks_and_one_that_was_not_asked(bench: StreamingBench, tmp_path: Path) -> None:
    silent = {"answered": False, "dialog_history": [{"content": "no", "time": 33}]}
    told = streaming_output(streaming_files()["questions_proactive"], lambda _: silent)
    assert bench.replies(write_json(tmp_path / "p.json", told)) == {"proactive_0_0": Reply("proactive_0_0", "no")}
    entries = streaming_files()["questions_real"]
    told = streaming_output(entries, lambda question: "B" if question["task_type"] == "Counting" else ...)
    assert set(bench.replies(write_json(tmp_path / "r.json", told))) == {"real_0_1"}


def test_our_own_lines(bench: StreamingBench, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"id": "sqa_0_1", "reply": "(C)"}\n')
    score = bench.score(bench.replies(tmp_path / "r.jsonl"), "strict")
    assert score.right == {"sqa_0_1": 1.0}


def test_output_files_that_cannot_be_read(bench: StreamingBench, tmp_path: Path) -> None:
    entries = streaming_files()["questions_real"]

    def complaint(told: Any) -> str:
        with pytest.raises(SourceError) as caught:
            bench.replies(write_json(tmp_path / "r.json", told))
        return str(caught.value)

    assert "has no field with a model's replies" in complaint(entries)
    two = streaming_output(streaming_output(entries, lambda _: "A", "One"), lambda _: "B", "Two")
    assert "has fields of several models: One, Two" in complaint(two)
    assert bench.replies(write_json(tmp_path / "r.json", two), model="Two")["real_0_0"].text == "B"
    assert "has to be a text, null, or a dialog_history" in complaint(streaming_output(entries, lambda _: 7))
    assert "dialog_history" in complaint(streaming_output(entries, lambda _: {"dialog_history": []}))
    assert "dialog_history" in complaint(streaming_output(entries, lambda _: {"dialog_history": [{"content": 7}]}))
    other = [streaming_entry("a_real.mp4", streaming_question("Counting", "00:00:10"))]
    assert "question 0_0 is not that of the data" in complaint(streaming_output(other, lambda _: "A"))
    assert "its first question has no known task" in complaint([streaming_entry("a.mp4", {"question": "?"})])
    assert "entry 0 has no list of questions" in complaint([{}])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no output file"):
        bench.replies(tmp_path / "empty")


def test_the_overall_of_the_papers_table() -> None:
    shares = {"real-time": 77.39, "omni-source": 67.80, "contextual": 51.06}
    counts = streamingbench.REAL | streamingbench.OMNI | streamingbench.MISLEADING
    counts |= {streamingbench.SEQUENTIAL: 250, streamingbench.PROACTIVE: 250}
    groups = streamingbench.GROUPS
    parts = [Part(task, groups[task], n, n, n * shares[groups[task]] / 100, 0) for task, n in counts.items()]
    *each, overall = (metrics.average(parts, one) for one in streamingbench.AVERAGES)
    assert [one.value for one in each] == [pytest.approx(share) for share in shares.values()]
    assert overall.value == pytest.approx(70.26, abs=0.005)
    assert overall.rule.endswith("Proactive Output counts as 50 items")
