"""Attention of the vision towers: all windows of all frames of all streams in one call.

The stock path that is not flash attention splits the patches into a Python list per block, some 1,500 small calls for
one temporal patch at 720p. Towers hand the ends of the windows to any attention function with "flash" in its name.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

WINDOWS = "streamingvlm_flash_windows"


def _attention(
    module: Any,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    *,
    scaling: float,
    cu_seq_lens_q: Tensor,
    max_length_q: int | Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one block of a tower, in the form that transformers calls: (1, heads, patches, head_dim)."""
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    return attend_windows(query, key, value, cu_seq_lens_q, int(max_length_q), scaling)[None], None


AttentionInterface.register(WINDOWS, _attention)


def attend_windows(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, scaling: float) -> Tensor:
    """Attention (n, heads, d) inside windows of rows; ``ends`` (windows + 1,): 0 and where each window ends.

    ``longest``: rows of the longest window. On a GPU in half precision nothing waits for the device.
    """
    if query.device.type in ("cuda", "meta") and query.dtype != torch.float32:
        out: Tensor = torch.ops.aten._flash_attention_forward(
            query, key, value, ends.int(), ends.int(), longest, longest, 0.0, False, False, scale=scaling
        )[0]
        return out
    windows = len(ends) - 1
    if windows * longest == len(query):  # of one length, one behind the other
        q, k, v = (states.view(windows, longest, *states.shape[1:]).transpose(1, 2) for states in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v, scale=scaling).transpose(1, 2).flatten(0, 1)
    return windowed(query, key, value, ends, scaling)


def windowed(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, scaling: float) -> Tensor:
    """Attention (n, heads, d) inside windows of rows; ``ends`` (windows + 1,): 0 and where each window ends.

    Windows of one length run as one call, which is nearly all of them: only those at an edge are smaller.
    """
    first = ends[:-1]
    lengths = (ends[1:] - first).tolist()
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    for length in sorted(set(lengths)):
        which = torch.tensor([i for i, other in enumerate(lengths) if other == length], device=ends.device)
        rows = (first[which][:, None] + torch.arange(length, device=ends.device)).flatten()
        q, k, v = (states[rows].view(-1, length, *states.shape[1:]).transpose(1, 2) for states in (query, key, value))
        mixed = F.scaled_dot_product_attention(q, k, v, scale=scaling)
        out[rows] = mixed.transpose(1, 2).flatten(0, 1)
    return out
