"""The vision tower over many temporal patches at once: the tower's own modules, batched.

The stock forward pass runs one attention call per temporal patch; all patches here have the same grid, so one call
does for all. A test compares both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import rotate_half

from .shape import patcher

#: Height and width of a resized frame, and its grid in patches and in merged tokens.
SIZE = patcher().size(420, 320)
PATCHES = (SIZE[0] // 14, SIZE[1] // 14)
GRID = (1, PATCHES[0] // 2, PATCHES[1] // 2)
TOKENS = GRID[1] * GRID[2]


def resize(frames: Tensor) -> Tensor:
    """Frames (n, height, width, 3) uint8 to (n, 3, *SIZE) uint8, by the patcher's own resize."""
    frames = frames.permute(0, 3, 1, 2).contiguous()
    return F.interpolate(frames, SIZE, mode="bicubic", antialias=True)


def patchify(frames: Tensor) -> Tensor:
    """Seconds (b, 2, 3, *SIZE) uint8 to normalised patches (b, patches, 3 * 2 * 14 * 14) float32."""
    count = frames.shape[0]
    own = patcher()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (own.mean, own.std))
    flat = (frames.flatten(0, 1).float() - mean) / std
    return own.patchify(flat).pixels.view(count, PATCHES[0] * PATCHES[1], -1)


def encode(tower: Any, patches: Tensor) -> Tensor:
    """Embeddings (b, TOKENS, hidden) of patches (b, n, dim): the stock tower's numbers, batched."""
    batch, count, _ = patches.shape
    proj = tower.patch_embed.proj
    # The convolution's kernel is as large as its input, so it is a matrix product.
    x = F.linear(patches, proj.weight.flatten(1))
    cos, sin = _rotation(tower, x)
    for block in tower.blocks:
        x = x + _attention(block.attn, block.norm1(x), cos, sin)
        x = x + block.mlp(block.norm2(x))
    merged: Tensor = tower.merger(x.reshape(batch * count, -1))
    return merged.view(batch, TOKENS, -1)


def _attention(attn: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    batch, count, _ = x.shape
    qkv = attn.qkv(x).view(batch, count, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    query, key = (part * cos + rotate_half(part) * sin for part in (query, key))
    # On a CPU the backward pass of the fused kernel takes longer than all else together at 120 ids of 32 dimensions.
    scores = (query * attn.scaling).to(value.dtype) @ key.to(value.dtype).transpose(-1, -2)
    out = scores.softmax(dim=-1).to(value.dtype) @ value
    mixed: Tensor = attn.proj(out.transpose(1, 2).reshape(batch, count, -1))
    return mixed


def _rotation(tower: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine (n, head_dim) of a frame's patches, in the order in which the patcher lists them."""
    rows, columns = (
        axis.reshape(GRID[1], 2, GRID[2], 2)
        for axis in torch.meshgrid(torch.arange(PATCHES[0]), torch.arange(PATCHES[1]), indexing="ij")
    )
    places = torch.stack([axis.permute(0, 2, 1, 3).flatten() for axis in (rows, columns)], dim=-1)
    cos, sin = tower.rotary_pos_emb(x, places)
    return cos.to(x.dtype), sin.to(x.dtype)
