"""What readers of published commentary benchmarks share: lines of JSON, words with their repairs, revisions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import SourceError
from ...data.annotations import read_words
from ...data.repair import MAX_LOST_SHARE
from ...data.report import Reason, Unusable
from ...data.words import LOSSES, Repairs, Word
from ..benchmark import Defect


def revision_of(files: Sequence[Path]) -> str:
    """sha256 of the contents of the files, in this order, the first 16 digits."""
    total = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise SourceError(f"cannot read {path} ({error.strerror or error})") from None
    return total.hexdigest()[:16]


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number (from 1) and value of every line that is not empty; None for a line that is no JSON.

    SourceError if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _value(line)
    except OSError as error:
        raise SourceError(f"cannot read {path} ({error.strerror or error})") from None


def json_objects(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The same of a file that only holds objects; SourceError that names the first line that is none."""
    for number, value in json_lines(path):
        if not isinstance(value, dict):
            raise SourceError(f"{path}, line {number} is not a JSON object")
        yield number, value


def usable_words(items: Any) -> tuple[tuple[Word, ...], Repairs]:
    """Words with usable times, and what was repaired. :class:`Unusable` if more than 2 % of the words are lost.

    One word alone never refuses a transcript, however short it is.
    """
    words, repairs = read_words(items)
    if repairs.lost > 1 and repairs.lost > MAX_LOST_SHARE * repairs.read:
        share = f"{repairs.lost} of {repairs.read} words lost, more than {MAX_LOST_SHARE:.0%}"
        raise Unusable(Reason.TIMES, f"{share}; the first is {repairs.first_lost}")
    return words, repairs


def repair_defects(item: str, repairs: Repairs) -> Iterator[Defect]:
    """A defect for every kind of repair, with how many words it was."""
    for kind, words in repairs.counts.items():
        first = f", the first is {repairs.first_lost}" if kind in LOSSES else ""
        yield Defect(item, f"{words} of {repairs.read} words repaired: {kind}{first}")


def text_of(value: Any) -> str:
    """A title or a name on one line; "" for anything that is no text."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def _value(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
