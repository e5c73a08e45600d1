"""``streamingvlm eval arcade``: one checkpoint under one policy on streams of the arcade that it has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamingvlm import Engine, OptionError, make_policy
from streamingvlm.evaluate.checkpoint import Checkpoint
from streamingvlm.evaluate.runner import Bar, run_task
from streamingvlm.models.base import Model
from streamingvlm.runtime.reports import provenance

from ..worlds.context import EVALUATION_SEEDS
from ..worlds.games import GAMES
from .figures import Evaluation, Watched
from .gate import gate
from .match import matches
from .task import ArcadeTask

#: A quick look: six streams of a game, six minutes each.
QUICK_STREAMS, QUICK_HOURS = 6, 0.1


@dataclass(frozen=True, slots=True)
class EvalConfig:
    """What is watched: ``streams`` seeds of every game, each for ``seconds``; words are recorded under ``folder``.

    ``features``: where what the tower sees is kept for other rows and runs (None: nowhere); ``memory``: bytes that the
    caches of a policy that keeps everything may take together; ``command``: what was asked, for the files.
    """

    games: tuple[str, ...] = tuple(GAMES)
    seeds: range = range(EVALUATION_SEEDS, EVALUATION_SEEDS + 8)
    seconds: int = 1200
    folder: Path = Path("runs/eval")
    features: Path | None = None
    memory: float = 8e9
    command: str = ""

    def __post_init__(self) -> None:
        if self.seconds < 1:
            raise OptionError("a stream needs at least one second")
        if self.memory <= 0:
            raise OptionError("the caches need some memory")
        matches(list(self.games), self.seeds)

    def task(self, *, flipped: bool = False) -> ArcadeTask:
        """The streams as a task; ``flipped``: with the names of the two sides exchanged."""
        found = matches(list(self.games), self.seeds)
        return ArcadeTask(tuple(replace(match, flipped=flipped) for match in found), self.seconds)


def run(checkpoint: Checkpoint, policy: str, setting: EvalConfig, bar: Bar, *, flipped: bool = False) -> list[Watched]:
    """Watch, and count what was said."""
    task, policy = setting.task(flipped=flipped), fitting(policy, checkpoint.model, setting)
    records = run_task(task, checkpoint, policy, setting.folder, bar, features=setting.features)
    with bar("scoring", len(records)) as done:
        return task.measure(records, done)


def fitting(policy: str, model: Model, setting: EvalConfig) -> str:
    """``policy`` itself, or for one that keeps everything: for as many seconds as the memory is enough for."""
    name, _, rest = policy.partition(":")
    plan = make_policy(policy, model.defaults.policy)
    if plan.seconds_left(0.0) is None or "seconds=" in rest:
        return policy
    rows = []
    for seconds in (1, 2):
        with Engine(model).open(policy=f"{name}:seconds={seconds}") as session:
            rows.append(session.capacity)
    streams = len(setting.seeds) * len(setting.games)
    most = int((setting.memory / streams / model.kv_shape.bytes_per_row - rows[0]) / (rows[1] - rows[0])) + 1
    if most < 1:
        raise OptionError(f"{setting.memory / 1e9:g} GB hold no second of {streams} streams under {policy}")
    return ":".join([name, ",".join(filter(None, [f"seconds={min(most, setting.seconds)}", rest]))])


def evaluate(
    checkpoint: Checkpoint, policy: str, setting: EvalConfig, bar: Bar, *, gated: bool = False
) -> dict[str, Any]:
    """All figures of ``streamingvlm eval arcade``; ``gated``: with the verdict of the gate (twice the work)."""
    own = Evaluation.of([(checkpoint.name, stream) for stream in run(checkpoint, policy, setting, bar)])
    found = {**own.json(), **describe([checkpoint], policy, setting)}
    if gated:
        turned = run(checkpoint, policy, setting, bar, flipped=True)
        found["gate"] = gate(own, Evaluation.of([(checkpoint.name, stream) for stream in turned]))
    return found


def describe(checkpoints: Sequence[Checkpoint], policy: str, setting: EvalConfig) -> dict[str, Any]:
    """Where figures come from."""
    model = checkpoints[0].model
    return {
        "model": ", ".join(checkpoint.path for checkpoint in checkpoints),
        "checkpoints": {checkpoint.path: checkpoint.fingerprint for checkpoint in checkpoints},
        "policy": policy,
        "windows": repr(make_policy(policy, model.defaults.policy)),
        "sampling": repr(model.defaults.sampling),
        "dtype": str(model.kv_shape.dtype).removeprefix("torch."),
        "hours": setting.seconds / 3600,
        "seconds": setting.seconds,
        "seeds": [setting.seeds.start, setting.seeds.stop],
        "command": setting.command,
        **provenance(model.kv_shape.device),
    }
