"""Next-token choice. Noise is drawn by counter, so words do not depend on batches, forks or restores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .errors import OptionError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is sampled.

    ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 switch those filters off; ``repetition_penalty`` is
    applied once to every distinct id in the stream's text (1: off); ``max_new_tokens`` bounds a reply.
    With ``forced`` every reply has exactly that many ids: an end of turn is sampled like any other id and not obeyed
    (for benchmarks, which want the same work whatever the words).
    """

    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.05
    max_new_tokens: int = 20
    forced: bool = False

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise OptionError(f"temperature must be 0 (greedy) or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0 or self.max_new_tokens < 1 or not self.repetition_penalty > 0:
            raise OptionError("top_k must be 0 or more, max_new_tokens 1 or more, repetition_penalty above 0")


def penalize(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Scores (..., v) after the repetition penalty on the ids marked in ``seen`` (..., v) bool."""
    if penalty == 1.0:
        return logits
    worse = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, worse, logits)


#: (seed, stream, index of the token in its stream).
Counter = tuple[int, int, int]


def choose(logits: Tensor, seen: Tensor, samplings: Sequence[Sampling], counters: Sequence[Counter]) -> list[int]:
    """The next id of each of some streams, from raw logits (b, v) and the ids that have occurred (b, v) bool.

    Everything stays on the device of the logits until the ids are read, once for each way of sampling among the
    streams. A stream's id does not depend on the others.
    """
    out = [0] * len(samplings)
    for sampling in set(samplings):
        rows = [row for row, other in enumerate(samplings) if other == sampling]
        index = torch.tensor(rows, device=logits.device)
        tokens = _sample(logits[index], seen[index], sampling, [counters[row] for row in rows])
        for row, token in zip(rows, tokens.tolist(), strict=True):
            out[row] = token
    return out


def _sample(logits: Tensor, seen: Tensor, sampling: Sampling, counters: Sequence[Counter]) -> Tensor:
    scores = penalize(logits, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return scores.argmax(-1)
    count = min(sampling.top_k or scores.shape[-1], scores.shape[-1])
    top, ids = (scores.float() / sampling.temperature).topk(count)
    if sampling.top_p < 1:
        share = top.softmax(-1)
        top = top.masked_fill(share.cumsum(-1) - share >= sampling.top_p, -torch.inf)
    noise = torch.from_numpy(np.stack([gumbel(counter, count) for counter in counters])).to(top.device)
    return ids.gather(-1, (top + noise).argmax(-1, keepdim=True))[:, 0]


def gumbel(counter: Counter, count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """``count`` standard Gumbel numbers float32 that depend on ``counter`` alone."""
    seed, stream, index = counter
    bits = np.random.Philox(key=[seed, stream], counter=[0, 0, 0, index])
    uniform = np.random.Generator(bits).random(count)
    return (-np.log(-np.log(uniform + 1e-300) + 1e-300)).astype(np.float32)
