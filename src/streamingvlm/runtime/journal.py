"""A log of what a stream has told, on disk: one line of JSON per event, appended at once.

A folder has files ``events-NUMBER.jsonl``; the last is being written. A line is a record of :mod:`..sinks.records`
with one key more, ``crc``: the CRC-32 of all bytes before it. Deltas are not kept: their text is in the event that ends
them.

A process that is killed loses nothing that was written; a loss of power at most the last second. What cannot be written
(the disk is full, say) is lost, and the stream goes on: the log tells it once, and a ``stream.dropped`` with the number
of lost events comes before the next event that can be written. A folder that is removed is made again.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ..core.errors import OutputError
from ..core.events import AnswerDelta, Delta, Dropped, Event
from ..sinks.files import json_text, make_folder, sync_folder
from ..sinks.records import event_of, moment_of, record_of
from .folder_lock import FolderLock
from .limits import JOURNAL_BYTES, JOURNAL_FILE_BYTES, JOURNAL_FILE_SECONDS, JOURNAL_SECONDS

_LOG = logging.getLogger(__name__)
#: Seconds between two moments when what was written is sent to the disk.
SYNC = 1.0
_NAME = re.compile(r"events-(\d+)\.jsonl")
_CRC = re.compile(rb', "crc": "([0-9a-f]{8})"\}')
_CRC_SIZE = len(b', "crc": "00000000"}')
#: What an id ends with.
_NUMBER = re.compile(r"(?P<epoch>.*)-(?P<number>\d+)")


class Journal:
    """A sink that keeps the events of one stream in ``folder``; made before the stream starts.

    ``lock``: of the folder, if the caller holds it already. ``file_bytes``, ``file_seconds``: a file is ended behind
    them; ``total_bytes``, ``total_seconds``: what is kept, see :mod:`.limits`. Raises OutputError, one line, if another
    program writes there, or if the folder cannot be written.

    It is written on the engine's thread, which waits for a write at most; a thread of its own sends it to the disk.
    """

    def __init__(
        self,
        folder: Path,
        *,
        lock: FolderLock | None = None,
        file_bytes: int = JOURNAL_FILE_BYTES,
        file_seconds: float = JOURNAL_FILE_SECONDS,
        total_bytes: int = JOURNAL_BYTES,
        total_seconds: float = JOURNAL_SECONDS,
    ) -> None:
        self.folder = folder
        #: Of the last event that is known ("": none); ``epoch`` and ``number`` are its two parts.
        self.epoch, self.number = "", 0
        #: Lines that were passed over in reading since their checksum does not hold.
        self.damaged = 0
        #: Events that could not be written, so far; and those that the file does not tell of yet.
        self.lost = self._untold = 0
        self._file_bytes, self._file_seconds = file_bytes, file_seconds
        self._total_bytes, self._total_seconds = total_bytes, total_seconds
        self._mutex = threading.Lock()
        self._changed, self._closed = threading.Event(), False
        self._dirty = self._unsynced = False
        #: Files that were ended and may not be on the disk yet.
        self._ended: list[int] = []
        self._handle = -1
        make_folder(folder)
        self._own_lock = FolderLock(folder) if lock is None else None
        self._lock = lock or self._own_lock
        try:
            self._open()
        except OSError as error:
            self._release()
            raise OutputError(f"cannot write {folder} ({error.strerror or error})") from None
        self._thread = threading.Thread(target=self._keep_synced, name="streamingvlm-journal", daemon=True)
        self._thread.start()

    # Writing.

    def write(self, event: Event) -> None:
        """Append an event; never raises for a disk. See :meth:`Sink.write`."""
        if isinstance(event, Delta | AnswerDelta):
            return
        line = line_of(record_of(event))
        self._know(event.id)
        with self._mutex:
            try:
                self._put(line)
            except OSError as error:
                self._lose(error)
                return
        self._dirty = True

    def sync(self) -> bool:
        """Send all that was written to the disk, in any thread; whether that is done."""
        handles: list[int] = []
        try:
            with self._mutex:
                if self._handle < 0:
                    return not self._dirty
                self._dirty = False
                handles, self._ended = [*self._ended, os.dup(self._handle)], []
            for handle in handles:
                os.fsync(handle)
            sync_folder(self.folder)
        except OSError as error:
            self._dirty = True
            if not self._unsynced:
                why = error.strerror or error
                _LOG.warning("cannot send %s to the disk (%s); it is tried again every second", self.folder, why)
            self._unsynced = True
            return False
        finally:
            for handle in handles:
                os.close(handle)
        self._unsynced = False
        return True

    @property
    def behind(self) -> int:
        """Events that are missing in the file at this moment."""
        return self._untold

    def close(self) -> None:
        """Nothing follows. Never waits: what is left to do is its thread's. See :meth:`Sink.close`."""
        self._closed = True
        self._changed.set()

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Close it, and wait until all is on the disk; whether it is within ``timeout`` seconds."""
        self.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.wait_closed()

    # Reading.

    def read(self, since: float | None = None, until: float | None = None) -> Iterator[Event]:
        """The events that were told from ``since`` on and before ``until``, seconds since 1970, in their order.

        Those of types that this version does not know, and damaged lines, are passed over.
        """
        for record in _read(self.folder, since, until):
            if record is None:
                self.damaged += 1
            else:
                yield from _events(record)

    def after(self, number: int) -> list[Event]:
        """The events behind number ``number``, in their order; reads no more files than it must."""
        found: list[Event] = []
        for file in reversed(files_of(self.folder)):
            records = [record_in(line) for line in _whole_lines(file)]
            events = [event for record in records if record is not None for event in _events(record)]
            new = [event for event in events if number_of(event.id)[1] > number]
            found = new + found
            if any(0 < number_of(event.id)[1] <= number for event in events):
                break
        return found

    # Inside.

    def _open(self) -> None:
        """Cut off a last line that is not whole, find the last number, and go on behind it."""
        files = files_of(self.folder)
        unknown = 0
        for file in reversed(files):
            lines = _whole_lines(file, cut=file == files[-1])
            for line in reversed(lines):
                record = record_in(line)
                if record is None:
                    unknown += 1  # it had a number, which may not be given away twice
                elif number_of(str(record.get("id", "")))[1]:
                    self.epoch, self.number = number_of(str(record["id"]))
                    break
            if self.number:
                break
        self.number += unknown
        self._begin(files[-1] if files else self._path(1))

    def _know(self, id_: str) -> None:
        epoch, number = number_of(id_)
        if number:
            self.epoch, self.number = epoch, number

    def _path(self, index: int) -> Path:
        return self.folder / f"events-{index:08}.jsonl"

    def _begin(self, file: Path) -> None:
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        if self._handle >= 0:
            self._ended.append(self._handle)
            self._changed.set()
        self._handle, self._file = handle, file
        self._size, self._began = os.fstat(handle).st_size, time.monotonic()

    def _put(self, line: bytes) -> None:
        """Append a line as a whole, or nothing of it."""
        if self._handle < 0:
            raise OSError(9, "it is closed")
        self._look()
        if self._untold:
            line = line_of(record_of(Dropped(self._untold, wall=time.time()))) + line
        try:
            done = os.write(self._handle, line)
            if done != len(line):
                raise OSError(28, "No space left on device")
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._handle, self._size)
            raise
        self._size += len(line)
        if self._untold:
            _LOG.warning("%s is written again; %d events are missing in it", self._file, self._untold)
            self._untold = 0
            self._note(False)

    def _look(self) -> None:
        """Begin another file where this one is full, old or gone."""
        state = os.fstat(self._handle)
        if not state.st_nlink:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._begin(self._file)
            if not self._untold:
                _LOG.warning("%s was removed while it was written; what follows is kept in a new one", self.folder)
            return
        if state.st_size > self._size:  # what was torn could not be cut off before
            os.ftruncate(self._handle, self._size)
        self._size = min(state.st_size, self._size)
        if self._size >= self._file_bytes or (self._size and time.monotonic() - self._began > self._file_seconds):
            with suppress(OSError):  # then this file becomes longer
                self._begin(self._path(_index(self._file) + 1))
                self._prune()

    def _prune(self) -> None:
        """Remove the oldest files over the bounds; for their age one at a time, since a clock may be wrong."""
        files = files_of(self.folder)[:-1]
        sizes = {file: file.stat().st_size for file in files}
        if files and time.time() - files[0].stat().st_mtime > self._total_seconds:
            files.pop(0).unlink()
        while files and sum(sizes[file] for file in files) > self._total_bytes - self._file_bytes:
            files.pop(0).unlink()

    def _lose(self, error: OSError) -> None:
        self.lost += 1
        self._untold += 1
        if self._untold == 1:
            why = error.strerror or error
            _LOG.warning("cannot write %s (%s); the stream goes on, and is missing there", self._file, why)
            self._note(True)

    def _note(self, lost: bool) -> None:
        """Say in the lock's note, which needs no more room, that numbers were given away that no file knows."""
        if self._lock is not None:
            with suppress(OutputError):
                self._lock.note({**self._lock.now, "lost": lost}, sync=False)

    def _keep_synced(self) -> None:
        """The thread: every second, if there is anything, and at the end."""
        while not self._closed:
            self._changed.wait(SYNC)
            self._changed.clear()
            if self._dirty:
                self.sync()
        self.sync()
        with self._mutex:
            for handle in [*self._ended, self._handle]:
                os.close(handle)
            self._handle, self._ended = -1, []
        self._release()

    def _release(self) -> None:
        if self._own_lock is not None:
            self._own_lock.close()


