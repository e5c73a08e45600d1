"""Figures of votes that can be counted by hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from streamingvlm.evaluate.judging.report import report, summary
from streamingvlm.evaluate.judging.votes import Choice, Vote
from streamingvlm.evaluate.judging.votes_file import Judged, Place
from streamingvlm.evaluate.judging.win_rates import fifths, length_quartiles, win_rates

SETTINGS: dict[str, Any] = {
    "task": "inf-streams",
    "revision": "r1",
    "a": {"name": "ours"},
    "b": {"name": "theirs"},
    "judge": "gpt",
    "host": "api.example",
    "prompt": "inf-streams/1#ab",
    "parameters": {"temperature": 0.0},
    "repeats": 1,
}
PLACES = [
    Place(f"{v}{w}", v, "golf" if v == "u" else "darts", 100.0 * w, 100.0 * w + 100) for v, w in product("uv", range(5))
]


def vote(place: Place, order: str, choice: Choice | None, repeat: int = 0, **more: Any) -> Vote:
    more = {"words_a": 10, "words_b": 20} | more
    return Vote(place.window, place.video, place.group, place.start, place.end, order, repeat, choice, "", **more)


def votes(*choices: str) -> Iterator[Vote]:
    """A word for each window: the choices in order ab and ba (a, b, t: tie, x: error)."""
    names: dict[str, Choice | None] = {"a": "a", "b": "b", "t": "tie", "x": None}
    for place, pair in zip(PLACES, choices, strict=False):
        for order, letter in zip(("ab", "ba"), pair, strict=True):
            error = "unparsed: 3 replies" if letter == "x" else ""
            yield vote(place, order, names[letter], error=error)


def figures(*found: Vote, repeats: int = 1) -> dict[str, Any]:
    figure: dict[str, Any] = win_rates(Judged(SETTINGS | {"repeats": repeats}, PLACES, found), resamples=200)["figures"]
    return figure


def values(figure: dict[str, Any], *names: str) -> list[tuple[float | None, int]]:
    return [(round(figure[name]["value"], 3), figure[name]["n"]) for name in names]


def test_shares_and_orders_are_counted() -> None:
    #               consistent, flips, tie and a, consistent, consistent, half an error, b in both
    found = figures(*votes("aa", "ab", "ta", "aa", "tt", "ax", "bb"))
    assert values(found, "win_rate") == [(pytest.approx(100 * 8.5 / 13, abs=1e-3), 13)]
    assert [found["shares"][choice]["value"] * 13 for choice in ("a", "tie", "b")] == pytest.approx([700, 300, 300])
    assert values(found, "consistent", "flips") == [(66.667, 6), (16.667, 6)]
    assert values(found, "win_rate_consistent") == [(62.5, 4)]
    # First in ab: a; in ba: b. Decisive: aa 1/2, ab 2/2, -a 0/1, aa 1/2, a- 1/1, bb 1/2.
    assert values(found, "first_position") == [(60.0, 10)]
    assert "repeat_stability" not in found


@pytest.mark.parametrize(
    ("pairs", "win_rate", "consistent", "flips", "first"),
    [
        (["ab"] * 10, 50.0, 0.0, 100.0, 100.0),  # the first text always
        (["ba"] * 10, 50.0, 0.0, 100.0, 0.0),  # the last one always
        (["aa"] * 10, 100.0, 100.0, 0.0, 50.0),
        (["aa"] * 5 + ["bb"] * 5, 50.0, 100.0, 0.0, 50.0),
        (["at"] * 10, 75.0, 0.0, 0.0, 100.0),
    ],
)
def test_a_judge_is_known_by_its_orders(
    pairs: list[str], win_rate: float, consistent: float, flips: float, first: float
) -> None:
    found = figures(*votes(*pairs))
    names = ("win_rate", "consistent", "flips", "first_position")
    assert [found[name]["value"] for name in names] == [win_rate, consistent, flips, first]


def test_empty_texts_are_losses_that_no_figure_on_the_judge_counts() -> None:
    judged = [*votes("aa")]
    empty = [vote(PLACES[1], order, "b", empty="a", words_a=0) for order in ("ab", "ba")]
    both = [vote(PLACES[2], order, "tie", empty="ab", words_a=0, words_b=0) for order in ("ab", "ba")]
    found = win_rates(Judged(SETTINGS, PLACES, [*judged, *empty, *both]), resamples=50)
    assert found["counts"]["empty"] == {"a": 2, "b": 0, "ab": 2}
    assert values(found["figures"], "win_rate", "without_empty", "consistent") == [(50.0, 6), (100.0, 2), (100.0, 1)]
    assert found["figures"]["first_position"]["n"] == 2


def test_errors_are_counted_and_are_no_votes() -> None:
    found = win_rates(Judged(SETTINGS, PLACES, [*votes("aa", "xx", "ax")]), resamples=50)
    counted = found["counts"]
    assert (counted["expected"], counted["judged"], counted["errors"], counted["not_asked"]) == (20, 3, 3, 14)
    assert counted["errors_by_kind"] == {"unparsed": 3}
    assert values(found["figures"], "win_rate") == [(100.0, 3)]


def test_repeats_are_compared_two_by_two() -> None:
    same = [vote(PLACES[0], "ab", "a", repeat) for repeat in range(3)]
    once = [vote(PLACES[1], "ab", choice, repeat) for repeat, choice in enumerate(("a", "a", "b"))]  # type: ignore[arg-type]
    assert values(figures(*same, *once, repeats=3), "repeat_stability") == [(pytest.approx(66.667), 6)]


def test_fifths_are_of_the_windows_of_each_video() -> None:
    places = [
        *PLACES,
        Place("late", "w", "", 5000.0, 5100.0),
        *(Place(f"x{s}", "x", "", s, s + 10) for s in (50.0, 90.0)),
    ]
    found = fifths(Judged(SETTINGS, places, []))
    assert [found[place.window] for place in PLACES] == [0, 1, 2, 3, 4] * 2
    assert "late" not in found  # alone in its video: no part of it
    assert (found["x50.0"], found["x90.0"]) == (0, 4)


def test_parts_have_their_own_rates() -> None:
    found = figures(*votes("aa", "aa", "bb", "bb", "tt", "bb", "bb", "bb", "bb", "bb"))
    assert [found["fifths"][str(number)]["value"] for number in range(1, 6)] == [50.0, 50.0, 0.0, 0.0, 25.0]
    assert [found["groups"][name]["value"] for name in ("golf", "darts")] == [50.0, 0.0]
    assert list(found["fifths"]) == ["1", "2", "3", "4", "5"]


def test_quartiles_go_by_the_share_of_words() -> None:
    lengths = [(10, 90), (20, 80), (30, 70), (40, 60), (50, 50), (60, 40), (70, 30), (80, 20)]
    found = [vote(place, "ab", "a", words_a=a, words_b=b) for place, (a, b) in zip(PLACES, lengths, strict=False)]
    assert list(length_quartiles(found).values()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert length_quartiles([vote(PLACES[0], "ab", "b", empty="a", words_a=0)]) == {}


def test_a_judge_that_likes_length_is_far_from_its_controlled_rate() -> None:
    """a is the longer text in 8 windows of 10: it wins these."""
    lengths = [(20, 10)] * 8 + [(10, 20)] * 2
    found = [
        vote(place, order, "a" if a > b else "b", words_a=a, words_b=b)
        for place, (a, b) in zip(PLACES, lengths, strict=True)
        for order in ("ab", "ba")
    ]
    tree = figures(*found)
    assert tree["win_rate"]["value"] == 80.0
    # Not 50: where length decides every vote, what is left for the contestant is half the log of 8 to 2.
    assert tree["length_controlled"]["win_rate"]["value"] == pytest.approx(65, abs=2)
    assert tree["length_controlled"]["reason"] == ""


def test_intervals_are_over_videos_and_none_is_of_a_single_one() -> None:
    both = figures(*votes(*["aa"] * 5, *["bb"] * 5))
    assert (both["win_rate"]["low"], both["win_rate"]["high"]) == (0.0, 100.0)  # two videos: either may be drawn twice
    assert both["groups"]["golf"] == {"value": 100.0, "low": None, "high": None, "n": 10}
    one = figures(*votes(*["ab"] * 5))
    assert one["win_rate"] == {"value": 50.0, "low": None, "high": None, "n": 10}


def test_without_votes_there_are_no_figures() -> None:
    found = win_rates(Judged(SETTINGS, PLACES, [*votes("xx")]))
    assert found["videos"] == {}
    assert found["figures"] == {
        "length_controlled": {
            "win_rate": {"value": None, "low": None, "high": None, "n": 0},
            "reason": "there is no vote",
        }
    }


PASSED = {"passed": True, "failed": [], "errors": 0.0, "most_errors": 5.0, "kinds": {}}


@pytest.fixture
def no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamingvlm.evaluate.judging.report.calibration_table", str)


WHOLE = [*votes(*["aa"] * 6, *["bb"] * 4)]


@pytest.mark.usefixtures("no_table")
@pytest.mark.parametrize(
    ("found", "calibration", "options", "prints", "never"),
    [
        (WHOLE, PASSED, {}, ["win rate of ours against theirs: 60.00 (20.0 - 100.0) %"], "withheld"),
        (WHOLE, None, {}, ["withheld: all figures: the judge was not calibrated"], "60.00"),
        (WHOLE, PASSED | {"passed": False}, {}, ["the judge has failed its calibration"], "60.00"),
        (WHOLE, None, {"without_calibration": True}, ["60.00", "(judge not calibrated)", "NOT CALIBRATED"], "withheld"),
        (WHOLE[:-1], PASSED, {}, ["the headline: 1 of 20 votes are missing", "19 of 20 votes"], "win rate of ours"),
        (WHOLE[:-1], PASSED, {"partial": True}, ["win rate of ours against theirs: 63.16"], "withheld"),
    ],
)
def test_what_may_not_be_printed_is_withheld_by_name(
    found: list[Vote], calibration: dict[str, Any] | None, options: dict[str, bool], prints: list[str], never: str
) -> None:
    tree = summary(Judged(SETTINGS, PLACES, found), calibration, resamples=50, **options)
    text = report(tree)
    assert [words for words in prints if words not in text] == []
    assert never not in text
    assert (tree["headline"] is None) == bool(tree["withheld"])


@pytest.mark.usefixtures("no_table")
def test_votes_of_several_model_versions_are_noted() -> None:
    calls = [
        {"model": "gpt-1", "fingerprint": "f"},
        {"model": "gpt-1", "fingerprint": "g"},
        {"model": "gpt-1", "fingerprint": "g"},
    ]
    found = [vote(PLACES[0], order, "a", call=call) for order, call in zip(("ab", "ba"), calls, strict=False)]
    tree = summary(Judged(SETTINGS, PLACES, found), PASSED, resamples=20)
    assert tree["counts"]["returned"] == {"gpt-1 f": 1, "gpt-1 g": 1}
    assert "NOTE: votes come from more than one model or version (gpt-1 f: 1, gpt-1 g: 1)" in report(tree)
