"""From the options of a command to an engine. Here torch comes in, when it is called."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine.engine import Engine


def load_engine(
    model: str | None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    capture: str = "auto",
    kernels: str = "auto",
    slots: int = 1,
) -> Engine:
    """Load a checkpoint into an engine for ``slots`` streams."""
    from ..engine.engine import Engine
    from ..models.load import load_model, settle_threads

    loaded = load_model(model, device=device, dtype=dtype, weights=weights, kernels=kernels)
    settle_threads(loaded, chosen_threads())
    return Engine(loaded, slots, capture=capture)


def chosen_threads() -> int | None:
    """Threads that the caller's environment asks for (None: it leaves that to us)."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None
