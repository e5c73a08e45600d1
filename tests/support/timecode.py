"""Pictures that show when they were made, so that a test can tell how old a decoded one is.

Sixteen black or white columns, from left to right the bits of the wall clock in units of 50 ms, lowest bit first.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

BITS = 16
UNIT = 0.05
DARK, LIGHT = 40, 215


def bits(now: float) -> list[bool]:
    """Which columns are white at ``now``, seconds since 1970."""
    value = int(now / UNIT)
    return [bool(value >> bit & 1) for bit in range(BITS)]


def draw(width: int, height: int, now: float | None = None) -> NDArray[np.uint8]:
    """The (height, width, 3) picture of ``now`` (None: of this moment)."""
    row = np.array([LIGHT if bit else DARK for bit in bits(time.time() if now is None else now)], np.uint8)
    columns = row[np.arange(width) * BITS // width]
    return np.ascontiguousarray(np.broadcast_to(columns[None, :, None], (height, width, 3)))


def age(frame: NDArray[np.uint8], now: float | None = None) -> float:
    """Seconds from the moment that a decoded (height, width, 3) picture shows to ``now``; it wraps after 55 min."""
    grey = frame.astype(float).mean(axis=(0, 2))
    width = len(grey)
    edges = [round(bit * width / BITS) for bit in range(BITS + 1)]
    middle = (DARK + LIGHT) / 2
    value = 0
    for bit in range(BITS):
        left, right = edges[bit], edges[bit + 1]
        quarter = (right - left) // 4  # a codec blurs the edges
        value |= int(grey[left + quarter : max(right - quarter, left + quarter + 1)].mean() > middle) << bit
    passed = int((time.time() if now is None else now) / UNIT) - value
    full = 1 << BITS
    return ((passed + full // 8) % full - full // 8) * UNIT
