"""The logistic model on votes whose coefficients are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamingvlm.evaluate.judging.length_control import LengthModel, fit, length_model


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def votes(longer_won: int, shorter_won: int, each: int) -> tuple[np.ndarray, ...]:
    """a is longer in ``each`` windows and shorter in as many, always by 30 words; orders in turn."""
    words_a = np.array([130.0] * each + [70.0] * each)
    won = np.array(
        [1.0] * longer_won + [0.0] * (each - longer_won) + [1.0] * shorter_won + [0.0] * (each - shorter_won)
    )
    first = np.arange(2 * each) // 2 % 2 == 0
    return words_a, np.full(2 * each, 100.0), first, won


@pytest.mark.parametrize(("longer", "shorter"), [(0.8, 0.4), (0.5, 0.5), (0.9, 0.1), (0.3, 0.6)])
def test_two_lengths_have_the_answer_of_the_textbook(longer: float, shorter: float) -> None:
    """Without a place effect the model has a coefficient for each share: the mean of the two logits is the answer."""
    each = 2000
    model = length_model(*votes(round(longer * each), round(shorter * each), each))
    assert isinstance(model, LengthModel)
    assert model.win_rate() == pytest.approx(1 / (1 + math.exp(-(logit(longer) + logit(shorter)) / 2)), abs=2e-3)


def test_known_coefficients_are_found_again() -> None:
    draw = np.random.default_rng(3)
    features = np.stack([np.ones(40_000), draw.uniform(-1, 1, 40_000), draw.choice([-1.0, 1.0], 40_000)], axis=1)
    truth = np.array([0.4, 1.5, -0.7])
    won = (draw.random(40_000) < 1 / (1 + np.exp(-features @ truth))).astype(float)
    assert fit(features, won, np.ones(40_000)) == pytest.approx(truth, abs=0.06)


def test_weights_count_votes() -> None:
    model = length_model(*votes(16, 8, 20))
    assert isinstance(model, LengthModel)
    twice = LengthModel(np.repeat(model.features, 2, axis=0), np.repeat(model.won, 2))
    assert model.win_rate(np.full(40, 2.0)) == pytest.approx(twice.win_rate())
    assert model.win_rate(np.zeros(40)) is None


@pytest.mark.parametrize("won", [0.0, 0.5, 1.0])
def test_a_judge_that_never_errs_stays_finite(won: float) -> None:
    words_a, words_b, first, _ = votes(0, 0, 50)
    model = length_model(words_a, words_b, first, np.full(100, won))
    assert isinstance(model, LengthModel)
    assert model.win_rate() == pytest.approx(won, abs=0.01)


def test_a_judge_that_only_counts_words_finds_nobody_better() -> None:
    model = length_model(*votes(60, 0, 60))
    assert isinstance(model, LengthModel)
    assert model.win_rate() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("a_words", [[100.0] * 100, [100.0] * 50 + [130.0] * 50])
def test_texts_of_one_length_are_compared_as_they_are(a_words: list[float]) -> None:
    """Votes of windows without a difference are 70 % for a, others are all for a."""
    won = np.array([1.0] * 35 + [0.0] * 15 + ([0.0] * 15 + [1.0] * 35 if a_words[-1] == 100 else [1.0] * 50))
    model = length_model(np.array(a_words), np.full(100, 100.0), np.arange(100) % 2 == 0, won)
    assert isinstance(model, LengthModel)
    assert model.win_rate() == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize(
    ("words_a", "reason"),
    [
        ([200.0] * 100, "a is nearly always longer"),
        ([200.0] * 49 + [150.0] * 49 + [100.0] * 2, "a is nearly always longer"),
        ([20.0] * 50 + [50.0] * 50, "b is nearly always longer"),
    ],
)
def test_what_cannot_be_told_apart_is_said(words_a: list[float], reason: str) -> None:
    found = length_model(np.array(words_a), np.full(100, 100.0), np.arange(100) % 2 == 0, np.ones(100))
    assert isinstance(found, str)
    assert reason in found
