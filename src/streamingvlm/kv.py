"""Raw keys, values and the rotated view of the keys, in preallocated slots x rows; and attention against them.

Keys are stored before rotation (paper section 2.2). When rows move, the rotated view is rebuilt from the raw keys
once; attention rotates only queries. Nothing is ever rotated in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .errors import CapacityError
from .rope import rotate

CosSin = tuple[Tensor, Tensor]

#: Numbers of rows that matrix products are padded to. On CPUs a product of 1 to 3 rows differs in the last bit.
BUCKETS = (4, 8, 16, 32, 64, 128)
#: Rows that larger products (a prefill's, a tower's first) have at least, for the same reason.
LEAST = 16


def bucket(count: int) -> int:
    """The number of rows that ``count`` rows are padded to."""
    return next(size for size in (*BUCKETS, count) if size >= count)


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
    place: NDArray[np.int64]
    keys: Tensor
    values: Tensor


#: Takes what :meth:`KVPool.select` is about to take from a slot.
Keep = Callable[[Evicted], None]


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
        for name, new in zip(("keys", "values", "view"), larger, strict=True):
            new[..., : self.rows, :] = getattr(self, name)
            setattr(self, name, new)
        self.rows = rows

    def put_back(self, slot: int, evicted: Evicted, rotation: CosSin) -> None:
        """Undo a selection and all that was written behind it; ``rotation`` (rows before, head_dim) was the rows'."""
        moved = np.flatnonzero((evicted.place != np.arange(evicted.length)) | (evicted.place >= evicted.stayed))
        first = int(moved[0]) if len(moved) else evicted.length
        index = torch.from_numpy(evicted.place[first:]).to(self.shape.device)
        there = (slot, slice(None), slice(first, evicted.length))
        cos, sin = (part[first:] for part in rotation)
        # Layer by layer: memory may be what the step failed for.
        for layer in range(self.shape.layers):
            for store, taken in ((self.keys, evicted.keys), (self.values, evicted.values)):
                rows = torch.cat([store[layer, slot, :, : evicted.stayed], taken[layer]], dim=1)
                store[layer][there] = rows.index_select(1, index)
            rotate(self.keys[layer][there], cos, sin, out=self.view[layer][there])
        self.length[slot] = evicted.length

    def rewind(self, slot: int, length: int) -> None:
        """Forget the rows of a slot behind the first ``length``."""
        self.length[slot] = length

    def select(
        self, slot: int, rows: Sequence[int], rotation: CosSin, rewritten: range = range(0), keep: Keep | None = None
    ) -> None:
        """Keep the rows ``rows`` of a slot, in that order, and rebuild the view with their new rotation.

        ``rotation``: cosine and sine (len(rows), head_dim). Evicting and moving are the same gather. A leading run
        of rows that stays where it is keeps its view: its positions have not changed either. ``rewritten``: rows after
        the selection that will be written anew. ``keep`` is handed what :meth:`put_back` needs, before the first write.
        """
        count = len(rows)
        assert rotation[0].shape[0] == count, "one rotation per row"
        evicted = self._evicted(slot, rows, rewritten)
        same = next((i for i, row in enumerate(rows) if i != row), count)
        if same < count:
            index = torch.tensor(rows[same:], device=self.shape.device)
            moved = (slice(None), slot, slice(None), slice(same, count))
            keys, values = (store[:, slot].index_select(2, index) for store in (self.keys, self.values))
        if keep is not None:
            keep(evicted)
        if same < count:
            self.keys[moved], self.values[moved] = keys, values
            cos, sin = rotation
            rotate(keys, cos[same:], sin[same:], out=self.view[moved])
        self.length[slot] = count

    def _evicted(self, slot: int, rows: Sequence[int], rewritten: range) -> Evicted:
        length, count = self.length[slot], len(rows)
        place = np.full(length, -1, np.int64)
        place[rows] = np.arange(count)
        place[rows[rewritten.start : rewritten.stop]] = -1
        lost = np.flatnonzero(place < 0)
        place[lost] = count + np.arange(len(lost))
        index = torch.from_numpy(lost).to(self.shape.device)
        keys, values = (store[:, slot].index_select(2, index) for store in (self.keys, self.values))
        return Evicted(length, count, place, keys, values)

    def store(self, layer: int, batch: Batch, keys: Tensor, values: Tensor) -> None:
        """Write a batch's new rows in one layer; ``keys`` (n, heads, head_dim), raw, and ``values`` alike.

        The slots' lengths are the same for all layers; :meth:`advance` moves them once all have been written.
        """
        if isinstance(batch, StaticBatch):
            batch.hold(keys, values)
            return
        rotated = rotate(keys, *batch.turned)
        stores = ((self.keys, keys), (self.view, rotated), (self.values, values))
        if batch.where is not None:
            slots, lengths = batch.where
            for store, new in stores:
                store[layer][slots, :, lengths] = new[: len(slots)]
            return
        for part, first in zip(batch.parts, batch.held, strict=True):
            rows = slice(first, first + part.last - part.first)
            for store, new in stores:
                store[layer, part.slot, :, rows] = new[part.first : part.last].transpose(0, 1)

    def attend(self, layer: int, batch: Batch, queries: Tensor, scaling: float, *, ends: bool = False) -> Tensor:
        """Attention of rotated queries (n, query heads, head_dim) over the rows of their slots; same shape.

        To be called after :meth:`store`. ``ends``: the queries are those of :meth:`Batch.take_ends`.
        Every stream attends by itself over exactly its own rows, so its result does not depend on who shares the batch.
        """
        if isinstance(batch, StaticBatch):
            return batch.attend(layer, queries, scaling)
        out = torch.zeros_like(queries)
        for number, part in enumerate(batch.parts):
            rows = batch.held[number] + part.last - part.first
            keys, values = (store[layer, part.slot, :, :rows] for store in (self.view, self.values))
            single = ends or batch.single
            place = slice(number, number + 1) if single else slice(part.first, part.last)
            out[place] = attend(queries[place], keys, values, None if single else batch.masks[number], scaling)
        return out

    def advance(self, slot: int, count: int) -> None:
        """Say that ``count`` new rows of a slot have been written in every layer."""
        self.length[slot] += count


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Queries (n, query heads, d) over rows (heads, m, d), the last n of which are theirs; same shape.

    ``mask``: (n, m) bool, or None for plain causal attention (n = m) and for one query, which sees all rows.
    """
    heads, _, dim = keys.shape
    if len(queries) == 1:
        # The query heads that share a key head are rows of one product: nothing is repeated and nothing is masked.
        out = F.scaled_dot_product_attention(queries.view(1, heads, -1, dim), keys[None], values[None], scale=scaling)
        return out.reshape(queries.shape)
    out = F.scaled_dot_product_attention(
        queries.transpose(0, 1)[None],
        keys[None],
        values[None],
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=queries.shape[1] != heads,
    )
    return out[0].transpose(0, 1)


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens ``first`` to ``last`` (left out) of a batch: the new ones of ``slot``.

    ``at``: the first of the rows that they are written to, in the place of what is there; they see no row behind their
    own (None: behind all rows).
    """

    slot: int
    first: int
    last: int
    at: int | None = None


