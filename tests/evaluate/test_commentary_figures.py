"""Figures of commentary without a judge, each against values worked out by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.events import Commentary, Timing
from streamingvlm.evaluate.commentary.figures import figures, report
from streamingvlm.evaluate.commentary.inf_streams import InfStreams
from streamingvlm.evaluate.commentary.livesports import LiveSports
from streamingvlm.evaluate.commentary.mentions import mentions, unsupported
from streamingvlm.evaluate.commentary.repetition import distinct, longest_repeat, repeated_lines, sentences_of, words_of
from streamingvlm.evaluate.record import Record
from support.benchmark_data import event, write_inf_streams, write_livesports


def longest_by_trying(words: list[str]) -> int:
    """The same by looking at every pair of places."""
    best = 0
    for one in range(len(words)):
        for two in range(one + 1, len(words)):
            length = 0
            while two + length < len(words) and one + length < two and words[one + length] == words[two + length]:
                length += 1
            best = max(best, length)
    return best


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("", 0),
        ("a b c", 0),
        ("go go", 1),
        ("go go go go go", 2),
        ("I don't know. I don't know!", 3),
        ("what a goal that is what a goal", 3),
    ],
)
def test_the_longest_repeat(text: str, longest: int) -> None:
    assert longest_repeat(words_of(text)) == longest


def test_the_longest_repeat_is_the_one_found_by_trying() -> None:
    chance = random.Random(7)
    for letters, length in [(2, 30), (3, 60), (5, 80), (20, 80)]:
        for _ in range(10):
            words = [str(chance.randrange(letters)) for _ in range(chance.randrange(length))]
            assert longest_repeat(words) == longest_by_trying(words)


def test_distinct_n_grams_and_lines() -> None:
    words = words_of("the ball, the ball, the net")
    assert words == ["the", "ball", "the", "ball", "the", "net"]
    assert distinct(words, 1) == 3 / 6
    assert distinct(words, 2) == 3 / 5
    assert distinct(words, 4) == 1.0
    assert distinct(words, 7) is None
    assert repeated_lines(["He shoots", "he shoots!", "...", "he scores"]) == (1, 3)
    assert repeated_lines([]) == (0, 0)
    assert sentences_of(" He shoots. Goal! 2.5 m and so") == ["He shoots.", "Goal!", "2.5 m and so"]
    assert words_of('Full-back\'s "run" – don’t') == ["full-back's", "run", "don’t"]


@pytest.mark.parametrize(
    ("text", "names", "numbers"),
    [
        ("", [], []),
        ("Curry brings it up to Green.", ["green"], []),
        ("and Curry’s three! Thompson to Curry", ["curry", "curry"], ["3"]),
        (
            "it's 2-1 now, $43 for the 90th, No.10 has 1,000 or 3.5",
            [],
            ["2", "1", "43", "90", "10", "1000", "3.5"],
        ),
        ("twenty-one to twenty two, thirty love, a hundred", [], ["21", "22", "30", "100"]),
        ("that one and no one, nil all, seventy-one", [], ["0", "71"]),
        ("so I think I'm on TV on Monday", [], []),
        ("then: Smith? Jones… Brown\nWhite and Green", ["green"], []),
        ("now O'Neill and Müller, A B", ["o'neill", "müller"], []),
        ("score 007 and 0", [], ["7", "0"]),
    ],
)
def test_names_and_numbers(text: str, names: list[str], numbers: list[str]) -> None:
    found = mentions(text)
    assert (found.names, found.numbers) == (names, numbers)


def test_what_a_window_does_not_have() -> None:
    said = mentions("now Curry finds Green and LeBron, 21 to 1, 7 left")
    bare = unsupported(said, "curry has it, one to twenty-one", "LEBRON'S game")
    assert (bare.names, bare.numbers) == (["green"], ["7"])
    assert unsupported(said, "", "").names == said.names


def steps(*texts: str, start: float = 0.0, lag: float = 0.5) -> list[Commentary]:
    """Commentary of one step a second; lags grow by the hundredth."""
    return [
        Commentary(start + i, start + i + 1, text, timing=Timing(decode=0.25, lag=lag + i / 100))
        for i, text in enumerate(texts)
    ]


def record(folder: Path, name: str, events: list[Commentary], settings: dict[str, Any] | None = None) -> Path:
    path = folder / f"{name}.jsonl"
    kept = Record(path, settings or {"policy": "p"})
    kept.begin(0.0)
    for one in events:
        kept.add(one)
    kept.answer(1.0, "who?", "nobody")
    kept.end()
    kept.close(done=True)
    return path


def two_windows(tmp_path: Path) -> InfStreams:
    """One game of 200 s, windows from 0 to 100 and from 100 to 200 s of 200 words each."""
    first = [[i / 2, i / 2 + 0.5, "Curry" if i == 9 else f"u{i}"] for i in range(200)]
    second = [[100 + i / 2, 100.5 + i / 2, "nine" if i == 9 else f"v{i}"] for i in range(200)]
    write_inf_streams(tmp_path, [{"video": "nba/a.mp4", "title": "Warriors - Lakers", "content": first + second}])
    return InfStreams(tmp_path, start="0")


def test_figures_of_windows(tmp_path: Path) -> None:
    found = two_windows(tmp_path)
    texts = {
        "nba/a.mp4:0-100": "the Warriors. and Curry to Jokic! And Jokic. and Jokic.",
        "nba/a.mp4:100-200": "",
    }
    tree = figures(found, texts)
    windows = tree["windows"]
    assert (windows["expected"], windows["found"], windows["empty"]) == (2, 2, 1)
    assert windows["all"]["seconds"] == 200.0
    assert (windows["all"]["words"], windows["all"]["words_per_second"]) == (10, 10 / 200)
    assert windows["all"]["repeated_lines"] == 1 / 4
    assert windows["all"]["distinct_1"] == 6 / 10
    assert windows["all"]["longest_repeat"] == 2
    assert "silent_share" not in windows["all"]
    # Their middles lie at 50 and 150 of 200 s: in the second and the fourth fifth.
    assert [part["seconds"] for part in windows["fifths"]] == [0, 100, 0, 100, 0]
    assert [part["words_per_second"] for part in windows["fifths"]] == [None, 0.1, None, 0.0, None]
    assert [part["longest_repeat"] for part in windows["fifths"]] == [None, 2, None, 0, None]
    assert tree["reference"]["all"]["words_per_second"] == 2.0
    assert tree["streams"] is None
    assert tree["mentions"]["names"] == {
        "said": 5,
        "unsupported": 3,
        "share": 3 / 5,
        "windows": 1,
        "windows_with_unsupported": 1,
        "share_of_windows": 1.0,
        "most_frequent": [["jokic", 3]],
    }
    assert tree["mentions"]["numbers"]["share"] is None


def test_a_name_is_looked_for_in_its_own_window(tmp_path: Path) -> None:
    found = two_windows(tmp_path)
    texts = {"nba/a.mp4:0-100": "now Curry has 9", "nba/a.mp4:100-200": "now Curry has 9 Lakers"}
    told = figures(found, texts)["mentions"]
    assert (told["names"]["said"], told["names"]["most_frequent"]) == (3, [["curry", 1]])
    assert (told["numbers"]["said"], told["numbers"]["unsupported"]) == (2, 1)
    assert told["numbers"]["share_of_windows"] == 0.5


def test_missing_windows_are_not_measured(tmp_path: Path) -> None:
    found = two_windows(tmp_path)
    tree = figures(found, {"nba/a.mp4:100-200": "a b c d"})
    assert (tree["windows"]["found"], tree["windows"]["all"]["seconds"]) == (1, 100.0)
    assert tree["reference"]["all"]["words"] == 200
    none = figures(found, {})
    assert none["windows"]["all"]["words_per_second"] is None
    assert none["mentions"]["names"]["share"] is None
    assert "windows: 0 of 2" in report(none)


@pytest.mark.parametrize("start", [0.0, 1000.0])
def test_figures_of_streams(start: float, tmp_path: Path) -> None:
    """The record's clock may be the stream's or the video's."""
    content = [[i / 2, i / 2 + 0.5, "w"] for i in range(20)]
    write_inf_streams(tmp_path, [{"video": "a.mp4", "content": content}, {"video": "b.mp4", "content": content}])
    found = InfStreams(tmp_path, start="0")
    texts = ["a b", "", "A b!", "c", "", "", "a b", "a b", "d e f", ""]
    record(tmp_path / "streams", found.games[0].name, steps(*texts, start=start))
    streams = figures(found, {}, tmp_path / "streams")["streams"]
    assert (streams["expected"], streams["found"]) == (2, 1)
    whole = streams["all"]
    assert (whole["seconds"], whole["words"], whole["words_per_second"]) == (10.0, 12, 1.2)
    assert whole["silent_share"] == 0.4
    assert whole["work_per_second"] == pytest.approx(0.25)
    assert (whole["lag_p50"], whole["lag_p95"]) == (pytest.approx(0.545), pytest.approx(0.5855))
    assert whole["repeated_lines"] == 3 / 6
    assert whole["distinct_1"] == 6 / 12
    assert whole["longest_repeat"] == 4
    fifths = streams["fifths"]
    assert [part["words"] for part in fifths] == [2, 3, 0, 4, 3]
    assert [part["silent_share"] for part in fifths] == [0.5, 0.0, 1.0, 0.0, 0.5]
    # Within its fifth only the fourth's second line was said before.
    assert [part["repeated_lines"] for part in fifths] == [0.0, 0.0, None, 0.5, 0.0]
    assert [part["lag_p50"] for part in fifths] == [pytest.approx(0.505 + 0.02 * i) for i in range(5)]


