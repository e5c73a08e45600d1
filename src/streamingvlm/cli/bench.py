"""``bench``: policies side by side, streams at once, hours on end, and the hardware's floor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import OptionError
from .ending import Stopped, stoppable
from .loading import chosen_threads
from .options import CaptureOption, DeviceOption, DtypeOption, KernelsOption, WeightsOption, check_numbers

if TYPE_CHECKING:
    from ..bench.setup import Request

app = typer.Typer(rich_markup_mode=None)

SourceArgument = Annotated[
    str | None,
    typer.Argument(metavar="SOURCE", help="[default: what the checkpoint's config names, else synthetic frames]"),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Checkpoint folder or hub id. [default: the bundled model]")
]
RandomWeightsOption = Annotated[
    str | None,
    typer.Option(
        "--random-weights",
        help="Random weights of a published size: qwen2.5-vl-7b, qwen3-vl-8b, ...",
    ),
]
FpsOption = Annotated[float, typer.Option(help="Frames to look at per second of video.")]
StepOption = Annotated[float, typer.Option(help="Seconds of video per step.")]
SizeOption = Annotated[
    str | None, typer.Option(metavar="WxH", help="Size of synthetic frames. [default: the published size's]")
]
TokensOption = Annotated[
    int | None, typer.Option("--tokens", help="Force so many tokens per step. [default: replies end by themselves]")
]
SeedOption = Annotated[int, typer.Option(help="Seed of words, synthetic frames and random weights.")]
JsonOption = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures as JSON.")]
WarmUpOption = Annotated[int, typer.Option(help="Steps at the start that are not counted.")]


@app.callback(invoke_without_command=True)
def top(context: typer.Context) -> None:
    """Measure: policies side by side, streams at once, hours on end, the hardware's floor."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def policies(
    source: SourceArgument = None,
    seconds: Annotated[float, typer.Option(help="Seconds of video that are measured.")] = 60.0,
    names: Annotated[
        str | None,
        typer.Option(
            "--policies", help="Comma-separated, with numbers: streaming,full. [default: all but public-code]"
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="per-token-rotation: the cache as the public code runs it; repeatable.")
    ] = None,
    warm_up: WarmUpOption = 20,
    model: ModelOption = None,
    random_weights: RandomWeightsOption = None,
    fps: FpsOption = 2.0,
    step: StepOption = 1.0,
    size: SizeOption = None,
    tokens: TokensOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = None,
    capture: CaptureOption = "auto",
    kernels: KernelsOption = "auto",
    json_file: JsonOption = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw lag and work (needs matplotlib).")
    ] = None,
) -> None:
    """Run every policy on the same stream, in turns, and compare work, lag and memory."""
    check_numbers(fps=fps, step=step, seed=seed)
    from ..bench import policies as bench
    from ..bench import report
    from ..runtime import reports

    specs = bench.default_specs() if names is None else bench.split_specs(names)
    request = _request(
        model, random_weights, source, fps, step, size, tokens, seed, device, dtype, weights, capture, kernels
    )
    reports.check_targets(json_file, plot)
    with reports.progress("seconds of video", seconds + warm_up * step) as done:
        figures, lanes = bench.compare(
            request, seconds=seconds, warm_up=warm_up, specs=specs, baselines=baseline or [], on_block=done
        )
    reports.write_json(json_file, figures)
    report.show(report.policy_table(figures), figures)
    print(f"{request.model_name}; the first {warm_up} steps are warm-up and not counted")
    for name, one in figures["policies"].items():
        if one["ended"]:
            print(f"{name}: {one['ended']}")
    if plot is not None:
        report.draw_policies(plot, lanes, figures)


@app.command()
def streams(
    most: Annotated[int, typer.Option(help="Try no more streams than that.")] = 64,
    rounds: Annotated[int, typer.Option(help="Steps of every count of streams.")] = 8,
    warm_up: Annotated[int | None, typer.Option(help="Steps before. [default: until the cache is full]")] = None,
    model: ModelOption = None,
    random_weights: RandomWeightsOption = None,
    fps: FpsOption = 2.0,
    step: StepOption = 1.0,
    size: SizeOption = None,
    tokens: TokensOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = None,
    capture: CaptureOption = "auto",
    kernels: KernelsOption = "auto",
    json_file: JsonOption = None,
) -> None:
    """Find out how many streams of synthetic frames stay real-time, and what a batch costs."""
    check_numbers(fps=fps, step=step, seed=seed)
    from ..bench import report
    from ..bench import streams as bench
    from ..runtime import reports

    request = _request(
        model,
        random_weights,
        None,
        fps,
        step,
        _made_up(size, model, random_weights),
        tokens,
        seed,
        device,
        dtype,
        weights,
        capture,
        kernels,
    )
    reports.check_targets(json_file)
    with reports.progress("trying counts", most) as done:
        batch = bench.open_stream_batch(
            request, request.make_model(), most=most, rounds=rounds, warm_up=warm_up, on_trial=done
        )
        figures = bench.count_streams(batch)
    reports.write_json(json_file, figures)
    report.show(report.stream_table(figures), figures)
    for line in report.stream_lines(figures):
        print(line)


