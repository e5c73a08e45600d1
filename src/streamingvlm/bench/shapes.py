"""Models of published shapes with random weights, made on the device itself: nothing is downloaded.

How fast a model runs depends on its shape alone. The numbers are those of the published ``config.json`` files; the
tokenizer is a stand-in with one token per byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from ..core.errors import ModelError, OptionError
from ..core.grammar import Grammar, Marks
from ..core.sampling_params import Sampling
from ..kernels.plain import PlainKernels
from ..models.base import Model, StreamDefaults, window_options
from ..models.hub import BUNDLED
from ..models.load import FAMILIES
from ..models.patches import Patcher

PUBLISHED = Marks(turn_start=151644, turn_end=151645, vision_start=151652, vision_end=151653, vision_pad=151656)
SMALL_MARKS = Marks(turn_start=1, turn_end=2, vision_start=3, vision_end=4, vision_pad=5)

#: model_type -> class that wraps a transformers model, in the module that FAMILIES names.
WRAPPERS = {"qwen2_5_vl": "Qwen25VL", "qwen2_vl": "Qwen2VL", "qwen3_vl": "Qwen3VL"}


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of one model.

    ``text`` and ``vision``: what its two configs say; ``size``: width and height of the frames that it is measured
    with by default; ``pixels``: least and most of a frame; ``policy``: its own windows, if not the paper's.
    """

    family: str
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    tied: bool = False
    marks: Marks = PUBLISHED
    size: tuple[int, int] = (1008, 588)
    pixels: tuple[int, int] = (128 * 28 * 28, 768 * 28 * 28)
    policy: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = 20


def _text(hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int, **rest: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocabulary,
        "max_position_embeddings": 128_000,
        "rms_norm_eps": 1e-6,
        "rope_parameters": rope,
        **rest,
    }


def _vision_2_5(out: int) -> dict[str, Any]:
    return {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": out,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
    }


def _qwen3(layers: int, hidden: int, inner: int, deep: list[int], text: tuple[int, int], *, tied: bool) -> Shape:
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    vision = {
        "depth": layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_heads": 16,
        "out_hidden_size": text[0],
        "patch_size": 16,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": deep,
    }
    more = {"head_dim": 128, "rope_parameters": rope, "max_position_embeddings": 262_144}
    decoder = _text(text[0], text[1], 36, 32, 8, 151_936, **more)
    # Tokens of 32 x 32 pixels: the same number of them.
    pixels = (128 * 32 * 32, 768 * 32 * 32)
    return Shape("qwen3_vl", decoder, vision, tied=tied, size=(1152, 672), pixels=pixels)


def _bundled() -> Shape:
    """The bundled model's own numbers."""
    config = json.loads((BUNDLED / "config.json").read_text())
    own = json.loads((BUNDLED / "generation_config.json").read_text())["streaming"]
    return Shape(
        config["model_type"],
        config["text_config"],
        config["vision_config"],
        tied=config["tie_word_embeddings"],
        marks=SMALL_MARKS,
        size=(420, 320),
        pixels=(own["min_pixels"], own["max_pixels"]),
        policy=window_options(own),
        tokens=own["max_new_tokens"],
    )


def _tiny() -> Shape:
    """Two layers, for tests."""
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
    return Shape(
        "qwen2_5_vl",
        _text(64, 128, 2, 4, 2, 384, rope_parameters=rope, bos_token_id=None, eos_token_id=None),
        vision | {"window_size": 56, "fullatt_block_indexes": [1], "tokens_per_second": 2},
        marks=SMALL_MARKS,
        size=(84, 56),
        pixels=(28 * 28, 84 * 56),
        policy={"vision": 4, "turns": 4, "sink": 16, "text": 16},
        tokens=4,
    )


def _middle() -> Shape:
    """81.6 million parameters, for measurements on one CPU core: between the bundled model and the published sizes.

    Frames of 256 tokens; at 2 frames a second they are one temporal patch a second.
    """
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    vision = {"depth": 8, "hidden_size": 320, "intermediate_size": 864, "num_heads": 4, "out_hidden_size": 512}
    return Shape(
        "qwen2_5_vl",
        _text(512, 1536, 12, 8, 2, 32_000, rope_parameters=rope, bos_token_id=None, eos_token_id=None),
        vision | {"window_size": 112, "fullatt_block_indexes": [3, 7], "tokens_per_second": 2},
        marks=SMALL_MARKS,
        size=(448, 448),
        pixels=(28 * 28, 448 * 448),
        policy={"vision": 16, "turns": 16, "sink": 512, "text": 512},
    )


