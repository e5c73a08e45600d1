"""``streamingvlm eval arcade``: one checkpoint under one policy on streams of the arcade that it has never seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamingvlm.core.errors import OptionError
from streamingvlm.core.policy import make_policy
from streamingvlm.engine.engine import Engine
from streamingvlm.evaluate.features import Features
from streamingvlm.evaluate.runner import Watcher
from streamingvlm.models.base import Model
from streamingvlm.models.hub import BUNDLED, find_checkpoint
from streamingvlm.models.load import load_model
from streamingvlm.runtime.reports import provenance

from ..worlds.context import EVALUATION_SEEDS
from ..worlds.games import GAMES
from .figures import Evaluation, Watched, measure
from .gate import gate
from .match import Match, matches

#: A quick look: six streams of a game, six minutes each.
QUICK_STREAMS, QUICK_HOURS = 6, 0.1
#: A bar: ``with progress(what, total) as done`` gives what is called with how much of the total is done.
Bar = Callable[[str, float], AbstractContextManager[Callable[[float], None]]]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is ready to run. ``name``: what it is called in the figures."""

    name: str
    path: str
    model: Model
    fingerprint: str

    @staticmethod
    def load(
        path: str | None,
        *,
        name: str = "",
        device: str | None = None,
        dtype: str | None = None,
        weights: str | None = None,
    ) -> Checkpoint:
        """Load a folder or hub id (None: the bundled model). ModelError if that cannot be."""
        model = load_model(path, device=device, dtype=dtype, weights=weights)
        shown = f"bundled ({BUNDLED.name})" if path is None else path
        return Checkpoint(name or shown, shown, model, _fingerprint(find_checkpoint(path)))


def _fingerprint(folder: Path) -> str:
    """Of the contents of a checkpoint's files, but for what tells how it was trained."""
    digest = hashlib.sha256()
    files = [path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")]
    for file in sorted(path for path in files if path.name != "training.json"):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


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

    @property
    def total(self) -> int:
        """Seconds of all streams."""
        return self.seconds * len(self.seeds) * len(self.games)


def run(checkpoint: Checkpoint, policy: str, setting: EvalConfig, bar: Bar, *, flipped: bool = False) -> list[Watched]:
    """Watch, and count what was said."""
    found = [replace(match, flipped=flipped) for match in matches(list(setting.games), setting.seeds)]
    policy = fitting(policy, checkpoint.model, setting)
    features = Features.of(checkpoint.model, setting.features) if setting.features else None
    folder = _folder(checkpoint, policy, setting)
    watcher = Watcher(checkpoint.model, policy, folder, checkpoint.fingerprint, features)
    what = f"{checkpoint.name}, {policy}{', names flipped' if flipped else ''}"
    with bar(what, setting.total) as done:
        records = watcher.watch(found, setting.seconds, done)
    with bar("scoring", len(found)) as done:
        return list(_measured(found, records, done))


def _measured(found: Sequence[Match], records: Sequence[Any], done: Callable[[float], None]) -> list[Watched]:
    watched = []
    for match, record in zip(found, records, strict=True):
        watched.append(measure(match, record))
        done(len(watched))
    return watched


def _folder(checkpoint: Checkpoint, policy: str, setting: EvalConfig) -> Path:
    """Where the words of one checkpoint under one policy are, however the policy was asked for."""
    digest = hashlib.sha256(repr(make_policy(policy, checkpoint.model.defaults.policy)).encode()).hexdigest()
    return setting.folder / f"{policy.partition(':')[0]}-{digest[:8]}-{checkpoint.fingerprint[:8]}"


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
