"""The win rate that would be if both texts were of the same length.

A logistic model of the votes with a term for the contestant, one for the length and one for the place in which the
text was shown; the win rate is what the model says with the last two set to 0. The length enters as the hyperbolic
tangent of the difference in words over its standard deviation, as in AlpacaEval (Dubois et al. 2024, arXiv
2404.04475): beyond a point, even longer is no more attractive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Weight of the squared coefficients beside one vote's log-likelihood: keeps a judge that never errs finite.
RIDGE = 0.01
#: The least share of votes in which not the same contestant is longer: with fewer, the two cannot be told apart.
OVERLAP = 0.05
_STEPS, _CLOSE = 100, 1e-10


@dataclass(frozen=True, slots=True)
class LengthModel:
    """Votes as the model takes them, a row each.

    ``features``: ``(n, 3)``: 1, tanh of the standardised difference in words (a - b), place (+1: a was first, -1);
    ``won``: ``(n,)``: 1 for a, 0 for b, 0.5 for a tie.
    """

    features: Floats
    won: Floats

    def win_rate(self, weights: Floats | None = None) -> float | None:
        """Of a, between 0 and 1, lengths being equal. ``weights``: ``(n,)``, how often each vote counts."""
        weights = np.ones(len(self.won)) if weights is None else weights
        if not weights.sum():
            return None
        return float(_sigmoid(fit(self.features, self.won, weights)[0]))


def length_model(words_a: Floats, words_b: Floats, a_first: NDArray[np.bool_], won: Floats) -> LengthModel | str:
    """The model of these votes, or why there is none."""
    difference = words_a - words_b
    for longer, share in (("a", (difference > 0).mean()), ("b", (difference < 0).mean())):
        if share > 1 - OVERLAP:
            return f"{longer} is nearly always longer: length and contestant cannot be told apart"
    length = np.tanh(difference / (difference.std() or 1.0))  # no spread: all are of one length
    return LengthModel(np.stack([np.ones_like(length), length, np.where(a_first, 1.0, -1.0)], axis=1), won)


def fit(features: Floats, won: Floats, weights: Floats, ridge: float = RIDGE) -> Floats:
    """Coefficients ``(k,)`` of the logistic model, by Newton's method with halved steps."""
    found = np.zeros(features.shape[1])
    value = _loss(found, features, won, weights, ridge)
    for _ in range(_STEPS):
        expected = _sigmoid(features @ found)
        gradient = features.T @ (weights * (expected - won)) + ridge * found
        curvature = (features.T * (weights * expected * (1 - expected))) @ features + ridge * np.eye(len(found))
        step = np.linalg.solve(curvature, gradient)
        while (lower := _loss(found - step, features, won, weights, ridge)) > value and np.abs(step).max() > _CLOSE:
            step = step / 2
        found, value = found - step, lower
        if np.abs(step).max() < _CLOSE:
            break
    return found


def _loss(at: Floats, features: Floats, won: Floats, weights: Floats, ridge: float) -> float:
    logits = features @ at
    return float(weights @ (np.logaddexp(0, logits) - won * logits) + ridge * at @ at / 2)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -x)), np.float64)
