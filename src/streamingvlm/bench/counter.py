"""Counts what a GPU would be given: kernels, launches by the host, bytes, waits. Needs no GPU.

The code that a GPU runs is run on the meta device, where tensors have shapes and no numbers. Every operation of torch
and every kernel of ours that it comes to is counted by the rules below; what would make the host wait is counted with
the place in the code. Nothing here is measured: a library may split one product into two kernels, and caches spare
bytes.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from ..core.errors import StreamingVLMError
from ..kernels.cuda import CudaKernels

#: Rows of a stream that one program of the decoding kernel attends to; as triton_kernels has it.
PIECE = 256

#: Numbers of which one program of the choice leaves the best; as triton_kernels has it.
COLUMNS = 1024

#: Kernels of each of our functions; ``best`` has one for each time that its numbers become fewer.
LAUNCHES = {
    "add_norm": 1,
    "silu_mul": 1,
    "rotate_store": 1,
    "decode_attention": 2,
    "move_rows": 1,
    "penalize": 1,
    "best": 1,
    "pick": 1,
}

PRODUCTS = ("mm", "addmm", "linear", "bmm", "baddbmm", "matmul")
ATTENTION = ("_flash_attention_forward", "scaled_dot_product_attention")
#: Operations that the composite form of torch splits up and CUDA does not.
WHOLE = (*PRODUCTS[:3], *ATTENTION, "rms_norm", "layer_norm", "embedding", "constant_pad_nd", "embedding_bag")
ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_")
#: Without any work on the device.
FREE = ("detach", "detach_", "alias", "lift_fresh", "_unsafe_view", "_reshape_alias", "device", "sym_size", "is_pinned")
#: Read no more of their first tensor than what they write.
GATHERS = ("embedding", "index_select", "gather", "index", "embedding_bag")
READS = ("_local_scalar_dense", "item", "is_nonzero", "equal")
#: Kernels where there is more than one. Padding fills and copies; nonzero is a count, its sum and a choice; a short
#: sort copies, numbers and sorts.
MORE = {"constant_pad_nd": 2, "nonzero": 3, "sort": 3}


def topk_kernels(rows: int, width: int) -> int:
    """Kernels of ``topk`` of at most 4096 in rows (rows, width) of float32, from torch 2.11's TensorTopK.cu.

    Short rows: one block a row (gatherTopK), then one sort of what was found. Long rows (``should_use_multiblock``) by
    radix select over several blocks: a fill, two memsets, three kernels for each of four digits, the counts of the
    k-th, two scans by key of two kernels each, gatherTopK; and the sort.
    """
    limits = ((20, 20_000), (40, 10_000), (80, 8_000), (199, 5_000), (799, 3_000), (4_000, 800))
    least = next((width for most, width in limits if rows <= most), 400)
    return 1 + (1 + 2 + 4 * 3 + 1 + 2 * 2 + 1 if width >= least else 1)


class UnknownValueError(StreamingVLMError):
    """A value was read on the host that only a device would know."""


@dataclass(frozen=True, slots=True)
class Work:
    """``kernels`` of one kind at one place; ``bytes`` read and written."""

    kind: str
    name: str
    where: str
    kernels: int
    bytes: float


@dataclass(slots=True)
class Tally:
    """What was counted. ``launches``: calls by the host that hand work to the device, a replayed graph is one.

    ``waits``: (what, where) for each time that the host waits for the device; ``copies_in`` and ``read_backs``: copies
    between host and device, which are among the launches.
    """

    work: list[Work] = field(default_factory=list)
    launches: int = 0
    copies_in: int = 0
    read_backs: int = 0
    waits: list[tuple[str, str]] = field(default_factory=list)
    #: Why the count ends before the work does ("": it does not).
    incomplete: str = ""

    @property
    def kernels(self) -> int:
        """Kernels, memory fills included; copies between host and device are not."""
        return sum(one.kernels for one in self.work)

    @property
    def bytes(self) -> float:
        """Bytes that kernels read and write."""
        return sum(one.bytes for one in self.work)

    def of(self, kind: str) -> int:
        """Kernels of one kind: products, own, attention, choice or other."""
        return sum(one.kernels for one in self.work if one.kind == kind)

    def places(self) -> dict[str, int]:
        """Kernels by operation and place, most first."""
        found: Counter[str] = Counter()
        for one in self.work:
            found[f"{one.name} in {one.where}"] += one.kernels
        return dict(found.most_common())

    def bytes_by_place(self) -> dict[str, float]:
        """Bytes by operation and place, most first."""
        found: dict[str, float] = {}
        for one in self.work:
            place = f"{one.name} in {one.where}"
            found[place] = found.get(place, 0) + one.bytes
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def waits_by_place(self) -> dict[str, int]:
        """Waits by reason and place, most first."""
        return dict(Counter(f"{what} in {where}" for what, where in self.waits).most_common())


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts into :attr:`tally`, while it is entered, whatever is done with tensors on the meta device.

    ``zeros``: whether a value that is read on the host is taken for zero; otherwise :class:`UnknownValueError`. Values
    that came from the host are known.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tally = Tally()
        self.zeros = False
        #: Tensors of the host that are pinned where there is a GPU.
        self.pinned: tuple[Tensor, ...] = ()
        self._known: Any = WeakTensorKeyDictionary()
        self._captured = False

    @contextmanager
    def counting(self, tally: Tally, *, zeros: bool = False) -> Iterator[Tally]:
        """Count what runs inside into ``tally``."""
        before = self.tally, self.zeros
        self.tally, self.zeros = tally, zeros
        try:
            with _Constructors(self), self:
                yield tally
        finally:
            self.tally, self.zeros = before

    def captured(self, body: Callable[[], Any]) -> Callable[[], Any]:
        """``body`` as if it were captured: one launch by the host, whatever it does."""

        def replay() -> Any:
            self.tally.launches += 1
            self._captured = True
            try:
                return body()
            finally:
                self._captured = False

        return replay

    def add(self, kind: str, name: str, count: int, size: float) -> None:
        """Count kernels that read and write ``size`` bytes."""
        self.tally.work.append(Work(kind, name, _place(), count, size))
        self.tally.launches += 0 if self._captured else count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation and do it, as far as shapes go."""
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        tensors = [one for one in _flat((args, kwargs)) if isinstance(one, Tensor)]
        if func._schema.is_mutable and isinstance(args[0], Tensor):
            self._known.pop(args[0], None)
        if name in READS and any(one.is_meta for one in tensors):
            return self._read(name, tensors[0])
        if name in ("_to_copy", "copy_") and len({one.is_meta for one in _ends(name, args, kwargs)}) == 2:
            return self._copy(name, func, args, kwargs)
        if name in ("nonzero", "index", "index_put_", "index_put", "_index_put_impl_"):
            args = self._without_masks(name, args)
            if name == "nonzero":
                return args
        if name not in WHOLE:
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        found = func(*args, **kwargs)
        self._count(name, func, args, tensors, found)
        return found

    def _count(self, name: str, func: Any, args: Any, tensors: Sequence[Tensor], found: Any) -> None:
        outs = [one for one in _flat(found) if isinstance(one, Tensor)]
        if not any(one.is_meta for one in (*tensors, *outs)) or name in (*ALLOCATIONS, *FREE) or _is_view(func):
            return
        if name in ATTENTION:
            outs = outs[:1]
        kind = "products" if name in PRODUCTS else "attention" if name in ATTENTION else "other"
        count = MORE.get(name, 1)
        if name == "topk":
            count, kind = topk_kernels(args[0].numel() // args[0].shape[-1], args[0].shape[-1]), "choice"
        written = sum(map(_size, outs))
        if name in ("index_put_", "index_put", "_index_put_impl_"):
            size = _put_bytes(*args[:3])
        elif name in GATHERS:
            size = 2 * written + sum(_size(one) for one in tensors if not one.is_floating_point())
        elif name.endswith("_like") or name.startswith("new_"):
            size = written
        else:
            # Some targets are written without being read.
            blind = name in ("copy_", "fill_", "zero_") or any(one.is_out for one in func._schema.arguments)
            size = sum(map(_size, tensors)) + (0 if blind else written)
        self.add(kind, name, count, size)

    def _read(self, name: str, tensor: Tensor) -> Any:
        """A value of the device that the host asks for."""
        self.tally.waits.append(("a value read by the host", _place()))
        self.tally.read_backs += 1
        self.tally.launches += 1
        host = self._value(tensor)
        return bool(host) if name in ("is_nonzero", "equal") else host.item()

    def _copy(self, name: str, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """A copy between host and device: waited for where it goes to the host, or comes from pageable memory."""
        target, source = _ends(name, args, kwargs)
        calm = bool(kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        self.tally.launches += 1
        if source.is_meta:
            self.tally.read_backs += 1
            self.tally.waits.append(("read-back", _place()))
            # Values of a copy that is not waited for are looked at behind an event: they decide nothing on the way.
            value = torch.zeros(source.shape, dtype=source.dtype) if calm else self._value(source)
            return target.copy_(value) if name == "copy_" else value.to(target.dtype)
        self.tally.copies_in += 1
        if not calm:
            self.tally.waits.append(("copy from pageable memory", _place()))
        found = func(*args, **kwargs)
        self._known[found] = source
        return found

    def _value(self, tensor: Tensor) -> Tensor:
        if tensor in self._known:
            known: Tensor = self._known[tensor]
            return known
        if not self.zeros:
            raise UnknownValueError(f"the host reads a value of the device in {_place()}")
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")

    def _without_masks(self, name: str, args: Any) -> Any:
        """``args`` of an indexing operation with masks turned into numbers, for which a host has to wait."""
        if name == "nonzero":
            return self._numbers(args[0]) if args[0].is_meta else torch.nonzero(args[0])
        whole, indices, *rest = args
        single = name != "index" and rest[0].numel() == 1
        out: list[Tensor | None] = []
        for index in indices:
            if index is None or not whole.is_meta:
                out.append(index)
            elif index.dtype in (torch.bool, torch.uint8):
                # One value for all that a mask marks is a fill without a wait.
                places = torch.empty(index.numel(), dtype=torch.int64, device="meta")
                marked = places if single else self._numbers(index)[:, 0]
                out += [marked] * index.ndim
            else:
                out.append(index if index.is_meta else index.to(whole.device))
        return (whole, out, *rest)

    def _numbers(self, mask: Tensor) -> Tensor:
        """What ``nonzero`` gives (marked, dimensions) int64; the host waits for how many there are."""
        self.tally.waits.append(("a mask counted", _place()))
        self.tally.read_backs += 1
        self.tally.launches += 1
        host = self._known.get(mask)
        marked = mask.numel() if host is None else int(torch.count_nonzero(host))
        found = torch.empty(marked, mask.ndim, dtype=torch.int64, device="meta")
        self.add("other", "nonzero", MORE["nonzero"], _size(mask) + _size(found))
        return found


class _Constructors(TorchFunctionMode):
    """Shows a counter the copies that the meta device spares: a tensor made of a list comes from the host."""

    def __init__(self, counter: OperationCounter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == "meta":
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.is_pinned:
            return any(args[0] is one for one in self._counter.pinned)
        return func(*args, **kwargs)


class CountedFunctions:
    """Functions with the names and arguments of :mod:`streamingvlm.kernels.triton_kernels` that only count.

    ``rows``: how many rows each stream holds before its token; what only the device knows otherwise. Bytes are those
    that the functions' descriptions state.
    """

    def __init__(self, counter: OperationCounter) -> None:
        self._counter = counter
        self.rows: Sequence[int] = ()

    def _add(self, name: str, size: float, kind: str = "own") -> None:
        self._counter.add(kind, name, LAUNCHES[name], size)

    def add_norm(self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """4 n w elements, 2 n w without ``delta``, and the weight."""
        self._add("add_norm", (2 if delta is None else 4) * _size(x) + _size(weight))
        return x if delta is None else torch.empty_like(x), torch.empty_like(x)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """3 n inner elements."""
        self._add("silu_mul", 1.5 * _size(gate_up))
        return gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)

    def rotate_store(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, query_norm: Tensor | None, key_norm: Tensor | None, eps: float,  # noqa: ARG002
        keys: Tensor, rotated: Tensor, values: Tensor, slots: Tensor, rows: Tensor, *, heads: int,  # noqa: ARG002
    ) -> Tensor:  # fmt: skip
        """Reads n (H + 2 K) D elements and the rotation, writes n (H + 3 K) D."""
        count, key_heads, dim = len(qkv), keys.shape[1], keys.shape[3]
        written = count * (heads + 3 * key_heads) * dim * qkv.element_size()
        self._add("rotate_store", _size(qkv) + _size(cos) + _size(sin) + written)
        return qkv.new_empty(count, heads, dim)

    def decode_attention(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, query_norm: Tensor | None, key_norm: Tensor | None, eps: float,  # noqa: ARG002
        keys: Tensor, rotated: Tensor, values: Tensor, slots: Tensor, lengths: Tensor, *, heads: int, scaling: float,  # noqa: ARG002
    ) -> Tensor:  # fmt: skip
        """Reads 2 K D elements a row and the token, writes (H + 3 K) D; partial sums are written and read."""
        count, key_heads, dim = len(qkv), keys.shape[1], keys.shape[3]
        held = [*self.rows, *[0] * count][:count]
        written = count * (heads + 3 * key_heads) * dim * qkv.element_size()
        parts = 2 * 4 * heads * (dim + 2) * sum(rows // PIECE + 1 for rows in held)
        rows = 2 * sum(held) * key_heads * dim * keys.element_size()
        self._add("decode_attention", rows + _size(qkv) + _size(cos) + _size(sin) + written + parts)
        return qkv.new_empty(count, heads * dim)

    def move_rows(
        self, keys: Tensor, rotated: Tensor, values: Tensor, slot: int, index: Tensor, first: int, cos: Tensor, sin: Tensor,  # noqa: ARG002, E501
    ) -> None:  # fmt: skip
        """Reads 2 m layers K D elements and the rotation, writes 3 m layers K D."""
        layers, _, key_heads, _, dim = keys.shape
        moved = len(index) * layers * key_heads * dim * keys.element_size()
        self._add("move_rows", 5 * moved + _size(cos) + _size(sin) + _size(index))

    def penalize(
        self, logits: Tensor, token_mask: Tensor, slots: Tensor, tokens: Tensor, penalty: Tensor, temperature: Tensor  # noqa: ARG002
    ) -> Tensor:  # fmt: skip
        """Reads the logits and a byte of the mask for each, writes as many float32."""
        self._add("penalize", _size(logits) + 5 * logits.numel() + len(slots), "choice")
        return torch.empty(logits.shape, dtype=torch.float32, device=logits.device)

    def best(self, scores: Tensor, count: int, *, columns: int = COLUMNS) -> tuple[Tensor, Tensor]:
        """Reads the scores; each launch writes ``count`` of each piece, which the next one reads."""
        rows, width = scores.shape
        read = _size(scores)
        while True:
            pieces = -(-width // columns)
            written = rows * pieces * count * 8 * (1 if pieces > 1 else 1.5)
            self._add("best", read + written, "choice")
            if pieces == 1:
                break
            read, width = written, pieces * count
        top = torch.empty(rows, count, dtype=torch.float32, device=scores.device)
        return top, torch.empty(rows, count, dtype=torch.int64, device=scores.device)

    def pick(self, top: Tensor, ids: Tensor, noise: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
        """Reads 16 b k bytes and 12 b, writes 8 b."""
        self._add("pick", sum(map(_size, (top, ids, noise, top_k, top_p))) + 8 * len(top), "choice")
        return torch.empty(len(top), dtype=torch.int64, device=top.device)


class CountedKernels(CudaKernels):
    """The kernels of a CUDA device, of which each call is only counted. ``functions.rows``: see there."""

    name = "counted"

    def __init__(self, counter: OperationCounter) -> None:
        self.functions = CountedFunctions(counter)
        super().__init__(flash=True, functions=self.functions)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)
    elif isinstance(value, Mapping):
        yield from _flat(list(value.values()))
    else:
        yield value


def _size(tensor: Tensor) -> float:
    """Bytes that hold numbers of a tensor; what is expanded counts once."""
    shape = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or size == 0]
    return math.prod(shape) * tensor.element_size()


def _put_bytes(target: Tensor, indices: Sequence[Tensor | None], values: Tensor) -> float:
    """Of rows that are put where ``indices`` say: they are read and written."""
    found = [one for one in indices if one is not None]
    rest = [size for i, size in enumerate(target.shape) if i >= len(indices) or indices[i] is None]
    places = max(one.numel() for one in found)
    written = places * math.prod(rest) * target.element_size()
    return sum(map(_size, found)) + min(_size(values), written) + written


def _is_view(func: Any) -> bool:
    return any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)


def _ends(name: str, args: Any, kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Where a copy goes and where it comes from."""
    if name == "copy_":
        return args[0], args[1]
    source = args[0]
    device = kwargs.get("device") or source.device
    return torch.empty(0, dtype=kwargs.get("dtype") or source.dtype, device=device), source


_PACKAGE = Path(__file__).parent.parent
_HERE = str(Path(__file__).parent)


def _place() -> str:
    """The function of ours, outside this room, that is at work: ``engine/runner.py:_choose``."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(str(_PACKAGE)) and not file.startswith(_HERE):
            return f"{Path(file).relative_to(_PACKAGE).as_posix()}:{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"
