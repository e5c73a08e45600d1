"""The edge to FFmpeg: opening a file, choosing among its video streams, and one line for whatever goes wrong."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from ..core.errors import SourceError
from .redact import hide_login
from .timestamps import CLOCK_BREAK, CLOCK_GAP, PacketClock

#: Demuxers that would show a text file as pictures of letters.
TEXT_FORMATS = frozenset({"tty", "bin", "xbin", "adf", "idf"})
#: Streams with these marks are pictures about the video, or parts of another stream.
BESIDE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent
#: Codecs of single pictures: a stream of them beside one with this many times the frames is a row of thumbnails.
PICTURE_CODECS = frozenset({"mjpeg", "png", "bmp", "tiff", "webp", "gif", "jpeg2000"})
THUMBNAIL_SHARE = 10
#: So many packets are read to tell a film from a thumbnail where the header does not say how many frames there are.
PROBE_PACKETS = 300
#: Decoder threads, unless the caller says how many: more make reading a single file no faster.
MAX_THREADS = 4
#: Rates above this are ticks of a clock, not pictures a second.
MAX_RATE = 300
#: FFmpeg's marks: "stamps may jump" of a format; "make up stamps of presentation" of an open file.
MAY_JUMP = 0x200
MAKE_UP_STAMPS = 0x1
#: Stamps of 33 bits at 90 kHz (MPEG) start again at 0 after so many seconds.
MPEG_WRAP = 2**33 / 90000
#: A playlist without an end would be read again and again, for hours, in the hope of more: seconds for opening a file.
OPEN_SECONDS = 60.0
NO_WAITING = {"max_reload": "2", "m3u8_hold_counters": "2"}
AV_VERSION = int(av.__version__.partition(".")[0])
#: Bytes of a title that are no UTF-8 are escaped from av 19 on; before that it must be asked for.
ESCAPED = {} if AV_VERSION >= 19 else {"metadata_errors": "surrogateescape"}


def reason(error: BaseException) -> str:
    """What an exception of a library says, on one line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


@contextmanager
def edge(path: Path, trouble: str) -> Iterator[None]:
    """Whatever the library raises inside becomes a SourceError: ``path``, ``trouble`` and what the library says.

    Any exception, on purpose: PyAV raises its own errors, those of ctypes, of codecs of text and of the system, and
    has no list of them. Only calls of the library belong inside.
    """
    try:
        yield
    except Exception as error:
        raise SourceError(f"{path} {trouble} ({reason(error)})") from error


def open_container(path: Path, number: int | None = None, threads: int | None = None) -> tuple[Any, Any]:
    """Open a file and choose its video stream; ``(container, stream)``.

    ``number`` counts its video streams from 0 (None: the film, never a cover or a thumbnail beside it). ``threads``:
    how many the decoder may use. Raises SourceError.
    """
    _check_file(path)
    container = _open(path)
    try:
        stream = _choose(container, path, number)
        with edge(path, "is not a video that can be read"):
            # FFmpeg would make up stamps of presentation where only those of decoding are meant.
            container.flags &= ~MAKE_UP_STAMPS
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads or min(MAX_THREADS, os.cpu_count() or 1)
    except BaseException:
        container.close()
        raise
    return container, stream


def tags_of(container: Any) -> dict[str, str]:
    """The container's metadata with lower-case keys; bytes that are no text are shown as U+FFFD."""

    def text(value: str) -> str:
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    return {text(key).lower(): text(value) for key, value in container.metadata.items()}


def may_jump(container: Any) -> bool:
    """Whether the container is of a kind whose stamps may jump in the middle (broadcast, joined streams)."""
    return bool(container.format.flags & MAY_JUMP) or "flv" in container.format.name.split(",")


def spacing_of(stream: Any) -> float:
    """Seconds from a frame to the next, as far as the header tells."""
    rates = [float(rate) for rate in (stream.guessed_rate, stream.average_rate) if rate]
    return 1 / next((rate for rate in rates if 1 / CLOCK_GAP <= rate <= MAX_RATE), 25.0)


def packet_clock(container: Any, stream: Any) -> PacketClock:
    """The clock that fits the container."""
    jumps = may_jump(container)
    wrap = MPEG_WRAP if jumps and stream.time_base == Fraction(1, 90000) else 0.0
    return PacketClock(spacing_of(stream), CLOCK_BREAK if jumps else CLOCK_GAP, wrap)


