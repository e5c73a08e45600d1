"""Native code for CPUs: what decoding does with one token of each stream, at the speed of memory.

torch's libraries are made for many rows; of one to four they read weights at a third of what a core can, and one
query's attention likewise. :class:`Native` calls native.cpp through ctypes, which lets other threads run meanwhile.
A row's or a stream's result has the same bits whatever its company and the number of threads. For inference: no
gradients. Tensors are float32 on the CPU.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .native_build import COMPILERS, BuildError, build, default_folder

#: How each function's arguments are packed: pointers and sizes as "q", floats as "d". One packed argument costs a tenth
#: of what ctypes takes for a dozen.
_PACKED = {
    "linear_rows": "8q",
    "linear_int8": "13q",
    "attend_rows": "14qdq",
    "move_rows": "15q",
    "rotate_store": "19qd",
    "add_norm": "7qdq",
    "silu_mul": "5q",
}
_FLOAT, _INDEX = torch.float32, torch.int64


@dataclass(frozen=True, slots=True)
class Unavailable:
    """There are no native kernels here, and why: one sentence without a full stop."""

    reason: str


class Native:
    """The functions of a compiled library at ``path``. ``OSError`` or ``AttributeError`` if it is none.

    ``threads``: on how many threads a call may run at most; small work stays on the caller's. Wrong shapes, dtypes,
    strides and places raise ``ValueError``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        library = ctypes.CDLL(str(path))

        def function(name: str) -> tuple[Callable[[bytes], int], Callable[..., bytes]]:
            found = library[f"svlm_{name}"]
            found.argtypes, found.restype = [ctypes.c_char_p], ctypes.c_int
            return found, struct.Struct(_PACKED[name]).pack

        self._linear_rows, self._pack_linear_rows = function("linear_rows")
        self._linear_int8, self._pack_linear_int8 = function("linear_int8")
        self._attend_rows, self._pack_attend_rows = function("attend_rows")
        self._move_rows, self._pack_move_rows = function("move_rows")
        self._rotate_store, self._pack_rotate_store = function("rotate_store")
        self._add_norm, self._pack_add_norm = function("add_norm")
        self._silu_mul, self._pack_silu_mul = function("silu_mul")

    def linear_rows(self, rows: Tensor, weight: Tensor, bias: Tensor | None = None, *, threads: int = 1) -> Tensor:
        """Rows (n, in) times a weight (out, in), plus a bias (out,): (n, out). All contiguous."""
        (n, size), (outs, width) = rows.shape, weight.shape
        if not (size == width and _plain(rows) and _plain(weight)):
            raise _refusal("rows (n, in) and weight (out, in)")
        if bias is not None and not (_plain(bias) and bias.shape == (outs,)):
            raise _refusal("bias (out,)")
        out = torch.empty(n, outs, dtype=_FLOAT)
        self._linear_rows(
            self._pack_linear_rows(
                rows.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr(), out.data_ptr(),
                n, size, outs, threads,
            )
        )  # fmt: skip
        return out

    def linear_int8(
        self, rows: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, bias: Tensor | None = None,
        *, threads: int = 1,
    ) -> Tensor:  # fmt: skip
        """Rows (n, in) float32, quantized one by one, times integers (out, padded) int8: (n, out) float32.

        ``scale`` (out,) float32: of each output's integers; ``shift`` (out,) int32: 128 times their sum; ``padded`` is
        at least in, and the integers behind it are 0. The integers of a row are those of rounding it to 127 steps of
        its largest number; sums are exact.
        """
        (n, size), (outs, padded) = rows.shape, weight.shape
        if not (padded >= size and _plain(rows) and weight.dtype is torch.int8 and weight.is_contiguous()):
            raise _refusal("rows (n, in) and int8 weight (out, padded)")
        if not (_plain(scale) and scale.shape == shift.shape == (outs,) and shift.dtype is torch.int32):
            raise _refusal("scale (out,) and int32 shift (out,)")
        if bias is not None and not (_plain(bias) and bias.shape == (outs,)):
            raise _refusal("bias (out,)")
        out = torch.empty(n, outs, dtype=_FLOAT)
        integers, row_scale = torch.empty(n, padded, dtype=torch.uint8), torch.empty(n, dtype=_FLOAT)
        self._linear_int8(
            self._pack_linear_int8(
                rows.data_ptr(), weight.data_ptr(), scale.data_ptr(), shift.data_ptr(),
                0 if bias is None else bias.data_ptr(), out.data_ptr(), integers.data_ptr(), row_scale.data_ptr(),
                n, size, padded, outs, threads,
            )
        )  # fmt: skip
        return out

    def attend_rows(
        self, queries: Tensor, keys: Tensor, values: Tensor, slot: Tensor, count: Tensor, scaling: float,
        *, threads: int = 1,
    ) -> Tensor:  # fmt: skip
        """Attention of one rotated query token (b, H, D) per stream over its own rows; same shape.

        ``keys`` (rotated) and ``values`` (slots, K, rows, D): one layer of a pool; ``slot`` and ``count`` (b,) int64:
        whose rows, and how many of them. H is a multiple of K, D of 16.
        """
        b, heads, dim = queries.shape
        slots, key_heads, rows, width = keys.shape
        if not (width == dim and dim % 16 == 0 and heads % key_heads == 0 and _plain(queries)):
            raise _refusal("queries (b, H, D), H a multiple of K, D of 16")
        if not (_places(slot, b) and _places(count, b)):
            raise _refusal("slot and count (b,) int64")
        slot_stride, head_stride = _strides(keys, values)
        out = torch.empty_like(queries)
        status = self._attend_rows(
            self._pack_attend_rows(
                queries.data_ptr(), keys.data_ptr(), values.data_ptr(), slot.data_ptr(), count.data_ptr(),
                out.data_ptr(), b, heads, key_heads, dim, slots, rows, slot_stride, head_stride, scaling, threads,
            )
        )  # fmt: skip
        if status:
            raise _failure(status, "slots of the pool and 1 <= count <= rows")
        return out

    def move_rows(
        self, keys: Tensor, rotated: Tensor, values: Tensor, slot: int, index: Tensor, first: int, cos: Tensor,
        sin: Tensor, *, threads: int = 1,
    ) -> None:  # fmt: skip
        """In place, row ``first + i`` of a slot becomes its row ``index[i]``, in every layer; rotated keys are rebuilt.

        ``keys`` (raw), ``rotated`` and ``values`` (layers, slots, K, rows, D), contiguous; ``index`` (m,) int64, with
        index[i] >= first + i; ``cos`` and ``sin`` (m, D) belong to the new rows. The rotated keys have
        the bits of :func:`streamingvlm.cache.rope.rotate`.
        """
        layers, slots, key_heads, rows, dim = shape = keys.shape
        count = index.shape[0]
        stores = (keys, rotated, values)
        if dim % 16 or not all(_plain(store) and store.shape == shape for store in stores):
            raise _refusal("keys, rotated and values (layers, slots, K, rows, D), D a multiple of 16")
        if not _places(index, count):
            raise _refusal("index (m,) int64")
        if not all(_plain(part) and part.shape == (count, dim) for part in (cos, sin)):
            raise _refusal("cos and sin (m, D)")
        status = self._move_rows(
            self._pack_move_rows(
                keys.data_ptr(), rotated.data_ptr(), values.data_ptr(), index.data_ptr(), cos.data_ptr(),
                sin.data_ptr(), layers, slots, key_heads, rows, dim, slot, count, first, threads,
            )
        )  # fmt: skip
        if status:
            raise _failure(status, "an index within the rows of a slot, with index[i] >= first + i")

    def rotate_store(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, rotated: Tensor, values: Tensor, slot: Tensor,
        length: Tensor, *, query_norm: Tensor | None = None, key_norm: Tensor | None = None, eps: float = 1e-6,
    ) -> Tensor:  # fmt: skip
        """Rotated queries (b, H, D); one layer's raw key, rotated key and value are written at [slot, :, length].

        ``qkv`` (b, (H + 2 K) * D) or (b, H + 2 K, D); ``cos`` and ``sin`` (b, D); ``keys``, ``rotated`` and ``values``
        (slots, K, rows, D): one layer of a pool; ``slot`` and ``length`` (b,) int64; ``query_norm`` and ``key_norm``
        (D,): weights of an RMS norm of each head before the rotation, with ``eps``.
        """
        slots, key_heads, rows, dim = keys.shape
        b, turn = cos.shape[0], (cos.shape[0], dim)
        heads = qkv.numel() // (b * dim) - 2 * key_heads if b else 0
        if not (dim % 16 == 0 and heads > 0 and qkv.numel() == b * (heads + 2 * key_heads) * dim and _plain(qkv)):
            raise _refusal("qkv (b, (H + 2 K) * D), b and H at least 1, D a multiple of 16")
        if not (cos.shape == sin.shape == turn and _plain(cos) and _plain(sin)):
            raise _refusal("cos and sin (b, D)")
        if not (_places(slot, b) and _places(length, b)):
            raise _refusal("slot and length (b,) int64")
        for norm in (query_norm, key_norm):
            if norm is not None and not (_plain(norm) and norm.shape == (dim,)):
                raise _refusal("query_norm and key_norm (D,)")
        slot_stride, head_stride = _strides(keys, rotated, values)
        queries = torch.empty(b, heads, dim, dtype=_FLOAT)
        status = self._rotate_store(
            self._pack_rotate_store(
                qkv.data_ptr(), cos.data_ptr(), sin.data_ptr(), 0 if query_norm is None else query_norm.data_ptr(),
                0 if key_norm is None else key_norm.data_ptr(), queries.data_ptr(), keys.data_ptr(),
                rotated.data_ptr(), values.data_ptr(), slot.data_ptr(), length.data_ptr(),
                b, heads, key_heads, dim, slots, rows, slot_stride, head_stride, eps,
            )
        )  # fmt: skip
        if status:
            raise _failure(status, "slots of the pool and 0 <= length < rows")
        return queries

    def add_norm(
        self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, *, threads: int = 1
    ) -> tuple[Tensor, Tensor]:
        """The sum x + delta (n, size), or x itself without a delta, and its RMS norm times a weight (size,)."""
        n, size = shape = x.shape
        if not (_plain(x) and _plain(weight) and weight.shape == (size,)):
            raise _refusal("x (n, size) and weight (size,)")
        if delta is not None and not (_plain(delta) and delta.shape == shape):
            raise _refusal("delta (n, size)")
        total = x if delta is None else torch.empty_like(x)
        normed = torch.empty_like(x)
        self._add_norm(
            self._pack_add_norm(
                x.data_ptr(), 0 if delta is None else delta.data_ptr(), weight.data_ptr(), total.data_ptr(),
                normed.data_ptr(), n, size, eps, threads,
            )
        )  # fmt: skip
        return total, normed

    def silu_mul(self, gate_up: Tensor, *, threads: int = 1) -> Tensor:
        """silu(gate) * up of ``gate_up`` (n, 2 * size), gates first: (n, size)."""
        n, width = gate_up.shape
        if width % 2 or not _plain(gate_up):
            raise _refusal("gate_up (n, 2 * size)")
        out = torch.empty(n, width // 2, dtype=_FLOAT)
        self._silu_mul(self._pack_silu_mul(gate_up.data_ptr(), out.data_ptr(), n, width // 2, threads))
        return out


@cache
def load_native() -> Native | Unavailable:
    """The native kernels of this machine, compiled at first use and checked; or why there are none."""
    try:
        return open_native(default_folder())
    except BuildError as error:
        return Unavailable(str(error))


def open_native(folder: Path, compilers: tuple[str, ...] = COMPILERS) -> Native | Unavailable:
    """As :func:`load_native`, with libraries kept in ``folder``, made by the first of ``compilers`` that is there."""
    try:
        native = Native(build(folder, compilers))
    except BuildError as error:
        return Unavailable(str(error))
    except (OSError, AttributeError) as error:
        return Unavailable(f"the compiled kernels cannot be loaded: {error}")
    wrong = [name for name, far in _deviations(native).items() if not far < 1e-4]
    return (
        Unavailable(f"the compiled kernels compute something else than torch: {', '.join(wrong)}") if wrong else native
    )


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype is _FLOAT and tensor.is_contiguous() and tensor.is_cpu


def _places(tensor: Tensor, count: int) -> bool:
    return tensor.dtype is _INDEX and tensor.shape == (count,) and tensor.is_contiguous() and tensor.is_cpu


def _strides(first: Tensor, *others: Tensor) -> tuple[int, int]:
    """Elements from slot to slot and from head to head, the same in all stores (slots, K, rows, D) of a layer."""
    shape, strides = first.shape, first.stride()
    for store in (first, *others):
        if not (store.dtype is _FLOAT and store.is_cpu and store.shape == shape and store.stride() == strides):
            raise _refusal("stores of one shape")
    if strides[2:] != (shape[3], 1):
        raise _refusal("stores whose rows lie one behind the other")
    return strides[0], strides[1]


def _refusal(what: str) -> ValueError:
    return ValueError(f"native kernels want contiguous float32 tensors on the CPU: {what}")


def _failure(status: int, rule: str) -> Exception:
    return (
        MemoryError("no memory for an attention's sums") if status == 2 else ValueError(f"native kernels want {rule}")
    )


def _deviations(native: Native) -> dict[str, float]:
    """How far each function is from torch on a small case."""
    source = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source, dtype=_FLOAT)

    def far(mine: Tensor, right: Tensor) -> float:
        return float((mine - right).abs().max())

    rows, weight, bias, norm = draw(5, 48), draw(7, 48), draw(7), draw(48)
    keys, rotated, values = draw(2, 2, 2, 40, 32), draw(2, 2, 2, 40, 32), draw(2, 2, 2, 40, 32)
    queries, slot, count = draw(2, 4, 32), torch.tensor([1, 0]), torch.tensor([40, 21])
    angles = draw(20, 32)
    seen: Any = [
        F.scaled_dot_product_attention(q.view(1, 2, 2, 32), k[None, :, :n], v[None, :, :n], scale=0.2).view(4, 32)
        for q, k, v, n in zip(queries, rotated[0, slot], values[0, slot], count.tolist(), strict=True)
    ]
    out = {
        "linear_rows": far(native.linear_rows(rows, weight, bias), F.linear(rows, weight, bias)),
        "attend_rows": far(native.attend_rows(queries, rotated[0], values[0], slot, count, 0.2), torch.stack(seen)),
        "add_norm": far(native.add_norm(rows, rows, norm, 1e-6)[1], F.rms_norm(rows + rows, (48,), norm, 1e-6)),
        "silu_mul": far(native.silu_mul(rows), F.silu(rows[:, :24]) * rows[:, 24:]),
    }
    index, raw, kept = torch.arange(1, 40, 2), keys.clone(), values.clone()
    native.move_rows(keys, rotated, values, 1, index, 0, angles.cos(), angles.sin())
    turned = _turn(raw[:, 1][:, :, index], angles)
    out["move_rows"] = max(far(rotated[:, 1, :, :20], turned), far(values[:, 1, :, :20], kept[:, 1][:, :, index]))
    qkv = draw(2, 8, 32)
    got = native.rotate_store(qkv, angles[:2].cos(), angles[:2].sin(), keys[0], rotated[0], values[0], slot, count - 1)
    turned = _turn(qkv, angles[:2, None])
    there = torch.stack([store[0, slot, :, count - 1] for store in (keys, rotated, values)])
    out["rotate_store"] = max(
        far(got, turned[:, :4]), far(there, torch.stack([qkv[:, 4:6], turned[:, 4:6], qkv[:, 6:]]))
    )
    return out


def _turn(states: Tensor, angles: Tensor) -> Tensor:
    first, second = states.chunk(2, -1)
    return states * angles.cos() + torch.cat([-second, first], -1) * angles.sin()
