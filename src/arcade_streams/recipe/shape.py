"""The sizes of the bundled model: a miniature Qwen2.5-VL that runs through the same code as the large ones."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from streamingvlm.models.patches import Patcher

#: Area of a frame after the resize: 168 x 140 for a 420 x 320 clip, 6 x 5 tokens per temporal patch.
PIXELS = 28224
#: Layers that are put in front of trained ones; heads of the last of them look names up (``lookup.py``).
FRONT = 2


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Widths and depths. ``theta``: base of the rotary frequencies; ``section``: how they are shared by (t, h, w).

    The defaults are the bundled model's for all games, before it is ``grown``.
    """

    hidden: int = 256
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 768
    theta: float = 10_000.0
    section: tuple[int, int, int] = (8, 12, 12)
    vision_hidden: int = 128
    vision_layers: int = 4
    vision_heads: int = 4
    vision_intermediate: int = 320


def patcher() -> Patcher:
    """Frames to patches at this model's resolution."""
    return Patcher(min_pixels=PIXELS // 2, max_pixels=PIXELS)


def config(shape: ModelShape, vocabulary: int, special: dict[str, int]) -> Qwen2_5_VLConfig:
    """The Hugging Face config; ``special`` maps the markup tokens to their ids."""
    text: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "bos_token_id": None,
        "eos_token_id": special["<|im_end|>"],
        "pad_token_id": special["<|endoftext|>"],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": shape.theta,
            "mrope_section": list(shape.section),
        },
    }
    vision: dict[str, Any] = {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_intermediate,
        "num_heads": shape.vision_heads,
        "out_hidden_size": shape.hidden,
        # Every block looks at the whole frame: 120 patches need no windows.
        "fullatt_block_indexes": list(range(shape.vision_layers)),
        "tokens_per_second": 2,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=True,
        video_token_id=special["<|video_pad|>"],
        image_token_id=special["<|image_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
        bos_token_id=None,
        eos_token_id=special["<|im_end|>"],
        pad_token_id=special["<|endoftext|>"],
    )


def new_model(config: Qwen2_5_VLConfig, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A freshly initialised model; the same seed gives the same weights."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    decoder = model.model.language_model
    depth = config.text_config.num_hidden_layers
    with torch.no_grad():
        # With small embeddings the first layer drowns them (norm 300 on 2), and later layers learn nothing new from
        # words. The last norm is small because the head is the same matrix.
        decoder.embed_tokens.weight.normal_(0.0, 0.25)
        decoder.norm.weight.fill_(0.1)
        for layer in decoder.layers:
            # What a layer adds to the residual stream starts small, so that depth does not raise its scale.
            layer.self_attn.o_proj.weight /= (2 * depth) ** 0.5
            layer.mlp.down_proj.weight /= (2 * depth) ** 0.5
        # A plain background says almost nothing to these filters, so that the ball, six pixels of 196, stands out.
        kernel = model.model.visual.patch_embed.proj.weight
        kernel.normal_(0.0, 0.05)
        kernel -= 0.9 * kernel.mean(dim=(3, 4), keepdim=True)
        frequencies, section = decoder.rotary_emb.inv_freq, config.text_config.rope_parameters["mrope_section"]
        look_back(decoder.layers[0].self_attn, frequencies, group=config.text_config.num_key_value_heads - 1)
        for layer in decoder.layers:
            look_at(layer.self_attn, frequencies[: section[0]], group=0)
        mark = decoder.embed_tokens.weight[config.vision_end_token_id]
        for layer in decoder.layers[middle(depth) : middle(depth) + 2]:
            look_along(layer.self_attn, frequencies, mark, group=config.text_config.num_key_value_heads - 1)
    return model


def middle(depth: int) -> int:
    """The layer in front of which all that one picture shows should be told; the same one once a decoder has grown."""
    return max(depth // 2, depth - 3)


def grown(old: Any, config: Qwen2_5_VLConfig, seed: int) -> Any:
    """A model of FRONT more layers, in front of those of ``old``. They write nothing yet (``lookup.look_up``).

    ``config``: as that of ``old``, but for the number of layers.
    """
    model = new_model(config, seed)

    def moved(name: str) -> str:
        return re.sub(r"(language_model\.layers)\.(\d+)", lambda at: f"{at[1]}.{int(at[2]) + FRONT}", name)

    model.load_state_dict({moved(name): weight for name, weight in old.state_dict().items()}, strict=False)
    with torch.no_grad():
        for layer in model.model.language_model.layers[:FRONT]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


def hold_front(model: Any) -> None:
    """Nothing is learnt in layers that were put in front, nor in the embeddings that they read: what they compare
    is told by weights that are small beside an update."""
    decoder = model.model.language_model
    front = len(decoder.layers) - ModelShape().layers
    for part in decoder.layers[: max(front, 0)]:
        part.requires_grad_(False)
    decoder.embed_tokens.requires_grad_(front <= 0)


def look_back(attention: Any, inverse_frequencies: Tensor, *, group: int, strength: float = 40.0) -> None:
    """Set up the query heads of one key/value head to look at the id 1, 2, ... places before.

    Copying a value by the words before it needs such a head. It is rarely found by training on video, and is here from
    the start: keys and queries are constants (biases), turned against each other so that the rotation of
    neighbouring positions makes them meet. ``strength`` is the largest logit.
    """
    d, heads = attention.head_dim, attention.num_key_value_groups
    hidden = attention.o_proj.weight.shape[0]
    size = (strength * d**0.5 / (d // 2)) ** 0.5
    keys = slice(group * d, (group + 1) * d)
    random, _ = torch.linalg.qr(torch.randn(hidden, hidden))
    attention.k_proj.weight[keys] = 0.0
    attention.k_proj.bias[keys] = torch.cat([torch.full((d // 2,), size), torch.zeros(d // 2)])
    attention.v_proj.weight[keys] = random[:d]
    attention.v_proj.bias[keys] = 0.0
    for back in range(1, heads + 1):
        head = group * heads + back - 1
        queries = slice(head * d, (head + 1) * d)
        angle = -back * inverse_frequencies
        attention.q_proj.weight[queries] = 0.0
        attention.q_proj.bias[queries] = torch.cat([angle.cos(), angle.sin()]) * size
        attention.o_proj.weight[:, queries] = 0.5 * random[back * d : (back + 1) * d].T


def look_at(attention: Any, inverse_frequencies: Tensor, *, group: int, strength: float = 20.0) -> None:
    """Set up the query heads of one key/value head so that the id behind a picture looks at that picture.

    Two digits among 500 ids of video are found late or never, among 30 soon (dev/log/bundled-model.md).
    ``inverse_frequencies``: those of the time axis, on which all ids of a picture are equally far from the id behind
    it. Weights stay as they are, so that what is looked at can be learnt; ``strength`` is the largest logit of the
    biases.
    """
    d, heads, count = attention.head_dim, attention.num_key_value_groups, len(inverse_frequencies)
    height, width = patcher().size(420, 320)
    angle = -(max(height, width) // 28) * inverse_frequencies
    size = (strength * d**0.5 / count) ** 0.5
    hidden = attention.o_proj.weight.shape[0]
    random, _ = torch.linalg.qr(torch.randn(hidden, hidden))
    attention.k_proj.bias[group * d : group * d + count] = size
    attention.v_proj.weight[group * d : (group + 1) * d] = random[:d]
    for head in range(group * heads, (group + 1) * heads):
        queries = slice(head * d, (head + 1) * d)
        halves = attention.q_proj.bias[queries].view(2, d // 2)
        halves[:, :count] = torch.stack([angle.cos(), angle.sin()]) * size
        place = head - group * heads + 1
        attention.o_proj.weight[:, queries] = random[place * d : (place + 1) * d].T


def look_along(
    attention: Any, inverse_frequencies: Tensor, mark: Tensor, *, group: int, strength: float = 12.0
) -> None:
    """Set up the query heads of one key/value head to look at the ids behind the last pictures.

    What takes seconds (somebody stands still, a chase) is told by what earlier pictures showed. That is gathered in the
    ids behind them, one id in forty. The first head looks at the last of them, the others at the last few.
    ``mark`` (hidden,): the direction by which these ids are known. ``strength``: the logit of one of them over others.
    """
    d, heads = attention.head_dim, attention.num_key_value_groups
    hidden = attention.o_proj.weight.shape[0]
    random, _ = torch.linalg.qr(torch.randn(hidden, hidden))
    keys, slow = group * d, d // 2 - 1
    # Half of a normalised state, about what is left of an id's own direction after some layers.
    size = (strength * d**0.5 / (0.5 * hidden**0.5)) ** 0.5
    attention.k_proj.weight[keys + slow] = size * mark / mark.norm()
    attention.v_proj.weight[keys : keys + d] = random[:d]
    # The nearer, the more: cosines of the distance in ids, some forty a second, too slow to come round again soon.
    pairs = [int((inverse_frequencies.log() + math.log(distance)).abs().argmin()) for distance in (56.0, 100.0)]
    attention.k_proj.bias[[keys + pair for pair in pairs]] = size
    for number in range(heads):
        queries = (group * heads + number) * d
        attention.q_proj.bias[queries + slow] = size
        for pair, logit in zip(pairs, (6.0, 6.0) if number == 0 else (0.0, 4.0), strict=True):
            attention.q_proj.bias[queries + pair] = logit * d**0.5 / size
        attention.o_proj.weight[:, queries : queries + d] = 0.5 * random[(number + 1) * d : (number + 2) * d].T
