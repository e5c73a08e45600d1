"""Positions of a stream's tokens (M-RoPE, paper section 2.2). No tensors.

Positions are float32: the time step of a video block may be a fraction. Text counts up by one on all three axes.
A video block whose first token would stand at p gets t = p + frame * patch_seconds * tokens_per_second, h = p + row,
w = p + column; the next text token stands one behind the block's largest value. Where the checkpoint knows no seconds,
t = p + frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..core.spans import Span

FloatArray = NDArray[np.float32]


def positions(spans: Sequence[Span], tokens_per_second: float | None, first: float = 0.0) -> FloatArray:
    """Positions (3, n) float32 of the n tokens of ``spans``, numbered without a gap from ``first``.

    ``tokens_per_second`` is the checkpoint's: how far one second reaches along the time axis; None: a temporal patch
    is one step, whatever the time it covers.
    """
    parts: list[FloatArray] = []
    here = first
    text = 0  # tokens since the last block: one run for all spans of words between two blocks
    for span in spans:
        if span.grid is None:
            text += len(span)
            continue
        time_step = 1.0 if tokens_per_second is None else span.patch_seconds * tokens_per_second
        parts.append(_text(here, text + 1))
        block = _block(span.grid, time_step) + np.float32(here + text + 1)
        parts.append(block)
        here, text = float(block.max()) + 1, 1
    if text:
        parts.append(_text(here, text))
    return np.concatenate(parts, axis=1) if parts else np.zeros((3, 0), np.float32)


def _text(first: float, count: int) -> FloatArray:
    line = np.float32(first) + np.arange(count, dtype=np.float32)
    return np.broadcast_to(line, (3, count))


@lru_cache(64)
def _block(grid: tuple[int, int, int], time_step: float) -> FloatArray:
    """Positions (3, t * h * w) in a block that begins at 0; a stream has few kinds of block."""
    t, h, w = np.indices(grid, dtype=np.float32).reshape(3, -1)
    return np.stack([t * np.float32(time_step), h, w])
