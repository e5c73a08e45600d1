"""Qwen2.5-VL through stock transformers layers, unpatched.

All-zero position_ids make transformers' own rotation the identity (cos 1, sin 0, exact), so the attention function
registered here receives raw keys; it stores them in the pool and rotates by the stream's true positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from ..errors import ModelError
from ..kv import Batch, KVShape
from ..prompt import Grammar, Marks
from ..rope import Rope
from .base import StreamDefaults
from .checkpoint import HFTokenizer, end_tokens, patcher, progress_for_people, stream_defaults, system_prompt
from .decoder import Decoder
from .patches import Patcher, Patches

ATTENTION = "streamingvlm"


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
    batch.pool.store(module.layer_idx, batch, key, value)
    return batch.pool.attend(module.layer_idx, batch, batch.rotate(query), scaling)[None], None


AttentionInterface.register(ATTENTION, _attention)


class Qwen25VL:
    """A Qwen2.5-VL checkpoint as the engine sees it; see :class:`streamingvlm.models.base.Model`.

    ``stock``: run transformers' own decoder layers in place of :class:`Decoder`; slower, what that is checked against.
    """

    stock = False

    def __init__(
        self,
        hf: Qwen2_5_VLForConditionalGeneration,
        *,
        name: str,
        grammar: Grammar,
        patcher: Patcher,
        defaults: StreamDefaults,
        end_tokens: frozenset[int],
    ) -> None:
        text = hf.config.text_config
        if any(kind != "full_attention" for kind in text.layer_types):
            raise ModelError(f"{name} has sliding-attention layers; only full attention in every layer can be streamed")
        text._attn_implementation = ATTENTION
        self.hf = hf.eval().requires_grad_(False)
        self.name = name
        self.grammar = grammar
        self.patcher = patcher
        self.defaults = defaults
        self.end_tokens = end_tokens
        self.tokens_per_second = float(hf.config.vision_config.tokens_per_second)
        self.parameters = sum(p.numel() for p in hf.parameters())
        self.vocabulary = text.vocab_size
        head_dim = text.hidden_size // text.num_attention_heads
        self.kv_shape = KVShape(text.num_hidden_layers, text.num_key_value_heads, head_dim, hf.dtype, hf.device)
        self.rope = self._rope()
        self.decoder = Decoder(
            hf.model.language_model, text.num_attention_heads, text.num_key_value_heads, head_dim, text.rms_norm_eps
        )

    def _rope(self) -> Rope:
        rotary = self.hf.model.language_model.rotary_emb
        if rotary.rope_type not in ("default", "mrope"):
            raise ModelError(f"{self.name}: rope type {rotary.rope_type!r} is not supported, only the plain one")
        sections = torch.tensor(rotary.config.rope_parameters["mrope_section"])
        axes = torch.arange(3).repeat_interleave(sections).to(self.hf.device)
        return Rope(rotary.inv_freq.float(), axes, float(rotary.attention_scaling))

    @torch.inference_mode()
    def embed(self, tokens: Tensor) -> Tensor:
        """See :meth:`Model.embed`."""
        embeds: Tensor = self.hf.model.language_model.embed_tokens(tokens)
        return embeds

    @torch.inference_mode()
    def encode(self, patches: Sequence[Patches]) -> list[Tensor]:
        """See :meth:`Model.encode`."""
        pixels = torch.cat([part.pixels for part in patches]).to(self.hf.device, self.hf.dtype)
        grid = torch.tensor([part.grid for part in patches], device=self.hf.device)
        embeds: Tensor = self.hf.model.visual(pixels, grid_thw=grid).pooler_output
        return list(torch.split(embeds, [prod(part.merged) for part in patches]))

    @torch.inference_mode()
    def forward(self, embeds: Tensor, batch: Batch) -> Tensor:
        """See :meth:`Model.forward`."""
        hidden = batch.take_ends(self._stock(embeds, batch)) if self.stock else self.decoder(embeds, batch)
        batch.finish()
        return hidden

    def _stock(self, embeds: Tensor, batch: Batch) -> Tensor:
        out = self.hf.model.language_model(
            inputs_embeds=embeds[None],
            attention_mask={"full_attention": None},
            position_ids=torch.zeros(3, 1, len(embeds), dtype=torch.long, device=embeds.device),
            use_cache=False,
            batch=batch,
        )
        hidden: Tensor = out.last_hidden_state[0]
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """See :meth:`Model.logits`."""
        scores: Tensor = self.hf.lm_head(hidden)
        return scores.float()


def load(folder: Path, name: str, device: torch.device, dtype: torch.dtype) -> Qwen25VL:
    """Load an ordinary checkpoint folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with progress_for_people():
        hf = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    hf = hf.to(device)
    config = hf.config
    marks = Marks(
        turn_start=tokenizer.convert_tokens_to_ids("<|im_start|>"),
        turn_end=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        vision_start=config.vision_start_token_id,
        vision_end=config.vision_end_token_id,
        vision_pad=config.video_token_id,
    )
    if None in (marks.turn_start, marks.turn_end):
        raise ModelError(f"{name}: its tokenizer has no <|im_start|> and <|im_end|>; a Qwen2.5-VL tokenizer is needed")
    return Qwen25VL(
        hf,
        name=name,
        grammar=Grammar(HFTokenizer(tokenizer), marks, system=system_prompt(folder, tokenizer)),
        patcher=patcher(folder, config.vision_config),
        defaults=stream_defaults(folder),
        end_tokens=end_tokens(folder, marks.turn_end),
    )
