"""Intervals on cases that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from streamingvlm.evaluate.bootstrap import difference, flatten, interval, intervals, mean, replicate, unflatten


def average(units: Sequence[float]) -> dict[str, Any]:
    return {"mean": sum(units) / len(units), "none": None, "parts": [min(units), {"rows": max(units)}]}


def test_the_mean_of_a_sample_has_the_interval_of_the_textbook() -> None:
    units = np.random.default_rng(1).normal(5, 2, 200).tolist()
    (found,) = replicate([units], average)
    got = interval(*found["mean",])
    half = 1.96 * np.std(units) / np.sqrt(len(units))  # the bootstrap's standard error of a mean
    assert got.value == pytest.approx(np.mean(units))
    assert got.low == pytest.approx(np.mean(units) - half, abs=0.04)
    assert got.high == pytest.approx(np.mean(units) + half, abs=0.04)


def test_two_units_have_three_resamples() -> None:
    (found,) = replicate([[0.0, 1.0]], average)
    values, counts = np.unique(found["mean",][1], return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    assert counts / counts.sum() == pytest.approx([0.25, 0.5, 0.25], abs=0.05)


def test_one_unit_has_no_interval_nor_has_what_it_is_part_of() -> None:
    one, several = replicate([[3.0], [1.0, 5.0]], average, resamples=50)
    assert interval(*one["mean",]).json() == {"value": 3.0, "low": None, "high": None}
    assert interval(*mean([one, several])["mean",]).json() == {"value": 3.0, "low": None, "high": None}
    assert interval(*mean([one, several], {"rows"})["parts", 1, "rows"]).value == 5.0
    assert interval(*mean([several, several])["mean",]).low == 1.0
    assert difference(one, one, ("mean",)).json() == {"value": 0.0, "low": None, "high": None}


def test_equal_units_are_certain_and_a_figure_without_cases_is_none() -> None:
    (found,) = replicate([[3.0] * 4], average, resamples=50)
    tree = intervals(found)
    assert tree["mean"] == {"value": 3.0, "low": 3.0, "high": 3.0}
    assert tree["none"] == {"value": None, "low": None, "high": None}
    assert tree["parts"][1]["rows"]["value"] == 3.0


def test_cells_are_averaged_and_bounds_are_not() -> None:
    both = mean(replicate([[1.0, 1.0], [3.0] * 5], average, resamples=20), {"rows"})
    assert interval(*both["mean",]).json() == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert both["parts", 1, "rows"][0] == 3.0
    assert both["none",][0] is None


def test_differences_are_paired_by_stream() -> None:
    units = [1.0, 5.0, 9.0, 2.0]
    one, other = (replicate([[unit + plus for unit in units]], average)[0] for plus in (0.5, 0.0))
    assert difference(one, other, ("mean",)).json() == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})


def test_the_same_seed_draws_the_same() -> None:
    one, other = (intervals(replicate([[1.0, 2.0, 4.0]], average)[0]) for _ in range(2))
    assert one == other


def test_trees_come_back() -> None:
    tree = {"a": 1.0, "b": [2.0, {"c": None}]}
    assert unflatten(flatten(tree)) == tree
