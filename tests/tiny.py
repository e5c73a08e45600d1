"""A tiny random Qwen2.5-VL whose weights follow from one seed, and sessions on it without a tokenizer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from streamingvlm.models import Patcher, StreamDefaults
from streamingvlm.models.qwen2_5_vl import Qwen25VL
from streamingvlm.prompt import Grammar, Marks, Tokenizer
from streamingvlm.sampling import Sampling

EMBEDDING = "model.language_model.embed_tokens.weight"
TURN_END, ELLIPSIS = 151645, 2503


def config() -> Qwen2_5_VLConfig:
    text = {
        "vocab_size": 152064,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "bos_token_id": 151643,
        "eos_token_id": TURN_END,
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "tokens_per_second": 2,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
        image_token_id=151655,
        video_token_id=151656,
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
def weights(seed: int = 20240) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in Qwen2_5_VLForConditionalGeneration(config()).state_dict().items()}
    random = np.random.RandomState(seed)
    drawn = {name: _draw(name, shapes[name], random) for name in sorted(shapes) if name != "lm_head.weight"}
    out = {name: torch.from_numpy(weight.astype(np.float32)) for name, weight in drawn.items()}
    return {**out, "lm_head.weight": torch.from_numpy(_head(drawn[EMBEDDING]))}


def stock(attention: str = "eager") -> Qwen2_5_VLForConditionalGeneration:
    """The tiny model as stock transformers runs it, float32."""
    cfg = config()
    cfg._attn_implementation = attention
    model = Qwen2_5_VLForConditionalGeneration(cfg)
    model.load_state_dict(weights(), strict=True)
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
    patcher: Patcher | None = None,
    sampling: Sampling | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Qwen25VL:
    """The tiny model as the engine sees it; greedy unless ``sampling`` says otherwise."""
    return Qwen25VL(
        stock().to(device, dtype),
        name="tiny",
        grammar=Grammar(tokenizer or CharTokenizer(), MARKS),
        patcher=patcher or Patcher(min_pixels=56 * 56, max_pixels=56 * 84),
        defaults=StreamDefaults(sampling or Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=8)),
        end_tokens=frozenset({TURN_END, 151643}),
    )
