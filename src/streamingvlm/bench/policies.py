"""Every policy on the same stream in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch

from ..cache.kv_pool import KVPool
from ..core.errors import OptionError, PolicyError, SourceError
from ..core.events import Chunk
from ..core.policy import POLICIES, make_policy
from ..engine.engine import Engine
from ..engine.runner import ModelRunner
from ..engine.session import Session
from ..models.base import Model
from ..runtime.reports import Metrics, how_it_ran, provenance
from .measure import Step, device_memory, host_memory, live_step, summarize
from .rotation import PerTokenRotation, PerTokenRotationRunner, with_reference_layers
from .setup import Request

#: Baseline -> the policy it runs, what runs its tensors, and its pool.
BASELINES: dict[str, tuple[str, type[ModelRunner], type[KVPool]]] = {
    "per-token-rotation": ("streaming", PerTokenRotationRunner, PerTokenRotation)
}

#: Steps that a policy runs before the next one has its turn, so that noise of the machine hits all alike.
BLOCK = 5


@dataclass(slots=True)
class PolicyRun:
    """One policy on its way through the stream, with an engine and a cache of its own.

    ``steps``: those behind the warm-up; ``ended``: why it stopped early ("" if it did not).
    """

    name: str
    policy: str
    engine: Engine
    session: Session
    steps: list[Step] = field(default_factory=list)
    device_memory: int = 0
    ended: str = ""

    def watch(self, chunks: Sequence[Chunk], warm: int) -> None:
        """Watch a block of steps; the first ``warm`` of them are not counted."""
        device = self.engine.model.kv_shape.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            for index, chunk in enumerate(chunks):
                step = live_step(self.session, chunk)
                if index >= warm:
                    self.steps.append(step)
        except torch.OutOfMemoryError:
            self.ended = f"out of memory at {chunks[0].start:g} s"
            self.session.close()
        self.device_memory = max(self.device_memory, device_memory(device))

    def figures(self) -> Metrics:
        """See :func:`summarize`; ``{"ended": why}`` alone if nothing was measured."""
        if not self.steps:
            return {"policy": self.policy, "ended": self.ended or "nothing was measured"}
        pool = self.engine.pool
        return {
            **summarize(self.steps),
            "policy": self.policy,
            "capacity": self.session.capacity,
            "cache_bytes": pool.nbytes,
            "device_memory": self.device_memory,
            **host_memory(),
            "ended": self.ended,
            **how_it_ran(self.engine),
        }


def split_specs(text: str) -> list[str]:
    """Policies with their numbers out of one comma-separated text: ``full,streaming:vision=8,text=256``."""
    specs: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if specs and "=" in part and ":" not in part:
            specs[-1] += f",{part}"
        else:
            specs.append(part)
    return specs


def check(specs: Sequence[str], baselines: Sequence[str]) -> None:
    """Raise one line for a policy or a baseline that there is not, or that is named twice."""
    for spec in specs:
        make_policy(spec)
    unknown = [name for name in baselines if name not in BASELINES]
    if unknown:
        raise PolicyError(f"unknown baseline {unknown[0]!r}; known: {', '.join(BASELINES)}")
    names = [*specs, *baselines]
    if not specs:
        raise PolicyError("name at least one policy")
    if len(set(names)) < len(names):
        raise PolicyError("every policy once, please")


def default_specs() -> list[str]:
    """All policies but ``public-code``, which costs what ``streaming`` does."""
    return [name for name in POLICIES if name != "public-code"]


def compare(
    request: Request,
    *,
    seconds: float,
    warm_up: int = 20,
    specs: Sequence[str],
    baselines: Sequence[str] = (),
    on_block: Callable[[float], None] = lambda _: None,
    model: Model | None = None,
) -> tuple[Metrics, list[PolicyRun]]:
    """Run every policy on the same chunks, in turns of :data:`BLOCK` steps; the order moves on with every turn.

    ``seconds`` of video are measured behind ``warm_up`` steps. ``on_block`` is told the seconds of video done.
    Returns ``{"policies": {name: figures}, "device", "versions", "date"}`` and the runs with their single steps.
    """
    if not (seconds > 0 and warm_up >= 0):
        raise OptionError(f"--seconds must be above 0 and --warm-up 0 or more, not {seconds:g} and {warm_up}")
    check(specs, baselines)
    total = seconds + warm_up * request.step
    source = request.make_source(total)
    model = model or request.make_model()
    runs = [_open(request, model, name, total, source.context) for name in (*specs, *baselines)]
    try:
        for turn, (chunks, warm) in enumerate(_blocks(iter(source), warm_up)):
            first = turn % len(runs)
            for run in (*runs[first:], *runs[:first]):
                if not run.ended:
                    run.watch(chunks, warm)
            on_block(chunks[-1].end)
        if not any(run.steps or run.ended for run in runs):
            raise SourceError(f"{source.name} ends before the warm-up of {warm_up} steps does")
        settings = {
            "model": request.model_name,
            "source": source.name,
            "fps": request.fps,
            "tokens_per_step": request.tokens,
        }
        settings |= {"warm_up_steps": warm_up, "step": request.step}
        figures = {run.name: run.figures() | settings for run in runs}
    finally:
        for run in runs:
            run.session.close()
    return {"policies": figures, **provenance(model.kv_shape.device)}, runs


def _blocks(chunks: Iterator[Chunk], warm_up: int) -> Iterator[tuple[list[Chunk], int]]:
    """Blocks of chunks, and how many at the start of each belong to the warm-up."""
    while block := list(islice(chunks, BLOCK)):
        yield block, min(warm_up, len(block))
        warm_up -= min(warm_up, len(block))


def _open(request: Request, model: Model, name: str, seconds: float, context: str) -> PolicyRun:
    spec, runner, pool = BASELINES.get(name, (name, ModelRunner, KVPool))
    if spec == "full":  # the one policy that has to know how long the stream is
        spec = f"full:seconds={seconds:g}"
    if name in BASELINES:
        model = with_reference_layers(model)
    engine, session = request.open(model, spec, context=context, runner=runner, pool=pool)
    return PolicyRun(name, spec, engine, session)
