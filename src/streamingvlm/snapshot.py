"""A stream put on disk between two steps and taken up again: it says on, bit for bit, what it would have said.

A snapshot holds what a step changes: the timeline with its positions, the counters, and the rows of the stream's slot
(raw keys, values and the rotated view). What the stream was opened with is not in it: open it in the same way, then
:func:`restore`. The video has to go on where it stopped, at ``session.time``.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import CapacityError, StreamingVLMError
from .events import Chunk
from .kv import KVPool
from .models import Patches
from .session import Session
from .spans import Kind, Role, Span, Timeline

FORMAT = 1


class SnapshotError(StreamingVLMError):
    """A snapshot is broken, of another version, or of a stream that was opened otherwise."""


def save(session: Session, pool: KVPool, path: Path) -> None:
    """Write the stream as it is between two steps; the file is whole or not there. ``pool``: the engine's."""
    assert session.between_steps, "a step that was shown in part has to be ended first"
    slot, rows = session.slot, pool.length[session.slot]
    shown = session.shown
    state = {
        "format": FORMAT,
        "options": _options(session),
        "spans": [_plain(span) for span in session.timeline.spans],
        "cached": session.timeline.cached,
        "counters": (session.turn, session.sampled, session.time, session.first, session.last_position),
        "wish": session.wish,
        "positions": torch.from_numpy(session.positions.copy()),
        "retained": {turn: (part.pixels, part.grid, part.merged) for turn, part in session.retained.items()},
        "shown": None if shown is None else (torch.from_numpy(shown.frames), shown.times, shown.start, shown.end),
        "rows": [store[:, slot, :, :rows].cpu().clone() for store in (pool.keys, pool.values, pool.view)],
    }
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    os.replace(part, path)


def restore(session: Session, pool: KVPool, path: Path) -> None:
    """Put a fresh session where the saved one was. :class:`SnapshotError` for a file that does not fit it."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise SnapshotError(f"{path} is no snapshot of a stream: {str(error).splitlines()[0]}") from None
    if state.get("format") != FORMAT or state["options"] != _options(session):
        raise SnapshotError(f"{path} is of another version or of a stream that was opened with other options")
    rows = state["rows"][0].shape[2]
    if rows > session.capacity:
        raise CapacityError(f"{path} has {rows} rows; the stream was opened for {session.capacity}")
    for store, saved in zip((pool.keys, pool.values, pool.view), state["rows"], strict=True):
        store[:, session.slot, :, :rows] = saved.to(store.device)
    pool.length[session.slot] = rows
    session.timeline = Timeline([_span(*parts) for parts in state["spans"]], state["cached"])
    session.turn, session.sampled, session.time, session.first, session.last_position = state["counters"]
    session.wish = state["wish"]
    session.positions = state["positions"].numpy()
    session.retained = {turn: Patches(*parts) for turn, parts in state["retained"].items()}
    session.shown = None
    if state["shown"] is not None:
        frames, times, start, end = state["shown"]
        session.shown = Chunk(frames.numpy().astype(np.uint8), times, start, end)


def _options(session: Session) -> str:
    """Everything that the words depend on besides the model and the video."""
    return repr(session.options)


def _plain(span: Span) -> tuple[Any, ...]:
    kind, role, *rest = astuple(span)
    return (str(kind), str(role), *rest)


def _span(kind: str, role: str, *rest: Any) -> Span:
    return Span(Kind(kind), Role(role), *rest)
