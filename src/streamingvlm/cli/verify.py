"""``verify``: a check of a checkpoint on this machine, with a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import OptionError
from .bench import FpsOption, ModelOption, RandomWeightsOption, StepOption
from .loading import chosen_threads
from .options import DeviceOption, DtypeOption, check_numbers


def verify(
    clip: Annotated[
        str | None,
        typer.Argument(metavar="CLIP", help="A video of a minute or so. [default: what the checkpoint's config names]"),
    ] = None,
    model: ModelOption = None,
    random_weights: RandomWeightsOption = None,
    seconds: Annotated[float, typer.Option(help="Seconds of the clip to run under every policy.")] = 60.0,
    names: Annotated[
        str | None, typer.Option("--policies", help="Comma-separated. [default: all but public-code]")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Where the report goes, and as FILE.json. [default: printed]"),
    ] = None,
    fps: FpsOption = 2.0,
    step: StepOption = 1.0,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
) -> int:
    """Check a checkpoint here: cached against uncached logits, bounded memory, lag. Exit code 1 if a check fails."""
    check_numbers(fps=fps, step=step)
    if report is not None and report.suffix != ".md":
        raise OptionError(f"--report must end in .md, not {report.name}")
    from ..bench import policies
    from ..bench import verify as bench
    from ..bench.setup import Request, default_source
    from ..runtime import reports
    from ..sinks.files import write_whole

    specs = policies.default_specs() if names is None else policies.split_specs(names)
    policies.check(specs, [])
    clip = clip or default_source(model, random_weights)
    request = Request(model, random_weights, clip, fps, step, device=device, dtype=dtype, threads=chosen_threads())
    files = [] if report is None else [report, report.with_suffix(".json")]
    for path in files:
        reports.check_targets(path)
    with reports.progress("seconds of video", seconds) as done:
        figures = bench.verify(request, seconds=seconds, specs=specs, on_second=done)
    text = bench.to_markdown(figures)
    if report is None:
        print(text)
    else:
        write_whole(report, text)
        reports.write_json(files[1], figures)
    for check in figures["checks"]:
        if not check["ok"]:
            print(f"fails: {check['name']}: {check['found']}, wanted {check['wanted']}", file=sys.stderr)
    return 0 if figures["ok"] else 1
