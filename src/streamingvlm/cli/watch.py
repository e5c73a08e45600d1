"""``watch``: video in, words out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import OptionError
from .follow import Watched, can_talk, follow
from .loading import load_engine
from .naming import expand, output_paths, stream_names
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
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="A file, a folder of pictures, or SCHEME:... of a package.", show_default=False
        ),
    ],
    model: ModelOption = None,
    policy: PolicyOption = "streaming",
    context: Annotated[
        str | None, typer.Option(help="What is known beforehand. [default: the title of the video]")
    ] = None,
    instruct: Annotated[
        list[str] | None,
        typer.Option(help="A standing instruction for the commentary; several: a stream each, of every source."),
    ] = None,
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
        PaceOption | None,
        typer.Option(help="live: keep the clock, drop what is late; fast: every step. [default: live of live sources]"),
    ] = None,
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
    locators = [expand(source) for source in sources]
    texts: list[str | None] = list(instruct) if instruct else [None]
    wanted = [(locator, text) for locator in locators for text in texts]
    videos = [
        open_source(locator, fps=fps, step=step, start=start, duration=duration, video_stream=video_stream)
        for locator, _ in wanted
    ]
    # A locator may hold a password, the name of a source never does.
    names = stream_names(
        [locator if Path(locator).exists() else video.name for (locator, _), video in zip(wanted, videos, strict=True)]
    )
    outputs = [open_outputs(paths, inputs=locators) for paths in output_paths(output or [], names)]
    folder = find_checkpoint(model)
    for video in videos:
        check_source(folder, model or "the bundled model", video)
    path = None if model is None else str(folder)
    style = "quiet" if quiet else "json" if as_json else "auto"
    types = can_talk(style, [locator for locator, _ in wanted])
    slots = len(videos) + types
    engine = load_engine(
        path, device=device, dtype=dtype, weights=weights, capture=capture, kernels=kernels, slots=slots
    )
    streams = [
        Watched(
            name,
            video,
            {
                "policy": policy,
                "context": video.context if context is None else context,
                "instruction": text,
                "seed": seed,
                "temperature": temperature,
                "fps": fps,
                "step": step,
                "max_pixels": max_pixels,
            },
            files,
        )
        for name, video, (_, text), files in zip(names, videos, wanted, outputs, strict=True)
    ]
    return follow(streams, engine, style, None if pace is None else Pace(pace.value), types=types)
