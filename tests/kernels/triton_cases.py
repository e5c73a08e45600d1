"""Triton kernels against plain torch in float64. A program: Triton decides at its import whether it interprets.

Prints a JSON object: what went wrong in each case, "" where nothing did. Compiled on a CUDA device, else interpreted.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from streamingvlm.kernels import triton_kernels as kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
#: The interpreter takes bfloat16 for integers where it multiplies matrices.
DOT_FLOATS = FLOATS if DEVICE == "cuda" else FLOATS[:2]
#: Dtypes, and whether heads are normed: all pairs, or those that an interpreter has time for.
NORMED = ((torch.float32, True), (torch.float16, False))
DECODE_KINDS = tuple(product(FLOATS, (True, False))) if DEVICE == "cuda" else NORMED
EPS = 1e-6


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape).to(dtype).to(DEVICE)


def index(*numbers: int) -> Tensor:
    return torch.tensor(numbers, device=DEVICE)


def assert_close(ours: Tensor, wanted: Tensor, units: float = 2.0, floor: float = 1.0) -> None:
    """Errors of at most ``units`` roundings of the dtype of ``ours``, of numbers of size ``floor`` and above."""
    assert ours.shape == wanted.shape
    bound = units * torch.finfo(ours.dtype).eps * wanted.abs().clamp_min(floor)
    error = (ours.double() - wanted).abs()
    assert bool((error <= bound).all()), f"{ours.dtype}: off by {(error / bound).max() * units:.2f} units"


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + EPS).sqrt() * weight.double()


def rotation(count: int, dim: int) -> tuple[Tensor, Tensor]:
    angles = torch.rand(count, dim // 2) * 100
    return angles.cos().repeat(1, 2).to(DEVICE), angles.sin().repeat(1, 2).to(DEVICE)


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """States (n, heads, d) in float64 by (n, d)."""
    first, second = states.double().chunk(2, dim=-1)
    return states.double() * cos[:, None].double() + torch.cat([-second, first], dim=-1) * sin[:, None].double()


def attend(queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """Queries (n, H, d), the last n of rows (K, m, d), causal, in float64."""
    count, heads, _ = queries.shape
    keys, values = (part.double().repeat_interleave(heads // len(keys), dim=0) for part in (keys, values))
    scores = queries.double().transpose(0, 1) @ keys.transpose(1, 2) * scaling
    hidden = ~torch.ones(count, keys.shape[1], dtype=torch.bool, device=DEVICE).tril_(keys.shape[1] - count)
    return (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values).transpose(0, 1)


def pool(*shape: int, dtype: torch.dtype) -> list[Tensor]:
    return [random(*shape, dtype=dtype) for _ in range(3)]


def check_add_norm() -> None:
    for dtype, (count, width) in product(FLOATS, ((1, 3584), (3, 64), (5, 100))):
        x, delta, weight = random(count, width, dtype=dtype), random(count, width, dtype=dtype), random(width)
        total, normed = kernels.add_norm(x, delta, weight.to(dtype), EPS)
        assert_close(total, x.double() + delta.double(), 1.0)
        assert_close(normed, rms_norm(total.double(), weight.to(dtype)), 4.0)
        same, normed = kernels.add_norm(x, None, weight.to(dtype), EPS)
        assert same is x
        assert_close(normed, rms_norm(x.double(), weight.to(dtype)), 4.0)
        alone = kernels.add_norm(x[-1:].clone(), delta[-1:].clone(), weight.to(dtype), EPS)
        together = kernels.add_norm(x, delta, weight.to(dtype), EPS)
        assert all(torch.equal(a, b[-1:]) for a, b in zip(alone, together, strict=True))


def check_silu_mul() -> None:
    for dtype, (count, inner) in product(FLOATS, ((1, 18944), (3, 100), (2, 1024))):
        gate_up = random(count, 2 * inner, dtype=dtype) * 4
        gate_up[0, :2] = torch.tensor([-200.0, 60.0])
        gate, up = gate_up.double().chunk(2, dim=-1)
        assert_close(kernels.silu_mul(gate_up), F.silu(gate) * up, 4.0)


def check_rotate_store() -> None:
    for dtype, normed, (heads, key_heads, dim) in product(
        FLOATS, (False, True), ((28, 4, 128), (3, 1, 16), (6, 3, 64))
    ):
        qkv, (cos, sin) = random(5, (heads + 2 * key_heads) * dim, dtype=dtype), rotation(5, dim)
        norms = [random(dim, dtype=dtype) if normed else None for _ in range(2)]
        stores = pool(3, key_heads, 9, dim, dtype=dtype)
        before = [store.clone() for store in stores]
        slots, rows = index(2, 0, -1, 0, 2), index(8, 0, 3, 1, 4)
        ours = kernels.rotate_store(qkv, cos, sin, *norms, EPS, *stores, slots, rows, heads=heads)
        query, key, value = qkv.view(5, -1, dim).split([heads, key_heads, key_heads], dim=1)
        wanted_query, wanted_key = query.double(), key.double()
        if norms[0] is not None and norms[1] is not None:
            wanted_query, wanted_key = rms_norm(query.double(), norms[0]), rms_norm(key.double(), norms[1])
        assert_close(ours, rotate(wanted_query, cos, sin), 6.0, floor=4.0)
        for i, (slot, row) in enumerate(zip(slots.tolist(), rows.tolist(), strict=True)):
            if slot >= 0:
                keys, rotated, values = (store[slot, :, row].clone() for store in stores)
                assert_close(keys, wanted_key[i], 4.0)
                assert_close(rotated[None], rotate(keys[None], cos[i : i + 1], sin[i : i + 1]), 2.0)
                assert torch.equal(values, value[i])
                for store, old in zip(stores, before, strict=True):
                    store[slot, :, row] = old[slot, :, row]
        assert all(torch.equal(store, old) for store, old in zip(stores, before, strict=True))


def check_move_rows() -> None:
    # More rows than one block, and every row to the one before it: each block overlaps itself and the next one.
    for dtype, (rows, first, kept) in product(
        FLOATS, ((300, 5, tuple(range(6, 300))), (300, 0, tuple(range(1, 300, 3))), (20, 7, (7, 9, 15)), (9, 2, ()))
    ):
        stores = pool(2, 3, 2, rows, 32, dtype=dtype)
        before = [store.clone() for store in stores]
        cos, sin = rotation(len(kept), 32)
        source = torch.tensor(kept, dtype=torch.long, device=DEVICE)
        kernels.move_rows(*stores, 1, source, first, cos, sin)
        keys, _, values = (old[:, 1].index_select(2, source) for old in before)
        there = (slice(None), 1, slice(None), slice(first, first + len(kept)))
        assert torch.equal(stores[0][there], keys)
        assert torch.equal(stores[2][there], values)
        for layer in range(2):
            wanted = rotate(keys[layer].transpose(0, 1), cos, sin).transpose(0, 1)
            assert_close(stores[1][there][layer], wanted)
        for store, old in zip(stores, before, strict=True):
            store[there] = old[there]
            assert torch.equal(store, old)


def check_same_rotation() -> None:
    """A key has the same bits whichever kernel rotates it."""
    for dtype in DOT_FLOATS:
        qkv, (cos, sin) = random(1, 6 * 64, dtype=dtype), rotation(1, 64)
        stores, others = pool(1, 2, 64, 64, dtype=dtype), pool(1, 2, 64, 64, dtype=dtype)
        kernels.rotate_store(qkv, cos, sin, None, None, EPS, *stores, index(0), index(3), heads=2)
        kernels.decode_attention(
            qkv, cos, sin, None, None, EPS, *others, index(0), index(3), heads=2, scaling=0.1, piece=16, block=16
        )
        assert all(torch.equal(a[:, :, 3], b[:, :, 3]) for a, b in zip(stores, others, strict=True))
        kernels.move_rows(*(other[None] for other in others), 0, index(3), 1, cos, sin)
        assert torch.equal(others[1][:, :, 1], stores[1][:, :, 3])


def decode(qkv: Tensor, cos: Tensor, sin: Tensor, norms: list[Tensor | None], stores: list[Tensor], slots: Tensor,
           lengths: Tensor, heads: int, **options: int) -> Tensor:  # fmt: skip
    scaling = cos.shape[1] ** -0.5
    return kernels.decode_attention(
        qkv, cos, sin, *norms, EPS, *stores, slots, lengths, heads=heads, scaling=scaling, **options
    )


def check_decode(heads: int, key_heads: int, dim: int, lengths: tuple[int, ...], **options: int) -> None:
    """Streams of ``lengths`` rows and an inert place among them: against float64, and alone against in company."""
    for dtype, normed in DECODE_KINDS:
        count, rows = len(lengths), max(lengths) + 3
        slots = [*range(count)][::-1]
        slots[1] = -1
        qkv, (cos, sin) = random(count, (heads + 2 * key_heads) * dim, dtype=dtype), rotation(count, dim)
        norms = [random(dim, dtype=dtype) if normed else None for _ in range(2)]
        before = pool(count, key_heads, rows, dim, dtype=dtype)
        # What is behind a stream's rows must not be looked at.
        for slot, length in zip(slots, lengths, strict=True):
            for store in before:
                store[slot, :, length if slot >= 0 else rows :] = torch.nan
        stores = [store.clone() for store in before]
        ours = decode(qkv, cos, sin, norms, stores, index(*slots), index(*lengths), heads, **options)
        plain = [store.clone() for store in before]
        queries = kernels.rotate_store(qkv, cos, sin, *norms, EPS, *plain, index(*slots), index(*lengths), heads=heads)
        for i, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
            if slot < 0:
                assert not ours[i].any()
                continue
            seen = [store[slot, :, : length + 1] for store in plain]
            for store, wanted in zip(stores, seen, strict=True):
                assert_close(store[slot, :, : length + 1], wanted.double(), 3.0 if normed else 0.0)
                assert bool(store[slot, :, length + 1 :].isnan().all())
            wanted = attend(queries[i : i + 1], seen[1], seen[2], dim**-0.5)
            assert_close(ours[i].view(1, heads, dim), wanted, 20.0 if dtype == torch.float32 else 4.0)
            alone, row = [store.clone() for store in before], slice(i, i + 1)
            single = decode(
                qkv[row].clone(), cos[row].clone(), sin[row].clone(), norms, alone, index(slot), index(length), heads,
                **options,
            )  # fmt: skip
            assert torch.equal(single[0], ours[i])
            assert all(
                torch.equal(a[slot].nan_to_num(9.0), b[slot].nan_to_num(9.0))
                for a, b in zip(alone, stores, strict=True)
            )


def check_decode_qwen() -> None:
    piece = kernels.PIECE
    check_decode(28, 4, 128, (0, 5, 1, piece - 1, piece, piece + 1))


def check_decode_small() -> None:
    check_decode(7, 1, 16, (0, 3, 1, 31, 32, 33, 200), piece=32, block=16)
    check_decode(4, 4, 32, (64, 2, 47), piece=32, block=32)


def check_decode_merges_many_pieces() -> None:
    check_decode(8, 4, 16, (16 * (2 * kernels.MERGE + 3) + 5, 1, 16 * kernels.MERGE - 1), piece=16, block=16)


def check_prefill(heads: int, key_heads: int, dim: int, count: int, before: int, **options: int) -> None:
    for dtype in DOT_FLOATS:
        rows = before + count
        queries = random(count, heads, dim, dtype=dtype)
        keys, values = (random(3, key_heads, rows + 5, dim, dtype=dtype) for _ in range(2))
        for store in (keys, values):
            store[1, :, rows:] = torch.nan
        ours = kernels.prefill_attention(queries, keys[1], values[1], before, dim**-0.5, **options)
        wanted = attend(queries, keys[1, :, :rows], values[1, :, :rows], dim**-0.5)
        assert_close(ours, wanted, 20.0 if dtype == torch.float32 else 4.0)


def check_prefill_shapes() -> None:
    for before, count in ((0, 1), (0, 70), (3, 129), (64, 64), (127, 1), (200, 37)):
        check_prefill(7, 1, 128, count, before)
        check_prefill(4, 2, 16, count, before)
    check_prefill(28, 4, 128, 20, 50)


def check_prefill_in_tiles() -> None:
    check_prefill(3, 1, 32, 50, 45, tile=16, block=16)
    check_prefill(8, 1, 16, 33, 16, tile=64, block=32)


def check_prefill_rows_first() -> None:
    """Rows of all heads side by side; and one query's result does not depend on the others."""
    keys, values = (random(90, 2, 32).transpose(0, 1) for _ in range(2))
    queries = random(40, 6, 32)
    ours = kernels.prefill_attention(queries, keys, values, 50, 0.2)
    assert_close(ours, attend(queries, keys, values, 0.2), 20.0)
    few = kernels.prefill_attention(queries[:9].clone(), keys, values, 50, 0.2)
    assert torch.equal(few, ours[:9])


