"""What votes say: win rates, and how far the judge that gave them can be trusted.

Every figure is a share in percent with its number of cases ``n`` and a 95 % interval by bootstrap over videos; windows
of one video are not independent. A figure whose cases are of a single video has no interval. Errors are in no figure:
they are counted beside them.

========================  ==============================================================================================
``win_rate``              votes for a, ties counting half, of all votes; a text that is empty has lost
``without_empty``         the same, of votes that a judge has given
``shares``                votes for a, for b, ties, of all votes
``length_controlled``     see :mod:`.length_control`; of votes that a judge has given
``consistent``            pairs of one window whose two orders give the same choice
``flips``                 pairs whose orders give a once and b once: the place has decided
``first_position``        decisive votes for the text that was shown first; 50 is fair
``win_rate_consistent``   ``win_rate`` among consistent pairs
``repeat_stability``      repeats of one vote, two by two, that agree
``length``                win rate by quartile of the share that a's words have of both, shortest first
``fifths``                win rate by place in the video: fifths of the time from its first window to its last
``groups``                win rate by group (sport)
========================  ==============================================================================================
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bootstrap import RESAMPLES, MetricPath, interval, replicate, unflatten
from .length_control import LengthModel, length_model
from .votes import Vote
from .votes_file import Judged

Floats = NDArray[np.float64]
#: A figure, the video of a case, and what the case is worth between 0 and 1.
Case = tuple[MetricPath, str, float]

FIFTHS = 5
#: What a vote is worth for a.
WORTH = {"a": 1.0, "tie": 0.5, "b": 0.0}
_CONTROLLED: MetricPath = ("length_controlled", "win_rate")


def win_rates(judged: Judged, *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """All figures of these votes: ``counts``, ``figures`` as above, ``videos`` (win rate by video, no intervals)."""
    votes = [vote for vote in judged.votes if vote.choice is not None]
    figures, why = _figures(votes, judged, resamples)
    figures.setdefault("length_controlled", {"win_rate": {"value": None, "low": None, "high": None, "n": 0}})
    figures["length_controlled"]["reason"] = why
    return {"counts": counts(judged), "figures": figures, "videos": _by_video(votes)}


def counts(judged: Judged) -> dict[str, Any]:
    """How many votes there are, and what is missing."""
    votes = judged.votes
    given = [vote for vote in votes if vote.choice is not None]
    errors: dict[str, int] = defaultdict(int)
    for vote in votes:
        if vote.choice is None:
            errors[vote.error.partition(":")[0]] += 1
    return {
        "windows": len(judged.places),
        "videos": len({place.video for place in judged.places}),
        "expected": judged.expected,
        "judged": len(given),
        "errors": sum(errors.values()),
        "errors_by_kind": dict(sorted(errors.items())),
        "not_asked": judged.expected - len(votes),
        "empty": {who: sum(vote.empty == who for vote in given) for who in ("a", "b", "ab")},
        "cached": sum(bool(vote.call.get("cached")) for vote in given),
        "asked_again": sum(int(vote.call.get("asks", 1)) > 1 for vote in votes),
    }


def _figures(votes: Sequence[Vote], judged: Judged, resamples: int) -> tuple[dict[str, Any], str]:
    cases = list(_cases(votes, judged))
    if not cases:
        return {}, "there is no vote"
    videos = sorted({video for _, video, _ in cases})
    paths = sorted({path for path, _, _ in cases})
    table = np.zeros((len(videos), len(paths), 2))  # by video and figure: what the cases are worth, and how many
    row = {video: number for number, video in enumerate(videos)}
    column = {path: number for number, path in enumerate(paths)}
    for path, video, worth in cases:
        table[row[video], column[path]] += worth, 1
    given = [vote for vote in votes if not vote.empty]
    model = _length_model(given)
    at = np.array([row[vote.video] for vote in given], np.intp)
    statistic = _statistic(paths, table, None if isinstance(model, str) else model, at)
    (found,) = replicate([range(len(videos))], statistic, resamples)
    by_key: dict[MetricPath, MetricPath] = {(path,): path for path in (*paths, _CONTROLLED)}
    leaves = {}
    for key, pair in found.items():
        path = by_key[key]
        of = ("without_empty",) if path == _CONTROLLED else path
        several = np.count_nonzero(table[:, column[of], 1]) > 1
        bounds = interval(*pair).json() if several else interval(pair[0], np.empty(0)).json()
        leaves[path] = _Leaf(bounds | {"n": int(table[:, column[of], 1].sum())})
    return _plain(unflatten(leaves)), model if isinstance(model, str) else ""


class _Leaf(dict[str, Any]):
    """A figure as it is written."""


def _plain(tree: Any) -> Any:
    return {key: dict(part) if isinstance(part, _Leaf) else _plain(part) for key, part in tree.items()}


def _statistic(
    paths: Sequence[MetricPath], table: Floats, model: LengthModel | None, at: NDArray[np.intp]
) -> Callable[[Sequence[int]], Mapping[Any, float | None]]:
    """All figures of some videos (by number, as often as they are drawn)."""

    def figures(drawn: Sequence[int]) -> Mapping[Any, float | None]:
        weights = np.bincount(np.asarray(drawn, np.intp), minlength=len(table)).astype(np.float64)
        worth, number = np.moveaxis(np.tensordot(weights, table, 1), -1, 0)
        found: dict[Any, float | None] = {
            path: 100 * w / n if n else None for path, w, n in zip(paths, worth, number, strict=True)
        }
        if model is not None:
            rate = model.win_rate(weights[at])
            found[_CONTROLLED] = None if rate is None else 100 * rate
        return found

    return figures


def _length_model(given: Sequence[Vote]) -> LengthModel | str:
    if not given:
        return "no judge has given a vote"
    words = np.array([(vote.words_a, vote.words_b) for vote in given], np.float64).T
    first = np.array([vote.order == "ab" for vote in given])
    return length_model(words[0], words[1], first, np.array([_worth(vote) for vote in given]))


def _cases(votes: Sequence[Vote], judged: Judged) -> Iterator[Case]:
    """Every figure's cases."""
    fifth = fifths(judged)
    quartile = length_quartiles(votes)
    for vote in votes:
        video, worth = vote.video, _worth(vote)
        yield ("win_rate",), video, worth
        for choice in WORTH:
            yield ("shares", choice), video, float(vote.choice == choice)
        if vote.window in fifth:
            yield ("fifths", str(fifth[vote.window] + 1)), video, worth
        yield ("groups", vote.group or "unknown"), video, worth
        if not vote.empty:
            yield ("without_empty",), video, worth
            yield ("length", str(quartile[vote.window] + 1)), video, worth
            if vote.choice != "tie":
                yield ("first_position",), video, float(vote.choice == vote.order[0])
    yield from _order_cases(votes)
    yield from _repeat_cases(votes)


