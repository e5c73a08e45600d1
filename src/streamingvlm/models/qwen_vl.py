"""What the families of Qwen-VL have in common: stock transformers layers, unpatched.

All-zero position_ids make transformers' own rotation the identity (cos 1, sin 0, exact), so the attention function
registered here receives raw keys; it stores them in the pool and rotates by the stream's true positions. It has no
mask function beside it, so transformers makes no mask either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, wraps
from math import prod
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

import torch
from torch import Tensor
from transformers import AttentionInterface

from ..cache.batch import Batch
from ..cache.kv_pool import KVShape
from ..cache.rope import Rope
from ..core.errors import ModelError
from ..core.grammar import Grammar
from ..kernels.choose import choose_kernels
from ..kernels.plain import Heads, PlainKernels, upload
from .base import Deepstack, Frontend, StreamDefaults, Vision
from .checkpoint import HFTokenizer, end_tokens, patcher, stream_defaults, system_prompt
from .decoder import Decoder
from .edge import library
from .files import read_config
from .fingerprint import fingerprint
from .knows import GENERATION
from .patches import CLIP_MEAN, CLIP_STD, Patcher, Patches
from .tokens import check_ends, check_words, find_marks, load_tokenizer
from .tower import Tower
from .weights import check_run, load_weights, quantization

ATTENTION = "streamingvlm"

P = ParamSpec("P")
R = TypeVar("R")


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    *,
    scaling: float,
    batch: Batch,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer against the pool, in the form that transformers calls: (1, heads, tokens, head_dim)."""
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    batch.store(module.layer_idx, key, value)
    return batch.attend(module.layer_idx, query, scaling)[None], None


AttentionInterface.register(ATTENTION, _attention)


def inferring(method: Callable[P, R]) -> Callable[P, R]:
    """Run a method in inference mode, which spares every operation some bookkeeping."""

    @wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode():
            return method(*args, **kwargs)

    return run


