"""Tiny stages of training on real clips, for the tests of training.

Run as a program it is ``streamingvlm train`` that also notes which positions reached the rotary embedding, so that a
test can kill it or start several: ``python training.py STAGE.toml [KEY=VALUE ...] [--resume]``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamingvlm import cli
from streamingvlm.models.load import load_frontend
from streamingvlm.train import data, run, weights
from streamingvlm.train.config import TrainConfig, read_stage
from support.tiny import write_checkpoint
from support.train_data import clip, words, write_lines

TESTS = Path(__file__).parents[1]
#: Three frames a second: two temporal patches, at positions with thirds.
DEFAULTS: dict[str, Any] = {
    "fps": 3.0, "max_pixels": 6 * 28 * 28, "window": 3.0, "overlap": 1.0, "min_words": 3, "sink": 16, "text": 16,
    "global_batch": 4, "device_batch": 2, "max_steps": 6, "save_steps": 2, "eval_steps": 3, "workers": 0,
    "learning_rate": 1e-3, "bf16": False, "instruction": "Watch.",
}  # fmt: skip


def make_stage(folder: Path, family: str = "qwen2_5_vl", **keys: Any) -> Path:
    """A checkpoint, a clip of half a minute, its words, and the file of a stage that trains on them."""
    if not (folder / "base").exists():
        write_checkpoint(family, folder / "base")
        clip(folder / "clip.mp4", 30)
        record = {"video": "clip.mp4", "title": "a clip", "content": words(0, 20) + words(24, 30)}
        write_lines(folder / "train.jsonl", [record])
        write_lines(folder / "held.jsonl", [{**record, "title": "another", "content": words(10, 22)}])
    paths = {"model": folder / "base", "output": folder / "out", "video_root": folder}
    lists = {"data": [str(folder / "train.jsonl")], "eval_data": [str(folder / "held.jsonl")]}
    table = {**DEFAULTS, **{key: str(path) for key, path in paths.items()}, **lists, **keys}
    file = folder / "stage.toml"
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()))
    return file


def opened(file: Path, *overrides: str) -> tuple[TrainConfig, Any, Any]:
    """A stage, its chunks and what makes batches of them."""
    stage = read_stage(file, overrides)
    return stage, data.training_chunks(stage, load_frontend(stage.model)), data.collator_of(stage)


def train(file: Path, *arguments: str) -> Path:
    """``streamingvlm train`` in this process; the output's folder."""
    assert cli.main(["train", str(file), *arguments]) == 0
    return Path(read_stage(file, [text for text in arguments if not text.startswith("--")]).output)


def launch(file: Path, *arguments: str, processes: int = 1) -> subprocess.Popen[str]:
    """The same in processes of its own; several are started by torchrun."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [
        sys.executable,
        *(several if processes > 1 else []),
        str(TESTS / "support" / "training.py"),
        str(file),
        *arguments,
    ]
    paths = os.pathsep.join([str(TESTS), *sys.path])
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    )


def losses(output: Path) -> list[tuple[int, str, float]]:
    """All losses that a run has reported: step, name, value."""
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [(row["step"], name, row[name]) for row in log for name in ("loss", "eval_loss") if name in row]


@contextmanager
def positions_seen() -> Iterator[list[Tensor]]:
    """All positions (3, B, n) that reach the rotary embedding of a decoder, as they are there, while it is trained."""
    seen: list[Tensor] = []
    load = weights.load_weights

    def watched(stage: TrainConfig, *rest: Any) -> Any:
        model = load(stage, *rest)
        rotary = next(part for name, part in model.named_modules() if name.endswith("language_model.rotary_emb"))
        rotary.register_forward_pre_hook(lambda _, args: seen.append(args[1].clone()))
        return model

    run.load_weights = watched  # type: ignore[attr-defined]
    try:
        yield seen
    finally:
        run.load_weights = load  # type: ignore[attr-defined]


def check_positions(file: Path, seen: list[Tensor]) -> None:
    """Whether positions that reached a decoder are those of the chunks, to the last bit."""
    wanted: set[float] = set()
    for name in ("train.jsonl", "held.jsonl"):
        _, chunks, collate = opened(file, f"data={file.parent / name}")
        wanted |= {
            place for i in range(len(chunks)) for place in collate([chunks[i]])["position_ids"].unique().tolist()
        }
    found = torch.cat([part.flatten() for part in seen]).unique()
    assert found.dtype == torch.float32
    assert set(found.tolist()) <= wanted
    assert (found > 100).any()
    assert (found % 1 != 0).any()
    # In bf16 they would be other numbers.
    assert not set(found.bfloat16().float().tolist()) <= wanted


if __name__ == "__main__":
    torch.set_num_threads(1)
    with positions_seen() as seen:
        code = cli.main(["train", *sys.argv[1:]])
    output = read_stage(Path(sys.argv[1]), [text for text in sys.argv[2:] if not text.startswith("--")]).output
    torch.save(seen, Path(output) / f"positions-{os.environ.get('RANK', '0')}.pt")
    sys.exit(code)
