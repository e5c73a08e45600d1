"""Inf-Streams-Eval as published: games, windows, and what a prediction file says in them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import OptionError, SourceError
from streamingvlm.data.words import Repair
from streamingvlm.evaluate.benchmark import CommentaryBenchmark, Said
from streamingvlm.evaluate.commentary.inf_streams import InfStreams, without_mark
from support.benchmark_data import game, timed, window, write_inf_streams, write_jsonl

#: 250 words in 100 s.
FAST = 0.4


def item(end: int, text: str) -> dict[str, Any]:
    return {"response": f"{text} ...", "start_time": end - 1, "end_time": end}


def predictions(path: Path, video: str, items: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    line = {"video": video, "chunk_start": 0, "chunk_end": 0, "items": items, **more}
    write_jsonl(path, [line])
    return line


def test_a_game_goes_from_the_start_asked_for_to_its_last_word(tmp_path: Path) -> None:
    line = game("soccer/a.mp4", 30.4, every=1.0)
    line["content"].append([30.0, 30.9, "last"])
    write_inf_streams(tmp_path, [line])
    found = InfStreams(tmp_path, start="10")
    assert isinstance(found, CommentaryBenchmark)
    (one,) = found.games
    assert (one.start, one.end, one.title, one.group) == (10.0, 30.0, "Title of a", "soccer")
    # A word that ends just where evaluation starts was heard before it.
    assert one.previous == " ".join(f"w{i}" for i in range(10))
    assert len(one.words.words) == 31
    (video,) = found.videos
    assert (video.key, video.path, video.seconds) == ("soccer/a.mp4", tmp_path / "soccer/a.mp4", 30.0)
    elsewhere = InfStreams(tmp_path / "eval_all_metadata.jsonl", Path("/videos"), start="10")
    assert elsewhere.videos[0].path == Path("/videos/soccer/a.mp4")


def test_without_a_file_of_windows_they_are_the_papers_grid(tmp_path: Path) -> None:
    fast, slow = timed(0, 120, FAST), timed(120, 210, 1.0)
    write_inf_streams(tmp_path, [{"video": "a.mp4", "content": fast + slow + timed(210, 395, FAST)}])
    found = InfStreams(tmp_path, start="10")
    # 10-110 s: 250 words; 110-210 s: 25 + 90; 210-310 s: 250; 310-395 s: 212, which is where the game ends.
    assert [one.id for one in found.windows] == ["a.mp4:10-110", "a.mp4:210-310", "a.mp4:310-394"]
    assert found.counts[2].part == "windows (100 s with 200 words or more)"
    assert [len(one.reference.split()) for one in found.windows] == [250, 250, 210]
    # The grid restarts where it is asked to.
    assert [one.id for one in InfStreams(tmp_path, start="200").windows] == ["a.mp4:200-300", "a.mp4:300-394"]
    assert {one.group for one in found.windows} == {""}


@pytest.mark.parametrize(("words", "kept"), [(199, 0), (200, 1)])
def test_a_window_has_at_least_two_hundred_words(words: int, kept: int, tmp_path: Path) -> None:
    content = [[i / 4, 0.5 + i / 4, "w"] for i in range(words - 1)] + [[99.0, 100.0, "last"]]
    write_inf_streams(tmp_path, [{"video": "a.mp4", "content": content}])
    found = InfStreams(tmp_path, start="0")
    assert len(found.windows) == kept


def test_a_word_belongs_to_the_window_in_which_it_ends(tmp_path: Path) -> None:
    # The first ends where the grid starts, the second on the border, the third begins before it and ends behind it.
    content = [[9.0, 10.0, "none"], *[[20.0, 20.0, "x"]] * 200, [109.0, 110.0, "one"], [109.5, 110.1, "two"]]
    write_inf_streams(
        tmp_path, [{"video": "a.mp4", "content": [*content, *[[150.0, 150.0, "y"]] * 199, [210, 211, "z"]]}]
    )
    first, second = InfStreams(tmp_path, start="10").windows
    assert first.reference.split() == ["x"] * 200 + ["one"]
    assert second.reference.split() == ["two"] + ["y"] * 199
    assert (first.start, first.end, second.end) == (10.0, 110.0, 210.0)


def test_windows_of_a_file_are_those_of_the_file(tmp_path: Path) -> None:
    games = [game("soccer/a.mp4", 400), game("tennis/b.mp4", 400, sport="Table tennis")]
    windows = [window("b.mp4", 200.2, 299.6), window("soccer/a.mp4", 99.9, 201.1)]
    write_inf_streams(tmp_path, games, windows)
    found = InfStreams(tmp_path, start="100")
    first, second = found.windows
    assert (first.id, first.video, first.group, first.title) == (
        "tennis/b.mp4:200-299",
        "tennis/b.mp4",
        "Table tennis",
        "Title of b",
    )
    assert (second.start, second.end) == (99.0, 201.0)
    assert second.reference.split()[0] == "r0"
    assert [(count.part, count.found, count.expected) for count in found.counts] == [
        ("games", 2, 2),
        ("games beyond 100 s", 2, None),
        ("windows (score_all_clips.jsonl)", 2, 2),
        ("repaired words", 0, None),
    ]
    assert {one.game for one in found.windows} == {one.name for one in found.games}
    grid = InfStreams(tmp_path, start="100", windows="grid")
    assert {one.id for one in grid.windows} > {"soccer/a.mp4:100-200", "tennis/b.mp4:300-400"}


def test_lines_that_cannot_be_used_are_told_and_counted(tmp_path: Path) -> None:
    games = [
        game("soccer/a.mp4", 400),
        "{not json",
        {"title": "no video", "content": []},
        {"video": "c.mp4", "content": "words"},
        {"video": "d.mp4", "content": []},
        game("./soccer/a.mp4", 300),
        game("short.mp4", 90),
    ]
    windows = [
        window("a.mp4", 100, 200),
        window("gone.mp4", 100, 200),
        window("a.mp4", 100, 200),
        window("a.mp4", 20, 90),
        window("short.mp4", 20, 90),
        window("a.mp4", 100, 100.1),
        [],
        window("a.mp4", 100.2, 100.6),
    ]
    write_inf_streams(tmp_path, games, windows)
    found = InfStreams(tmp_path, start="100")
    assert [one.id for one in found.windows] == ["soccer/a.mp4:100-200"]
    # Two windows lie before what is evaluated: they are not missing.
    assert [(count.found, count.expected) for count in found.counts] == [(2, 7), (1, None), (1, 6), (0, None)]
    assert not found.counts[0].complete
    told = [f"{one.item}: {one.what}" for one in found.defects]
    assert told == [
        'eval_all_metadata.jsonl, line 2: left out: not an object with a "video"',
        'eval_all_metadata.jsonl, line 3: left out: not an object with a "video"',
        "eval_all_metadata.jsonl, line 4: left out: not a list of [start, end, text]",
        "eval_all_metadata.jsonl, line 5: left out: d.mp4 has no words",
        "eval_all_metadata.jsonl, line 6: left out: soccer/a.mp4 is there already",
        "short.mp4: not evaluated: ends at 90 s, before 100 s",
        "score_all_clips.jsonl, line 2: left out: gone.mp4 is no game of eval_all_metadata.jsonl",
        "score_all_clips.jsonl, line 3: left out: soccer/a.mp4:100-200 is there already",
        "score_all_clips.jsonl, line 4: left out: soccer/a.mp4, 20-90 s begins before 100 s",
        "score_all_clips.jsonl, line 5: left out: short.mp4 is not evaluated",
        "score_all_clips.jsonl, line 6: left out: a window of soccer/a.mp4 without words",
        'score_all_clips.jsonl, line 7: left out: not an object with a "video"',
        "score_all_clips.jsonl, line 8: left out: soccer/a.mp4, 100-100 s has no length",
    ]


def test_words_with_bad_times_are_repaired_and_counted(tmp_path: Path) -> None:
    content = timed(0, 30, 1.0)
    content[3] = [9.0, 4.0, "reversed"]
    content[5] = {"word": "2-1"}
    content[20] = [5.0, 5.5, "back"]
    write_inf_streams(tmp_path, [{"video": "a.mp4", "content": content}])
    found = InfStreams(tmp_path, start="5")
    (one,) = found.games
    assert len(one.words.words) == 29, "of thirty words one is lost, which is more than 2 %"
    assert "2-1" in [word.text for word in one.words.words]
    assert found.counts[-1].found == 3
    assert [defect.what.partition(": ")[0] for defect in found.defects] == ["1 of 30 words repaired"] * 3
    assert {str(kind) in defect.what for kind in (Repair.OUT_OF_ORDER,) for defect in found.defects} == {True, False}
    # Two of thirty are too many.
    content[22] = [5.0, 5.5, "back"]
    write_inf_streams(tmp_path, [{"video": "a.mp4", "content": content}, game("b.mp4", 30)])
    again = InfStreams(tmp_path, start="5")
    assert [game.video.key for game in again.games] == ["b.mp4"]
    assert "2 of 30 words lost, more than 2%; the first is 'back' at 5-5.5 s" in again.defects[0].what


def test_two_games_of_one_file_name_stay_apart(tmp_path: Path) -> None:
    games = [game("soccer/final.mp4", 200, every=FAST), game("tennis/final.mp4", 200, every=FAST)]
    write_inf_streams(tmp_path, games)
    found = InfStreams(tmp_path, start="0")
    assert len({game.name for game in found.games}) == 2
    path = tmp_path / "predictions.jsonl"
    predictions(path, "tennis/final.mp4", [item(50, "ace")])
    assert found.texts(path) == {"tennis/final.mp4:0-100": "ace"}
    predictions(path, "final.mp4", [item(50, "ace")])
    with pytest.raises(SourceError, match=r"line 1: 'final\.mp4' may be any of soccer/final\.mp4, tennis/final\.mp4;"):
        found.texts(path)
    # Nor is the file's name enough where one of the games lies in no folder; what is written is found again.
    write_inf_streams(tmp_path / "top", [game("final.mp4", 200, every=FAST), games[0]])
    top = InfStreams(tmp_path / "top", start="0")
    with pytest.raises(SourceError, match=r"may be any of final\.mp4, soccer/final\.mp4"):
        top.texts(path)
    lines = [line for game in top.games for line in top.published(game, [Said(49.0, 50.0, game.video.key)])]
    assert [line["video"] for line in lines] == ["./final.mp4", "soccer/final.mp4"]
    assert top.texts(write_jsonl(path, lines)) == {
        "final.mp4:0-100": "final.mp4",
        "soccer/final.mp4:0-100": "soccer/final.mp4",
    }
    # A window that may be of either is no reason to refuse the data.
    windows = [window("final.mp4", 100, 200), window("soccer/final.mp4", 100, 200)]
    write_inf_streams(tmp_path, games, windows)
    half = InfStreams(tmp_path, start="0")
    assert (half.counts[2].found, half.counts[2].expected) == (1, 2)
    assert "may be any of" in half.defects[0].what


def test_a_window_takes_the_items_that_end_in_it(tmp_path: Path) -> None:
    write_inf_streams(tmp_path, [game("soccer/a.mp4", 400, every=FAST)])
    found = InfStreams(tmp_path, start="100")
    path = tmp_path / "predictions.jsonl"
    ends = [(100, "zero"), (101, "one"), (150, ""), (200, "two"), (200.9, "three"), (201, "four"), (350, "")]
    # The published form: the file's name alone; an order of its own.
    predictions(path, "a.mp4", [item(0, text) | {"end_time": end} for end, text in reversed(ends)])
    assert found.texts(path) == {
        "soccer/a.mp4:100-200": "one two three",
        "soccer/a.mp4:200-300": "four",
        "soccer/a.mp4:300-400": "",
    }
    # What nothing was made for is missing, which is not the same as silence.
    predictions(path, "a.mp4", [{"response": "A goal.", "end_time": 300}])
    assert found.texts(path) == {"soccer/a.mp4:200-300": "A goal."}


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ("he scores ...", "he scores"),
        (" he scores ... ", "he scores"),
        (" ...", ""),
        ("...", ""),
        ("", ""),
        ("What a goal!", "What a goal!"),
        ("well ... ...", "well ..."),
        ("what...", "what..."),
    ],
)
def test_only_the_silence_mark_is_cut(response: str, text: str) -> None:
    assert without_mark(response) == text


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_inf_streams(tmp_path, [game("soccer/final.mp4", 300, every=FAST), game("tennis/final.mp4", 300, every=FAST)])
    found = InfStreams(tmp_path, start="100")
    said = [Said(float(second), second + 1.0, "" if second % 2 else f"s{second} ...") for second in range(100, 300)]
    lines = [line for game in found.games for line in found.published(game, said)]
    assert [(line["video"], line["chunk_start"], line["chunk_end"]) for line in lines] == [
        ("soccer/final.mp4", 100, 300),
        ("tennis/final.mp4", 100, 300),
    ]
    assert lines[0]["items"][1] == {"response": " ...", "start_time": 101.0, "end_time": 102.0}
    texts = found.texts(write_jsonl(tmp_path / "predictions.jsonl", lines))
    assert set(texts) == {window.id for window in found.windows}
    assert texts["tennis/final.mp4:100-200"] == " ".join(f"s{second} ..." for second in range(100, 200, 2))
    assert next(iter(found.published(found.games[0], [])))["items"] == []


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["nonsense"], "line 1 is not a JSON object"),
        ([{"video": "a.mp4"}], r'line 1 is no prediction: it needs "video" and a list of "items"'),
        ([{"video": "a.mp4", "items": [{"response": "x"}]}], r'line 1, a\.mp4: an item needs "end_time", in seconds'),
        (
            [{"video": "a.mp4", "items": [{"response": None, "end_time": 7}]}],
            r'the item that ends at 7 s needs "response", a text',
        ),
        (
            [{"video": "a.mp4", "items": [item(7, "x")]}, {"video": "soccer/a.mp4", "items": [item(7, "x")]}],
            r"line 2, soccer/a\.mp4: the item that ends at 7 s is there twice \(the other is in line 1\); .* merged",
        ),
        ([{"video": "other.mp4", "items": []}], r"speaks of no game of .*'other\.mp4' is none of them"),
    ],
)
def test_a_prediction_file_that_cannot_be_meant_is_one_line(lines: list[Any], why: str, tmp_path: Path) -> None:
    write_inf_streams(tmp_path, [game("soccer/a.mp4", 200, every=FAST)])
    path = write_jsonl(tmp_path / "predictions.jsonl", lines)
    with pytest.raises(SourceError, match=why) as caught:
        InfStreams(tmp_path, start="0").texts(path)
    assert "\n" not in str(caught.value)


def test_games_that_the_data_do_not_have_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_inf_streams(tmp_path, [game("soccer/a.mp4", 200, every=FAST)])
    lines = [{"video": name, "items": [item(50, name)]} for name in ("x.mp4", "a.mp4", "y.mp4")]
    path = write_jsonl(tmp_path / "predictions.jsonl", lines)
    with caplog.at_level(logging.WARNING):
        assert InfStreams(tmp_path, start="0").texts(path) == {"soccer/a.mp4:0-100": "a.mp4"}
    assert "2 lines of games that the data do not have, as 'x.mp4'" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"start": "-1"}, OptionError, "start=-1: a whole number"),
        ({"start": "1e3"}, OptionError, "start=1e3: a whole number"),
        ({"games": "many"}, OptionError, "games=many: a whole number"),
        ({"windows": "none.jsonl"}, SourceError, "has no none.jsonl; windows=grid makes"),
    ],
)
def test_options_that_cannot_be_meant(
    options: dict[str, str], error: type[Exception], why: str, tmp_path: Path
) -> None:
    write_inf_streams(tmp_path)
    with pytest.raises(error, match=why):
        InfStreams(tmp_path, **options)


def test_data_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no eval_all_metadata\.jsonl"):
        InfStreams(tmp_path)
    write_jsonl(tmp_path / "eval_all_metadata.jsonl", ["x"])
    with pytest.raises(SourceError, match=r"has no game that can be read \(eval_all_metadata\.jsonl, line 1: left out"):
        InfStreams(tmp_path)


def test_the_number_of_games_may_be_demanded(tmp_path: Path) -> None:
    write_inf_streams(tmp_path)
    assert InfStreams(tmp_path).counts[0].complete
    assert not InfStreams(tmp_path, games="20").counts[0].complete


def test_of_two_files_of_windows_the_other_is_named(tmp_path: Path) -> None:
    games, windows = [game("a.mp4", 400)], [window("a.mp4", 100, 200)]
    write_inf_streams(tmp_path, games, windows)
    write_inf_streams(tmp_path, games, windows, window_file="temp_score_clips.jsonl")
    same = InfStreams(tmp_path, start="0")
    assert same.defects == ()
    write_inf_streams(tmp_path, games, [window("a.mp4", 200, 300)], window_file="temp_score_clips.jsonl")
    found = InfStreams(tmp_path, start="0")
    assert found.windows[0].start == 100.0
    assert [one.item for one in found.defects] == ["temp_score_clips.jsonl"]
    other = InfStreams(tmp_path, start="0", windows="temp_score_clips.jsonl")
    assert other.windows[0].start == 200.0


def test_the_revision_is_that_of_the_contents(tmp_path: Path) -> None:
    one = InfStreams(write_inf_streams(tmp_path / "one", [game("a.mp4", 30)])).revision
    same = InfStreams(write_inf_streams(tmp_path / "two", [game("a.mp4", 30)])).revision
    other = InfStreams(write_inf_streams(tmp_path / "three", [game("a.mp4", 31)])).revision
    with_windows = write_inf_streams(tmp_path / "four", [game("a.mp4", 30)], [window("a.mp4", 10, 20)])
    assert one == same != other
    assert len(one) == 16
    assert InfStreams(with_windows).revision not in (one, other)
    assert InfStreams(with_windows, windows="grid").revision == one
    assert json.dumps(one)
