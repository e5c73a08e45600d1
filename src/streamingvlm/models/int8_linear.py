"""Products in int8 on a CPU: weights quantized per output channel, activations per row, as they come.

A row has a scale of its own, integers add up exactly, and everything else is done number by number. So the result of
a row does not depend, to the last bit, on the rows beside it, on the kernel or on the number of threads.

There are two kernels with equal results. FBGEMM's reads large matrices faster where rows are few, as in decoding; torch
is about to drop it. oneDNN's (``torch._int_mm``) takes less time for small matrices and where rows are many, as in a
vision tower. Neither is exact on a processor without int8 dot products (VNNI), where pairs of products are cut to 16
bits: see :func:`int8_available`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.native import Native
from .linear import LinearModule

#: Largest integer of a weight and of an activation. -128 is left out, so that scales are symmetric.
MAX_INT = 127
#: The largest number of a row or channel counts for at least so much: zeros need a scale too.
SMALLEST = 1e-30
#: Numbers of a matrix from which on FBGEMM's kernel is the faster one for few rows.
LARGE = 1 << 18

#: Rows up to which our own kernel is the faster one for small matrices; its rows are padded to a multiple of PADDED.
MOST_ROWS, PADDED = 4, 64

#: Rows (n, in) of whole numbers, float32, times quantized weights and their scales: (n, out) float32.
Product = Callable[[Tensor], Tensor]


class Int8Linear:
    """A linear layer of ``weight`` (out, in) and ``bias`` (out,) in int8; called as :class:`.linear.Linear` is.

    ``few``: rows are few most of the time. ``native``: our own kernel, for one or two rows and for small matrices. Both
    choose the kernel, and change no result.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, *, few: bool = True, native: Native | None = None
    ) -> None:
        weight = weight.detach().float()
        scale = weight.abs().amax(1).clamp_min(SMALLEST) / MAX_INT
        integers = (weight / scale[:, None]).round_().to(torch.int8)
        self.shape = weight.shape
        self._bias = None if bias is None else bias.detach().float()
        packed = _fbgemm(integers, scale) if few and weight.numel() >= LARGE else None
        self._product = packed or _onednn(integers, scale)
        self._native, self._most = native, MOST_ROWS if weight.numel() < LARGE else 2
        if native is not None:
            padded = F.pad(integers, (0, -integers.shape[1] % PADDED)).contiguous()
            self._parts = padded, scale, 128 * integers.sum(1, dtype=torch.int32)

    def __call__(self, rows: Tensor, *, few: bool = False) -> Tensor:
        """``rows`` (n, in) in any float dtype times the weights: (n, out) in the same. ``few`` changes no result."""
        if few and self._native is not None and len(rows) <= self._most and rows.dtype == torch.float32:
            threads = torch.get_num_threads()
            return self._native.linear_int8(rows.contiguous(), *self._parts, self._bias, threads=threads)
        numbers = rows.float().contiguous()
        scale = numbers.abs().amax(1, keepdim=True).clamp_min_(SMALLEST).mul_(1 / MAX_INT)
        out = self._product(torch.div(numbers, scale).round_()).mul_(scale)
        if self._bias is not None:
            out.add_(self._bias)
        return out.to(rows.dtype)


class Int8Module(nn.Module):
    """A linear layer in int8, for the many rows of a vision tower."""

    def __init__(self, linear: LinearModule) -> None:
        super().__init__()
        self._linear = Int8Linear(linear.weight, linear.bias, few=False)

    def forward(self, rows: Tensor) -> Tensor:
        """``rows`` (..., in) times the weights: (..., out)."""
        out = self._linear(rows.reshape(-1, rows.shape[-1]))
        return out.view(*rows.shape[:-1], -1)


def int8_available() -> bool:
    """Whether this torch has int8 products that are exact on this processor."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    weight = torch.ones(LARGE // 64, 64)
    weight[1::2] = -1
    try:
        kernels = [Int8Linear(weight), Int8Linear(weight[:64], few=False)]
        # The largest integers there are, in one row, few and many: libraries have kernels for each.
        return all(
            torch.allclose(kernel(sign * torch.ones(count, 64)), sign * 64 * weight[: kernel.shape[0], 0])
            for kernel in kernels
            for sign in (1.0, -1.0)
            for count in (1, 4, 64)
        )
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def _onednn(integers: Tensor, scale: Tensor) -> Product:
    matrix = integers.t()  # in this order a single row takes half the time

    def product(rows: Tensor) -> Tensor:
        sums = torch._int_mm(rows.to(torch.int8), matrix)
        # Converted in place: another tensor of this size would cost more than the arithmetic.
        return sums.view(torch.float32).copy_(sums).mul_(scale)

    return product


def _fbgemm(integers: Tensor, scale: Tensor) -> Product | None:
    """None if this torch has no such kernel."""
    before = torch.backends.quantized.engine
    try:
        torch.backends.quantized.engine = "fbgemm"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are deprecated; without them there is the other kernel
            zeros = torch.zeros(len(scale), dtype=torch.long)
            weight = torch._make_per_channel_quantized_tensor(integers, scale.double(), zeros, 0)
            packed = torch.ops.quantized.linear_prepack(weight, None)
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    finally:
        torch.backends.quantized.engine = before

    def product(rows: Tensor) -> Tensor:
        # Whole numbers stay what they are with a scale of 1, however the kernel rounds.
        out: Tensor = multiply(rows, 1.0, 128, packed)
        return out

    return product
