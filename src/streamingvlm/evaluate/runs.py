"""A run on disk: what a contestant said of a benchmark, and how that came about.

A folder::

    run.json            what was run: every setting that the words depend on, and how much of the data was there
    streams/NAME.jsonl  of commentary: a record for each game (:mod:`.record`), words as they were said
    items/NAME.jsonl    of questions: a line for every reply, a file for each video
    predictions.jsonl   all of it in the benchmark's published form, made anew from the above

A single file in a published form, whoever wrote it, is a contestant like a run; it only knows less of itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import SourceError

#: Names of the files of a run.
ABOUT, STREAMS, ITEMS, PREDICTIONS = "run.json", "streams", "items", "predictions.jsonl"


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who said it. ``path``: a run's folder or a prediction file; ``predictions``: the file to read what was said.

    ``about``: ``run.json``: ``task``, ``revision`` (of the data), ``name``, ``mode`` (``stream`` or ``offline``),
    ``preset``, ``settings`` (every setting that the words depend on), ``found`` and ``expected`` (videos), ``origin``
    (version, machine, date). Of a file only ``name``.
    """

    name: str
    path: Path
    predictions: Path
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def streams(self) -> Path | None:
        """Where the records of single steps are (None: not known)."""
        folder = self.path / STREAMS
        return folder if folder.is_dir() else None


def open_contestant(path: Path) -> Contestant:
    """A run's folder, a prediction file or a folder of them. SourceError if it is none."""
    if path.is_file():
        return Contestant(path.stem, path, path, {"name": path.stem})
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path.is_dir() and any(path.glob("*.json")):  # some benchmarks publish a file for each task
            return Contestant(path.name, path, path, {"name": path.name})
        raise SourceError(f"{path} is neither a run (a folder with {ABOUT}) nor a prediction file") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path / ABOUT} cannot be read ({error})") from None
    if not isinstance(about, dict) or not isinstance(about.get("name"), str):
        raise SourceError(f"{path / ABOUT} is not what a run writes: it has no name")
    if not (path / PREDICTIONS).is_file():
        raise SourceError(f"{path} has no {PREDICTIONS} yet: end the run first, with the same command")
    return Contestant(about["name"], path, path / PREDICTIONS, about)


def digest(value: Any, digits: int = 8) -> str:
    """Of a JSON value: the same for the same settings."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:digits]


def file_name(key: str) -> str:
    """What the files of a video are called: readable, and different for every key."""
    plain = "".join(character if character.isalnum() or character in "-_" else "-" for character in key)
    return f"{plain[-60:].strip('-')}-{digest(key)}"
