"""The baseline ``per-token-rotation``: decoding as the public code runs it (commit a940d8c).

For every token the positions of the whole text are counted afresh, and cosines and sines of all of them computed; in
every layer the sections of the three axes are put together, all raw keys of the stream are rotated and, like the
values, concatenated with the new one into new tensors and repeated for every query head; all behind transformers' own
layers, one operation after the other. The words are the same; what it costs is the point. It is treated kindly where
the two differ in more than that: positions are counted by this package's faster code, the head looks only at the last
token of a prefill, towers, eviction and sampling are the engine's, and nothing of transformers' ``generate`` runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor

from ..cache.batch import Batch
from ..cache.kv_pool import Evicted, Keep, KVPool, KVShape
from ..cache.rope import Rope
from ..core.positions import FloatArray, positions
from ..core.timeline import IntArray
from ..engine.request import TurnRequest
from ..engine.runner import Chosen, ModelRunner
from ..kernels.plain import CosSin, PlainKernels, rotate
from ..models.base import Model


class PerTokenRotation(KVPool):
    """A pool without a rotated view: raw keys and values per layer, (heads, rows, head_dim), of exactly the length."""

    def __init__(self, shape: KVShape, slots: int, rows: int, kernels: PlainKernels | None = None) -> None:
        super().__init__(shape, slots, rows, kernels)
        self.past: dict[int, list[CosSin]] = {}
        #: Slot -> cosine and sine (3, rows, head_dim) along the three axes.
        self.rotation: dict[int, CosSin] = {}
        self.sections: list[tuple[int, int, int]] = []

    def _allocate(self, rows: int) -> Tensor:  # noqa: ARG002
        return super()._allocate(0)  # nothing ahead of time: the public code has no preallocated cache

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values that are held now."""
        return sum(part.nbytes for layers in self.past.values() for pair in layers for part in pair)

    def acquire(self) -> int:
        """See :meth:`KVPool.acquire`."""
        slot = super().acquire()
        empty = torch.zeros(self.shape.heads, 0, self.shape.head_dim, dtype=self.shape.dtype, device=self.shape.device)
        self.past[slot] = [(empty, empty)] * self.shape.layers
        return slot

    def number(self, slot: int, numbers: FloatArray, rope: Rope) -> None:
        """Cosines and sines of all positions ``numbers`` (3, rows) of a slot, the rows about to come included."""
        angles = torch.from_numpy(numbers.copy()).to(self.shape.device)[..., None] * rope.inverse_frequencies
        angles = torch.cat([angles, angles], dim=-1)
        self.rotation[slot] = (angles.cos() * rope.scaling, angles.sin() * rope.scaling)
        self.sections = self.sections or sections(rope)

    def release(self, slot: int) -> None:
        """See :meth:`KVPool.release`."""
        super().release(slot)
        del self.past[slot]
        self.rotation.pop(slot, None)

    def select(
        self, slot: int, rows: IntArray, rotation: CosSin, rewritten: range = range(0), keep: Keep | None = None
    ) -> None:
        """See :meth:`KVPool.select`: the same gather; the rotation is left to every token to come."""
        assert rotation[0].shape[0] == len(rows), "one rotation per row"
        if keep is not None:
            keep(self._evicted(slot, rows, rewritten))
        index = torch.from_numpy(rows).to(self.shape.device)
        self.past[slot] = [(keys[:, index], values[:, index]) for keys, values in self.past[slot]]
        self.length[slot] = len(rows)

    def _evicted(self, slot: int, rows: IntArray, rewritten: range) -> Evicted:  # noqa: ARG002
        keys, values = (torch.stack(states) for states in zip(*self.past[slot], strict=True))
        return Evicted(self.length[slot], 0, np.arange(self.length[slot]), keys, values)

    def put_back(self, slot: int, evicted: Evicted, rotation: CosSin) -> None:  # noqa: ARG002
        """See :meth:`KVPool.put_back`."""
        self.past[slot] = list(zip(evicted.keys, evicted.values, strict=True))
        self.length[slot] = evicted.length

    def rewind(self, slot: int, length: int) -> None:
        """See :meth:`KVPool.rewind`."""
        self.past[slot] = [(keys[:, :length], values[:, :length]) for keys, values in self.past[slot]]
        self.length[slot] = length


