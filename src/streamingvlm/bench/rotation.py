"""The baseline ``per-token-rotation``: the cache as the public code runs it.

For every token all raw keys of a stream are rotated afresh and, like the values, concatenated with the new one into
new tensors, behind transformers' own layers. The words are the same; what it costs is the point. Two things are kinder
to it than the public code: cosines and sines are kept between tokens, and attention runs through the same fused call
as the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from ..kv import Batch, CosSin, KVPool, KVShape, attend
from ..models import Model


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

    def store(self, layer: int, batch: Batch, keys: Tensor, values: Tensor) -> None:
        """See :meth:`KVPool.store`: the new rows are concatenated with all that there are."""
        for part in batch.parts:
            new = slice(part.first, part.last)
            if layer == 0:
                cos, sin = self._rotation[part.slot]
                self._rotation[part.slot] = (
                    torch.cat([cos, batch.rotation[0][new]]),
                    torch.cat([sin, batch.rotation[1][new]]),
                )
            past_keys, past_values = self._past[part.slot][layer]
            self._past[part.slot][layer] = (
                torch.cat([past_keys, keys[new].transpose(0, 1)], dim=1),
                torch.cat([past_values, values[new].transpose(0, 1)], dim=1),
            )

    def attend(self, layer: int, batch: Batch, queries: Tensor, scaling: float, *, ends: bool = False) -> Tensor:
        """See :meth:`KVPool.attend`: all keys of a stream are rotated, for every token."""
        out = torch.zeros_like(queries)
        for number, part in enumerate(batch.parts):
            keys, values = self._past[part.slot][layer]
            place = slice(number, number + 1) if ends or batch.single else slice(part.first, part.last)
            mask = None if ends or batch.single else batch.masks[number]
            out[place] = attend(queries[place], _rotate(keys, *self._rotation[part.slot]), values, mask, scaling)
        return out


def with_stock_layers(model: Model) -> Model:
    """The same weights behind transformers' own decoder layers, which are what the public code runs."""
    stock = copy(model)
    stock.stock = True
    return stock


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As stock transformers writes it: a copy with the halves swapped, two products, a sum."""
    first, second = states.chunk(2, dim=-1)
    swapped = torch.cat([-second, first], dim=-1)
    return states * cos.to(states.dtype) + swapped * sin.to(states.dtype)