def shape_named(name: str) -> Shape:
    """The shape of that name. :class:`OptionError` for a name that is not in :data:`SHAPES`."""
    if name not in SHAPES:
        raise OptionError(f"unknown shape {name!r}; known: {', '.join(SHAPES)}")
    return SHAPES[name]()


_QWEN2_VISION = {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4, "num_heads": 16}

#: Name on the command line -> what makes the shape.
SHAPES = {
    "qwen2.5-vl-7b": lambda: Shape("qwen2_5_vl", _text(3584, 18944, 28, 28, 4, 152_064), _vision_2_5(3584)),
    "qwen2.5-vl-3b": lambda: Shape("qwen2_5_vl", _text(2048, 11008, 36, 16, 2, 151_936), _vision_2_5(2048), tied=True),
    "qwen2-vl-7b": lambda: Shape("qwen2_vl", _text(3584, 18944, 28, 28, 4, 152_064), _QWEN2_VISION),
    "qwen3-vl-8b": lambda: _qwen3(27, 1152, 4304, [8, 16, 24], (4096, 12_288), tied=False),
    "qwen3-vl-4b": lambda: _qwen3(24, 1024, 4096, [5, 11, 17], (2560, 9728), tied=True),
    "middle": _middle,
    BUNDLED.name: _bundled,
    "tiny": _tiny,
}


class ByteTokenizer:
    """One token per byte of UTF-8, from ``FIRST`` on; tokens that are no byte decode to nothing."""

    FIRST = 16  # behind the marks of the small shapes

    def encode(self, text: str) -> list[int]:
        """Tokens of ``text``."""
        return [self.FIRST + byte for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``."""
        kept = bytes(i - self.FIRST for i in ids if self.FIRST <= i < self.FIRST + 256)
        return kept.decode(errors="replace")


def build(
    name: str, *, device: torch.device, dtype: torch.dtype, seed: int = 0, kernels: str | PlainKernels = "auto"
) -> Model:
    """A model of the shape ``name`` with random weights; on the meta device one without numbers.

    It is laid out without memory and then filled on the device. ``kernels``: of
    :data:`streamingvlm.kernels.choose.KERNELS`, or the kernels themselves. :class:`OptionError` for an unknown name,
    :class:`ModelError` for a family that this version cannot run, or one that does not fit into memory.
    """
    shape = shape_named(name)
    if shape.family not in FAMILIES:
        raise ModelError(f"{name} is of family {shape.family}; this version runs {', '.join(FAMILIES)}")
    try:
        hf = _random_weights(shape, device, dtype, seed)
    except torch.OutOfMemoryError:
        raise ModelError(f"{name} does not fit into the memory of {device}") from None
    wrapper: Any = getattr(import_module(f"..models.{FAMILIES[shape.family]}", __package__), WRAPPERS[shape.family])
    model: Model = wrapper(
        hf,
        name=f"{name} (random weights)",
        grammar=getattr(wrapper, "grammar_class", Grammar)(ByteTokenizer(), shape.marks),
        patcher=_patcher(shape, hf.config.vision_config),
        defaults=StreamDefaults(Sampling(max_new_tokens=shape.tokens), shape.policy, "Commentate on this video."),
        end_tokens=frozenset({shape.marks.turn_end}),
        kernels=kernels,
    )
    return model


def _random_weights(shape: Shape, device: torch.device, dtype: torch.dtype, seed: int) -> Any:
    config = AutoConfig.for_model(
        shape.family,
        text_config=dict(shape.text),
        vision_config=dict(shape.vision),
        tie_word_embeddings=shape.tied,
        vision_start_token_id=shape.marks.vision_start,
        vision_end_token_id=shape.marks.vision_end,
        video_token_id=shape.marks.vision_pad,
    )
    with torch.device("meta"):
        hf = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa")
    hf.to_empty(device=device)
    torch.manual_seed(seed)
    hf.init_weights()  # weights, and the frequencies of the rotation, which no checkpoint holds
    hf.tie_weights()
    return hf


def _patcher(shape: Shape, vision: Any) -> Patcher:
    least, most = shape.pixels
    return Patcher(
        patch=vision.patch_size,
        temporal=vision.temporal_patch_size,
        merge=vision.spatial_merge_size,
        min_pixels=least,
        max_pixels=most,
    )