@app.command()
def soak(
    source: SourceArgument = None,
    hours: Annotated[float, typer.Option(help="Hours of video.")] = 8.0,
    warm_up: WarmUpOption = 20,
    model: ModelOption = None,
    random_weights: RandomWeightsOption = None,
    fps: FpsOption = 2.0,
    step: StepOption = 1.0,
    size: SizeOption = None,
    tokens: TokensOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = None,
    capture: CaptureOption = "auto",
    kernels: KernelsOption = "auto",
    json_file: JsonOption = None,
) -> int:
    """Watch one stream for hours, as fast as it goes; tell whether lag or memory grow. Ctrl-C keeps the figures."""
    check_numbers(fps=fps, step=step, seed=seed)
    from ..bench import report
    from ..bench.soak import Soak
    from ..runtime import reports

    run = Soak(
        _request(
            model, random_weights, source, fps, step, size, tokens, seed, device, dtype, weights, capture, kernels
        ),
        hours,
        warm_up,
    )
    reports.check_targets(json_file)
    code = 0
    try:
        with stoppable(), reports.progress("seconds of video", run.seconds) as done:
            run.run(done)
    except KeyboardInterrupt:
        code = 130
    except Stopped as end:
        code = end.code
    if not run.count:
        if code == 0:
            raise OptionError("the source ends before the warm-up does; nothing was measured")
        return code
    figures = run.figures(complete=code == 0)
    reports.write_json(json_file, figures)
    report.show(report.soak_table(figures), figures)
    return code


@app.command()
def ask(
    source: SourceArgument = None,
    streams: Annotated[int, typer.Option(help="Live streams of the source.")] = 1,
    seconds: Annotated[float, typer.Option(help="Seconds that are measured.")] = 240.0,
    every: Annotated[float, typer.Option(help="Seconds between two questions, in every second turn.")] = 5.0,
    question: Annotated[str, typer.Option(help="What is asked.")] = "What has happened so far?",
    warm_up: Annotated[float, typer.Option(help="Seconds at the start that are not counted.")] = 20.0,
    model: ModelOption = None,
    random_weights: RandomWeightsOption = None,
    fps: FpsOption = 2.0,
    step: StepOption = 1.0,
    size: SizeOption = None,
    tokens: TokensOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = None,
    capture: CaptureOption = "auto",
    kernels: KernelsOption = "auto",
    json_file: JsonOption = None,
) -> None:
    """Watch live streams with and without questions, in turns, and tell what these cost in lag."""
    check_numbers(fps=fps, step=step, seed=seed)
    from ..bench import ask as bench
    from ..bench import report
    from ..runtime import reports

    plan = bench.Plan(streams, seconds, every, warm_up, question)
    request = _request(
        model, random_weights, source, fps, step, size, tokens, seed, device, dtype, weights, capture, kernels
    )
    reports.check_targets(json_file)
    with reports.progress("seconds", seconds) as done:
        figures = bench.measure_questions(request, plan, done)
    reports.write_json(json_file, figures)
    report.show(report.ask_table(figures), figures)
    print(report.ask_line(figures))


@app.command()
def roofline(
    count: Annotated[
        bool, typer.Option("--count", help="Count what a GPU would do, without one (needs --random-weights).")
    ] = False,
    seconds: Annotated[float, typer.Option(help="Seconds of video that are measured.")] = 10.0,
    warm_up: Annotated[int | None, typer.Option(help="Steps before. [default: until the cache is full]")] = None,
    model: ModelOption = None,
    random_weights: RandomWeightsOption = None,
    fps: FpsOption = 2.0,
    step: StepOption = 1.0,
    size: SizeOption = None,
    tokens: TokensOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = None,
    capture: CaptureOption = "auto",
    kernels: KernelsOption = "auto",
    json_file: JsonOption = None,
) -> None:
    """Measure the device, compute what a step must cost at least, and how far above that it is."""
    check_numbers(fps=fps, step=step, seed=seed)
    from ..bench import report
    from ..bench.count import count_operations
    from ..bench.roofline import compare_with_floor
    from ..runtime import reports

    request = _request(
        model,
        random_weights,
        None,
        fps,
        step,
        _made_up(size, model, random_weights),
        tokens,
        seed,
        device,
        dtype,
        weights,
        capture,
        kernels,
    )
    reports.check_targets(json_file)
    if count:
        figures = count_operations(request)
        reports.write_json(json_file, figures)
        report.show_count(figures)
        return
    figures = compare_with_floor(request, request.make_model(), seconds=seconds, warm_up=warm_up)
    reports.write_json(json_file, figures)
    report.show(report.roofline_table(figures), figures)


def _request(
    model: str | None,
    random_weights: str | None,
    source: str | None,
    fps: float,
    step: float,
    size: str | None,
    tokens: int | None,
    seed: int,
    device: str | None,
    dtype: str | None,
    weights: str | None,
    capture: str,
    kernels: str,
) -> Request:
    from ..bench.setup import Request, default_source

    if source is None and (source := default_source(model, random_weights, size)) is None:
        size = _made_up(size, model, random_weights)
    return Request(
        model,
        random_weights,
        source,
        fps,
        step,
        _size(size),
        tokens,
        seed,
        device,
        dtype,
        weights,
        capture,
        chosen_threads(),
        kernels,
    )


def _made_up(size: str | None, model: str | None, random_weights: str | None) -> str | None:
    """The size of synthetic frames where none is asked for: the bundled model's own, else 720p's."""
    if size is not None or random_weights is not None:
        return size
    return "420x320" if model is None else "1280x720"


def _size(text: str | None) -> tuple[int, int] | None:
    """``1280x720`` to (1280, 720)."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise OptionError(f"--size must be WIDTHxHEIGHT, as in 1280x720, not {text!r}")
    return int(match[1]), int(match[2])
