"""One training step of the decoder: batches of laid-out chunks, the stock forward pass, the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layout import Laid
from .shape import middle


@dataclass(frozen=True, slots=True)
class StoryExample:
    """A chunk with its pictures: ``features`` (k, TOKENS, hidden) and ``labels`` (k, probes), -1 for unknown."""

    laid: Laid
    features: Tensor | None = None
    labels: Tensor | None = None


@dataclass(frozen=True, slots=True)
class StoryBatch:
    """Chunks padded behind to one length. Flat indices count through (batch, length)."""

    ids: Tensor
    positions: Tensor
    rows: Tensor
    targets: Tensor
    weights: Tensor
    video: Tensor
    features: Tensor | None
    ends: Tensor
    labels: Tensor | None


def collate(examples: Sequence[StoryExample], pad: int) -> StoryBatch:
    """Stack chunks; padding stands behind, so causal attention needs no mask."""
    longest = max(len(example.laid.ids) for example in examples)
    ids = np.full((len(examples), longest), pad, np.int64)
    places = np.zeros((3, len(examples), longest), np.float32)
    for i, example in enumerate(examples):
        laid = example.laid
        ids[i, : len(laid.ids)] = laid.ids
        places[:, i, : len(laid.ids)] = laid.positions

    def flat(name: str) -> Tensor:
        parts = [getattr(e.laid, name) + i * longest for i, e in enumerate(examples)]
        return torch.from_numpy(np.concatenate(parts))

    features = [e.features.flatten(0, 1) for e in examples if e.features is not None]
    labels = [e.labels for e in examples if e.labels is not None]
    return StoryBatch(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(places),
        rows=flat("rows"),
        targets=torch.from_numpy(np.concatenate([e.laid.targets for e in examples])),
        weights=torch.from_numpy(np.concatenate([e.laid.weights for e in examples])),
        video=flat("video"),
        features=torch.cat(features) if features else None,
        ends=flat("ends"),
        labels=torch.cat(labels) if labels else None,
    )


class Probes(nn.Module):
    """Auxiliary heads on the id behind each picture; they teach the decoder to look and are not saved.

    ``sizes``: number of classes of each label; ``weights``: how much each counts (None: all alike); ``shown``: those
    that one picture answers by itself. These are asked of the state before the middle layer as well: what the layers
    from there on are to read of earlier pictures, and words of the last one, must be there by then.
    """

    shown: Tensor

    def __init__(
        self,
        hidden: int,
        sizes: Sequence[int],
        weights: Sequence[float] | None = None,
        shown: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.weights = tuple(weights or [1.0] * len(sizes))
        self.head, self.early = nn.Linear(hidden, sum(sizes)), nn.Linear(hidden, sum(sizes))
        self.register_buffer("shown", torch.tensor(shown or [True] * len(sizes)), persistent=False)

    def forward(self, hidden: Tensor, early: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of last and of earlier states (n, hidden) for labels (n, len(sizes)); -1 is left out.

        Probes without a label, as those of games that are not in the batch, do not count.
        """
        early = F.rms_norm(early, early.shape[-1:])
        asked = labels.masked_fill(~self.shown, -1)
        return (self._loss(self.head(hidden), labels) + self._loss(self.early(early), asked)) / 2

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        parts = torch.split(logits.float(), list(self.sizes), dim=-1)
        known = [i for i, any_label in enumerate((labels >= 0).any(0).tolist()) if any_label]
        losses = [self.weights[i] * F.cross_entropy(parts[i], labels[:, i], ignore_index=-1) for i in known]
        return torch.stack(losses).sum() / sum(self.weights[i] for i in known)


@dataclass(frozen=True, slots=True)
class Losses:
    """Of the words (weighted mean) and of the probes."""

    words: Tensor
    probes: Tensor


def precise(dtype: torch.dtype) -> torch.autocast:
    """Products in ``dtype`` on the CPU; float32 is no autocast at all."""
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


def hidden_states(model: Any, batch: StoryBatch, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Last hidden states (b, n, hidden) of the stock decoder, its products in ``dtype``, and those before its middle
    layer."""
    embeds = model.model.language_model.embed_tokens(batch.ids)
    if batch.features is not None:
        shape = embeds.shape
        embeds = embeds.flatten(0, 1).index_copy(0, batch.video, batch.features.to(embeds.dtype)).view(shape)
    layers, seen = model.model.language_model.layers, []
    hook = layers[middle(len(layers))].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with hook, precise(dtype):
        out = model.model.language_model(
            inputs_embeds=embeds,
            position_ids=batch.positions,
            # No mask: attention is then causal by itself, and fast.
            attention_mask={"full_attention": None},
            use_cache=False,
        )
    return out.last_hidden_state, seen[0]


def losses(model: Any, probes: Probes, batch: StoryBatch, dtype: torch.dtype = torch.float32) -> Losses:
    """Losses of a batch. Logits are computed only where something is predicted."""
    hidden, early = (states.flatten(0, 1) for states in hidden_states(model, batch, dtype))
    with precise(dtype):
        logits = model.lm_head(hidden[batch.rows])
        probed = hidden.new_zeros(())
        if batch.labels is not None:
            probed = probes(hidden[batch.ends], early[batch.ends], batch.labels)
    each = F.cross_entropy(logits.float(), batch.targets, reduction="none")
    return Losses((each * batch.weights).sum() / batch.weights.sum().clamp(1e-6), probed)
