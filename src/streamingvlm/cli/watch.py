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
from .plan import SourceRequest, WebhookRequest, are_asked, plan, read_rules


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
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="'NAME: a person is lying on the floor' or 'NAME: says: REGEX' raises an alert; repeatable.",
        ),
    ] = None,
    rules: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Rules as TOML or JSON; repeatable.")] = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="POST alerts, answers, gaps and status there, signed.")
    ] = None,
    webhook_secret: Annotated[
        str | None, typer.Option(metavar="SECRET", help="What they are signed with: '${NAME}' of the environment.")
    ] = None,
    webhook_kind: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="Types of events to send; repeatable. [default: see docs]")
    ] = None,
    webhook_private: Annotated[
        bool, typer.Option("--webhook-private", help="The server may have an address that is not public.")
    ] = False,
    source_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="For live sources: transport=udp, or an option of FFmpeg; repeatable."),
    ] = None,
    kind: Annotated[
        str, typer.Option(help="What a live source shows, for a checkpoint that knows few things; see info.")
    ] = "",
    user: Annotated[str | None, typer.Option(help="User of a live source, if it is not in the URL.")] = None,
    password: Annotated[
        str | None, typer.Option(help="Its password: '${NAME}' of the environment, or the text itself.")
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

    make_policy(policy)
    options = {
        "policy": policy,
        "seed": seed,
        "temperature": temperature,
        "fps": fps,
        "step": step,
        "max_pixels": max_pixels,
    }
    hook = None
    if webhook is not None:
        hook = WebhookRequest(webhook, webhook_secret, webhook_kind or [], webhook_private)
    streams = plan(
        sources,
        instruct or [],
        SourceRequest(fps, step, start, duration, video_stream, source_option or [], user, password),
        context=context,
        output=output or [],
        rules=read_rules(rule or [], rules or []),
        webhook=hook,
        options=options,
    )
    folder = find_checkpoint(model)
    for one in streams:
        check_source(folder, model or "the bundled model", one.video, kind)
    questions = are_asked(streams)
    path = None if model is None else str(folder)
    slots = len(streams) + questions
    engine = load_engine(
        path, device=device, dtype=dtype, weights=weights, capture=capture, kernels=kernels, slots=slots
    )
    style = "quiet" if quiet else "json" if as_json else "auto"
    return follow(streams, engine, style, None if pace is None else Pace(pace.value), questions=questions)
