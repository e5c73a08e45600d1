"""What a model said of one stream, on disk: a line of settings, then a line for every second.

Lines are appended as they are said, so that whatever ends a run leaves them. Beside them lies the stream's snapshot,
rewritten now and then, and the one before it: a run that is started again restores the newest that is whole and goes on
from there, and the words behind it are said anew (they are the same: words follow from the stream alone). The words are
on the disk before a snapshot of their second is. A stream that is done needs no snapshot.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..core.errors import OutputError
from ..core.events import Commentary
from ..engine.snapshot import remove
from ..sinks.files import json_text
from .runs import check_unclaimed, claim

Row = dict[str, Any]


@dataclass(slots=True)
class Record:
    """The words of one stream. ``settings``: all that they depend on; a record of other settings is not taken up.

    ``rows``: of the first seconds, without a gap; ``answers``: ``{"asked": seconds, "question", "answer"}``, in order;
    ``errors``: ``{"start", "end", "error"}`` of stretches that nothing could be said of; ``stopped``: why the stream
    ended early ("" if it did not); ``ended``: whether its video ended before all that was to be watched.
    """

    path: Path
    settings: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    answers: list[Row] = field(default_factory=list)
    errors: list[Row] = field(default_factory=list)
    stopped: str = ""
    ended: bool = False
    _file: IO[str] | None = None

    @staticmethod
    def read(path: Path) -> Record | None:
        """The record at ``path``, whatever its settings; None if there is none."""
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                settings = json.loads(file.readline())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"cannot read {path} ({error.strerror})") from None
        except ValueError:
            return None  # killed before its first line was whole
        if not isinstance(settings, dict):
            return None
        record = Record(path, settings)
        record.load()
        return record

    @property
    def snapshot(self) -> Path:
        """Where the stream's snapshot is."""
        return self.path.with_suffix(".state")

    @property
    def seconds(self) -> float:
        """Where the words end."""
        return float(self.rows[-1]["end"]) if self.rows else 0.0

    def load(self) -> None:
        """Take up what is on disk, if it is of the same settings; a line that was cut is the end of it."""
        self.rows, self.answers, self.errors, self.stopped, self.ended = [], [], [], "", False
        try:
            # A killed run may have ended within a character.
            lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot read {self.path} ({error.strerror})") from None
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                break
            if not isinstance(found[-1], dict):
                return
        if not found or found[0] != json.loads(json.dumps(self.settings)):
            return
        self.rows = [row for row in found[1:] if "text" in row]
        self.answers = [row for row in found[1:] if "answer" in row]
        self.errors = [row for row in found[1:] if "error" in row]
        self.stopped = next((row["stopped"] for row in found[1:] if "stopped" in row), "")
        self.ended = any("ended" in row for row in found[1:])

    def begin(self, seconds: float) -> None:
        """Keep the rows before ``seconds`` and be ready for what follows. OutputError if another process is at it."""
        self.cut(seconds)
        if not self.rows:
            self.answers = []  # a question at 0 s is asked in the first step
        self.stopped, self.ended = "", False
        part = self.path.with_name(self.path.name + ".part")
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            check_unclaimed(self.path)
            with part.open("w", encoding="utf-8") as file:
                file.writelines(
                    json_text(line) + "\n" for line in (self.settings, *self.rows, *self.answers, *self.errors)
                )
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path)
            self._file = self.path.open("a", encoding="utf-8", buffering=1)
            claim(self._file, self.path)

    def add(self, event: Commentary) -> None:
        """The words of the next second."""
        self.put(self.row(event))

    def put(self, row: Row) -> None:
        """The next row as it is, of words or of an error."""
        (self.errors if "error" in row else self.rows).append(row)
        self._write(row)

    @staticmethod
    def row(event: Commentary) -> Row:
        """The words of a step as they are recorded."""
        return {
            "start": event.start,
            "end": event.end,
            "text": event.text,
            "work": round(event.timing.work, 6),
            "lag": round(event.timing.lag, 6),
            "rows": sum(event.rows.values()),
            "finish_reason": event.finish_reason,
        }

    def answer(self, time: float, question: str, text: str, **more: Any) -> None:
        """What was said to a question that was asked at ``time``, seconds; ``more``: JSON that is kept beside it."""
        self.answers.append({"asked": time, "question": question, "answer": text, **more})
        self._write(self.answers[-1])

    def cut(self, seconds: float) -> None:
        """Forget what is behind ``seconds``, here and not on disk."""
        self.rows = [row for row in self.rows if row["end"] <= seconds + 1e-6]
        self.answers = [answer for answer in self.answers if answer["asked"] <= seconds + 1e-6]
        self.errors = [error for error in self.errors if error["end"] <= seconds + 1e-6]

    def end(self) -> None:
        """Write down that the video ended before all that was to be watched."""
        self.ended = True
        self._write({"ended": True})

    def stop(self, why: str) -> None:
        """Write down that the stream ended early."""
        self.stopped = why
        self._write({"stopped": why})

    def sync(self) -> None:
        """Let the words reach the disk: before a snapshot does."""
        assert self._file is not None, "begin comes first"
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self, done: bool) -> None:
        """Nothing follows for now; ``done``: nor ever."""
        if self._file is not None:
            file, self._file = self._file, None
            with self._writing():
                file.close()
        if done:
            remove(self.snapshot)

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None, "begin comes first"
        with self._writing():
            self._file.write(json_text(line) + "\n")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write {self.path} ({error.strerror or error})") from None
