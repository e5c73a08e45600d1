"""How sure a figure is: the bootstrap over streams.

Streams are the independent units: seconds of one stream are not. A resample draws as many streams as there are, with
replacement, inside each cell (a game, or a game of one training seed), and computes every figure anew from the drawn
streams' counts. The interval is the percentile interval (Efron and Tibshirani 1993, chapter 13). With the few streams
of an evaluation it is too narrow rather than too wide: three streams have only ten different resamples. A cell of one
stream tells nothing of how streams differ: it has no interval, and no mean that it is part of has one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
SEED = 20251009

Unit = TypeVar("Unit")
MetricPath = tuple[Hashable, ...]
#: A figure's value, and its values in every resample (nan where a resample has no case, and of a single unit).
Replicates = dict[MetricPath, tuple[float | None, NDArray[np.float64]]]
#: All figures of some units, as a tree of mappings, lists and numbers. A ratio without cases is None.
Statistic = Callable[[Sequence[Unit]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the bounds between which ``LEVEL`` of the resamples lie; None where there is no case.

    The bounds are also None where there is nothing to resample.
    """

    value: float | None
    low: float | None
    high: float | None

    def json(self) -> dict[str, float | None]:
        """As it is written."""
        return {"value": self.value, "low": self.low, "high": self.high}


def interval(value: float | None, replicates: NDArray[np.float64]) -> Interval:
    """The percentile interval of a figure; resamples without a case are left out."""
    kept = replicates[~np.isnan(replicates)]
    if value is None or not len(kept):
        return Interval(value, None, None)
    low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def flatten(tree: Any, at: MetricPath = ()) -> dict[MetricPath, float | None]:
    """The leaves of a tree of figures by their paths."""
    if isinstance(tree, Mapping):
        return {path: leaf for key, part in tree.items() for path, leaf in flatten(part, (*at, key)).items()}
    if isinstance(tree, list | tuple):
        return {path: leaf for key, part in enumerate(tree) for path, leaf in flatten(part, (*at, key)).items()}
    return {at: None if tree is None else float(tree)}


def unflatten(leaves: Mapping[MetricPath, Any]) -> Any:
    """The tree whose leaves these are: the inverse of :func:`flatten`."""
    if set(leaves) == {()}:
        return leaves[()]
    parts: dict[Hashable, dict[MetricPath, Any]] = {}
    for path, leaf in leaves.items():
        parts.setdefault(path[0], {})[path[1:]] = leaf
    tree = {key: unflatten(part) for key, part in parts.items()}
    return list(tree.values()) if all(isinstance(key, int) for key in tree) else tree


def replicate(
    cells: Sequence[Sequence[Unit]], statistic: Statistic[Unit], resamples: int = RESAMPLES, seed: int = SEED
) -> list[Replicates]:
    """Every figure of every cell in every resample.

    The same seed draws the same units of cells of the same sizes: what two policies make of the same streams is then
    paired, and the replicates of their difference are the differences of their replicates.
    """
    found: list[Replicates] = []
    for number, units in enumerate(cells):
        random = np.random.default_rng([seed, number])
        values = flatten(statistic(units))
        # In order, so that the few different resamples of few streams are counted once each.
        choices = np.sort(random.integers(0, len(units), (resamples, len(units))), axis=1)
        different, which = np.unique(choices, axis=0, return_inverse=True)
        drawn_anew = different if len(units) > 1 else ()
        counted = [flatten(statistic([units[place] for place in places])) for places in drawn_anew] or [{}]
        table = np.array([[leaves.get(path) for path in values] for leaves in counted], np.float64)  # None: nan
        drawn = table[which.ravel()]
        found.append({path: (value, drawn[:, place]) for place, (path, value) in enumerate(values.items())})
    return found


def mean(cells: Sequence[Replicates], bounds: Set[str] = frozenset()) -> Replicates:
    """Every figure that all cells have, as the mean over the cells that have a case of it.

    ``bounds``: figures that are bounds: of them it is the largest.
    """
    out: Replicates = {}
    for path in cells[0]:
        if not all(path in cell for cell in cells):
            continue
        values = [value for cell in cells if (value := cell[path][0]) is not None]
        stack = np.stack([cell[path][1] for cell in cells])
        if bounds & set(path):
            out[path] = (max(values, default=None), np.fmax.reduce(stack))
            continue
        count = (~np.isnan(stack)).sum(axis=0)
        known = count > 0
        if any(cell[path][0] is not None and np.isnan(cell[path][1]).all() for cell in cells):
            known = np.zeros_like(known)  # a single unit: its share of the mean cannot be drawn
        average = np.divide(np.nansum(stack, axis=0), count, out=np.full(len(count), np.nan), where=known)
        out[path] = (sum(values) / len(values) if values else None, average)
    return out


def difference(one: Replicates, other: Replicates, path: MetricPath) -> Interval:
    """How much a figure of ``one`` is above that of ``other``, paired by stream."""
    (value, drawn), (base, base_drawn) = one[path], other[path]
    return interval(None if value is None or base is None else value - base, drawn - base_drawn)


def intervals(found: Replicates) -> dict[str, Any]:
    """The tree of figures, each as ``{"value", "low", "high"}``."""
    tree: dict[str, Any] = unflatten({path: interval(*pair).json() for path, pair in found.items()})
    return tree
