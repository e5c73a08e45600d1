"""What a second of video must cost at least on this device, and how far above that it is.

The floor of a stage is what its multiplications take at the matrix rate or its bytes at the copy bandwidth, whichever
is more, both measured here. Decoding reads every weight of the decoder and the rows of the cache once per token.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import ModelError, OptionError
from ..engine.request import Trace
from ..models.base import Model
from ..runtime.reports import Metrics, how_it_ran, provenance
from .measure import summarize, synchronize
from .setup import Request
from .streams import open_stream_batch


@dataclass(frozen=True, slots=True)
class Device:
    """``bandwidth``: bytes read and written per second by a copy; ``rate``: operations per second of a product."""

    bandwidth: float
    rate: float


@dataclass(frozen=True, slots=True)
class Need:
    """What a stage must do per step: operations and bytes."""

    operations: float
    bytes: float

    def seconds(self, device: Device) -> float:
        """The least time."""
        return max(self.operations / device.rate, self.bytes / device.bandwidth)


@torch.inference_mode()
def measure_device(device: torch.device, dtype: torch.dtype) -> Device:
    """Copy bandwidth and matrix rate in ``dtype``: the best of a few tries, a second or two in all."""
    large = device.type == "cuda"
    # Random numbers: a device draws less power, and runs faster, on equal ones.
    source = torch.empty(2**30 if large else 2**26, dtype=torch.uint8, device=device).random_(0, 256)
    target = torch.empty_like(source)
    side = 8192 if large else 768
    matrix = torch.randn(side, side, device=device).to(dtype) / side**0.5
    return Device(
        bandwidth=2 * source.nbytes / _best(device, lambda: target.copy_(source)),
        rate=2 * side**3 / _best(device, lambda: matrix @ matrix),
    )


def _best(device: torch.device, work: Any, tries: int = 8) -> float:
    seconds = []
    for _ in range(tries):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def needs(model: Model, *, grid: tuple[int, int, int], new: int, rows: float, tokens: float) -> dict[str, Need]:
    """What vision, prefill, decoding and eviction must do in one step.

    ``grid``: merged patches (t, h, w) of the step; ``new``: tokens that are prefilled; ``rows``: cache rows;
    ``tokens``: those of the reply, the first of which comes out of the prefill.
    """
    hf: Any = getattr(model, "hf", None)
    if hf is None:
        raise ModelError(f"{model.name} does not show its layers; no floor can be computed")
    model.check_reference_layers()
    decoder, head, kv = hf.model.language_model.layers, hf.lm_head, model.kv_shape
    text = hf.config.text_config
    weights = _bytes(decoder) + _bytes(head)
    width = text.num_attention_heads * kv.head_dim
    seen = max(rows - tokens - new / 2, 0)
    per_row = kv.bytes_per_row / 3
    attention = 4 * new * seen * width * kv.layers
    return {
        "vision_encode": _vision(hf, grid),
        "prefill": Need(2 * _count(decoder) * new + 2 * _count(head) + attention, weights + 2 * rows * per_row),
        "decode": Need(
            (tokens - 1) * (2 * (_count(decoder) + _count(head)) + 4 * rows * width * kv.layers),
            (tokens - 1) * (weights + 2 * rows * per_row),
        ),
        # Raw keys and values are read, and written with the rotated view.
        "evict": Need(0, 5 * rows * per_row),
    }


def _vision(hf: Any, grid: tuple[int, int, int]) -> Need:
    """Each block multiplies every patch; in windowed blocks a patch sees its window, else its whole frame."""
    visual, config = hf.model.visual, hf.config.vision_config
    merge = config.spatial_merge_size**2
    t, h, w = grid
    patches, frame = t * h * w * merge, h * w * merge
    width = getattr(config, "embed_dim", config.hidden_size)
    full = getattr(config, "fullatt_block_indexes", None)
    fulls = config.depth if full is None else len(full)
    window = min((getattr(config, "window_size", 0) // config.patch_size) ** 2, frame)
    attention = 4 * patches * width * (fulls * frame + (config.depth - fulls) * window)
    operations = 2 * patches * (_count(visual.blocks) + _count(visual.patch_embed) + _count(visual.merger) / merge)
    return Need(operations + attention, _bytes(visual))


def compare_with_floor(request: Request, model: Model, *, seconds: float, warm_up: int | None = None) -> Metrics:
    """Measure one stream of synthetic frames with a full cache for ``seconds`` of video beside its floor.

    Per second of video: ``{"stages": {stage: {"measured", "floor", "ratio"}}, ...}``, in seconds.
    """
    if not seconds > 0:
        raise OptionError(f"--seconds must be above 0, not {seconds:g}")
    device = measure_device(model.kv_shape.device, model.kv_shape.dtype)
    batch = open_stream_batch(request, model, most=1, rounds=1, warm_up=warm_up)
    with closing(batch):
        session, trace = batch.sessions[0], Trace()
        grid = session.stream.planner.patcher(batch.frames.chunk(0)).merged
        batch.runtime.call(lambda: session.step(batch.frames.chunk(0, session.time), trace=trace))
        new = trace.prefill_positions.shape[1] - len(trace.retained)
        steps = batch.watch(max(round(seconds / request.step), 1))
    measured = summarize(steps)
    rows = sum(step.rows for step in steps) / len(steps)
    floors = {
        stage: need.seconds(device) / request.step
        for stage, need in needs(model, grid=grid, new=new, rows=rows, tokens=measured["tokens"] / len(steps)).items()
    }
    stages = {
        stage: {
            "measured": spent,
            "floor": floors.get(stage),
            "ratio": spent / floors[stage] if floors.get(stage) else None,
        }
        for stage, spent in measured["stages"].items()
    }
    device_work = sum(measured["stages"][stage] for stage in floors)
    return {
        "stages": stages,
        "device_stages": {
            "measured": device_work,
            "floor": sum(floors.values()),
            "ratio": device_work / sum(floors.values()),
        },
        "seconds_per_token": measured["seconds_per_token"],
        "bandwidth": device.bandwidth,
        "rate": device.rate,
        "dtype": str(model.kv_shape.dtype).removeprefix("torch."),
        "rows": rows,
        "vision_tokens_per_step": grid[0] * grid[1] * grid[2],
        "tokens_per_second": measured["tokens_per_second"],
        "model": request.model_name,
        **how_it_ran(batch.runtime.engine),
        **provenance(model.kv_shape.device),
    }


def _tensors(module: nn.Module) -> list[Tensor]:
    return list(module.parameters())


def _count(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in _tensors(module))


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in _tensors(module))
