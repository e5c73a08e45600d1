"""Each figure of the score on cases small enough to count by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from arcade_streams.score.score import ScoreError, score, score_files, score_many


def clip(*rows: tuple[int, str]) -> dict[str, Any]:
    return {"video": "a.mp4", "title": "", "content": [[at, at + 1, text] for at, text in rows]}


def said(*rows: tuple[int, str]) -> list[dict[str, Any]]:
    return [{"start": at, "end": at + 1, "text": text} for at, text in rows]


RALLY = (
    (2, "green serves"),
    (4, "orange returns top"),
    (6, "green returns bottom"),
    (8, "orange scores ; score 0 to 1"),
)


def test_the_truth_itself_is_perfect() -> None:
    figures = score(clip(*RALLY), said(*RALLY))
    for name in ("micro_f1_strict", "micro_f1", "macro_f1_strict", "macro_f1", "colours", "zones", "score"):
        assert figures[name] == 1.0
    assert figures["names"] is None
    assert figures["tally"] is None
    assert figures == score(clip(*RALLY), clip(*RALLY))


def test_late_is_not_strict() -> None:
    figures = score(clip(*RALLY), said(*((at + 1, text) for at, text in RALLY)))
    assert (figures["micro_f1_strict"], figures["micro_f1"]) == (0.0, 1.0)
    figures = score(clip(*RALLY), said(*((at + 2, text) for at, text in RALLY)))
    assert figures["micro_f1"] == 0.0


def test_precision_recall_and_macro() -> None:
    words = said((2, "serve green"), (4, "orange returns bottom"), (5, "orange returns top"), (9, "green scores"))
    figures = score(clip(*RALLY), words)
    # true: 5 events; said: 4; at once: the serve; within 1 s: also "orange returns top".
    assert figures["micro_f1_strict"] == pytest.approx(2 / 9)
    assert figures["micro_f1"] == pytest.approx(4 / 9)
    assert figures["macro_f1"] == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert figures["by_kind"]["return"] == {
        "strict": 0.0, "within_1s": 0.5, "n_true": 2, "n_said": 2, "precision": 0.5, "recall": 0.5,
    }  # fmt: skip
    # Paired by kind and time alone: serve 2-2, returns 4-4 and 6-5, point 8-9.
    assert figures["colours"] == 0.5
    assert figures["zones"] == 0.0
    assert figures["counts"]["events_said"] == 4


def test_one_event_is_matched_once() -> None:
    figures = score(clip((5, "green scores")), said((4, "green scores"), (5, "green scores"), (6, "green scores")))
    assert figures["by_kind"]["point"]["n_said"] == 3
    assert figures["micro_f1_strict"] == figures["micro_f1"] == 0.5


def test_names_near_and_far() -> None:
    truth = clip((10, "game player green Mina"), (100, "game player green Mina"), (400, "match home green Oslo"))
    words = said((10, "game player green Max"), (101, "game player green Mina"), (400, "match home green Oslo"))
    figures = score(truth, words)
    assert figures["names"] == pytest.approx(2 / 3)
    assert figures["names_by_gap"] == {"<=240s": 1.0, ">240s": 0.5}


def test_names_that_are_said_are_judged_by_the_context_alone() -> None:
    context = "first to 3 games ; player green Mina ; player orange Felix ; home green Oslo ; home orange Turin"
    truth = {**clip((10, "game player green Mina"), (400, "match home green Oslo")), "title": context}
    # A game that opens no match, a match that the other side won, and one that was not over: each names whom it says.
    words = said(
        (10, "game green"),
        (50, "game player orange Felix"),
        (200, "match home green Turin"),
        (400, "match home orange Turin"),
    )
    figures = score(truth, words)
    assert figures["names"] == 0.0
    assert figures["names_said"] == pytest.approx(2 / 3)
    assert figures["counts"]["names_said"] == 3
    assert score({**truth, "title": ""}, words)["names_said"] is None
    assert score(truth, said((10, "game green")))["names_said"] is None


def test_tally_steps_by_gap() -> None:
    truth = clip(
        (10, "games 0 to 0"),
        (40, "game green"),
        (41, "games 1 to 0"),
        (80, "game orange"),
        (90, "match home orange Oslo"),
    )
    words = said(
        (10, "games 0 to 0"),  # right from the start
        (20, "games 1 to 0"),  # no game yet
        (41, "games 2 to 0"),  # a right step from what was said
        (60, "games 2 to 0"),  # right
        (91, "games 2 to 1"),  # right: just after a match one may still tell its tally
        (120, "games 0 to 0"),  # right: by now it is over
        (130, "games 1 to 0"),  # wrong
    )
    figures = score(truth, words)
    assert figures["tally_steps"] == {"<=16s": 0.0, ">16s": 1.0, "all": pytest.approx(5 / 7)}
    assert figures["tally"] == 0.5
    assert figures["tally_self_consistent"] == pytest.approx(2 / 7)


def test_repetition() -> None:
    words = said((1, "green serves"), (2, "green serves"), (3, ""), (4, "green serves"))
    figures = score(clip((1, "green serves")), words)
    assert figures["longest_repeat"] == 3
    assert figures["repetition"] == pytest.approx(2 / 3)


def test_play_is_the_mean_over_the_kinds_that_are_seen() -> None:
    truth = clip((1, "green serves"), (3, "orange returns top"), (5, "green returns top"), (7, "green holds still"))
    words = said((1, "green serves"), (3, "orange returns top"), (6, "green returns top"), (9, "score 1 to 0"))
    # Serve 1, returns 1 of 2 in the same second, hold 0; a score is no play.
    assert score(truth, words)["play"] == pytest.approx((1 + 0.5 + 0) / 3)


def test_silence() -> None:
    truth = clip((1, "green serves"), (3, "orange returns top"), (5, "green returns top"))
    figures = score(truth, said((1, "green serves"), (2, "green serves"), (3, "  "), (9, "")))
    # Of the seconds 0 to 9 nothing is said in all but 1 and 2; 3 and 5 of them are not silent.
    assert figures["silence_precision"] == pytest.approx(6 / 8)


def test_first_ten_minutes_and_last_half_hour() -> None:
    rows = [(at, "green serves") for at in range(5, 2400, 10)]
    figures = score(clip(*rows), said(*[row for row in rows if row[0] < 600], (2399, "")))
    assert figures["minutes_0_10"]["micro_f1_strict"] == 1.0
    assert figures["last_30_minutes"]["micro_f1"] == 0.0


def test_fifths_and_minutes() -> None:
    rows = [(at, "green serves") for at in range(5, 600, 10)]
    figures = score(clip(*rows), said(*[row for row in rows if row[0] < 120], (599, "")))
    assert [part["micro_f1"] for part in figures["fifths"]] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert figures["minutes_0_2"]["micro_f1"] == 1.0
    assert figures["minutes_8_10"]["micro_f1_strict"] == 0.0
    assert score(clip(*RALLY), [])["minutes_0_2"]["micro_f1"] is None


def test_chance_is_the_shifted_truth() -> None:
    rows = [(at, "green serves" if at % 20 == 0 else "orange serves") for at in range(0, 400, 10)]
    chance = score(clip(*rows), [])["chance"]
    assert chance["micro_f1_strict"] < 0.05  # what is shifted past the end comes in at the start
    always = [(at, "long rally") for at in range(100)]
    assert score(clip(*always), [])["chance"]["micro_f1_strict"] == 1.0


def test_games_are_scored_apart() -> None:
    with pytest.raises(ScoreError, match="chess"):
        score({**clip(*RALLY), "game": "chess"}, said(*RALLY))
    fight = {**clip((1, "white misses high"), (3, "white lands ; score 1 to 0")), "game": "boxing"}
    assert score(fight, fight)["by_kind"].keys() == {"miss", "point", "score"}
    with pytest.raises(ScoreError, match="pong and boxing"):
        score_many([(clip(*RALLY), said()), (fight, fight)])


def test_clips_are_pooled_by_counts() -> None:
    good, bad = (clip(*RALLY), said(*RALLY)), (clip((1, "green serves")), said())
    figures = score_many([good, bad])
    assert figures["micro_f1"] == pytest.approx(2 * 5 / (5 + 6))
    assert figures["clips"] == 2
    assert score_many([])["micro_f1"] is None


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\u2029"])
def test_a_line_ends_where_json_lines_end(tmp_path: Path, odd: str) -> None:
    truth, said = tmp_path / "truth.jsonl", tmp_path / "said.jsonl"
    truth.write_text(json.dumps({"video": "v", "title": f"a{odd}b", "content": [[0, 1, "green serves"]]}) + "\n")
    said.write_text(f'{{"start": 0, "end": 1, "text": "green serves{odd}"}}\n', encoding="utf-8")
    assert score_files(truth, said)["micro_f1"] == 1.0


def test_files(tmp_path: Path) -> None:
    truth, out = tmp_path / "clip.jsonl", tmp_path / "out.jsonl"
    truth.write_text(json.dumps(clip(*RALLY)) + "\n")
    out.write_text("\n".join(json.dumps({**row, "timing": {}}) for row in said(*RALLY)) + "\n")
    figures = score_files(truth, out)
    assert figures["micro_f1_strict"] == 1.0
    json.dumps(figures, allow_nan=False)
    out.write_text("")
    assert score_files(truth, out)["micro_f1"] == 0.0


@pytest.mark.parametrize("text", ["", "not json", "[1]", '{"start": 1, "text": "x"}', '{"content": [[1, 2]]}'])
def test_files_that_are_no_truth(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(ScoreError):
        score_files(path, path)
    with pytest.raises(ScoreError, match="cannot read"):
        score_files(tmp_path / "missing.jsonl", path)
