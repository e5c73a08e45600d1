"""Which weights a model has, whatever the folder is called that they came from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

#: Numbers of a tensor that are looked at: all of a small one, of others so many, evenly apart.
SAMPLES = 1 << 16
#: What the configs of the text and of the tower say that changes what the same tensors compute. The rest of a config is
#: sizes, which tensors have, or what a library writes on its own.
FACTS = (
    *("hidden_act", "rms_norm_eps", "num_attention_heads", "num_key_value_heads", "num_heads", "rope_parameters"),
    *("patch_size", "temporal_patch_size", "spatial_merge_size", "window_size", "fullatt_block_indexes"),
    *("tokens_per_second", "deepstack_visual_indexes"),
)


def fingerprint(hf: Any) -> str:
    """SHA-256 of a transformers model: its tensors' names, shapes and sampled bytes, and :data:`FACTS`; hexadecimal.

    Weights that were trained on differ nearly everywhere, so that samples tell them apart; one number that was changed
    by hand in a large tensor may be missed. The dtype counts: the same weights rounded are others.
    """
    digest = hashlib.sha256()
    for config in (hf.config.text_config, hf.config.vision_config):
        facts = {name: getattr(config, name, None) for name in FACTS}
        digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, tensor in sorted(hf.named_parameters()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_sampled(tensor.detach()))
    return digest.hexdigest()


def _sampled(tensor: Tensor) -> bytes:
    flat = tensor.reshape(-1)
    step = max(len(flat) // SAMPLES, 1)
    return flat[::step].contiguous().cpu().view(torch.uint8).numpy().tobytes()
