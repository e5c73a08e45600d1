"""``eval``: how good a checkpoint is on a task. Packages add tasks for ``eval run``, and commands of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .ending import Stopped, stoppable
from .eval_check import check
from .eval_generate import generate
from .eval_judge import judge
from .eval_report import report
from .eval_score import score
from .follow import kept
from .options import DeviceOption, DtypeOption, ModelOption, PolicyOption, WeightsOption

WordsOption = Annotated[
    Path,
    typer.Option(
        "--words",
        metavar="FOLDER",
        help="Where words are kept as they are said, a run goes on from there; beside them what the tower saw of "
        "streams that are watched more than once.",
    ),
]


def make_app() -> typer.Typer:
    """The group, with the commands of this package alone."""
    app = typer.Typer(rich_markup_mode=None)
    app.callback(invoke_without_command=True)(top)
    for command in (run, check, generate, judge, score, report):
        app.command()(command)
    return app


def top(context: typer.Context) -> None:
    """Score free-running words: on any task, and with the commands of installed packages."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(
    task: Annotated[
        str,
        typer.Argument(metavar="TASK", help="NAME or NAME?key=value&... of an installed package.", show_default=False),
    ],
    model: ModelOption = None,
    policy: PolicyOption = "streaming",
    words: WordsOption = Path("runs/eval"),
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the metrics as JSON.")
    ] = None,
) -> int:
    """Watch all examples of a task, all in one batch, the model reading nothing but its own words; print the metrics.

    Ctrl-C keeps what was said: the same command goes on from there.
    """
    from ..core.policy import make_policy
    from ..evaluate.task import open_task
    from ..runtime import reports

    make_policy(policy)
    opened = open_task(task)
    reports.check_targets(json_file)
    try:
        with stoppable():
            from ..evaluate.checkpoint import Checkpoint
            from ..evaluate.runner import run_task

            checkpoint = Checkpoint.load(model, device=device, dtype=dtype, weights=weights)
            metrics = opened.score(run_task(opened, checkpoint, policy, words, reports.progress))
    except (KeyboardInterrupt, Stopped) as end:
        return kept(end)
    origin = reports.provenance(checkpoint.model.kv_shape.device)
    about = {"task": task, "model": checkpoint.path, "checkpoint": checkpoint.fingerprint, "policy": policy}
    reports.write_json(json_file, {**metrics, **about, **origin})
    print(opened.report(metrics))
    print(f"\n{task}: {len(opened.examples)} streams of up to {opened.seconds} s; {reports.heading(origin)}")
    return 0
