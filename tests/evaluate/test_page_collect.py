"""Runs, votes and scores put together, and what does not fit together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import SourceError
from streamingvlm.evaluate.benchmark import Said
from streamingvlm.evaluate.commentary.inf_streams import InfStreams
from streamingvlm.evaluate.judging.calibration import STORED
from streamingvlm.evaluate.judging.votes import Vote
from streamingvlm.evaluate.judging.votes_file import Judged, Place
from streamingvlm.evaluate.judging.win_rates import win_rates
from streamingvlm.evaluate.page.collect import collect, shown_texts, verdict
from streamingvlm.evaluate.page.data import Label, ReportData, Text
from streamingvlm.evaluate.page.inputs import ReportedRun, Votes, read_judged, read_run
from streamingvlm.evaluate.page.score_files import read_scores
from streamingvlm.evaluate.runs import open_contestant
from support.report_data import about, commentary, scores, settings, vote, write_run

PLACES = [Place(f"g/x.mp4:{at}-{at + 100}", "g/x.mp4", "tennis", float(at), float(at + 100)) for at in (1000, 1100)]
WORDS = {"a": "out wide", "b": "a long rally"}


def run(name: str, texts: dict[str, str] | None = None, **more: Any) -> ReportedRun:
    text = WORDS["a"] if name == "one" else WORDS["b"]
    said = {place.window: text for place in PLACES} if texts is None else texts
    return ReportedRun(Label.of(about(name, **more)), Path(name), about(name, **more), {}, said)


def judged(*choices: str | None, **more: Any) -> Judged:
    """Votes on the two windows: ab and ba of the first, then of the second."""
    at = [(place, order) for place in PLACES for order in ("ab", "ba")]
    votes = [
        vote(place, order, choice, ("the human words", WORDS["a"], WORDS["b"]))  # type: ignore[arg-type]
        for (place, order), choice in zip(at, choices, strict=False)
    ]
    return Judged(settings("one", "two", **more), PLACES, votes)


def votes(*choices: str | None, passed: bool | None = True, **more: Any) -> Votes:
    calibration = None if passed is None else {"passed": passed, "failed": [] if passed else ["doubled"]}
    return Votes(Path("votes.jsonl"), judged(*choices, **more), calibration)


RUNS = [run("one"), run("two")]


def test_texts_references_and_figures_come_together(tmp_path: Path) -> None:
    runs, files = commentary(tmp_path, games=2, windows=2)
    found = collect([read_run(open_contestant(path)) for path in runs], [read_judged(path) for path in files], [])
    data = found.commentary
    assert data is not None
    assert [pair.a for pair in data.pairs] == ["streamingvlm-7b", "streamingvlm-7b"]
    assert len(data.windows) == 4
    first = data.windows[0]
    said = data.texts["livecc-7b"][first.id]
    assert said.text == " ".join(step.text for step in said.steps), "the steps are the words of this window"
    assert all(first.start < step.end <= first.end for step in said.steps)
    shown = shown_texts(data.pairs[0].verdicts[0].votes[0])
    assert shown is not None
    assert first.reference == shown["reference"]
    assert data.texts["streamingvlm-7b"][first.id].text == shown["a"]
    assert not found.partial
    assert not found.uncalibrated


def test_figures_are_those_of_the_judging_room() -> None:
    found = votes("a", "a", "b", "tie")
    figures = collect(RUNS, [found], []).commentary.pairs[0].figures  # type: ignore[union-attr]
    theirs = win_rates(found.judged)
    assert figures.rate.value == theirs["figures"]["win_rate"]["value"] == 62.5
    assert (figures.wins_a, figures.ties, figures.wins_b) == (2, 1, 1)
    assert (figures.expected, figures.judged, figures.errors) == (4, 4, 0)
    assert figures.consistent.value == 50.0
    assert [rate.name for rate in figures.groups] == ["tennis"]


@pytest.mark.parametrize(
    ("choices", "winner", "flip", "error"),
    [
        (("a", "a"), "a", False, False),
        (("b", "b"), "b", False, False),
        (("a", "b"), "tie", True, False),
        (("a", "tie"), "a", False, False),
        (("tie", "tie"), "tie", False, False),
        (("a", None), "a", False, True),
        ((None, None), None, False, True),
        ((), None, False, False),
    ],
)
def test_what_the_votes_on_a_window_come_to(
    choices: tuple[str | None, ...], winner: str | None, flip: bool, error: bool
) -> None:
    found: list[Vote] = list(judged(*choices).votes)
    one = verdict(PLACES[0].window, found)
    assert (one.winner, one.flip, one.error) == (winner, flip, error)


def test_only_two_orders_of_one_repeat_flip() -> None:
    ab, ba = judged("a", "b").votes
    assert not verdict("w", [ab, replace(ba, repeat=1)]).flip


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_texts_are_told_apart_whatever_place_they_stood_in(order: Any) -> None:
    texts = ("the human words", "said by a", "said by b")
    assert shown_texts(vote(PLACES[0], order, "a", texts)) == dict(zip(("reference", "a", "b"), texts, strict=True))


@pytest.mark.parametrize("call", [{}, {"request": None}, {"request": [{"content": "<transcript>\nx\n</transcript>"}]}])
def test_a_vote_without_its_request_tells_no_texts(call: dict[str, Any]) -> None:
    assert shown_texts(vote(PLACES[0], "ab", "a", ("r", "x", "y"), call=call)) is None


def test_what_runs_do_not_tell_is_taken_from_the_request() -> None:
    data = collect([run("one", {}), run("two", {})], [votes("a", "a", "a", "a")], []).commentary
    assert data is not None
    assert data.texts["one"][PLACES[0].window] == Text(WORDS["a"])
    assert data.texts["two"][PLACES[1].window] == Text(WORDS["b"])


def test_a_text_that_the_judge_saw_the_beginning_of_is_the_same_text() -> None:
    long = " ".join(f"word{number}" for number in range(2000))
    found = [replace(one, call=vote(PLACES[0], "ab", "a", ("r", long, WORDS["b"])).call) for one in judged("a").votes]
    texts = {PLACES[0].window: long}
    data = collect([run("one", texts), run("two")], [Votes(Path("v"), replace(judged(), votes=found))], []).commentary
    assert data is not None
    assert data.texts["one"][PLACES[0].window].text == long


OTHER = {place.window: "quite other words" for place in PLACES}
REVISION = {"revision": "ffff"}


@pytest.mark.parametrize(
    ("runs", "files", "says"),
    [
        ([], [], "needs runs or scores"),
        ([run("one"), run("one")], [], "both named 'one'"),
        ([run("one")], [votes("a")], "on 'two', which is not among the runs"),
        (RUNS, [votes("a"), votes("b")], "of one judge on one pair"),
        ([run("one", OTHER), run("two")], [votes("a")], "says other words of window g/x.mp4:1000-1100"),
        ([run("one", **REVISION), run("two")], [], "revision ffff"),
        (RUNS, [votes("a", **REVISION)], "revision ffff"),
        (RUNS, [votes("a", task="livesports")], "task livesports"),
        ([run("one", preset="ours"), run("two")], [], "presets differ.*--allow-different"),
    ],
)
def test_what_does_not_fit_together_is_one_line(runs: list[ReportedRun], files: list[Votes], says: str) -> None:
    with pytest.raises(SourceError, match=says) as error:
        collect(runs, files, [])
    assert "\n" not in str(error.value)


def test_presets_that_differ_can_be_allowed_and_are_marked() -> None:
    found = collect([run("one", preset="ours"), run("two")], [votes("a")], [], allow_different=True)
    assert found.different == ["presets differ (ours: one; paper: two)"]


@pytest.mark.parametrize(
    ("given", "partial", "uncalibrated"),
    [
        (votes("a", "a", "b", "b"), [], []),
        (votes("a", "a"), ["one vs two: 2 of 4 votes"], []),
        (votes("a", "a", "b", None), ["one vs two: 3 of 4 votes, 1 call failed"], []),
        (votes("a", "a", "b", "b", passed=None), [], ["one vs two: judge-large was not calibrated"]),
        (
            votes("a", "a", "b", "b", passed=False),
            [],
            ["one vs two: judge-large failed its calibration (doubled)"],
        ),
    ],
)
def test_what_takes_the_headline_away(given: Votes, partial: list[str], uncalibrated: list[str]) -> None:
    found = collect(RUNS, [given], [])
    assert (found.partial, found.uncalibrated) == (partial, uncalibrated)


def test_missing_videos_make_a_partial_set() -> None:
    found = collect([run("one", found=3), run("two")], [votes("a", "a", "b", "b")], [])
    assert found.partial == ["one: 3 of 12 games"]


def test_the_calibration_of_another_judge_does_not_count(tmp_path: Path) -> None:
    _, files = commentary(tmp_path, games=1, windows=1)
    assert read_judged(files[0]).calibration is not None
    rows = files[0].read_text().split("\n", 1)
    files[0].write_text(rows[0].replace("judge-large", "judge-small") + "\n" + rows[1])
    assert read_judged(files[0]).calibration is None
    (tmp_path / STORED).write_text("{")
    with pytest.raises(SourceError, match=r"calibration\.json cannot be read"):
        read_judged(files[0])


def score_files(tmp_path: Path, **more: Any) -> list[Any]:
    return [read_scores(path) for path in scores(tmp_path, **more)]


def test_scores_of_a_task_stand_together(tmp_path: Path) -> None:
    found: ReportData = collect([], [], score_files(tmp_path))
    assert [(part.task, part.revision, len(part.files)) for part in found.questions] == [("ovo", "9a1c", 2)]
    assert not found.partial


def test_scores_without_a_reply_make_a_partial_set(tmp_path: Path) -> None:
    partial = collect([], [], score_files(tmp_path, whole=False)).partial
    assert partial[0] == "ovo, streamingvlm-7b: 199 of 200 items have a reply"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "streamingvlm-7b"}, "two scores of 'streamingvlm-7b'"),
        ({"revision": "beef"}, "of revision 9a1c of the data, qwen2.5-vl-7b of beef"),
        ({"preset": "ours"}, "ovo: presets differ"),
    ],
)
def test_scores_that_do_not_compare_are_refused(tmp_path: Path, change: dict[str, str], says: str) -> None:
    one, other = score_files(tmp_path)
    with pytest.raises(SourceError, match=says):
        collect([], [], [one, replace(other, label=replace(other.label, **change))])


# Reading


@pytest.mark.parametrize(
    ("line", "texts", "steps"),
    [
        (
            {"video": "x.mp4", "items": [{"response": "he scores ...", "end_time": 1003}]},
            {"w": "he scores"},
            ["he scores"],
        ),
        ({"video": "g/x.mp4", "items": [{"response": " ...", "end_time": 1003.5}]}, {"w": ""}, []),
        ({"video": "g/x.mp4", "items": [{"response": "later", "end_time": 1101}]}, {}, None),
        ({"video": "g/x.mp4", "items": [{"response": "at once", "end_time": 1000}]}, {}, None),
        ({"video_id": "w", "event_id": 3, "begin": 1, "end": 2, "pred": "a goal"}, {"w_3": "a goal"}, []),
        ({"video_id": "w", "event_id": 3, "begin": 1, "end": 2, "pred": "..."}, {"w_3": ""}, []),
        ({"of": "another form"}, {}, None),
    ],
)
def test_what_a_prediction_file_tells(
    tmp_path: Path, line: dict[str, Any], texts: dict[str, str], steps: list[str] | None
) -> None:
    (tmp_path / "said.jsonl").write_text(json.dumps(line) + "\n\n")
    read = read_run(open_contestant(tmp_path / "said.jsonl"))
    window = next(iter(texts), "w")
    said = read.text(window, "g/x.mp4", 1000.0, 1100.0)
    if steps is None:
        assert said is None
    else:
        assert said is not None
        assert said.text == texts[window]
        assert [step.text for step in said.steps] == steps


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[1]", '{"video": "x", "items": [{"response": "a"}]}', '{"items": []}', '{"video": 1, "items": [3]}'],
)
def test_a_file_that_is_no_prediction_is_one_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "said.jsonl").write_text(line)
    with pytest.raises(SourceError, match="line 1"):
        read_run(open_contestant(tmp_path / "said.jsonl"))


def test_the_benchmark_tells_texts_titles_references_and_figures(tmp_path: Path) -> None:
    runs, files = commentary(tmp_path, games=2, windows=2)
    benchmark = InfStreams(tmp_path / "data")
    read = [read_run(open_contestant(path), benchmark) for path in runs]
    data = collect(read, [read_judged(path) for path in files], [], benchmark=benchmark).commentary
    without = collect([read_run(open_contestant(path)) for path in runs], [read_judged(path) for path in files], [])
    assert data is not None
    assert without.commentary is not None
    assert [window.title for window in data.windows[::2]] == [
        "Round 1: Reds against Blues",
        "Round 2: Reds against Blues",
    ]
    assert [one.reference for one in data.windows] == [window.reference for window in benchmark.windows]
    assert data.texts == without.commentary.texts, "the published form is read by one rule"
    assert data.measured["livecc-7b"]["windows"]["empty"] == 1
    assert not without.commentary.measured


@pytest.mark.parametrize(("video", "start", "steps"), [("e.mp4", 12.5, 2), ("e.mp4", 40.0, 0), ("f.mp4", 12.5, 0)])
def test_records_tell_the_steps_where_a_game_is_one_window(
    tmp_path: Path, video: str, start: float, steps: int
) -> None:
    folder = write_run(tmp_path / "run", "one", {"x": [(1.0, "")]}, task="livesports")
    line = {"video_id": "e", "event_id": 1, "begin": 12.5, "end": 14.1, "pred": "he serves an ace"}
    (folder / "predictions.jsonl").write_text(json.dumps(line))
    (folder / "streams").mkdir()
    rows = [{"start": 12.5, "end": 13.5, "text": "he serves"}, {"start": 13.5, "end": 14.5, "text": " an ace"}]
    settings_line = {"video": "e.mp4", "start": 12.5, "end": 14.5}
    (folder / "streams" / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (settings_line, *rows)))
    said = read_run(open_contestant(folder)).text("e_1", video, start, start + 1.6)
    assert said is not None
    assert (said.text, len(said.steps)) == ("he serves an ace", steps)


@pytest.mark.parametrize(
    ("settings_of", "complete", "blind", "asked"),
    [
        ({"policy": "full"}, True, False, ""),
        ({"limit": 5}, False, False, ""),
        ({"blind": True, "asked": "in a fork"}, True, True, "in a fork"),
    ],
)
def test_what_a_run_says_of_itself(settings_of: dict[str, Any], complete: bool, blind: bool, asked: str) -> None:
    label = Label.of(about("one", settings=settings_of))
    assert (label.complete, label.blind, label.asked) == (complete, blind, asked)


def test_steps_are_told_only_where_they_are_the_text() -> None:
    steps = {"v": [Said(1000.0, 1001.0, "one two")]}
    same = ReportedRun(Label("n"), Path("n"), {}, steps, {"w": "one  two"}).text("w", "v", 1000, 1100)
    other = ReportedRun(Label("n"), Path("n"), {}, steps, {"w": "three"}).text("w", "v", 1000, 1100)
    assert same is not None
    assert len(same.steps) == 1
    assert other == Text("three")
