"""Operations of a decoder's step as Triton kernels. Imported only where Triton is.

Notation: n tokens; b streams that decode, one token each; H query heads, K key heads, H = K * group; D head_dim, a
power of two and at least 16. ``qkv`` is a row of H query heads, K key heads and K value heads. The stores ``keys``
(before rotation), ``rotated`` (the same keys rotated) and ``values`` are contiguous. Tensors are contiguous unless the
function says otherwise. All shapes are static, nothing is read back and every allocation is torch's: each function can
be captured in a CUDA graph once it has run, since Triton compiles and loads a kernel at its first launch.

No result depends on how many other rows or streams a call has: no program reads what another one of the same launch
writes, and what a program does follows from its own row or stream. Numbers that change from call to call, and where
the few numbers of each stream lie in memory, are not specialized on: they neither compile a kernel anew nor pick
another one.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Rows of a stream that one program of :func:`decode_attention` attends to.
PIECE = 256
#: Rows that one step of its loop reads; divides PIECE.
BLOCK = 64
#: Partial results that one step of its second kernel adds up.
MERGE = 16
#: Columns of a row that one program of an elementwise kernel works on.
COLUMNS = 1024
#: Rows that :func:`move_rows` reads before it writes them.
MOVED = 64


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


@triton.jit
def _inverse_rms(states, eps, DIM: tl.constexpr):
    """1 / RMS (rows,) of float32 states (rows, DIM)."""
    return tl.rsqrt(tl.sum(states * states, 1) / DIM + eps)


@triton.jit
def _rotate(own, other, cos, sin, dims, DIM: tl.constexpr):
    """Half-split rotation in float32; ``other`` holds, for each element, the one half a head away.

    The order of roundings is written out, so that every kernel rotates a key to the same bits.
    """
    return tl.fma(other, tl.where(dims < DIM // 2, -sin, sin), own * cos)


@triton.jit
def _load_heads(heads, first, count, norm, eps, dims, DIM: tl.constexpr, PADDED: tl.constexpr, NORMED: tl.constexpr):
    """Float32 heads (PADDED, DIM) from head ``first`` of a row, and the same with halves swapped; normed if NORMED.

    What is normed is rounded to the dtype of the row, as a layer of its own would do. Heads behind ``count`` are 0.
    """
    number = tl.arange(0, PADDED)[:, None]
    at = heads + (first + number) * DIM
    swapped = (dims + DIM // 2) % DIM
    there = number < count
    own = tl.load(at + dims[None, :], mask=there, other=0.0).to(tl.float32)
    other = tl.load(at + swapped[None, :], mask=there, other=0.0).to(tl.float32)
    if NORMED:
        scale = _inverse_rms(own, eps, DIM)[:, None]
        weight = tl.load(norm + dims).to(tl.float32)[None, :]
        swapped_weight = tl.load(norm + swapped).to(tl.float32)[None, :]
        own = (own * scale * weight).to(heads.dtype.element_ty).to(tl.float32)
        other = (other * scale * swapped_weight).to(heads.dtype.element_ty).to(tl.float32)
    return own, other


@triton.jit
def _add_norm(x, delta, weight, total, normed, eps, WIDTH: tl.constexpr, PADDED: tl.constexpr, ADDS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * WIDTH
    column = tl.arange(0, PADDED)
    there = column < WIDTH
    states = tl.load(x + row + column, mask=there, other=0.0)
    if ADDS:
        more = tl.load(delta + row + column, mask=there, other=0.0)
        states = (states.to(tl.float32) + more.to(tl.float32)).to(total.dtype.element_ty)
        tl.store(total + row + column, states, mask=there)
    wide = states.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / WIDTH + eps)
    scaled = wide * scale * tl.load(weight + column, mask=there, other=0.0).to(tl.float32)
    tl.store(normed + row + column, scaled.to(normed.dtype.element_ty), mask=there)


def add_norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The residual sum x + delta, rounded to its dtype, and the RMSNorm of that sum times ``weight``; (n, w) each.

    ``x`` and ``delta``: (n, w); ``weight``: (w,). Computed in float32. Without ``delta`` the first result is ``x``
    itself. Reads x, delta and weight once and writes both results once: 4 n w elements, 2 n w without ``delta``.
    """
    count, width = x.shape
    assert all(part is None or part.is_contiguous() for part in (x, delta)), "rows are contiguous"
    normed = torch.empty_like(x)
    total = x if delta is None else torch.empty_like(x)
    padded = triton.next_power_of_2(width)
    with _on(x):
        _add_norm[(count,)](
            x, x if delta is None else delta, weight, total, normed, eps,
            WIDTH=width, PADDED=padded, ADDS=delta is not None, num_warps=max(1, min(16, padded // 512)),
        )  # fmt: skip
    return total, normed


@triton.jit
def _silu_mul(gate_up, out, INNER: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = column < INNER
    gate = tl.load(gate_up + row * (2 * INNER) + column, mask=there, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * INNER) + INNER + column, mask=there, other=0.0).to(tl.float32)
    # Where exp overflows the quotient is 0, which is the limit.
    product = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + row * INNER + column, product.to(out.dtype.element_ty), mask=there)


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up (n, inner) of ``gate_up`` (n, 2 inner), in float32, rounded once.

    Reads 2 n inner elements and writes n inner.
    """
    assert gate_up.is_contiguous(), "rows are contiguous"
    count, inner = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(count, inner)
    with _on(gate_up):
        _silu_mul[(count, triton.cdiv(inner, COLUMNS))](gate_up, out, INNER=inner, COLUMNS=COLUMNS, num_warps=4)
    return out


@triton.jit(do_not_specialize_on_alignment=["slots", "rows"])
def _rotate_store(
    qkv, cos, sin, query_norm, key_norm, eps, keys, rotated, values, slots, rows, queries,
    slot_stride, head_stride,
    HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, PADDED: tl.constexpr, KEY_PADDED: tl.constexpr, DIM: tl.constexpr,
    NORMED: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    dims = tl.arange(0, DIM)
    row = qkv + token * ((HEADS + 2 * KEY_HEADS) * DIM)
    turn_cos = tl.load(cos + token * DIM + dims)[None, :]
    turn_sin = tl.load(sin + token * DIM + dims)[None, :]
    own, other = _load_heads(row, 0, HEADS, query_norm, eps, dims, DIM, PADDED, NORMED)
    turned = _rotate(own, other, turn_cos, turn_sin, dims[None, :], DIM).to(queries.dtype.element_ty)
    head = tl.arange(0, PADDED)[:, None]
    tl.store(queries + token * (HEADS * DIM) + head * DIM + dims[None, :], turned, mask=head < HEADS)
    slot = tl.load(slots + token).to(tl.int64)
    if slot >= 0:
        key_head = tl.arange(0, KEY_PADDED)[:, None]
        there = key_head < KEY_HEADS
        key, swapped = _load_heads(row, HEADS, KEY_HEADS, key_norm, eps, dims, DIM, KEY_PADDED, NORMED)
        turned_key = _rotate(key, swapped, turn_cos, turn_sin, dims[None, :], DIM)
        value = tl.load(row + (HEADS + KEY_HEADS + key_head) * DIM + dims[None, :], mask=there, other=0.0)
        to = (
            slot * slot_stride
            + tl.load(rows + token).to(tl.int64) * DIM
            + key_head.to(tl.int64) * head_stride
            + dims[None, :]
        )
        tl.store(keys + to, key.to(keys.dtype.element_ty), mask=there)
        tl.store(rotated + to, turned_key.to(rotated.dtype.element_ty), mask=there)
        tl.store(values + to, value, mask=there)


def rotate_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, query_norm: Tensor | None, key_norm: Tensor | None, eps: float,
    keys: Tensor, rotated: Tensor, values: Tensor, slots: Tensor, rows: Tensor, *, heads: int,
) -> Tensor:  # fmt: skip
    """Rotated queries (n, H, D) of ``qkv`` (n, (H + 2 K) D); writes the keys and values of the tokens.

    ``cos`` and ``sin``: (n, D) float32; ``query_norm`` and ``key_norm``: (D,), both or neither. Token i's key (normed,
    but not rotated), rotated key and value go to row ``rows[i]`` of slot ``slots[i]``; both (n,) int64, no row twice. A
    token with a negative slot is padding and writes nothing. ``keys``, ``rotated``, ``values``: (slots, K, rows, D).
    Reads n (H + 2 K) D elements and 2 n D of float32, writes n (H + 3 K) D.
    """
    (count, width), (_, key_heads, _, dim) = qkv.shape, keys.shape
    assert width == (heads + 2 * key_heads) * dim, "queries, keys and values side by side"
    assert all(part.is_contiguous() for part in (qkv, cos, sin, keys, rotated, values)), "rows are contiguous"
    assert len(cos) == len(sin) == len(slots) == len(rows) == count, "one for each token"
    queries = qkv.new_empty(count, heads, dim)
    normed = query_norm is not None and key_norm is not None
    with _on(qkv):
        _rotate_store[(count,)](
            qkv, cos, sin, query_norm if normed else cos, key_norm if normed else cos, eps,
            keys, rotated, values, slots, rows, queries, keys.stride(0), keys.stride(1),
            HEADS=heads, KEY_HEADS=key_heads, PADDED=triton.next_power_of_2(heads),
            KEY_PADDED=triton.next_power_of_2(key_heads), DIM=dim, NORMED=normed, num_warps=4,
        )  # fmt: skip
    return queries


@triton.jit(do_not_specialize=["slot", "first", "count"], do_not_specialize_on_alignment=["index"])
def _move_rows(
    keys, rotated, values, slot, index, first, count, cos, sin, layer_stride, slot_stride, head_stride,
    DIM: tl.constexpr, MOVED: tl.constexpr,
):  # fmt: skip
    layer, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    base = layer * layer_stride + tl.cast(slot, tl.int64) * slot_stride + head * head_stride
    dims = tl.arange(0, DIM)[None, :]
    swapped = (dims + DIM // 2) % DIM
    # Loads of a later block are of rows that no earlier block has written. Within a block the warps run apart: none may
    # write before all have read. The barrier also keeps a warp that is ahead from writing what another still reads.
    if tl.program_id(2) == 0:
        for start in range(0, count, MOVED):
            number = start + tl.arange(0, MOVED)
            there = (number < count)[:, None]
            source = tl.load(index + number, mask=number < count, other=0).to(tl.int64)[:, None]
            value = tl.load(values + base + source * DIM + dims, mask=there, other=0.0)
            tl.debug_barrier()
            tl.store(values + base + (first + number).to(tl.int64)[:, None] * DIM + dims, value, mask=there)
    else:
        for start in range(0, count, MOVED):
            number = start + tl.arange(0, MOVED)
            there = (number < count)[:, None]
            source = tl.load(index + number, mask=number < count, other=0).to(tl.int64)[:, None]
            own = tl.load(keys + base + source * DIM + dims, mask=there, other=0.0)
            other = tl.load(keys + base + source * DIM + swapped, mask=there, other=0.0).to(tl.float32)
            turn = number.to(tl.int64)[:, None] * DIM + dims
            turn_cos = tl.load(cos + turn, mask=there, other=0.0)
            turn_sin = tl.load(sin + turn, mask=there, other=0.0)
            turned = _rotate(own.to(tl.float32), other, turn_cos, turn_sin, dims, DIM)
            tl.debug_barrier()
            to = base + (first + number).to(tl.int64)[:, None] * DIM + dims
            tl.store(keys + to, own, mask=there)
            tl.store(rotated + to, turned.to(rotated.dtype.element_ty), mask=there)


def move_rows(
    keys: Tensor, rotated: Tensor, values: Tensor, slot: int, index: Tensor, first: int, cos: Tensor, sin: Tensor
) -> None:
    """Row ``first + i`` of a slot becomes its row ``index[i]``, in all layers; its rotated key is made anew.

    ``keys``, ``rotated``, ``values``: (layers, slots, K, rows, D); ``index``: (m,) int64, with
    ``index[i] >= first + i``: rows only move down, and in ascending order nothing is overwritten that is still to be
    read. ``cos`` and ``sin``: (m, D) float32. One program moves the values of a layer's head, another one its keys,
    block by block in ascending order. Reads 2 m layers K D elements (and cosine and sine from the L2 cache) and writes
    3 m layers K D.
    """
    layers, _, key_heads, _, dim = keys.shape
    assert len(cos) == len(sin) == len(index), "one rotation for each row"
    assert all(part.is_contiguous() for part in (keys, rotated, values, cos, sin, index)), "rows are contiguous"
    with _on(keys):
        # One stage: loads that ran ahead of the barrier would break it.
        _move_rows[(layers, key_heads, 2)](
            keys, rotated, values, slot, index, first, len(index), cos, sin,
            keys.stride(0), keys.stride(1), keys.stride(2), DIM=dim, MOVED=MOVED, num_warps=8, num_stages=1,
        )  # fmt: skip


@triton.jit(do_not_specialize_on_alignment=["slots", "tokens", "penalty", "temperature"])
def _penalize(
    logits, token_mask, slots, tokens, penalty, temperature, scores, WIDTH: tl.constexpr, COLUMNS: tl.constexpr
):
    stream = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    slot = tl.load(slots + stream).to(tl.int64)
    there = column < tl.where(slot >= 0, WIDTH, 0)
    newest = there & (column == tl.load(tokens + stream))
    mask = token_mask + slot * WIDTH + column
    # Only this program looks at these columns of the slot; the new mark is counted from the token, not from memory.
    marked = (tl.load(mask, mask=there, other=0) != 0) | newest
    tl.store(mask, tl.full([COLUMNS], 1, tl.uint8), mask=newest)
    score = tl.load(logits + stream * WIDTH + column, mask=column < WIDTH, other=0.0).to(tl.float32)
    factor = tl.zeros([COLUMNS], tl.float32) + tl.load(penalty + stream)
    score = tl.where(marked, tl.where(score < 0, score * factor, tl.div_rn(score, factor)), score)
    heat = tl.load(temperature + stream)
    heat = tl.zeros([COLUMNS], tl.float32) + tl.where(heat == 0, 1.0, heat)
    tl.store(scores + stream * WIDTH + column, tl.div_rn(score, heat), mask=column < WIDTH)


def penalize(
    logits: Tensor, token_mask: Tensor, slots: Tensor, tokens: Tensor, penalty: Tensor, temperature: Tensor
) -> Tensor:
    """Scores (b, V) float32 of ``logits`` (b, V) after repetition penalty and temperature; marks ``tokens``.

    ``token_mask``: (slots, V) bool, the tokens of each slot's text; ``tokens[i]`` is marked in row ``slots[i]`` first.
    ``slots`` and ``tokens``: (b,) int64, no slot twice; ``penalty`` and ``temperature``: (b,) float32; temperature 0
    divides by nothing. A negative slot is an inert place: it has no marks, none is written, its scores are its logits
    by its temperature. Reads b V logits and b V bytes of the mask, writes b V of float32 and b bytes.
    """
    count, width = logits.shape
    assert all(part.is_contiguous() for part in (logits, token_mask)), "rows are contiguous"
    assert len(slots) == len(tokens) == len(penalty) == len(temperature) == count, "one for each stream"
    scores = torch.empty(count, width, dtype=torch.float32, device=logits.device)
    with _on(logits):
        _penalize[(count, triton.cdiv(width, COLUMNS))](
            logits, token_mask.view(torch.uint8), slots, tokens, penalty, temperature, scores,
            WIDTH=width, COLUMNS=COLUMNS, num_warps=4,
        )  # fmt: skip
    return scores


@triton.jit(do_not_specialize_on_alignment=["top_k", "top_p"])
def _pick(top, ids, noise, top_k, top_p, out, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    stream = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, PADDED)
    limit = tl.load(top_k + stream)
    count = tl.where((limit <= 0) | (limit > WIDTH), WIDTH, limit)
    there = place < count
    score = tl.load(top + stream * WIDTH + place, mask=there, other=float("-inf"))
    weight = tl.exp(score - tl.max(score, 0))
    share = weight / tl.sum(weight, 0)
    before = tl.cumsum(share, 0) - share
    nucleus = tl.load(top_p + stream)
    score = tl.where(before >= tl.where(nucleus < 1.0, nucleus, float("inf")), float("-inf"), score)
    score += tl.load(noise + stream * WIDTH + place, mask=there, other=0.0)
    best = tl.argmax(score, 0)
    # Scores that are no numbers must not lead outside the row.
    tl.store(out + stream, tl.load(ids + stream * WIDTH + tl.minimum(best, WIDTH - 1)))


def pick(top: Tensor, ids: Tensor, noise: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """The tokens (b,) int64 drawn from each stream's k best.

    ``top``: (b, k) float32 scores, descending; ``ids``: (b, k) int64, their tokens; ``noise``: (b, k) float32 Gumbel
    numbers; ``top_k``: (b,) int64, how many of the k count (0: all); ``top_p``: (b,) float32, the share of the nucleus
    among those (1: all). One program holds a row: k is some thousands at most. Reads 16 b k bytes and 12 b, writes 8 b.
    """
    count, width = top.shape
    assert len(top_k) == len(top_p) == count, "one for each stream"
    out = torch.empty(count, dtype=torch.int64, device=top.device)
    with _on(top):
        _pick[(count,)](
            top.contiguous(), ids.contiguous(), noise.contiguous(), top_k, top_p, out,
            WIDTH=width, PADDED=triton.next_power_of_2(width), num_warps=4,
        )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["width"])
def _best(source, keys, top, ids, width, COUNT: tl.constexpr, PADDED: tl.constexpr, COLUMNS: tl.constexpr,
          SCORES: tl.constexpr, LAST: tl.constexpr):  # fmt: skip
    row, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = piece * COLUMNS + tl.arange(0, COLUMNS)
    there = column < width
    if SCORES:
        # One number orders a score and, among equal ones, its place: integers that ascend as floats do, then columns.
        bits = tl.load(source + row * width + column, mask=there, other=0.0).to(tl.int32, bitcast=True)
        ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
        key = ordered * 4294967296 + (0x7FFFFFFF - column).to(tl.int64)
    else:
        key = tl.load(source + row * width + column, mask=there, other=0)
    key = tl.where(there, key, -0x7FFFFFFFFFFFFFFF)
    best = tl.topk(key, PADDED)
    place = tl.arange(0, PADDED)
    if LAST:
        ordered = (best >> 32).to(tl.int32)
        bits = tl.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
        to = row * COUNT + place
        tl.store(top + to, bits.to(tl.float32, bitcast=True), mask=place < COUNT)
        tl.store(ids + to, 0x7FFFFFFF - (best & 0x7FFFFFFF), mask=place < COUNT)
    else:
        tl.store(keys + (row * tl.num_programs(1) + piece) * COUNT + place, best, mask=place < COUNT)


def best(scores: Tensor, count: int, *, columns: int = COLUMNS) -> tuple[Tensor, Tensor]:
    """The ``count`` best scores (b, count) of each row, the best first, and their columns, int64.

    ``scores``: (b, n) float32, n at least ``count``, which is at most half of ``columns``, a power of two. Of equal
    scores those of lower columns come first; what is not a number is above all. A launch leaves ``count`` of each
    ``columns`` numbers, until one piece is left: three launches for 64 of a vocabulary, where torch's topk has 22.
    Reads n b scores once; each launch writes, and the next one reads, ``count`` numbers of int64 for each piece.
    """
    rows, width = scores.shape
    assert 0 < count <= min(width, columns // 2), "each launch leaves fewer"
    assert scores.is_contiguous(), "rows are contiguous"
    assert scores.dtype == torch.float32, "their bits are ordered as those of float32"
    top = torch.empty(rows, count, dtype=torch.float32, device=scores.device)
    ids = torch.empty(rows, count, dtype=torch.int64, device=scores.device)
    source = scores
    with _on(scores):
        while True:
            pieces = triton.cdiv(width, columns)
            keys = ids if pieces == 1 else torch.empty(rows, pieces * count, dtype=torch.int64, device=scores.device)
            _best[(rows, pieces)](
                source, keys, top, ids, width, COUNT=count, PADDED=triton.next_power_of_2(count), COLUMNS=columns,
                SCORES=source is scores, LAST=pieces == 1, num_warps=4,
            )  # fmt: skip
            if pieces == 1:
                return top, ids
            source, width = keys, pieces * count


@triton.jit(do_not_specialize=["pieces"], do_not_specialize_on_alignment=["slots", "lengths"])
def _decode_pieces(
    qkv, cos, sin, query_norm, key_norm, eps, keys, rotated, values, slots, lengths, sums, highest, totals, scale,
    slot_stride, head_stride, pieces,
    HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, PADDED: tl.constexpr, DIM: tl.constexpr, NORMED: tl.constexpr,
    PIECE: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    stream, head, piece = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    slot = tl.load(slots + stream).to(tl.int64)
    length = tl.load(lengths + stream).to(tl.int32)
    first = piece * PIECE
    if (slot < 0) | (first > length):
        return
    GROUP: tl.constexpr = HEADS // KEY_HEADS
    dtype = rotated.dtype.element_ty
    dims = tl.arange(0, DIM)
    row = qkv + stream * ((HEADS + 2 * KEY_HEADS) * DIM)
    turn_cos = tl.load(cos + stream * DIM + dims)[None, :]
    turn_sin = tl.load(sin + stream * DIM + dims)[None, :]
    own, other = _load_heads(row, head * GROUP, GROUP, query_norm, eps, dims, DIM, PADDED, NORMED)
    query = _rotate(own, other, turn_cos, turn_sin, dims[None, :], DIM).to(dtype)
    base = slot * slot_stride + head.to(tl.int64) * head_stride
    most = tl.full([PADDED], float("-inf"), tl.float32)
    total = tl.zeros([PADDED], tl.float32)
    out = tl.zeros([PADDED, DIM], tl.float32)
    last = tl.minimum(first + PIECE, length)
    for start in range(first, last, BLOCK):
        # Each block has a row, so that the largest score is finite.
        number = start + tl.arange(0, BLOCK)
        here = number < last
        at = tl.arange(0, BLOCK)[:, None] * DIM + dims[None, :]
        block = base + tl.cast(start, tl.int64) * DIM
        key = tl.load(rotated + block + at, mask=here[:, None], other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        scores = tl.where(here[None, :], scores, float("-inf"))
        larger = tl.maximum(most, tl.max(scores, 1))
        weights = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(most - larger)
        value = tl.load(values + block + at, mask=here[:, None], other=0.0)
        total = total * shrink + tl.sum(weights, 1)
        out = tl.dot(weights.to(dtype), value, out * shrink[:, None], input_precision=PRECISION)
        most = larger
    if length < first + PIECE:
        # The new row is this program's: it is written for later steps and attended to from here.
        new, swapped = _load_heads(row, HEADS + head, 1, key_norm, eps, dims, DIM, 1, NORMED)
        new_key = _rotate(new, swapped, turn_cos, turn_sin, dims[None, :], DIM).to(dtype)
        new_value = tl.load(row + (HEADS + KEY_HEADS + head) * DIM + dims)[None, :]
        new_row = base + length.to(tl.int64) * DIM + dims[None, :]
        tl.store(keys + new_row, new.to(dtype))
        tl.store(rotated + new_row, new_key)
        tl.store(values + new_row, new_value)
        score = tl.sum(query.to(tl.float32) * new_key.to(tl.float32), 1) * scale
        highest_score = tl.maximum(most, score)
        weight = tl.exp2(score - highest_score)
        lessen = tl.exp2(most - highest_score)
        total = total * lessen + weight
        out = out * lessen[:, None] + weight[:, None] * new_value.to(tl.float32)
        most = highest_score
    member = tl.arange(0, PADDED)
    to = ((stream * KEY_HEADS + head) * pieces + piece) * GROUP + member
    tl.store(highest + to, most, mask=member < GROUP)
    tl.store(totals + to, total, mask=member < GROUP)
    tl.store(sums + to[:, None] * DIM + dims[None, :], out, mask=(member < GROUP)[:, None])


@triton.jit(do_not_specialize=["pieces"], do_not_specialize_on_alignment=["slots", "lengths"])
def _decode_merge(
    sums, highest, totals, slots, lengths, out, pieces,
    HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, DIM: tl.constexpr, PIECE: tl.constexpr, MERGE: tl.constexpr,
):  # fmt: skip
    stream, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    GROUP: tl.constexpr = HEADS // KEY_HEADS
    inert = tl.load(slots + stream) < 0
    length = tl.load(lengths + stream).to(tl.int32)
    count = tl.where(inert, 0, length // PIECE + 1)
    first = (stream * KEY_HEADS + head // GROUP) * pieces
    dims = tl.arange(0, DIM)
    most = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    mixed = tl.zeros([DIM], tl.float32)
    for start in range(0, count, MERGE):
        # The first piece of each block has rows, so that the largest score is finite.
        piece = start + tl.arange(0, MERGE)
        there = piece < count
        at = (first + piece) * GROUP + head % GROUP
        high = tl.load(highest + at, mask=there, other=float("-inf"))
        larger = tl.maximum(most, tl.max(high, 0))
        weights = tl.exp2(high - larger)
        shrink = tl.exp2(most - larger)
        part = tl.load(sums + at[:, None] * DIM + dims[None, :], mask=there[:, None], other=0.0)
        total = total * shrink + tl.sum(weights * tl.load(totals + at, mask=there, other=0.0), 0)
        mixed = mixed * shrink + tl.sum(weights[:, None] * part, 0)
        most = larger
    mixed = mixed / tl.where(inert, 1.0, total)
    tl.store(out + (stream * HEADS + head) * DIM + dims, mixed.to(out.dtype.element_ty))


def decode_attention(
    qkv: Tensor, cos: Tensor, sin: Tensor, query_norm: Tensor | None, key_norm: Tensor | None, eps: float,
    keys: Tensor, rotated: Tensor, values: Tensor, slots: Tensor, lengths: Tensor, *, heads: int, scaling: float,
    piece: int = PIECE, block: int = BLOCK, num_warps: int = 4, num_stages: int = 3,
) -> Tensor:  # fmt: skip
    """Attention (b, H D) of each stream's new token over its rows and itself; writes its row.

    ``qkv``: (b, (H + 2 K) D), not rotated; ``cos`` and ``sin``: (b, D) float32; ``query_norm`` and ``key_norm``: (D,),
    both or neither. ``keys``, ``rotated``, ``values``: (slots, K, rows, D). ``slots`` and ``lengths``: (b,) int64, no
    slot twice: whose rows, and how many there are before this token, fewer than the slot has; the token's key, rotated
    key and value go to row ``lengths[i]``. A negative slot is an inert place: it reads and writes no row, its result
    is 0. Softmax and sums are float32.

    Two launches. In the first each program attends to ``piece`` rows of one key head, whatever the batch; programs
    behind a stream's rows return at once. The second adds up a stream's pieces. ``piece`` is a multiple of ``block``.
    Reads 2 K D elements for each row and (H + 2 K) D for each token, writes (H + 3 K) D; partial sums, written and
    read once, are H (D + 2) of float32 for each piece.
    """
    (count, width), (_, key_heads, rows, dim) = qkv.shape, keys.shape
    assert width == (heads + 2 * key_heads) * dim, "queries, keys and values side by side"
    assert all(part.is_contiguous() for part in (qkv, cos, sin, keys, rotated, values)), "rows are contiguous"
    assert len(cos) == len(sin) == len(slots) == len(lengths) == count, "one for each stream"
    assert piece % block == 0, "a piece is whole blocks"
    pieces, group = triton.cdiv(rows, piece), heads // key_heads
    sums = torch.empty(count, key_heads, pieces, group, dim, dtype=torch.float32, device=qkv.device)
    highest, totals = (sums.new_empty(count, key_heads, pieces, group) for _ in range(2))
    out = qkv.new_empty(count, heads * dim)
    normed = query_norm is not None and key_norm is not None
    with _on(qkv):
        _decode_pieces[(count, key_heads, pieces)](
            qkv, cos, sin, query_norm if normed else cos, key_norm if normed else cos, eps,
            keys, rotated, values, slots, lengths, sums, highest, totals, scaling * math.log2(math.e),
            keys.stride(0), keys.stride(1), pieces,
            HEADS=heads, KEY_HEADS=key_heads, PADDED=max(16, triton.next_power_of_2(group)), DIM=dim, NORMED=normed,
            PIECE=piece, BLOCK=block, PRECISION=_precision(qkv), num_warps=num_warps, num_stages=num_stages,
        )  # fmt: skip
        _decode_merge[(count, heads)](
            sums, highest, totals, slots, lengths, out, pieces,
            HEADS=heads, KEY_HEADS=key_heads, DIM=dim, PIECE=piece, MERGE=MERGE, num_warps=4,
        )  # fmt: skip
    return out


def _precision(tensor: Tensor) -> str:
    """How products of a dtype are made; only float32 has a choice."""
    return "ieee" if tensor.dtype == torch.float32 else "tf32"


@triton.jit
def _attend_block(
    query, out, most, total, keys, values, start, end, seen, scale, key_stride, value_stride,
    DIM: tl.constexpr, COLUMNS: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of rows for a tile of queries; MASKED: rows behind ``seen`` are hidden, rows from ``end`` not read."""
    number, dims = tl.arange(0, COLUMNS), tl.arange(0, DIM)
    key_at = keys + tl.cast(start, tl.int64) * key_stride + number[:, None] * key_stride + dims[None, :]
    value_at = values + tl.cast(start, tl.int64) * value_stride + number[:, None] * value_stride + dims[None, :]
    if MASKED:
        here = (start + number < end)[:, None]
        key = tl.load(key_at, mask=here, other=0.0)
        value = tl.load(value_at, mask=here, other=0.0)
    else:
        key, value = tl.load(key_at), tl.load(value_at)
    scores = tl.dot(query, tl.trans(key), input_precision=PRECISION)
    if MASKED:
        scores = tl.where(start + number[None, :] <= seen[:, None], scores, float("-inf"))
    larger = tl.maximum(most, tl.max(scores, 1) * scale)
    weights = tl.exp2(scores * scale - larger[:, None])
    shrink = tl.exp2(most - larger)
    total = total * shrink + tl.sum(weights, 1)
    out = tl.dot(weights.to(value.dtype), value, out * shrink[:, None], input_precision=PRECISION)
    return out, larger, total


