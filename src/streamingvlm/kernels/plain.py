"""Every operation of our own in plain torch.

:class:`PlainKernels` runs where no kernel of ours does, and every such kernel is checked against it. Other classes
replace some of its methods; which one a model uses is decided when it is loaded
(:func:`streamingvlm.kernels.choose.choose_kernels`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

#: Cosine and sine (n, head_dim) float32 of n positions.
CosSin = tuple[Tensor, Tensor]

#: Numbers of rows that products of few rows are padded to. On CPUs a product of 1 to 3 rows differs in the last bit.
BUCKETS = (4, 8, 16, 32, 64, 128)

#: Rows that larger products (a prefill's, a tower's first) have at least, for the same reason.
MIN_ROWS = 16

#: Rows of a block of few rows: what the smallest batch is padded to.
BLOCK = 4


def rotate(
    states: Tensor, cos: Tensor, sin: Tensor, out: Tensor | None = None, scratch: Tensor | None = None
) -> Tensor:
    """Rotate ``states`` (..., n, d) by cosine and sine (n, d), into ``out`` if given; in the dtype of ``states``.

    ``scratch`` (..., n, d / 2): memory to work in, so that nothing has to be allocated.
    """
    cos, sin = cos.to(states.dtype), sin.to(states.dtype)
    first, second = states.chunk(2, dim=-1)
    cos_first, cos_second = cos.chunk(2, dim=-1)
    sin_first, sin_second = sin.chunk(2, dim=-1)
    out = torch.empty_like(states) if out is None else out
    left, right = out.chunk(2, dim=-1)
    # Written half by half: no copy of the states with their halves swapped.
    torch.mul(first, cos_first, out=left).sub_(torch.mul(second, sin_first, out=scratch))
    torch.mul(second, cos_second, out=right).add_(torch.mul(first, sin_second, out=scratch))
    return out


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Queries (n, query heads, d) over rows (heads, m, d), the last n of which are theirs; same shape.

    ``mask``: (n, m) bool, or None for plain causal attention (n = m) and for one query, which sees all rows.
    """
    heads, _, dim = keys.shape
    if len(queries) == 1:
        # The query heads that share a key head are rows of one product: nothing is repeated and nothing is masked.
        folded = queries.view(1, heads, -1, dim)
        with no_cudnn(queries.device):
            out = F.scaled_dot_product_attention(folded, keys[None], values[None], scale=scaling)
        return out.reshape(queries.shape)
    with no_cudnn(queries.device):
        out = F.scaled_dot_product_attention(
            queries.transpose(0, 1)[None],
            keys[None],
            values[None],
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=queries.shape[1] != heads,
        )
    return out[0].transpose(0, 1)


def no_cudnn(device: torch.device) -> AbstractContextManager[Any]:
    """Attention by other kernels than cuDNN's on a GPU: it plans every new shape anew, which takes 20 to 70 ms."""
    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


