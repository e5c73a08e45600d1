"""Watching a file as fast as it goes against decoding it: which of the two is it bound by?

    python scripts/decoding.py --size 1280x720 --seconds 60 --json decoding.json

Makes an H.264 clip of that size at 30 frames a second on first use (a mosaic of a match with film grain, kept in
--folder), then in turns decodes it at 2 frames a second and watches it with the bundled model, source in its thread as
`streamingvlm watch --pace fast` has it. Every reply has --tokens tokens, so that there is as much to say as in a match.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray

import streamingvlm as sv
from arcade_streams.worlds.games import GAMES
from arcade_streams.worlds.record import CLIP_FPS, enlarge
from arcade_streams.worlds.stream import GameStream
from streamingvlm.models.base import Model
from streamingvlm.models.load import settle_threads
from streamingvlm.runtime.reports import provenance
from streamingvlm.runtime.runtime import Runtime
from streamingvlm.sinks.clip import write_video

GRAIN = 4
"""Standard deviation of the grain: without it an arcade's flat colours are hardly any work for a decoder."""


def mosaic(width: int, height: int, seconds: int) -> Iterator[NDArray[np.uint8]]:
    """Frames (height, width, 3) at CLIP_FPS."""
    random = np.random.default_rng(0)
    for second in islice(GameStream(GAMES["pong"], 9_000_500, fps=CLIP_FPS), seconds):
        for picture in enlarge(second.frames):
            down, across = (-(-want // have) for want, have in zip((height, width), picture.shape, strict=False))
            tiled = np.tile(picture, (down, across, 1))[:height, :width]
            yield np.clip(tiled + random.normal(0, GRAIN, tiled.shape), 0, 255).astype(np.uint8)


def record(folder: Path, width: int, height: int, seconds: int) -> Path:
    """The clip, made on first use."""
    clip = folder / f"mosaic-{width}x{height}-{seconds}s.mp4"
    if not clip.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_video(clip, mosaic(width, height, seconds), fps=CLIP_FPS)
    return clip


def decode(clip: Path) -> float:
    """Wall seconds of decoding the clip and picking its frames."""
    began = time.perf_counter()
    for _ in sv.open_source(str(clip)):
        pass
    return time.perf_counter() - began


def watch(model: Model, clip: Path, sampling: sv.Sampling) -> tuple[float, float]:
    """Wall seconds of watching the clip, and of the model's own work in it."""
    source = sv.open_source(str(clip))
    began = time.perf_counter()
    with Runtime(sv.Engine(model)) as runtime:
        stream = runtime.start(source, encode_ahead=True, sampling=sampling)
        stream.wait()
        work = sum(stream.stats.stages[stage] for stage in ("evict", "prefill", "decode"))
    return time.perf_counter() - began, work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=6)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("out"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    clip = record(args.folder, width, height, args.seconds)
    model = sv.load_model()
    settle_threads(model)
    sampling = replace(model.defaults.sampling, max_new_tokens=args.tokens, forced=True)
    watch(model, clip, sampling)  # warm-up
    turns = [(decode(clip), *watch(model, clip, sampling)) for _ in range(args.turns)]
    alone, watched, own = (statistics.median(column) / args.seconds for column in zip(*turns, strict=True))
    result = {
        "decode_alone": alone,
        "watch": watched,
        "watch_over_decode": watched / alone,
        "model_beside_decoding": own,
        "turns": [[seconds / args.seconds for seconds in turn] for turn in turns],
        "size": [width, height],
        "tokens": args.tokens,
        "threads": torch.get_num_threads(),
        **provenance(model.kv_shape.device),
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
