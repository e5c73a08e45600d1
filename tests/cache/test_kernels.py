"""Triton kernels against plain attention; on a machine without a GPU through Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

CHECK = """
import torch
from streamingvlm.cache.kernels import decode_attention
from streamingvlm.cache.attention import attend

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
for heads, group, dim in ((2, 2, 64), (4, 7, 128), (1, 1, 16)):
    keys, values = torch.randn(2, 3, heads, 300, dim, device=device)
    slots, lengths = torch.tensor([2, 0, 2], device=device), torch.tensor([1, 277, 64], device=device)
    queries = torch.randn(3, heads * group, dim, device=device)
    ours = decode_attention(queries, keys, values, slots, lengths, dim**-0.5)
    plain = torch.cat([
        attend(queries[i : i + 1], keys[slot, :, :length], values[slot, :, :length], None, dim**-0.5)
        for i, (slot, length) in enumerate(zip(slots.tolist(), lengths.tolist()))
    ])
    torch.testing.assert_close(ours, plain, rtol=0, atol=2e-6)
"""


def test_split_attention_is_attention() -> None:
    # Triton decides when it is imported whether it compiles or interprets.
    interpret = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHECK], env=os.environ | interpret, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
