"""Pretraining of the vision tower on labels read from the game's memory; afterwards it is frozen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from . import tower
from .optim import Optimizer
from .record import Recording

#: Pixels of the 210 x 160 screen that one token covers (height, width), and how fine places are told apart.
CELL = (210 / tower.GRID[1], 160 / tower.GRID[2])
FINE = 2.0
BINS = (int(np.ceil(CELL[0] / FINE)), int(np.ceil(CELL[1] / FINE)))
#: Pixels of a token's height (bins of a paddle's top edge inside it), and the columns of (green, orange).
PADDLE_BINS, PADDLE_COLUMNS = 35, (tower.GRID[2] - 1, 0)
SCORES = 6
#: Pixels of a bin in which the ball of the other frame is told.
COARSE, COARSE_BINS = 12, 18


@dataclass(frozen=True, slots=True)
class Sights:
    """Targets of b seconds, all int64. ``cell`` (b, 2): token with the ball, TOKENS for none. ``place`` (b, 2, 2):
    bin of the ball's middle inside its cell. ``other`` (b, 2, 2): where the ball of the other frame is, -1 for
    unknown. ``motion`` (b, 2, 2): 0, 1, 2 for -1, 0, 1; places and motions are (down, right). ``paddles`` (b, 2, 2):
    top edges, ``scores`` (b, 2, 2): both (frame, green/orange). ``drift`` (b, 2): a paddle's movement between the
    two frames, 0, 1, 2 for up, none, down."""

    cell: Tensor
    place: Tensor
    other: Tensor
    motion: Tensor
    paddles: Tensor
    scores: Tensor
    drift: Tensor


def sights(labels: NDArray[np.int16]) -> Sights:
    """Targets of label rows (b, 2, fields)."""
    x = torch.from_numpy(labels.astype(np.int64))
    left, top = x[..., 0].float() + 1, x[..., 1].float() + 2
    seen = x[..., 0] >= 0
    row = (top / CELL[0]).long().clamp(0, tower.GRID[1] - 1)
    column = (left / CELL[1]).long().clamp(0, tower.GRID[2] - 1)
    inside = torch.stack([(top - row * CELL[0]) / FINE, (left - column * CELL[1]) / FINE], dim=-1).long()
    paddles = x[..., 4:6].clamp(0, 209)
    other = torch.stack([top, left], dim=-1).flip(1) // COARSE
    return Sights(
        cell=torch.where(seen, row * tower.GRID[2] + column, tower.TOKENS),
        place=torch.minimum(inside.clamp(min=0), torch.tensor([BINS[0] - 1, BINS[1] - 1])),
        other=torch.where(seen.flip(1)[..., None], other.long().clamp(0, COARSE_BINS - 1), -1),
        motion=x[..., 2:4].flip(-1) + 1,
        paddles=paddles,
        scores=x[..., 6:8].clamp(0, SCORES - 1),
        drift=(paddles[:, 1] - paddles[:, 0]).sign() + 1,
    )


Answers = dict[str, tuple[Tensor, Tensor]]
#: Classes read from a ball's own token: place (y, x), the other frame's ball (y, x), motion (y, x).
_LOCAL = [*BINS, COARSE_BINS, COARSE_BINS, 3, 3]


class Reader(nn.Module):
    """Throw-away heads that read the sights from the tower's tokens (b, TOKENS, hidden)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.here = nn.Linear(hidden, 2)
        self.none = nn.Linear(hidden, 2)
        self.local = nn.Linear(hidden, 2 * sum(_LOCAL))
        self.paddle = nn.ModuleList(nn.Linear(hidden, 2 + 2 * PADDLE_BINS + 3) for _ in PADDLE_COLUMNS)
        self.scores = nn.Linear(hidden * tower.GRID[2], 2 * 2 * SCORES)

    def forward(self, tokens: Tensor, want: Sights) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the sights' mean losses, and the share of right answers by sight."""
        answers = self._ball(tokens, want)
        for side in range(2):
            answers |= self._paddles(tokens, want, side)
        scores = self.scores(tokens[:, : tower.GRID[2]].flatten(1))
        answers["scores"] = (scores.reshape(-1, SCORES), want.scores.flatten())
        losses = [F.cross_entropy(guess.float(), truth, ignore_index=-1) for guess, truth in answers.values()]
        right = {
            name: (guess.argmax(-1) == truth)[truth >= 0].float().mean() for name, (guess, truth) in answers.items()
        }
        return torch.stack(losses).sum(), right

    def _ball(self, tokens: Tensor, want: Sights) -> Answers:
        none = self.none(tokens.mean(1))[..., None]
        cells = torch.cat([self.here(tokens).transpose(1, 2), none], dim=-1).flatten(0, 1)
        seen = (want.cell < tower.TOKENS).flatten()
        spot = want.cell.clamp(max=tower.TOKENS - 1)
        # Each frame's ball is read from the token where it is.
        local = self.local(tokens[torch.arange(len(tokens))[:, None], spot]).unflatten(-1, (2, -1))
        local = torch.stack([local[:, 0, 0], local[:, 1, 1]], dim=1).flatten(0, 1)[seen]
        parts = torch.split(local, _LOCAL, dim=-1)
        answers = {"cell": (cells, want.cell.flatten())}
        for i, axis in enumerate(("y", "x")):
            answers[axis] = (parts[i], want.place.flatten(0, 1)[seen, i])
            answers["other " + axis] = (parts[2 + i], want.other.flatten(0, 1)[seen, i])
            answers["motion " + axis] = (parts[4 + i], want.motion.flatten(0, 1)[seen, i])
        return answers

    def _paddles(self, tokens: Tensor, want: Sights, side: int) -> Answers:
        column = tokens.view(len(tokens), tower.GRID[1], tower.GRID[2], -1)[:, :, PADDLE_COLUMNS[side]]
        logits = self.paddle[side](column)
        top = want.paddles[:, :, side]
        row = (top // PADDLE_BINS).clamp(0, tower.GRID[1] - 1)
        answers = {f"paddle {side}": (logits[..., :2].transpose(1, 2).flatten(0, 1), row.flatten())}
        who = torch.arange(len(tokens))
        for frame in range(2):
            bins = logits[who, row[:, frame], 2 + frame * PADDLE_BINS : 2 + (frame + 1) * PADDLE_BINS]
            answers[f"edge {side}{frame}"] = (bins, top[:, frame] % PADDLE_BINS)
        answers[f"drift {side}"] = (logits[who, row[:, 1], -3:], want.drift[:, side])
        return answers


def pretrain(
    model: Any,
    recordings: Sequence[Recording],
    *,
    minutes: float,
    batch: int = 32,
    rate: float = 2e-3,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> Reader:
    """Train the tower for that long; the last recording is kept apart to measure. Returns the heads."""
    torch.manual_seed(seed)
    vision = model.model.visual
    frames, want = _gather(recordings[:-1])
    held = recordings[-1]
    reader = Reader(model.config.text_config.hidden_size)
    optimizer = Optimizer.make([*vision.named_parameters(), *reader.named_parameters()])
    began, step, shown = time.monotonic(), 0, 0.0
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        warm = min(1.0, (step + 1) / 50)
        pace = rate * warm * (0.5 + 0.5 * float(np.cos(np.pi * share)))
        pick = torch.randint(len(frames), (batch,))
        loss, right = _read(vision, reader, frames[pick], Sights(*(getattr(want, f)[pick] for f in _FIELDS)))
        optimizer.step(loss, pace)
        step += 1
        if time.monotonic() - shown > 20:
            shown = time.monotonic()
            log(f"vision {step} {share:.2f} loss {loss.item():.3f} {_show(right)}")
    log(f"vision held out: {_show(check(model, reader, held))}")
    return reader


_FIELDS = ("cell", "place", "other", "motion", "paddles", "scores", "drift")


def _gather(recordings: Sequence[Recording]) -> tuple[Tensor, Sights]:
    frames = torch.cat([r.frames for r in recordings if r.frames is not None])
    return frames, sights(np.concatenate([r.labels for r in recordings]))


def _read(vision: Any, reader: Reader, frames: Tensor, want: Sights) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.autocast("cpu", torch.bfloat16):
        tokens = tower.encode(vision, tower.patchify(frames))
        result: tuple[Tensor, dict[str, Tensor]] = reader(tokens, want)
    return result


@torch.no_grad()
def check(model: Any, reader: Reader, recording: Recording) -> dict[str, Tensor]:
    """Share of right answers on a recording."""
    assert recording.frames is not None
    return _read(model.model.visual, reader, recording.frames, sights(recording.labels))[1]


def _show(right: dict[str, Tensor]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in right.items())


@torch.no_grad()
def encode(model: Any, recording: Recording, chunk: int = 128) -> Recording:
    """The recording with features in place of frames."""
    assert recording.frames is not None
    with torch.autocast("cpu", torch.bfloat16):
        parts = [
            tower.encode(model.model.visual, tower.patchify(frames)).bfloat16()
            for frames in torch.split(recording.frames, chunk)
        ]
    return Recording(recording.seed, recording.context, None, torch.cat(parts), recording.labels, recording.events)
