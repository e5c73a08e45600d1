"""What the engine needs of a checkpoint. The engine never sees transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ..cache.batch import Batch
from ..cache.kv_pool import KVShape
from ..cache.rope import Rope
from ..core.grammar import Grammar
from ..core.sampling_params import Sampling
from ..kernels.plain import PlainKernels
from .patches import Patcher, Patches

#: Options of the streaming window that a checkpoint may set for itself.
WINDOW_OPTIONS = ("vision", "turns", "sink", "text", "history_kv")
#: Seconds up to which time stamps are believed to be known to a checkpoint that does not say it. The paper's matches,
#: in training and in its evaluation on whole matches (2.12 hours on average), are shorter.
LONGEST_TIME = 4 * 3600.0


def window_options(streaming: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``generation_config.json``'s key ``"streaming"`` that are options of the window."""
    found = {key: streaming[key] for key in WINDOW_OPTIONS if key in streaming}
    if "history" in streaming:  # as checkpoints of version 0.1 have it
        value = streaming["history"]
        found.setdefault("history_kv", {"renewed": "recompute", "reused": "reuse"}.get(value, value))
    return found


@dataclass(frozen=True, slots=True)
class StreamDefaults:
    """How a checkpoint likes to be run, unless the caller says otherwise.

    ``policy``: options of the streaming window (:data:`WINDOW_OPTIONS`); ``instruction``: the standing instruction it
    was trained with; ``knows``: the kinds of source that it was trained on, for :attr:`Source.kind` (none named: it may
    be shown anything); ``longest_time``: seconds, the largest time stamp that it was trained on (:data:`LONGEST_TIME`
    for one that does not say it). The values come from ``generation_config.json``, key ``"streaming"``; the defaults
    are the paper's.
    """

    sampling: Sampling = field(default_factory=Sampling)
    policy: Mapping[str, Any] = field(default_factory=dict)
    instruction: str = ""
    knows: tuple[str, ...] = ()
    longest_time: float = LONGEST_TIME


@dataclass(frozen=True, slots=True)
class Frontend:
    """What a checkpoint makes of text and frames, known without its weights: what data for training is built with.

    The fields are those of :class:`Model`; ``tokenizer`` is transformers' own.
    """

    grammar: Grammar
    patcher: Patcher
    defaults: StreamDefaults
    tokens_per_second: float | None
    tokenizer: Any


@dataclass(frozen=True, slots=True)
class Vision:
    """What the vision tower makes of n pads of video.

    ``embeds``: (n, hidden), what stands in the pads' places; ``deepstack``: one (n, hidden) for each of the first
    decoder layers, added to the pads' hidden states behind it. Empty in the families that have no such features.
    """

    embeds: Tensor
    deepstack: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was made of frames ahead of their step: patches, perhaps also what the tower sees in them.

    ``seconds`` and ``vision_seconds``: the work that took.
    """

    patches: Patches
    seconds: float
    vision: Vision | None = None
    vision_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Deepstack:
    """The deepstack features of one forward pass, and where they go.

    ``pads``: (pads,) int64, the numbers of the new tokens that are pads of video, on the model's device; ``features``:
    per layer (pads, hidden), in the order of the pads.
    """

    pads: Tensor
    features: tuple[Tensor, ...]


class Model(Protocol):
    """One checkpoint. It holds no stream's state and serves any number of streams.

    ``tokens_per_second``: how far one second of video reaches along the time axis of the positions; None in families
    whose positions count temporal patches.
    """

    name: str
    kv_shape: KVShape
    rope: Rope
    tokens_per_second: float | None
    grammar: Grammar
    patcher: Patcher
    defaults: StreamDefaults
    end_tokens: frozenset[int]
    parameters: int
    vocabulary: int
    #: Run transformers' own decoder layers in place of :class:`streamingvlm.models.decoder.Decoder`.
    use_reference_layers: bool
    #: How the decoder's matrices are kept: "" as they were loaded, or a kind of :mod:`streamingvlm.models.quantize`.
    weights: str
    #: What runs the operations of our own.
    kernels: PlainKernels

    @property
    def fingerprint(self) -> str:
        """Which weights these are: the same for the same weights from another folder, never for others."""
        ...

    def check_reference_layers(self) -> None:
        """Raise :class:`ModelError` if there are no transformers' layers to compare with."""
        ...

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings (n, hidden) of tokens (n,) int64."""
        ...

    def encode(self, patches: Sequence[Patches]) -> list[Vision]:
        """What is seen in each of several blocks of temporal patches, of any streams: t * h * w merged pads each."""
        ...

    def forward(self, embeds: Tensor, batch: Batch, deepstack: Deepstack | None = None) -> Tensor:
        """Run new tokens (tokens, hidden) of some streams against a pool.

        ``deepstack``: what :meth:`encode` gave beside the embeddings; None where it gave nothing, or where there is
        no video among the new tokens.
        Returns the last hidden states (bucket, hidden) of each part's last token; rows behind the parts are padding.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Raw logits (..., vocabulary) float32 of hidden states (..., hidden)."""
        ...
