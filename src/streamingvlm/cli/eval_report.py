"""``eval report``: runs, votes and scores as tables, figures and one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN...", help="Folders of runs, or prediction files.", show_default=False),
    ] = None,
    votes: Annotated[
        list[Path] | None,
        typer.Option("--votes", metavar="FILE", help="Votes on two of the runs. Repeatable.", show_default=False),
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option("--scores", metavar="FILE", help="Scores of questions. Repeatable.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the report is written.")] = Path("report"),
    videos: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the videos: the page plays those that are there."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The benchmark's data: titles, and references of windows without votes."),
    ] = None,
    allow_different: Annotated[
        bool, typer.Option("--allow-different", help="Report presets that differ together, and mark it.")
    ] = False,
) -> int:
    """Write a page that opens without a network (report.html), its tables (tables.md) and figures (report.json)."""
    from ..core.errors import OptionError
    from ..evaluate.benchmark import CommentaryBenchmark
    from ..evaluate.page.collect import collect
    from ..evaluate.page.inputs import read_judged, read_run
    from ..evaluate.page.page import write_report
    from ..evaluate.page.score_files import read_scores
    from ..evaluate.registry import open_benchmark
    from ..evaluate.runs import open_contestant

    if videos is not None and not videos.is_dir():
        raise OptionError(f"--videos {videos} is not a folder")
    contestants = [open_contestant(path) for path in runs or ()]
    judged = [read_judged(path) for path in votes or ()]
    benchmark = None
    if data is not None:
        tasks = [str(one.about.get("locator") or one.about.get("task") or "") for one in contestants] + [
            str(one.judged.settings.get("task") or "") for one in judged
        ]
        task = next(filter(None, tasks), None)
        if task is None:
            raise OptionError("--data: neither runs nor votes tell of which benchmark they are")
        opened = open_benchmark(task, data, videos)
        if not isinstance(opened, CommentaryBenchmark):
            raise OptionError(f"--data is for commentary; {task} is a benchmark of questions")
        benchmark = opened
    found = collect(
        [read_run(one, benchmark) for one in contestants],
        judged,
        [read_scores(path) for path in scores or ()],
        benchmark=benchmark,
        allow_different=allow_different,
    )
    page = write_report(found, out, videos)
    for line in found.partial:
        print(f"partial: {line}")
    for line in found.uncalibrated:
        print(f"not calibrated: {line}")
    for line in found.different:
        print(f"different: {line}")
    print(page)
    return 0
