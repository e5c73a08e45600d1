"""``train``, ``rollout`` and ``merge``: supervised fine-tuning by stages."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import OptionError
from .ending import Stopped, stoppable
from .options import DeviceOption, DtypeOption

if TYPE_CHECKING:
    from ..data.report import Report
    from ..train.config import TrainConfig

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A stage: configs/train/*.toml", show_default=False)
]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Keys of the stage, as in epochs=2")
]


def train(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell tokens, steps, hours and bytes, and stop.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest whole checkpoint in the output.")
    ] = False,
    devices: Annotated[
        int | None, typer.Option(help="Devices to plan for with --dry-run. [default: the processes started]")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what was left out of the data, and why, as JSON.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan of --dry-run as JSON.")] = False,
) -> int:
    """Train a stage on chunks of commented video. Several GPUs: torchrun --nproc-per-node N -m streamingvlm train"""
    stage = _stage(config, overrides)
    if devices is not None and devices < 1:
        raise OptionError(f"--devices must be 1 or more, not {devices}")
    if dry_run:
        return _plan(stage, devices, report, as_json)
    with _train_extra():
        from ..models.load import load_frontend
        from ..train import data, run

        run.take_up(stage, resume)
        front = load_frontend(stage.model or None)
        chunks = data.training_chunks(stage, front)
        first = os.environ.get("RANK", "0") == "0"
        if first:
            _tell(chunks.report, report)
        held_out = data.held_out_chunks(stage, front)
        if held_out is not None and first:
            print(f"held out: {held_out.report}", file=sys.stderr)
        try:
            with stoppable():
                folder = run.train(stage, front, chunks, held_out, data.collator_of(stage).pack, resume=resume)
        except (KeyboardInterrupt, Stopped) as stop:
            if first:
                print("stopped; --resume goes on from the newest checkpoint", file=sys.stderr)
            return stop.code if isinstance(stop, Stopped) else 130
    if first:
        print(folder)
        if stage.method == "lora":
            print(f"an adapter; to get a checkpoint: streamingvlm merge {stage.output} -o FOLDER", file=sys.stderr)
    return 0


def _plan(stage: TrainConfig, devices: int | None, report: Path | None, as_json: bool) -> int:
    with _train_extra():
        from ..models.load import load_frontend
        from ..train import data
        from ..train.plan import ResourceEstimate, count

        chunks = data.training_chunks(stage, load_frontend(stage.model or None))
        plan = ResourceEstimate(stage, count(chunks), devices or int(os.environ.get("WORLD_SIZE", "1")))
    _tell(chunks.report, report)
    print(json.dumps(plan.to_dict(), indent=2) if as_json else "\n".join(plan.lines()))
    return 0


def rollout(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    part: Annotated[
        str, typer.Option(metavar="K/N", help="Every N-th segment from the K-th, counted from 0: a process a device.")
    ] = "0/1",
    device: DeviceOption = None,
    dtype: DtypeOption = None,
) -> int:
    """Let a stage's model watch its streams by itself; its words are the histories of the on-policy stage."""
    stage = _stage(config, overrides)
    number, parts = _part(part)
    if not stage.rollouts:
        raise OptionError('rollouts names no file: rollouts = "runs/on-policy/rollouts.jsonl"')
    from ..models.load import load_frontend, load_model
    from ..runtime.reports import progress
    from ..train import data
    from ..train.onpolicy import RolloutRunner

    path = Path(stage.rollouts)
    if parts > 1:
        path = path.with_name(f"{path.stem}.{number}-of-{parts}{path.suffix}")
    chunks = data.open_chunks(stage, load_frontend(stage.model or None), stage.data)
    work = RolloutRunner(
        stage, load_model(stage.model or None, device=device, dtype=dtype), chunks, path, (number, parts)
    )
    print(f"{len(work.todo)} segments to watch, {work.done} of {work.total} s are there already", file=sys.stderr)
    try:
        with stoppable(), progress("seconds of video", work.total) as told:
            work.run(told)
    except Stopped:
        return 143
    for failure in work.failed:
        print(f"left out: {failure}", file=sys.stderr)
    print(path)
    return 0


def merge(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The output of a stage with method lora.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="The checkpoint folder to write.")],
) -> None:
    """Merge an adapter into the weights that it was trained on: an ordinary checkpoint folder for watch --model."""
    with _train_extra():
        from ..train.weights import merge as merge_run

        merge_run(run, output)
    print(output)


def _stage(config: Path, overrides: list[str] | None) -> TrainConfig:
    from ..train.config import read_stage

    return read_stage(config, overrides or [])


def _part(text: str) -> tuple[int, int]:
    number, slash, parts = text.partition("/")
    if not (slash and number.isdigit() and parts.isdigit() and int(number) < int(parts)):
        raise OptionError(f"--part must be K/N with K from 0 to N - 1, as in 0/8, not {text!r}")
    return int(number), int(parts)


def _tell(report: Report, path: Path | None) -> None:
    """What was read and what was left out: on standard error, and as JSON if a file was asked for."""
    from ..runtime import reports

    print(report, file=sys.stderr)
    reports.check_targets(path)
    reports.write_json(path, report.to_json())


@contextmanager
def _train_extra() -> Iterator[None]:
    """One line where the libraries for training are not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "peft", "tensorboard"):
            raise
        raise OptionError(f"{error.name} is not installed: pip install 'streamingvlm[train]'") from None
