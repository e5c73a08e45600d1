"""A step of decoding with fixed shapes, captured once and replayed for every token.

Launching a large model's operations one by one from Python takes longer than running them: some 600 a token. A CUDA
graph replays them as one; on CPUs the compiler fuses them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..cache.attention import CosSin, bucket
from ..cache.batch import StaticBatch
from ..cache.decode_op import decode_rows
from ..cache.kv_pool import KVPool
from ..models.base import Model

#: How steps of decoding run: one by one, captured in CUDA graphs, or through torch.compile.
CAPTURES = ("none", "graph", "compile")


class DecodeStep:
    """One step for up to ``size`` streams of a pool as it is now.

    On CUDA it needs Triton for :func:`streamingvlm.cache.kernels.decode_attention`.
    """

    def __init__(self, model: Model, pool: KVPool, size: int, how: str) -> None:
        device, dim = pool.shape.device, pool.shape.head_dim
        self.model, self.pool, self.size, self.how = model, pool, size, how
        self._tokens, self._slots, self._lengths = torch.zeros(3, size, dtype=torch.long, device=device)
        self._rotation: CosSin = (torch.zeros(size, dim, device=device), torch.zeros(size, dim, device=device))
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor | None = None
        self._compiled: Callable[..., Tensor] = torch.compile(self._body, dynamic=False, fullgraph=True)

    def _body(self, tokens: Tensor, slots: Tensor, lengths: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch = StaticBatch(self.pool, slots, lengths, (cos, sin), decode_rows)
        return self.model.logits(self.model.forward(self.model.embed(tokens), batch))

    @torch.no_grad()
    def run(self, tokens: Tensor, slots: Sequence[int], rotation: CosSin) -> Tensor:
        """Logits (size, vocabulary) of one new token (b,) each of the streams in ``slots``; writes their rows.

        ``rotation``: cosine and sine (b, head_dim). Rows of the result behind the streams repeat the last one.
        """
        count = len(slots)
        fill = [*range(count), *[count - 1] * (self.size - count)]
        index = torch.tensor(fill, device=tokens.device)
        self._tokens.copy_(tokens[index])
        self._slots.copy_(torch.tensor([slots[i] for i in fill]))
        self._lengths.copy_(torch.tensor([self.pool.length[slots[i]] for i in fill]))
        for kept, new in zip(self._rotation, rotation, strict=True):
            kept.copy_(new[index])
        inputs = (self._tokens, self._slots, self._lengths, *self._rotation)
        if self.how == "compile":
            logits = self._compiled(*inputs)
        elif self.how == "none":
            logits = self._body(*inputs)
        else:
            logits = self._replay(inputs)
        for slot in slots:
            self.pool.advance(slot, 1)
        return logits

    def _replay(self, inputs: Sequence[Tensor]) -> Tensor:
        if self._graph is None:
            # Running it twice before the capture writes the same rows with the same values: no harm, and kernels are
            # then loaded and tuned.
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    self._body(*inputs)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._logits = self._body(*inputs)
        self._graph.replay()
        assert self._logits is not None
        return self._logits


class DecodeSteps:
    """The captured steps of a pool, one for each bucket of streams; made when they are first needed."""

    def __init__(self, model: Model, pool: KVPool, how: str) -> None:
        self._model, self._pool, self._how = model, pool, how
        self._steps: dict[tuple[int, int], DecodeStep] = {}

    def run(self, tokens: Tensor, slots: Sequence[int], rotation: CosSin) -> Tensor:
        """See :meth:`DecodeStep.run`."""
        # A pool that has grown has new tensors.
        key = (bucket(len(slots)), self._pool.rows)
        if key not in self._steps:
            self._steps = {known: step for known, step in self._steps.items() if known[1] == self._pool.rows}
            self._steps[key] = DecodeStep(self._model, self._pool, key[0], self._how)
        return self._steps[key].run(tokens, slots, rotation)
