"""``watch``: video in, words out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import OptionError
from .follow import can_talk, follow
from .loading import KEY, check_endpoint, load_engine, open_endpoint, open_state
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
from .plan import SourceRequest, Watched, WebhookRequest, are_asked, check_locators, plan, read_rules


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
        typer.Option(
            "-o", "--output", metavar="PATH", help="Also write a .vtt, .srt, .jsonl or .mp4 file; repeatable."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep events and snapshots there; the same command goes on after a crash."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help=f"An OpenAI-compatible server in place of a local model; its key in {KEY}."),
    ] = None,
    remote_model: Annotated[str, typer.Option(metavar="NAME", help="The model to ask for at --endpoint.")] = "",
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
    check_locators(sources)
    if endpoint is not None:
        local = {"model": model, "device": device, "dtype": dtype, "weights": weights, "temperature": temperature}
        check_endpoint(endpoint, remote_model, {**local, "max-pixels": max_pixels})
    elif remote_model:
        raise OptionError("--remote-model is of an --endpoint; a local model is told by --model")
    from ..core.policy import make_policy
    from ..runtime.clock import Pace

    make_policy(policy)
    local_options = {"policy": policy, "seed": seed, "temperature": temperature, "max_pixels": max_pixels}

    def options(number: int) -> dict[str, Any]:
        rates = {"fps": fps, "step": step}
        return rates if endpoint is not None else {**rates, **local_options, "stream": number}

    hook = WebhookRequest.of(webhook, webhook_secret, webhook_kind or [], webhook_private)
    asked_rules = read_rules(rule or [], rules or [])
    style = "quiet" if quiet else "json" if as_json else "auto"
    clock = None if pace is None else Pace(pace.value)
    with ExitStack() as end:
        streams = plan(
            sources,
            instruct or [],
            SourceRequest(fps, step, start, duration, video_stream, source_option or [], user, password),
            context=context,
            output=output or [],
            rules=asked_rules,
            webhook=hook,
            state=open_state(state, end),
            options=options,
        )
        types = len(streams) == 1 and can_talk(style, sources)
        questions = types or are_asked(streams)
        if endpoint is not None:
            remote = end.enter_context(open_endpoint(endpoint, remote_model))
            return follow(streams, remote, style, clock, questions=questions, types=types)
        path = check_sources(model, kind, streams)
        slots = len(streams) + questions
        engine = load_engine(
            path, device=device, dtype=dtype, weights=weights, capture=capture, kernels=kernels, slots=slots
        )
        return follow(streams, engine, style, clock, questions=questions, types=types)


def check_sources(model: str | None, kind: str, streams: Sequence[Watched]) -> str | None:
    """The folder of a checkpoint that knows what the streams show (None: the bundled one). ModelError if it does not.

    ``kind``: what the user says that live ones show.
    """
    from ..models.hub import find_checkpoint
    from ..models.knows import check_source

    folder = find_checkpoint(model)
    for one in streams:
        check_source(folder, model or "the bundled model", one.video, kind)
    return None if model is None else str(folder)
