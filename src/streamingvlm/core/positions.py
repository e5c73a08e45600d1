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
    out = np.empty((3, sum(map(len, spans))), np.float32)
    here, at = first, 0
    text = 0  # tokens since the last block: one run for all spans of words between two blocks
    for span in spans:
        if span.grid is None:
            text += len(span)
            continue
        time_step = 1.0 if tokens_per_second is None else span.patch_seconds * tokens_per_second
        block, largest = _block(span.grid, time_step)
        start = np.float32(here + text + 1)
        first_pad = at + text + 1  # behind the text and the block's start mark
        out[:, at:first_pad] = _text(here, text + 1)
        at = first_pad + block.shape[1]
        np.add(block, start, out=out[:, first_pad:at])
        here, text = float(largest + start) + 1, 1  # the end mark is text
    out[:, at:] = _text(here, text)
    return out


def _text(first: float, count: int) -> FloatArray:
    return np.float32(first) + np.arange(count, dtype=np.float32)


@lru_cache(64)
def _block(grid: tuple[int, int, int], time_step: float) -> tuple[FloatArray, np.float32]:
    """Positions (3, t * h * w) in a block that begins at 0, and the largest; a stream has few kinds of block."""
    t, h, w = np.indices(grid, dtype=np.float32).reshape(3, -1)
    block = np.stack([t * np.float32(time_step), h, w])
    return block, block.max()
