"""A run on disk: what a contestant said of a benchmark, and how that came about.

A folder::

    run.json            what was run: every setting that the words depend on, and how much of the data was there
    streams/NAME.jsonl  of commentary: a record for each game (:mod:`.record`), words as they were said
    items/NAME.jsonl    of questions: a line for every reply, a file for each video
    predictions.jsonl   all of it in the benchmark's published form, made anew from the above

A single file in a published form, whoever wrote it, is a contestant like a run; it only knows less of itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..core.errors import OutputError, SourceError

#: Names of the files of a run.
ABOUT, STREAMS, ITEMS, PREDICTIONS = "run.json", "streams", "items", "predictions.jsonl"
#: Beside them: what processes that share a run wait for.
LOCK = ".lock"

_LOG = logging.getLogger(__name__)


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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only process that looks at a run as a whole; others wait. OutputError if the folder cannot be written.

    A file system without locks is told in the log: processes that end in the same moment may then leave a file of
    predictions without the last one's; the same command makes it anew.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")
    except OSError as error:
        raise OutputError(f"cannot write {folder} ({error.strerror or error})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            _LOG.warning("%s cannot be locked (%s): let no two processes end in it at once", folder, error.strerror)
        yield


def claim(file: IO[str], path: Path) -> None:
    """Take a file for this process until it is closed. OutputError if another one has it: it is writing there."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{path} is being written by another process; wait for it, or end it") from None
    except OSError as error:
        _LOG.warning("%s cannot be locked (%s): let no two processes write it", path, error.strerror)


def check_unclaimed(path: Path) -> None:
    """OutputError if another process is writing a file."""
    try:
        with path.open(encoding="utf-8") as file:
            claim(file, path)
    except FileNotFoundError:
        return


def digest(value: Any, digits: int = 8) -> str:
    """Of a JSON value: the same for the same settings."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:digits]


def file_name(key: str) -> str:
    """What the files of a video are called: readable, and different for every key."""
    plain = "".join(character if character.isalnum() or character in "-_" else "-" for character in key)
    return f"{plain[-60:].strip('-')}-{digest(key)}"
