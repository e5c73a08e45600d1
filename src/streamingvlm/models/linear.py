"""Products with a layer's weights whose rows do not depend, to the last bit, on how many rows there are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.plain import PlainKernels


class Linear:
    """Weights (out, in) of a linear layer and its bias (out,), if any. ``kernels``: what multiplies."""

    def __init__(self, weight: Tensor, bias: Tensor | None, kernels: PlainKernels) -> None:
        self.weight = weight
        self.shape = weight.shape
        self.bias = bias
        self._kernels = kernels
        self._packed: Tensor | None = None
        self._asked = False

    def __call__(self, rows: Tensor, *, few: bool = False) -> Tensor:
        """``rows`` (n, in) times the weights: (n, out). ``few``: a row for each stream, or padding."""
        if few:
            return self._kernels.few_rows(rows, self.weight, self.bias)
        if not self._asked:  # only now: weights that are quantized are never packed
            self._packed, self._asked = self._kernels.pack(self.weight), True
        return self._kernels.many_rows(rows, self.weight, self.bias, self._packed)


class QuantizedLinear(Linear):
    """Weights of a class of their own, which choose their kernels by themselves."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias, PlainKernels())

    def __call__(self, rows: Tensor, *, few: bool = False) -> Tensor:  # noqa: ARG002
        """See :class:`Linear`."""
        return F.linear(rows, self.weight, self.bias)


class LinearModule(nn.Module):
    """A layer of transformers by the product of many rows. The parameters stay the layer's."""

    def __init__(self, linear: nn.Linear, kernels: PlainKernels) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._matrix = Linear(self.weight, self.bias, kernels)

    def forward(self, rows: Tensor) -> Tensor:
        """``rows`` (..., in) times the weights: (..., out)."""
        return self._matrix(rows.flatten(0, -2)).view(*rows.shape[:-1], -1)
