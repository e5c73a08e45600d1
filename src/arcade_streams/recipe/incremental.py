"""The decoder with a cache, for many streams in lockstep: what the engine does, batched for rollouts in training.

Keys are kept raw and rotated by the positions that hold after eviction. A test compares the words with the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streamingvlm.core.timeline import IntArray
from streamingvlm.kernels.plain import rotate

#: What a masked key gets added to its score.
_NEVER = torch.finfo(torch.float32).min


class LockstepCache:
    """Raw keys and values (layers, streams, kv heads, rows, head_dim) of streams that step together."""

    def __init__(self, model: Any, streams: int, rows: int) -> None:
        text = model.config.text_config
        self.layers = model.model.language_model.layers
        self.norm = model.model.language_model.norm
        self.rotary = model.model.language_model.rotary_emb
        self.head_dim = text.hidden_size // text.num_attention_heads
        # One row more, for what is fed to no end.
        shape = (text.num_hidden_layers, streams, text.num_key_value_heads, rows + 1, self.head_dim)
        self.keys = torch.zeros(shape)
        self.values = torch.zeros(shape)
        self.view = torch.zeros(shape)
        self.length = torch.zeros(streams, dtype=torch.long)

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (streams, 1, n, head_dim) of positions (3, streams, n)."""
        cos, sin = self.rotary(self.keys, positions)
        return cos[:, None], sin[:, None]

    def select(self, rows: Sequence[IntArray], positions: Tensor) -> None:
        """Keep ``rows`` of each stream, in that order; ``positions`` (3, streams, longest) are theirs from now on."""
        longest = positions.shape[2]
        for stream, kept in enumerate(rows):
            # An eviction leaves most rows in front where they are: only those behind the first that moves are copied.
            apart = np.flatnonzero(kept != np.arange(len(kept)))
            moved = int(apart[0]) if len(apart) else len(kept)
            index = torch.from_numpy(kept[moved:])
            for store in (self.keys, self.values):
                store[:, stream, :, moved : len(kept)] = store[:, stream].index_select(2, index)
        cos, sin = self.rotation(positions)
        rotate(self.keys[..., :longest, :], cos, sin, out=self.view[..., :longest, :])
        self.length = torch.tensor([len(kept) for kept in rows])

    def forward(self, embeds: Tensor, positions: Tensor, counts: Tensor, at: Tensor | None = None) -> Tensor:
        """Run new ids (streams, n, hidden), of which the first ``counts`` of each stream are real.

        ``at``: the first of the rows (streams,) that they are written to, in the place of what is there, and behind
        which they see nothing (None: behind all rows). Returns the last hidden state (streams, hidden) of each
        stream's last real id.
        """
        streams, new, _ = embeds.shape
        rotation = self.rotation(positions)
        first = self.length if at is None else at
        reach = int(first.max()) + new
        target = first[:, None] + torch.arange(new)
        # A padded id writes where nothing is looked at before it is overwritten.
        target = target.where(torch.arange(new) < counts[:, None], self.keys.shape[3] - 1)
        mask = torch.zeros(streams, 1, new, reach).masked_fill_(
            (torch.arange(reach) > target[..., None])[:, None], _NEVER
        )
        x = embeds
        for number, layer in enumerate(self.layers):
            x = x + self._attend(number, layer.self_attn, layer.input_layernorm(x), rotation, target, mask)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        self.length = self.length + counts if at is None else self.length
        last: Tensor = self.norm(x[torch.arange(streams), (counts - 1).clamp(min=0)])
        return last

    def _attend(
        self, number: int, attn: Any, x: Tensor, rotation: tuple[Tensor, Tensor], target: Tensor, mask: Tensor
    ) -> Tensor:
        streams, new, _ = x.shape
        query, key, value = (
            proj(x).view(streams, new, -1, self.head_dim).transpose(1, 2)
            for proj in (attn.q_proj, attn.k_proj, attn.v_proj)
        )
        query, rotated = rotate(query, *rotation), rotate(key, *rotation)
        who = torch.arange(streams)[:, None]
        for store, rows in ((self.keys, key), (self.view, rotated), (self.values, value)):
            # Advanced indices on both sides of a slice put their axes in front: (streams, new, heads, d).
            store[number][who, :, target] = rows.transpose(1, 2).to(store.dtype)
        reach = mask.shape[-1]
        out = F.scaled_dot_product_attention(
            query.float(),
            self.view[number, :, :, :reach],
            self.values[number, :, :, :reach],
            attn_mask=mask,
            enable_gqa=True,
        )
        mixed: Tensor = attn.o_proj(out.transpose(1, 2).reshape(streams, new, -1).to(x.dtype))
        return mixed
