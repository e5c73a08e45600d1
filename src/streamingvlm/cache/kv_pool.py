"""Raw keys, values and the rotated view of the keys, in preallocated slots x rows; and attention against them.

Keys are stored before rotation (paper section 2.2). When rows move, the rotated view is rebuilt from the raw keys
once; attention rotates only queries. Nothing is ever rotated in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.errors import CapacityError
from ..core.timeline import IntArray
from ..kernels.plain import CosSin, PlainKernels, Stores, upload


@dataclass(frozen=True, slots=True)
class KVShape:
    """What one token costs: layers, key/value heads, dimensions of a head, and where and how they are kept."""

    layers: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one row: value, raw key and rotated key in every layer."""
        return 3 * self.layers * self.heads * self.head_dim * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Evicted:
    """What a selection takes from a slot, so that :meth:`KVPool.put_back` can undo it.

    ``length``: rows of the slot before; ``stayed``: rows after it. ``place``: (length,) where each row is then: below
    ``stayed`` in the slot, behind that among ``keys`` and ``values`` (layers, heads, n, head_dim), which are kept here.
    """

    length: int
    stayed: int
    place: IntArray
    keys: Tensor
    values: Tensor


#: Takes what :meth:`KVPool.select` is about to take from a slot.
Keep = Callable[[Evicted], None]


class KVPool:
    """``slots`` independent caches of ``rows`` rows each; a stream holds one slot.

    ``keys``, ``values`` and ``rotated_keys`` are (layers, slots, heads, rows, head_dim), ``layers`` the same one by
    one. Rows behind ``length[slot]`` hold nothing. ``kernels``: what writes, moves and reads them.
    """

    def __init__(self, shape: KVShape, slots: int, rows: int, kernels: PlainKernels | None = None) -> None:
        if slots < 1 or rows < 1:
            raise ValueError(f"a pool needs at least one slot and one row, not {slots} x {rows}")
        self.shape = shape
        self.kernels = kernels or PlainKernels()
        self.slots = slots
        self.rows = rows
        self.length = [0] * slots
        self._free = list(range(slots))[::-1]
        self.keys, self.values, self.rotated_keys = (self._allocate(rows) for _ in range(3))
        self.layers = self._by_layer()

    @property
    def _whole(self) -> Stores:
        return Stores(self.keys, self.rotated_keys, self.values)

    def _by_layer(self) -> list[Stores]:
        return [Stores(*one) for one in zip(self.keys, self.rotated_keys, self.values, strict=True)]

    def _allocate(self, rows: int) -> Tensor:
        s = self.shape
        try:
            return torch.zeros(s.layers, self.slots, s.heads, rows, s.head_dim, dtype=s.dtype, device=s.device)
        except (RuntimeError, MemoryError, OverflowError):
            size = self.slots * rows * s.bytes_per_row / 1e9
            raise CapacityError(
                f"a cache of {rows} rows ({size:,.1f} GB for {self.slots} slots) does not fit into the memory of "
                f"{s.device}; take smaller windows, fewer seconds or fewer slots"
            ) from None

    @property
    def nbytes(self) -> int:
        """Bytes of the whole pool."""
        return self.slots * self.rows * self.shape.bytes_per_row

    def acquire(self) -> int:
        """Take a free slot. :class:`CapacityError` if every slot is taken."""
        if not self._free:
            raise CapacityError(f"all {self.slots} slots are taken; close a session or open the engine with more slots")
        slot = self._free.pop()
        self.length[slot] = 0
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back."""
        assert slot not in self._free, "a slot is given back once"
        self.length[slot] = 0
        self._free.append(slot)

    def grow(self, rows: int) -> None:
        """Make every slot at least ``rows`` long, keeping what is there; happens only when a larger session opens."""
        if rows <= self.rows:
            return
        larger = [self._allocate(rows) for _ in range(3)]
        for name, new in zip(("keys", "values", "rotated_keys"), larger, strict=True):
            new[..., : self.rows, :] = getattr(self, name)
            setattr(self, name, new)
        self.rows, self.layers = rows, self._by_layer()

    def put_back(self, slot: int, evicted: Evicted, rotation: CosSin) -> None:
        """Undo a selection and all that was written behind it; ``rotation`` (rows before, head_dim) was the rows'."""
        moved = np.flatnonzero((evicted.place != np.arange(evicted.length)) | (evicted.place >= evicted.stayed))
        first = int(moved[0]) if len(moved) else evicted.length
        index = torch.from_numpy(evicted.place[first:]).to(self.shape.device)
        there = (slot, slice(None), slice(first, evicted.length))
        # Layer by layer: memory may be what the step failed for.
        for layer in range(self.shape.layers):
            for store, taken in ((self.keys, evicted.keys), (self.values, evicted.values)):
                rows = torch.cat([store[layer, slot, :, : evicted.stayed], taken[layer]], dim=1)
                store[layer][there] = rows.index_select(1, index)
        # Each stays where it is; so the kernels rotate it as they did before.
        stay, (cos, sin) = np.arange(first, evicted.length), rotation
        self.kernels.plan_move(self._whole, slot, stay, first, (cos[first:], sin[first:]))()
        self.length[slot] = evicted.length

    def copy(self, source: int, target: int) -> None:
        """Give slot ``target`` the rows of slot ``source``."""
        held = self.length[target] = self.length[source]
        for store in (self.keys, self.values, self.rotated_keys):
            store[:, target, :, :held] = store[:, source, :, :held]

    def rewind(self, slot: int, length: int) -> None:
        """Forget the rows of a slot behind the first ``length``."""
        self.length[slot] = length

    def select(
        self, slot: int, rows: IntArray, rotation: CosSin, rewritten: range = range(0), keep: Keep | None = None
    ) -> None:
        """Keep the rows ``rows`` (n,) int64 of a slot, in that order, and rebuild the view with their new rotation.

        ``rotation``: cosine and sine (n, head_dim). Evicting and moving are the same gather. A leading run
        of rows that stays where it is keeps its view: its positions have not changed either. ``rewritten``: rows after
        the selection that will be written anew. ``keep`` is handed what :meth:`put_back` needs, before the first write.
        """
        count = len(rows)
        assert rotation[0].shape[0] == count, "one rotation per row"
        evicted = self._evicted(slot, rows, rewritten)
        moved = np.flatnonzero(rows != np.arange(count))
        move = None
        if len(moved):
            first = int(moved[0])
            cos, sin = rotation
            move = self.kernels.plan_move(self._whole, slot, rows[first:], first, (cos[first:], sin[first:]))
        if keep is not None:
            keep(evicted)
        if move is not None:
            move()
        self.length[slot] = count

    def _evicted(self, slot: int, rows: IntArray, rewritten: range) -> Evicted:
        length, count = self.length[slot], len(rows)
        place = np.full(length, -1, np.int64)
        place[rows] = np.arange(count)
        place[rows[rewritten.start : rewritten.stop]] = -1
        lost = np.flatnonzero(place < 0)
        place[lost] = count + np.arange(len(lost))
        index = upload(torch.from_numpy(lost), self.shape.device)
        keys, values = (store[:, slot].index_select(2, index) for store in (self.keys, self.values))
        return Evicted(length, count, place, keys, values)

    def advance(self, slot: int, count: int) -> None:
        """Say that ``count`` new rows of a slot have been written in every layer."""
        self.length[slot] += count
