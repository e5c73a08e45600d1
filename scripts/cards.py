"""Which model fits which card: bytes counted from the shapes, nothing is run or allocated.

    python scripts/cards.py

A card must hold the weights (decoder and head in the given format, the rest in bf16), the caches of the streams (16 s
of video at 2 frames a second of 1008 x 588, 16 s of turns, 512 + 512 ids of old words) and WORKSPACE for activations,
the tower at work and the driver.
"""

from __future__ import annotations

from typing import Any

import torch

from streamingvlm.bench.shapes import SHAPES, build, shape_named
from streamingvlm.engine.engine import Engine

CARDS = (8, 12, 16, 24, 80)
WORKSPACE = 1.5
#: Bytes per weight with its scales: int8 and fp8 one scale per output channel, int4 two numbers per group of 128.
FORMATS = {"bf16": 2.0, "int8 or fp8": 1.0, "int4": 0.5 + 4 / 128}
GB = 1e9


def sizes(name: str) -> tuple[float, float, float]:
    """Matrices that can be quantized, all other parameters, and bytes of one stream's cache."""
    model: Any = build(name, device=torch.device("meta"), dtype=torch.bfloat16)
    layers, head = model.decoder.layers, model.hf.lm_head
    small = sum(getattr(layer, part).weight.numel() for layer in layers for part in ("qkv", "out", "gate_up", "down"))
    if head.weight is not model.hf.model.language_model.embed_tokens.weight:
        small += head.weight.numel()
    width, height = shape_named(name).size
    with Engine(model).open(max_pixels=width * height) as session:
        return small, model.parameters - small, session.bytes_per_stream


def main() -> None:
    print(f"| model | weights | GB | GB per stream | {' | '.join(f'{card} GB' for card in CARDS)} |")
    print("|---|---|---|---|" + "---|" * len(CARDS))
    for name in SHAPES:
        if name in ("arcade", "middle", "tiny"):
            continue
        small, rest, stream = sizes(name)
        for label, width in FORMATS.items():
            weights = (small * width + rest * 2) / GB
            fit = [max(int((card - WORKSPACE - weights) / (stream / GB)), 0) for card in CARDS]
            cells = " | ".join(str(count) if count else "-" for count in fit)
            print(f"| {name} | {label} | {weights:.1f} | {stream / GB:.2f} | {cells} |")


if __name__ == "__main__":
    main()