class Batch:
    """One forward pass against a pool: the new tokens of some streams, one stream after the other.

    ``parts``: whose they are; tokens behind the last part are padding that keeps matrix products in one shape.
    ``rotation``: cosine and sine (tokens, head_dim) of their positions.
    """

    def __init__(self, pool: KVPool, parts: Sequence[Part], rotation: CosSin) -> None:
        shape = pool.shape
        self.pool = pool
        self.parts = tuple(parts)
        self.tokens = rotation[0].shape[0]
        self.rotation = rotation
        #: Cosine and sine for (tokens, heads, head_dim), in the pool's dtype.
        self.turned = (rotation[0][:, None].to(shape.dtype), rotation[1][:, None].to(shape.dtype))
        #: Rows in front of each part's.
        self.held = [pool.length[part.slot] if part.at is None else part.at for part in parts]
        #: Every part is one token behind all rows: a step of decoding.
        self.single = all((part.first, part.last, part.at) == (i, i + 1, None) for i, part in enumerate(parts))
        self.masks = [
            _mask(held, part.last - part.first, shape.device) for part, held in zip(parts, self.held, strict=True)
        ]
        ends = [part.last - 1 for part in parts]
        self.ends = torch.tensor(ends + ends[-1:] * (bucket(len(ends)) - len(ends)), device=shape.device)
        #: Slots and lengths (parts,), to write the rows of several streams that decode in one operation.
        self.where: tuple[Tensor, Tensor] | None = None
        if self.single and len(parts) > 1:
            slots = [part.slot for part in parts]
            rows = [pool.length[slot] for slot in slots]
            self.where = (torch.tensor(slots, device=shape.device), torch.tensor(rows, device=shape.device))
        for part, held in zip(parts, self.held, strict=True):
            most = pool.rows if part.at is None else pool.length[part.slot]
            assert held + part.last - part.first <= most, "capacity is known when a stream opens"

    def take_ends(self, states: Tensor) -> Tensor:
        """States (tokens, ...) of each part's last token, padded to a bucket: (bucket, ...)."""
        return states if self.single else states.index_select(0, self.ends)

    def rotate(self, queries: Tensor, *, ends: bool = False) -> Tensor:
        """Queries (tokens, query heads, head_dim), or those of :meth:`take_ends`, rotated."""
        cos, sin = self.turned
        if ends and not self.single:
            cos, sin = self.take_ends(cos), self.take_ends(sin)
        return rotate(queries, cos, sin)

    def finish(self) -> None:
        """After the last layer: the new rows belong to their slots."""
        for part in self.parts:
            if part.at is None:
                self.pool.advance(part.slot, part.last - part.first)


