"""How decoding runs: captured, with fixed shapes, or one operation after the other; checked before it is trusted."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cache.batch import Batch, Segment
from ..cache.kv_pool import KVPool
from ..core.errors import ModelError
from ..core.sampling_params import Sampling
from ..kernels.plain import PlainKernels
from ..models.base import Model
from .decode_graph import Capture, DecodeStep, DecodeSteps, Place

_LOG = logging.getLogger(__name__)

#: How steps of decoding may run. ``graph``: as CUDA graphs; ``static``: the same fixed shapes, not captured; ``none``:
#: one operation after the other; ``auto``: on CUDA the first of these three that passes its check, elsewhere ``none``.
CAPTURES = ("auto", "graph", "static", "none")

#: Largest relative difference (root mean square) of logits with kernels and without, by dtype. In bfloat16 kernels that
#: round less often differ from plain torch by 0.01 to 0.05 behind 28 to 36 layers of random weights; kernels that do
#: something else differ by more, and each by itself is compared more closely where a model is loaded.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 3e-2, torch.bfloat16: 1e-1}

#: Rows that a free slot is made to hold for the check.
CHECK_ROWS = 300


@dataclass(frozen=True, slots=True)
class Decoding:
    """How decoding runs: ``capture``, of :data:`CAPTURES`.

    ``steps``: None where it runs one operation after the other; ``reason``: why not in a faster way that was tried ("":
    none was).
    """

    steps: DecodeSteps | None
    capture: str
    reason: str = ""


def rungs(wanted: str, capture: Capture | None) -> tuple[str, ...]:
    """The ways to try, in this order, for what was asked for; ``capture``: what captures here (None: nothing)."""
    if wanted != "auto":
        return (wanted,)
    return ("none",) if capture is None else ("graph", "static", "none")


def prepare_decoding(
    model: Model,
    pool: KVPool,
    token_mask: Tensor,
    ways: Sequence[str],
    capture: Capture | None,
    earlier: str = "",
) -> Decoding:
    """Make and check the steps of decoding for a pool as it is now, in the first of ``ways`` that passes its check.

    ``capture``: what captures on this device; ``earlier``: why ways before these have failed. Warns once about what
    failed; :class:`ModelError` if the last way does.
    """
    reasons: list[str] = []
    for way in ways:
        told = "; ".join(filter(None, [earlier, *reasons]))
        if way == "none":
            break
        try:
            steps = DecodeSteps(model, pool, token_mask, capture if way == "graph" else None)
            check_steps(steps, model, pool, token_mask)
        except Exception as error:
            _still_alive(pool.shape.device)
            reasons.append(f"{way}: {_first_line(error)}")
            if way == ways[-1]:
                raise ModelError(f"decoding cannot run as asked on {pool.shape.device}: {reasons[-1]}") from error
        else:
            return _warned(Decoding(steps, way, told), reasons)
    return _warned(Decoding(None, "none", told), reasons)


def _warned(decoding: Decoding, reasons: Sequence[str]) -> Decoding:
    if reasons:
        why = "; ".join(reasons)
        _LOG.warning("decoding runs with capture=%s, slower than it could: %s", decoding.capture, why)
    return decoding


def _still_alive(device: torch.device) -> None:
    """Raise what has broken the device for good: nothing can run on it any more."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def check_steps(steps: DecodeSteps, model: Model, pool: KVPool, token_mask: Tensor) -> None:
    """Raise :class:`ModelError` unless every step does what its body does, and that what plain torch does.

    Rows behind a stream's own and rows of free slots are written; the streams stay as they are.
    """
    kept = token_mask.clone()
    try:
        with torch.inference_mode():
            _fill_free_slots(pool)
            for step in steps.steps:
                _check(step, model, pool)
    finally:
        token_mask.copy_(kept)


@torch.inference_mode()
def _check(step: DecodeStep, model: Model, pool: KVPool) -> None:
    places = _places(step.size, model, pool)
    changed = [
        replace(one, token=(one.token + 1) % model.vocabulary, length=min(one.length + 1, pool.rows - 1))
        for one in places
    ]
    for asked in (places, changed):
        step.inputs.fill(asked)
        body = step.body()
        logits, tokens = body.logits[: len(asked)].clone(), step.read_back(body.tokens)
        again = step.run(asked)
        if not torch.equal(again.logits[: len(asked)], logits) or step.read_back(again.tokens) != tokens:
            raise ModelError(f"a step of {step.size} that was captured does not do what its body does")
        _compare(logits, _plainly(asked, model, pool), step.size, TOLERANCE[pool.shape.dtype])


def _places(size: int, model: Model, pool: KVPool) -> list[Place]:
    """A token for each of the first slots; of a stream behind its rows, of a free slot behind rows made up."""
    held = [pool.length[slot] or min(CHECK_ROWS, pool.rows - 1) for slot in range(size)]
    sampling = Sampling(temperature=1.0, top_k=8, repetition_penalty=1.1, max_new_tokens=1)
    return [
        Place((7 * slot + 1) % model.vocabulary, slot, rows, (float(rows),) * 3, sampling, (0, slot, 0))
        for slot, rows in enumerate(held)
        if 1 <= rows < pool.rows
    ]


def _fill_free_slots(pool: KVPool) -> None:
    source = torch.Generator(pool.shape.device).manual_seed(0)
    for slot, length in enumerate(pool.length):
        if not length:
            for store in (pool.keys, pool.rotated_keys, pool.values):
                store[:, slot, :, :CHECK_ROWS].normal_(generator=source)


def _plainly(places: list[Place], model: Model, pool: KVPool) -> Tensor:
    """Logits (places, vocabulary) of the same tokens in plain torch, on the same rows."""
    plain = copy.copy(pool)
    plain.kernels, plain.length = PlainKernels(flash=pool.kernels.flash), list(pool.length)
    for place in places:
        plain.length[place.slot] = place.length
    device = pool.shape.device
    count = plain.kernels.bucket(len(places), device)
    tokens = torch.tensor([place.token for place in places] + [0] * (count - len(places)), device=device)
    numbers = torch.tensor([place.position for place in places] + [(0.0,) * 3] * (count - len(places)), device=device)
    segments = [Segment(place.slot, i, i + 1) for i, place in enumerate(places)]
    batch = Batch(plain, segments, model.rope.cos_sin(numbers.T))
    return model.logits(model.forward(model.embed(tokens), batch))[: len(places)]


def _compare(ours: Tensor, plain: Tensor, size: int, limit: float) -> None:
    if not torch.isfinite(ours).all():
        raise ModelError(f"a step of {size} makes logits that are not finite")
    off = float((ours - plain).norm() / plain.norm().clamp(min=1e-30))
    if off > limit:
        raise ModelError(f"a step of {size} is off by {off:.2g} from plain torch, more than {limit:g}")
