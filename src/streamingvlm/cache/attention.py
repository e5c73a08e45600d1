"""Attention over one stream's rows, and the sizes that matrix products are padded to."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

CosSin = tuple[Tensor, Tensor]


#: Numbers of rows that matrix products are padded to. On CPUs a product of 1 to 3 rows differs in the last bit.
BUCKETS = (4, 8, 16, 32, 64, 128)


#: Rows that larger products (a prefill's, a tower's first) have at least, for the same reason.
MIN_ROWS = 16


def bucket(count: int) -> int:
    """The number of rows that ``count`` rows are padded to."""
    return next(size for size in (*BUCKETS, count) if size >= count)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Queries (n, query heads, d) over rows (heads, m, d), the last n of which are theirs; same shape.

    ``mask``: (n, m) bool, or None for plain causal attention (n = m) and for one query, which sees all rows.
    """
    heads, _, dim = keys.shape
    if len(queries) == 1:
        # The query heads that share a key head are rows of one product: nothing is repeated and nothing is masked.
        out = F.scaled_dot_product_attention(queries.view(1, heads, -1, dim), keys[None], values[None], scale=scaling)
        return out.reshape(queries.shape)
    out = F.scaled_dot_product_attention(
        queries.transpose(0, 1)[None],
        keys[None],
        values[None],
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=queries.shape[1] != heads,
    )
    return out[0].transpose(0, 1)
