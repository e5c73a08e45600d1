"""Replies as they come: a line of settings, then a line for each, appended and flushed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ...core.errors import OutputError, SourceError
from ...sinks.files import json_text
from ..runs import check_unclaimed, claim
from .items import Reply
from .replies import from_json, to_json


class ReplyLog:
    """The replies to the items of one video. ``settings``: replies of other settings are not taken up.

    A line that a killed run has cut is the end of the file.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self._settings = path, json.loads(json.dumps(settings))
        self.replies: dict[str, Reply] = {}
        self._file: IO[str] | None = None

    @staticmethod
    def read(path: Path) -> dict[str, Reply]:
        """All replies of a log, whatever its settings."""
        return {reply.item: reply for reply in _read(path)[1]}

    def add(self, reply: Reply) -> None:
        """One more; on the disk when this returns."""
        assert self._file is not None, "a log is open within its with statement"
        self.replies[reply.item] = reply
        try:
            self._file.write(json_text(to_json(reply)) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self.path} ({error.strerror or error})") from None

    def __enter__(self) -> ReplyLog:
        settings, replies = _read(self.path)
        self.replies = {reply.item: reply for reply in replies} if settings == self._settings else {}
        part = self.path.with_name(self.path.name + ".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            check_unclaimed(self.path)
            lines = [self._settings, *map(to_json, self.replies.values())]
            part.write_text("".join(json_text(line) + "\n" for line in lines), encoding="utf-8")
            part.replace(self.path)
            self._file = self.path.open("a", encoding="utf-8")
            claim(self._file, self.path)
        except OSError as error:
            raise OutputError(f"cannot write {self.path} ({error.strerror or error})") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


def _read(path: Path) -> tuple[Any, list[Reply]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return None, []
    except OSError as error:
        raise OutputError(f"cannot read {path} ({error.strerror or error})") from None
    found: list[Any] = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    replies = []
    for number, told in enumerate(found[1:], 2):
        try:
            replies.append(from_json(told, f"{path}:{number}"))
        except SourceError:
            break
    return (found[0] if found else None), replies
