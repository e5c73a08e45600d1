"""Next-token choice. Noise is drawn by counter, so words do not depend on batches, forks or restores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..core.sampling_params import Sampling
from ..kernels.plain import upload


def penalize(logits: Tensor, token_mask: Tensor, penalty: float) -> Tensor:
    """Scores (..., v) after the repetition penalty on the tokens marked in ``token_mask`` (..., v) bool."""
    if penalty == 1.0:
        return logits
    worse = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(token_mask, worse, logits)


#: (seed, stream, index of the token in its stream).
Counter = tuple[int, int, int]


def choose(logits: Tensor, token_mask: Tensor, samplings: Sequence[Sampling], counters: Sequence[Counter]) -> list[int]:
    """The next token of each of some streams, from raw logits (b, v) and the tokens that have occurred (b, v) bool.

    Everything stays on the device of the logits until the tokens are read, once for each way of sampling among the
    streams. A stream's token does not depend on the others.
    """
    out = [0] * len(samplings)
    for sampling in set(samplings):
        rows = [row for row, other in enumerate(samplings) if other == sampling]
        index = upload(torch.tensor(rows), logits.device)
        tokens = _sample(logits[index], token_mask[index], sampling, [counters[row] for row in rows])
        for row, token in zip(rows, tokens.tolist(), strict=True):
            out[row] = token
    return out


def _sample(logits: Tensor, token_mask: Tensor, sampling: Sampling, counters: Sequence[Counter]) -> Tensor:
    scores = penalize(logits, token_mask, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return scores.argmax(-1)
    count = min(sampling.top_k or scores.shape[-1], scores.shape[-1])
    top, ids = (scores.float() / sampling.temperature).topk(count)
    if sampling.top_p < 1:
        share = top.softmax(-1)
        top = top.masked_fill(share.cumsum(-1) - share >= sampling.top_p, -torch.inf)
    noise = upload(torch.from_numpy(np.stack([gumbel(counter, count) for counter in counters])), top.device)
    return ids.gather(-1, (top + noise).argmax(-1, keepdim=True))[:, 0]


def gumbel(counter: Counter, count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """``count`` standard Gumbel numbers float32 that depend on ``counter`` alone."""
    seed, stream, index = counter
    bits = np.random.Philox(key=[seed, stream], counter=[0, 0, 0, index])
    uniform = np.random.Generator(bits).random(count)
    return (-np.log(-np.log(uniform + 1e-300) + 1e-300)).astype(np.float32)