class PerTokenBatch(Batch):
    """A forward pass that concatenates new rows with all that there are, and rotates all keys for every token."""

    pool: PerTokenRotation

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """See :meth:`Batch.store`."""
        for part in self.segments:
            new = slice(part.first, part.last)
            past = self.pool.past[part.slot]
            past_keys, past_values = past[layer]
            past[layer] = (
                _put(past_keys, keys[new].transpose(0, 1), part.at),
                _put(past_values, values[new].transpose(0, 1), part.at),
            )

    def attend(self, layer: int, queries: Tensor, scaling: float) -> Tensor:
        """See :meth:`Batch.attend`."""
        plain, out = PlainKernels(), torch.zeros_like(queries)
        queries = rotate(queries, *(part[:, None] for part in self.rotation))
        for number, part in enumerate(self.segments):
            rows = self.rows_before[number] + part.last - part.first
            keys, values = (states[:, :rows] for states in self.pool.past[part.slot][layer])
            cos, sin = (self._put_together(table[:, :rows]) for table in self.pool.rotation[part.slot])
            group = queries.shape[1] // self.pool.shape.heads
            keys, values = (_repeat(states, group) for states in (_rotate(keys, cos, sin), values))
            there = slice(part.first, part.last)
            mask = plain.mask(self.rows_before[number], len(part), queries.device)
            out[there] = plain.attend_prefill(queries[there], keys, values, mask, scaling)
        return out

    def _put_together(self, table: Tensor) -> Tensor:
        """(rows, head_dim) of (3, rows, head_dim): each frequency from its axis."""
        return torch.cat([table[axis, :, low:high] for axis, low, high in self.pool.sections], dim=-1)


class PerTokenRotationRunner(ModelRunner):
    """A runner that numbers and rotates the whole stream for every token; for contiguous positions."""

    batch_class = PerTokenBatch
    pool: PerTokenRotation

    def prefill(self, requests: Sequence[TurnRequest]) -> list[Tensor | None]:
        """See :meth:`ModelRunner.prefill`."""
        self._number(requests)
        return super().prefill(requests)

    def decode(self, requests: Sequence[TurnRequest]) -> list[Chosen]:
        """See :meth:`ModelRunner.decode`."""
        self._number(requests)
        return super().decode(requests)

    def _number(self, requests: Sequence[TurnRequest]) -> None:
        for request in requests:
            numbers = positions(request.stream.state.timeline.spans, self.model.tokens_per_second)
            self.pool.number(request.stream.slot, numbers, self.model.rope)


def _put(past: Tensor, new: Tensor, at: int | None) -> Tensor:
    """``new`` rows (heads, n, d) in the place of those from ``at`` on, or behind all."""
    if at is None:
        return torch.cat([past, new], dim=1)
    return torch.cat([past[:, :at], new, past[:, at + new.shape[1] :]], dim=1)


def sections(rope: Rope) -> list[tuple[int, int, int]]:
    """Runs of dimensions of a head that follow one axis: axis, first, behind the last."""
    axes = [*rope.axes.tolist(), *rope.axes.tolist()]
    starts = [i for i, axis in enumerate(axes) if i == 0 or axes[i - 1] != axis]
    return [(axes[low], low, high) for low, high in zip(starts, [*starts[1:], len(axes)], strict=True)]


def with_reference_layers(model: Model) -> Model:
    """The same weights behind transformers' own decoder layers, which are what the public code runs."""
    stock = copy(model)
    stock.use_reference_layers = True
    return stock


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As stock transformers writes it: a copy with the halves swapped, two products, a sum."""
    first, second = states.chunk(2, dim=-1)
    swapped = torch.cat([-second, first], dim=-1)
    return states * cos.to(states.dtype) + swapped * sin.to(states.dtype)


def _repeat(states: Tensor, group: int) -> Tensor:
    """Keys or values (heads, rows, d) for every query head, in new memory."""
    heads, rows, dim = states.shape
    return states[:, None].expand(heads, group, rows, dim).reshape(heads * group, rows, dim)
