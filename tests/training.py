"""Tiny checkpoints, and chunks in the form that the collator gives them, for the tests of training.

Run as a program it trains a stage on them, as a process that can be killed or be one of several:
``python training.py STAGE.toml [--resume] [KEY=VALUE ...]``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamingvlm.events import Chunk
from streamingvlm.models import Frontend, load_frontend
from streamingvlm.rope import positions
from streamingvlm.spans import Kind
from streamingvlm.train import run, weights
from streamingvlm.train.config import Stage, read_stage
from test_models import write_checkpoint

__all__ = ["MadeUp", "collate", "positions_seen", "train_made_up", "write_checkpoint"]

WORDS = ["", "red serves", "a long rally", "blue scores now"]


class MadeUp:
    """``count`` chunks of random pictures and words, of different lengths: the contract of ``ChunkDataset``."""

    def __init__(self, front: Frontend, count: int, *, seed: int = 0, first_weight: float = 1.0) -> None:
        self.front, self.count, self.seed, self.first_weight = front, count, seed, first_weight

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        front, random = self.front, np.random.default_rng((self.seed, index))
        spans = front.grammar.preamble(" and then" * int(random.integers(1, 9)), "Watch.")
        patches = []
        labels = [-100] * sum(map(len, spans))
        for turn in range(2 + index % 3):
            frames = random.integers(0, 256, (4, 56, 84, 3), dtype=np.uint8)
            chunk = Chunk(frames, tuple(turn + i / 4 for i in range(4)), turn, turn + 1)
            patches.append(front.patcher(chunk))
            times = front.patcher.times(chunk.times)
            new = [front.grammar.separator(turn - 1)] if turn else []
            new += front.grammar.turn(turn, turn, turn + 1, patches[-1].merged, patch_seconds=0.375, times=times)
            reply = front.grammar.reply(WORDS[int(random.integers(4))])
            labels += [-100] * sum(map(len, new)) + list(reply)
            spans += [*new, front.grammar.commentary(turn, turn, turn + 1, reply)]
        assert any(span.kind is Kind.VISION for span in spans)
        ids = torch.tensor([token for span in spans for token in span.tokens])
        targets = torch.tensor(labels)
        weights = (targets != -100).float()
        weights[targets == front.grammar.opening[0]] *= self.first_weight
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": targets,
            "loss_weights": weights,
            "position_ids": torch.from_numpy(positions(spans, front.tokens_per_second)),
            "pixel_values_videos": torch.cat([part.pixels for part in patches]),
            "video_grid_thw": torch.tensor([part.grid for part in patches]),
        }


def collate(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Right-padded; see the contract in ``ChunkTrainer``."""
    longest = max(len(e["input_ids"]) for e in examples)

    def pad(name: str, value: float) -> Tensor:
        parts = (torch.nn.functional.pad(e[name], (0, longest - e[name].shape[-1]), value=value) for e in examples)
        return torch.stack(list(parts))

    return {
        "input_ids": pad("input_ids", 0),
        "attention_mask": pad("attention_mask", 0),
        "position_ids": pad("position_ids", 0.0).transpose(0, 1).contiguous(),
        "labels": pad("labels", -100),
        "loss_weights": pad("loss_weights", 0.0),
        "pixel_values_videos": torch.cat([e["pixel_values_videos"] for e in examples]),
        "video_grid_thw": torch.cat([e["video_grid_thw"] for e in examples]),
    }


def train_made_up(stage: Stage, *, count: int = 24, resume: bool = False) -> Path:
    """Train a stage on made-up chunks, with five held out."""
    front = load_frontend(stage.model)
    held_out: Any = MadeUp(front, 5, seed=1)
    return run.train(stage, front, MadeUp(front, count), held_out, collate, resume=resume)


@contextmanager
def positions_seen() -> Iterator[list[Tensor]]:
    """All positions that reach the rotary embedding of a decoder, as they do, while models are trained."""
    seen: list[Tensor] = []
    load = weights.load_weights

    def watched(stage: Stage, *rest: Any) -> Any:
        model = load(stage, *rest)
        rotary = next(part for name, part in model.named_modules() if name.endswith("language_model.rotary_emb"))
        rotary.register_forward_pre_hook(lambda _, args: seen.append(args[1].clone()))
        return model

    run.load_weights = watched  # type: ignore[attr-defined]
    try:
        yield seen
    finally:
        run.load_weights = load  # type: ignore[attr-defined]


if __name__ == "__main__":
    torch.set_num_threads(1)
    overrides = [text for text in sys.argv[2:] if not text.startswith("--")]
    with positions_seen() as seen:
        folder = train_made_up(read_stage(Path(sys.argv[1]), overrides), resume="--resume" in sys.argv)
    rank = os.environ.get("RANK", "0")
    torch.save(seen, folder.parent / f"positions-{rank}.pt")
