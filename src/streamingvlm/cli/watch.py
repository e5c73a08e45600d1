"""``watch`` and ``info``."""

from __future__ import annotations

import json
import math
import os
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import OptionError
from .follow import follow

if TYPE_CHECKING:
    from ..engine.engine import Engine


class PaceOption(StrEnum):
    """``live`` keeps the clock and drops what is late; ``fast`` takes every step as fast as it can."""

    LIVE = "live"
    FAST = "fast"


ModelOption = Annotated[
    str | None, typer.Option("--model", help="Checkpoint folder or hub id. [default: the bundled model]")
]
PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy",
        help="What the model sees of the past: streaming, public-code, full, sliding-reset, sliding-recompute or "
        "recent-frames; with numbers: full:seconds=900, streaming:vision=8,text=256.",
    ),
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:N, mps. [default: the best there is]")]
DtypeOption = Annotated[str | None, typer.Option(help="bf16, fp16 or fp32. [default: what suits the device]")]
WeightsOption = Annotated[
    str | None,
    typer.Option(help="int8, fp8 or int4: quantize the matrices (needs torchao, but for int8 on a CPU). [default: no]"),
]
CaptureOption = Annotated[
    str,
    typer.Option(
        help="How tokens are decoded: graph (CUDA), static (fixed shapes), none (one operation after the other), auto "
        "(the first of these that works)."
    ),
]
KernelsOption = Annotated[str, typer.Option(help="auto: kernels of our own where they run; plain: torch's alone.")]


def watch(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A file, or SCHEME:... of a package.", show_default=False),
    ],
    model: ModelOption = None,
    policy: PolicyOption = "streaming",
    context: Annotated[
        str | None, typer.Option(help="What is known beforehand. [default: the title of the video]")
    ] = None,
    instruct: Annotated[str | None, typer.Option(help="A standing instruction for the commentary.")] = None,
    fps: Annotated[float, typer.Option(help="Frames to look at per second of video.")] = 2.0,
    step: Annotated[float, typer.Option(help="Seconds of video per step.")] = 1.0,
    output: Annotated[
        list[Path] | None,
        typer.Option("-o", "--output", metavar="PATH", help="Also write a .vtt, .srt or .jsonl file; repeatable."),
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="Most pixels of a frame after the resize. [default: the checkpoint's own]")
    ] = None,
    pace: Annotated[
        PaceOption, typer.Option(help="live: keep the clock, drop what is late; fast: every step, no clock.")
    ] = PaceOption.FAST,
    start: Annotated[float, typer.Option(help="Second to start at.")] = 0.0,
    duration: Annotated[float | None, typer.Option(help="Seconds to watch. [default: to the end]")] = None,
    video_stream: Annotated[
        int | None,
        typer.Option(metavar="N", help="Which of the file's video streams, from 0. [default: the film, no cover]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of words.")] = 0,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy. [default: the checkpoint's own]")] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = None,
    capture: CaptureOption = "auto",
    kernels: KernelsOption = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but the summary.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one event a line.")] = False,
) -> int:
    """Watch a video and comment on it, step by step."""
    check_numbers(
        fps=fps, step=step, start=start, duration=duration, seed=seed, temperature=temperature, max_pixels=max_pixels
    )
    if quiet and as_json:
        raise OptionError("--quiet and --json exclude each other")
    from ..core.policy import make_policy
    from ..models.hub import find_checkpoint
    from ..models.knows import check_source
    from ..runtime.clock import Pace
    from ..sinks.outputs import open_outputs
    from ..sources.open import open_source

    make_policy(policy)
    outputs = open_outputs(output or [], inputs=[source])
    video = open_source(source, fps=fps, step=step, start=start, duration=duration, video_stream=video_stream)
    folder = find_checkpoint(model)
    check_source(folder, model or "the bundled model", video)
    path = None if model is None else str(folder)
    engine = load_engine(path, device=device, dtype=dtype, weights=weights, capture=capture, kernels=kernels)
    options = {
        "policy": policy,
        "context": video.context if context is None else context,
        "instruction": instruct,
        "seed": seed,
        "temperature": temperature,
        "fps": fps,
        "step": step,
        "max_pixels": max_pixels,
    }
    style = "quiet" if quiet else "json" if as_json else "auto"
    return follow(video, engine, options, outputs, style, Pace(pace.value))


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


def load_engine(
    model: str | None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    capture: str = "auto",
    kernels: str = "auto",
) -> Engine:
    """Load a checkpoint into an engine with one slot. Here torch comes in."""
    from ..engine.engine import Engine
    from ..models.load import load_model, settle_threads

    loaded = load_model(model, device=device, dtype=dtype, weights=weights, kernels=kernels)
    settle_threads(loaded, chosen_threads())
    return Engine(loaded, capture=capture)


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


def chosen_threads() -> int | None:
    """Threads that the caller's environment asks for (None: it leaves that to us)."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None


def check_numbers(
    *,
    fps: float = 2.0,
    step: float = 1.0,
    start: float = 0.0,
    duration: float | None = None,
    seed: int = 0,
    temperature: float | None = None,
    max_pixels: int | None = None,
) -> None:
    """Raise a one-line error for a number that cannot be meant."""
    rules = [
        (0 < fps <= 60, f"--fps must be above 0 and at most 60, not {fps:g}"),
        (math.isfinite(step) and step > 0, f"--step must be a number of seconds above 0, not {step:g}"),
        (step * fps >= 1 - 1e-9, f"--step {step:g} is shorter than one frame at --fps {fps:g}"),
        (math.isfinite(start) and start >= 0, f"--start must be 0 or more seconds, not {start:g}"),
        (duration is None or (math.isfinite(duration) and duration > 0), f"--duration must be above 0, not {duration}"),
        (seed >= 0, f"--seed must be 0 or more, not {seed}"),
        (
            temperature is None or (math.isfinite(temperature) and temperature >= 0),
            f"--temperature must be 0 or more, not {temperature}",
        ),
        (max_pixels is None or max_pixels > 0, f"--max-pixels must be above 0, not {max_pixels}"),
    ]
    for good, message in rules:
        if not good:
            raise OptionError(message)
