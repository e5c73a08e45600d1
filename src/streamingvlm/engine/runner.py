"""The tensors of a step: rows that move, the vision tower, prefill and decoding of many streams as one batch."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..cache.batch import Batch, Segment
from ..cache.kv_pool import Evicted, Keep, KVPool
from ..core.positions import FloatArray
from ..core.timeline import IntArray
from ..kernels.plain import MIN_ROWS, CosSin, upload
from ..models.base import Deepstack, Model, Prepared, Vision
from ..models.patches import Patches
from .decode_graph import Capture, GraphCapture, Place
from .ladder import Decoding, prepare_decoding, rungs
from .open_turn import BoolArray, PrefillInput
from .request import TurnRequest
from .sampler import Counter, choose

#: A token with its logits (vocabulary,) float32, which hold only until the next token.
Chosen = tuple[int, Tensor]

#: Patches that a tower is given at once on a GPU: what it makes of them meanwhile takes memory.
TOWER_PATCHES = 16_384


class ModelRunner:
    """Runs requests on one model and one pool. ``capture``: see :class:`Engine`."""

    #: What one forward pass is; another one for comparisons only.
    batch_class: type[Batch] = Batch

    def __init__(self, model: Model, pool: KVPool, capture: str = "auto") -> None:
        self.model = model
        self.pool = pool
        self.device = model.kv_shape.device
        #: The tower is asked by the engine and, ahead of it, by the threads of sources.
        self._tower = threading.Lock()
        self._beside: torch.cuda.Stream | None = None
        #: (slots, vocabulary) bool: the tokens that occur in the text of each slot's stream.
        self._token_mask = torch.zeros(pool.slots, model.vocabulary, dtype=torch.bool, device=self.device)
        self._ways = rungs(capture, self.make_capture())
        self.decoding = Decoding(None, "none")

    def make_capture(self) -> Capture | None:
        """What captures a step of decoding on this device (None: nothing does)."""
        return GraphCapture(self.device, self._tower) if self.device.type == "cuda" else None

    def warm_up(self) -> None:
        """Make, capture and check the steps of decoding for the pool as it is; where that was done, nothing."""
        if self._ways == ("none",) or self._steps_fit():
            return
        earlier = self.decoding.reason
        # Nothing may hold the steps so far: memory of earlier captures is free before new ones take theirs.
        self.decoding = Decoding(None, "none", earlier)
        capture = self.make_capture()
        self.decoding = prepare_decoding(self.model, self.pool, self._token_mask, self._ways, capture, earlier)
        # What has failed once is not tried again when the pool grows.
        self._ways = self._ways[self._ways.index(self.decoding.capture) :]

    def _steps_fit(self) -> bool:
        """Whether there are steps, for the pool as it is."""
        steps = self.decoding.steps
        return steps is not None and steps.rows == self.pool.rows

    @property
    def batches_prefills(self) -> bool:
        """Whether turns of several streams are prefilled as one batch.

        On a GPU one turn fills the device, and a product's last bit would depend on who else has a turn.
        """
        return self.device.type == "cpu"

    # Rows.

    def select(self, slot: int, rows: IntArray, positions: FloatArray, rewritten: range, keep: Keep) -> None:
        """See :meth:`KVPool.select`; ``positions`` (3, rows)."""
        self.pool.select(slot, rows, self.rotation(positions), rewritten, keep)

    def put_back(self, slot: int, evicted: Evicted, positions: FloatArray) -> None:
        """See :meth:`KVPool.put_back`; ``positions`` (3, rows before)."""
        self.pool.put_back(slot, evicted, self.rotation(positions))

    def rotation(self, positions: FloatArray) -> CosSin:
        """Cosine and sine (n, head_dim) of positions (3, n)."""
        return self.model.rope.cos_sin(upload(torch.from_numpy(np.ascontiguousarray(positions)), self.device))

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

    def encode(self, requests: Sequence[TurnRequest]) -> list[None]:
        """What is seen in each prefill: in one call for all that was not encoded ahead."""
        begun = time.perf_counter()
        left = [request for request in requests if request.ahead is not None and request.ahead.vision is None]
        if left:
            inputs = [request.to_prefill() for request in left]
            with self._tower:
                seen = iter(self._see([patches for one in inputs for patches in one.patches]))
            visions = [[next(seen) for _ in one.patches] for one in inputs]
            _share("vision_encode", begun, left, [sum(math.prod(p.grid) for p in one.patches) for one in inputs])
            for request, own in zip(left, visions, strict=True):
                request.visions = own
                if len(own) == 1 and request.ahead is not None:
                    request.ahead = replace(request.ahead, vision=own[0])
        for request in requests:
            if request not in left and request.ahead is not None and request.ahead.vision is not None:
                request.visions = [_here(request.ahead.vision)]
        return [None] * len(requests)

    def _see(self, patches: Sequence[Patches]) -> list[Vision]:
        """What the tower makes of some blocks; on a GPU in calls of bounded size."""
        out: list[Vision] = []
        group: list[Patches] = []
        for one in patches:
            count = sum(math.prod(other.grid) for other in group)
            if group and self.device.type == "cuda" and count + math.prod(one.grid) > TOWER_PATCHES:
                out += self.model.encode(group)
                group = []
            group.append(one)
        return out + (self.model.encode(group) if group else [])

    # The decoder.

    def prefill(self, requests: Sequence[TurnRequest]) -> list[Tensor | None]:
        """One forward pass over the turns of some streams, one behind the other; logits (vocabulary,) float32 of each.

        Text that has moved into the history block is prefilled once more in the same pass: in every layer its rows are
        written before the new turn looks at them. A part of a step has none. A GPU is not waited for.
        """
        begun = time.perf_counter()
        again = [(request.stream.slot, request.rearchive) for request in requests if request.rearchive is not None]
        fed = [*((request.stream.slot, request.to_prefill()) for request in requests), *again]
        seen = [*(request.visions for request in requests), *[[]] * len(again)]
        embeds = [self._embed(one, own) for (_, one), own in zip(fed, seen, strict=True)]
        lasts = np.cumsum([part.shape[0] for part in embeds]).tolist()
        segments = [Segment(slot, a, b, one.at) for (slot, one), a, b in zip(fed, [0, *lasts], lasts, strict=False)]
        pads = np.concatenate([one.pads for _, one in fed])
        deepstack = self._deepstack(pads, [vision for own in seen for vision in own])
        numbers = np.concatenate([one.positions for _, one in fed], axis=1)
        hidden = self._forward(segments, torch.cat(embeds), numbers, deepstack)
        logits = self.model.logits(hidden) if any(request.whole for request in requests) else None
        _share("prefill", begun, requests, [len(request.to_prefill().tokens) for request in requests])
        return [logits[row] if logits is not None and request.whole else None for row, request in enumerate(requests)]

    def choose_first(self, requests: Sequence[TurnRequest], logits: Sequence[Tensor]) -> list[Chosen]:
        """The first token of each reply, from what :meth:`prefill` gave for each; one read-back for all."""
        begun = time.perf_counter()
        for request in requests:
            self._mark(request)
        chosen = self._choose(requests, torch.stack(list(logits)))
        _share("prefill", begun, requests, [1] * len(requests))
        return chosen

    def weigh(self, request: TurnRequest, options: Sequence[Sequence[int]], logits: Tensor) -> list[float]:
        """Log-likelihood, in nats, of each of some continuations (tokens) of what :meth:`prefill` gave ``logits`` for.

        The slot's rows and length are as before.
        """
        begun = time.perf_counter()
        slot, first = request.stream.slot, logits.float().log_softmax(-1)
        held = self.pool.length[slot]
        out = []
        for tokens in options:
            total = first[tokens[0]].double()
            if len(tokens) > 1:
                try:
                    follows = self._continuation(slot, held, request.stream.state.next_position, tokens[:-1])
                finally:
                    self.pool.rewind(slot, held)
                index = upload(torch.tensor(tokens[1:]), self.device)
                total = total + follows.gather(-1, index[:, None]).double().sum()
            out.append(total)
        request.spend("decode", time.perf_counter() - begun)
        return [float(value) for value in torch.stack(out).tolist()]

    def _continuation(self, slot: int, held: int, position: FloatArray, tokens: Sequence[int]) -> Tensor:
        """Log-probabilities (n, vocabulary) float32 behind each of n tokens that are written behind a slot's rows."""
        self.pool.advance(slot, len(tokens))
        segments = [Segment(slot, row, row + 1, held + row) for row in range(len(tokens))]
        numbers = np.add(position, np.arange(len(tokens)), dtype=np.float32)
        embeds = self.model.embed(upload(torch.tensor(tokens), self.device))
        hidden = self._forward(segments, embeds, numbers)
        return self.model.logits(hidden)[: len(tokens)].float().log_softmax(-1)

    def decode(self, requests: Sequence[TurnRequest]) -> list[Chosen]:
        """One more token of some replies."""
        begun = time.perf_counter()
        chosen = self._decode_one_by_one(requests) if self.decoding.steps is None else self._decode_step(requests)
        _share("decode", begun, requests, [1] * len(requests))
        return chosen

    def _decode_one_by_one(self, requests: Sequence[TurnRequest]) -> list[Chosen]:
        slots = [request.stream.slot for request in requests]
        tokens = upload(torch.tensor([request.tokens[-1] for request in requests]), self.device)
        self._token_mask[upload(torch.tensor(slots), self.device), tokens] = True
        numbers = np.concatenate([request.stream.state.next_position for request in requests], axis=1)
        segments = [Segment(slot, row, row + 1) for row, slot in enumerate(slots)]
        return self._choose(requests, self.model.logits(self._forward(segments, self.model.embed(tokens), numbers)))

    def _decode_step(self, requests: Sequence[TurnRequest]) -> list[Chosen]:
        assert self.decoding.steps is not None
        places = [_place(request, self.pool) for request in requests]
        step = self.decoding.steps.of(len(places))
        outputs = step.run(places)
        logits = outputs.logits[: len(places)]
        if all(place.fits for place in places):
            step.inputs.draw_ahead(places)
            chosen = list(zip(step.read_back(outputs.tokens), logits, strict=False))
        else:
            chosen = self._choose(requests, logits)
        for place in places:
            self.pool.advance(place.slot, 1)
        return chosen

    def _forward(
        self, segments: Sequence[Segment], embeds: Tensor, numbers: FloatArray, deepstack: Deepstack | None = None
    ) -> Tensor:
        """Last hidden states (bucket, hidden) of each segment's last token; ``numbers`` (3, n) are the positions."""
        count = len(embeds)
        single = count == len(segments)
        missing = (self.pool.kernels.bucket(count, self.device) if single else max(count, MIN_ROWS)) - count
        if missing:
            embeds = F.pad(embeds, (0, 0, 0, missing))
            numbers = np.pad(numbers, ((0, 0), (0, missing)))
        return self.model.forward(embeds, self.batch_class(self.pool, segments, self.rotation(numbers)), deepstack)

    def _choose(self, requests: Sequence[TurnRequest], logits: Tensor) -> list[Chosen]:
        """The next token of each reply; ``logits`` (at least one row per request, vocabulary)."""
        logits = logits[: len(requests)]
        index = upload(torch.tensor([request.stream.slot for request in requests]), self.device)
        options = [request.stream.options for request in requests]
        tokens = choose(logits, self._token_mask[index], [o.sampling for o in options], list(map(_counter, requests)))
        return list(zip(tokens, logits, strict=True))

    def _embed(self, fed: PrefillInput, visions: Sequence[Vision]) -> Tensor:
        """Embeddings (n, hidden) of what is fed, the pads of its video replaced by what was seen."""
        embeds = self.model.embed(upload(torch.from_numpy(fed.tokens), self.device)).clone()
        if visions:
            seen = torch.cat([vision.embeds for vision in visions])
            embeds[self._numbers(fed.pads)] = seen.to(embeds.dtype)
        return embeds

    def _deepstack(self, pads: BoolArray, visions: Sequence[Vision]) -> Deepstack | None:
        """The deepstack features of all that is seen in one forward pass; ``pads`` (tokens,) says where it goes."""
        if not visions or not visions[0].deepstack:
            return None
        layers = zip(*(vision.deepstack for vision in visions), strict=True)
        return Deepstack(self._numbers(pads), tuple(torch.cat(parts) for parts in layers))

    def _numbers(self, pads: BoolArray) -> Tensor:
        """Which of ``pads`` (tokens,) are set, as numbers (pads,) int64 on the device, which is not waited for."""
        return upload(torch.from_numpy(np.flatnonzero(pads)), self.device)

    def _mark(self, request: TurnRequest) -> None:
        """Note which tokens occur in the stream's text; the repetition penalty is for them."""
        mask = self._token_mask[request.stream.slot]
        tokens = request.stream.state.timeline.distinct_tokens()
        mask.zero_()
        mask[upload(torch.from_numpy(tokens), self.device)] = True


def _counter(request: TurnRequest) -> Counter:
    options = request.stream.options
    return options.seed, options.stream, request.stream.state.sampled


def _place(request: TurnRequest, pool: KVPool) -> Place:
    stream = request.stream
    time_, height, width = stream.state.next_position[:, 0].tolist()
    return Place(
        token=request.tokens[-1],
        slot=stream.slot,
        length=pool.length[stream.slot],
        position=(time_, height, width),
        sampling=stream.options.sampling,
        counter=_counter(request),
    )


def _share(stage: str, begun: float, requests: Sequence[TurnRequest], sizes: Sequence[int]) -> None:
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
