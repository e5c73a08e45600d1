"""The operations on a CPU in float32: native code for what decoding does with one token of each stream."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .native import Native
from .plain import MIN_ROWS, CosSin, Heads, Placement, PlainKernels, Stores, plan_in_place

#: The native kernels take heads whose size is a multiple of this.
LANES = 16

#: Most bytes of weights that are kept a second time, packed.
PACKED_BYTES = 1 << 30


class CpuKernels(PlainKernels):
    """Native kernels, and the attention of a prefill in two parts. A result has the same bits in any company."""

    name = "native"

    def __init__(self, native: Native) -> None:
        super().__init__()
        self.native = native
        self._packs, self._left = _mkl_is_slower(), PACKED_BYTES
        self._counting = threading.Lock()  # engines in several threads may share a model

    def bucket(self, count: int, device: torch.device) -> int:  # noqa: ARG002
        """See :meth:`PlainKernels.bucket`: no row depends on how many there are."""
        return count

    def add_norm(self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """See :meth:`PlainKernels.add_norm`."""
        return self.native.add_norm(x, delta, weight, eps, threads=torch.get_num_threads())

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """See :meth:`PlainKernels.silu_mul`."""
        return self.native.silu_mul(gate_up, threads=torch.get_num_threads())

    def few_rows(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See :meth:`PlainKernels.few_rows`."""
        return self.native.linear_rows(rows.contiguous(), weight, bias, threads=torch.get_num_threads())

    def pack(self, weight: Tensor) -> Tensor | None:
        """See :meth:`PlainKernels.pack`: for oneDNN, as long as the copies are few."""
        with self._counting:
            if not self._packs or weight.nbytes > self._left:
                return None
            self._left -= weight.nbytes
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        return packed

    def many_rows(self, rows: Tensor, weight: Tensor, bias: Tensor | None, packed: Tensor | None = None) -> Tensor:
        """See :meth:`PlainKernels.many_rows`."""
        if packed is None:
            return super().many_rows(rows, weight, bias)
        missing = max(MIN_ROWS - len(rows), 0)
        whole = F.pad(rows, (0, 0, 0, missing)) if missing else rows
        out: Tensor = torch.ops.mkldnn._linear_pointwise(whole, packed, bias, "none", [], "")
        return out[: len(rows)]

    def attend_rows(self, queries: Tensor, heads: Heads, stores: Stores, ends: Placement) -> Tensor:
        """See :meth:`PlainKernels.attend_rows`."""
        if heads.dim % LANES:
            return super().attend_rows(queries, heads, stores, ends)
        if len(ends.runs) != ends.tokens:  # the same kernel for those that there are: no place depends on the others
            there, own = _filled(ends)
            out = torch.zeros_like(queries)
            if own.tokens:
                out[there] = self.attend_rows(queries[there], heads, stores, own)
            return out
        return self.native.attend_rows(
            queries.contiguous(), stores.rotated, stores.values, ends.tensors[0], ends.counts, heads.scaling,
            threads=torch.get_num_threads(),
        )  # fmt: skip

    def attend_prefill(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scaling: float
    ) -> Tensor:
        """See :meth:`PlainKernels.attend_prefill`: the rows before without a mask, the new ones causal, then merged."""
        before = keys.shape[1] - len(queries)
        if len(queries) == 1 or not before:
            return super().attend_prefill(queries, keys, values, mask, scaling)
        return attend_in_two(queries, keys, values, before, scaling)

    def mask(self, before: int, count: int, device: torch.device) -> Tensor | None:  # noqa: ARG002
        """See :meth:`PlainKernels.mask`: none is needed."""
        return None

    def decode_attention(
        self, qkv: Tensor, rotation: CosSin, heads: Heads, stores: Stores, placement: Placement
    ) -> Tensor:
        """See :meth:`PlainKernels.decode_attention`."""
        if heads.dim % LANES:
            return super().decode_attention(qkv, rotation, heads, stores, placement)
        if len(placement.runs) != placement.tokens:
            there, own = _filled(placement)
            out = qkv.new_zeros(len(qkv), heads.queries * heads.dim)
            if own.tokens:
                turned = rotation[0][there], rotation[1][there]
                out[there] = self.decode_attention(qkv[there], turned, heads, stores, own)
            return out
        slots, rows = placement.tensors
        queries = self.native.rotate_store(
            qkv, *rotation, stores.keys, stores.rotated, stores.values, slots, rows,
            query_norm=heads.query_norm, key_norm=heads.key_norm, eps=heads.eps,
        )  # fmt: skip
        return self.attend_rows(queries, heads, stores, placement).flatten(1)

    def plan_move(
        self, pool: Stores, slot: int, rows: NDArray[np.int64], first: int, rotation: CosSin
    ) -> Callable[[], None]:
        """See :meth:`PlainKernels.plan_move`."""
        if pool.keys.shape[-1] % LANES:
            return super().plan_move(pool, slot, rows, first, rotation)
        cos, sin = (part.contiguous() for part in rotation)

        def move(index: Tensor) -> None:
            self.native.move_rows(
                pool.keys, pool.rotated, pool.values, slot, index, first, cos, sin,
                threads=torch.get_num_threads(),
            )  # fmt: skip

        return plan_in_place(pool, slot, rows, first, (cos, sin), move)


def _filled(placement: Placement) -> tuple[Tensor, Placement]:
    """The numbers of the places that have a stream, and these places alone; one token each."""
    runs = placement.runs
    there = torch.tensor([place for _, place, _, _ in runs], dtype=torch.int64)
    own = [(slot, i, i + 1, row) for i, (slot, _, _, row) in enumerate(runs)]
    return there, Placement(own, len(own), placement.device)


def _mkl_is_slower() -> bool:
    """Whether oneDNN multiplies many rows faster than MKL, torch's choice: by a tenth on AMD's processors.

    It is not measured here: on one machine every run must have the same bits.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def attend_in_two(queries: Tensor, keys: Tensor, values: Tensor, before: int, scaling: float) -> Tensor:
    """Causal attention of the last n of ``before`` + n rows, as :func:`streamingvlm.kernels.plain.attend` has it.

    Softmax over two parts is merged by the logarithms of their sums. The first part needs no mask, and there the query
    heads that share a key head are rows of one product.
    """
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    count, query_heads, dim = queries.shape
    heads = keys.shape[0]
    group = query_heads // heads
    folded = queries.view(count, heads, group, dim).permute(1, 2, 0, 3).reshape(1, heads, group * count, dim)
    past, past_log = flash(folded, keys[None, :, :before], values[None, :, :before], scale=scaling)
    own_keys, own_values = (rows[None, :, before:].repeat_interleave(group, 1) for rows in (keys, values))
    own, own_log = flash(queries.transpose(0, 1)[None], own_keys, own_values, 0.0, True, scale=scaling)
    past, past_log = past.reshape(own.shape), past_log.reshape(own_log.shape)
    share = torch.sigmoid(past_log - own_log)[..., None]
    return torch.lerp(own, past, share)[0].transpose(0, 1)
