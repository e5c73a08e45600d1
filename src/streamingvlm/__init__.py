"""Watch a video stream without end and say, second by second, what happens.

Names are imported on first use, so that the command line starts without torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import Engine
    from .errors import (
        CapacityError,
        ModelError,
        OptionError,
        OutputError,
        PolicyError,
        SessionError,
        SourceError,
        StreamingVLMError,
    )
    from .events import Chunk, Commentary, InstructionUpdated, Source, Timing
    from .models import load_model
    from .policy import (
        CachePolicy,
        KeepAll,
        RecentFrames,
        SlidingRecompute,
        SlidingReset,
        StreamingWindow,
        make_policy,
    )
    from .sampling import Sampling
    from .session import Session
    from .sources import open_source

_HOME = {
    "CachePolicy": "policy",
    "CapacityError": "errors",
    "Chunk": "events",
    "Commentary": "events",
    "Engine": "engine",
    "InstructionUpdated": "events",
    "KeepAll": "policy",
    "ModelError": "errors",
    "OptionError": "errors",
    "OutputError": "errors",
    "PolicyError": "errors",
    "RecentFrames": "policy",
    "Sampling": "sampling",
    "Session": "session",
    "SessionError": "errors",
    "SlidingRecompute": "policy",
    "SlidingReset": "policy",
    "Source": "events",
    "SourceError": "errors",
    "StreamingVLMError": "errors",
    "StreamingWindow": "policy",
    "Timing": "events",
    "load_model": "models",
    "make_policy": "policy",
    "open_source": "sources",
}

__all__ = [  # noqa: RUF022 - in the order a newcomer needs them
    "load_model",
    "open_source",
    "Engine",
    "Session",
    "Chunk",
    "Commentary",
    "InstructionUpdated",
    "Timing",
    "Source",
    "Sampling",
    "CachePolicy",
    "StreamingWindow",
    "KeepAll",
    "SlidingReset",
    "SlidingRecompute",
    "RecentFrames",
    "make_policy",
    "StreamingVLMError",
    "SourceError",
    "ModelError",
    "OptionError",
    "PolicyError",
    "CapacityError",
    "SessionError",
    "OutputError",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("streamingvlm")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
