"""A stream put on disk between two steps and taken up again: it says on, bit for bit, what it would have said.

A snapshot holds what a step changes: the stream's state, and the rows of its slot (raw keys, values, rotated keys).
What the stream was opened with is in it for a check only: open it in the same way, then :func:`restore`. The video has
to go on where it stopped, at ``session.time``.

The file: :data:`MAGIC`, the format's number (4 bytes, little endian), the length of the payload (8), the SHA-256 of all
but itself (32), the payload: tensors in the safetensors format, whose metadata holds the rest as JSON. Nothing is
unpickled. A new file is on the disk before it takes its name; the one before it is kept as ``NAME.prev``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from safetensors.torch import save as to_bytes
from torch import Tensor

from ..cache.kv_pool import KVPool
from ..core.errors import CapacityError, OutputError, StreamingVLMError
from ..core.events import Chunk, InstructionUpdated
from ..core.spans import Kind, Role, Span
from ..core.timeline import Timeline
from ..models.base import Model
from ..models.patches import Patcher, Patches
from ..sinks.files import sync_folder
from .state import StreamState
from .stream import OpenStream

MAGIC = b"SVLMSNAP"
#: What the record of a stream has that a model behind an endpoint watches; its state has no tensors.
REMOTE = "remote_stream"
FORMAT = 3
#: Magic, number of the format, length of the payload; the digest follows.
_HEADER = struct.Struct("<8sIQ")
_DIGEST = hashlib.sha256().digest_size
#: The pool's stores, by the names that their rows have in a file.
_STORES = ("keys", "values", "rotated_keys")
#: What a file of format 1 begins with: it was a zip archive with a pickle.
_ZIP = b"PK\x03\x04"


class SnapshotError(StreamingVLMError):
    """A snapshot is broken, of another version, or of a stream that was opened otherwise."""


class BrokenError(SnapshotError):
    """A snapshot is not there or not whole: the one before it may be."""


#: Fields of a stream that stand in the JSON as they are, and their types.
_PLAIN = {
    "turn": int,
    "sampled": int,
    "time": float,
    "first": float,
    "last_position": float,
    "version": int,
    "time_offset": float,
}
#: What a snapshot of an earlier version does not say.
_LATER = {"time_offset": 0.0}
#: Fields of a span, in the order that they have in a file.
_SPAN = tuple(field.name for field in fields(Span))


def previous(path: Path) -> Path:
    """Where the snapshot before the one at ``path`` is kept."""
    return path.with_name(path.name + ".prev")


def there_is(path: Path) -> bool:
    """Whether there is a snapshot at ``path``, or one before it."""
    return path.exists() or previous(path).exists()


def remove(path: Path) -> None:
    """Remove a snapshot and the one before it, if they are there. :class:`OutputError` if that cannot be."""
    with _writing(path):
        for file in (path, previous(path), _part(path)):
            file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Taken:
    """A stream as it was between two steps, in host memory: what happens to the stream does not reach it.

    ``tensors``: by the names that they have in a file; ``record``: the rest, as a JSON value.
    """

    tensors: Mapping[str, Tensor]
    record: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors: nearly those of the file."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True, slots=True)
class Kept:
    """What a file tells without a model. ``path``: the file; ``time``: seconds, where the stream's last step ended;
    ``extra``: what was saved beside the stream (empty in a file of an earlier version). ``problem``: why the newest
    file was not taken, if this is the one before it ("").
    """

    path: Path
    time: float
    extra: Mapping[str, Any]
    problem: str = ""


def save(stream: OpenStream, model: Model, pool: KVPool, path: Path) -> None:
    """Write the stream as it is between two steps: :func:`take`, then :func:`write`. ``pool``: the engine's."""
    write(path, take(stream, model, pool))


def take(stream: OpenStream, model: Model, pool: KVPool, extra: Mapping[str, Any] | None = None) -> Taken:
    """Copy the stream as it is between two steps to host memory. ``pool``: the engine's.

    ``extra``: a JSON value that goes into the file. Raises :class:`SnapshotError` within a step, TypeError or
    ValueError for an ``extra`` that is not JSON.
    """
    _check_between(stream)
    plain = json.loads(json.dumps(dict(extra or {}), allow_nan=False))
    tensors, record = _pack(stream, model, pool)
    return Taken(tensors, record | {"extra": plain})


