"""Streams of the arcade as training data: frames as the model will see them, exact labels, and what is said."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..worlds.context import Context, training_seed
from ..worlds.game import FrameLabel, Game
from ..worlds.games import find_game
from ..worlds.language import GameEvent
from ..worlds.record import enlarge
from ..worlds.stream import GameStream, Second
from .tower import SIZE, resize

Frames = NDArray[np.uint8]

#: Seconds that are decoded and distorted together.
_BLOCK = 60
#: A fact that fewer of the frames show is rare.
RARE = 0.12


@dataclass(frozen=True, slots=True)
class Labels:
    """What the two frames of n seconds show, int16, in the order of the game's ``places``, ``facts`` and colours.

    ``places``: (n, 2, places, 2), left and top edge in pixels of the 160 x 210 screen, -1 where nothing is.
    ``facts``: (n, 2, facts), a class or -1 for none. ``scores``: (n, 2, 2). ``playing``: (n, 2), 0 or 1.
    """

    places: NDArray[np.int16]
    facts: NDArray[np.int16]
    scores: NDArray[np.int16]
    playing: NDArray[np.int16]

    @staticmethod
    def of(game: Game, seconds: Sequence[Sequence[FrameLabel]]) -> Labels:
        """From the labels of two frames for each second."""
        lookups: tuple[Callable[[FrameLabel], Any], ...] = (
            lambda label: [label.places[name] or (-1, -1) for name in game.places],
            lambda label: [label.facts[name] for name in game.facts],
            lambda label: label.scores,
            lambda label: label.in_play,
        )
        return Labels(*(np.array([[look(label) for label in two] for two in seconds], np.int16) for look in lookups))

    def __getitem__(self, part: slice) -> Labels:
        """Of some of the seconds."""
        return Labels(self.places[part], self.facts[part], self.scores[part], self.playing[part])


@dataclass(frozen=True, slots=True)
class Recording:
    """The first n seconds of a seed's stream of the game of that name.

    ``frames``: (n, 2, 3, height, width) uint8, resized; None once the tower has read them. ``features``:
    (n, tokens, hidden) bf16. ``events``: what is said in each second.
    """

    name: str
    seed: int
    context: Context
    frames: Tensor | None
    features: Tensor | None
    labels: Labels
    events: tuple[tuple[GameEvent, ...], ...]

    def __len__(self) -> int:
        return len(self.events)

    @property
    def game(self) -> Game:
        """The game."""
        return find_game(self.name)


def record(game: Game, seed: int, seconds: int, *, render: bool = True) -> Recording:
    """Play a training seed and keep what training needs. The seed also picks how its pictures are distorted."""
    stream = GameStream(game, training_seed(seed), render=render)
    rng = random.Random(f"distort {game.name} {seed}")
    kind = rng.choices(("clean", "h264", "noise"), (0.35, 0.4, 0.25))[0]
    frames: list[Tensor] = []
    labels: list[tuple[FrameLabel, ...]] = []
    events: list[tuple[GameEvent, ...]] = []
    for block in _blocks(stream, seconds):
        if render:
            shown = distort(enlarge(np.concatenate([s.frames for s in block])), kind, rng)
            frames.append(resize(torch.from_numpy(shown)).view(len(block), 2, 3, *SIZE))
        labels += [s.labels for s in block]
        events += [s.events for s in block]
    pictures = torch.cat(frames) if frames else None
    return Recording(game.name, seed, stream.context, pictures, None, Labels.of(game, labels), tuple(events))


def rare(facts: Tensor, share: float = RARE) -> Tensor:
    """Which seconds of facts (n, 2, facts) show a class that less than this share of the frames do.

    An arm is stretched in one frame of twenty: who never sees one reads 0.95 of them rightly.
    """
    seen = torch.zeros(len(facts), dtype=torch.bool)
    for each in facts.unbind(-1):
        often = torch.bincount(each.flatten()) / each.numel()
        seen |= (often[each] < share).any(1)
    return seen.nonzero().flatten()


def _blocks(stream: GameStream, seconds: int) -> Iterator[list[Second]]:
    source = iter(stream)
    for first in range(0, seconds, _BLOCK):
        yield list(islice(source, min(_BLOCK, seconds - first)))


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