class QwenVL:
    """A checkpoint as the engine sees it; see :class:`streamingvlm.models.base.Model`. A family fills in the rest.

    ``hf``: a model of ``hf_class`` in any dtype, on any device; its text attention is switched to the pool's.
    ``use_reference_layers``: run transformers' own decoder layers in place of :class:`Decoder`; slower, what that is
    checked against. ``kernels``: of :data:`streamingvlm.kernels.choose.KERNELS`, or the kernels themselves.
    """

    use_reference_layers = False
    #: How the decoder's matrices are kept: "" as they were loaded, or a kind of :mod:`streamingvlm.models.quantize`.
    weights = ""

    #: The class of transformers that runs this family, and what people call the family.
    hf_class: ClassVar[Any]
    title: ClassVar[str]
    grammar_class: ClassVar[type[Grammar]] = Grammar
    #: How frames are normalised where the folder does not say it.
    mean: ClassVar[Sequence[float]] = CLIP_MEAN
    std: ClassVar[Sequence[float]] = CLIP_STD

    def __init__(
        self,
        hf: Any,
        *,
        name: str,
        grammar: Grammar,
        patcher: Patcher,
        defaults: StreamDefaults,
        end_tokens: frozenset[int],
        kernels: str | PlainKernels = "auto",
    ) -> None:
        text = hf.config.text_config
        if isinstance(kernels, str):
            kernels = choose_kernels(hf.device, hf.dtype, kernels, _head_dim(text))
        self.kernels = kernels
        text._attn_implementation = ATTENTION
        self._tower = Tower(hf.model.visual, self.kernels)
        self.hf = hf.eval().requires_grad_(False)
        self.name = name
        self.grammar = grammar
        self.patcher = patcher if hf.device.type == "cpu" else replace(patcher, cut_on_device=True)
        self.defaults = defaults
        self.end_tokens = end_tokens
        self.tokens_per_second = self._tokens_per_second(hf.config)
        self.parameters = sum(p.numel() for p in hf.parameters())
        self.vocabulary = text.vocab_size
        head_dim = _head_dim(text)
        self.kv_shape = KVShape(text.num_hidden_layers, text.num_key_value_heads, head_dim, hf.dtype, hf.device)
        self.rope = self._rope()
        heads = Heads(text.num_attention_heads, text.num_key_value_heads, head_dim, eps=text.rms_norm_eps)
        self.decoder = Decoder(hf.model.language_model, hf.lm_head, heads, self.kernels)

    @classmethod
    def load(cls, folder: Path, name: str, device: torch.device, dtype: torch.dtype, kernels: str = "auto") -> Self:
        """Load an ordinary checkpoint folder. :class:`ModelError` if it cannot be streamed."""
        config = cls._config(folder, name)
        front = cls.frontend(folder, name, config)
        hf = load_weights(cls.hf_class, folder, name, config, dtype)
        with library(f"{name} cannot be brought to {device}"):
            hf = hf.to(device)
        check_run(hf, name)
        return cls(
            hf,
            name=name,
            grammar=front.grammar,
            patcher=front.patcher,
            defaults=front.defaults,
            end_tokens=end_tokens(folder, front.grammar.marks.turn_end),
            kernels=kernels,
        )

    @classmethod
    def load_for_training(cls, folder: Path, name: str, dtype: torch.dtype, attention: str = "sdpa") -> Any:
        """transformers' own model of a folder, for training. :class:`ModelError` as :meth:`load` raises it."""
        return load_weights(cls.hf_class, folder, name, cls._config(folder, name), dtype, attention)

    @classmethod
    def frontend(cls, folder: Path, name: str, config: Any = None) -> Frontend:
        """What does not need the weights. :class:`ModelError` if the checkpoint cannot be streamed."""
        config = config or cls._config(folder, name)
        tokenizer = load_tokenizer(folder)
        marks, plain = find_marks(tokenizer, config, name, cls.title), HFTokenizer(tokenizer)
        check_words(plain, marks, name)
        check_ends(end_tokens(folder, marks.turn_end), tokenizer, config.text_config.vocab_size, folder / GENERATION)
        return Frontend(
            cls.grammar_class(plain, marks, system=system_prompt(folder, tokenizer)),
            patcher(folder, config.vision_config, cls.mean, cls.std),
            stream_defaults(folder),
            cls._tokens_per_second(config),
            tokenizer,
        )

    @classmethod
    def _config(cls, folder: Path, name: str) -> Any:
        read_config(folder)
        quantization(folder)
        with library(f"{name} cannot be loaded: {folder / 'config.json'}"):
            config = cls.hf_class.config_class.from_pretrained(folder, local_files_only=True)
        _check(config, name)
        return config

    @classmethod
    def _tokens_per_second(cls, config: Any) -> float | None:  # noqa: ARG003
        """See :class:`streamingvlm.models.base.Model`."""
        return None

    def _axes(self, sections: Sequence[int]) -> Tensor:
        """Which of (t, h, w) each frequency follows, (sum of sections,) int64: here one run for each axis."""
        return torch.arange(3).repeat_interleave(torch.tensor(sections))

    def _rope(self) -> Rope:
        rotary = self.hf.model.language_model.rotary_emb
        sections = list(rotary.mrope_section)
        _check_sections(sections, len(rotary.inv_freq), self.name)
        axes = self._axes(sections).to(self.hf.device)
        return Rope(rotary.inv_freq.float(), axes, float(rotary.attention_scaling))

    @cached_property
    def fingerprint(self) -> str:
        """See :attr:`Model.fingerprint`."""
        return fingerprint(self.hf)

    @inferring
    def embed(self, tokens: Tensor) -> Tensor:
        """See :meth:`Model.embed`."""
        embeds: Tensor = self.hf.model.language_model.embed_tokens(tokens)
        return embeds

    def _there(self, pixels: Tensor) -> Tensor:
        return self.patcher.finish(upload(pixels, self.hf.device)).to(self.hf.dtype)

    @inferring
    def encode(self, patches: Sequence[Patches]) -> list[Vision]:
        """See :meth:`Model.encode`."""
        pixels = torch.cat([self._there(part.pixels) for part in patches])
        out = self._tower(pixels, tuple(part.grid for part in patches))
        counts = [prod(part.merged) for part in patches]
        embeds = torch.split(out.pooler_output, counts)
        layers = [torch.split(layer, counts) for layer in getattr(out, "deepstack_features", None) or ()]
        return [Vision(part, tuple(layer[i] for layer in layers)) for i, part in enumerate(embeds)]

    @inferring
    def forward(self, embeds: Tensor, batch: Batch, deepstack: Deepstack | None = None) -> Tensor:
        """See :meth:`Model.forward`."""
        if self.use_reference_layers:
            self.check_reference_layers()
            hidden = batch.take_ends(self._stock_layers(embeds, batch, deepstack))
        else:
            hidden = self.decoder(embeds, batch, deepstack)
        batch.finish()
        return hidden

    def check_reference_layers(self) -> None:
        """Raise :class:`ModelError` if transformers' own layers are gone."""
        if self.weights:
            raise ModelError(f"{self.name}: with {self.weights} weights there are no stock layers to compare with")

    def _stock_layers(self, embeds: Tensor, batch: Batch, deepstack: Deepstack | None) -> Tensor:
        more = {}
        if deepstack:
            mask = torch.zeros(1, len(embeds), dtype=torch.bool, device=embeds.device)
            mask[0, deepstack.pads] = True
            more = {"visual_pos_masks": mask, "deepstack_visual_embeds": list(deepstack.features)}
        out = self.hf.model.language_model(
            inputs_embeds=embeds[None],
            attention_mask=None,
            position_ids=torch.zeros(3, 1, len(embeds), dtype=torch.long, device=embeds.device),
            use_cache=False,
            batch=batch,
            **more,
        )
        hidden: Tensor = out.last_hidden_state[0]
        return hidden

    @inferring
    def logits(self, hidden: Tensor) -> Tensor:
        """See :meth:`Model.logits`."""
        return self.decoder.head(hidden, few=True).float()


def _head_dim(text: Any) -> int:
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _check(config: Any, name: str) -> None:
    """Refuse what cannot be streamed, before gigabytes of weights are read."""
    text, vision = config.text_config, config.vision_config
    if any(kind != "full_attention" for kind in getattr(text, "layer_types", None) or ()):
        raise ModelError(f"{name} has sliding-attention layers; only full attention in every layer can be streamed")
    rope = text.rope_parameters if isinstance(text.rope_parameters, dict) else {}
    rope_type = rope.get("rope_type")
    if rope_type not in ("default", "mrope"):
        raise ModelError(f"{name}: rope type {rope_type!r} is not supported, only the plain one")
    if "mrope_section" in rope:
        _check_sections(rope["mrope_section"], _head_dim(text) // 2, name)
    sides = vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size
    if not all(isinstance(side, int) for side in sides):
        raise ModelError(f"{name}: patch sizes {sides} are not supported; each must be one number")


def _check_sections(sections: Any, count: int, name: str) -> None:
    numbers = sections if isinstance(sections, list) else []
    if len(numbers) != 3 or any(type(one) is not int or one < 1 for one in numbers) or sum(numbers) != count:
        wanted = f"must be three numbers that add up to {count}"
        raise ModelError(f"{name} cannot be loaded: mrope_section {sections} {wanted}")
