"""Pretraining of the vision tower on labels read from the games' memory; afterwards it is frozen.

One tower for all games; what it sees is read by heads of each game's own, which follow from its labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import tower
from .decoder import precise
from .optim import Optimizer
from .reader import FrameReader, Sights, sights
from .record import Recording, rare

Batch = Mapping[str, tuple[Tensor, Sights]]
"""By game: frames (b, 2, 3, height, width) uint8 and what they show."""


def pretrain(
    model: Any,
    recordings: Sequence[Recording],
    *,
    minutes: float,
    batch: int = 48,
    rate: float = 2e-3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    log: Callable[[str], None] = print,
) -> nn.ModuleDict:
    """Train the tower for that long, each batch with seconds of every game, of one with more recordings more.

    Of each game the last recording, of two at least, is kept apart to measure. Returns the heads.
    """
    torch.manual_seed(seed)
    vision, hidden = model.model.visual, model.config.text_config.hidden_size
    games = {recording.name: recording.game for recording in recordings}
    by_game = {name: [r for r in recordings if r.name == name] for name in games}
    data = {name: Pool.of(own[:-1]) for name, own in by_game.items()}
    readers = nn.ModuleDict({name: FrameReader(game, hidden) for name, game in games.items()})
    optimizer = Optimizer.make([*vision.named_parameters(), *readers.named_parameters()])
    each = shares({name: len(own) for name, own in by_game.items()}, batch)
    began, step, shown = time.monotonic(), 0, 0.0
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        warm = min(1.0, (step + 1) / 50)
        pace = rate * warm * (0.5 + 0.5 * float(np.cos(np.pi * share)))
        loss, right = read(vision, readers, {name: pool.draw(each[name]) for name, pool in data.items()}, dtype)
        optimizer.step(loss, pace)
        step += 1
        if time.monotonic() - shown > 20:
            shown = time.monotonic()
            log(f"vision {step} {share:.2f} loss {loss.item():.3f} {_brief(right)}")
    for name, own in by_game.items():
        log(f"vision held out, {name}: {_show(check(model, readers, own[-1]))}")
    return readers


def shares(streams: Mapping[str, int], batch: int) -> dict[str, int]:
    """Seconds of each game in a batch: by the square root of its streams, so that the others are not forgotten."""
    total = sum(count**0.5 for count in streams.values())
    return {name: max(1, round(batch * count**0.5 / total)) for name, count in streams.items()}


@dataclass(frozen=True, slots=True)
class Pool:
    """Seconds of a game: the frames of each recording, what they show, and the numbers of those with a rare fact.

    Frames stay where they are: hours of them in one tensor would be there twice for a while.
    """

    frames: tuple[Tensor, ...]
    want: Sights
    rare: Tensor

    @staticmethod
    def of(recordings: Sequence[Recording]) -> Pool:
        """All seconds of recordings with frames."""
        frames = tuple(r.frames for r in recordings if r.frames is not None)
        want = Sights.joined([sights(r.labels) for r in recordings])
        return Pool(frames, want, rare(want.facts))

    def draw(self, count: int) -> tuple[Tensor, Sights]:
        """Seconds at random, half of them with a rare fact where the game has such."""
        pick = torch.randint(len(self.want.cell), (count,))
        if len(self.rare):
            pick[: count // 2] = self.rare[torch.randint(len(self.rare), (count // 2,))]
        ends = torch.tensor([len(part) for part in self.frames]).cumsum(0)
        which = torch.searchsorted(ends, pick, right=True)
        starts = torch.cat([ends.new_zeros(1), ends])[which]
        shown = [self.frames[part][at] for part, at in zip(which.tolist(), (pick - starts).tolist(), strict=True)]
        return torch.stack(shown), self.want[pick]


def read(
    vision: Any, readers: nn.ModuleDict, batch: Batch, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
    """Mean loss over the games, and the share of right answers by game and by what is read."""
    with precise(dtype):
        tokens = tower.encode(vision, tower.patchify(torch.cat([frames for frames, _ in batch.values()])))
        parts = torch.split(tokens, [len(frames) for frames, _ in batch.values()])
        found = {name: readers[name](part, want) for part, (name, (_, want)) in zip(parts, batch.items(), strict=True)}
    loss = torch.stack([loss for loss, _ in found.values()]).mean()
    return loss, {name: right for name, (_, right) in found.items()}


@torch.no_grad()
def check(model: Any, readers: nn.ModuleDict, recording: Recording) -> dict[str, Tensor]:
    """Share of right answers on a recording."""
    assert recording.frames is not None
    batch = {recording.name: (recording.frames, sights(recording.labels))}
    return read(model.model.visual, readers, batch)[1][recording.name]


def _show(right: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in right.items() if not value.isnan())


def _brief(right: Mapping[str, Mapping[str, Tensor]]) -> str:
    """The mean over all that is read of a game."""
    return _show({name: torch.stack(list(part.values())).nanmean() for name, part in right.items()})


@torch.no_grad()
def encode(model: Any, recording: Recording, chunk: int = 128) -> Recording:
    """The recording with features in place of frames."""
    assert recording.frames is not None
    parts = [
        tower.encode(model.model.visual, tower.patchify(frames)).bfloat16()
        for frames in torch.split(recording.frames, chunk)
    ]
    return replace(recording, frames=None, features=torch.cat(parts))
