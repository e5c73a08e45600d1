"""A pool's rotated keys are made by its kernels, whatever happens to a slot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamingvlm.cache.kv_pool import Evicted, KVPool, KVShape
from streamingvlm.kernels.plain import CosSin, PlainKernels, Stores, plan_in_place, rotate

ROWS, DIM = 24, 16


class Exact(PlainKernels):
    """As kernels of a GPU do it: rotated in float32 and rounded once."""

    def plan_move(
        self, pool: Stores, slot: int, rows: NDArray[np.int64], first: int, rotation: CosSin
    ) -> Callable[[], None]:
        def move(index: Tensor) -> None:
            there = slice(first, first + len(index))
            for store in (pool.keys, pool.values):
                store[:, slot, :, there] = store[:, slot][:, :, index]
            pool.rotated[:, slot, :, there] = exact(pool.keys[:, slot, :, there], rotation)

        return plan_in_place(pool, slot, rows, first, rotation, move)


def exact(keys: Tensor, rotation: CosSin) -> Tensor:
    return rotate(keys.float(), *rotation).to(keys.dtype)


def rotation(count: int) -> CosSin:
    angles = (torch.arange(count)[:, None] * torch.arange(1, DIM // 2 + 1) * 0.37).repeat(1, 2)
    return angles.cos(), angles.sin()


def filled() -> KVPool:
    pool = KVPool(KVShape(2, 2, DIM, torch.bfloat16, torch.device("cpu")), 2, ROWS + 4, Exact())
    source = torch.Generator().manual_seed(0)
    pool.keys.normal_(generator=source)
    pool.values.normal_(generator=source)
    pool.rotated_keys[:, 1, :, :ROWS] = exact(pool.keys[:, 1, :, :ROWS], rotation(ROWS))
    pool.length[1] = ROWS
    return pool


def test_what_is_put_back_has_the_bits_that_it_had() -> None:
    pool, kept = filled(), list[Evicted]()
    before = [store[:, 1, :, :ROWS].clone() for store in (pool.keys, pool.rotated_keys, pool.values)]
    rows = np.array([0, 1, 5, 6, 7, 3, 12, 20])
    pool.select(1, rows, rotation(len(rows)), keep=kept.append)
    for store in (pool.keys, pool.rotated_keys, pool.values):
        store[:, 1, :, len(rows) :] = 0
    pool.put_back(1, kept[0], rotation(ROWS))
    assert pool.length[1] == ROWS
    for store, old in zip((pool.keys, pool.rotated_keys, pool.values), before, strict=True):
        assert torch.equal(store[:, 1, :, :ROWS], old)


def test_rows_that_go_backwards_are_rotated_as_the_others() -> None:
    pool = filled()
    keys, rows = pool.keys[:, 1].clone(), np.array([0, 6, 7, 1, 2, 12, 20])
    pool.select(1, rows, rotation(len(rows)))
    there = pool.rotated_keys[:, 1, :, : len(rows)]
    assert torch.equal(there, exact(keys[:, :, torch.from_numpy(rows)], rotation(len(rows))))
