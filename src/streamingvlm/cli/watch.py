"""``watch``: video in, words out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import OptionError
from .follow import follow
from .loading import load_engine
from .options import (
    CaptureOption,
    DeviceOption,
    DtypeOption,
    KernelsOption,
    ModelOption,
    PaceOption,
    PolicyOption,
    WeightsOption,
    check_numbers,
)


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
    from ..sinks.files import open_outputs
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
