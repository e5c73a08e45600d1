"""Replies on disk: a JSON line for each, ``{"id", "reply", "time", "probabilities"}``; the last two may be missing.

Any model's replies in this form are a contestant, whoever wrote them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from ...core.errors import SourceError
from ...sinks.files import json_text, make_folder, write_whole
from .items import Reply


class Replies(dict[str, Reply]):
    """Item id -> reply. ``notes``: what was read in a way that its writer may not expect, a line each."""

    def __init__(self, replies: Mapping[str, Reply] | Iterable[tuple[str, Reply]] = (), notes: Iterable[str] = ()):
        super().__init__(replies)
        self.notes = list(notes)

    def put(self, reply: Reply, where: str) -> None:
        """Add one. SourceError if there is one for its item already; ``where``: file and line."""
        if reply.item in self:
            raise SourceError(f"{where}: item {reply.item!r} has a reply already; each item has one")
        self[reply.item] = reply


def to_json(reply: Reply) -> dict[str, Any]:
    """The reply as a JSON object."""
    told: dict[str, Any] = {"id": reply.item, "reply": reply.text}
    if reply.time is not None:
        told["time"] = reply.time
    if reply.probabilities:
        told["probabilities"] = dict(reply.probabilities)
    return told


def from_json(told: Any, where: str) -> Reply:
    """The reply of a JSON object. SourceError, with ``where`` in front, says what is wrong with it."""
    if not isinstance(told, dict) or not isinstance(told.get("id"), str | int) or "reply" not in told:
        raise SourceError(f'{where}: not a reply; it has to be {{"id": ..., "reply": ...}}')
    text, time, probabilities = told["reply"], told.get("time"), told.get("probabilities") or {}
    if text is not None and not isinstance(text, str):
        raise SourceError(f"{where}: the reply has to be a text or null, not {type(text).__name__}")
    if time is not None and not is_number(time):
        raise SourceError(f"{where}: the time has to be seconds or null, not {time!r}")
    if not isinstance(probabilities, dict) or not all(is_number(value) for value in probabilities.values()):
        raise SourceError(f"{where}: the probabilities have to be numbers by choice")
    return Reply(str(told["id"]), text, None if time is None else float(time), probabilities)


def read_replies(path: Path) -> Replies:
    """The replies of a file of lines. SourceError for a line that is no reply, or a second reply to an item."""
    found = Replies()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{path}:{number}: not a JSON line ({error})") from None
        found.put(from_json(told, f"{path}:{number}"), f"{path}:{number}")
    return found


def write_replies(path: Path, replies: Iterable[Reply]) -> None:
    """A file of lines, put in place when it is whole. OutputError if it cannot be written."""
    make_folder(path.parent)
    write_whole(path, "".join(json_text(to_json(reply)) + "\n" for reply in replies))


def read_text(path: Path) -> str:
    """A whole text file. SourceError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SourceError(f"cannot read {path} ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text (byte {error.start})") from None


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a finite number (a whole one of hundreds of digits is not)."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63
