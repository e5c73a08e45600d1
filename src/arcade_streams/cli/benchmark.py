"""``arcade-benchmark``: games of unseen seeds in the form of a published benchmark."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from streamingvlm import OptionError


def arcade_benchmark(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.", show_default=False)],
    games: Annotated[str, typer.Option(metavar="GAME,...", help="Which games. [default: all of them]")] = "",
    streams: Annotated[int, typer.Option(help="Seeds of every game.")] = 1,
    first_seed: Annotated[int | None, typer.Option(help="The first of them. [default: 9100000]")] = None,
    hours: Annotated[float, typer.Option(help="Length of a game.")] = 2.0,
    seconds: Annotated[int | None, typer.Option(help="Length of a game, instead of --hours.")] = None,
    fps: Annotated[int, typer.Option(help="Frames per second of the videos; a model at 2 fps needs no more.")] = 30,
    videos: Annotated[
        str, typer.Option(metavar="mp4|locator", help="Video files, or none: games are played as they are watched.")
    ] = "mp4",
    begin: Annotated[int | None, typer.Option(help="Where the first window begins, s. [default: 1000]")] = None,
    window: Annotated[int, typer.Option(help="Length of the windows that are judged, s.")] = 100,
) -> None:
    """Write games of unseen seeds as Inf-Streams-Eval is published: videos, transcripts, windows.

    Ctrl-C keeps the whole games: the same command goes on behind them.
    """
    from ..benchmark.inf_streams import BEGIN, BENCHMARK_SEEDS, BenchmarkForm, write_benchmark
    from ..worlds.games import GAMES

    if not (math.isfinite(hours) and hours > 0):
        raise OptionError(f"--hours must be above 0, not {hours}")
    if streams < 1:
        raise OptionError(f"--streams must be 1 or more, not {streams}")
    first = BENCHMARK_SEEDS if first_seed is None else first_seed
    form = BenchmarkForm(
        seconds=round(3600 * hours) if seconds is None else seconds,
        fps=fps,
        videos=cast(Literal["mp4", "locator"], videos),  # BenchmarkForm.check refuses any other
        begin=BEGIN if begin is None else begin,
        window=window,
    )
    names = [name.strip() for name in games.split(",")] if games else list(GAMES)
    lines = write_benchmark(out, names, range(first, first + streams), form, _told)
    words = sum(len(line["content"]) for line in lines)
    print(f"{out}: {len(lines)} games of {form.seconds} s, {words} words")


def _told(name: str, new: bool) -> None:
    print(f"{name}: {'written' if new else 'there already'}", file=sys.stderr)
