"""The bundled model as an ordinary Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from streamingvlm.models.checkpoint import write_streaming
from streamingvlm.models.patches import Patcher
from streamingvlm.train.weights import whole_folder

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
    "history_kv": "recompute",
    "max_new_tokens": 40,
    "temperature": 0,
    "repetition_penalty": 1.0,
    "system": "",
    "instruction": "",
    "min_pixels": PIXELS // 2,
    "max_pixels": PIXELS,
    "example_source": "arcade:pong?seed=9000500",
    # Chunks of training stand at times of up to 10 ** 5.5 s.
    "longest_time": 316_000,
}


def export(
    model: Any,
    tokenizer: Any,
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
    *,
    games: Sequence[str],
    training: Mapping[str, Any],
) -> None:
    """Save weights, configs and tokenizer of ``model`` under ``folder``, replacing what is there.

    ``games``: those that it was trained on: the checkpoint refuses others. ``training``: how the weights came about,
    for the model card; written to ``TRAINING``.
    """
    # The end of a turn ends a reply; plain greedy settings, so that nothing is warned about.
    small = deepcopy(model).to(dtype)
    small.generation_config.eos_token_id = [tokenizer.convert_tokens_to_ids(name) for name in SPECIAL[:3:2]]
    small.generation_config.pad_token_id = tokenizer.convert_tokens_to_ids(SPECIAL[0])
    small.generation_config.do_sample = False
    with whole_folder(folder) as draft:
        small.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        knows = [f"arcade:{game}" for game in games]
        write_streaming(draft, {**STREAMING, "knows": knows}, Patcher(min_pixels=PIXELS // 2, max_pixels=PIXELS))
        (draft / TRAINING).write_text(json.dumps(training, indent=2) + "\n")
