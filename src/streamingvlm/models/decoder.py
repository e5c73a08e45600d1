"""The decoder of the Qwen-VL families over packed tokens: the stock weights, fewer and larger operations.

Stock layers launch some 35 operations each, compute queries, attention and feed-forward network of the last layer for
every token of a prefill although only the last one is looked at, and know no packed streams. They stay as the oracle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..cache.batch import Batch
from ..core.errors import ModelError
from ..kernels.plain import Heads, PlainKernels
from .base import Deepstack
from .int8_linear import Int8Linear
from .linear import Linear


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer: query, key and value as one matrix, gate and up as one."""

    attention_norm: Tensor
    qkv: Linear | Int8Linear
    heads: Heads
    out: Linear | Int8Linear
    mlp_norm: Tensor
    gate_up: Linear | Int8Linear
    down: Linear | Int8Linear


def plain(module: nn.Module) -> nn.Linear:
    """A layer that is nothing but a float matrix and its bias. :class:`ModelError` for any other.

    What adapters and quantizers put in a linear layer's place has a ``weight`` too, which is not what it computes.
    """
    weight = getattr(module, "weight", None)
    if type(module) is not nn.Linear or type(weight) is not nn.Parameter or not weight.is_floating_point():
        kind = f"{type(module).__name__} of {getattr(weight, 'dtype', 'no weight')}"
        raise ModelError(f"a layer of the decoder is a {kind}, not a plain matrix of floats; merge or dequantize it")
    return module


def _fuse(modules: list[nn.Linear], kernels: PlainKernels) -> Linear:
    """Weights and biases of linear layers with one input as one matrix; the modules keep them as views of it."""
    modules = [plain(module) for module in modules]
    weight = torch.cat([module.weight.detach() for module in modules])
    bias = None if modules[0].bias is None else torch.cat([module.bias.detach() for module in modules])
    first = 0
    for module in modules:
        last = first + module.out_features
        module.weight = nn.Parameter(weight[first:last], requires_grad=False)
        if bias is not None:
            module.bias = nn.Parameter(bias[first:last], requires_grad=False)
        first = last
    return Linear(weight, bias, kernels)


def _layer(stock: Any, heads: Heads, kernels: PlainKernels) -> Layer:
    attention, mlp = stock.self_attn, stock.mlp
    norms = {"query_norm": getattr(attention, "q_norm", None), "key_norm": getattr(attention, "k_norm", None)}
    return Layer(
        attention_norm=stock.input_layernorm.weight,
        qkv=_fuse([attention.q_proj, attention.k_proj, attention.v_proj], kernels),
        heads=replace(heads, **{name: norm.weight for name, norm in norms.items() if norm is not None}),
        out=Linear(plain(attention.o_proj).weight, attention.o_proj.bias, kernels),
        mlp_norm=stock.post_attention_layernorm.weight,
        gate_up=_fuse([mlp.gate_proj, mlp.up_proj], kernels),
        down=Linear(plain(mlp.down_proj).weight, None, kernels),
    )


class Decoder:
    """The layers of a stock model, whose own matrices become views of the fused ones: nothing is kept twice.

    ``heads``: how the product of a layer falls into heads, but for the norms; ``kernels``: what multiplies.
    """

    def __init__(self, language_model: Any, head: nn.Linear, heads: Heads, kernels: PlainKernels) -> None:
        self.layers = [_layer(stock, heads, kernels) for stock in language_model.layers]
        self.head: Linear | Int8Linear = Linear(plain(head).weight, head.bias, kernels)
        self.norm = language_model.norm.weight
        self.eps = heads.eps

    def __call__(self, embeds: Tensor, batch: Batch, deepstack: Deepstack | None = None) -> Tensor:
        """Normed last hidden states (bucket, hidden) of each segment's last token, of embeddings (tokens, hidden)."""
        features = () if deepstack is None else deepstack.features
        add_norm, few = batch.kernels.add_norm, batch.single
        x, normed = add_norm(embeds, None, self.layers[0].attention_norm, self.eps)
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            out = batch.attention(number, layer.qkv(normed, few=few), layer.heads, ends=last)
            if last:
                # Of a prefill's last layer nothing but the last token's output is looked at.
                x, few = batch.take_ends(x), True
            x, normed = add_norm(x, layer.out(out, few=few), layer.mlp_norm, self.eps)
            out = layer.down(batch.kernels.silu_mul(layer.gate_up(normed, few=few)), few=few)
            after = self.norm if last else self.layers[number + 1].attention_norm
            if deepstack is None or last or number >= len(features):
                x, normed = add_norm(x, out, after, self.eps)
                continue
            # Behind the last layer only ends of turns are left, and none of them is a pad.
            x = x + out
            # By numbers: a device would have to tell how many a mask has.
            x[deepstack.pads] += features[number].to(x.dtype)
            x, normed = add_norm(x, None, after, self.eps)
        return normed
