"""Streams of the arcade as training data: frames as the model will see them, exact labels, and what is said."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...arcade.context import Context, training_seed
from ...arcade.game import FrameLabel
from ...arcade.games.pong import PONG
from ...arcade.language import Event
from ...arcade.record import enlarge
from ...arcade.stream import Second, Stream
from .tower import SIZE, resize

Frames = NDArray[np.uint8]

#: Columns of a label row, per frame. A ball that is not there is -1, -1.
FIELDS = ("ball_x", "ball_y", "motion_x", "motion_y", "green_paddle", "orange_paddle", "green_score", "orange_score")
#: Seconds that are decoded and distorted together.
_BLOCK = 60


@dataclass(frozen=True, slots=True)
class Recording:
    """The first n seconds of a seed's stream.

    ``frames``: (n, 2, 3, height, width) uint8, resized; None once the tower has read them. ``features``:
    (n, tokens, hidden) bf16. ``labels``: (n, 2, len(FIELDS)) int16. ``events``: what is said in each second.
    """

    seed: int
    context: Context
    frames: Tensor | None
    features: Tensor | None
    labels: NDArray[np.int16]
    events: tuple[tuple[Event, ...], ...]

    def __len__(self) -> int:
        return len(self.events)


def record(seed: int, seconds: int, *, render: bool = True) -> Recording:
    """Play a training seed and keep what training needs. The seed also picks how its pictures are distorted."""
    stream = Stream(PONG, training_seed(seed), render=render)
    rng = random.Random(f"distort {seed}")
    kind = rng.choices(("clean", "h264", "noise"), (0.35, 0.4, 0.25))[0]
    frames: list[Tensor] = []
    labels: list[list[list[int]]] = []
    events: list[tuple[Event, ...]] = []
    for block in _blocks(stream, seconds):
        if render:
            pictures = distort(enlarge(np.concatenate([s.frames for s in block])), kind, rng)
            frames.append(resize(torch.from_numpy(pictures)).view(len(block), 2, 3, *SIZE))
        labels += [[_row(label) for label in s.labels] for s in block]
        events += [s.events for s in block]
    return Recording(
        seed, stream.context, torch.cat(frames) if frames else None, None, np.array(labels, np.int16), tuple(events)
    )


def _blocks(stream: Stream, seconds: int) -> Iterator[list[Second]]:
    source = iter(stream)
    for first in range(0, seconds, _BLOCK):
        yield list(islice(source, min(_BLOCK, seconds - first)))


def _row(label: FrameLabel) -> list[int]:
    tops = [top for _, top in (label.places[colour] or (-1, -1) for colour in PONG.colours)]
    motion = [label.facts[name] - 1 for name in ("motion_x", "motion_y")]
    return [*(label.places["ball"] or (-1, -1)), *motion, *tops, *label.scores]


def distort(frames: Frames, kind: str, rng: random.Random) -> Frames:
    """What recording does to pictures: nothing (``clean``), compression (``h264``), or grain and blur (``noise``)."""
    if kind == "h264":
        return compress(frames, crf=rng.randint(16, 27), gop=rng.choice((1, 4, 12, 60)))
    if kind == "noise":
        return _grain(frames, sigma=rng.uniform(1, 6), blur=rng.random() < 0.4, seed=rng.randrange(2**31))
    return frames


def _grain(frames: Frames, sigma: float, blur: bool, seed: int) -> Frames:
    dice = torch.Generator().manual_seed(seed)
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    if blur:
        x = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    x += sigma * torch.randn(x.shape, generator=dice)
    grained: Frames = x.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return grained


def compress(frames: Frames, crf: int, gop: int) -> Frames:
    """Frames through H.264 and back."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as sink:
        stream: Any = sink.add_stream(
            "libx264", rate=30, options={"crf": str(crf), "preset": "veryfast", "g": str(gop)}
        )
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for picture in frames:
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as source:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)])
