"""Frames as JPEG, for what takes pictures over the network."""

from __future__ import annotations

import base64
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray


def encode_jpeg(frame: NDArray[np.uint8], *, height: int | None = None, quality: int = 85) -> bytes:
    """A ``(height, width, 3)`` uint8 RGB frame as a JPEG file of 4:2:0.

    ``height``: at most so many lines, the width in proportion (None: as it is). ``quality``: 1 to 100 as libjpeg
    counts; FFmpeg's encoder has steps and tables of its own, the nearest one is taken (85 gives files of about the same
    size).
    """
    lines, columns = frame.shape[:2]
    size = (lines, columns)
    if height is not None and lines > height:
        size = (height, max(1, round(columns * height / lines)))
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    picture = picture.reformat(width=size[1], height=size[0], format="yuvj420p", interpolation="AREA")
    picture.pts = 0
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt, context.time_base = size[1], size[0], "yuvj420p", Fraction(1)
    step = str(quantizer(quality))
    context.options = {"qmin": step, "qmax": step, "threads": "1"}
    return b"".join(bytes(packet) for packet in (*context.encode(picture), *context.encode(None)))


def quantizer(quality: int) -> int:
    """FFmpeg's step (1 to 31) for libjpeg's quality (1 to 100)."""
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    return min(31, max(1, round(10 * scale)))


def data_url(jpeg: bytes) -> str:
    """A JPEG file as the URL of itself."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
