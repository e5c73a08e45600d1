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

    ``segments``: whose they are; tokens behind the last segment are padding that keeps matrix products in one shape.
    ``rotation``: cosine and sine (tokens, head_dim) of their positions.
    """

    def __init__(self, pool: KVPool, segments: Sequence[Segment], rotation: CosSin) -> None:
        shape = pool.shape
        self.pool = pool
        self.segments = tuple(segments)
        self.tokens = rotation[0].shape[0]
        self.rotation = rotation
        #: Cosine and sine for (tokens, heads, head_dim), in the pool's dtype.
        self.turned = (rotation[0][:, None].to(shape.dtype), rotation[1][:, None].to(shape.dtype))
        #: Rows in front of each segment's.
        self.rows_before = [pool.length[segment.slot] if segment.at is None else segment.at for segment in segments]
        #: Every segment is one token behind all rows: a step of decoding.
        self.single = all(
            (segment.first, segment.last, segment.at) == (i, i + 1, None) for i, segment in enumerate(segments)
        )
        self.masks = [
            _mask(before, segment.last - segment.first, shape.device)
            for segment, before in zip(segments, self.rows_before, strict=True)
        ]
        ends = [segment.last - 1 for segment in segments]
        self.ends = torch.tensor(ends + ends[-1:] * (bucket(len(ends)) - len(ends)), device=shape.device)
        #: Slots and lengths (segments,), to write the rows of several streams that decode in one operation.
        self.where: tuple[Tensor, Tensor] | None = None
        if self.single and len(segments) > 1:
            slots = [segment.slot for segment in segments]
            rows = [pool.length[slot] for slot in slots]
            self.where = (torch.tensor(slots, device=shape.device), torch.tensor(rows, device=shape.device))
        for segment, before in zip(segments, self.rows_before, strict=True):
            most = pool.rows if segment.at is None else pool.length[segment.slot]
            assert before + segment.last - segment.first <= most, "capacity is known when a stream opens"

    def take_ends(self, states: Tensor) -> Tensor:
        """States (tokens, ...) of each segment's last token, padded to a bucket: (bucket, ...)."""
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
        for segment, first in zip(self.segments, self.rows_before, strict=True):
            rows = slice(first, first + segment.last - segment.first)
            for store, new in stores:
                store[layer, segment.slot, :, rows] = new[segment.first : segment.last].transpose(0, 1)

    def attend(self, layer: int, queries: Tensor, scaling: float, *, ends: bool = False) -> Tensor:
        """Attention of rotated queries (n, query heads, head_dim) over the rows of their slots; same shape.

        To be called after :meth:`store`. ``ends``: the queries are those of :meth:`take_ends`. Every stream attends by
        itself over exactly its own rows, so its result does not depend on who shares the batch.
        """
        out = torch.zeros_like(queries)
        for number, segment in enumerate(self.segments):
            rows = self.rows_before[number] + segment.last - segment.first
            keys, values = (
                store[layer, segment.slot, :, :rows] for store in (self.pool.rotated_keys, self.pool.values)
            )
            single = ends or self.single
            place = slice(number, number + 1) if single else slice(segment.first, segment.last)
            out[place] = attend(queries[place], keys, values, None if single else self.masks[number], scaling)
        return out

    def finish(self) -> None:
        """After the last layer: the new rows belong to their slots."""
        for segment in self.segments:
            if segment.at is None:
                self.pool.advance(segment.slot, segment.last - segment.first)


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
        self.segments = ()
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


def _mask(before: int, count: int, device: torch.device) -> Tensor | None:
    """Which of before + count rows each of ``count`` new tokens sees; None where plain causal attention does."""
    if count == 1 or not before:
        return None
    return torch.ones(count, before + count, dtype=torch.bool, device=device).tril_(before)
