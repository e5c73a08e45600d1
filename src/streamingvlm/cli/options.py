"""Options that several commands share, and what is checked of them before anything is loaded."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

import typer

from ..core.errors import OptionError


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
