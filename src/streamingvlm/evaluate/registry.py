"""Which benchmarks there are: one table from a name to what reads its data.

To add a benchmark, write a class with the members of :class:`~streamingvlm.evaluate.benchmark.Benchmark` and one line
in :data:`BUILT_IN`. Another package names its own in an entry point of the group ``streamingvlm.benchmarks``. Either is
called as ``make(data, videos, **options)``: the data (a file or a folder), the folder of the videos (None: beside the
data), and the texts behind the benchmark's name (``NAME?key=value&...``) by key.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ..core.errors import OptionError, SourceError
from ..core.plugins import load, registered
from .benchmark import Benchmark

#: Name -> ``module:Class`` below this package; imported when it is asked for.
BUILT_IN = {
    "inf-streams": "commentary.inf_streams:InfStreams",
    "livesports": "commentary.livesports:LiveSports",
    "ovo": "questions.ovo:OVOBench",
    "streamingbench": "questions.streamingbench:StreamingBench",
    "longvideobench": "questions.longvideobench:LongVideoBench",
    "videomme": "questions.videomme:VideoMME",
    "mvbench": "questions.mvbench:MVBench",
}


def known_benchmarks() -> list[str]:
    """Names of the built-in benchmarks, then those of installed packages."""
    return list(dict.fromkeys([*BUILT_IN, *registered("benchmarks")]))


def open_benchmark(locator: str, data: Path, videos: Path | None = None) -> Benchmark:
    """The benchmark ``NAME`` or ``NAME?key=value&...``.

    ``data``: its data, a file or a folder; ``videos``: the folder that its videos' names start from (None: beside the
    data). OptionError if there is no such benchmark or option, SourceError for data that cannot be read.
    """
    name, _, query = locator.partition("?")
    make = _maker(name)
    options = _options(locator, query)
    try:
        inspect.signature(make).bind(data, videos, **options)
    except TypeError:
        raise OptionError(f"{locator!r}: {_takes(name, make)}") from None
    if not data.exists():
        raise SourceError(f"{data}: no such file or folder; the data of {name} are needed there")
    if videos is not None and not videos.is_dir():
        raise SourceError(f"{videos} is not a folder; the videos of {name} are needed there")
    made: Benchmark = make(data, videos, **options)
    return made


def _maker(name: str) -> Callable[..., Any]:
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found: Callable[..., Any] = getattr(import_module(f"{__package__}.{module}"), attribute)
        return found
    others = registered("benchmarks")
    if name not in others:
        raise OptionError(f"unknown benchmark {name!r}; known: {', '.join(known_benchmarks())}")
    return load(others[name], OptionError)


def _options(locator: str, query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise OptionError(f"{locator!r} has an option twice")
    return options


def _takes(name: str, make: Callable[..., Any]) -> str:
    keys = list(inspect.signature(make).parameters)[2:]
    return f"{name} has the options {', '.join(keys)}" if keys else f"{name} has no options"
