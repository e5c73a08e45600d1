"""Small video files made on the fly. Frame ``i`` of a clip is one flat grey, ``level(i)``: a test can tell it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

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
    levels: Sequence[int] | None = None,
    grain: int = 0,
    picture: NDArray[np.uint8] | None = None,
    audio: bool = False,
    **tags: str,
) -> Path:
    """Encode ``count`` frames; ``stamps``: seconds of each frame (default ``i / fps``).

    ``levels``: which frame each is to show (default ``i``); ``grain``: so much noise, which keeps a file large.
    """
    noise = np.random.default_rng(0)
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
            shown = picture if picture is not None else flat(levels[index] if levels else index, width, height)
            if grain:
                speckled = shown + noise.integers(-grain, grain + 1, (height, width, 1))
                shown = np.broadcast_to(speckled, shown.shape).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
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
            stream.disposition = Disposition.attached_pic.value
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


def write_tracks(path: Path, *tracks: dict[str, Any]) -> Path:
    """A file with several video streams: each a codec, and perhaps ``size``, ``count``, ``first``, ``disposition``."""
    with av.open(str(path), "w") as output:
        streams = []
        for track in tracks:
            stream = output.add_stream(track["codec"], rate=10)
            stream.width, stream.height = track.get("size", (64, 48))
            stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(track["codec"], "yuv420p")
            if "disposition" in track:
                stream.disposition = track["disposition"].value
            streams.append(stream)
        for track, stream in zip(tracks, streams, strict=True):
            for index in range(track.get("count", 20)):
                shown = flat(track.get("first", 0) + index, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 10)
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
    return path


def write_packets(path: Path, packets: Sequence[tuple[bytes, int, int]], fps: int, codec: str = "libx264") -> Path:
    """Mux packets of 64x48 pictures as they are, each with its bytes, pts and dts in frames."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index, (data, pts, dts) in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, pts, dts, Fraction(1, fps)
            packet.is_keyframe = index == 0
            output.mux(packet)
    return path


def encode(codec: str, count: int, fps: int, **options: str) -> list[av.Packet]:
    """Packets of a clip, in the order of decoding, without a container."""
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = 64, 48, "yuv420p"
    context.time_base, context.framerate, context.options = Fraction(1, fps), Fraction(fps), options
    packets = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(flat(index, 64, 48), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, fps)
        packets += context.encode(frame)
    return packets + context.encode(None)


def write_photo(path: Path, orientation: int, picture: NDArray[np.uint8]) -> Path:
    """A JPEG as a phone writes it: with a maker's name and the ``orientation`` (1 to 8) of its camera in EXIF."""
    write_clip(
        path,
        count=1,
        width=picture.shape[1],
        height=picture.shape[0],
        codec="mjpeg",
        pix_fmt="yuvj444p",
        container="image2",
        picture=picture,
    )
    segment = b"Exif\0\0" + exif(orientation)
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:])
    return path


def exif(orientation: int) -> bytes:
    """EXIF with a maker's name and an orientation."""
    entries = struct.pack(">HHII", 0x010F, 2, 5, 38) + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"MM\0*" + struct.pack(">IH", 8, 2) + entries + struct.pack(">I", 0) + b"Fone\0"


def profiled(path: Path, orientation: int | None = None) -> Path:
    """Put a colour profile, which has a name, into a PNG or APNG, as screenshots and editors do; perhaps EXIF too."""
    bodies = [b"iCCPa screen\0\0" + zlib.compress(bytes(600))]
    bodies += [] if orientation is None else [b"eXIf" + exif(orientation)]
    data = path.read_bytes()
    at = data.index(b"IHDR") + 4 + 13 + 4
    chunks = [struct.pack(">I", len(b) - 4) + b + struct.pack(">I", zlib.crc32(b)) for b in bodies]
    path.write_bytes(data[:at] + b"".join(chunks) + data[at:])
    return path


def damage(data: bytes, seed: int) -> bytes:
    """The same file after an accident: cut off, or with some bytes changed, by ``seed``."""
    random = np.random.default_rng(seed)
    spoiled = bytearray(data[: int(random.integers(1, len(data)))] if seed % 3 == 0 else data)
    reach = len(spoiled) if seed % 5 else min(len(spoiled), 1500)  # headers are where it hurts
    for at in random.integers(0, reach, 2 ** int(random.integers(0, 8))):
        spoiled[at] = random.integers(256)
    return bytes(spoiled)


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
