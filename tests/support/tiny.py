"""Tiny random models of every family whose weights follow from one seed, and a tokenizer that knows only characters.

The Qwen2.5-VL is the one that the golden runs were recorded with: its sizes and its weights may not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from streamingvlm.core.grammar import Marks, Tokenizer
from streamingvlm.core.sampling_params import Sampling
from streamingvlm.models.base import StreamDefaults
from streamingvlm.models.patches import CLIP_MEAN, CLIP_STD, HALF, Patcher
from streamingvlm.models.qwen2_5_vl import Qwen25VL
from streamingvlm.models.qwen2_vl import Qwen2VL
from streamingvlm.models.qwen3_vl import Qwen3VL
from streamingvlm.models.qwen_vl import QwenVL

EMBEDDING = "model.language_model.embed_tokens.weight"
TURN_END, ELLIPSIS = 151645, 2503


@dataclass(frozen=True)
class Family:
    """Everything in which the tiny models differ."""

    ours: type[QwenVL]
    stock: type[PreTrainedModel]
    config: type
    vision: dict[str, Any]
    text: dict[str, Any]
    patch: int = 14
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame of 2 x 3 tokens."""
        return 4 * self.patch, 6 * self.patch


THREE_RUNS = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}}
FAMILIES = {
    "qwen2_vl": Family(
        Qwen2VL, Qwen2VLForConditionalGeneration, Qwen2VLConfig,
        vision={"depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "num_heads": 2},
        text=THREE_RUNS,
    ),
    "qwen2_5_vl": Family(
        Qwen25VL, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig,
        vision={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
            "tokens_per_second": 2, "window_size": 56, "fullatt_block_indexes": [1],
        },
        text=THREE_RUNS,
    ),
    "qwen3_vl": Family(
        Qwen3VL, Qwen3VLForConditionalGeneration, Qwen3VLConfig,
        vision={
            "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
            "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 2],
        },
        # Heads are wider than hidden size / heads, as in the published sizes.
        text={
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [6, 5, 5], "mrope_interleaved": True,
            },
        },
        patch=16, mean=HALF, std=HALF,
    ),
}  # fmt: skip
GOLDEN = "qwen2_5_vl"


#: Ids of the published checkpoints.
IDS = {
    "<|vision_start|>": 151652,
    "<|vision_end|>": 151653,
    "<|image_pad|>": 151655,
    "<|video_pad|>": 151656,
}


def config(family: str = GOLDEN, vocabulary: int = 152064, ids: Mapping[str, int] = IDS) -> Any:
    text = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return FAMILIES[family].config(
        text_config=text | FAMILIES[family].text,
        vision_config=dict(FAMILIES[family].vision),
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        tie_word_embeddings=False,
    )


def _draw(name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
    noise = 2.0 * random.random_sample(shape) - 1.0
    if name == EMBEDDING:
        weight = noise * (np.sqrt(3.0) * 0.25)
    elif len(shape) == 1 and name.endswith("weight"):
        weight = 1.0 + 0.1 * noise
    elif name.endswith("bias"):
        weight = 0.1 * noise
    else:
        gain = 1.5 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1.0
        weight = noise * (gain * np.sqrt(3.0 / int(np.prod(shape[1:]))))
    return weight.astype(np.float16)


def _head(embedding: np.ndarray) -> np.ndarray:
    """The head reads the embedding backwards; ends of turn and " ..." are likely, special ids are not."""
    factor = np.ones(len(embedding), np.float32)
    factor[151643] = factor[151644] = 0.125
    factor[151646:] = 0.125
    factor[TURN_END], factor[ELLIPSIS] = 4.5, 4.0
    return np.ascontiguousarray((embedding.astype(np.float32) * factor[:, None])[:, ::-1])


@cache
def weights(family: str = GOLDEN, seed: int = 20240) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in FAMILIES[family].stock(config(family)).state_dict().items()}
    random = np.random.RandomState(seed)
    drawn = {name: _draw(name, shapes[name], random) for name in sorted(shapes) if name != "lm_head.weight"}
    out = {name: torch.from_numpy(weight.astype(np.float32)) for name, weight in drawn.items()}
    return {**out, "lm_head.weight": torch.from_numpy(_head(drawn[EMBEDDING]))}


def stock(family: str = GOLDEN, attention: str = "eager") -> Any:
    """The tiny model as stock transformers runs it, float32."""
    cfg = config(family)
    cfg._attn_implementation = attention
    model = FAMILIES[family].stock(cfg)
    model.load_state_dict(weights(family), strict=True)
    return model.eval()


class CharTokenizer:
    """Every character is one id. Knows nothing else, which is all that most tests need."""

    def encode(self, text: str) -> list[int]:
        return [1000 + ord(character) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i - 1000) if 1000 <= i < 151643 and i < 1_115_111 else "" for i in ids)


MARKS = Marks(turn_start=151644, turn_end=TURN_END, vision_start=151652, vision_end=151653, vision_pad=151656)


def model(
    tokenizer: Tokenizer | None = None,
    *,
    family: str = GOLDEN,
    patcher: Patcher | None = None,
    sampling: Sampling | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> QwenVL:
    """The tiny model as the engine sees it; greedy unless ``sampling`` says otherwise."""
    return wrap(stock(family).to(device, dtype), tokenizer, family=family, patcher=patcher, sampling=sampling)


def wrap(
    hf: Any,
    tokenizer: Tokenizer | None = None,
    *,
    family: str = GOLDEN,
    patcher: Patcher | None = None,
    sampling: Sampling | None = None,
) -> QwenVL:
    """A stock model as the engine sees it."""
    kind = FAMILIES[family]
    height, width = kind.size
    own = Patcher(kind.patch, min_pixels=height**2, max_pixels=height * width, mean=kind.mean, std=kind.std)
    return kind.ours(
        hf,
        name="tiny",
        grammar=kind.ours.grammar_class(tokenizer or CharTokenizer(), MARKS),
        patcher=patcher or own,
        defaults=StreamDefaults(sampling or Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=8)),
        end_tokens=frozenset({TURN_END, 151643}),
    )


# --- folders ----------------------------------------------------------------------------------------------------

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|video_pad|>",
    "<|image_pad|>",
]
TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)


def write_checkpoint(family: str, path: Path) -> Path:
    """A random checkpoint, written by transformers itself."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    raw = tokenizers.Tokenizer(tokenizers.models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, additional_special_tokens=SPECIAL)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    torch.manual_seed(0)
    model = FAMILIES[family].stock(config(family, 264, ids))
    model.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    model.save_pretrained(path)
    return path
