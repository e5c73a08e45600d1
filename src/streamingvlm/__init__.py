"""Watch a video stream without end and say, second by second, what happens.

Names are imported on first use, so that the command line starts without torch.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing takes as long as all that the command line needs before it can be interrupted
if TYPE_CHECKING:
    from typing import Any

    from .core.errors import (
        CapacityError,
        EndpointError,
        ModelError,
        OptionError,
        OutputError,
        PolicyError,
        SessionError,
        SourceError,
        StreamingVLMError,
    )
    from .core.events import (
        Alert,
        Answer,
        Answered,
        Arrival,
        Asked,
        Chunk,
        Closed,
        Commentary,
        Delta,
        Dropped,
        Gap,
        Instructed,
        InstructionUpdated,
        Question,
        Sink,
        Source,
        SourceStatus,
        StepInput,
        StreamOpened,
        Timing,
    )
    from .core.policy import (
        CachePolicy,
        KeepAll,
        PublicCode,
        RecentFrames,
        SlidingRecompute,
        SlidingReset,
        StreamingWindow,
        make_policy,
    )
    from .core.sampling_params import Sampling
    from .engine.ask import Fork
    from .engine.endpoint import Endpoint
    from .engine.engine import Engine
    from .engine.remote import RemoteSession
    from .engine.remote_engine import RemoteEngine
    from .engine.session import Session
    from .models.load import load_model
    from .runtime.rule_files import parse_rule
    from .runtime.runtime import Runtime, Stream
    from .runtime.talk import Ask
    from .sources.open import open_source

_HOME = {
    "Alert": "core.events",
    "Answer": "core.events",
    "Answered": "core.events",
    "Arrival": "core.events",
    "Ask": "runtime.talk",
    "Asked": "core.events",
    "CachePolicy": "core.policy",
    "CapacityError": "core.errors",
    "Chunk": "core.events",
    "Closed": "core.events",
    "Commentary": "core.events",
    "Delta": "core.events",
    "Dropped": "core.events",
    "Endpoint": "engine.endpoint",
    "EndpointError": "core.errors",
    "Engine": "engine.engine",
    "Fork": "engine.ask",
    "Gap": "core.events",
    "Instructed": "core.events",
    "InstructionUpdated": "core.events",
    "KeepAll": "core.policy",
    "ModelError": "core.errors",
    "OptionError": "core.errors",
    "OutputError": "core.errors",
    "PolicyError": "core.errors",
    "PublicCode": "core.policy",
    "Question": "core.events",
    "RecentFrames": "core.policy",
    "RemoteEngine": "engine.remote_engine",
    "RemoteSession": "engine.remote",
    "Runtime": "runtime.runtime",
    "Sampling": "core.sampling_params",
    "Session": "engine.session",
    "SessionError": "core.errors",
    "Sink": "core.events",
    "SlidingRecompute": "core.policy",
    "SlidingReset": "core.policy",
    "Source": "core.events",
    "SourceError": "core.errors",
    "SourceStatus": "core.events",
    "StepInput": "core.events",
    "Stream": "runtime.runtime",
    "StreamOpened": "core.events",
    "StreamingVLMError": "core.errors",
    "StreamingWindow": "core.policy",
    "Timing": "core.events",
    "load_model": "models.load",
    "make_policy": "core.policy",
    "open_source": "sources.open",
    "parse_rule": "runtime.rule_files",
}

__all__ = [  # noqa: RUF022 - in the order a newcomer needs them
    "load_model",
    "open_source",
    "Engine",
    "Session",
    "Fork",
    "Runtime",
    "Stream",
    "Ask",
    "parse_rule",
    "Endpoint",
    "RemoteSession",
    "RemoteEngine",
    "Chunk",
    "Arrival",
    "StepInput",
    "Commentary",
    "Question",
    "Answer",
    "Delta",
    "Instructed",
    "InstructionUpdated",
    "StreamOpened",
    "SourceStatus",
    "Gap",
    "Asked",
    "Answered",
    "Alert",
    "Dropped",
    "Closed",
    "Timing",
    "Sink",
    "Source",
    "Sampling",
    "CachePolicy",
    "StreamingWindow",
    "KeepAll",
    "SlidingReset",
    "SlidingRecompute",
    "RecentFrames",
    "PublicCode",
    "make_policy",
    "StreamingVLMError",
    "SourceError",
    "ModelError",
    "OptionError",
    "PolicyError",
    "CapacityError",
    "EndpointError",
    "SessionError",
    "OutputError",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # as slow as the rest of the package together

        return version("streamingvlm")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