def write(path: Path, taken: Taken) -> None:
    """Write what was taken; in any thread, but in one at a time for one path.

    The file is whole or not there, also after a loss of power; the one that was there is kept as :func:`previous`.
    Raises :class:`OutputError` if the file cannot be written: then the snapshots that were there still are.
    """
    payload = to_bytes(dict(taken.tensors), {"stream": json.dumps(taken.record)})
    with _writing(path):
        try:
            _write(_part(path), header(payload), payload)
            _keep(path)
            os.replace(_part(path), path)
        except OSError:
            with suppress(OSError):
                _part(path).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def read(path: Path) -> Kept:
    """What :func:`restore` would take: the file at ``path`` or, if that is missing or not whole, the one before it.

    Raises :class:`BrokenError` if there is none, :class:`SnapshotError` if none is whole.
    """
    _, record, taken, problem = _whole_one(path)
    with _contents(taken):
        return Kept(taken, _value("time", record["time"]), dict(record.get("extra", {})), problem)


def read_record(path: Path) -> tuple[Mapping[str, Any], Path]:
    """The JSON value of the snapshot that :func:`restore` would take, and its file; raises as :func:`read` does."""
    _, record, taken, problem = _whole_one(path)
    _warn_of(problem, taken)
    return record, taken


def _warn_of(problem: str, taken: Path) -> None:
    if problem:
        warnings.warn(f"{problem}; the stream goes on from the one before it, {taken}", stacklevel=3)


def restore(stream: OpenStream, model: Model, pool: KVPool, path: Path) -> Path:
    """Put a session that was opened in the same way where the saved one was; the file that was taken.

    That is the one before (:func:`previous`), with a warning, if the one at ``path`` is missing or not whole. Raises
    :class:`SnapshotError` if neither is whole, or for a stream that was opened otherwise or with other weights (each
    option that differs is named), :class:`CapacityError` if it does not fit. Then the session is as it was.
    """
    _check_between(stream)
    own, weights = _options(stream, model), model.fingerprint
    tensors, record, taken, problem = _whole_one(path)
    _warn_of(problem, taken)
    if REMOTE in record:
        raise SnapshotError(f"{taken} is of a stream that a model behind an endpoint watched, not {model.name}")
    with _contents(taken):
        _check_options(taken, record, own, _defaults(stream))
        if record["weights"] != weights:
            raise SnapshotError(f"{taken} is of a stream of a model with other weights than {model.name} has")
        state = _unpack(tensors, record, stream, model)
        rows = _rows(taken, tensors, state, stream, pool)
    # All that may fail comes before the first write.
    moved = [(getattr(pool, name), tensors[name].to(pool.shape.device)) for name in _STORES]
    for store, saved in moved:
        store[:, stream.slot, :, :rows] = saved
    pool.length[stream.slot] = rows
    stream.state = state
    return taken


def header(payload: bytes, number: int = FORMAT) -> bytes:
    """What stands in front of ``payload`` in a file of format ``number``: the digest is of this and the payload."""
    start = _HEADER.pack(MAGIC, number, len(payload))
    digest = hashlib.sha256(start)
    digest.update(payload)
    return start + digest.digest()


# Files.


def _part(path: Path) -> Path:
    """Where a snapshot is written before it takes its name."""
    return path.with_name(path.name + ".part")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """An OSError as one line that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error})") from error


def _write(path: Path, *pieces: bytes) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _keep(path: Path) -> None:
    """Keep a whole snapshot as the one before; a broken one may not take the place of that.

    ``path`` is there all the time: what is kept is another name of the same file.
    """
    try:
        _read(path)
    except BrokenError:
        return
    except SnapshotError:
        pass  # whole, of another version
    previous(path).unlink(missing_ok=True)
    try:
        os.link(path, previous(path))
    except OSError:  # a file system without second names
        os.replace(path, previous(path))


def _whole_one(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], Path, str]:
    """Tensors and record of the newest whole snapshot, which file that is, and why it is not the one at ``path``."""
    before = previous(path)
    try:
        return *_parse(path, _read(path)), path, ""
    except BrokenError as error:
        if not before.exists():
            raise
        try:
            return *_parse(before, _read(before)), before, str(error)
        except SnapshotError as other:
            raise SnapshotError(f"{error}; and the one before: {other}") from None


def _read(path: Path) -> bytes:
    """The payload of a whole file of this format; nothing in a file is believed before its digest holds."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BrokenError(f"{path} is no snapshot of a stream: {error.strerror or error}") from None
    start = _HEADER.size + _DIGEST
    if content.startswith(_ZIP):
        raise SnapshotError(f"{path} is a snapshot of format 1, which is not read any more; remove it and start anew")
    if len(content) < start or not content.startswith(MAGIC):
        raise BrokenError(f"{path} is no snapshot of a stream: it does not begin like one")
    _, number, _ = _HEADER.unpack_from(content)
    payload = content[start:]
    if header(payload, number) != content[:start]:
        raise BrokenError(f"{path} is no whole snapshot of a stream: its checksum does not hold")
    if number != FORMAT:
        raise SnapshotError(f"{path} is a snapshot of format {number}; this version reads format {FORMAT}")
    return payload


