"""From the options of a command to an engine, to an endpoint, to a folder. Torch comes in when they are called."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import OptionError

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.remote_engine import RemoteEngine
    from ..runtime.state_folder import StateFolder

#: Where a key for an endpoint is taken from; it is never written.
KEY = "OPENAI_API_KEY"


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


def check_endpoint(endpoint: str | None, remote_model: str, local: Mapping[str, Any]) -> None:
    """Raise one line for options that do not go with an endpoint. ``local``: those of a model on this machine."""
    if endpoint is not None and not remote_model:
        raise OptionError("--endpoint needs --remote-model: which model to ask for")
    if unused := [f"--{option}" for option, value in local.items() if value is not None]:
        raise OptionError(f"{', '.join(unused)}: only of a local model, not of --endpoint")


@contextmanager
def open_endpoint(url: str, model: str) -> Iterator[RemoteEngine]:
    """An engine whose streams are watched by a model behind an OpenAI-compatible endpoint."""
    from ..engine.endpoint import Endpoint
    from ..engine.remote_engine import SLOTS, RemoteEngine

    # A stream has one call under way and perhaps a question: none of them waits for those of another stream.
    with Endpoint(url, model, key=os.environ.get(KEY) or None, in_flight=2 * SLOTS) as endpoint:
        yield RemoteEngine(endpoint)


def open_state(folder: Path | None, end: ExitStack) -> StateFolder | None:
    """The folder in which streams are kept (None: none), which is let go at the ``end``."""
    if folder is None:
        return None
    from ..runtime.state_folder import StateFolder

    return end.enter_context(StateFolder(folder))
