"""The video files of a data set: where they lie, whether they can be used, how large and long they are."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import OutputError, SourceError
from ..video.container import open_container
from .report import Reason, Unusable

#: Clips that Live-WhisperX-526K publishes are called ID_START-END_2.0fps.mp4, in seconds of the video that ID names.
CLIP_NAME = re.compile(r"(?P<id>.+)_(?P<start>\d+(?:\.\d+)?)-(?P<end>\d+(?:\.\d+)?)_\d+(?:\.\d+)?fps")
#: Two times in a clip's name and in its annotation are the same if they are this close, seconds.
SAME_TIME = 0.05
#: The cache of headers is written after so many new ones.
SAVE_EVERY = 1000


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


class Videos:
    """Finds and opens videos under ``root``; each file is opened once.

    ``cache``: a JSON file that remembers the headers from run to run (opening half a million clips takes an hour);
    a file that has changed is opened anew.
    """

    def __init__(self, root: Path | None = None, cache: Path | None = None) -> None:
        if root is not None and not root.is_dir():
            raise SourceError(f"{root} is not a folder; the video root must be one")
        self.root, self.cache = root, cache
        self._headers: dict[str, tuple[list[int], Header | str]] = {}
        self._new = 0
        if cache is not None and cache.is_file():
            self._load(cache)

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
        stat = path.stat()
        if stat.st_size == 0:
            raise Unusable(Reason.EMPTY, str(path))
        key, state = str(path), [stat.st_size, stat.st_mtime_ns]
        known = self._headers.get(key)
        if known is None or known[0] != state:
            known = (state, _read(path))
            self._headers[key] = known
            self._new += 1
            if self._new >= SAVE_EVERY:
                self.save()
        if isinstance(known[1], str):
            raise Unusable(Reason.UNREADABLE, known[1])
        return known[1]

    def save(self) -> None:
        """Write the cache, if there is one and something is new."""
        if self.cache is None or not self._new:
            return
        rows = {key: [state, _plain(header)] for key, (state, header) in self._headers.items()}
        part = self.cache.with_name(f".{self.cache.name}.{os.getpid()}")
        try:
            part.write_text(json.dumps(rows), encoding="utf-8")
            part.replace(self.cache)
        except OSError as error:
            raise OutputError(f"cannot write {self.cache} ({error.strerror or error})") from error
        self._new = 0

    def _find(self, name: str, folder: Path) -> Path | None:
        # An absolute name stays itself.
        places = [base / name for base in (self.root, folder) if base is not None]
        return next((place for place in places if os.path.isfile(place)), None)

    def _published(self, name: str, start: float, end: float) -> tuple[Path | None, float]:
        """A clip of the video ``name`` under the root that was cut at these times."""
        for first, last, path in self._published_clips.get(name, []):
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

    def _load(self, cache: Path) -> None:
        try:
            rows = json.loads(cache.read_text(encoding="utf-8"))
            self._headers = {
                key: (state, header if isinstance(header, str) else Header(*header))
                for key, (state, header) in rows.items()
            }
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SourceError(f"{cache} is not a cache of video headers; remove it ({error})") from None


def _read(path: Path) -> Header | str:
    """The header, or why there is none."""
    try:
        container, stream = open_container(path)
    except SourceError as error:
        return str(error)
    with container:
        height, width = stream.codec_context.height, stream.codec_context.width
        seconds = float(stream.duration * stream.time_base) if stream.duration else None
        if seconds is None and container.duration:
            seconds = container.duration / 1e6
    if not (height and width):
        return f"{path} does not say how large its pictures are"
    return Header(height, width, seconds)


def _plain(header: Header | str) -> str | list[int | float | None]:
    return header if isinstance(header, str) else [header.height, header.width, header.seconds]