def _check_file(path: Path) -> None:
    with edge(path, "cannot be looked at"):
        exists, plain = path.exists(), path.is_file()
        size = path.stat().st_size if plain else 0
    if not exists:
        raise SourceError(f"{hide_login(str(path))}: no such file")
    if not plain:
        raise SourceError(f"{path} is not a file")
    if size == 0:
        raise SourceError(f"{path} is empty")


def _open(path: Path) -> Any:
    with edge(path, "is not a video that can be read"):
        # An absolute path cannot be taken for a protocol; a broken title must not stop the video.
        container = av.open(str(path.absolute()), container_options=NO_WAITING, timeout=(OPEN_SECONDS, None), **ESCAPED)
    if container.format.name in TEXT_FORMATS:
        container.close()
        raise SourceError(f"{path} is a text file, not a video")
    if container.format.name == "hls" and container.duration is None:
        container.close()
        raise SourceError(f"{path} is the playlist of a stream that goes on, not a video with an end")
    return container


def _choose(container: Any, path: Path, number: int | None) -> Any:
    """The stream to watch, which has a decoder."""
    streams = list(container.streams.video)
    if number is None:
        films = [stream for stream in streams if not stream.disposition & Disposition.attached_pic]
        if not films:
            raise SourceError(f"{path} has no video track")
        stream = films[0] if len(films) == 1 else _best(films, path)
    elif 0 <= number < len(streams):
        stream = streams[number]
    else:
        listed = ", ".join(f"{index}: {_describe(container, each)}" for index, each in enumerate(streams))
        raise SourceError(f"{path} has no video stream {number} (it has {listed or 'none'})")
    if stream.codec_context is None:
        raise SourceError(f"{path}: no decoder for its video, which is {_codec_of(container, stream)}")
    return stream


def _best(streams: Sequence[Any], path: Path) -> Any:
    """No still picture if there is a film, what can be decoded, the default, the largest, the one with most frames."""
    frames = {stream.index: stream.frames for stream in streams}
    # AVI gives how long a stream lasts, in frames.
    if streams[0].container.format.name == "avi" or not all(frames.values()):
        frames = _count(path, list(frames))
    most = max(frames.values())

    def rank(stream: Any) -> tuple[bool, bool, bool, int, int]:
        codec, count = stream.codec_context, frames[stream.index]
        few = count <= 1 < most or count * THUMBNAIL_SHARE <= most
        still = bool(stream.disposition & BESIDE) or (codec is not None and codec.name in PICTURE_CODECS and few)
        size = 0 if codec is None else codec.width * codec.height
        return not still, codec is not None, bool(stream.disposition & Disposition.default), size, count

    return max(streams, key=rank)


def _count(path: Path, indices: list[int]) -> dict[int, int]:
    """Packets of each stream at the beginning of the file."""
    seen: Counter[int] = Counter()
    # What was counted before something broken is enough.
    with _open(path) as container, suppress(Exception):
        packets = container.demux([stream for stream in container.streams.video if stream.index in indices])
        for packet, _ in zip(packets, range(PROBE_PACKETS), strict=False):
            seen[packet.stream_index] += packet.size > 0
    return {index: seen[index] for index in indices}


def _describe(container: Any, stream: Any) -> str:
    codec = stream.codec_context
    kind = " (a picture beside a video)" if stream.disposition & BESIDE else ""
    if codec is None:
        return f"{_codec_of(container, stream)}, no decoder{kind}"
    frames = f", frames: {stream.frames}" if stream.frames else ""
    return f"{codec.name} {codec.width}x{codec.height}{frames}{kind}"


def _codec_of(container: Any, stream: Any) -> str:
    """Name and tag of a codec that has no decoder. PyAV does not hand them out: FFmpeg's summary of the file does."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    summary = ""
    try:
        with suppress(Exception):  # a summary that cannot be had is no second error
            summary = container.dumps_format()
    finally:
        av.logging.set_level(level)
    found = re.search(rf"Stream #0:{stream.index}\b.*: Video: ([^,\n]+)", summary)
    return found[1].strip() if found else "of an unknown codec"
