"""Positions of a stream's tokens and the rotation that encodes them (M-RoPE, paper section 2.2).

Positions are float32: the time step of a video block may be a fraction. Text counts up by one on all three axes.
A video block whose first token would stand at p gets t = p + frame * patch_seconds * tokens_per_second, h = p + row,
w = p + column; the next text token stands one behind the block's largest value. Where the checkpoint knows no seconds,
t = p + frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rope:
    """The rotation of one checkpoint.

    ``inverse_frequencies``: (d/2,) float32; ``axes``: (d/2,) int64, which of (t, h, w) each frequency follows;
    ``scaling`` multiplies cosine and sine (1 for plain rotary embeddings).
    """

    inverse_frequencies: Tensor
    axes: Tensor
    scaling: float = 1.0

    def cos_sin(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (n, d), float32, of positions (3, n)."""
        half = positions.float()[self.axes].T * self.inverse_frequencies
        angles = torch.cat([half, half], dim=-1)
        cos, sin = angles.cos(), angles.sin()
        # Of a captured token each operation is a kernel: one that multiplies by 1 is left out.
        return (cos, sin) if self.scaling == 1 else (cos * self.scaling, sin * self.scaling)
