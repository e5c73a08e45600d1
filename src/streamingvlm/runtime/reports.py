"""What every program that measures shares: where figures come from, how they are kept, how far a run has come."""

from __future__ import annotations

import datetime
import json
import math
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from ..core.errors import OptionError
from ..engine.engine import Engine
from ..sinks.files import check_writable, write_whole

#: What a command writes as JSON.
Metrics = dict[str, Any]


def provenance(device: torch.device) -> Metrics:
    """Device, versions and date, for every file that is written."""
    return {
        "device": describe_device(device),
        "versions": {name: _version(name) for name in ("streamingvlm", "torch", "transformers")}
        | {"python": platform.python_version()},
        "date": datetime.date.today().isoformat(),
    }


def how_it_ran(engine: Engine) -> Metrics:
    """Kernels and way of decoding of an engine with an open stream, and why not faster ones."""
    kernels, decoding = engine.pool.kernels, engine.decoding
    return {
        "kernels": kernels.name,
        "kernels_reason": kernels.reason,
        "capture": decoding.capture,
        "capture_reason": decoding.reason,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"  # run from a checkout


def describe_device(device: torch.device) -> str:
    """The machine part in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"{platform.machine()} CPU, {threads} thread{'s' if threads != 1 else ''}"
    return str(device)


def heading(figures: Metrics) -> str:
    """Device, versions and date in one line."""
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    return f"{figures['device']}; {versions}; {figures['date']}"


def check_targets(json_file: Path | None, plot: Path | None = None) -> None:
    """Raise one line, before anything is measured, for a file that could not be written or drawn."""
    for path in (json_file, plot):
        if path is not None:
            check_writable(path)
    if plot is not None:
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise OptionError("--plot needs matplotlib: pip install 'streamingvlm[plot]'") from None


def write_json(path: Path | None, figures: Metrics) -> None:
    """Write figures, if a file was asked for; numbers that are none become null."""
    if path is not None:
        write_whole(path, json.dumps(_plain(figures), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def progress(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """A bar on standard error, if a person sees it; call with how much of ``total`` is done."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
