"""The tensors of a step: rows that move, the vision tower, prefill and decoding of many streams as one batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..cache.attention import MIN_ROWS, CosSin, bucket
from ..cache.batch import Batch, Segment
from ..cache.kv_pool import Evicted, Keep, KVPool
from ..core.positions import FloatArray
from ..models.base import Deepstack, Model, Prepared, Vision
from .decode_graph import DecodeSteps
from .open_turn import PrefillInput
from .request import StepRequest
from .sampler import choose

#: A token with its logits (vocabulary,) float32.
Chosen = tuple[int, Tensor]


class ModelRunner:
    """Runs requests on one model and one pool. ``capture``: see :class:`Engine`."""

    #: What one forward pass is; another one for comparisons only.
    batch_class: type[Batch] = Batch

    def __init__(self, model: Model, pool: KVPool, capture: str = "none") -> None:
        self.model = model
        self.pool = pool
        self.device = model.kv_shape.device
        self.capture = capture
        self._captured = self.make_steps()
        #: The tower is asked by the engine and, ahead of it, by the threads of sources.
        self._tower = threading.Lock()
        self._beside: torch.cuda.Stream | None = None

    def make_steps(self) -> DecodeSteps | None:
        """The steps of decoding with fixed shapes (None: one operation after the other)."""
        return None if self.capture == "none" else DecodeSteps(self.model, self.pool, self.capture)

    @property
    def batches_prefills(self) -> bool:
        """Whether turns of several streams are prefilled as one batch.

        On a GPU one turn fills the device, and a product's last bit would depend on who else has a turn.
        """
        return self.device.type == "cpu"

    # Rows.

    def select(self, slot: int, rows: Sequence[int], positions: FloatArray, rewritten: range, keep: Keep) -> None:
        """See :meth:`KVPool.select`; ``positions`` (3, rows)."""
        self.pool.select(slot, rows, self.rotation(positions), rewritten, keep)

    def put_back(self, slot: int, evicted: Evicted, positions: FloatArray) -> None:
        """See :meth:`KVPool.put_back`; ``positions`` (3, rows before)."""
        self.pool.put_back(slot, evicted, self.rotation(positions))

    def rotation(self, positions: FloatArray) -> CosSin:
        """Cosine and sine (n, head_dim) of positions (3, n)."""
        return self.model.rope.cos_sin(torch.from_numpy(np.ascontiguousarray(positions)).to(self.device))

    # The tower.

    def encode_ahead(self, prepared: Prepared) -> Prepared:
        """``prepared`` with what the tower sees in it; for a thread of its own, beside what the engine does."""
        with self._tower:
            began = time.perf_counter()
            if self.device.type != "cuda":
                vision = self.model.encode([prepared.patches])[0]
            else:
                self._beside = self._beside or torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
                with torch.cuda.stream(self._beside):
                    vision = self.model.encode([prepared.patches])[0]
                self._beside.synchronize()
        return replace(prepared, vision=vision, vision_seconds=time.perf_counter() - began)

    def encode(self, requests: Sequence[StepRequest]) -> list[None]:
        """What is seen in each prefill: in one call for all that was not encoded ahead."""
        begun = time.perf_counter()
        left = [request for request in requests if request.ahead.vision is None]
        if left:
            inputs = [request.to_prefill() for request in left]
            with self._tower:
                seen = iter(self.model.encode([patches for one in inputs for patches in one.patches]))
            visions = [[next(seen) for _ in one.patches] for one in inputs]
            _share("vision_encode", begun, left, [sum(len(p.pixels) for p in one.patches) for one in inputs])
            for request, own in zip(left, visions, strict=True):
                request.visions = own
                if len(own) == 1:
                    request.ahead = replace(request.ahead, vision=own[0])
        for request in requests:
            if request not in left and request.ahead.vision is not None:
                request.visions = [_here(request.ahead.vision)]
        return [None] * len(requests)

    # The decoder.

    def prefill(self, requests: Sequence[StepRequest]) -> list[Chosen | None]:
        """One forward pass over the turns of some streams, one behind the other; the first token of each reply.

        Text that has moved into the history block is prefilled once more in the same pass: in every layer its rows are
        written before the new turn looks at them. A part of a step has no token.
        """
        begun = time.perf_counter()
        again = [(request.stream.slot, request.rearchive) for request in requests if request.rearchive is not None]
        fed = [*((request.stream.slot, request.to_prefill()) for request in requests), *again]
        seen = [*(request.visions for request in requests), *[[]] * len(again)]
        embeds, pads = zip(*(self._embed(one, own) for (_, one), own in zip(fed, seen, strict=True)), strict=True)
        lasts = np.cumsum([part.shape[0] for part in embeds]).tolist()
        segments = [Segment(slot, a, b, one.at) for (slot, one), a, b in zip(fed, [0, *lasts], lasts, strict=False)]
        deepstack = _deepstack(torch.cat(pads), [vision for own in seen for vision in own])
        numbers = np.concatenate([one.positions for _, one in fed], axis=1)
        hidden = self._forward(segments, torch.cat(embeds), numbers, deepstack)
        out: list[Chosen | None] = [None] * len(requests)
        if asked := [row for row, request in enumerate(requests) if request.step.last]:
            for row in asked:
                requests[row].token_mask = self._token_mask(requests[row])
            chosen = self._choose([requests[row] for row in asked], self.model.logits(hidden)[asked])
            for row, first in zip(asked, chosen, strict=True):
                out[row] = first
        _share("prefill", begun, requests, [len(request.to_prefill().tokens) for request in requests])
        return out

    def decode(self, requests: Sequence[StepRequest]) -> list[Chosen]:
        """One more token of some replies."""
        begun = time.perf_counter()
        tokens = torch.tensor([request.tokens[-1] for request in requests], device=self.device)
        numbers = np.concatenate([request.stream.state.next_position for request in requests], axis=1)
        slots = [request.stream.slot for request in requests]
        if self._captured is not None:
            logits = self._captured.run(tokens, slots, self.rotation(numbers))
        else:
            segments = [Segment(slot, row, row + 1) for row, slot in enumerate(slots)]
            logits = self.model.logits(self._forward(segments, self.model.embed(tokens), numbers))
        chosen = self._choose(requests, logits)
        _share("decode", begun, requests, [1] * len(requests))
        return chosen

    def _forward(
        self, segments: Sequence[Segment], embeds: Tensor, numbers: FloatArray, deepstack: Deepstack | None = None
    ) -> Tensor:
        """Last hidden states (bucket, hidden) of each segment's last token; ``numbers`` (3, n) are the positions."""
        count = len(embeds)
        missing = (bucket(count) if count == len(segments) else max(count, MIN_ROWS)) - count
        if missing:
            embeds = F.pad(embeds, (0, 0, 0, missing))
            numbers = np.pad(numbers, ((0, 0), (0, missing)))
        if deepstack is not None:
            pads = F.pad(deepstack.pads, (0, missing)).to(embeds.device)
            deepstack = Deepstack(pads, deepstack.features)
        return self.model.forward(embeds, self.batch_class(self.pool, segments, self.rotation(numbers)), deepstack)

    def _choose(self, requests: Sequence[StepRequest], logits: Tensor) -> list[Chosen]:
        """The next token of each reply; ``logits`` (at least one row per request, vocabulary)."""
        logits = logits[: len(requests)]
        masks = [request.token_mask for request in requests if request.token_mask is not None]
        options = [request.stream.options for request in requests]
        sampled = [request.stream.state.sampled for request in requests]
        counters = [(o.seed, o.stream, count) for o, count in zip(options, sampled, strict=True)]
        tokens = choose(logits, torch.stack(masks), [o.sampling for o in options], counters)
        for mask, token in zip(masks, tokens, strict=True):
            mask[token] = True
        return list(zip(tokens, logits, strict=True))

    def _embed(self, fed: PrefillInput, visions: Sequence[Vision]) -> tuple[Tensor, Tensor]:
        """Embeddings (n, hidden) of what is fed, the pads of its video replaced by what was seen; and the pads (n,)."""
        embeds = self.model.embed(torch.tensor(fed.tokens, device=self.device)).clone()
        pads = torch.from_numpy(fed.pads)
        if visions:
            seen = torch.cat([vision.embeds for vision in visions])
            embeds[pads.nonzero()[:, 0].to(self.device)] = seen.to(embeds.dtype)
        return embeds, pads

    def _token_mask(self, request: StepRequest) -> Tensor:
        """Which tokens occur in the stream's text, (vocabulary,) bool; the repetition penalty is for them."""
        mask = torch.zeros(self.model.vocabulary, dtype=torch.bool)
        mask[torch.tensor(request.stream.state.timeline.tokens)] = True
        return mask.to(self.device)


def _share(stage: str, begun: float, requests: Sequence[StepRequest], sizes: Sequence[int]) -> None:
    """Add the work since ``begun`` to a stage of each of ``requests``, in parts as large as ``sizes``."""
    spent = time.perf_counter() - begun
    for request, size in zip(requests, sizes, strict=True):
        request.spend(stage, spent * size / sum(sizes))


def _here(vision: Vision) -> Vision:
    """What was encoded in another stream of a GPU, for the use in this one."""
    for part in (vision.embeds, *vision.deepstack):
        if part.is_cuda:
            part.record_stream(torch.cuda.current_stream(part.device))
    return vision


def _deepstack(pads: Tensor, visions: Sequence[Vision]) -> Deepstack | None:
    """The deepstack features of all that is seen in one forward pass; ``pads`` (tokens,) says where it goes."""
    if not visions or not visions[0].deepstack:
        return None
    layers = zip(*(vision.deepstack for vision in visions), strict=True)
    return Deepstack(pads, tuple(torch.cat(parts) for parts in layers))
