"""``info``: what would run."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Annotated, Any

import typer

from .loading import chosen_threads
from .options import DeviceOption, DtypeOption, KernelsOption, ModelOption, PolicyOption, WeightsOption


def info(
    model: ModelOption = None,
    policy: PolicyOption = "streaming",
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = None,
    kernels: KernelsOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what would run: checkpoint, device, dtype, cache rows and memory of one stream; measure int8 on a CPU."""
    from ..core.policy import make_policy

    make_policy(policy)
    facts = describe(model, policy, device=device, dtype=dtype, weights=weights, kernels=kernels)
    if as_json:
        print(json.dumps(facts))
        return
    for key, value in facts.items():
        text = "not available" if value is None else format(value, ",") if isinstance(value, int) else value
        print(f"{key.replace('_', ' '):17} {text}")


def describe(
    model: str | None,
    policy: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    kernels: str = "auto",
) -> dict[str, Any]:
    """What ``info`` prints."""
    from ..engine.engine import Engine
    from ..models.load import load_model, settle_threads
    from ..models.quantize import int8_speedup

    loaded = load_model(model, device=device, dtype=dtype, weights=weights, kernels=kernels)
    settle_threads(loaded, chosen_threads())
    engine = Engine(loaded)
    with closing(engine.open(policy=policy)) as session:
        facts = {
            "model": loaded.name,
            "parameters": loaded.parameters,
            "device": str(loaded.kv_shape.device),
            "dtype": str(loaded.kv_shape.dtype).removeprefix("torch."),
            "weights": loaded.weights or "as loaded",
            "kernels": _with_reason(loaded.kernels.name, loaded.kernels.reason),
            "capture": _with_reason(engine.decoding.capture, engine.decoding.reason),
            "policy": policy,
            "rows": session.capacity,
            "bytes_per_stream": session.bytes_per_stream,
        }
    if loaded.kv_shape.device.type == "cpu":
        speedup = int8_speedup(loaded)
        speedup = None if speedup is None else round(speedup, 2)
        facts["fastest_weights"] = "unquantized" if speedup is None or speedup <= 1 else "int8"
        facts["int8_speedup"] = speedup
    return facts


def _with_reason(what: str, reason: str) -> str:
    return f"{what} ({reason})" if reason else what
