"""One forward pass against a pool: whose new tokens it holds, where their rows go, what they see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import CosSin, attend, bucket
from .kv_pool import KVPool
from .rope import rotate


@dataclass(frozen=True, slots=True)
class Segment:
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

    def __init__(self, pool: KVPool, parts: Sequence[Segment], rotation: CosSin) -> None:
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

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Write the new rows of one layer; ``keys`` (n, heads, head_dim), raw, and ``values`` alike.

        The slots' lengths are the same for all layers; :meth:`finish` moves them once all have been written.
        """
        pool = self.pool
        rotated = rotate(keys, *self.turned)
        stores = ((pool.keys, keys), (pool.rotated_keys, rotated), (pool.values, values))
        if self.where is not None:
            slots, lengths = self.where
            for store, new in stores:
                store[layer][slots, :, lengths] = new[: len(slots)]
            return
        for part, first in zip(self.parts, self.held, strict=True):
            rows = slice(first, first + part.last - part.first)
            for store, new in stores:
                store[layer, part.slot, :, rows] = new[part.first : part.last].transpose(0, 1)

    def attend(self, layer: int, queries: Tensor, scaling: float, *, ends: bool = False) -> Tensor:
        """Attention of rotated queries (n, query heads, head_dim) over the rows of their slots; same shape.

        To be called after :meth:`store`. ``ends``: the queries are those of :meth:`take_ends`. Every stream attends by
        itself over exactly its own rows, so its result does not depend on who shares the batch.
        """
        out = torch.zeros_like(queries)
        for number, part in enumerate(self.parts):
            rows = self.held[number] + part.last - part.first
            keys, values = (store[layer, part.slot, :, :rows] for store in (self.pool.rotated_keys, self.pool.values))
            single = ends or self.single
            place = slice(number, number + 1) if single else slice(part.first, part.last)
            out[place] = attend(queries[place], keys, values, None if single else self.masks[number], scaling)
        return out

    def finish(self) -> None:
        """After the last layer: the new rows belong to their slots."""
        for part in self.parts:
            if part.at is None:
                self.pool.advance(part.slot, part.last - part.first)


#: Writes one new row per stream and attends; see :func:`streamingvlm.cache.decode_op.decode_rows`.
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

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:  # noqa: ARG002
        """Keep the new rows of a layer for :meth:`attend`, which writes them."""
        self._new = (keys, rotate(keys, *self.turned), values)

    def attend(self, layer: int, queries: Tensor, scaling: float, *, ends: bool = False) -> Tensor:  # noqa: ARG002
        """See :meth:`Batch.attend`."""
        assert self._new is not None, "rows are stored before they are looked at"
        pool = self.pool
        return self._attention(
            queries, *self._new, pool.keys, pool.rotated_keys, pool.values, layer, *self.places, scaling
        )

    def finish(self) -> None:
        """Nothing: whoever runs the capture moves the lengths."""


def _mask(held: int, count: int, device: torch.device) -> Tensor | None:
    """Which of held + count rows each of ``count`` new tokens sees; None where plain causal attention does."""
    if count == 1 or not held:
        return None
    return torch.ones(count, held + count, dtype=torch.bool, device=device).tril_(held)
