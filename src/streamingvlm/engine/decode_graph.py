"""A token of every stream with fixed shapes: from the last tokens to the next, without the host; captured and replayed.

Launching a large model's operations one by one from Python takes longer than running them. A CUDA graph replays them
as one. Everything that changes from token to token (which slots, how many rows, positions, how to sample, noise) goes
to the device in one copy; what comes back is one token for each place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cache.batch import StaticBatch
from ..cache.kv_pool import KVPool
from ..core.sampling_params import Sampling
from ..models.base import Model
from .sampler import Counter, gumbel

#: How many of the best tokens a captured step looks at; streams that sample from more choose behind it.
TOP = 64

#: Numbers of places that steps are made for, as far as there are slots. A place without a stream costs next to nothing.
SIZES = (1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 112, 128)


@dataclass(frozen=True, slots=True)
class Place:
    """One stream's token: ``length`` rows before it, ``position`` (t, h, w), how the next one is sampled."""

    token: int
    slot: int
    length: int
    position: tuple[float, float, float]
    sampling: Sampling
    counter: Counter

    @property
    def fits(self) -> bool:
        """Whether a captured step can choose its next token."""
        return self.sampling.temperature == 0 or 0 < (self.sampling.top_k or 0) <= TOP


class StepInputs:
    """What a step of ``size`` places is told: one buffer on the device, and one on the host that it is copied from.

    ``tokens``, ``slots``, ``lengths``, ``top_k`` (size,) int64; ``position`` (3, size), ``penalty``, ``temperature``,
    ``top_p`` (size,) and ``noise`` (size, TOP) float32. A greedy stream has one best token and no noise.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        count = size * (4 * 8 + (6 + TOP) * 4)
        self._host = torch.zeros(count, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._device = torch.zeros(count, dtype=torch.uint8, device=device)
        self._whole, self._real, self._noise = (part.numpy() for part in self._parts(self._host, size))
        whole, real, self.noise = self._parts(self._device, size)
        self.tokens, self.slots, self.lengths, self.top_k = whole
        self.position, (self.penalty, self.temperature, self.top_p) = real[:3], real[3:]
        self._drawn: dict[Counter, NDArray[np.float32]] = {}
        self.fill(())  # without streams: what runs before the first places, a capture, writes no row and no mark

    @staticmethod
    def _parts(buffer: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        whole, real, noise = torch.split(buffer, [size * 4 * 8, size * 6 * 4, size * TOP * 4])
        numbers, noises = real.view(torch.float32).view(6, size), noise.view(torch.float32).view(size, TOP)
        return whole.view(torch.int64).view(4, size), numbers, noises

    def fill(self, places: Sequence[Place]) -> None:
        """Bring ``places`` to the device, waiting for nothing; the places behind them are without a stream."""
        self._whole[:], self._real[:], self._noise[:] = np.array([[0], [-1], [0], [1]]), 1.0, 0.0
        for i, place in enumerate(places):
            own, greedy = place.sampling, place.sampling.temperature == 0
            count = 1 if greedy else min(own.top_k or TOP, TOP)
            self._whole[:, i] = place.token, place.slot, place.length, count
            self._real[:, i] = *place.position, own.repetition_penalty, own.temperature or 1.0, own.top_p
            if not greedy:
                self._noise[i, :count] = self._draw(place.counter, count)
        self._device.copy_(self._host, non_blocking=True)

    def draw_ahead(self, places: Sequence[Place]) -> None:
        """Draw the noise of the tokens behind those of ``places``, while the device is at work on these."""
        self._drawn.clear()
        for place in places:
            if place.sampling.temperature:
                seed, stream, index = place.counter
                counter, count = (seed, stream, index + 1), min(place.sampling.top_k or TOP, TOP)
                self._drawn[counter] = gumbel(counter, count)

    def _draw(self, counter: Counter, count: int) -> NDArray[np.float32]:
        known = self._drawn.get(counter)
        return gumbel(counter, count) if known is None or len(known) != count else known


@dataclass(frozen=True, slots=True)
class StepOutputs:
    """``logits`` (size, vocabulary), raw; ``tokens`` (size,) int64: the next token of each place."""

    logits: Tensor
    tokens: Tensor


#: Makes of a step's body what runs it from then on, with the same tensors.
Capture = Callable[[Callable[[], StepOutputs]], Callable[[], StepOutputs]]


class GraphCapture:
    """Captures bodies as CUDA graphs that share one pool of memory; the largest comes first.

    ``tower``: held meanwhile, so that no other thread of ours uses the device. Unsafe calls of still other threads do
    not break a capture in the mode "thread_local".
    """

    def __init__(self, device: torch.device, tower: AbstractContextManager[object]) -> None:
        self._device = device
        self._tower = tower
        self._memory = torch.cuda.graph_pool_handle()
        #: Of this device, which the stream that torch captures on by itself need not be; one for all bodies, since
        #: captures share memory within a stream.
        self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, body: Callable[[], StepOutputs]) -> Callable[[], StepOutputs]:
        with self._tower, torch.cuda.device(self._device):
            own, side = torch.cuda.current_stream(self._device), self._side
            side.wait_stream(own)
            # The context brings the own stream back: where a capture cannot be ended, torch leaves the other one.
            with torch.cuda.stream(side):
                for _ in range(2):  # kernels are loaded and tuned before the capture; no place has a stream yet
                    body()
                own.wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=self._memory, stream=side, capture_error_mode="thread_local"):
                    outputs = body()

        def replay() -> StepOutputs:
            with torch.cuda.device(self._device):
                graph.replay()
            return outputs

        return replay


class DecodeStep:
    """One token for up to ``size`` places of a pool as it is now; runs its body as it is until that is captured."""

    def __init__(self, model: Model, pool: KVPool, token_mask: Tensor, size: int) -> None:
        self.model, self.pool, self.token_mask, self.size = model, pool, token_mask, size
        self.inputs = StepInputs(size, pool.shape.device)
        self._read_back = torch.zeros(size, dtype=torch.int64, pin_memory=pool.shape.device.type == "cuda")
        cuda = pool.shape.device.type == "cuda"
        self._done = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]
        self._replay: Callable[[], StepOutputs] | None = None

    @torch.inference_mode()
    def body(self) -> StepOutputs:
        """The step itself, on what its inputs hold."""
        one, kernels = self.inputs, self.pool.kernels
        batch = StaticBatch(self.pool, one.slots, one.lengths, self.model.rope.cos_sin(one.position))
        hidden = self.model.forward(self.model.embed(one.tokens), batch)
        logits = self.model.logits(hidden)
        scores = kernels.penalize(logits, self.token_mask, one.slots, one.tokens, one.penalty, one.temperature)
        top, ids = kernels.best(scores, min(TOP, scores.shape[1]))
        noise = one.noise[:, : top.shape[1]]
        return StepOutputs(logits, kernels.pick(top, ids, noise, one.top_k, one.top_p))

    def capture(self, how: Capture) -> None:
        """Run a captured body from now on. What is raised leaves the step as it was."""
        self._replay = how(self.body)

    @torch.inference_mode()
    def run(self, places: Sequence[Place]) -> StepOutputs:
        """One token of each of ``places``: writes their rows; moves no length and waits for nothing."""
        self.inputs.fill(places)
        return self.body() if self._replay is None else self._replay()

    def read_back(self, tokens: Tensor) -> list[int]:
        """The tokens (size,), as soon as the device has them: the only wait within a token."""
        self._read_back.copy_(tokens, non_blocking=True)
        if self._done is not None:
            self._done.record(torch.cuda.current_stream(tokens.device))
            self._done.synchronize()
        found: list[int] = self._read_back.tolist()
        return found


class DecodeSteps:
    """The steps of a pool as it is now, one for each size."""

    def __init__(self, model: Model, pool: KVPool, token_mask: Tensor, capture: Capture | None = None) -> None:
        self.rows = pool.rows
        sizes = [size for size in SIZES if size < pool.slots]
        #: The largest first: the memory that its capture takes is enough for all.
        self.steps = [DecodeStep(model, pool, token_mask, size) for size in [*sizes, pool.slots][::-1]]
        for step in self.steps if capture is not None else []:
            assert capture is not None
            step.capture(capture)

    def of(self, count: int) -> DecodeStep:
        """The smallest step that has ``count`` places."""
        return next(step for step in reversed(self.steps) if step.size >= count)
