"""The decoder of the Qwen-VL families over packed tokens: the stock weights, fewer and larger operations.

Stock layers launch some 35 operations each, compute queries, attention and feed-forward network of the last layer for
every token of a prefill although only the last one is looked at, and know no packed streams. They stay as the oracle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cache.batch import Batch
from ..core.errors import ModelError
from .base import Deepstack
from .int8_linear import Int8Linear
from .linear import Linear


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer: query, key and value as one matrix, gate and up as one.

    ``query_norm`` and ``key_norm`` (head_dim,) only where a family has them.
    """

    attention_norm: Tensor
    qkv: Linear | Int8Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
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


def _fuse(modules: list[nn.Linear]) -> Linear:
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
    return Linear(weight, bias)


def _layer(stock: Any) -> Layer:
    attention, mlp = stock.self_attn, stock.mlp
    query_norm, key_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    return Layer(
        attention_norm=stock.input_layernorm.weight,
        qkv=_fuse([attention.q_proj, attention.k_proj, attention.v_proj]),
        query_norm=None if query_norm is None else query_norm.weight,
        key_norm=None if key_norm is None else key_norm.weight,
        out=Linear(plain(attention.o_proj).weight, attention.o_proj.bias),
        mlp_norm=stock.post_attention_layernorm.weight,
        gate_up=_fuse([mlp.gate_proj, mlp.up_proj]),
        down=Linear(plain(mlp.down_proj).weight),
    )


class Decoder:
    """The layers of a stock model, whose own matrices become views of the fused ones: nothing is kept twice."""

    def __init__(
        self, language_model: Any, head: nn.Linear, heads: int, kv_heads: int, head_dim: int, eps: float
    ) -> None:
        self.layers = [_layer(stock) for stock in language_model.layers]
        self.head: Linear | Int8Linear = Linear(plain(head).weight, head.bias)
        self.norm = language_model.norm.weight
        self.heads, self.kv_heads, self.head_dim, self.eps = heads, kv_heads, head_dim, eps
        self.scaling = head_dim**-0.5

    def __call__(self, embeds: Tensor, batch: Batch, deepstack: Deepstack | None = None) -> Tensor:
        """Normed last hidden states (bucket, hidden) of each part's last token, of embeddings (tokens, hidden)."""
        features = () if deepstack is None else deepstack.features
        x = embeds
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            x = self._attend(number, layer, x, batch, ends=last)
            few = batch.single or last
            gate, up = layer.gate_up(self._norm(x, layer.mlp_norm), few=few).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up, few=few)
            if deepstack is not None and number < len(features) and not last:
                # Behind the last layer only ends of turns are left, and none of them is a pad.
                x[deepstack.pads] += features[number].to(x.dtype)
        return self._norm(x, self.norm)

    def _attend(self, number: int, layer: Layer, x: Tensor, batch: Batch, *, ends: bool) -> Tensor:
        qkv = layer.qkv(self._norm(x, layer.attention_norm), few=batch.single).view(
            len(x), self.heads + 2 * self.kv_heads, self.head_dim
        )
        query, key, value = torch.split(qkv, [self.heads, self.kv_heads, self.kv_heads], dim=1)
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key = self._norm(query, layer.query_norm), self._norm(key, layer.key_norm)
        batch.store(number, key, value)
        if ends:
            # Of a prefill's last layer nothing but the last token's output is looked at.
            x, query = batch.take_ends(x), batch.take_ends(query)
        query = batch.rotate(query, ends=ends)
        out = batch.attend(number, query, self.scaling, ends=ends)
        return x + layer.out(out.flatten(1), few=batch.single or ends)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.eps)
