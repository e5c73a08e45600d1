"""Verdicts by content: what was once asked of a judge is never paid again, in whatever run it comes up.

A line for every verdict, appended by any number of processes. A verdict is of two texts in the order in which they were
shown: it serves the votes of (a, b) and, the other way round, those of (b, a). The tables of what an endpoint takes are
kept here as well, so that a run that finds all its verdicts makes no call at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import SourceError
from ...sinks.files import make_folder
from .votes_file import open_appending, write_line


def verdict_key(identity: Mapping[str, Any], first: str, second: str, reference: str, repeat: int) -> str:
    """The key of a verdict. ``identity``: judge, host, prompt and parameters; texts as they are shown, in order."""
    content = [dict(identity), first, second, reference, repeat]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Cache:
    """The verdicts in a file. Safe to use from several threads. A line that was cut is passed over.

    Nothing is written before the first :meth:`put`. SourceError for a file that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {}
        self._file: int | None = None
        self._lock = threading.Lock()
        try:
            text = path.read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise SourceError(f"cannot read {path} ({error.strerror})") from None
        for line in text.split("\n"):
            try:
                row = json.loads(line)
            except ValueError:
                continue  # cut by a kill: at worst one verdict is asked for again
            if isinstance(row, dict) and isinstance(row.get("key"), str):
                self._rows[row["key"]] = row

    def get(self, key: str) -> Mapping[str, Any] | None:
        """What is kept under a key."""
        return self._rows.get(key)

    def put(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep something; it is on disk when this returns."""
        with self._lock:
            whole = {"key": key, **row}
            if self._file is None:
                make_folder(self.path.parent)
                self._file = open_appending(self.path)
                size = os.fstat(self._file).st_size
                if size and os.pread(self._file, 1, size - 1) != b"\n":
                    os.write(self._file, b"\n")
            write_line(self._file, self.path, whole)
            self._rows[key] = whole

    def close(self) -> None:
        """Nothing more is kept."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None
