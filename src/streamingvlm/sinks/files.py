"""Files of commentary. What is on disk is valid at every moment.

Which formats there are is in :mod:`.formats`.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

from ..core.errors import OutputError
from ..core.events import Alert, AnswerDelta, Answered, Commentary, Delta, Event, Gap, Resumed, SourceStatus
from .formats import FORMATS, json_line
from .limits import HELD_EVENTS
from .text import json_text, printable

__all__ = [
    "FileOutput",
    "PieceFile",
    "check_writable",
    "json_line",
    "json_text",
    "make_folder",
    "printable",
    "sync_folder",
    "write_whole",
]

#: With the first of these a run has something to show for itself: what was in the file may go.
_BEGIN = (Commentary, Gap, Alert, Answered, Resumed)


#: Bytes at the end of a file that are looked at first when it is continued.
TAIL = 1 << 16
#: Times in a file are whole milliseconds.
_SAME = 1e-3


class FileOutput:
    """A file in the format that its suffix names.

    Making one checks that the file can be written and changes nothing. It is overwritten when something has come that
    is worth a file: words of a step (or its silence), a gap, an alert, an answer; what was told before then comes
    first. Of a camera, where no file is lost, also with its first status.

    ``resume``: a file that is there is continued: a piece that was not written to its end is cut off, numbers go on,
    and what is told again is passed over up to ``done_until``, seconds: where the file ends (0: a new file).

    All raise OutputError: for a full disk (what is there ends behind a whole piece then), for a file that somebody
    removed meanwhile, or, with ``resume``, for one of another kind.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        if path.suffix.lower() not in FORMATS:
            raise OutputError(f"cannot write {path}: its name must end in one of {', '.join(FORMATS)}")
        self.path = path
        self._format = FORMATS[path.suffix.lower()]()
        self._file: PieceFile | None = None
        self._error: OutputError | None = None
        self._held: deque[Event] = deque(maxlen=HELD_EVENTS)
        #: Bytes of an earlier run that stay.
        self._length = 0
        self.done_until = 0.0
        check_writable(path)
        if _is_truth(path):
            raise OutputError(f"{path} holds the true words of a clip; choose another name for what is said")
        with _one_line(path):
            there = path.is_file() and path.stat().st_size > 0
        self._spares = there and not resume
        if there and resume:
            self._go_on()

    def write(self, event: Event) -> None:
        """Write what is complete now that ``event`` is known; the first one that matters overwrites what was there."""
        if isinstance(event, Delta | AnswerDelta) or self._was_told(event):
            return
        if self._file is None and not self._begins(event):
            self._held.append(event)
            return
        try:
            with _one_line(self.path):
                file = self._file or self._open()
                file.write("".join(text for one in [*self._held, event] for text in self._format.text(one)).encode())
                self._held.clear()
        except OutputError as error:
            self._error = error
            raise

    def close(self) -> None:
        """Write what is left. Nothing happens if nothing was written; what went wrong earlier is raised again."""
        if self._file is not None:
            file, self._file = self._file, None
            with _one_line(self.path), closing(file):
                if self._error is not None:
                    raise self._error
                file.write("".join(self._format.rest()).encode())

    def _begins(self, event: Event) -> bool:
        return isinstance(event, _BEGIN) or (isinstance(event, SourceStatus) and not self._spares)

    def _was_told(self, event: Event) -> bool:
        if isinstance(event, Commentary | Gap):
            return self.done_until > 0 and event.end <= self.done_until + _SAME
        return isinstance(event, Alert) and event.time < self.done_until - _SAME

    def _open(self) -> PieceFile:
        self._file = file = PieceFile(self.path, self._length)
        if not self._length:
            file.write(self._format.head().encode())
        return file

    def _go_on(self) -> None:
        """Find where the whole pieces of the file end, and until when they tell."""
        mark, size, window = self._format.mark.encode(), self.path.stat().st_size, TAIL
        foreign = OutputError(f"{self.path} cannot be continued: no run of watch wrote it; choose another name")
        with _one_line(self.path), self.path.open("rb") as file:
            # Behind a power failure a file can be zeros, or end in them.
            beginning = file.read(64).partition(b"\0")[0].decode("utf-8", "replace")
            if beginning and not self._format.knows(beginning):
                raise foreign
            while True:
                at = max(size - window, 0)
                file.seek(at)
                data = file.read(size - at).partition(b"\0")[0]
                length = data.rfind(mark) + len(mark) if mark in data else 0
                first = data.find(mark) + len(mark) if at else 0
                pieces = re.findall(f".*?{self._format.mark}", data[first:length].decode("utf-8", "replace"), re.DOTALL)
                try:
                    until = self._format.go_on(pieces)
                except (ValueError, KeyError, AttributeError, TypeError):
                    raise foreign from None
                if at == 0 or (until is not None and length):
                    self._length, self.done_until = at + length, until or 0.0
                    return
                window *= 8