def read_journal(folder: Path, since: float | None = None, until: float | None = None) -> Iterator[Event]:
    """What :meth:`Journal.read` gives, also while a program writes there."""
    for record in _read(folder, since, until):
        if record is not None:
            yield from _events(record)


def line_of(record: dict[str, Any]) -> bytes:
    """A record as a line of a journal."""
    text = json_text(record).encode()[:-1]
    return text + b', "crc": "%08x"}\n' % zlib.crc32(text)


def record_in(line: bytes) -> dict[str, Any] | None:
    """The record of a line, without line feed; None if its checksum does not hold."""
    text, end = line[:-_CRC_SIZE], line[-_CRC_SIZE:]
    crc = _CRC.fullmatch(end)
    if crc is None or int(crc[1], 16) != zlib.crc32(text):
        return None
    record: dict[str, Any] = json.loads(text + b"}")
    return record


def files_of(folder: Path) -> list[Path]:
    """The files of a journal, the oldest first."""
    found = [file for file in folder.glob("events-*.jsonl") if _NAME.fullmatch(file.name)]
    return sorted(found, key=_index)


def number_of(id_: str) -> tuple[str, int]:
    """Epoch and number of an event's id; "" and 0 if it has none."""
    found = _NUMBER.fullmatch(id_)
    return (found["epoch"], int(found["number"])) if found else ("", 0)


def _index(file: Path) -> int:
    found = _NAME.fullmatch(file.name)
    assert found is not None, "a file of a journal"
    return int(found[1])


def _whole_lines(file: Path, cut: bool = False) -> list[bytes]:
    """The lines of a file without what a crash has left behind the last of them; ``cut``: remove that."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:  # removed meanwhile
        return []
    end = content.rfind(b"\n") + 1
    if cut and end < len(content):
        os.truncate(file, end)
    return content[:end].split(b"\n")[:-1]


def _read(folder: Path, since: float | None, until: float | None) -> Iterator[dict[str, Any] | None]:
    """The records of a journal that were written in a span of time; None for each damaged line."""
    for file in files_of(folder):
        with suppress(OSError):
            if since is not None and file.stat().st_mtime < since:
                continue
        for record in map(record_in, _whole_lines(file)):
            wall = moment_of(record["wall"]) if record is not None and "wall" in record else None
            if wall is None or ((since is None or wall >= since) and (until is None or wall < until)):
                yield record


def _events(record: dict[str, Any]) -> Iterator[Event]:
    with suppress(ValueError):
        if (event := event_of(record)) is not None:
            yield event
