"""Small video files made on the fly. Frame ``i`` of a clip is one flat grey, ``level(i)``: a test can tell it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

TICK = 1000  # ticks per second of the stamps given to the encoder


def level(index: int) -> int:
    """Grey of frame ``index``; levels repeat after 55 frames."""
    return 16 + 4 * (index % 55)


def index_of(frame: NDArray[np.uint8]) -> int:
    """Which frame of a clip (modulo 55) a decoded picture is."""
    return round((float(frame.mean()) - 16) / 4)


def flat(index: int, width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level(index), np.uint8)


def corner(width: int, height: int) -> NDArray[np.uint8]:
    """Black but for a white upper left quarter: shows how a picture was turned."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = 255
    return picture


def write_clip(
    path: Path,
    *,
    count: int = 30,
    fps: float = 10,
    width: int = 64,
    height: int = 48,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container: str | None = None,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    stamps: Sequence[float] | None = None,
    picture: NDArray[np.uint8] | None = None,
    audio: bool = False,
    **tags: str,
) -> Path:
    """Encode ``count`` frames; ``stamps``: seconds of each frame (default ``i / fps``)."""
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        output.metadata.update(tags)
        stream = output.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.time_base = Fraction(1, TICK)
        stream.codec_context.time_base = Fraction(1, TICK)
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "g": "10", "threads": "1", **(codec_options or {})}
        sound = output.add_stream("aac", rate=16000, layout="mono") if audio else None
        times = stamps if stamps is not None else [index / fps for index in range(count)]
        for index, time in enumerate(times):
            shown = picture if picture is not None else flat(index, width, height)
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            frame.pts, frame.time_base = round(time * TICK), Fraction(1, TICK)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if sound is not None:
            _write_tone(output, sound, 1.0)
    return path


def write_audio(path: Path, seconds: float = 1.0, cover: bool = False) -> Path:
    """A file with sound and nothing to see, but perhaps for a cover picture."""
    with av.open(str(path), "w", format="mp4") as output:
        sound = output.add_stream("aac", rate=16000, layout="mono")
        if cover:
            stream = output.add_stream("mjpeg", rate=1)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
            stream.disposition = Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(flat(0, 64, 48), format="rgb24")
            frame.pts = 0
            output.mux(stream.encode(frame))
            output.mux(stream.encode())
        _write_tone(output, sound, seconds)
    return path


def _write_tone(output: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    for start in range(0, int(16000 * seconds), 1024):
        wave = np.sin(np.arange(start, start + 1024) / 10).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        output.mux(stream.encode(frame))
    output.mux(stream.encode())


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write ``(a, b, c, d)`` into the display matrix of an MP4's video track, as a phone that is held upright does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    assert data[at] == 0, "a version 0 header"
    a, b, c, d = (value << 16 for value in matrix)
    data[at + 40 : at + 76] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def cut(path: Path, share: float) -> Path:
    """Keep the first ``share`` of a file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def spoil(path: Path, lo: float, hi: float) -> Path:
    """Overwrite the bytes between two shares of a file with noise."""
    data = bytearray(path.read_bytes())
    a, b = int(len(data) * lo), int(len(data) * hi)
    data[a:b] = np.random.default_rng(0).bytes(b - a)
    path.write_bytes(data)
    return path
