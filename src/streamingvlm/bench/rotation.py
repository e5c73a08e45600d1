"""The baseline ``per-token-rotation``: the cache as the public code runs it.

For every token all raw keys of a stream are rotated afresh and, like the values, concatenated with the new one into
new tensors. The words are the same; what it costs is the point. Two things are kinder to it than the public code:
cosines and sines are kept between tokens, and attention runs through the same fused call as the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kv import Batch, CosSin, KVPool, KVShape


class PerTokenRotation(KVPool):
    """A pool without a rotated view: raw keys and values per layer, (heads, rows, head_dim), of exactly the length."""

    def __init__(self, shape: KVShape, slots: int, rows: int) -> None:
        super().__init__(shape, slots, rows)
        self._past: dict[int, list[CosSin]] = {}
        self._rotation: dict[int, CosSin] = {}

    def _allocate(self, rows: int) -> Tensor:  # noqa: ARG002
        return super()._allocate(0)  # nothing ahead of time: the public code has no preallocated cache

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values that are held now."""
        return sum(part.nbytes for layers in self._past.values() for pair in layers for part in pair)

    def acquire(self) -> int:
        """See :meth:`KVPool.acquire`."""
        slot = super().acquire()
        empty = torch.zeros(self.shape.heads, 0, self.shape.head_dim, dtype=self.shape.dtype, device=self.shape.device)
        self._past[slot] = [(empty, empty)] * self.shape.layers
        nothing = torch.zeros(0, self.shape.head_dim, device=self.shape.device)
        self._rotation[slot] = (nothing, nothing)
        return slot

    def release(self, slot: int) -> None:
        """See :meth:`KVPool.release`."""
        super().release(slot)
        del self._past[slot], self._rotation[slot]

    def select(self, slot: int, rows: Sequence[int], rotation: CosSin) -> None:
        """See :meth:`KVPool.select`: the same gather; the rotation is only written down, for every token to come."""
        assert rotation[0].shape[0] == len(rows), "one rotation per row"
        index = torch.tensor(rows, device=self.shape.device, dtype=torch.long)
        self._past[slot] = [(keys[:, index], values[:, index]) for keys, values in self._past[slot]]
        self._rotation[slot] = rotation
        self.length[slot] = len(rows)

    def attend(self, layer: int, batch: Batch, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """See :meth:`KVPool.attend`."""
        cos, sin = (part[:, None] for part in batch.rotation)
        query = _rotate(query, cos, sin)
        out = torch.zeros_like(query)
        for row, slot in enumerate(batch.slots):
            if layer == 0:
                held, new = self._rotation[slot], (batch.rotation[0][row], batch.rotation[1][row])
                self._rotation[slot] = (torch.cat([held[0], new[0]]), torch.cat([held[1], new[1]]))
            keys, values = self._past[slot][layer]
            keys, values = torch.cat([keys, key[row]], dim=1), torch.cat([values, value[row]], dim=1)
            self._past[slot][layer] = (keys, values)
            out[row] = F.scaled_dot_product_attention(
                query[row : row + 1],
                _rotate(keys, *self._rotation[slot])[None],
                values[None],
                attn_mask=batch.mask,
                is_causal=batch.mask is None and query.shape[2] > 1,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )[0]
        return out.transpose(1, 2)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As stock transformers writes it: a copy with the halves swapped, two products, a sum."""
    first, second = states.chunk(2, dim=-1)
    swapped = torch.cat([-second, first], dim=-1)
    return states * cos.to(states.dtype) + swapped * sin.to(states.dtype)
