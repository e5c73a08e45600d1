"""What the engine needs of a checkpoint. The engine never sees transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ..kv import Batch, KVShape
from ..prompt import Grammar
from ..rope import Rope
from ..sampling import Sampling
from .patches import Patcher, Patches


@dataclass(frozen=True, slots=True)
class StreamDefaults:
    """How a checkpoint likes to be run, unless the caller says otherwise.

    ``policy``: options of the streaming window (vision, turns, sink, text); ``instruction``: the standing
    instruction it was trained with. The values come from ``generation_config.json``, key ``"streaming"``; the
    defaults are the paper's.
    """

    sampling: Sampling = field(default_factory=Sampling)
    policy: Mapping[str, Any] = field(default_factory=dict)
    instruction: str = ""


class Model(Protocol):
    """One checkpoint. It holds no stream's state and serves any number of streams."""

    name: str
    kv_shape: KVShape
    rope: Rope
    tokens_per_second: float
    grammar: Grammar
    patcher: Patcher
    defaults: StreamDefaults
    end_tokens: frozenset[int]
    parameters: int
    vocabulary: int
    #: Run transformers' own decoder layers in place of :class:`streamingvlm.models.decoder.Decoder`.
    stock: bool

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings (n, hidden) of ids (n,) int64."""
        ...

    def encode(self, patches: Sequence[Patches]) -> list[Tensor]:
        """Embeddings (t * h * w merged, hidden) of each of several blocks of temporal patches, of any streams."""
        ...

    def forward(self, embeds: Tensor, batch: Batch) -> Tensor:
        """Run new tokens (tokens, hidden) of some streams against a pool.

        Returns the last hidden states (bucket, hidden) of each part's last token; rows behind the parts are padding.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Raw logits (..., vocabulary) float32 of hidden states (..., hidden)."""
        ...
