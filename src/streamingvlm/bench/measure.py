"""What is measured of a step, and figures over many steps. Times in seconds, memory in bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from ..cache.kv_pool import KVPool
from ..core.events import Chunk, Commentary
from ..core.run_stats import STAGES, memory, peak_memory
from ..engine.session import Session
from ..models.base import Model, Vision
from ..models.patches import Patches
from ..runtime.clock import split
from ..runtime.reports import Metrics

__all__ = [
    "STAGES",
    "Step",
    "SyncedModel",
    "device_memory",
    "live_step",
    "memory",
    "percentile",
    "reference_work",
    "summarize",
    "synced_pool",
    "synchronize",
]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one stream: seconds of work by stage, lag, rows after it, tokens, seconds of video."""

    stages: dict[str, float]
    lag: float
    rows: int
    tokens: int
    seconds: float

    @staticmethod
    def of(event: Commentary) -> Step:
        """The figures that a commentary carries."""
        return Step(
            stages={stage: getattr(event.timing, stage) for stage in STAGES},
            lag=event.timing.lag,
            rows=sum(event.rows.values()),
            tokens=len(event.tokens),
            seconds=event.end - event.start,
        )

    @property
    def work(self) -> float:
        """Seconds of work in all stages."""
        return sum(self.stages.values())


def live_step(session: Session, chunk: Chunk) -> Step:
    """One step as a live source hands it out: whole temporal patches ahead, so that lag counts from the last of them.

    The work of all parts is the step's.
    """
    *early, rest = split(chunk, session.patch_frames)
    for part in early:
        session.feed(part)
    return Step.of(session.step(rest))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that ``percent`` per cent of them do not exceed; nan if there are none."""
    if not len(values):
        return float("nan")
    return float(np.percentile(np.asarray(values, np.float64), percent, method="inverted_cdf"))


def summarize(steps: Sequence[Step]) -> Metrics:
    """Metrics over the measured steps (at least one).

    ``work_per_second`` and ``stages``: seconds of work per second of video, means; ``work_median``: of the median
    step, which a busy machine disturbs less; ``lag_*``: seconds from a step's last
    frame to its last word; ``rows``: most cache rows after a step; ``tokens``: tokens in all, ``seconds_per_token``
    the decoding per token (the first token of a reply comes out of the prefill and is not counted).
    """
    video = sum(step.seconds for step in steps)
    stages = {stage: sum(step.stages[stage] for step in steps) / video for stage in STAGES}
    lags = [step.lag for step in steps]
    said = sum(step.tokens for step in steps)
    decoded = said - len(steps)
    return {
        "work_per_second": sum(stages.values()),
        "work_median": percentile([step.work / step.seconds for step in steps], 50),
        "stages": stages,
        **{f"lag_p{percent}": percentile(lags, percent) for percent in (50, 95, 99)},
        "lag_max": max(lags),
        "rows": max(step.rows for step in steps),
        "rows_last": steps[-1].rows,
        "tokens": said,
        "tokens_per_second": said / video,
        "seconds_per_token": stages["decode"] * video / decoded if decoded else None,
        "seconds": video,
        "steps": len(steps),
    }


def synchronize(device: torch.device) -> None:
    """Wait for everything that was handed to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def device_memory(device: torch.device) -> int:
    """Most bytes that tensors have held on the device (0 on a CPU, whose memory is the host's)."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0


def host_memory() -> dict[str, int]:
    """Bytes of the process now and at most."""
    return {"host_memory": memory(), "host_memory_peak": peak_memory()}


class SyncedModel:
    """A model whose vision stage ends when the device has done it, so that stages can be told apart on a GPU.

    Everything else is passed on. The other stages end by themselves with a token that is read back.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, patches: Sequence[Patches]) -> list[Vision]:
        """See :meth:`Model.encode`."""
        vision = self._model.encode(patches)
        synchronize(self._model.kv_shape.device)
        return vision


def synced(model: Model) -> Model:
    """``model`` itself on a CPU, which waits anyway; else one that waits behind the vision tower."""
    return model if model.kv_shape.device.type == "cpu" else cast(Model, SyncedModel(model))


def synced_pool(kind: type[KVPool], device: torch.device) -> type[KVPool]:
    """``kind`` with an eviction that ends when the device has done it."""
    if device.type == "cpu":
        return kind

    class Synced(kind):  # type: ignore[misc, valid-type]
        def select(self, *args: Any, **kwargs: Any) -> None:
            super().select(*args, **kwargs)
            synchronize(self.shape.device)

    return Synced


def reference_work(device: torch.device) -> float:
    """Seconds that a fixed piece of work takes (products of a 512 x 512 matrix): how fast the machine is right now."""
    matrix = torch.full((512, 512), 1e-3, device=device)
    synchronize(device)
    began = time.perf_counter()
    for _ in range(4):
        matrix = matrix @ matrix
    synchronize(device)
    return time.perf_counter() - began