def test_a_stream_that_ended_early_keeps_the_fifths_of_its_game(tmp_path: Path) -> None:
    write_inf_streams(tmp_path, [{"video": "a.mp4", "content": [[i, i + 1, "w"] for i in range(10)]}])
    found = InfStreams(tmp_path, start="0")
    record(tmp_path / "streams", found.games[0].name, steps("a", "b", "c"))
    streams = figures(found, {}, tmp_path / "streams")["streams"]
    assert [part["words"] for part in streams["fifths"]] == [2, 1, 0, 0, 0]


def test_a_window_that_is_a_whole_game_has_no_fifths(tmp_path: Path) -> None:
    found = LiveSports(write_livesports(tmp_path, [event(0, 2.0, 6.5), event(1, 7.0, 9.25)]))
    tree = figures(found, {"vid_0": "one", "vid_1": "two"})
    assert tree["windows"]["fifths"] is None
    assert tree["windows"]["all"]["words_per_second"] == pytest.approx(2 / 6.75)


def test_the_tree_is_json_and_the_table_shows_it(tmp_path: Path) -> None:
    found = two_windows(tmp_path)
    texts = {"nba/a.mp4:0-100": "and Jokic\x1b scores 777", "nba/a.mp4:100-200": "no"}
    record(tmp_path / "streams", found.games[0].name, steps(*["a b"] * 150, *[""] * 50))
    tree = figures(found, texts, tmp_path / "streams")
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    lines = report(tree).splitlines()
    assert lines[0] == "windows: 2 of 2, 0 without words"
    silent = next(line for line in lines if "silent_share" in line)
    assert silent.split() == ["silent_share", "0.25", "0", "0", "0", "0.25", "1"]
    (pace, human, said) = [line.split() for line in lines if "words_per_second" in line]
    assert (pace[1], human[1], said[1]) == ("0.025", "2", "1.5")
    assert "streams: 1 of 1" in lines
    assert lines[-4:] == [
        "  names: 1 of 1 (1), in 0.5 of the windows",
        "    jokic 1",
        "  numbers: 1 of 1 (1), in 0.5 of the windows",
        "    777 1",
    ]


@pytest.mark.parametrize(("lost", "words"), [(60, 2), (0, 4)])
def test_records_of_runs_that_were_killed(lost: int, words: int, tmp_path: Path) -> None:
    found = two_windows(tmp_path)
    path = record(tmp_path / "streams", found.games[0].name, steps("a b", "c d"), {"policy": "q", "seed": 1})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3])[: -lost or None])
    assert figures(found, {}, tmp_path / "streams")["streams"]["all"]["words"] == words
    path.write_bytes(lines[0][:5])
    assert figures(found, {}, tmp_path / "streams")["streams"]["found"] == 0


def test_two_hours_are_measured_in_a_moment() -> None:
    chance = random.Random(3)
    words = [f"w{chance.randrange(3000)}" for _ in range(20000)]
    words[15000:15040] = words[100:140]
    assert longest_repeat(words) >= 40
    assert longest_repeat(["again"] * 20000) == 10000
