"""How many kernels, launches, bytes and waits a token and a second of video take on a GPU, counted without one.

A stream is filled by bookkeeping alone; then one second of it runs on the meta device, through the runner that serves
streams, under the rules of :mod:`.counter`. Beside each stage stands its floor (:mod:`.roofline`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cache.kv_pool import Keep, KVPool
from ..core.errors import OptionError
from ..core.events import StepInput
from ..core.policy import make_policy
from ..core.positions import FloatArray
from ..engine.decode_graph import DecodeStep, DecodeSteps
from ..engine.engine_core import EngineCore
from ..engine.ladder import Decoding
from ..engine.options import StreamOptions
from ..engine.request import TurnRequest
from ..engine.runner import Chosen, ModelRunner
from ..engine.stream import OpenStream
from ..kernels.plain import PlainKernels
from ..models.base import Model, Prepared, Vision
from ..models.load import pick_dtype
from ..runtime.reports import Metrics, provenance
from .counter import CountedKernels, OperationCounter, Tally, UnknownValueError
from .roofline import Need, needs
from .setup import Request, Synthetic
from .shapes import build, shape_named

META = torch.device("meta")

#: Stages of a second that are counted.
STAGES = ("evict", "vision_encode", "prefill", "decode")

#: What a token may take: kernels for each layer of the decoder, and bytes over the floor's.
KERNELS_A_LAYER, BYTES_RATIO = 10, 1.2

#: Places of the steps that are counted.
PLACES = (1, 18)

#: A token that stands for every one that is chosen; the stand-in tokenizer's first byte.
TOKEN = 16


class CountedRunner(ModelRunner):
    """Moves lengths alone as long as nothing is counted; then runs each stage and counts it into ``stages``."""

    def __init__(self, model: Model, pool: KVPool, counter: OperationCounter, functions: Any) -> None:
        super().__init__(model, pool, "none")
        self._counter, self._functions = counter, functions
        self.stages: dict[str, Tally] = {}
        #: Rows held, and tokens that are prefilled, when the second was counted.
        self.rows = self.new = 0

    def capture_steps(self) -> None:
        """Decode as on a GPU that captures its steps."""
        self.decoding = Decoding(DecodeSteps(self.model, self.pool, self._token_mask, self._counter.captured), "graph")

    def token(self, size: int, held: int) -> Tally:
        """One token of ``size`` streams that hold ``held`` rows each, captured."""
        step = DecodeStep(self.model, self.pool, self._token_mask, size)
        step.capture(self._counter.captured)
        self._functions.rows = [held] * size
        with self._counter.counting(Tally()) as tally:
            step.read_back(step.run([]).tokens)
        return tally

    def select(self, slot: int, rows: NDArray[np.int64], positions: FloatArray, rewritten: range, keep: Keep) -> None:
        """See :meth:`ModelRunner.select`."""
        if not self.stages:
            self.pool.rewind(slot, len(rows))
            return
        with self._counter.counting(self.stages["evict"]):
            super().select(slot, rows, positions, rewritten, keep)

    def encode(self, requests: Sequence[TurnRequest]) -> list[None]:
        """See :meth:`ModelRunner.encode`; a tower that reads what only a device knows is counted up to there."""
        if self.stages:
            tally = self.stages["vision_encode"]
            try:
                with self._counter.counting(Tally()):  # what is made once for each size of frames
                    self.model.encode([one for request in requests for one in request.to_prefill().patches])
                with self._counter.counting(tally):
                    return super().encode(requests)
            except UnknownValueError as error:
                tally.incomplete = str(error)
            for request in requests:
                request.visions = [self._vision(request)]
        return [None] * len(requests)

    def _vision(self, request: TurnRequest) -> Vision:
        """Of the right sizes."""
        count, ours = sum(math.prod(one.merged) for one in request.to_prefill().patches), self.model
        config: Any = ours.hf.config  # type: ignore[attr-defined]
        part = torch.empty(count, config.text_config.hidden_size, dtype=self.model.kv_shape.dtype, device=META)
        return Vision(part, tuple(part for _ in getattr(config.vision_config, "deepstack_visual_indexes", ())))

    def prefill(self, requests: Sequence[TurnRequest]) -> list[Tensor | None]:
        """See :meth:`ModelRunner.prefill`."""
        if self.stages:
            self.new += sum(len(request.to_prefill().tokens) for request in requests)
            self.rows = max(self.pool.length)
            with self._counter.counting(self.stages["prefill"]):
                return super().prefill(requests)
        for request in requests:
            self.pool.advance(request.stream.slot, len(request.to_prefill().tokens))
        return [torch.empty(0, device=META)] * len(requests)

    def choose_first(self, requests: Sequence[TurnRequest], logits: Sequence[Tensor]) -> list[Chosen]:
        """See :meth:`ModelRunner.choose_first`."""
        return self._chosen("prefill", requests, lambda: super(CountedRunner, self).choose_first(requests, logits))

    def decode(self, requests: Sequence[TurnRequest]) -> list[Chosen]:
        """See :meth:`ModelRunner.decode`."""
        self._functions.rows = [self.pool.length[request.stream.slot] for request in requests]
        if not self.stages:
            for request in requests:
                self.pool.advance(request.stream.slot, 1)
        return self._chosen("decode", requests, lambda: super(CountedRunner, self).decode(requests))

    def _chosen(self, stage: str, requests: Sequence[TurnRequest], run: Callable[[], object]) -> list[Chosen]:
        """Tokens for ``requests``, always the same: what the device would have chosen is not known."""
        if self.stages:
            with self._counter.counting(self.stages[stage], zeros=True):
                run()
        return [(TOKEN, torch.empty(0, device=META)) for _ in requests]


class CountedStream:
    """One stream of synthetic frames of a published size, on one engine that only counts.

    ``captured``: with kernels of ours and captured steps; otherwise one operation of torch after the other.
    """

    def __init__(self, request: Request, model: Model, counter: OperationCounter, *, captured: bool) -> None:
        self._request, self._model, self._counter = request, model, counter
        kernels = model.kernels if captured else PlainKernels(flash=True)
        pool = KVPool(model.kv_shape, max(PLACES) if captured else 1, 1, kernels)
        self.runner = CountedRunner(model, pool, counter, model.kernels.functions)  # type: ignore[attr-defined]
        self._core = EngineCore(self.runner)
        tokens = request.tokens or model.defaults.sampling.max_new_tokens
        options = StreamOptions(
            make_policy("streaming", model.defaults.policy),
            replace(model.defaults.sampling, max_new_tokens=tokens, forced=True),
            request.full_sink(model),
            model.defaults.instruction,
            fps=request.fps,
            step=request.step,
        )
        self.stream: OpenStream = self._core.open_stream(options, model.patcher.with_budget(request.max_pixels(model)))
        self._frames = Synthetic(request.frame_size, request.fps, request.step)
        self._patches = self.stream.planner.patcher(self._frames.chunk(0))
        counter.pinned = (self._patches.pixels,)  # as Session.prepare has them on a GPU
        self._captured = captured

    @property
    def grid(self) -> tuple[int, int, int]:
        """Merged patches (t, h, w) of a step."""
        return self._patches.merged

    def _step(self, index: int) -> None:
        # All frames are alike: they are cut into patches once.
        chunk = replace(self._frames.chunk(0), start=index * self._request.step, end=(index + 1) * self._request.step)
        times = tuple(chunk.start + time for time in self._frames.chunk(0).times)
        step = StepInput(replace(chunk, times=times), prepared=Prepared(self._patches, 0.0))
        request = self._core.submit_stream(self.stream, step)
        self._core.run_until(request)

    def count_step(self) -> dict[str, Tally]:
        """Fill the cache, then count one step."""
        index, rows = 0, -1
        # The cache is full when a step leaves as many rows as the one before; two in a row, since windows may breathe.
        same = 0
        while same < 2:
            self._step(index)
            held = self.runner.pool.length[self.stream.slot]
            same, rows, index = same + 1 if held == rows else 0, held, index + 1
        if self._captured:
            self.runner.capture_steps()
        self.runner.stages = {stage: Tally() for stage in STAGES}
        self._step(index)
        return self.runner.stages


def count_operations(request: Request) -> Metrics:
    """Count a token and a second of video of a published size; see the module. Takes seconds, no GPU and no memory.

    :class:`OptionError` for a checkpoint, which cannot be laid out without its weights.
    """
    if request.random_weights is None:
        raise OptionError("--count is for a published size; name one with --random-weights")
    shape_named(request.random_weights)
    dtype = pick_dtype(request.dtype or "bf16", META)
    counter = OperationCounter()
    model = build(request.random_weights, device=META, dtype=dtype, kernels=CountedKernels(counter))
    after = CountedStream(request, model, counter, captured=True)
    stages = after.count_step()
    before = CountedStream(request, model, counter, captured=False)
    plain = before.count_step()
    runner = after.runner
    tokens = after.stream.options.sampling.max_new_tokens
    floors = needs(model, grid=after.grid, new=runner.new, rows=runner.rows + runner.new + tokens / 2, tokens=tokens)
    figures = {
        "counted": "on the meta device; nothing was measured",
        "model": request.model_name,
        "dtype": str(dtype).removeprefix("torch."),
        "rows": runner.rows,
        "new_tokens": runner.new,
        "tokens": tokens,
        "vision_tokens": math.prod(after.grid),
        "layers": model.kv_shape.layers,
        "fps": request.fps,
        "step": request.step,
        "token": {str(size): _token(model, runner.token(size, runner.rows), size, runner.rows) for size in PLACES},
        "token_uncaptured": _token_of(plain["decode"], tokens - 1, floors["decode"]),
        "second": {stage: _stage(stages[stage], floors[stage], request.step) for stage in STAGES},
        # The tower has one form.
        "second_uncaptured": {
            stage: _stage(plain[stage], floors[stage], request.step) for stage in STAGES if stage != "vision_encode"
        },
        **provenance(META),
    }
    return figures | {"goals": _goals(figures)}


def _token(model: Model, tally: Tally, size: int, held: int) -> Metrics:
    """One token of ``size`` streams that hold ``held`` rows each."""
    need = needs(model, grid=(1, 1, 1), new=0, rows=held * size, tokens=2)["decode"]
    return _token_of(tally, 1, need)


def _token_of(tally: Tally, tokens: int, need: Need) -> Metrics:
    """What one of ``tokens`` tokens takes on average."""
    return {
        "kernels": tally.kernels / tokens,
        **{kind: tally.of(kind) / tokens for kind in ("products", "own", "attention", "choice", "other")},
        "launches": tally.launches / tokens,
        "copies_in": tally.copies_in / tokens,
        "read_backs": tally.read_backs / tokens,
        "bytes": tally.bytes / tokens,
        "floor_bytes": need.bytes / tokens,
        "ratio": tally.bytes / need.bytes,
        "waits": len(tally.waits) / tokens,
        "waits_by_place": {place: count / tokens for place, count in tally.waits_by_place().items()},
        "places": {place: count / tokens for place, count in tally.places().items()},
        "bytes_by_place": {place: size / tokens for place, size in tally.bytes_by_place().items()},
    }


def _stage(tally: Tally, need: Need, step: float) -> Metrics:
    """What one stage takes of a second of video."""
    return {
        "kernels": tally.kernels / step,
        "launches": tally.launches / step,
        "bytes": tally.bytes / step,
        "floor_bytes": need.bytes / step,
        "floor_operations": need.operations / step,
        "ratio": None if tally.incomplete else tally.bytes / need.bytes,
        "waits": len(tally.waits) / step,
        "waits_by_place": {place: count / step for place, count in tally.waits_by_place().items()},
        "places": {place: count / step for place, count in tally.places().items()},
        "bytes_by_place": {place: size / step for place, size in tally.bytes_by_place().items()},
        "incomplete": tally.incomplete,
    }


def _goals(figures: Metrics) -> list[Metrics]:
    """What a token is meant to stay below, and whether it does."""
    one = figures["token"]["1"]
    limit = KERNELS_A_LAYER * figures["layers"]
    return [
        _goal(f"at most {limit} kernels a token ({KERNELS_A_LAYER} a layer)", one["kernels"], limit),
        _goal("no wait in a token but for its read-back", one["waits"], 1),
        _goal(f"at most {BYTES_RATIO:g} times the floor's bytes a token", one["ratio"], BYTES_RATIO),
    ]


def _goal(text: str, found: float, limit: float) -> Metrics:
    return {"goal": text, "counted": found, "reached": found <= limit}
