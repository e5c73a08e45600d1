"""From what was said of some streams to figures with intervals; docs/arcade_streams/evaluation.md defines them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamingvlm.evaluate import bootstrap
from streamingvlm.evaluate.bootstrap import Replicates
from streamingvlm.evaluate.record import Record

from ..score import figures as score
from ..score.figures import Counts
from ..score.score import count
from .match import Match

#: Metrics of the score that are compared with the ceiling and with chance.
F1S = ("micro_f1", "micro_f1_strict", "macro_f1", "macro_f1_strict")
#: Metrics that are bounds: of several games the largest counts, not the mean.
BOUNDS = frozenset({"longest_repeat", "rows"})
#: Metrics of the score that are bounds or counts of cases, not estimates.
_CASES = ("counts", "clips")


@dataclass(frozen=True, slots=True)
class Watched:
    """One stream that was watched: the counts of its words and of the oracle reader's, and what it cost.

    ``seconds`` of video took ``work`` seconds; ``rows``: most cache rows; ``lags``: of every second; ``stopped``: why
    the stream ended early.
    """

    match: Match
    said: Counts
    oracle: Counts
    seconds: float
    work: float
    rows: int
    lags: tuple[float, ...]
    stopped: str = ""


def measure(match: Match, record: Record) -> Watched:
    """Count a stream's words against its truth, as far as it was watched."""
    truth, reader = match.truth(int(record.seconds))
    rows = record.rows
    return Watched(
        match=match,
        said=count(truth, rows),
        oracle=count(truth, reader),
        seconds=record.seconds,
        work=sum(row["work"] for row in rows),
        rows=max((row["rows"] for row in rows), default=0),
        lags=tuple(row["lag"] for row in rows),
        stopped=record.stopped,
    )


def statistic(streams: Sequence[Watched]) -> dict[str, Any]:
    """All figures of some streams of one game, without their numbers of cases."""
    said = _figures([stream.said for stream in streams])
    best = _figures([stream.oracle for stream in streams])
    lags = np.concatenate([stream.lags for stream in streams]) if streams else np.zeros(0)
    p50, p95 = (float(np.percentile(lags, share)) if len(lags) else None for share in (50, 95))
    seconds = sum(stream.seconds for stream in streams)
    early, late = (said[part]["micro_f1_strict"] for part in ("minutes_0_10", "last_30_minutes"))
    return {
        **said,
        "drift": None if early is None or late is None else late - early,
        "ceiling": {name: part for name, part in best.items() if name not in ("chance", "fifths")},
        "of_ceiling": {name: _ratio(said[name], best[name]) for name in F1S},
        "work_per_second": sum(stream.work for stream in streams) / seconds if seconds else None,
        "rows": max((stream.rows for stream in streams), default=0),
        "lag": {"p50": p50, "p95": p95},
    }


def _figures(counts: Sequence[Counts]) -> dict[str, Any]:
    found = score.figures(score.pool(counts))
    kinds = found["by_kind"].values()
    found["by_kind"] = {
        name: {key: value for key, value in kind.items() if not key.startswith("n_")}
        for name, kind in zip(found["by_kind"], kinds, strict=True)
    }
    return {name: part for name, part in found.items() if name not in _CASES}


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Streams of some games, and of some training seeds, under one policy: cells of streams, and their replicates."""

    cells: dict[tuple[str, str], list[Watched]]
    replicates: dict[tuple[str, str], Replicates]

    @staticmethod
    def of(watched: Sequence[tuple[str, Watched]], resamples: int = bootstrap.RESAMPLES) -> Evaluation:
        """``watched``: pairs of a checkpoint's name and a stream that it watched."""
        cells: dict[tuple[str, str], list[Watched]] = {}
        for checkpoint, stream in watched:
            cells.setdefault((checkpoint, stream.match.game), []).append(stream)
        drawn = bootstrap.replicate(list(cells.values()), statistic, resamples)
        return Evaluation(cells, dict(zip(cells, drawn, strict=True)))

    @property
    def mean(self) -> Replicates:
        """Every figure as the mean over games and training seeds."""
        return _mean(self.replicates.values())

    @property
    def games(self) -> list[str]:
        """The games, in order."""
        return list(dict.fromkeys(game for _, game in self.cells))

    @property
    def checkpoints(self) -> list[str]:
        """The checkpoints' names, in order."""
        return list(dict.fromkeys(name for name, _ in self.cells))

    def checkpoint(self, name: str) -> Replicates:
        """The figures of one checkpoint, as the mean over games."""
        return _mean(found for (own, _), found in self.replicates.items() if own == name)

    def game(self, name: str) -> Replicates:
        """The figures of one game, as the mean over training seeds."""
        return _mean(found for (_, game), found in self.replicates.items() if game == name)

    def streams(self, game: str) -> list[Watched]:
        """The streams of a game."""
        return [stream for (_, name), cell in self.cells.items() if name == game for stream in cell]

    def json(self) -> dict[str, Any]:
        """Metrics with intervals: the mean at the top, every game below ``games``, and how they were drawn."""
        found = bootstrap.intervals(self.mean)
        games = {}
        for game in self.games:
            cell = self.streams(game)
            counts = score.figures(score.pool([stream.said for stream in cell]))
            games[game] = {
                **bootstrap.intervals(self.game(game)),
                "streams": len(cell),
                "seeds": sorted({stream.match.seed for stream in cell}),
                "seconds": sum(stream.seconds for stream in cell),
                "cases": {**counts["counts"], **{kind: part["n_true"] for kind, part in counts["by_kind"].items()}},
                "micro_f1_strict_by_stream": [one_figure(stream, "micro_f1_strict") for stream in cell],
                "stopped": {stream.match.name: stream.stopped for stream in cell if stream.stopped},
            }
        return {
            **found,
            "games": games,
            "streams": sum(map(len, self.cells.values())),
            "bootstrap": {
                "unit": "stream, within each game and checkpoint",
                "method": "percentile",
                "level": bootstrap.LEVEL,
                "resamples": len(next(iter(self.mean.values()))[1]),
                "seed": bootstrap.SEED,
            },
        }


def _mean(cells: Iterable[Replicates]) -> Replicates:
    return bootstrap.mean(list(cells), BOUNDS)


def one_figure(stream: Watched, name: str) -> float | None:
    """A figure of one stream alone."""
    value: float | None = score.figures(stream.said)[name]
    return value
