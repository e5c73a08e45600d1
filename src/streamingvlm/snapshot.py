"""A stream put on disk between two steps and taken up again: it says on, bit for bit, what it would have said.

A snapshot holds what a step changes: the stream's state, and the rows of its slot (raw keys, values and the rotated
view). What the stream was opened with is not in it, but for a check: open it in the same way, then :func:`restore`.
The video has to go on where it stopped, at ``session.time``.

The file: :data:`MAGIC`, the format's number (4 bytes, little endian), the length of the rest (8), the SHA-256 of all
but itself (32), then the rest: tensors in the safetensors format, whose metadata holds the state as JSON. It is written
beside the old one and put in its place once it is on the disk; the old one is kept as ``NAME.prev``. No pickle is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import MISSING, astuple, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from safetensors.torch import save as to_bytes
from torch import Tensor

from .errors import CapacityError, OutputError, SessionError, StreamingVLMError
from .events import Chunk, InstructionUpdated
from .kv import KVPool
from .models import Patches
from .session import Session, StreamOptions
from .spans import Kind, Role, Span, Timeline
from .state import StreamState

MAGIC = b"SVLMSNAP"
FORMAT = 2
_HEADER = struct.Struct("<8sIQ")
_DIGEST = 32
_ROWS = ("keys", "values", "view")


class SnapshotError(StreamingVLMError):
    """A snapshot is broken, of another version, or of a stream that was opened otherwise."""


class BrokenError(SnapshotError):
    """A snapshot is not there or not whole: the one before it may be."""


def previous(path: Path) -> Path:
    """Where the snapshot before the one at ``path`` is kept."""
    return path.with_name(path.name + ".prev")


def save(session: Session, pool: KVPool, path: Path) -> None:
    """Write the stream as it is between two steps; the file is whole or not there. ``pool``: the engine's.

    Raises :class:`SessionError` within a step, :class:`OutputError` for a file that cannot be written; then the
    snapshots that were there are still there.
    """
    if not session.state.between_steps or session.before is not None:
        raise SessionError("a stream is saved between two steps; end the step that is under way, or abandon it")
    rest = to_bytes(*_pack(session, pool))
    header = with_checksum(rest)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(header)
            file.write(rest)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.replace(path, previous(path))
        os.replace(part, path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path} ({error.strerror or error})") from error


def with_checksum(rest: bytes, number: int = FORMAT) -> bytes:
    """What stands in front of ``rest`` in a file of a format."""
    header = _HEADER.pack(MAGIC, number, len(rest))
    return header + hashlib.sha256(header + rest).digest()


def remove(path: Path) -> None:
    """Remove a snapshot and the one before it, if they are there."""
    for file in (path, previous(path), path.with_name(path.name + ".part")):
        file.unlink(missing_ok=True)


def there_is(path: Path) -> bool:
    """Whether there is a snapshot at ``path``, or one before it."""
    return path.exists() or previous(path).exists()


def restore(session: Session, pool: KVPool, path: Path) -> Path:
    """Put a fresh session where the saved one was; the file that was taken.

    That is the one before (:func:`previous`), with a warning, if the one at ``path`` is missing or broken. Raises
    :class:`SnapshotError` if both are, or if the stream was opened otherwise or with other weights,
    :class:`CapacityError` if it does not fit; then the session is as it was.
    """
    if session.closed or not session.state.between_steps or session.state.turn:
        raise SessionError("a stream is restored into a session that has just been opened")
    try:
        tensors, state, taken = *_read(path), path
    except BrokenError as error:
        before = previous(path)
        if not before.exists():
            raise
        try:
            tensors, state, taken = *_read(before), before
        except BrokenError as other:
            raise SnapshotError(f"{error}; and the one before: {other}") from None
        warnings.warn(f"{error}; the stream goes on from the one before, {before}", stacklevel=2)
    _check_options(taken, state, session)
    try:
        stream = _state(tensors, state)
        rows = _check_rows(taken, tensors, stream, session, pool)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, AssertionError) as error:
        raise SnapshotError(f"{taken} does not hold what a snapshot of format {FORMAT} holds: {error!r}") from None
    for name in _ROWS:
        store: Tensor = getattr(pool, name)
        store[:, session.slot, :, :rows] = tensors[name].to(store.device)
    pool.length[session.slot] = rows
    session.state = stream
    return taken


def _sync(folder: Path) -> None:
    """Let a new name in a folder reach the disk, where folders can be opened."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pack(session: Session, pool: KVPool) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A stream as tensors, and the rest of it as metadata."""
    state, slot, rows = session.state, session.slot, pool.length[session.slot]
    tensors = {name: getattr(pool, name)[:, slot, :, :rows].cpu().contiguous() for name in _ROWS}
    tensors["positions"] = torch.from_numpy(np.ascontiguousarray(state.positions))
    tensors |= {f"retained.{turn}": part.pixels.cpu().contiguous() for turn, part in state.retained.items()}
    shown = None
    if state.shown is not None:
        tensors["shown"] = torch.from_numpy(np.ascontiguousarray(state.shown.frames))
        shown = {"times": state.shown.times, "start": state.shown.start, "end": state.shown.end}
    record = {
        "options": _options(session),
        "weights": session.model.fingerprint,
        "spans": [_plain(span) for span in state.timeline.spans],
        "cached": state.timeline.cached,
        "turn": state.turn,
        "sampled": state.sampled,
        "time": state.time,
        "first": state.first,
        "last_position": state.last_position,
        "version": state.version,
        "instructions": [(one.version, one.text) for one in state.instructions],
        "retained": {str(turn): (part.grid, part.merged) for turn, part in state.retained.items()},
        "shown": shown,
    }
    return tensors, {"stream": json.dumps(record)}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a whole snapshot; nothing of it is believed before its checksum holds."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BrokenError(f"{path} is no snapshot of a stream: {error.strerror or error}") from None
    if content[:4] == b"PK\x03\x04":
        raise SnapshotError(f"{path} is a snapshot of format 1, which is not read any more; start the stream anew")
    start = _HEADER.size + _DIGEST
    if len(content) < start or content[: len(MAGIC)] != MAGIC:
        raise BrokenError(f"{path} is no snapshot of a stream: it does not begin like one")
    _, number, _ = _HEADER.unpack_from(content)
    rest = content[start:]
    if with_checksum(rest, number) != content[:start]:
        raise BrokenError(f"{path} is no whole snapshot of a stream: its content does not have its checksum")
    if number != FORMAT:
        raise SnapshotError(f"{path} is a snapshot of format {number}; this version reads format {FORMAT}")
    try:
        size = int.from_bytes(rest[:8], "little")
        state: dict[str, Any] = json.loads(json.loads(rest[8 : 8 + size])["__metadata__"]["stream"])
        return load(rest), state
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotError(f"{path} does not hold what a snapshot of format {FORMAT} holds: {error!r}") from None


