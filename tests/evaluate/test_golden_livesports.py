"""The published votes of LiveSports-3K-CC, counted to the published win rates.

The votes are not part of this repository: ``python scripts/fetch_golden.py`` says how to get them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.evaluate.judging.votes import Choice, Order, Vote
from streamingvlm.evaluate.judging.votes_file import Judged, Place
from streamingvlm.evaluate.judging.win_rates import win_rates

GOLDEN = Path(__file__).resolve().parents[2] / "golden-data" / "livecc" / "evaluation" / "livesports3kcc"
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"{GOLDEN} is missing; python scripts/fetch_golden.py says how to get it"
)


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / name).read_text().splitlines() if line.strip()]


def published(model: str) -> Judged:
    """The votes of both orders; the places and lengths of the texts are those of the prediction files."""
    ours, theirs = (
        {f"{row['video_id']}_{row['event_id']}": row for row in lines(name)}
        for name in (f"livecc/{model}.jsonl", "captions/GPT-4o.jsonl")
    )
    choices: dict[str, Choice] = {model: "a", "GPT-4o": "b", "tie": "tie"}
    orders: tuple[Order, ...] = ("ab", "ba")
    places, votes = [], []
    for row in lines(f"judges/GPT-4o_{model}.jsonl"):
        event = row["video_event_id"]
        at = theirs[event]
        places.append(Place(event, at["video_id"], "", at["begin"], at["end"]))
        words = {"words_a": len(ours[event]["pred"].split()), "words_b": len(at["pred"].split())}
        for order in orders:
            choice = choices[row[f"{order}_winner"]]
            votes.append(Vote(event, at["video_id"], "", at["begin"], at["end"], order, 0, choice, "", **words))
    return Judged({"repeats": 1}, places, votes)


@pytest.mark.parametrize(
    ("model", "win_rate", "first", "flips", "consistent", "bounds", "quartiles"),
    [
        ("LiveCC-7B-Instruct", 47.24, 68.1, 37.6, 45.6, (45.1, 49.4), (54.8, 50.2, 43.5, 40.4)),
        ("LiveCC-7B-Base", 47.21, 67.5, 37.3, 45.5, (45.1, 49.5), (50.4, 48.1, 48.1, 42.5)),
    ],
)
def test_published_votes_give_the_published_win_rates(
    model: str,
    win_rate: float,
    first: float,
    flips: float,
    consistent: float,
    bounds: tuple[float, float],
    quartiles: tuple[float, ...],
) -> None:
    found = win_rates(published(model))
    figures = found["figures"]
    assert (found["counts"]["judged"], found["counts"]["expected"], found["counts"]["videos"]) == (3404, 3404, 416)
    assert round(figures["win_rate"]["value"], 2) == win_rate
    assert (figures["win_rate"]["low"], figures["win_rate"]["high"]) == pytest.approx(bounds, abs=0.4)
    assert round(figures["first_position"]["value"], 1) == first
    assert round(figures["flips"]["value"], 1) == flips
    assert figures["win_rate_consistent"]["value"] == pytest.approx(consistent, abs=0.06)
    # Where quartiles are cut is free: a window on a border may lie on either side.
    assert [figure["value"] for figure in figures["length"].values()] == pytest.approx(quartiles, abs=0.4)
    assert "b is nearly always longer" in figures["length_controlled"]["reason"]
