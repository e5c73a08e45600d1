"""The picture with the words on it: H.264 in fragmented MP4, which a run that is killed leaves playable.

The picture is what the model sees, at its rate. The words of a step stand on the frames of that step, so frames wait
for them. Where nothing was seen, the last picture is shown, dimmed, with the reason.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ..core.errors import OutputError
from ..core.events import Chunk, Commentary, Event, Gap, StepFailed, StepInput
from .cues import LINE, LINES, SENTENCE_ENDS, hole_text, wrap
from .files import PieceFile, check_writable
from .lettering import WIDTH, Lettering, plain
from .limits import CAPTION_ITEMS, FRAME_BYTES, WORDLESS_STEPS
from .text import printable

#: Pixels: a narrower picture is enlarged by a whole number, so that words fit; a longer one is made smaller.
NARROWEST, LONGEST_SIDE = 480, 1280
#: x264's quality.
QUALITY = "23"
#: Seconds between two key frames: so much is lost at most if the run is killed.
KEY_SECONDS = 2.0
#: Seconds that words stay when nothing more is said.
LINGER = 3.0
#: A hole has a picture at least every so many seconds, but not more than so many in all.
CARD_SECONDS, CARDS = 10.0, 100
#: The middle of the words, of the reason of a hole, as a share of the height.
UNDER, CENTRE = 0.9, 0.5
#: What marks a file as one that may be written over.
COMMENT = "captions of streamingvlm"
#: Two starts closer than this, seconds, are of the same step.
_SAME = 1e-3
_MILLISECOND = Fraction(1, 1000)
_FLAGS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Step:
    """Frames of a step with what was said of it (None: nothing is known)."""

    frames: tuple[Picture, ...]
    times: tuple[float, ...]
    said: Commentary | None

    @property
    def size(self) -> int:
        return sum(frame.nbytes for frame in self.frames)


class BurnedOutput:
    """A sink that writes ``path`` (.mp4) in a thread of its own.

    It is a :class:`~streamingvlm.core.events.FrameSink`. Making one checks that the file can be written and changes
    nothing; the first step that has ended overwrites what was there, if that is a file of this kind. ``resume``: what
    is there stays, and ``name-2.mp4`` is written (or 3, and so on). ``patient``: whoever writes waits for the encoder;
    otherwise frames are left out while it is too slow; ``dropped`` counts them. Raises OutputError, also later for what
    has gone wrong in the thread.
    """

    def __init__(self, path: Path, *, resume: bool = False, patient: bool = False) -> None:
        self.path = _beside(path) if resume else path
        check_writable(self.path)
        _check_ours(self.path)
        self._encoder = _Encoder(self.path)
        self._patient = patient
        self.dropped = 0
        self._wordless: deque[Chunk] = deque()
        self._items: deque[_Step | Gap] = deque()
        self._bytes = 0
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="streamingvlm-burned", daemon=True)

    def see(self, step: StepInput) -> None:
        """See :meth:`FrameSink.see`."""
        self._wordless.append(step.chunk)
        starts = sorted({chunk.start for chunk in self._wordless})
        if len(starts) > WORDLESS_STEPS:
            self._release(starts[0], None)

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`."""
        match event:
            case Commentary():
                self._release(event.start, event)
            case StepFailed():
                self._release(event.start, None)
            case Gap():
                self._release(event.start, None)
                self._put(event)

    def close(self) -> None:
        """See :meth:`Sink.close`: returns at once, see :meth:`wait`. What went wrong earlier is raised."""
        if self._wordless:
            self._release(self._wordless[-1].start, None)
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            if self._error is not None:
                raise self._error

    def wait(self, seconds: float) -> bool:
        """Behind :meth:`close`: until the file is whole or time is up; whether it is whole. Raises what went wrong."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def _release(self, start: float, said: Commentary | None) -> None:
        """Hand over the frames of the steps up to the one that starts at ``start``, which ``said`` is about."""
        while self._wordless and self._wordless[0].start < start - _SAME:
            chunk = self._wordless.popleft()
            self._put(_Step(tuple(chunk.frames), chunk.times, None))
        chunks = []
        while self._wordless and self._wordless[0].start < start + _SAME:
            chunks.append(self._wordless.popleft())
        frames = tuple(frame for chunk in chunks for frame in chunk.frames)
        if frames or said is not None:
            self._put(_Step(frames, tuple(time for chunk in chunks for time in chunk.times), said))

    def _put(self, item: _Step | Gap) -> None:
        with self._changed:
            size = item.size if isinstance(item, _Step) else 0
            if self._patient:
                self._changed.wait_for(lambda: self._fits(size) or self._error is not None)
            if self._error is not None:
                raise self._error
            if isinstance(item, _Step) and not self._fits(size):
                self.dropped += len(item.frames)
                item, size = _Step((), (), item.said), 0  # the words still count
            if len(self._items) >= CAPTION_ITEMS:
                old = next((one for one in self._items if isinstance(one, Gap) or not one.frames), None)
                if old is not None:
                    self._items.remove(old)
            self._items.append(item)
            self._bytes += size
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._bytes or self._bytes + size <= FRAME_BYTES

    # The encoder's thread.

    def _run(self) -> None:
        try:
            with _one_line(self.path):
                while (item := self._next()) is not None:
                    self._encoder.add(item)
                    if isinstance(item, _Step):
                        with self._changed:
                            self._bytes -= item.size
                            self._changed.notify_all()
                self._encoder.close()
        except BaseException as error:  # whoever waits for this thread must know
            self._encoder.give_up()
            with self._changed:
                self._error = error
                self._items.clear()
                self._changed.notify_all()

    def _next(self) -> _Step | Gap | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._ended)
            return self._items.popleft() if self._items else None


class _Encoder:
    """Draws and encodes; the file is begun with the first frame."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FragmentFile | None = None
        self._container: Any = None
        self._stream: Any = None
        self._lettering: Lettering | None = None
        self._captions = Captions(LINE)
        self._last: Picture | None = None  # without words
        self._origin = 0.0
        self._pts = -1
        self._key = 0

    def add(self, item: _Step | Gap) -> None:
        if isinstance(item, Gap):
            self._add_hole(item)
            return
        if item.frames and self._container is None:
            self._open(item.frames[0], item.times[0])
        lines = self._captions.lines(item.said, item.times)
        for frame, time, under in zip(item.frames, item.times, lines, strict=True):
            self._last = fit(frame, self._stream.width, self._stream.height)
            self._show(self._last, time, under, UNDER)

    def close(self) -> None:
        if self._container is not None:
            self._container.mux(self._stream.encode())
            self._container.close()
        if self._file is not None:
            self._file.close()

    def give_up(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._container is not None:
            with suppress(av.error.FFmpegError, OSError, ValueError):
                self._container.close()

    def _open(self, frame: Picture, time: float) -> None:
        width, height = canvas(frame.shape[1], frame.shape[0])
        self._lettering, self._captions, self._origin = Lettering(), Captions(_columns(width, height)), time
        self._file = FragmentFile(self._path)
        self._container = av.open(self._file, "w", format="mp4", options=_FLAGS)
        self._container.metadata["comment"] = COMMENT
        self._stream = self._container.add_stream("libx264", rate=25)  # of no meaning: each frame has its time
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = _MILLISECOND
        # Nothing waits in the encoder, and it leaves the other cores to the model.
        self._stream.options = {
            "crf": QUALITY,
            "preset": "veryfast",
            "tune": "zerolatency",
            "threads": "1",
            "g": "9999",
        }

    def _add_hole(self, gap: Gap) -> None:
        if self._last is None:
            return
        lines = wrap(plain(hole_text(gap.reason)).split(), _columns(self._stream.width, self._stream.height))[:LINES]
        length = max(gap.end - gap.start, 0.0)
        count = min(math.ceil(length / CARD_SECONDS), CARDS)
        for index in range(count):
            self._show(self._last // 3, gap.start + length * index / count, lines, CENTRE)

    def _show(self, picture: Picture, time: float, lines: list[str], middle: float) -> None:
        drawn = picture.copy()
        if self._lettering is not None:
            self._lettering.draw(drawn, lines, _scale(*drawn.shape[1::-1]), middle)
        frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
        # Two frames may have the same time; in a file they may not.
        self._pts = max(round((time - self._origin) * 1000), self._pts + 1)
        frame.pts, frame.time_base = self._pts, _MILLISECOND
        if not self._pts or self._pts - self._key >= KEY_SECONDS * 1000:
            self._key, frame.pict_type = self._pts, av.video.frame.PictureType.I
        self._container.mux(self._stream.encode(frame))


class Captions:
    """The words under the picture: two lines of ``columns`` characters that fill up, then begin anew.

    They begin anew behind a sentence too, and go ``LINGER`` seconds after the last word.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._words: list[str] = []
        self._end = 0.0

    def lines(self, said: Commentary | None, times: tuple[float, ...]) -> list[list[str]]:
        """The lines for each frame of a step, of which ``said`` tells the words."""
        words = plain(printable(said.text)).split() if said else []
        if said is not None and words:
            return self._speak(words, said.end, len(times))
        shown = wrap(self._words, self._columns)
        return [shown if time < self._end + LINGER else [] for time in times]

    def _speak(self, words: list[str], end: float, count: int) -> list[list[str]]:
        ended = bool(self._words) and self._words[-1].endswith(SENTENCE_ENDS)
        if not ended and len(wrap([*self._words, *words], self._columns)) <= LINES:
            words = [*self._words, *words]
        lines = wrap(words, self._columns)
        pages = [lines[index : index + LINES] for index in range(0, len(lines), LINES)]
        self._words, self._end = " ".join(pages[-1]).split(), end
        if count < len(pages):  # more than the frames can show
            pages = pages[: max(count, 1)]
            pages[-1] = [*pages[-1][:-1], pages[-1][-1][: self._columns - 3] + "..."]
        return [pages[index * len(pages) // count] for index in range(count)]


def canvas(width: int, height: int) -> tuple[int, int]:
    """The size of the video for pictures of ``width`` x ``height`` pixels: even, readable, not too large."""
    scale = Fraction(max(-(-NARROWEST // width), 1))
    if max(width, height) * scale > LONGEST_SIDE:
        scale = Fraction(LONGEST_SIDE, max(width, height))
    return max(int(width * scale) & ~1, 2), max(int(height * scale) & ~1, 2)


def fit(frame: Picture, width: int, height: int) -> Picture:
    """A ``(h, w, 3)`` picture in ``width`` x ``height`` pixels, with black bars where its shape is another one."""
    scale = min(width / frame.shape[1], height / frame.shape[0])
    inner = [
        max(min(round(side * scale), most), 1) for side, most in zip(frame.shape[1::-1], (width, height), strict=True)
    ]
    # The canvas is even, the picture need not be: a column that is missing is no bar.
    inner = [most if most - one <= 2 else one for one, most in zip(inner, (width, height), strict=True)]
    source = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    how = "POINT" if scale >= 1 else "AREA"
    scaled = source.reformat(*inner, format="rgb24", interpolation=how).to_ndarray()
    if inner == [width, height]:
        return np.ascontiguousarray(scaled)
    whole = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    whole[top : top + inner[1], left : left + inner[0]] = scaled
    return whole


def _scale(width: int, height: int) -> int:
    """How much letters are enlarged."""
    return max(min(height // 240, width // (LINE * WIDTH)), 1)


def _columns(width: int, height: int) -> int:
    return max(min(LINE, width // (WIDTH * _scale(width, height)) - 1), 1)


class FragmentFile:
    """What FFmpeg writes into: fragments go to the disk whole, each in one go.

    A file that ends within the header of a fragment cannot be opened by FFmpeg, though all else is there.
    """

    def __init__(self, path: Path) -> None:
        self._file: PieceFile | None = PieceFile(path)
        self._waiting = bytearray()

    def write(self, data: bytes) -> int:
        """Called by FFmpeg."""
        self._waiting += data
        whole = whole_fragments(self._waiting)
        if whole and self._file is not None:
            self._file.write(bytes(self._waiting[:whole]))
            del self._waiting[:whole]
        return len(data)

    def close(self) -> None:
        """Nothing follows."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def whole_fragments(data: bytes | bytearray | mmap.mmap) -> int:
    """Bytes of ``data``, an MP4 file or what follows in one, up to the end of the last whole fragment."""
    at = whole = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        at += size
        if size < 8 or at > len(data):
            break
        if kind in (b"moov", b"mdat", b"mfra"):
            whole = at
    return whole


def mend(path: Path) -> None:
    """Cut off the fragment that was not written to its end when the power failed."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        whole, length = whole_fragments(content), len(content)
    if whole < length:
        os.truncate(path, whole)


def _beside(path: Path) -> Path:
    """``path``, or the next name beside it that is not taken. The last that is taken is mended."""
    number, free, last = 1, path, None
    while free.is_file() and free.stat().st_size:
        number, last = number + 1, free
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    if last is not None:
        _check_ours(last)
        with _one_line(last):
            mend(last)
    return free


def _check_ours(path: Path) -> None:
    """Raise OutputError if a video is there that was not made here: a film is not easily had again."""
    if not path.is_file() or not path.stat().st_size:
        return
    with _one_line(path), path.open("rb") as file:
        if COMMENT.encode() not in file.read(1 << 16):
            raise OutputError(f"{path} is no video with captions of an earlier run; choose another name or remove it")


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """The one place where what FFmpeg raises becomes an OutputError."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error})") from error
    except av.codec.codec.UnknownCodecError as error:
        raise OutputError(f"cannot write {path}: this FFmpeg has no {error}") from error