def _parse(path: Path, payload: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with _contents(path):
        size = int.from_bytes(payload[:8], "little")
        record: dict[str, Any] = json.loads(json.loads(payload[8 : 8 + size])["__metadata__"]["stream"])
        return load(payload), record


@contextmanager
def _contents(path: Path) -> Iterator[None]:
    """What a file holds that is whole but not as this version writes it: one line."""
    try:
        yield
    except (
        SafetensorError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        AssertionError,
        OverflowError,
    ) as error:
        what = f"{type(error).__name__}: {error}"
        raise SnapshotError(f"{path} does not hold what a snapshot of format {FORMAT} holds ({what})") from None


# A stream as tensors and plain values.


def _pack(stream: OpenStream, model: Model, pool: KVPool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A stream as tensors of its own in host memory, and the rest of it as plain values."""
    state, slot, rows = stream.state, stream.slot, pool.length[stream.slot]
    parts = {name: getattr(pool, name)[:, slot, :, :rows] for name in _STORES}
    parts |= {f"retained.{turn}": part.pixels for turn, part in state.retained.items()}
    tensors = _to_host(parts)
    tensors["positions"] = torch.from_numpy(state.positions.copy())
    shown = None
    if state.shown is not None:
        tensors["shown"] = torch.from_numpy(np.ascontiguousarray(state.shown.frames))
        shown = {"times": state.shown.times, "start": state.shown.start, "end": state.shown.end}
    record = {
        "options": _options(stream, model),
        "weights": model.fingerprint,
        "spans": [_plain(span) for span in state.timeline.spans],
        "cached": state.timeline.cached,
        **{name: kind(getattr(state, name)) for name, kind in _PLAIN.items()},
        "instructions": [(one.version, one.text) for one in state.instructions],
        "retained": {str(turn): (part.grid, part.merged) for turn, part in state.retained.items()},
        "shown": shown,
    }
    return tensors, record


def _to_host(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in host memory. From a GPU all are on their way at once, into pages that it can write to by itself."""
    out = {}
    for name, part in parts.items():
        pinned = part.device.type == "cuda"
        out[name] = torch.empty(part.shape, dtype=part.dtype, pin_memory=pinned).copy_(part, non_blocking=pinned)
    for device in {part.device for part in parts.values() if part.device.type == "cuda"}:
        torch.cuda.current_stream(device).synchronize()
    return out


def _unpack(tensors: Mapping[str, Tensor], record: Mapping[str, Any], stream: OpenStream, model: Model) -> StreamState:
    """The stream of a record, checked; what does not fit together is an error that :func:`_contents` knows."""
    timeline = Timeline([_span(parts) for parts in record["spans"]], _number(record["cached"]))
    if timeline.cached > len(timeline):
        raise ValueError(f"{timeline.cached} rows of {len(timeline)} tokens")
    if not all(0 <= token < model.vocabulary for token in timeline.tokens):
        raise ValueError("tokens that the vocabulary does not have")
    positions = tensors["positions"]
    if positions.shape != (3, timeline.cached) or positions.dtype != torch.float32 or not positions.isfinite().all():
        raise ValueError(f"{timeline.cached} rows, positions {tuple(positions.shape)} {positions.dtype}")
    record = {**_LATER, **record}
    plain = {name: _value(name, record[name]) for name in _PLAIN}
    _check_retained(timeline, record["retained"], stream)
    retained = {
        int(turn): _patches(tensors[f"retained.{turn}"], grid, merged, stream.planner.patcher)
        for turn, (grid, merged) in record["retained"].items()
    }
    shown = None
    if record["shown"] is not None:
        one = record["shown"]
        shown = Chunk(tensors["shown"].numpy(), tuple(map(float, one["times"])), float(one["start"]), float(one["end"]))
    instructions = tuple(
        InstructionUpdated(_number(number), str(text), None) for number, text in record["instructions"]
    )
    return StreamState(
        timeline=timeline,
        positions=positions.numpy(),
        retained=retained,
        shown=shown,
        instructions=instructions,
        **plain,
    )


def _rows(path: Path, tensors: Mapping[str, Tensor], state: StreamState, stream: OpenStream, pool: KVPool) -> int:
    """How many rows a snapshot has; they are the timeline's, and the session has room for them."""
    rows, shape = state.timeline.cached, pool.shape
    if max(rows, len(state.timeline)) > min(stream.planner.capacity, pool.rows):
        raise CapacityError(
            f"{path} has {len(state.timeline)} rows; the stream was opened for {stream.planner.capacity}"
        )
    for name in _STORES:
        found, wanted = tensors[name], (shape.layers, shape.heads, rows, shape.head_dim)
        if tuple(found.shape) != wanted or found.dtype != shape.dtype:
            raise ValueError(f"{name} {tuple(found.shape)} {found.dtype}, not {wanted} {shape.dtype}")
    return rows


def _check_retained(timeline: Timeline, retained: Mapping[str, Any], stream: OpenStream) -> None:
    """A policy that recomputes needs what every video block that stays has shown."""
    shown = {str(span.turn): span.grid for span in timeline.spans if span.kind is Kind.VISION}
    if stream.options.recomputes:
        for turn, grid in shown.items():
            if grid is None or list(grid) != retained[turn][1]:
                raise ValueError(f"turn {turn} shows {grid}, not {retained[turn][1]}")


def _patches(pixels: Tensor, grid: list[int], merged: list[int], patcher: Patcher) -> Patches:
    (t, h, w), (mt, mh, mw) = map(_number, grid), map(_number, merged)
    patches = Patches(pixels, (t, h, w), (mt, mh, mw))
    if not patcher.fills(patches):
        raise ValueError(f"patches {tuple(pixels.shape)} of {pixels.dtype}, grid {grid}, merged {merged}")
    return patches


def _value(name: str, value: Any) -> Any:
    """A counter or a time of a record."""
    kind = _PLAIN[name]
    if kind is int:
        return _number(value)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}")
    return kind(value)


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} where a count stands")
    return value


