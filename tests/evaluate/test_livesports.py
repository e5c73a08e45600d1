"""LiveSports-3K-CC in both published shapes: events, their references, and prediction files."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import SourceError
from streamingvlm.evaluate.benchmark import CommentaryBenchmark, Said
from streamingvlm.evaluate.commentary.livesports import LiveSports
from support.benchmark_data import event, timed, write_jsonl, write_livesports


def counts(found: LiveSports) -> dict[str, tuple[int, int | None]]:
    return {count.part: (count.found, count.expected) for count in found.counts}


def test_an_event_is_a_game_and_its_window(tmp_path: Path) -> None:
    found = LiveSports(write_livesports(tmp_path))
    assert isinstance(found, CommentaryBenchmark)
    assert [one.id for one in found.windows] == ["vid_0", "vid_1", "other_0"]
    first, window = found.games[0], found.windows[0]
    assert (window.game, window.video, window.title, window.group) == (first.name, "vid.mp4", "Event 0", "soccer")
    assert (window.start, window.end) == (2.0, 6.5)
    assert window.reference == " ".join(f"e{i}" for i in range(11))
    assert first.previous == "p0 p1 p2 p3 p4"
    assert [word.text for word in first.words.words] == window.reference.split()
    # A video has to hold its last event, and no more.
    assert [(one.key, one.path, one.seconds) for one in found.videos] == [
        ("vid.mp4", tmp_path / "vid.mp4", 9.25),
        ("other.mp4", tmp_path / "other.mp4", 4.0),
    ]
    assert LiveSports(tmp_path / "LiveSports-3K-CC.json", Path("/v")).videos[0].path == Path("/v/vid.mp4")
    assert counts(found) == {
        "events (LiveSports-3K-CC.json)": (3, 1702),
        "videos in the data": (2, 416),
        "events with human words": (3, None),
        "events without (not judged)": (0, None),
        "repaired words": (0, None),
    }


@pytest.mark.parametrize(
    ("begin", "end", "steps"), [(2.0, 6.5, 5), (2.0, 6.0, 4), (1.1, 4.1, 3), (0.3, 10.301, 11), (5.0, 5.2, 1)]
)
def test_steps_are_all_of_the_event(begin: float, end: float, steps: int, tmp_path: Path) -> None:
    found = LiveSports(write_livesports(tmp_path, [event(0, begin, end, event_asr_text="x")]))
    (game,), (window,) = found.games, found.windows
    assert game.end - game.start == pytest.approx(steps)
    assert (game.start, window.start, window.end) == (begin, begin, end)


def test_the_older_shape_is_read(tmp_path: Path) -> None:
    write_livesports(tmp_path, [event(1, 2.0, 6.5)], split="val")
    write_livesports(tmp_path, [event(2, 2.0, 6.5), event(3, 10, 20)], split="test")
    found = LiveSports(tmp_path)
    assert [game.title for game in found.games] == ["Event 2", "Event 3", "Event 1"]
    assert [one.id for one in found.windows] == ["vid_1"], "an event without human words has no reference"
    assert found.games[0].previous == "p0 p1 p2 p3 p4"
    assert counts(found) == {
        "events (LiveSports-3K-Test.csv)": (2, 1500),
        "events (LiveSports-3K-Val.csv)": (1, 202),
        "videos in the data": (1, 416),
        "events with human words": (1, None),
        "events without (not judged)": (2, None),
        "repaired words": (0, None),
    }
    path = write_jsonl(tmp_path / "p.jsonl", [{"video_id": "vid", "event_id": n, "pred": f"t{n}"} for n in (1, 2)])
    assert found.texts(path) == {"vid_1": "t1"}
    one = LiveSports(tmp_path / "LiveSports-3K-Val.csv")
    assert counts(one)["events (LiveSports-3K-Val.csv)"] == (1, 202)
    assert counts(one)["videos in the data"] == (1, None)
    assert csv.field_size_limit() == 131072, "what others read stays as it was"


def test_a_field_of_a_csv_file_may_hold_a_whole_game(tmp_path: Path) -> None:
    long = json.dumps(timed(0, 4000))
    assert len(long) > csv.field_size_limit()
    write_livesports(tmp_path, [event(1, 2.0, 6.5, preasr=long, preasr_text="")], split="val")
    assert len(LiveSports(tmp_path).games[0].previous.split()) == 10000


WORDS = [[2.0, 3.0, "one"], [3.0, 4.0, "two"]]


@pytest.mark.parametrize(
    ("fields", "reference", "previous"),
    [
        ({"event_asr": WORDS, "preasr": WORDS}, "one two", "one two"),
        ({"event_asr": json.dumps(WORDS), "preasr": json.dumps(WORDS)}, "one two", "one two"),
        (
            {"event_asr": WORDS, "event_asr_text": "as told", "preasr": WORDS, "preasr_text": "before"},
            "as told",
            "before",
        ),
        ({"event_asr": None, "preasr": None}, None, ""),
        ({"event_asr": "", "preasr": " "}, None, ""),
        ({"event_asr": "[]", "event_asr_text": "as told"}, "as told", ""),
    ],
)
def test_words_are_lists_or_json_in_strings(
    fields: dict[str, Any], reference: str | None, previous: str, tmp_path: Path
) -> None:
    bare = {"event_asr": None, "event_asr_text": None, "preasr": None, "preasr_text": None}
    found = LiveSports(write_livesports(tmp_path, [event(0, 2.0, 6.5, **{**bare, **fields})]))
    assert [window.reference for window in found.windows] == ([] if reference is None else [reference])
    assert found.games[0].previous == previous
    assert found.defects == ()


def test_lost_words_never_cost_an_event(tmp_path: Path) -> None:
    words = [[9.0, 3.0, "one"], [3.0, 4.0, "two"], [4.0, 5.0, "three"], [1.0, 1.5, "back"]]
    found = LiveSports(write_livesports(tmp_path, [event(0, 2.0, 6.5, event_asr=words, event_asr_text="")]))
    assert found.windows[0].reference == "one two three"
    assert counts(found)["repaired words"] == (2, None)
    assert [defect.item for defect in found.defects] == ["vid_0", "vid_0"]


def test_overlapping_events_are_told_once(tmp_path: Path) -> None:
    events = [event(0, 2.0, 6.5), event(1, 6.0, 9.0), event(2, 9.0, 12.0), event(0, 6.0, 7.0, "other")]
    found = LiveSports(write_livesports(tmp_path, events))
    assert [(one.item, one.what) for one in found.defects] == [("vid_1", "overlaps vid_0 by 0.5 s; both are judged")]
    assert len(found.windows) == 4


def test_events_that_cannot_be_used_are_told_and_counted(tmp_path: Path) -> None:
    events = [
        event(0, 2.0, 6.5),
        "no event",
        event(0, 7.0, 9.0),
        event(3, 9.0, 9.0),
        {**event(4, 2.0, 6.5), "begin": "soon"},
        event(5, 2.0, 6.5, event_asr="[[1,"),
        event(6, 2.0, 6.5, event_asr=[["x"]]),
        {**event(7, 2.0, 6.5), "video_id": None},
        event(8, 7.0, 9.0) | {"event_id": "8", "video": None},
    ]
    found = LiveSports(write_livesports(tmp_path, events))
    assert [window.id for window in found.windows] == ["vid_0", "vid_8"]
    assert [one.video.key for one in found.games] == ["vid.mp4", "vid.mp4"]
    assert [f"{one.item}: {one.what}".partition("event ")[2] for one in found.defects] == [
        "2: left out: not an object",
        "3: left out: vid_0 is there already",
        "4: left out: vid_3 ends at 9 s and begins at 9 s",
        "5: left out: vid_4: begin is 'soon', no time in seconds",
        "6: left out: vid_5: event_asr is no JSON",
        "7: left out: vid_6: event_asr: not a list of [start, end, text]",
        '8: left out: an event needs "video_id", a text, and "event_id", a number',
    ]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    found = LiveSports(write_livesports(tmp_path))
    said = [Said(2.0, 3.0, "A goal "), Said(3.0, 4.0, ""), Said(4.0, 5.0, "by Smith.")]
    (line,) = found.published(found.games[0], said)
    assert line == {"video_id": "vid", "event_id": 0, "begin": 2.0, "end": 6.5, "pred": "A goal by Smith."}
    (silent,) = found.published(found.games[1], [Said(7.0, 8.0, "")])
    path = write_jsonl(tmp_path / "p.jsonl", [line, silent])
    assert found.texts(path) == {"vid_0": "A goal by Smith.", "vid_1": ""}


def test_a_prediction_of_others_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = LiveSports(write_livesports(tmp_path))
    lines = [
        {"video_id": "vid", "event_id": "0", "pred": " and he scores..."},
        {"video_id": "vid", "event_id": 1.0, "begin": 7, "end": 9, "pred": "..."},
        {"video_id": "gone", "event_id": 1, "pred": "x"},
    ]
    with caplog.at_level(logging.WARNING):
        assert found.texts(write_jsonl(tmp_path / "p.jsonl", lines)) == {"vid_0": "and he scores...", "vid_1": ""}
    assert "1 events that the data do not have, as 'gone_1'" in caplog.text


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["x"], "line 1 is not a JSON object"),
        ([{"event_id": 1, "pred": "x"}], 'line 1: an event needs "video_id"'),
        ([{"video_id": "vid", "event_id": 1}], r'line 1 \(vid_1\) needs "pred", a text'),
        ([{"video_id": "vid", "event_id": e, "pred": "x"} for e in (1, "1")], r"line 2: vid_1 is there twice .*line 1"),
        ([{"video_id": "gone", "event_id": 1, "pred": "x"}], "speaks of no event of .*'gone_1' is none"),
    ],
)
def test_a_prediction_file_that_cannot_be_meant_is_one_line(lines: list[Any], why: str, tmp_path: Path) -> None:
    found = LiveSports(write_livesports(tmp_path))
    with pytest.raises(SourceError, match=why) as caught:
        found.texts(write_jsonl(tmp_path / "p.jsonl", lines))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("LiveSports-3K-CC.json", "{", "neither a JSON array of events nor CSV"),
        ("LiveSports-3K-CC.json", "{}", "is not a JSON array of events"),
        ("LiveSports-3K-CC.json", "[]", "has no event that can be read"),
        ("x.csv", "a,b\n1,2\n", r"has no event that can be read \(x\.csv, event 1: left out: an event needs"),
        ("readme.md", "", "has neither LiveSports-3K-CC.json nor the CSV files"),
    ],
)
def test_data_that_cannot_be_read_are_one_line(name: str, text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=why):
        LiveSports(tmp_path)
