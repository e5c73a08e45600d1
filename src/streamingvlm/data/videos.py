"""The video files of a data set: where they lie, whether they can be used, how large and long they are."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from ..core.errors import OutputError, SourceError
from ..core.grammar import LONGEST_STREAM
from ..sources.container import open_container
from .report import Reason, Unusable

log = logging.getLogger(__name__)

#: Clips that Live-WhisperX-526K publishes are called ID_START-END_2.0fps.mp4, in seconds of the video that ID names.
CLIP_NAME = re.compile(r"(?P<id>.+)_(?P<start>\d+(?:\.\d+)?)-(?P<end>\d+(?:\.\d+)?)_\d+(?:\.\d+)?fps")
#: Two times in a clip's name and in its annotation are the same if they are this close, seconds.
SAME_TIME = 0.05
#: The first line of a cache of headers.
CACHE_HEAD = '{"video headers": 1}\n'


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its video without being decoded: pixels, seconds (None: it does not say)."""

    height: int
    width: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Clip:
    """A video file. Its first frame stands at ``offset`` seconds on the clock of its words."""

    path: Path
    offset: float
    header: Header


@contextmanager
def media_errors(path: Path) -> Iterator[None]:
    """The edge to everything that opens or decodes a file: whatever a broken one makes it raise is a SourceError."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


#: A file as it was when its header was read: bytes, nanoseconds of its last change.
State = tuple[int, int]


class HeaderCache:
    """Headers on disk, so that half a million clips are opened once and not in every run.

    ``files``: where it may lie. All that exist are read; new headers are added to the first that can be written, one
    line of JSON each, at once: a scan that was killed goes on where it stopped, and nothing is written twice. A line
    that is no header (half written, or on a disk that failed) is left out. Paths are kept relative to the file, so
    that it can move with its videos. Raises SourceError for a file that is not a cache.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self._known: dict[str, tuple[State, Header | str]] = {}
        self._lock = Lock()
        self._output: tuple[int, str] | None = None
        for file in reversed(files):
            if file.is_file():
                self._load(file)

    def get(self, path: Path, state: State) -> Header | str | None:
        """The header of ``path``, or why it has none; None if it is not known or the file has changed."""
        known = self._known.get(os.path.abspath(path))
        return known[1] if known is not None and known[0] == state else None

    def add(self, path: Path, state: State, header: Header | str) -> None:
        """Remember a header. OutputError if the disk takes no more."""
        name = os.path.abspath(path)
        with self._lock:
            self._known[name] = state, header
            if self._output is None:
                self._output = self._open()
            descriptor, folder = self._output
            if descriptor < 0:
                return
            what = [header] if isinstance(header, str) else [header.height, header.width, header.seconds]
            row = json.dumps([name.removeprefix(folder), *state, *what]) + "\n"
            try:
                # One call a line: what other processes add at the same time stays apart.
                os.write(descriptor, row.encode())
            except OSError as error:
                raise OutputError(f"cannot write the cache of video headers ({error.strerror or error})") from error

    def close(self) -> None:
        """Nothing more will be added."""
        if self._output is not None and self._output[0] >= 0:
            os.close(self._output[0])
        self._output = None

    def _open(self) -> tuple[int, str]:
        """Descriptor and folder of the file that is written; -1 if none can be."""
        for file in self.files:
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            except OSError as error:
                log.warning("headers of videos are not remembered in %s (%s)", file, error.strerror or error)
                continue
            size = os.fstat(descriptor).st_size
            if size < len(CACHE_HEAD):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, CACHE_HEAD.encode())
            elif os.pread(descriptor, 1, size - 1) != b"\n":
                os.write(descriptor, b"\n")  # behind a line that was cut off
            return descriptor, _folder(file)
        return -1, ""

    def _load(self, file: Path) -> None:
        folder = _folder(file)
        try:
            with file.open(encoding="utf-8", errors="replace") as text:
                head = text.readline()
                if head != CACHE_HEAD and not (CACHE_HEAD.startswith(head) and not text.read(1)):
                    raise SourceError(f"{file} is not a cache of video headers; remove it")
                for line in text:
                    if row := _row(line):
                        name, state, header = row
                        self._known[os.path.join(folder, name)] = state, header
        except OSError as error:
            raise SourceError(f"cannot read {file} ({error.strerror or error})") from error


def _folder(file: Path) -> str:
    return os.path.join(os.path.abspath(file.parent), "")


def _row(line: str) -> tuple[str, State, Header | str] | None:
    """A line of the cache; None if it is none."""
    try:
        name, size, changed, *what = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    header: Header | str
    match what:
        case [str(reason)]:
            header = reason
        case [int(height), int(width), float() | int() | None as seconds] if height > 0 and width > 0:
            header = Header(height, width, seconds)
        case _:
            return None
    if not (isinstance(name, str) and type(size) is int and type(changed) is int):
        return None
    return name, (size, changed), header


