"""Published tables of questions: JSON, JSON lines or Parquet to plain rows, and the errors that all readers share."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import OptionError, SourceError

Row = Mapping[str, Any]


class BadRowError(ValueError):
    """A row that cannot be used; the message says why. It becomes a defect of the data, never a failed run."""


def read_json(path: Path) -> Any:
    """The value of a JSON file. SourceError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON ({error})") from None


def read_rows(path: Path) -> list[Any]:
    """The rows of a table, by the ending of its name: ``.parquet``, ``.jsonl``, or a JSON list.

    A row may be anything; :func:`as_row` tells. SourceError if the file as a whole cannot be read.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.suffix == ".jsonl":
        return _read_lines(path)
    rows = read_json(path)
    if not isinstance(rows, list):
        raise SourceError(f"{path} holds no list of questions but {type(rows).__name__}")
    return rows


def _read_lines(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read ({error})") from None
    rows: list[Any] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError):
                rows.append(f"line {number} is not JSON")
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


def revision(paths: Iterable[Path]) -> str:
    """Sha256 over the bytes of files, in this order; the first 16 digits."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise SourceError(f"{path} cannot be read ({error.strerror or error})") from None
    return digest.hexdigest()[:16]


def locate(roots: Sequence[Path], names: Sequence[str]) -> Path:
    """The first of these files (or folders) that exists; where none does, the one where it should be."""
    places = [root / name for root in roots for name in names]
    return next((place for place in places if place.exists()), places[0])


def check_options(options: Mapping[str, str], known: Mapping[str, Sequence[str]], what: str) -> dict[str, str]:
    """Every known option with its value, the first listed one where it is not given. OptionError for others."""
    for name, value in options.items():
        if name not in known:
            raise OptionError(f"{what} has no option {name!r}; there is: {', '.join(known)}")
        if value not in known[name]:
            raise OptionError(f"{what}: {name} is one of {', '.join(known[name])}, not {value!r}")
    return {name: options.get(name, values[0]) for name, values in known.items()}


def as_row(value: Any) -> Row:
    """A row that is an object. BadRowError for anything else."""
    if not isinstance(value, Mapping):
        raise BadRowError(value if isinstance(value, str) else f"a row is {type(value).__name__}, not an object")
    return value


def text(row: Row, key: str) -> str:
    """A field that holds words. Identifiers may be published as numbers."""
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise BadRowError(f"{key!r} is missing or no text")
    return value.strip()


def optional_text(row: Row, key: str) -> str:
    """The same; "" where there is none."""
    value = row.get(key)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def seconds(row: Row, key: str) -> float:
    """A field that holds a finite number of seconds, at least 0."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise BadRowError(f"{key!r} is missing or no time in seconds")
    return float(value)


def texts(row: Row, key: str) -> tuple[str, ...]:
    """A field that holds a list of options: at least two."""
    value = row.get(key)
    if not isinstance(value, list | tuple) or len(value) < 2 or not all(isinstance(one, str | int) for one in value):
        raise BadRowError(f"{key!r} is missing or no list of options")
    return tuple(str(one).strip() for one in value)