def _plain(span: Span) -> tuple[Any, ...]:
    kind, role, *rest = (getattr(span, name) for name in _SPAN)
    return (str(kind), str(role), *rest)


def _span(parts: Sequence[Any]) -> Span:
    kind, role, tokens, turn, start, end, grid, patch_seconds, count = parts
    shape = None if grid is None else (_number(grid[0]), _number(grid[1]), _number(grid[2]))
    ids = tuple(map(_number, tokens))
    return Span(
        Kind(kind), Role(role), ids, int(turn), float(start), float(end), shape, float(patch_seconds), _number(count)
    )


# What a stream was opened with.


def _options(stream: OpenStream, model: Model) -> dict[str, Any]:
    """All that the words depend on besides the weights and the video, as nested plain values."""
    options = stream.options
    return {
        **_as_plain(options),
        "policy": {"class": type(options.policy).__name__, **_as_plain(options.policy)},
        "frames": _as_plain(stream.planner.patcher),
        "model": {"dtype": str(model.kv_shape.dtype).removeprefix("torch."), "end_tokens": sorted(model.end_tokens)},
    }


def _as_plain(value: Any) -> Any:
    """A value as JSON has it; an object as its fields."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_plain(getattr(value, field.name)) for field in fields(value) if field.compare}
    if isinstance(value, Mapping):
        return {str(key): _as_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_plain(part) for part in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    attributes = getattr(value, "__dict__", None)
    return repr(value) if attributes is None else {name: _as_plain(part) for name, part in attributes.items()}


def _defaults(stream: OpenStream) -> dict[str, Any]:
    """Values of the options that an older snapshot may not know yet, by their full names."""
    out: dict[str, Any] = {}
    parts = [("", stream.options), ("frames.", stream.planner.patcher)]
    parts += [(f"{name}.", getattr(stream.options, name)) for name in ("policy", "sampling")]
    for prefix, value in parts:
        for field in fields(value) if is_dataclass(value) else ():
            if field.compare and field.default is not MISSING:
                out |= dict(_flat(f"{prefix}{field.name}", _as_plain(field.default)))
    return out


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A nested record as full names and values."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{name}.{key}" if name else key, part)
    else:
        yield name, value


def _check_options(
    path: Path, record: Mapping[str, Any], options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Refuse a snapshot of a stream that was opened otherwise than with ``options``, naming each that differs."""
    saved = {**defaults, **dict(_flat("", record["options"]))}
    own = dict(_flat("", json.loads(json.dumps(options))))
    if saved["policy.class"] != own["policy.class"]:
        # Fields of another policy say nothing.
        saved, own = (
            {k: v for k, v in one.items() if k.partition(".")[0] != "policy" or k == "policy.class"}
            for one in (saved, own)
        )
    apart = [key for key in {**own, **saved} if saved.get(key, MISSING) != own.get(key, MISSING)]
    if apart:
        each = "; ".join(f"{key} {_said(saved, key)}, here {_said(own, key)}" for key in apart)
        raise SnapshotError(f"{path} is of a stream that was opened with other options: {each}")


def _said(options: Mapping[str, Any], key: str) -> str:
    return repr(options[key]) if key in options else "not known"


def _check_between(stream: OpenStream) -> None:
    if stream.closed:
        raise SnapshotError("this session is closed; open another one")
    if not stream.state.between_steps or stream.before is not None:
        raise SnapshotError("a stream is saved and restored between two steps; end the step that was begun")