def _options(session: Session) -> dict[str, Any]:
    """Everything that the words depend on besides the weights and the video, as a flat plain dict."""
    flat = dict(_flat("", session.options))
    kv = session.model.kv_shape
    return {**flat, "max_pixels": session.patcher.max_pixels, "dtype": str(kv.dtype).removeprefix("torch.")}


def _flat(prefix: str, record: Any) -> Iterator[tuple[str, Any]]:
    """Fields of a dataclass, those of its dataclasses under their name and the name of their class."""
    for field in fields(record):
        name, value = f"{prefix}{field.name}", getattr(record, field.name)
        if is_dataclass(value):
            yield name, type(value).__name__
            yield from _flat(f"{name}.", value)
        else:
            yield name, value


def _defaults(session: Session) -> dict[str, Any]:
    """Values of the options that an older snapshot may lack."""
    options, out = session.options, {}
    for prefix, kind in (("", StreamOptions), ("policy.", type(options.policy)), ("sampling.", type(options.sampling))):
        for field in fields(kind) if is_dataclass(kind) else ():
            if field.default is not MISSING:
                out[f"{prefix}{field.name}"] = field.default
    return out


def _check_options(path: Path, state: dict[str, Any], session: Session) -> None:
    """Refuse a snapshot of a stream that was opened otherwise, naming each option; or with other weights."""
    try:
        saved, weights = {**_defaults(session), **state["options"]}, state["weights"]
    except (KeyError, TypeError) as error:
        raise SnapshotError(f"{path} does not hold what a snapshot of format {FORMAT} holds: {error!r}") from None
    own = json.loads(json.dumps(_options(session)))
    if own["policy"] != saved.get("policy"):
        # Fields of another class say nothing.
        own, saved = ({"policy": options.get("policy")} for options in (own, saved))
    apart = [key for key in {**own, **saved} if own.get(key) != saved.get(key)]
    if apart:
        each = ", ".join(f"{key} {saved.get(key)!r}, here {own.get(key)!r}" for key in apart)
        raise SnapshotError(f"{path} is of a stream that was opened with other options: {each}")
    if weights != session.model.fingerprint:
        raise SnapshotError(f"{path} is of a stream of a model with other weights")


def _check_rows(path: Path, tensors: dict[str, Tensor], stream: StreamState, session: Session, pool: KVPool) -> int:
    """How many rows a snapshot has; they fit into the session's slot and to its timeline."""
    rows = stream.timeline.cached
    shape = pool.shape
    wanted = (shape.layers, shape.heads, rows, shape.head_dim)
    for name in _ROWS:
        if tuple(tensors[name].shape) != wanted or tensors[name].dtype != shape.dtype:
            raise ValueError(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype}, not {wanted} {shape.dtype}")
    if max(rows, len(stream.timeline)) > session.capacity:
        raise CapacityError(f"{path} has {rows} rows; the stream was opened for {session.capacity}")
    return rows


def _state(tensors: dict[str, Tensor], state: dict[str, Any]) -> StreamState:
    timeline = Timeline([_span(*parts) for parts in state["spans"]], state["cached"])
    positions = tensors["positions"].numpy()
    if positions.shape != (3, timeline.cached) or timeline.cached > len(timeline):
        raise ValueError(f"{timeline.cached} rows of {len(timeline)} ids at {positions.shape} positions")
    shown = None
    if state["shown"] is not None:
        one = state["shown"]
        shown = Chunk(tensors["shown"].numpy(), tuple(one["times"]), one["start"], one["end"])
    retained = {
        int(turn): Patches(tensors[f"retained.{turn}"], (grid[0], grid[1], grid[2]), (merged[0], merged[1], merged[2]))
        for turn, (grid, merged) in state["retained"].items()
    }
    return StreamState(
        timeline=timeline,
        turn=int(state["turn"]),
        sampled=int(state["sampled"]),
        time=float(state["time"]),
        first=float(state["first"]),
        positions=positions,
        last_position=float(state["last_position"]),
        retained=retained,
        shown=shown,
        version=int(state["version"]),
        instructions=tuple(InstructionUpdated(int(number), str(text), None) for number, text in state["instructions"]),
    )


def _plain(span: Span) -> tuple[Any, ...]:
    kind, role, *rest = astuple(span)
    return (str(kind), str(role), *rest)


def _span(kind: str, role: str, tokens: list[int], turn: int, start: float, end: float, grid: Any, *rest: Any) -> Span:
    return Span(Kind(kind), Role(role), tuple(tokens), turn, start, end, None if grid is None else tuple(grid), *rest)
