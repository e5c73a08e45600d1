"""Writes an ordinary Hugging Face folder, file by file into place, so that a reader never sees half of one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from ...models.patches import CLIP_MEAN, CLIP_STD
from .shape import PIXELS
from .tokens import SPECIAL

#: The file of a checkpoint that says how it was trained.
TRAINING = "training.json"

#: How the checkpoint likes to be run; the engine reads it from generation_config.json.
STREAMING: dict[str, Any] = {
    "vision": 16,
    "turns": 16,
    "sink": 96,
    "text": 256,
    "max_new_tokens": 40,
    "temperature": 0,
    "repetition_penalty": 1.0,
    "system": "",
    "instruction": "",
    "min_pixels": PIXELS // 2,
    "max_pixels": PIXELS,
}


def export(
    model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype = torch.bfloat16, *, training: Mapping[str, Any]
) -> None:
    """Save weights, configs and tokenizer of ``model`` under ``folder``, replacing what is there.

    ``training``: how the weights came about, for the model card; written to ``TRAINING``.
    """
    draft = folder.with_name(folder.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    # The end of a turn ends a reply; plain greedy settings, so that nothing is warned about.
    small = deepcopy(model).to(dtype)
    small.generation_config.eos_token_id = [tokenizer.convert_tokens_to_ids(name) for name in SPECIAL[:3:2]]
    small.generation_config.pad_token_id = tokenizer.convert_tokens_to_ids(SPECIAL[0])
    small.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    _write(draft / "preprocessor_config.json", _preprocessor())
    _write(draft / TRAINING, training)
    generation = json.loads((draft / "generation_config.json").read_text())
    _write(draft / "generation_config.json", {**generation, "do_sample": False, "streaming": STREAMING})
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(draft.iterdir()):
        path.chmod(0o644)
        path.replace(folder / path.name)
    draft.rmdir()


def _preprocessor() -> dict[str, Any]:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": PIXELS // 2,
        "max_pixels": PIXELS,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
    }


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
