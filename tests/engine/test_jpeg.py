"""Frames as JPEG."""

from __future__ import annotations

import base64

import av
import numpy as np
import pytest

from streamingvlm.engine.jpeg import data_url, encode_jpeg, quantizer


def decoded(jpeg: bytes) -> np.ndarray:
    context = av.CodecContext.create("mjpeg", "r")
    (frame,) = context.decode(av.Packet(jpeg))
    return frame.to_ndarray(format="rgb24")


def picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (height + width)], -1).astype(np.uint8)


def test_colours_stay() -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32], frame[:24, 32:], frame[24:, :32] = (255, 0, 0), (0, 255, 0), (255, 255, 255)
    seen = decoded(encode_jpeg(frame))
    for y, x in ((8, 8), (8, 56), (40, 8), (40, 56)):
        assert np.abs(seen[y, x].astype(int) - frame[y, x]).max() <= 8


@pytest.mark.parametrize(
    ("size", "height", "shown"),
    [
        ((720, 1280), 360, (360, 640)),
        ((361, 641), 360, (360, 639)),
        ((360, 640), 360, (360, 640)),
        ((90, 160), 360, (90, 160)),
        ((48, 64), None, (48, 64)),
        ((49, 65), None, (49, 65)),
        ((1000, 1), 10, (10, 1)),
    ],
)
def test_sizes(size: tuple[int, int], height: int | None, shown: tuple[int, int]) -> None:
    assert decoded(encode_jpeg(picture(*size), height=height)).shape == (*shown, 3)


def test_quality_is_obeyed() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    sizes = [len(encode_jpeg(frame, quality=quality)) for quality in (20, 50, 75, 85, 95)]
    assert sizes == sorted(set(sizes))
    assert [quantizer(quality) for quality in (1, 50, 75, 85, 90, 100)] == [31, 10, 5, 3, 2, 1]


def test_the_same_frame_gives_the_same_bytes() -> None:
    frame = picture(120, 160)
    assert encode_jpeg(frame) == encode_jpeg(np.asfortranarray(frame))


def test_a_url_holds_the_file() -> None:
    head, _, body = data_url(b"\xff\xd8 picture").partition(",")
    assert (head, base64.b64decode(body)) == ("data:image/jpeg;base64", b"\xff\xd8 picture")
