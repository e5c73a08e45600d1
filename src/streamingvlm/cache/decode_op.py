"""One step of attention in decoding as a single operation, which a compiler takes as it is.

Writing a row into a large cache and reading the cache is what compilers are bad at: unless they can prove that nobody
looks at the cache meanwhile they copy all of it, for every layer and token. So they are not told.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .attention import attend

_LIBRARY: Any = torch.library.Library("streamingvlm", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define(
    "decode_rows(Tensor queries, Tensor keys, Tensor rotated, Tensor values, Tensor(a!) key_rows,"
    " Tensor(b!) rotated_rows, Tensor(c!) value_rows, int layer, Tensor slots, Tensor lengths, float scaling) -> Tensor"
)


def _on_cpu(
    queries: Tensor, keys: Tensor, rotated: Tensor, values: Tensor, key_rows: Tensor, rotated_rows: Tensor,
    value_rows: Tensor, layer: int, slots: Tensor, lengths: Tensor, scaling: float,
) -> Tensor:  # fmt: skip
    out = torch.empty_like(queries)
    first: dict[int, int] = {}
    for place, (slot, length) in enumerate(zip(slots.tolist(), lengths.tolist(), strict=True)):
        if slot in first:  # a place without a stream
            out[place] = out[first[slot]]
            continue
        first[slot] = place
        for store, new in ((key_rows, keys), (rotated_rows, rotated), (value_rows, values)):
            store[layer, slot, :, length] = new[place]
        there = slice(0, length + 1)
        one = queries[place : place + 1]
        out[place] = attend(one, rotated_rows[layer, slot, :, there], value_rows[layer, slot, :, there], None, scaling)[
            0
        ]
    return out


def _on_cuda(
    queries: Tensor, keys: Tensor, rotated: Tensor, values: Tensor, key_rows: Tensor, rotated_rows: Tensor,
    value_rows: Tensor, layer: int, slots: Tensor, lengths: Tensor, scaling: float,
) -> Tensor:  # fmt: skip
    from .kernels import decode_attention

    for store, new in ((key_rows, keys), (rotated_rows, rotated), (value_rows, values)):
        store[layer][slots, :, lengths] = new
    return decode_attention(queries, rotated_rows[layer], value_rows[layer], slots, lengths + 1, scaling)


def _shape(queries: Tensor, *_: object) -> Tensor:
    return torch.empty_like(queries)


_LIBRARY.impl("decode_rows", _on_cpu, "CPU")
_LIBRARY.impl("decode_rows", _on_cuda, "CUDA")
torch.library.register_fake("streamingvlm::decode_rows", _shape, lib=_LIBRARY)


def decode_rows(
    queries: Tensor, keys: Tensor, rotated: Tensor, values: Tensor, key_rows: Tensor, rotated_rows: Tensor,
    value_rows: Tensor, layer: int, slots: Tensor, lengths: Tensor, scaling: float,
) -> Tensor:  # fmt: skip
    """Write one new row for each of b streams and attend: (b, query heads, d).

    ``queries`` (b, query heads, d), rotated; ``keys`` raw, ``rotated`` and ``values`` (b, heads, d): the new rows;
    ``key_rows``, ``rotated_rows``, ``value_rows``: the pool's (layers, slots, heads, rows, d); ``slots`` and
    ``lengths`` (b,) int64: whose rows, and how many of them are there before. A slot that occurs again repeats its
    first place.
    On CUDA nothing is read back, so that it can be captured; on a CPU every stream reads exactly its own rows.
    """
    out: Tensor = torch.ops.streamingvlm.decode_rows(
        queries, keys, rotated, values, key_rows, rotated_rows, value_rows, layer, slots, lengths, scaling
    )
    return out
