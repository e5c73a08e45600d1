"""Published tables of questions, JSON, JSON lines or Parquet, and where they and their videos are looked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import SourceError
from .reading import load_list
from .replies import read_text


def read_rows(path: Path) -> list[Any]:
    """The rows of a table, by the ending of its name: ``.parquet``, ``.jsonl``, or a JSON list.

    A row may be anything: a line that is no JSON is its text. SourceError if the file as a whole cannot be read.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.suffix == ".jsonl":
        return _read_lines(path)
    return load_list(path)


def _read_lines(path: Path) -> list[Any]:
    rows: list[Any] = []
    for line in read_text(path).splitlines():
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError):
                rows.append(line)
    return rows


def _read_parquet(path: Path) -> list[Any]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise SourceError(f'{path.name} needs pyarrow: pip install "streamingvlm[parquet]"') from None
    try:
        rows: list[Any] = parquet.read_table(path).to_pylist()
    except Exception as error:  # pyarrow has its own tree of errors
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise SourceError(f"{path} is not a Parquet file that can be read ({first})") from None
    return rows


def find_tables(data: Path, names: Sequence[str], what: str) -> list[Path]:
    """The files of a data set: ``data`` itself if it is one, else those under it that the first matching glob names.

    ``names``: globs, the preferred first. SourceError if nothing matches; ``what``: how the message calls it.
    """
    if data.is_file():
        return [data]
    if not data.is_dir():
        raise SourceError(f"{data} does not exist; {what} is read from a folder with {names[0]}")
    for name in names:
        if found := sorted(path for path in data.glob(name) if path.is_file()):
            return found
    raise SourceError(f"{data} holds no data of {what}; wanted is one of: {', '.join(names)}")


def locate(roots: Sequence[Path], names: Sequence[str]) -> Path:
    """The first of these files (or folders) that exists; where none does, the one where it should be."""
    places = [root / name for root in roots for name in names]
    return next((place for place in places if place.exists()), places[0])


def optional_text(entry: Mapping[str, Any], name: str) -> str:
    """The text or whole number in that field, as text; "" if there is none."""
    value = entry.get(name)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
