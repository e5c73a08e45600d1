"""H.264 in fragmented MP4 that several runs write: each fragment is for itself, and others follow behind it."""

from __future__ import annotations

import io
import itertools
import logging
import mmap
import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from .files import PieceFile

_LOG = logging.getLogger(__name__)

#: What marks a file as one that may be written over; behind it stands the second of the stream that it begins with.
COMMENT = "captions of streamingvlm"
#: Fragments at the end of a file that are looked at for one that is not damaged.
SEARCHED = 8
#: x264's quality.
QUALITY = "23"
MILLISECOND = Fraction(1, 1000)
#: Each fragment is for itself, so that others can follow later: no index comes last.
_FLAGS = "frag_keyframe+empty_moov+default_base_moof+skip_trailer"
#: Nothing waits in the encoder, and it leaves the other cores to the model.
_ENCODER = {"crf": QUALITY, "preset": "veryfast", "tune": "zerolatency", "threads": "1", "g": "9999"}


class FragmentFile:
    """What FFmpeg writes into: fragments go to the disk whole, each in one go.

    ``past``: what they are written behind; what FFmpeg writes before them is there already. A file that ends within the
    header of a fragment cannot be opened by FFmpeg, though all else is there.
    """

    def __init__(self, path: Path, past: Past | None = None) -> None:
        self._file: PieceFile | None = PieceFile(path, past.length if past else 0)
        self._there = past.head if past else b""
        self._waiting = bytearray()

    def write(self, data: bytes) -> int:
        """Called by FFmpeg."""
        self._waiting += data
        whole = 0
        for begin, whole in pieces(self._waiting):
            fragment = bytes(self._waiting[begin:whole])
            if fragment == self._there:
                self._there = b""
            elif self._file is not None:  # until it is whole, players take it for empty space
                self._file.write(fragment, len(fragment).to_bytes(4, "big") + b"free")
        del self._waiting[:whole]
        return len(data)

    def close(self) -> None:
        """Nothing follows."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def open_film(file: Any, width: int, height: int, origin: float, past: Past | None = None) -> tuple[Any, Any]:
    """A container that is written to ``file``, and its stream; its first frame is at ``origin`` seconds."""
    # Without the last, fragments that are continued would begin at zero.
    options = {"movflags": _FLAGS, "flush_packets": "1", "avoid_negative_ts": "disabled"}
    if past is not None:
        options |= {"movflags": f"{_FLAGS}+frag_discont", "fragment_index": str(past.number + 1)}
    container = av.open(file, "w", format="mp4", options=options)
    container.metadata["comment"] = f"{COMMENT}, from {float(origin)!r} s"
    stream: Any = container.add_stream("libx264", rate=25)  # of no meaning: each frame has its time
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = MILLISECOND
    stream.options = dict(_ENCODER)
    return container, stream


@dataclass(frozen=True, slots=True)
class Past:
    """What an earlier run has left in a file.

    ``head``: what comes before the fragments; ``length``: bytes up to the end of the last whole one, which has
    ``number``. ``last``: of the last frame, milliseconds behind ``origin``, in seconds of the stream (None: unknown).
    """

    head: bytes
    length: int
    width: int = 0
    height: int = 0
    origin: float | None = None
    last: int = -1
    number: int = 0

    def can_be_continued(self) -> bool:
        """Whether fragments that are written now belong behind this head: only then they are decoded right."""
        if self.origin is None:
            return False
        file = io.BytesIO()
        container, _ = open_film(file, self.width, self.height, self.origin)
        container.start_encoding()
        container.close()
        return file.getvalue() == self.head


def find_past(path: Path) -> tuple[Path, Past | None]:
    """Where a film goes on, and behind what (None: it begins there)."""
    for number in itertools.count(1):
        place = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        past = read_past(place)
        free = past is None and (place == path or not place.exists())
        if free or (past is not None and past.can_be_continued()):
            break
        if past is not None and past.origin is not None:
            os.truncate(place, past.length)  # a fragment that is torn makes all of it unreadable
    if place != path:
        _LOG.warning("the film of %s goes on in %s, since another version has written what is there", path, place)
    return place, past


def read_past(path: Path) -> Past | None:
    """What an earlier run has left in ``path``; None if there are no frames."""
    if not path.is_file() or not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = pieces(content)
        head = content[slice(*next(found, (0, 0)))]
        fragments = deque(found, SEARCHED)
        # Behind a power failure the end can be damaged.
        for begin, end in reversed(fragments):
            with suppress(av.error.FFmpegError, IndexError, ValueError):
                return _past_of(head, content[begin:end], end)
    return Past(head, end) if fragments else None


def _past_of(head: bytes, fragment: bytes, length: int) -> Past:
    with av.open(io.BytesIO(head + fragment)) as container:
        stream: Any = container.streams.video[0]
        origin = re.fullmatch(rf"{COMMENT}, from (\S+) s", container.metadata.get("comment", ""))
        times = [packet.pts * packet.time_base for packet in container.demux(stream) if packet.pts is not None]
        return Past(
            head,
            length,
            stream.width,
            stream.height,
            float(origin[1]) if origin else None,
            round(max(times) * 1000),
            int.from_bytes(fragment[20:24], "big"),  # box of the fragment, box of its header, version
        )


def pieces(data: bytes | bytearray | mmap.mmap) -> Iterator[tuple[int, int]]:
    """Where the head of an MP4 file and each of its whole fragments begin and end, or those that follow in one."""
    at = begin = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        at += size
        if size < 8 or at > len(data):
            return
        if kind in (b"moov", b"mdat"):
            yield begin, at
            begin = at


def whole_fragments(data: bytes | bytearray | mmap.mmap) -> int:
    """Bytes of ``data`` up to the end of the last whole fragment."""
    return max((end for _, end in pieces(data)), default=0)