#: Writes one new row per stream and attends; see :func:`streamingvlm.ops.decode_rows`.
DecodeAttention = Callable[..., Tensor]


class StaticBatch(Batch):
    """One new token each of a fixed number of streams, with nothing that the host has to know: it can be captured.

    ``slots`` and ``lengths`` (b,) int64: whose rows, and how many of them are there before; ``rotation`` (b, head_dim).
    A place without a stream repeats another one, and so writes what that one writes.
    """

    def __init__(
        self, pool: KVPool, slots: Tensor, lengths: Tensor, rotation: CosSin, attention: DecodeAttention
    ) -> None:
        self.pool = pool
        self.tokens = slots.shape[0]
        self.rotation = rotation
        self.turned = (rotation[0][:, None].to(pool.shape.dtype), rotation[1][:, None].to(pool.shape.dtype))
        self.single = True
        self.places = (slots, lengths)
        self.parts = ()
        self._attention = attention
        self._new: tuple[Tensor, Tensor, Tensor] | None = None

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Keep a layer's new rows for :meth:`attend`, which writes them."""
        self._new = (keys, rotate(keys, *self.turned), values)

    def attend(self, layer: int, queries: Tensor, scaling: float) -> Tensor:
        """See :meth:`KVPool.attend`."""
        assert self._new is not None, "rows are held before they are looked at"
        pool = self.pool
        return self._attention(queries, *self._new, pool.keys, pool.view, pool.values, layer, *self.places, scaling)

    def finish(self) -> None:
        """Nothing: whoever runs the capture moves the lengths."""


def _mask(held: int, count: int, device: torch.device) -> Tensor | None:
    """Which of held + count rows each of ``count`` new tokens sees; None where plain causal attention does."""
    if count == 1 or not held:
        return None
    return torch.ones(count, held + count, dtype=torch.bool, device=device).tril_(held)
