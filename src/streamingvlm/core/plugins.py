"""What other installed packages add: entry points of ``streamingvlm.`` and sources, benchmarks, tasks or commands."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import StreamingVLMError

GROUP = "streamingvlm."


def registered(kind: str) -> dict[str, EntryPoint]:
    """The entry points of group ``streamingvlm.KIND`` by name, nothing of them imported yet.

    Where two packages use the same name, :func:`load` of that name fails with one line that names both.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=GROUP + kind), key=lambda one: (one.name, one.value)):
        known = found.get(entry.name)
        found[entry.name] = entry if known is None else _twice(known, entry)
    return found


def load(entry: EntryPoint, error: type[StreamingVLMError]) -> Callable[..., Any]:
    """The callable that an entry point names. Whatever is wrong with it is one line, raised as ``error``."""
    what = f"{entry.name!r} ({entry.value}, of {owner(entry)}) in {entry.group}"
    if " and " in entry.value:
        raise error(f"{what}: two packages use this name; uninstall one of them")
    try:
        found = entry.load()
    except Exception as reason:  # whatever a package raises while it is imported
        lines = str(reason).splitlines()
        raise error(f"{what} cannot be loaded: {type(reason).__name__}: {lines[0] if lines else ''}") from reason
    if not callable(found):
        raise error(f"{what} is no function or class")
    called: Callable[..., Any] = found
    return called


def owner(entry: EntryPoint) -> str:
    """The name of the package that an entry point comes with."""
    return entry.dist.name if entry.dist is not None else "an unknown package"


def _twice(one: EntryPoint, other: EntryPoint) -> EntryPoint:
    return EntryPoint(one.name, f"{one.value} and {other.value}", one.group)
