"""``eval score``: what replies or commentary are worth where no judge is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import OptionError

if TYPE_CHECKING:
    from ..evaluate.benchmark import CommentaryBenchmark
    from ..evaluate.runs import Contestant

#: What ``--parser`` is where both are wanted.
BOTH = "both"


def score(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="A benchmark: NAME or NAME?key=value&...", show_default=False)
    ],
    data: Annotated[
        Path, typer.Option("--data", metavar="PATH", help="Its data, a folder or a file.", show_default=False)
    ],
    predictions: Annotated[
        Path,
        typer.Option(
            "--predictions", metavar="RUN_OR_FILE", help="A run, or a file in the published form.", show_default=False
        ),
    ],
    videos: Annotated[
        Path | None, typer.Option("--videos", metavar="FOLDER", help="Folder of the videos: times are capped by them.")
    ] = None,
    parser: Annotated[
        str, typer.Option(metavar="official|strict|both", help="Whose rule reads replies; strict: unparsed is wrong.")
    ] = BOTH,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all of it, for eval report.")
    ] = None,
) -> int:
    """Score replies by task, with constant, majority and chance baselines; or count what commentary says.

    Of commentary: words, silence, lag, repetition, names and numbers that neither reference nor title has.
    """
    from ..evaluate.benchmark import CommentaryBenchmark, QuestionBenchmark
    from ..evaluate.page.score_files import write_scores
    from ..evaluate.registry import open_benchmark
    from ..evaluate.runs import open_contestant
    from ..evaluate.scoring import PARSERS, score_contestant
    from ..sinks.files import check_writable

    if parser not in (BOTH, *PARSERS):
        raise OptionError(f"--parser is official, strict or both, not {parser!r}")
    benchmark, contestant = open_benchmark(task, data, videos), open_contestant(predictions)
    if json_file is not None:
        check_writable(json_file)
    check_run(contestant, benchmark.name, benchmark.revision)
    if isinstance(benchmark, CommentaryBenchmark):
        return _count(benchmark, contestant, json_file)
    if not isinstance(benchmark, QuestionBenchmark):
        raise OptionError(f"{task} has neither games nor questions")
    scored = score_contestant(benchmark, contestant, PARSERS if parser == BOTH else (parser,))
    if json_file is not None:
        write_scores(json_file, scored.file, contestant.about)
    print(scored)
    return 0


def check_run(contestant: Contestant, name: str, revision: str) -> None:
    """OptionError for a run of another benchmark, or of other data."""
    about = contestant.about
    if about.get("task", name) != name:
        raise OptionError(f"{contestant.path} is a run of {about['task']}, not of {name}")
    if about.get("revision", revision) != revision:
        raise OptionError(
            f"{contestant.path} is a run of data of revision {about['revision']}, not of these ({revision})"
        )


def _count(benchmark: CommentaryBenchmark, contestant: Contestant, json_file: Path | None) -> int:
    from ..evaluate.commentary.figures import figures, report
    from ..runtime import reports

    tree = figures(benchmark, benchmark.texts(contestant.predictions), contestant.streams)
    reports.write_json(json_file, {"task": benchmark.name, "contestant": dict(contestant.about), "figures": tree})
    print(f"{benchmark.name}: {contestant.name}\n{report(tree)}")
    return 0
