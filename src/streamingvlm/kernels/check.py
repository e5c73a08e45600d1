"""Whether kernels do what torch's own operations do: run where a model is loaded on a GPU, and in tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .plain import Heads, Placement, PlainKernels, Stores

#: Largest relative difference (root mean square), by dtype.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}

ROWS, WIDTH, INNER, TOKENS = 300, 96, 80, 5


class _Case:
    """Small random inputs; every call of one seed draws the same."""

    def __init__(self, device: torch.device, dtype: torch.dtype, *, heads: int, dim: int, normed: bool) -> None:
        self.device, self.dtype = device, dtype
        # Drawn on the CPU: a device's own numbers may differ.
        self._source = torch.Generator().manual_seed(0)
        norm = self.draw(2, dim).abs() + 0.5
        self.heads = Heads(heads, 2, dim, eps=1e-6)
        if normed:
            self.heads = replace(self.heads, query_norm=norm[0], key_norm=norm[1])

    def draw(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, generator=self._source).to(self.device, dtype or self.dtype)

    def pool(self) -> Stores:
        """Three layers of two slots."""
        return Stores(*self.draw(3, 3, 2, 2, ROWS, self.heads.dim))

    def rotation(self, count: int) -> tuple[Tensor, Tensor]:
        angles = self.draw(count, self.heads.dim // 2, dtype=torch.float32).repeat(1, 2)
        return angles.cos(), angles.sin()

    def qkv(self, count: int) -> Tensor:
        return self.draw(count, (self.heads.queries + 2 * self.heads.keys) * self.heads.dim)


def _layer(pool: Stores) -> Stores:
    return Stores(pool.keys[1], pool.rotated[1], pool.values[1])


def _elementwise(kernels: PlainKernels, case: _Case) -> list[Tensor]:
    x, delta, weight = case.draw(TOKENS, WIDTH), case.draw(TOKENS, WIDTH), case.draw(WIDTH)
    return [
        *kernels.add_norm(x, delta, weight, 1e-6),
        kernels.add_norm(x, None, weight, 1e-6)[1],
        kernels.silu_mul(case.draw(TOKENS, 2 * INNER)),
        kernels.few_rows(x[:3].contiguous(), case.draw(INNER, WIDTH), case.draw(INNER)),
        kernels.many_rows(x, case.draw(INNER, WIDTH), None),
    ]


def _decoding(kernels: PlainKernels, case: _Case) -> list[Tensor]:
    pool, rotation = case.pool(), kernels.cast_rotation(case.rotation(3), case.dtype)
    placement = Placement([(1, 0, 1, 0), (0, 1, 2, 277)], 3, case.device)  # the third place is without a stream
    out = kernels.decode_attention(case.qkv(3), rotation, case.heads, _layer(pool), placement)
    return [out[:2], pool.keys, pool.rotated, pool.values]


def _prefill(kernels: PlainKernels, case: _Case) -> list[Tensor]:
    pool, count, before = case.pool(), 37, 150
    layer, rotation = _layer(pool), kernels.cast_rotation(case.rotation(count + 2), case.dtype)
    placement = Placement([(1, 0, count, before)], count + 2, case.device)
    queries = kernels.rotate_store(case.qkv(count + 2), rotation, case.heads, layer, placement)[:count]
    keys, values = (store[1, :, : before + count] for store in (layer.rotated, layer.values))
    mask = kernels.mask(before, count, case.device)
    out = kernels.attend_prefill(queries, keys, values, mask, case.heads.scaling)
    ends = Placement([(1, 0, 1, before + count - 1)], 1, case.device)
    return [queries, out, kernels.attend_rows(queries[-1:], case.heads, layer, ends), pool.keys, pool.rotated]


def _moving(kernels: PlainKernels, case: _Case) -> list[Tensor]:
    pool = case.pool()
    rows = np.concatenate([np.arange(40, 90), np.arange(30, 34), np.arange(100, 290)])  # some of them go backwards
    kernels.plan_move(pool, 1, rows, 25, kernels.cast_rotation(case.rotation(len(rows)), case.dtype))()
    return [pool.keys, pool.rotated, pool.values]


def _choice(kernels: PlainKernels, case: _Case) -> list[Tensor]:
    logits, mask = case.draw(3, WIDTH), case.draw(4, WIDTH) > 1
    slots, tokens = (torch.tensor(one, device=case.device) for one in ([2, 0, -1], [5, 7, 9]))
    heat = torch.tensor([1.0, 0.5, 1.0], device=case.device)
    scores = kernels.penalize(logits, mask, slots, tokens, heat + 0.2, heat)
    top, ids = case.draw(3, 16, dtype=torch.float32).sort(descending=True)
    best, chosen = kernels.best(case.draw(3, 5000, dtype=torch.float32), 64)
    kinds = torch.tensor([1, 8, 16], device=case.device)
    picked = kernels.pick(top, ids, case.draw(3, 16, dtype=torch.float32), kinds, heat)
    return [scores[:2], mask.float(), picked.float(), best, chosen.float()]


PARTS: tuple[Callable[[PlainKernels, _Case], list[Tensor]], ...] = (_elementwise, _decoding, _prefill, _moving, _choice)


@torch.inference_mode()
def wrong_parts(kernels: PlainKernels, device: torch.device, dtype: torch.dtype) -> list[str]:
    """What of ``kernels`` differs from plain torch on ``device`` in ``dtype``, on small cases; one line each.

    What a kernel raises is not caught: a device may be broken for good by it.
    """
    plain, found = PlainKernels(), []
    for heads, dim, normed in ((14, 128, False), (4, 64, True)):
        for part in PARTS:
            ours, theirs = (
                part(one, _Case(device, dtype, heads=heads, dim=dim, normed=normed)) for one in (kernels, plain)
            )
            off = max(_relative(a, b) for a, b in zip(ours, theirs, strict=True))
            if not off < TOLERANCE[dtype]:
                found.append(f"{part.__name__.strip('_')} of {heads} heads of {dim} is off by {off:.2g}")
    return found


def _relative(ours: Tensor, plain: Tensor) -> float:
    return float((ours.double() - plain.double()).norm() / plain.double().norm().clamp(min=1e-30))
