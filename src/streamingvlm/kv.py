"""Raw keys, values and the rotated view of the keys, in preallocated slots x rows; and attention against them.

Keys are stored before rotation (paper section 2.2). When rows move, the rotated view is rebuilt from the raw keys
once; attention rotates only queries. Nothing is ever rotated in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import CapacityError
from .rope import rotate

CosSin = tuple[Tensor, Tensor]


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


class KVPool:
    """``slots`` independent caches of ``rows`` rows each; a stream holds one slot.

    ``keys``, ``values`` and ``view`` are (layers, slots, heads, rows, head_dim). Rows behind ``length[slot]`` hold
    nothing.
    """

    def __init__(self, shape: KVShape, slots: int, rows: int) -> None:
        if slots < 1 or rows < 1:
            raise ValueError(f"a pool needs at least one slot and one row, not {slots} x {rows}")
        self.shape = shape
        self.slots = slots
        self.rows = rows
        self.length = [0] * slots
        self._free = list(range(slots))[::-1]
        self.keys, self.values, self.view = (self._allocate(rows) for _ in range(3))

    def _allocate(self, rows: int) -> Tensor:
        s = self.shape
        return torch.zeros(s.layers, self.slots, s.heads, rows, s.head_dim, dtype=s.dtype, device=s.device)

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
        for name in ("keys", "values", "view"):
            old: Tensor = getattr(self, name)
            new = self._allocate(rows)
            new[..., : self.rows, :] = old
            setattr(self, name, new)
        self.rows = rows

    def select(self, slot: int, rows: Sequence[int], rotation: CosSin) -> None:
        """Keep the rows ``rows`` of a slot, in that order, and rebuild the view with their new rotation.

        ``rotation``: cosine and sine (len(rows), head_dim). Evicting and moving are the same gather. A leading run
        of rows that stays where it is keeps its view: its positions have not changed either.
        """
        count = len(rows)
        assert rotation[0].shape[0] == count, "one rotation per row"
        same = next((i for i, row in enumerate(rows) if i != row), count)
        if same < count:
            index = torch.tensor(rows[same:], device=self.shape.device)
            for store in (self.keys, self.values):
                store[:, slot, :, same:count] = store[:, slot].index_select(2, index)
            cos, sin = rotation
            self.view[:, slot, :, same:count] = rotate(self.keys[:, slot, :, same:count], cos[same:], sin[same:])
        self.length[slot] = count

    def write(self, layer: int, slot: int, raw: Tensor, rotated: Tensor, values: Tensor) -> None:
        """Write n new rows (heads, n, head_dim) behind the rows of a slot, in one layer.

        The slot's length is the same for all layers; :meth:`advance` moves it once all have been written.
        """
        first = self.length[slot]
        last = first + raw.shape[1]
        assert last <= self.rows, "the capacity was computed when the session opened"
        self.keys[layer, slot, :, first:last] = raw
        self.view[layer, slot, :, first:last] = rotated
        self.values[layer, slot, :, first:last] = values

    def attend(self, layer: int, batch: Batch, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Store a batch's new keys and values and attend; see :meth:`Batch.attend`.

        Every stream attends by itself over exactly its own rows, so its result does not depend on who shares the
        batch.
        """
        cos, sin = (part[:, None] for part in batch.rotation)
        rotated = rotate(key, cos, sin)
        query = rotate(query, cos, sin)
        out = torch.zeros_like(query)
        for row, slot in enumerate(batch.slots):
            self.write(layer, slot, key[row], rotated[row], value[row])
            last = self.length[slot] + query.shape[2]
            out[row] = F.scaled_dot_product_attention(
                query[row : row + 1],
                self.view[layer, slot : slot + 1, :, :last],
                self.values[layer, slot : slot + 1, :, :last],
                attn_mask=batch.mask,
                is_causal=batch.mask is None and query.shape[2] > 1,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )[0]
        return out.transpose(1, 2)

    def advance(self, slot: int, count: int) -> None:
        """Say that ``count`` new rows of a slot have been written in every layer."""
        self.length[slot] += count


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass against a pool: new tokens of some slots.

    ``slots``: the slot of each batch row; further batch rows are padding that keeps matrix products in one shape.
    ``rotation``: cosine and sine (rows, n, head_dim) of the new tokens.
    """

    pool: KVPool
    slots: tuple[int, ...]
    rotation: CosSin
    mask: Tensor | None = None

    @staticmethod
    def prefill(pool: KVPool, slot: int, count: int, rotation: CosSin) -> Batch:
        """``count`` new tokens of one stream, each seeing all rows and the new tokens up to itself."""
        held = pool.length[slot]
        mask = None
        if held:
            mask = torch.ones(count, held + count, dtype=torch.bool, device=pool.shape.device).tril_(held)
        return Batch(pool, (slot,), (rotation[0][None], rotation[1][None]), mask)

    @staticmethod
    def decode(pool: KVPool, slots: Sequence[int], rotation: CosSin) -> Batch:
        """One new token each of several streams; ``rotation`` is (rows, head_dim) and may be longer than ``slots``."""
        return Batch(pool, tuple(slots), (rotation[0][:, None], rotation[1][:, None]))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Store the new keys and values, attend; query (rows, heads, n, d), key and value (rows, kv heads, n, d).

        Raw, not yet rotated. Returns (rows, n, heads, d).
        """
        return self.pool.attend(layer, self, query, key, value, scaling)

    def finish(self, count: int) -> None:
        """After the last layer: the new rows belong to their slots."""
        for slot in self.slots:
            self.pool.advance(slot, count)
