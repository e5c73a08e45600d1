"""A vision tower of transformers with fewer operations, and without a wait for the device.

Some of its modules are replaced by ones of the same weights: first layer, norms, attention. What a tower computes from
the sizes of its pictures (positions, ends of windows, order of patches) it computes on the host anew for every call; it
takes the same ready-made by keyword, so it is made once for each size.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import vision_utils

from ..kernels.plain import PlainKernels, rotate
from .linear import Linear, LinearModule
from .vision_attention import attend_windows

#: Sizes of pictures, alone and of several streams together, whose tensors are kept.
SIZES = 64

Grids = tuple[tuple[int, int, int], ...]


class PatchProjection(nn.Module):
    """A tower's first layer as one product: its convolution steps by its own size, so every patch is read once.

    Libraries' convolutions do not see that; on a CPU they take four times as long. The parameters stay the layer's.
    """

    def __init__(self, convolution: Any, kernels: PlainKernels) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.bias = convolution.bias
        self._matrix = Linear(self.weight.flatten(1), self.bias, kernels)

    def forward(self, patches: Tensor) -> Tensor:
        """Embeddings (n, width) of patches (n, channels, temporal, patch, patch)."""
        return self._matrix(patches.flatten(1))


class TowerNorm(nn.Module):
    """A root mean square norm in one operation in place of eight. The parameter stays the layer's."""

    def __init__(self, norm: Any, kernels: PlainKernels) -> None:
        super().__init__()
        self.weight = norm.weight
        self._eps = norm.variance_epsilon
        self._kernels = kernels

    def forward(self, states: Tensor) -> Tensor:
        """States (n, width), normed."""
        return self._kernels.add_norm(states, None, self.weight, self._eps)[1]


class TowerAttention(nn.Module):
    """Attention of one block: queries and keys rotated as one, windows in one call. The layers stay the block's."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self._heads, self._scaling = attention.num_heads, attention.scaling

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        max_seqlen: int,
        **_: Any,
    ) -> Tensor:
        """Of states (n, width) in windows that end at ``cu_seqlens`` (windows + 1,), as transformers calls it."""
        count = len(hidden_states)
        qkv = self.qkv(hidden_states).view(count, 3, self._heads, -1)
        # In float32, as transformers does it.
        cos, sin = (part.float()[:, None, None] for part in position_embeddings)
        query, key = rotate(qkv[:, :2].float(), cos, sin).to(qkv.dtype).unbind(1)
        out = attend_windows(query, key, qkv[:, 2], cu_seqlens, max_seqlen, self._scaling)
        attended: Tensor = self.proj(out.reshape(count, -1))
        return attended


class Tower:
    """The tower ``visual`` of a transformers model, whose modules it replaces in place."""

    def __init__(self, visual: Any, kernels: PlainKernels) -> None:
        self._visual = visual
        visual.patch_embed.proj = PatchProjection(visual.patch_embed.proj, kernels)
        for block in visual.blocks:
            block.attn = TowerAttention(block.attn)
        for name, module in list(visual.named_modules()):
            if hasattr(module, "variance_epsilon"):
                visual.set_submodule(name, TowerNorm(module, kernels))
            elif type(module) is nn.Linear:
                visual.set_submodule(name, LinearModule(module, kernels))
        self._inputs = lru_cache(SIZES)(self._make_inputs)

    def __call__(self, pixels: Tensor, grids: Grids) -> Any:
        """What transformers' tower gives for patches (n, ...) of pictures of ``grids`` patches (t, h, w)."""
        # The tensor of the grids stays on the host: the tower looks at nothing in it.
        return self._visual(pixels, grid_thw=torch.tensor(grids), **self._inputs(grids, pixels.device))

    def _make_inputs(self, grids: Grids, device: torch.device) -> dict[str, Any]:
        """What the tower would compute from ``grids``, by the names under which it takes it."""
        visual, sizes = self._visual, torch.tensor(grids)
        merge = visual.config.spatial_merge_size
        ends = vision_utils.get_vision_cu_seqlens(sizes)
        found = {
            "position_ids": vision_utils.get_vision_position_ids(sizes, merge),
            "cu_seqlens": ends,
            "max_seqlen": _longest(ends),
        }
        if hasattr(visual, "window_size"):
            index, ends = vision_utils.get_vision_window_index(sizes, merge, visual.window_size, visual.patch_size)
            found |= {"window_index": index, "cu_window_seqlens": ends, "max_window_seqlen": _longest(ends)}
        if hasattr(visual, "num_grid_per_side"):
            taps, weights = vision_utils.get_vision_interpolation_indices_and_weights(
                sizes,
                num_grid_per_side=visual.num_grid_per_side,
                mode=visual.interpolation_mode,
                align_corners=visual.interpolation_align_corners,
                spatial_merge_size=merge,
            )
            found |= {"interp_indices": taps, "interp_weights": weights}
        return {name: part.to(device) if isinstance(part, Tensor) else part for name, part in found.items()}


def _longest(ends: Tensor) -> int:
    return int((ends[1:] - ends[:-1]).max())