def _order_cases(votes: Sequence[Vote]) -> Iterator[Case]:
    pairs: dict[tuple[str, int], dict[str, Vote]] = defaultdict(dict)
    for vote in votes:
        if not vote.empty:
            pairs[vote.window, vote.repeat][vote.order] = vote
    for pair in pairs.values():
        if len(pair) == 2:
            one, other = pair["ab"], pair["ba"]
            same = one.choice == other.choice
            yield ("consistent",), one.video, float(same)
            yield ("flips",), one.video, float({one.choice, other.choice} == {"a", "b"})
            if same:
                yield ("win_rate_consistent",), one.video, _worth(one)


def _repeat_cases(votes: Sequence[Vote]) -> Iterator[Case]:
    same: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    for vote in votes:
        if not vote.empty:
            same[vote.window, vote.order].append(vote)
    for repeats in same.values():
        for one, other in combinations(repeats, 2):
            yield ("repeat_stability",), one.video, float(one.choice == other.choice)


def fifths(judged: Judged) -> dict[str, int]:
    """Window -> the fifth of its video (0-4) that its middle is in; videos of a single window have none."""
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for place in judged.places:
        spans[place.video].append((place.start, place.end))
    found = {}
    for place in judged.places:
        windows = spans[place.video]
        first, last = min(start for start, _ in windows), max(end for _, end in windows)
        if len(windows) > 1 and last > first:
            share = ((place.start + place.end) / 2 - first) / (last - first)
            found[place.window] = min(int(FIFTHS * share), FIFTHS - 1)
    return found


def length_quartiles(votes: Sequence[Vote]) -> dict[str, int]:
    """Window -> quartile (0-3) of the share that a's words have of both texts; windows with an empty text have none.

    Windows of one share are in one quartile.
    """
    share = {vote.window: vote.words_a / max(1, vote.words_a + vote.words_b) for vote in votes if not vote.empty}
    if not share:
        return {}
    edges = np.quantile(list(share.values()), [0.25, 0.5, 0.75])
    return {window: int(np.searchsorted(edges, value)) for window, value in share.items()}


def _by_video(votes: Sequence[Vote]) -> dict[str, Any]:
    worths: dict[str, list[float]] = defaultdict(list)
    for vote in votes:
        worths[vote.video].append(_worth(vote))
    return {
        video: {"win_rate": 100 * sum(found) / len(found), "n": len(found)} for video, found in sorted(worths.items())
    }


def _worth(vote: Vote) -> float:
    assert vote.choice is not None, "an error is no vote"
    return WORTH[vote.choice]