def check_penalize() -> None:
    for dtype, width in product(FLOATS, (152064, 37)):
        logits = random(3, width, dtype=dtype) * 5
        mask = (torch.rand(4, width) < 0.3).to(DEVICE)
        mask[0, 7] = mask[3, 7] = False
        before, slots, tokens = mask.clone(), index(3, -1, 0), index(7, 9, 7)
        penalty = torch.tensor([1.3, 1.2, 1.0], device=DEVICE)
        temperature = torch.tensor([0.7, 0.5, 0.0], device=DEVICE)
        ours = kernels.penalize(logits, mask, slots, tokens, penalty, temperature)
        marks = before.clone()
        marks[3, 7] = marks[0, 7] = True
        assert torch.equal(mask, marks)
        wide = logits.double()
        worse = torch.where(wide < 0, wide * penalty[:, None].double(), wide / penalty[:, None].double())
        marked = torch.stack([marks[3], torch.zeros(width, dtype=torch.bool, device=DEVICE), marks[0]])
        wanted = torch.where(marked, worse, wide) / torch.where(temperature == 0, 1, temperature)[:, None].double()
        assert_close(ours, wanted)


def check_best() -> None:
    """Scores of bfloat16, so that many are equal: all in order, and equal ones by their columns."""
    shapes = ((1, 64, 30, 64), (2, 200, 5, 64), (1, 300, 16, 32))
    for rows, width, count, columns in (*shapes, (3, 152_064, 64, 1024)) if DEVICE == "cuda" else shapes:
        scores = random(rows, width, dtype=torch.bfloat16).float()
        scores[0, width // 2], scores[-1, 1], scores[-1, 2] = torch.inf, -torch.inf, 0.0
        top, ids = kernels.best(scores, count, columns=columns)
        wanted, places = scores.sort(dim=-1, descending=True, stable=True)
        assert torch.equal(top, wanted[:, :count]), f"scores of {rows} x {width}"
        assert torch.equal(ids, places[:, :count]), f"columns of {rows} x {width}"
        alone = kernels.best(scores[-1:].contiguous(), count, columns=columns)
        assert torch.equal(alone[0], top[-1:])
        assert torch.equal(alone[1], ids[-1:])
    nothing = torch.full((1, 100), torch.nan, device=DEVICE)
    found = kernels.best(nothing, 4, columns=32)[1]
    assert torch.equal(found, index(0, 1, 2, 3)[None]), "columns of the row, whatever they hold"


def check_pick() -> None:
    count, width = 60, 50
    top, ids = (random(count, width) * 3).sort(-1, descending=True)
    ids = ids * 1000 + 2**33
    noise = random(count, width).exp()
    top_k = index(*([0, 1, 7, 50, 99][i % 5] for i in range(count)))
    top_p = torch.tensor([(1.0, 0.9, 0.3)[i % 3] for i in range(count)], device=DEVICE)
    ours = kernels.pick(top, ids, noise, top_k, top_p)
    for i in range(count):
        few = min(int(top_k[i]) or width, width)
        score = top[i, :few].double()
        share = score.softmax(-1)
        if top_p[i] < 1:
            score = score.masked_fill(share.cumsum(-1) - share >= top_p[i].double(), -torch.inf)
        best = int((score + noise[i, :few].double()).argmax())
        assert int(ours[i]) == int(ids[i, best]), f"row {i}"
    alone = kernels.pick(top[7:8], ids[7:8], noise[7:8], top_k[7:8], top_p[7:8])
    assert torch.equal(alone, ours[7:8])
    # Without any number to choose from the first entry is taken, never one outside the row.
    nothing = torch.full_like(top, torch.nan)
    assert torch.isin(kernels.pick(nothing, ids, noise, top_k, top_p), ids).all()


CASES: dict[str, Callable[[], None]] = {
    "add_norm": check_add_norm,
    "silu_mul": check_silu_mul,
    "rotate_store": check_rotate_store,
    "move_rows": check_move_rows,
    "same_rotation": check_same_rotation,
    "decode_qwen": check_decode_qwen,
    "decode_small": check_decode_small,
    "decode_merges_many_pieces": check_decode_merges_many_pieces,
    "prefill_shapes": check_prefill_shapes,
    "prefill_in_tiles": check_prefill_in_tiles,
    "prefill_rows_first": check_prefill_rows_first,
    "penalize": check_penalize,
    "best": check_best,
    "pick": check_pick,
}


def main() -> None:
    faults = {}
    for name, check in CASES.items():
        torch.manual_seed(0)
        try:
            check()
            faults[name] = ""
        except Exception:
            faults[name] = traceback.format_exc()
    print(json.dumps(faults))


if __name__ == "__main__":
    main()
