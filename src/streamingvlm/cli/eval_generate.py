"""``eval generate``: what a contestant says of a benchmark."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import OptionError
from .ending import Stopped, stoppable
from .follow import kept
from .options import DeviceOption, DtypeOption, ModelOption, WeightsOption

if TYPE_CHECKING:
    from ..evaluate.jobs import Job, Outcome
    from ..evaluate.shards import Shard

#: Where a key for an endpoint is taken from; it is never written.
KEY = "OPENAI_API_KEY"


class ModeOption(StrEnum):
    """``stream``: watch once, through the streaming cache; ``offline``: all frames in one prompt."""

    STREAM = "stream"
    OFFLINE = "offline"


def generate(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="A benchmark: NAME or NAME?key=value&...", show_default=False)
    ],
    data: Annotated[
        Path, typer.Option("--data", metavar="PATH", help="Its data, a folder or a file.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="RUN", help="The run's folder; the same command goes on there.", show_default=False
        ),
    ],
    videos: Annotated[
        Path | None,
        typer.Option(
            "--videos", metavar="FOLDER", help="Where the names of its videos start; beside the data if not told."
        ),
    ] = None,
    model: ModelOption = None,
    policy: Annotated[
        str | None, typer.Option("--policy", help="Cache policy, as for watch. [default: the preset's]")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help=f"An OpenAI-compatible server in place of a local model; its key in {KEY}."),
    ] = None,
    remote_model: Annotated[str, typer.Option(metavar="NAME", help="The model to ask for at --endpoint.")] = "",
    constant: Annotated[
        str | None, typer.Option(metavar="TEXT", help="No model: say this of every window, or to every item.")
    ] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Show black frames, or offline none at all.")] = False,
    preset: Annotated[
        str, typer.Option(help="paper, official or ours: frames, prompt, sampling and windows.")
    ] = "ours",
    mode: Annotated[
        ModeOption, typer.Option(help="stream: watched once, asked in forks; offline: all frames in one prompt.")
    ] = ModeOption.STREAM,
    part: Annotated[str, typer.Option(metavar="I/N", help="Only these videos, by hash of their names.")] = "1/1",
    limit: Annotated[int | None, typer.Option(help="Only so many videos, the first of the data.")] = None,
    streams: Annotated[int, typer.Option(help="Videos in one batch.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the choice of words.")] = 0,
    words: Annotated[
        str, typer.Option(metavar="human|none", help="Give the human words before the start? [default: the preset's]")
    ] = "",
    answers: Annotated[
        str,
        typer.Option(metavar="likelihood|generate", help="How answers are had. [default: the preset's]"),
    ] = "",
    keep_vision: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep what the tower sees here: other policies need not look again."),
    ] = None,
    name: Annotated[str, typer.Option(help="What the contestant is called. [default: model and policy]")] = "",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out videos that are missing; the result says so.")
    ] = False,
    ray: Annotated[int, typer.Option(metavar="WORKERS", help="Run in so many Ray workers. [default: here]")] = 0,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = None,
) -> int:
    """Generate commentary or answers into RUN, resumed after whatever ended it; write them in the published form.

    Parts may run at the same time in one folder. Ctrl-C, and worse, keeps what was said.
    """
    if sum(value is not None for value in (endpoint, constant)) + (model is not None) > 1:
        raise OptionError("the contestant is one of --model, --endpoint and --constant")
    if endpoint is not None and not remote_model:
        raise OptionError("--endpoint needs --remote-model: which model to ask for")
    if remote_model and endpoint is None:
        raise OptionError("--remote-model is of an --endpoint; a local model is told by --model")
    if endpoint is not None or constant is not None:
        local = {"policy": policy, "device": device, "dtype": dtype, "weights": weights, "keep-vision": keep_vision}
        if unused := [f"--{option}" for option, value in local.items() if value is not None]:
            raise OptionError(f"{', '.join(unused)}: only of a local model, not of --endpoint and --constant")
    if constant is not None and blind:
        raise OptionError("--constant sees nothing in any case: --blind has no part in it")
    if ray and part != "1/1":
        raise OptionError("--ray runs all parts by itself: --part has no part in it")
    if words not in ("", "human", "none"):
        raise OptionError(f"--words is human or none, not {words!r}")
    if streams < 1 or ray < 0 or (limit is not None and limit < 1):
        raise OptionError("--streams and --limit must be 1 or more, --ray 0 or more")
    from ..evaluate.jobs import Job
    from ..evaluate.shards import Shard

    job = Job(
        task,
        data,
        videos,
        out,
        preset=preset,
        mode=mode.value,
        model=model,
        policy=policy,
        device=device,
        dtype=dtype,
        weights=weights,
        endpoint=endpoint,
        remote_model=remote_model,
        key=os.environ.get(KEY) or None,
        constant=constant,
        blind=blind,
        limit=limit,
        streams=streams,
        seed=seed,
        words=words,
        answers=answers,
        features=keep_vision,
        allow_missing=allow_missing,
        name=name,
    )
    return _run(job, Shard.parse(part), ray)


def _run(job: Job, part: Shard, workers: int) -> int:
    from ..evaluate.jobs import run_job
    from ..evaluate.ray_workers import run_on_ray
    from ..runtime import reports

    try:
        with stoppable():
            outcome = run_on_ray(job, workers, reports.progress) if workers else run_job(job, part, reports.progress)
    except (KeyboardInterrupt, Stopped) as end:
        return kept(end)
    print(_summary(job, outcome))
    return 0


def _summary(job: Job, outcome: Outcome) -> str:
    whole = "all" if outcome.found == outcome.expected else "not all"
    return (
        f"{outcome.name}: {outcome.found} of {outcome.expected} {outcome.unit} of {job.task} ({whole}); "
        f"{job.out / 'predictions.jsonl'}"
    )