class PieceFile:
    """A file that is written in whole pieces: a killed run ends between two of them, and so does a full disk.

    ``keep``: bytes at the beginning that stay; the rest of what was there goes. Raises OSError, and OutputError for a
    file that was removed meanwhile.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self._path = path
        self._file = open(path, "r+b" if keep else "wb", buffering=0)  # noqa: SIM115
        if keep:
            os.ftruncate(self._file.fileno(), keep)

    def write(self, piece: bytes, hidden: bytes = b"") -> None:
        """Write a piece in one go. ``hidden``: what it begins with until all else of it is there.

        A process that is killed while it writes leaves a part of a piece that is longer than a page.
        """
        state = os.fstat(self._file.fileno())
        plain = stat.S_ISREG(state.st_mode)
        if plain and not state.st_nlink:
            raise OutputError(f"{self._path} was removed while it was written")
        if not plain:
            self._write(piece)
            return
        # At the end: a piece that did not fit was cut off again, and somebody else may have emptied the file.
        at = self._file.seek(0, os.SEEK_END)
        try:
            self._write(hidden + piece[len(hidden) :])
        except OSError:
            os.ftruncate(self._file.fileno(), at)
            raise
        if hidden:
            self._file.seek(at)
            self._write(piece[: len(hidden)])

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def close(self) -> None:
        """Nothing follows."""
        self._file.close()


def check_writable(path: Path) -> None:
    """Raise OutputError if ``path`` cannot be written; leave everything as it is."""
    with _one_line(path):
        try:
            target = os.path.realpath(path)
            mode = os.stat(target).st_mode if os.path.lexists(target) else None
            # Opening is the only honest test: access bits say nothing about read-only systems or a superuser.
            if mode is None:
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
                os.unlink(target)
            elif not stat.S_ISFIFO(mode):  # a pipe would wait for its reader
                os.close(os.open(target, os.O_WRONLY))
        except ValueError:  # a zero character, or half a surrogate pair
            raise OutputError(f"cannot write {str(path)!r}: no file can have this name") from None


def write_whole(path: Path, text: str) -> None:
    """Write a whole file. What was there stays if that fails; raises OutputError then."""
    with _one_line(path):
        target = Path(os.path.realpath(path))
        there = target.exists()
        if there and not target.is_file():  # a device or a pipe
            target.write_text(text, encoding="utf-8", errors="replace")
            return
        # Another process may write the same file: whoever is last replaces a whole file.
        part = target.with_name(f".{target.name}.{uuid4().hex}.part")
        try:
            with part.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if there:
                shutil.copymode(target, part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)


def _is_truth(path: Path) -> bool:
    """Whether a file is what ``streamingvlm record`` wrote beside a clip: it cannot be made again by watching."""
    if path.suffix.lower() != ".jsonl" or not path.is_file():
        return False
    with _one_line(path), path.open(encoding="utf-8", errors="replace") as file:
        return '"content":' in file.readline()


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error})") from error


def make_folder(folder: Path) -> None:
    """Make a folder with its parents; OutputError if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder} ({error.strerror})") from error


def sync_folder(folder: Path) -> None:
    """Let new names in a folder reach the disk, where folders can be opened. OSError if that cannot be."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
