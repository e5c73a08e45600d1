"""Products with a layer's weights whose rows do not depend, to the last bit, on how many rows there are.

Below 16 rows the library behind ``F.linear`` picks its kernel by their number on some processors, so that a stream's
words would depend on who shares its batch. What is few (a token of each stream) goes in blocks of four rows there,
which cost what the whole would up to eight; what is many (the tokens of a prefill) has at least :data:`MIN_ROWS` rows.
Weights packed for oneDNN do without both, but were slower in the engine: dev/log/engine.md.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cache.attention import MIN_ROWS

#: Rows of a block: what the smallest batch is padded to.
BLOCK = 4


class Linear:
    """Weights (out, in) of a linear layer and its bias (out,), if any."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.shape = weight.shape
        self.bias = bias
        # Quantized weights choose their kernels by themselves.
        self._blocks = weight.device.type == "cpu" and type(weight) in (Tensor, torch.nn.Parameter)

    def __call__(self, rows: Tensor, *, few: bool = False) -> Tensor:
        """``rows`` (n, in) times the weights: (n, out). ``few``: a row for each stream, or padding."""
        if not self._blocks or torch.compiler.is_compiling():
            return F.linear(rows, self.weight, self.bias)
        if few and len(rows) > BLOCK:
            return torch.cat([F.linear(part, self.weight, self.bias) for part in torch.split(rows, BLOCK)])
        missing = 0 if few else max(MIN_ROWS - len(rows), 0)
        if missing:
            return F.linear(F.pad(rows, (0, 0, 0, missing)), self.weight, self.bias)[: len(rows)]
        return F.linear(rows, self.weight, self.bias)
