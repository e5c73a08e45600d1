"""One forward pass against a pool: whose new tokens it holds, where their rows go, what they see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels.plain import CosSin, Heads, Placement, PlainKernels, rotate, upload
from .kv_pool import KVPool


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

    def __len__(self) -> int:
        return self.last - self.first


class Batch:
    """One forward pass against a pool: the new tokens of some streams, one stream after the other.

    ``segments``: whose they are; tokens behind the last segment are padding that keeps matrix products in one shape.
    ``rotation``: cosine and sine (tokens, head_dim) of their positions.
    """

    def __init__(self, pool: KVPool, segments: Sequence[Segment], rotation: CosSin) -> None:
        device = pool.shape.device
        self.pool = pool
        self.kernels = pool.kernels
        self.segments = tuple(segments)
        self.tokens = rotation[0].shape[0]
        self.rotation = self.kernels.cast_rotation(rotation, pool.shape.dtype)
        #: Rows in front of each segment's.
        self.rows_before = [pool.length[segment.slot] if segment.at is None else segment.at for segment in segments]
        both = list(zip(segments, self.rows_before, strict=True))
        for segment, before in both:
            most = pool.rows if segment.at is None else pool.length[segment.slot]
            assert before + len(segment) <= most, "capacity is known when a stream opens"
        #: Every segment is one token behind all rows: a step of decoding.
        self.single = all(
            (segment.first, segment.last, segment.at) == (i, i + 1, None) for i, segment in enumerate(segments)
        )
        self.placement = Placement([(s.slot, s.first, s.last, row) for s, row in both], self.tokens, device)
        self.masks: list[Tensor | None] = []
        if not self.single:
            self.masks = [self.kernels.mask(before, len(segment), device) for segment, before in both]
            lasts = [(s.slot, i, i + 1, row + len(s) - 1) for i, (s, row) in enumerate(both)]
            count = self.kernels.bucket(len(lasts), device)
            self.last_rows = Placement(lasts, count, device)
            ends = [segment.last - 1 for segment in segments]
            self.ends = upload(torch.tensor(ends + ends[-1:] * (count - len(ends))), device)

    def take_ends(self, states: Tensor) -> Tensor:
        """States (tokens, ...) of each segment's last token, padded to a bucket: (bucket, ...)."""
        return states if self.single else states.index_select(0, self.ends)

    def attention(self, layer: int, qkv: Tensor, heads: Heads, *, ends: bool = False) -> Tensor:
        """Write the new rows of a layer and attend over the rows of their slots: (tokens, query heads * head_dim).

        ``qkv`` (tokens, width): the layer's product of all tokens. ``ends``: only the last tokens of the segments
        attend, as :meth:`take_ends` has them. The slots' lengths are the same for all layers; :meth:`finish` moves
        them once all have been written.
        """
        stores, kernels = self.pool.layers[layer], self.kernels
        if self.single:
            return kernels.decode_attention(qkv, self.rotation, heads, stores, self.placement)
        queries = kernels.rotate_store(qkv, self.rotation, heads, stores, self.placement)
        if ends:
            return kernels.attend_rows(self.take_ends(queries), heads, stores, self.last_rows).flatten(1)
        out = torch.zeros_like(queries)
        for number, segment in enumerate(self.segments):
            rows = self.rows_before[number] + len(segment)
            there = slice(segment.first, segment.last)
            out[there] = kernels.attend_prefill(
                queries[there],
                stores.rotated[segment.slot, :, :rows],
                stores.values[segment.slot, :, :rows],
                self.masks[number],
                heads.scaling,
            )
        return out.flatten(1)

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Write the new rows of one layer, in plain torch: raw ``keys`` and ``values`` (tokens, heads, head_dim)."""
        PlainKernels().store(keys, values, self.rotation, self.pool.layers[layer], self.placement)

    def attend(self, layer: int, queries: Tensor, scaling: float) -> Tensor:
        """Attention of raw queries (tokens, query heads, head_dim) behind :meth:`store`, in plain torch; same shape.

        For transformers' own layers, which bring queries, keys and values apart and want every token's result.
        """
        plain, out, stores = PlainKernels(), torch.zeros_like(queries), self.pool.layers[layer]
        queries = rotate(queries, *(part[:, None] for part in self.rotation))
        for segment, before in zip(self.segments, self.rows_before, strict=True):
            rows, there = before + len(segment), slice(segment.first, segment.last)
            keys, values = stores.rotated[segment.slot, :, :rows], stores.values[segment.slot, :, :rows]
            mask = plain.mask(before, len(segment), queries.device)
            out[there] = plain.attend_prefill(queries[there], keys, values, mask, scaling)
        return out

    def finish(self) -> None:
        """After the last layer: the new rows belong to their slots."""
        for segment in self.segments:
            if segment.at is None:
                self.pool.advance(segment.slot, len(segment))


class StaticBatch(Batch):
    """One new token each of a fixed number of places, with nothing that the host has to know: it can be captured.

    ``slots`` and ``lengths`` (b,) int64: whose rows, and how many of them are there before; a slot of -1 marks a place
    without a stream, of which nothing is read or written. ``rotation`` (b, head_dim).
    """

    def __init__(self, pool: KVPool, slots: Tensor, lengths: Tensor, rotation: CosSin) -> None:
        self.pool = pool
        self.kernels = pool.kernels
        self.segments = ()
        self.tokens = slots.shape[0]
        self.rotation = self.kernels.cast_rotation(rotation, pool.shape.dtype)
        self.single = True
        self.placement = Placement.on_device(slots, lengths)

    def finish(self) -> None:
        """Nothing: whoever runs the capture moves the lengths."""
