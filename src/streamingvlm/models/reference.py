"""Stock transformers over a whole sequence at once: what the cache is checked against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ModelError
from ..core.positions import FloatArray
from .base import Model


@torch.inference_mode()
def reference_forward(model: Model, embeds: Tensor, positions: FloatArray, features: Sequence[Tensor] = ()) -> Tensor:
    """Last hidden states (n, hidden) of one plain causal forward over embeddings (n, hidden) at ``positions`` (3, n).

    ``features``: per layer (n, hidden), added behind it (zeros where nothing is), for families with deepstack features.
    Nothing of this package runs in it: transformers rotates, masks and attends by itself. :class:`ModelError` for a
    model that is not made of transformers' layers.
    """
    hf: Any = getattr(model, "hf", None)
    if hf is None:
        raise ModelError(f"{model.name} is not made of transformers' layers; there is nothing to compare it with")
    model.check_reference_layers()
    more: dict[str, Any] = {}
    if features:
        everywhere = torch.ones(1, len(embeds), dtype=torch.bool, device=embeds.device)
        more = {"visual_pos_masks": everywhere, "deepstack_visual_embeds": list(features)}
    text = hf.config.text_config
    ours, text._attn_implementation = text._attn_implementation, "sdpa"
    try:
        out = hf.model.language_model(
            inputs_embeds=embeds[None],
            position_ids=torch.from_numpy(positions.copy()).to(embeds.device)[:, None],
            use_cache=False,
            **more,
        )
    finally:
        text._attn_implementation = ours
    hidden: Tensor = out.last_hidden_state[0]
    return hidden
