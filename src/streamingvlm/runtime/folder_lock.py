"""A folder that one program has for itself, and a note in it that outlives the program."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..core.errors import OutputError

try:
    import fcntl
except ImportError:  # no such locks on Windows
    fcntl = None  # type: ignore[assignment]

#: Name of the file, and its size: it is written in place, so that a full disk has room for it.
NAME, SIZE = "lock", 512


class FolderLock:
    """Holds ``folder`` until it is closed or the process ends, however that happens.

    ``before``: the note that the program before has left (empty: none); ``now``: the one that is there. Raises
    OutputError, one line, if another program holds the folder or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / NAME
        try:
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"cannot write {self._path} ({error.strerror or error})") from None
        try:
            self._take()
            self.before = self.now = self._read()
            self.note(self.before)
        except BaseException:
            os.close(self._handle)
            raise

    def note(self, note: dict[str, Any], sync: bool = True) -> None:
        """Replace the note: a small JSON object. OutputError if it cannot be written.

        ``sync``: wait until it is on the disk.
        """
        content = json.dumps(note).encode()
        assert len(content) < SIZE, "a note is small"
        try:
            os.lseek(self._handle, 0, os.SEEK_SET)
            if os.write(self._handle, content.ljust(SIZE - 1) + b"\n") != SIZE:
                raise OSError(28, "No space left on device")
            if sync:
                os.fsync(self._handle)
        except OSError as error:
            raise OutputError(f"cannot write {self._path} ({error.strerror or error})") from None
        self.now = note

    def close(self) -> None:
        """Let the folder go. Safe to call twice."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _take(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"{self.folder} is in use by another program; end that one, or name another folder"
            ) from None
        except OSError:
            return  # a file system without locks

    def _read(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            note = json.loads(os.read(self._handle, SIZE))
            if isinstance(note, dict):
                return note
        return {}