def flash(queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """The same as :func:`attend` by the flash kernel that torch brings for CUDA, in half precision.

    Causal to the lower right, with grouped heads and strided rows: nothing is repeated and no mask is made.
    """
    causal = len(queries) > 1
    keys, values = keys.transpose(0, 1), values.transpose(0, 1)
    out: Tensor = torch.ops.aten._flash_attention_forward(
        queries[None], keys[None], values[None], None, None, len(queries), len(keys), 0.0, causal, False, scale=scaling
    )[0]
    return out[0]


@torch.inference_mode()
def flash_is_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether :func:`flash` runs on ``device`` in ``dtype`` and agrees with float32 on a small case."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    source = torch.Generator(device).manual_seed(0)
    queries = torch.randn(37, 14, 64, generator=source, device=device, dtype=dtype)
    keys, values = torch.randn(2, 2, 400, 64, generator=source, device=device, dtype=dtype)[:, :, :300]
    mask = torch.ones(37, 300, dtype=torch.bool, device=device).tril_(263)
    wanted = attend(queries.float(), keys.float(), values.float(), mask, 0.125)
    try:
        found = flash(queries, keys, values, 0.125).float()
    except (RuntimeError, NotImplementedError):
        return False
    return bool((found - wanted).norm() < 2e-2 * wanted.norm())


@dataclass(frozen=True, slots=True)
class Heads:
    """How a row of a layer's fused product falls into heads of ``dim`` numbers: queries, then keys, then values.

    ``query_norm`` and ``key_norm`` (dim,) with ``eps``: the norms of the families that have them.
    """

    queries: int
    keys: int
    dim: int
    query_norm: Tensor | None = None
    key_norm: Tensor | None = None
    eps: float = 0.0

    @property
    def scaling(self) -> float:
        """What scores are multiplied by."""
        return float(self.dim**-0.5)

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (n, query heads, d), keys and values (n, heads, d) of rows (n, width); normed, not rotated."""
        whole = qkv.view(len(qkv), -1, self.dim)
        query, key, value = torch.split(whole, [self.queries, self.keys, self.keys], dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            query = F.rms_norm(query, self.query_norm.shape, self.query_norm, self.eps)
            key = F.rms_norm(key, self.key_norm.shape, self.key_norm, self.eps)
        return query, key, value


@dataclass(frozen=True, slots=True)
class Stores:
    """Raw ``keys``, ``rotated`` keys and ``values`` of a pool, or of a layer: (slots, heads, rows, head_dim) each."""

    keys: Tensor
    rotated: Tensor
    values: Tensor


#: Consecutive tokens of one stream: slot, first token, behind its last token, row of the first.
Run = tuple[int, int, int, int]


class Placement:
    """Which rows belong to the n tokens of a forward pass.

    ``runs``: known to the host, in the order of the tokens; ``slots`` and ``rows`` (n,) int64: the same for each token
    on the device, slot -1 for padding. Each form is made of the other when it is first asked for.
    """

    def __init__(self, runs: Sequence[Run], tokens: int, device: torch.device) -> None:
        self._runs: Sequence[Run] | None = runs
        self.tokens = tokens
        self.device = device

    @classmethod
    def on_device(cls, slots: Tensor, rows: Tensor) -> Placement:
        """One token for each place, known to the device alone: what can be captured."""
        placement = cls((), len(slots), slots.device)
        placement._runs = None
        placement.__dict__["tensors"] = (slots, rows)
        return placement

    @property
    def runs(self) -> Sequence[Run]:
        """See the class. On a GPU this waits for the device if the tensors came first."""
        if self._runs is None:
            slots, rows = (one.tolist() for one in self.tensors)
            self._runs = [(slot, i, i + 1, rows[i]) for i, slot in enumerate(slots) if slot >= 0]
        return self._runs

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """``slots`` and ``rows`` (n,) int64."""
        both = np.full((2, self.tokens), -1, np.int64)
        for slot, first, last, row in self.runs:
            both[0, first:last] = slot
            both[1, first:last] = np.arange(row, row + last - first)
        slots, rows = upload(torch.from_numpy(both), self.device)
        return slots, rows

    @cached_property
    def counts(self) -> Tensor:
        """(n,) int64: the rows that each token sees, its own the last."""
        return self.tensors[1] + 1


def plan_in_place(
    pool: Stores,
    slot: int,
    rows: NDArray[np.int64],
    first: int,
    rotation: CosSin,
    move: Callable[[Tensor], None],
) -> Callable[[], None]:
    """:meth:`PlainKernels.plan_move` by a kernel that moves rows in place, in ascending order of where they go.

    ``move``: moves and rotates rows (m,) int64, on the pool's device, that lie where they go or behind it. The few that
    go backwards, as the end of the old text does when text is put in front of it, are read before, written after.
    """
    goals = np.arange(first, first + len(rows))
    late = np.flatnonzero(rows < goals)
    index, source, target, which = (
        upload(torch.from_numpy(one), pool.keys.device)
        for one in (np.maximum(rows, goals), rows[late], goals[late], late)
    )
    if not len(late):
        return lambda: move(index)
    keys, values = (store[:, slot].index_select(2, source) for store in (pool.keys, pool.values))
    # In float32 and rounded once, as the kernels do it.
    rotated = rotate(keys.float(), rotation[0][which], rotation[1][which]).to(keys.dtype)

    def run() -> None:
        move(index)
        for store, kept in ((pool.keys, keys), (pool.rotated, rotated), (pool.values, values)):
            store[:, slot].index_copy_(2, target, kept)

    return run


def upload(host: Tensor, device: torch.device) -> Tensor:
    """``host`` on ``device``. To a GPU it goes from pinned memory, and nobody waits."""
    if device.type not in ("cuda", "meta"):
        return host.to(device)
    # A meta device stands for a GPU where operations are counted; it has no pinned memory.
    pinned = host.pin_memory() if device.type == "cuda" else host
    return pinned.to(device, non_blocking=True)


class PlainKernels:
    """The operations in torch's own; the interface of the classes that have kernels for some of them."""

    #: What reports call it.
    name = "plain"

    def __init__(self, reason: str = "", *, flash: bool = False) -> None:
        #: Why there are no kernels ("" where none were asked for).
        self.reason = reason
        #: Whether attention runs by :func:`flash`, which needs no mask.
        self.flash = flash

    def bucket(self, count: int, device: torch.device) -> int:
        """The number of rows that ``count`` rows of decoding are padded to."""
        if device.type != "cpu":
            return count
        return next(size for size in (*BUCKETS, count) if size >= count)

    # Between the products of a layer.

    def add_norm(self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """The sum of ``x`` and ``delta`` (n, width), and its root mean square norm times ``weight`` (width,)."""
        total = x if delta is None else x + delta
        return total, F.rms_norm(total, weight.shape, weight, eps)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up, (n, inner), of both side by side (n, 2 * inner)."""
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up

    # Products.

    def few_rows(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``rows`` (n, in), a row for each stream or padding, times ``weight`` (out, in): (n, out).

        A row's result does not depend on the others. On some CPUs the library picks its kernel by the number of rows
        below 16: blocks of four cost what the whole would up to eight rows.
        """
        if rows.device.type != "cpu":
            return F.linear(rows, weight, bias)
        whole = F.pad(rows, (0, 0, 0, -len(rows) % BLOCK)) if len(rows) % BLOCK else rows
        out = [F.linear(part, weight, bias) for part in torch.split(whole, BLOCK)]
        return (out[0] if len(out) == 1 else torch.cat(out))[: len(rows)]

    def pack(self, weight: Tensor) -> Tensor | None:  # noqa: ARG002
        """A second copy of a weight in the order in which :meth:`many_rows` wants it; None where it wants none."""
        return None

    def many_rows(self, rows: Tensor, weight: Tensor, bias: Tensor | None, packed: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The same of the tokens of a prefill, with at least :data:`MIN_ROWS` rows inside."""
        missing = max(MIN_ROWS - len(rows), 0) if rows.device.type == "cpu" else 0
        if missing:
            return F.linear(F.pad(rows, (0, 0, 0, missing)), weight, bias)[: len(rows)]
        return F.linear(rows, weight, bias)

    # Attention.

    def cast_rotation(self, rotation: CosSin, dtype: torch.dtype) -> CosSin:
        """Cosine and sine in the form in which the other methods take them."""
        return rotation[0].to(dtype), rotation[1].to(dtype)

    def mask(self, before: int, count: int, device: torch.device) -> Tensor | None:
        """What :meth:`attend_prefill` needs to know of ``count`` tokens behind ``before`` rows, for all layers."""
        if self.flash or count == 1 or not before:
            return None
        return torch.ones(count, before + count, dtype=torch.bool, device=device).tril_(before)

    def rotate_store(self, qkv: Tensor, rotation: CosSin, heads: Heads, stores: Stores, placement: Placement) -> Tensor:
        """Write the new rows of a layer; the rotated queries (n, query heads, head_dim) of ``qkv`` (n, width)."""
        query, key, value = heads.split(qkv)
        cos, sin = rotation[0][:, None], rotation[1][:, None]
        self.store(key, value, rotation, stores, placement)
        return rotate(query, cos, sin)

    def store(self, keys: Tensor, values: Tensor, rotation: CosSin, stores: Stores, placement: Placement) -> None:
        """Write the new rows of a layer: raw keys and values (n, heads, head_dim), and the rotated keys."""
        rotated = rotate(keys, rotation[0][:, None], rotation[1][:, None])
        for slot, first, last, row in placement.runs:
            there = (slot, slice(None), slice(row, row + last - first))
            stores.keys[there] = keys[first:last].transpose(0, 1)
            stores.rotated[there] = rotated[first:last].transpose(0, 1)
            stores.values[there] = values[first:last].transpose(0, 1)

    def attend_rows(self, queries: Tensor, heads: Heads, stores: Stores, ends: Placement) -> Tensor:
        """Attention of one rotated query (query heads, head_dim) for each place over the rows up to its own.

        Every stream attends by itself over exactly its own rows, so its result does not depend on who shares the batch.
        Padding comes out as zeros.
        """
        out = torch.zeros_like(queries)
        for slot, place, _, row in ends.runs:
            keys, values = stores.rotated[slot, :, : row + 1], stores.values[slot, :, : row + 1]
            out[place] = self.attend_prefill(queries[place : place + 1], keys, values, None, heads.scaling)[0]
        return out

    def attend_prefill(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scaling: float
    ) -> Tensor:
        """Rotated queries (n, query heads, head_dim) over rows (heads, m, head_dim), the last n of which are theirs."""
        if self.flash:
            return flash(queries, keys, values, scaling)
        return attend(queries, keys, values, mask, scaling)

    def decode_attention(
        self, qkv: Tensor, rotation: CosSin, heads: Heads, stores: Stores, placement: Placement
    ) -> Tensor:
        """:meth:`rotate_store` and :meth:`attend_rows` of one new token for each place: (n, query heads * head_dim)."""
        queries = self.rotate_store(qkv, rotation, heads, stores, placement)
        return self.attend_rows(queries, heads, stores, placement).flatten(1)

    # Eviction.

    def plan_move(
        self, pool: Stores, slot: int, rows: NDArray[np.int64], first: int, rotation: CosSin
    ) -> Callable[[], None]:
        """What moves rows ``rows`` (m,) of a slot to ``first`` and behind, in this order, and rotates them anew.

        ``pool``: all layers, (layers, slots, heads, rows, head_dim); ``rotation``: cosine and sine (m, head_dim) of
        their positions from now on. All memory that the move takes is taken here: what fails for want of it has changed
        nothing, and the move itself does not fail.
        """
        like = pool.keys[0, slot, :, : len(rows)]
        index = upload(torch.from_numpy(rows), like.device)
        there = (slot, slice(None), slice(first, first + len(rows)))
        cos, sin = (part.to(like.dtype) for part in rotation)
        moved = torch.empty_like(like, memory_format=torch.contiguous_format)
        scratch = torch.empty_like(moved[..., : moved.shape[-1] // 2], memory_format=torch.contiguous_format)

        def move() -> None:
            # Layer by layer: what is read is still in the processor's cache when it is written.
            for keys, rotated, values in zip(pool.keys, pool.rotated, pool.values, strict=True):
                keys[there] = torch.index_select(keys[slot], 1, index, out=moved)
                rotate(moved, cos, sin, out=rotated[there], scratch=scratch)
                values[there] = torch.index_select(values[slot], 1, index, out=moved)

        return move

    # The choice of a token, where the device alone knows everything; a row for each place.

    def penalize(
        self, logits: Tensor, token_mask: Tensor, slots: Tensor, tokens: Tensor, penalty: Tensor, temperature: Tensor
    ) -> Tensor:
        """Scores (b, vocabulary) float32: the repetition penalty on the tokens of a stream, over its temperature.

        ``logits`` (b, vocabulary) of any float dtype; ``token_mask`` (slots, vocabulary) bool: the tokens that occur in
        each slot's text, to which ``tokens`` (b,) are added first; ``slots`` (b,), -1 for padding; ``penalty`` and
        ``temperature`` (b,) float32.
        """
        real = slots >= 0
        token_mask[slots[real], tokens[real]] = True
        scores, factor = logits.float(), penalty[:, None]
        worse = torch.where(scores < 0, scores * factor, scores / factor)
        return torch.where(token_mask[slots.clamp(min=0)], worse, scores) / temperature[:, None]

    def best(self, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The ``count`` best scores (b, count) of rows (b, vocabulary) float32, the best first, and their tokens."""
        top, tokens = scores.topk(count, dim=-1)
        return top, tokens

    def pick(self, top: Tensor, tokens: Tensor, noise: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
        """The token (b,) int64 of each place, from its k best.

        ``top`` (b, k) float32: their scores, the best first; ``tokens`` (b, k); ``noise`` (b, k): standard Gumbel
        numbers; ``top_k`` (b,): how many of them count; ``top_p`` (b,) float32: the nucleus, cut where below 1.
        """
        there = torch.arange(top.shape[1], device=top.device) < top_k[:, None]
        top = top.masked_fill(~there, -torch.inf)
        share = top.softmax(-1)
        cut = (share.cumsum(-1) - share >= top_p[:, None]) & (top_p[:, None] < 1)
        best = (top.masked_fill(cut, -torch.inf) + noise).argmax(-1)
        return tokens.gather(-1, best[:, None])[:, 0]
