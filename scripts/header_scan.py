"""How long the first scan of many small clips takes, and the next one: ``python scripts/header_scan.py``.

Makes ``--clips`` clips of 24 s (one is encoded, the others are copies) with a line of words each in a temporary folder,
and reads them as ``streamingvlm train`` does. ``--latency``: milliseconds that each opening waits besides, as on a
network file system; ``--threads``: how many are opened at a time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

import streamingvlm.data.reader as reader
import streamingvlm.data.videos as videos
import streamingvlm.train.scan as scanning
from streamingvlm.models.patches import Patcher
from streamingvlm.train.chunks import ChunkPlan


def make(folder: Path, count: int) -> Path:
    """Clips of 24 s at 5 frames a second, and their words, three a second."""
    first = folder / "0.mp4"
    with av.open(str(first), "w") as output:
        stream = output.add_stream("libx264", rate=Fraction(5))
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number in range(24 * 5):
            picture = np.full((360, 640, 3), 2 * number, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    words = [[i / 3, (i + 1) / 3, "word"] for i in range(72)]
    for number in range(1, count):
        shutil.copy(first, folder / f"{number}.mp4")
    lines = [json.dumps({"video": f"{number}.mp4", "content": words}) + "\n" for number in range(count)]
    (folder / "all.jsonl").write_text("".join(lines))
    return folder / "all.jsonl"


def main() -> None:
    """Time both scans."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.0, help="ms")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, reader.THREADS])
    options = parser.parse_args()
    opened = videos.open_container

    def slow(path: Path, *rest: Any) -> Any:
        time.sleep(options.latency / 1000)
        return opened(path, *rest)

    videos.open_container = slow
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = make(folder, options.clips)
        for threads in options.threads:
            reader.THREADS = threads
            for which in ("first", "next"):
                cache = folder / f"cache-{threads}"
                wall, work = time.perf_counter(), time.process_time()
                found = scanning.scan([file], videos.Videos(folder, cache), ChunkPlan(), Patcher())
                wall, work = time.perf_counter() - wall, time.process_time() - work
                print(
                    f"{threads:3} threads, {which:5} scan: {wall:6.2f} s ({work:5.2f} s of processor), "
                    f"{found.report.chunks} chunks, cache of {cache.stat().st_size:,} bytes"
                )


if __name__ == "__main__":
    main()
