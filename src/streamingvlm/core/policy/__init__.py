"""Which pieces of a stream's timeline stay in the cache. Pure functions over spans; no tensors.

A policy is asked once per step, before the new turn is appended. To add one, write a subclass of
:class:`CachePolicy` and one line in :data:`POLICIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..errors import PolicyError
from ..spans import Piece
from .base import CachePolicy, Feeding, Positions, Recompute, ReuseStates, Sizes
from .full import KeepAll, PlainChat
from .public_code import PublicCode, PublicCodeKeepAll
from .recent import RecentFrames
from .sliding import SlidingRecompute, SlidingReset
from .streaming import StreamingWindow

__all__ = [
    "POLICIES",
    "CachePolicy",
    "Feeding",
    "KeepAll",
    "Piece",
    "PlainChat",
    "Positions",
    "PublicCode",
    "PublicCodeKeepAll",
    "RecentFrames",
    "Recompute",
    "ReuseStates",
    "Sizes",
    "SlidingRecompute",
    "SlidingReset",
    "StreamingWindow",
    "make_policy",
]

#: Name on the command line -> class and the fields that the name fixes.
POLICIES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "streaming": (StreamingWindow, {}),
    "public-code": (PublicCode, {"history_kv": "reuse"}),
    "full": (KeepAll, {}),
    "sliding-reset": (SlidingReset, {}),
    "sliding-recompute": (SlidingRecompute, {}),
    "recent-frames": (RecentFrames, {}),
}


def make_policy(spec: str, defaults: Mapping[str, Any] | None = None) -> CachePolicy:
    """The policy that ``spec`` names, such as ``streaming``, ``full:seconds=1200`` or ``streaming:vision=8,text=256``.

    ``defaults``: a checkpoint's own numbers; those that the policy has no field for are passed over. Raises
    :class:`PolicyError` for an unknown name or option, and for a number that cannot be meant.
    """
    name, _, rest = spec.partition(":")
    if name not in POLICIES:
        hint = " (it is called public-code now)" if name == "faithful" else ""
        raise PolicyError(f"unknown policy {name!r}{hint}; known: {', '.join(POLICIES)}")
    kind, fixed = POLICIES[name]
    types: dict[str, type[Any]] = {field.name: type(field.default) for field in fields(kind) if field.name not in fixed}
    # A checkpoint's JSON says 16 where the field is 16.0: one policy has one name, whoever asked for it.
    options = {key: _value(types[key], key, value) for key, value in (defaults or {}).items() if key in types}
    for part in filter(None, rest.split(",")):
        key, _, value = (text.strip() for text in part.partition("="))
        if key not in types:
            known = ", ".join(types)
            raise PolicyError(f"policy {name!r} has no option {key!r}; it has: {known}")
        options[key] = _value(types[key], key, value)
    policy: CachePolicy = kind(**options, **fixed)
    return policy


def _value(kind: type[Any], key: str, value: Any) -> Any:
    try:
        made = kind(value)
        if kind is int and made != float(value):
            raise ValueError
        return made
    except (TypeError, ValueError):
        number = "a whole number" if kind is int else "a number"
        raise PolicyError(f"policy option {key} must be {number}, not {value!r}") from None
