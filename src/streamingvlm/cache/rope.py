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
        angles = positions.float()[self.axes].T * self.inverse_frequencies
        cos, sin = angles.cos() * self.scaling, angles.sin() * self.scaling
        return torch.cat([cos, cos], dim=-1), torch.cat([sin, sin], dim=-1)


def rotate(states: Tensor, cos: Tensor, sin: Tensor, out: Tensor | None = None) -> Tensor:
    """Rotate ``states`` (..., n, d) by cosine and sine (n, d), into ``out`` if given; in the dtype of ``states``."""
    cos, sin = cos.to(states.dtype), sin.to(states.dtype)
    first, second = states.chunk(2, dim=-1)
    cos_first, cos_second = cos.chunk(2, dim=-1)
    sin_first, sin_second = sin.chunk(2, dim=-1)
    if torch.compiler.is_compiling():
        # The compiler makes one loop of this, and cannot write into halves.
        return torch.cat([first * cos_first - second * sin_first, second * cos_second + first * sin_second], dim=-1)
    out = torch.empty_like(states) if out is None else out
    left, right = out.chunk(2, dim=-1)
    # Written half by half: no copy of the states with their halves swapped.
    torch.mul(first, cos_first, out=left).sub_(second * sin_first)
    torch.mul(second, cos_second, out=right).add_(first * sin_second)
    return out
