"""The operations on a CUDA device: kernels of our own in Triton, and torch's own flash attention."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .plain import CosSin, Heads, Placement, PlainKernels, Stores, plan_in_place


class CudaKernels(PlainKernels):
    """Kernels in Triton for everything but products and the attention of a prefill."""

    name = "triton"

    def __init__(self, *, flash: bool, functions: Any = None) -> None:
        """``functions``: others of the names and arguments of :mod:`.triton_kernels`, for a count without a GPU."""
        super().__init__(flash=flash)
        self._own: Any = functions or import_module(".triton_kernels", __package__)

    def add_norm(self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """See :meth:`PlainKernels.add_norm`."""
        total, normed = self._own.add_norm(x, delta, weight, eps)
        return total, normed

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """See :meth:`PlainKernels.silu_mul`."""
        out: Tensor = self._own.silu_mul(gate_up)
        return out

    def cast_rotation(self, rotation: CosSin, dtype: torch.dtype) -> CosSin:  # noqa: ARG002
        """See :meth:`PlainKernels.cast_rotation`: the kernels rotate in float32 and round once."""
        return rotation

    def rotate_store(self, qkv: Tensor, rotation: CosSin, heads: Heads, stores: Stores, placement: Placement) -> Tensor:
        """See :meth:`PlainKernels.rotate_store`."""
        out: Tensor = self._own.rotate_store(
            qkv, *rotation, heads.query_norm, heads.key_norm, heads.eps,
            stores.keys, stores.rotated, stores.values, *placement.tensors, heads=heads.queries,
        )  # fmt: skip
        return out

    def decode_attention(
        self, qkv: Tensor, rotation: CosSin, heads: Heads, stores: Stores, placement: Placement
    ) -> Tensor:
        """See :meth:`PlainKernels.decode_attention`."""
        out: Tensor = self._own.decode_attention(
            qkv, *rotation, heads.query_norm, heads.key_norm, heads.eps,
            stores.keys, stores.rotated, stores.values, *placement.tensors, heads=heads.queries, scaling=heads.scaling,
        )  # fmt: skip
        return out

    def plan_move(
        self, pool: Stores, slot: int, rows: NDArray[np.int64], first: int, rotation: CosSin
    ) -> Callable[[], None]:
        """See :meth:`PlainKernels.plan_move`."""

        def move(index: Tensor) -> None:
            self._own.move_rows(pool.keys, pool.rotated, pool.values, slot, index, first, *rotation)

        return plan_in_place(pool, slot, rows, first, rotation, move)

    def penalize(
        self, logits: Tensor, token_mask: Tensor, slots: Tensor, tokens: Tensor, penalty: Tensor, temperature: Tensor
    ) -> Tensor:
        """See :meth:`PlainKernels.penalize`."""
        out: Tensor = self._own.penalize(logits, token_mask, slots, tokens, penalty, temperature)
        return out

    def best(self, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See :meth:`PlainKernels.best`."""
        top, tokens = self._own.best(scores, count)
        return top, tokens

    def pick(self, top: Tensor, tokens: Tensor, noise: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
        """See :meth:`PlainKernels.pick`."""
        out: Tensor = self._own.pick(top, tokens, noise, top_k, top_p)
        return out
