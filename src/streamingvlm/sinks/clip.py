"""Clips that this tool writes: H.264 in MP4, with what is known about them in the container's tags."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ..core.errors import OutputError

#: x264's quality: small moving things (a ball of a few pixels) must survive.
QUALITY = "17"


def write_video(
    path: Path, frames: Iterable[NDArray[np.uint8]], *, fps: int, title: str = "", comment: str = ""
) -> int:
    """Encode ``(height, width, 3)`` uint8 RGB frames, all of one even size, at ``fps``; returns how many there were.

    The file appears under its name only once it is whole; a run that fails leaves what was there. Raises OutputError
    if it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        count = _encode(part, frames, fps, {"title": title, "comment": comment})
        part.replace(path)
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"cannot write {path} ({getattr(error, 'strerror', None) or error})") from error
    finally:
        part.unlink(missing_ok=True)
    return count


def _encode(part: Path, frames: Iterable[NDArray[np.uint8]], fps: int, tags: dict[str, str]) -> int:
    count = 0
    # The index goes to the front so that a copy that breaks off can still be read.
    with av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container:
        container.metadata.update({key: value for key, value in tags.items() if value})
        stream = container.add_stream("libx264", rate=fps)
        stream.pix_fmt = "yuv420p"
        # A key frame each second keeps seeking cheap.
        stream.options = {"crf": QUALITY, "preset": "veryfast", "g": str(fps)}
        for frame in frames:
            if count == 0:
                stream.height, stream.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = count, Fraction(1, fps)
            container.mux(stream.encode(picture))
            count += 1
        container.mux(stream.encode())
    return count
