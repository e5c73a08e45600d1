"""Products with a layer's weights.

On a CPU the weights are packed for oneDNN where that is to be had. Its product of a row does not depend on how many
rows there are; that of the library behind ``F.linear`` does on some processors below 16 rows, so that a stream's words
would depend, in the last bit, on who shares its batch. It is as fast, but keeps a second copy of the weights.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: Bytes of one matrix up to which a second copy is kept: all of the models that a CPU runs in real time.
LARGEST = 64 << 20


class Matrix:
    """Weights (out, in) of a linear layer and its bias (out,), if any, in the form that is fastest to multiply with."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias
        self._packed = _pack(weight)

    def __call__(self, rows: Tensor) -> Tensor:
        """``rows`` (n, in) times the weights: (n, out)."""
        if self._packed is None or torch.compiler.is_compiling():
            return F.linear(rows, self.weight, self.bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self.bias, "none", [], "")
        return out


def _pack(weight: Tensor) -> Tensor | None:
    library: Any = torch.backends.mkldnn
    plain = type(weight) in (Tensor, torch.nn.Parameter) and weight.dtype == torch.float32
    if not plain or weight.device.type != "cpu" or weight.nbytes > LARGEST or not library.is_available():
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), 4)
    return packed
