"""``eval check``: whether the data of a benchmark are all there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    task: Annotated[
        str,
        typer.Argument(metavar="TASK", help="A benchmark: NAME or NAME?key=value&...", show_default=False),
    ],
    data: Annotated[
        Path, typer.Option("--data", metavar="PATH", help="Its data, a folder or a file.", show_default=False)
    ],
    videos: Annotated[
        Path | None,
        typer.Option(
            "--videos", metavar="FOLDER", help="Where the names of its videos start; beside the data if not told."
        ),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Exit with 0 although something is missing.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write what was found as JSON.")
    ] = None,
) -> int:
    """Say what is there of a benchmark, before any model is loaded.

    Parts found and expected; videos that are missing, of 0 bytes, unreadable or shorter than an item needs; known
    defects. Exits with 1 unless all is there.
    """
    import json

    from ..evaluate.check import check as check_data
    from ..evaluate.registry import open_benchmark
    from ..sinks.files import check_writable, write_whole

    benchmark = open_benchmark(task, data, videos)
    if json_file is not None:
        check_writable(json_file)
    report = check_data(benchmark, allow_missing)
    if json_file is not None:
        write_whole(json_file, json.dumps({"task": task, **report.to_json()}, indent=2) + "\n")
    print(report)
    return report.exit_status
