"""Runs the rows of claims on the same streams and says what holds. One row that several claims have is run once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter, methodcaller
from typing import Any

import numpy as np

from streamingvlm import OptionError, make_policy
from streamingvlm.evaluate import bootstrap
from streamingvlm.evaluate.bootstrap import Interval, MetricPath, Replicates, interval
from streamingvlm.evaluate.checkpoint import Checkpoint
from streamingvlm.evaluate.runner import Bar

from .claims import REFERENCE, Claim, Expectation, Row
from .figures import F1S, Evaluation
from .gate import SECONDS, STREAMS, gate
from .run import EvalConfig, describe, fitting, run

#: How much longer the streams of a claim over hours are, and how many of them there are at most.
LONG, LONG_STREAMS = 7.5, 3
#: What is kept of a row's figures.
_KEPT = (
    *F1S, "play", "names", "names_said", "score", "tally", "tally_steps", "streak", "colours", "silence_precision",
    "repetition", "longest_repeat", "drift", "fifths", "of_ceiling", "work_per_second", "rows", "lag", "streams",
    "seeds", "seconds", "stopped",
)  # fmt: skip


class GateError(OptionError):
    """The model is not fit for a comparison of policies."""


@dataclass(slots=True)
class Comparison:
    """Checkpoints and streams on which claims are tested.

    ``seeds``: the checkpoint under test, once for each training seed; ``others``: checkpoints by the names of
    ``CHECKPOINTS``; ``ungated``: compare even if the gate is not passed.
    """

    seeds: Sequence[Checkpoint]
    others: Mapping[str, Checkpoint]
    setting: EvalConfig
    bar: Bar
    ungated: bool = False
    resamples: int = bootstrap.RESAMPLES
    _done: dict[tuple[str, str, EvalConfig, bool], Evaluation] = field(default_factory=dict)

    def setting_of(self, claim: Claim) -> EvalConfig:
        """How long and how many streams a claim's rows have."""
        if not claim.long:
            return self.setting
        seeds = self.setting.seeds[:LONG_STREAMS]
        # Its one other row needs the frames.
        return replace(self.setting, seconds=round(self.setting.seconds * LONG), seeds=seeds, features=None)

    @property
    def setting_of_gate(self) -> EvalConfig:
        """Enough streams of every game for the gate, however many the rows have, and minutes of each."""
        first = self.setting.seeds.start
        return replace(self.setting, seconds=min(self.setting.seconds, SECONDS), seeds=range(first, first + STREAMS))

    def evaluation(self, row: Row, setting: EvalConfig, flipped: bool = False) -> Evaluation:
        """The figures of a row on some streams."""
        policy = repr(make_policy(row.policy, self.seeds[0].model.defaults.policy))
        key = (policy, row.checkpoint, setting, flipped)
        if key not in self._done:
            checkpoints = [self.others[row.checkpoint]] if row.checkpoint else self.seeds
            watched = [
                (checkpoint.name, stream)
                for checkpoint in checkpoints
                for stream in run(checkpoint, row.policy, setting, self.bar, flipped=flipped)
            ]
            self._done[key] = Evaluation.of(watched, self.resamples)
        return self._done[key]

    def check(self) -> dict[str, Any]:
        """The gate's verdict. GateError if it is not passed and comparisons without it were not asked for."""
        reference, setting = Row(REFERENCE), self.setting_of_gate
        own, flipped = self.evaluation(reference, setting), self.evaluation(reference, setting, flipped=True)
        verdict = gate(own, flipped, len(self.seeds))
        if not verdict["passed"] and not self.ungated:
            raise GateError(
                f"the gate is not passed, no policy is compared ({'; '.join(verdict['reasons'])}); --ungated"
            )
        return {**verdict, "ungated": self.ungated}

    def test(self, claim: Claim) -> dict[str, Any]:
        """All rows of a claim, and whether what it expects is seen."""
        missing = [name for name in claim.checkpoints if name not in self.others]
        if missing:
            raise OptionError(f"{claim.name} needs a checkpoint: --model {missing[0]}=FOLDER")
        verdict = self.check()
        setting = self.setting_of(claim)
        rows = {row.name: self.evaluation(row, setting) for row in claim.rows}
        written = {
            row.name: {
                **_trim(rows[row.name].json()),
                "policy": fitting(row.policy, self.seeds[0].model, setting),
                "checkpoint": row.checkpoint or "under test",
                "paper": row.paper,
            }
            for row in claim.rows
        }
        return {
            "claim": claim.name,
            "question": claim.question,
            "rows": written,
            "expectations": [_verdicts(expectation, rows) for expectation in claim.expectations],
            "gate": verdict,
            "others": {name: self.others[name].path for name in claim.checkpoints},
            "figures": [list(path) for path in claim.figures],
            **describe(self.seeds, REFERENCE, setting),
        }


def _trim(found: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: found[name] for name in _KEPT if name in found}
    games = {name: {key: game[key] for key in _KEPT if key in game} for name, game in found["games"].items()}
    return {**kept, "games": games, "bootstrap": found["bootstrap"]}


def _verdicts(expectation: Expectation, rows: Mapping[str, Evaluation]) -> dict[str, Any]:
    """What is seen in the mean over the games and training seeds, in each game, and with each training seed.

    The last only where there are several, and every row has them all.
    """

    def seen(of: Callable[[Evaluation], Replicates]) -> dict[str, Any]:
        return _verdict(expectation, {name: of(evaluation) for name, evaluation in rows.items()})

    def short(of: Callable[[Evaluation], Replicates]) -> dict[str, Any]:
        return {key: value for key, value in seen(of).items() if key in ("value", "low", "high", "verdict")}

    reference = rows[REFERENCE]
    seeds = reference.checkpoints
    if len(seeds) < 2 or any(evaluation.checkpoints != seeds for evaluation in rows.values()):
        seeds = []
    return {
        **seen(attrgetter("mean")),
        "games": {game: short(methodcaller("game", game)) for game in reference.games},
        "training_seeds": {seed: short(methodcaller("checkpoint", seed)) for seed in seeds},
    }


def _verdict(expectation: Expectation, means: Mapping[str, Replicates]) -> dict[str, Any]:
    seen = _seen(expectation, means)
    least = expectation.least
    return {
        "text": expectation.text,
        "row": expectation.row,
        "figure": list(expectation.figure),
        "how": expectation.how,
        "least": least,
        **seen.json(),
        "verdict": _says(seen, least, equal=least != 0 or expectation.how != "fall"),
    }


def _says(seen: Interval, least: float, *, equal: bool) -> str:
    """Whether a figure is at least ``least`` (more, if ``equal`` is not enough: a direction alone), and how sure."""

    def enough(value: float) -> bool:
        return value >= least if equal else value > least

    if seen.value is None:
        return "not measured"
    if not enough(seen.value):
        return "does not hold"
    if seen.low is None:
        return "holds, without an interval"
    return "holds" if enough(seen.low) else "holds, but the interval reaches below"


def _seen(expectation: Expectation, means: Mapping[str, Replicates]) -> Interval:
    row, reference, path = means[expectation.row], means[REFERENCE], expectation.figure
    if expectation.how == "value":
        return interval(*row[path])
    if expectation.how == "times":
        return _times(row, reference, path)
    return bootstrap.difference(reference, row, path)


def _times(one: Replicates, other: Replicates, path: MetricPath) -> Interval:
    """How many times a figure of ``other`` that of ``one`` is."""
    (value, drawn), (base, base_drawn) = one[path], other[path]
    if value is None or not base:
        return Interval(None, None, None)
    return interval(value / base, np.divide(drawn, base_drawn))
