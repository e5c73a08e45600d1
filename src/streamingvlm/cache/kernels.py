"""Attention of one query per stream over long rows on a GPU: split over the rows by each stream's own length.

Libraries' kernels for this want one length for all, or leave most of the device idle: one query of four key heads is
four blocks of threads. Here every stream's rows are cut into ``splits`` pieces that run side by side (flash decoding,
Dao et al. 2023), and a second kernel adds them up. Imported only where Triton is.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Rows that one step of the loop reads.
BLOCK = 64
#: Blocks of threads that a launch aims at: two for each multiprocessor of the largest devices.
TARGET_BLOCKS = 264


@triton.jit
def _pieces(
    queries, keys, values, slots, lengths, sums, logs, scaling,
    slot_stride, head_stride, heads, splits,
    GROUP: tl.constexpr, PADDED: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    stream, head, piece = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + stream)
    chunk = tl.cdiv(tl.cdiv(length, splits), BLOCK) * BLOCK
    first = piece * chunk
    last = tl.minimum(first + chunk, length)
    group, dims = tl.arange(0, PADDED), tl.arange(0, DIM)
    row = (stream * heads + head) * GROUP + group
    query = tl.load(queries + row[:, None] * DIM + dims[None, :], mask=(group < GROUP)[:, None], other=0.0)
    base = tl.load(slots + stream) * slot_stride + head * head_stride
    most = tl.full([PADDED], float("-inf"), tl.float32)
    total = tl.zeros([PADDED], tl.float32)
    out = tl.zeros([PADDED, DIM], tl.float32)
    for start in range(first, last, BLOCK):
        rows = start + tl.arange(0, BLOCK)
        here = rows < last
        at = base + rows[:, None] * DIM + dims[None, :]
        key = tl.load(keys + at, mask=here[:, None], other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scaling
        scores = tl.where(here[None, :], scores, float("-inf"))
        larger = tl.maximum(most, tl.max(scores, 1))
        weights = tl.exp(scores - larger[:, None])
        shrink = tl.exp(most - larger)
        value = tl.load(values + at, mask=here[:, None], other=0.0)
        total = total * shrink + tl.sum(weights, 1)
        out = out * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
        most = larger
    empty = total == 0.0
    out = out / tl.where(empty, 1.0, total)[:, None]
    log = tl.where(empty, float("-inf"), most + tl.log(tl.where(empty, 1.0, total)))
    to = ((stream * heads + head) * splits + piece) * GROUP + group
    tl.store(logs + to, log, mask=group < GROUP)
    tl.store(sums + to[:, None] * DIM + dims[None, :], out, mask=(group < GROUP)[:, None])


@triton.jit
def _together(sums, logs, out, splits, GROUP: tl.constexpr, DIM: tl.constexpr, SPLITS: tl.constexpr):
    pair, member = tl.program_id(0), tl.program_id(1)
    pieces, dims = tl.arange(0, SPLITS), tl.arange(0, DIM)
    there = pieces < splits
    at = (pair * splits + pieces) * GROUP + member
    log = tl.load(logs + at, mask=there, other=float("-inf"))
    weights = tl.exp(log - tl.max(log, 0))
    part = tl.load(sums + at[:, None] * DIM + dims[None, :], mask=there[:, None], other=0.0)
    mixed = tl.sum(part * weights[:, None], 0) / tl.sum(weights, 0)
    tl.store(out + (pair * GROUP + member) * DIM + dims, mixed.to(out.dtype.element_ty))


def decode_attention(
    queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor, scaling: float
) -> Tensor:
    """Attention (b, query heads, d) of one query per stream.

    ``queries``: (b, query heads, d), rotated; ``keys`` and ``values``: (slots, heads, rows, d), contiguous, d a power
    of two; ``slots`` and ``lengths``: (b,) int64, whose rows and how many of them, at least 1. All shapes are static
    and nothing is read back, so that it can be captured.
    """
    count, query_heads, dim = queries.shape
    _, heads, rows, _ = keys.shape
    group = query_heads // heads
    splits = max(1, min(128, TARGET_BLOCKS // (count * heads), -(-rows // BLOCK)))
    options: dict[str, Any] = {"dtype": torch.float32, "device": queries.device}
    sums = torch.empty(count, heads, splits, group, dim, **options)
    logs = torch.empty(count, heads, splits, group, **options)
    out = torch.empty_like(queries)
    precision = "ieee" if queries.dtype == torch.float32 else "tf32"
    _pieces[(count, heads, splits)](
        queries.contiguous(), keys, values, slots, lengths, sums, logs, scaling,
        keys.stride(0), keys.stride(1), heads, splits,
        GROUP=group, PADDED=max(16, triton.next_power_of_2(group)), DIM=dim, BLOCK=BLOCK, PRECISION=precision,
    )  # fmt: skip
    _together[(count * heads, group)](
        sums, logs, out, splits, GROUP=group, DIM=dim, SPLITS=triton.next_power_of_2(splits)
    )
    return out