class Videos:
    """Finds and opens videos under ``root``; each file is opened once. May be asked by several threads.

    ``cache``: files for a :class:`HeaderCache` (opening half a million clips takes an hour); a file that has changed
    since an earlier run is opened anew.
    """

    def __init__(self, root: Path | None = None, cache: Path | Sequence[Path] | None = None) -> None:
        if root is not None and not root.is_dir():
            raise SourceError(f"{root} is not a folder; the video root must be one")
        self.root = root
        self.cache = HeaderCache([cache] if isinstance(cache, Path) else cache or ())
        self._headers: dict[str, Future[Header | str]] = {}
        self._lock = Lock()

    def clip(self, name: str, folder: Path, start: float, end: float | None) -> Clip:
        """The file that annotations in ``folder`` call ``name``, of which they tell ``start`` to ``end`` seconds.

        Raises :class:`Unusable` if it is missing, empty or no video.
        """
        path = self._find(name, folder)
        offset = 0.0
        if path is None and end is not None:
            path, offset = self._published(Path(name).stem, start, end)
        elif path is not None and start > 0 and (named := CLIP_NAME.fullmatch(path.stem)):
            # The clip is named, and told on the clock of the video that it was cut from.
            offset = start if abs(float(named["start"]) - start) < SAME_TIME else 0.0
        if path is None:
            raise Unusable(Reason.MISSING, name)
        return Clip(path, offset, self.header(path))

    def header(self, path: Path) -> Header:
        """Size and length of a file; :class:`Unusable` if it has none."""
        with self._lock:
            known = self._headers.get(str(path))
            if first := known is None:
                known = self._headers[str(path)] = Future()
        if first:
            try:
                known.set_result(self._header(path))
            except BaseException as error:
                known.set_exception(error)
        found = known.result()
        if isinstance(found, str):
            raise Unusable(Reason.UNREADABLE, found)
        return found

    def save(self) -> None:
        """Close the cache; what is in it was written as it was found."""
        self.cache.close()

    def _header(self, path: Path) -> Header | str:
        try:
            stat = path.stat()
        except OSError as error:
            return f"{path} cannot be read ({error.strerror or error})"
        if stat.st_size == 0:
            raise Unusable(Reason.EMPTY, str(path))
        state = stat.st_size, stat.st_mtime_ns
        found = self.cache.get(path, state)
        if found is None:
            found, lasting = _read(path)
            if lasting:
                self.cache.add(path, state, found)
        return found

    def _find(self, name: str, folder: Path) -> Path | None:
        # An absolute name stays itself.
        places = [base / name for base in (self.root, folder) if base is not None]
        return next((place for place in places if os.path.isfile(place)), None)

    def _published(self, name: str, start: float, end: float) -> tuple[Path | None, float]:
        """A clip of the video ``name`` under the root that was cut at these times."""
        with self._lock:
            clips = self._published_clips
        for first, last, path in clips.get(name, []):
            if abs(first - start) < SAME_TIME and abs(last - end) < SAME_TIME:
                return path, start
        return None, 0.0

    @cached_property
    def _published_clips(self) -> dict[str, list[tuple[float, float, Path]]]:
        clips: dict[str, list[tuple[float, float, Path]]] = {}
        for folder, _, names in os.walk(self.root) if self.root else ():
            for name in names:
                if found := CLIP_NAME.fullmatch(Path(name).stem):
                    times = float(found["start"]), float(found["end"])
                    clips.setdefault(found["id"], []).append((*times, Path(folder, name)))
        return clips


def _read(path: Path) -> tuple[Header | str, bool]:
    """The header, or why there is none; and whether that is so as long as the file stays as it is."""
    try:
        with media_errors(path):
            container, stream = open_container(path)
            with container:
                return _header_of(path, container, stream), True
    except SourceError as error:
        # A disk or a network that failed may be there again in the next run.
        return str(error), not isinstance(error.__cause__, OSError)


def _header_of(path: Path, container: Any, stream: Any) -> Header:
    height, width = stream.codec_context.height, stream.codec_context.width
    if not (height > 0 and width > 0):
        raise SourceError(f"{path} does not say how large its pictures are")
    seconds = float(stream.duration * stream.time_base) if stream.duration else None
    if seconds is None and container.duration:
        seconds = container.duration / 1e6
    # A length that cannot be meant is none.
    return Header(height, width, seconds if seconds is not None and 0 < seconds <= LONGEST_STREAM else None)