@triton.jit(do_not_specialize=["count", "before"])
def _prefill(
    queries, keys, values, out, scale, count, before, key_head_stride, key_stride, value_head_stride, value_stride,
    HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, QUERIES: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    # The longest tiles first.
    tile, head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)
    first_token = tile * QUERIES // GROUP
    place = tile * QUERIES + tl.arange(0, QUERIES)
    token, member = place // GROUP, place % GROUP
    dims = tl.arange(0, DIM)
    base = (first_token.to(tl.int64) * HEADS + head * GROUP) * DIM
    at = ((token - first_token) * HEADS + member)[:, None] * DIM + dims[None, :]
    there = (token < count)[:, None]
    query = tl.load(queries + base + at, mask=there, other=0.0)
    key_rows, value_rows = keys + head.to(tl.int64) * key_head_stride, values + head.to(tl.int64) * value_head_stride
    most = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mixed = tl.zeros([QUERIES, DIM], tl.float32)
    # Every query sees row 0, which is in the first block: from there on its largest score is finite.
    seen = before + token
    end = before + tl.minimum((tile * QUERIES + QUERIES - 1) // GROUP, count - 1) + 1
    full = (before + first_token + 1) // COLUMNS * COLUMNS
    for start in range(0, full, COLUMNS):
        mixed, most, total = _attend_block(
            query, mixed, most, total, key_rows, value_rows, start, end, seen, scale, key_stride, value_stride,
            DIM, COLUMNS, False, PRECISION,
        )  # fmt: skip
    for start in range(full, end, COLUMNS):
        mixed, most, total = _attend_block(
            query, mixed, most, total, key_rows, value_rows, start, end, seen, scale, key_stride, value_stride,
            DIM, COLUMNS, True, PRECISION,
        )  # fmt: skip
    tl.store(out + base + at, (mixed / total[:, None]).to(out.dtype.element_ty), mask=there)


def prefill_attention(
    queries: Tensor, keys: Tensor, values: Tensor, before: int, scaling: float, *,
    tile: int | None = None, block: int | None = None, num_warps: int | None = None, num_stages: int | None = None,
) -> Tensor:  # fmt: skip
    """Attention (n, H, D) of rotated ``queries`` (n, H, D), the last n of ``before`` + n rows, causal.

    ``keys`` (rotated) and ``values``: (K, rows, D), views of a slot of at least ``before`` + n rows; the last
    dimension is contiguous. Query i sees the rows up to ``before`` + i. ``scaling`` is above 0. Softmax and sums are
    float32.

    A program takes ``tile`` queries of one key head, token by token with the heads of its group side by side, over
    blocks of ``block`` rows; only blocks that not all of its queries see whole are masked. None: what fits the dtype.
    Reads and writes n H D elements; the rows, 2 K D elements each, are read n H / (K ``tile``) times, from the L2 cache
    where programs of a key head run side by side.
    """
    (count, heads, dim), key_heads = queries.shape, keys.shape[0]
    assert queries.is_contiguous(), "rows are contiguous"
    assert keys.stride(2) == values.stride(2) == 1, "elements of a head are contiguous"
    group, out = heads // key_heads, torch.empty_like(queries)
    wide = queries.dtype == torch.float32
    # Float32 is multiplied without tensor cores; its tiles are small.
    tile, block = tile or (16 if wide else 128), block or (32 if wide else 64)
    with _on(queries):
        _prefill[(triton.cdiv(count * group, tile), key_heads)](
            queries, keys, values, out, scaling * math.log2(math.e), count, before,
            keys.stride(0), keys.stride(1), values.stride(0), values.stride(1),
            HEADS=heads, GROUP=group, DIM=dim, QUERIES=tile, COLUMNS=block, PRECISION=_precision(queries),
            num_warps=num_warps or (4 if wide else 8), num_stages=num_stages or (2 if wide else 3),
        )  # fmt: skip
    return out
