"""Triton kernels compile for an H100, also where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

KERNELS = {
    "_add_norm",
    "_silu_mul",
    "_rotate_store",
    "_move_rows",
    "_decode_pieces",
    "_decode_merge",
    "_prefill",
    "_penalize",
    "_pick",
}
#: Query heads for each key head x head_dim. Float32 takes longest to compile.
SHAPES = {
    "bfloat16": ("1x128", "2x64", "3x32", "4x16", "5x128", "6x64", "7x128", "8x128"),
    "float16": ("7x128", "1x16"),
    "float32": ("7x128", "8x16"),
}


@pytest.mark.parametrize("dtype", SHAPES)
def test_everything_compiles_for_hopper(dtype: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("triton_compile.py")), dtype, *SHAPES[dtype]],
        env=os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout.splitlines()[-1])
    assert {one["kernel"] for one in compiled} == KERNELS
    for one in compiled:
        assert one["target"] == "sm_90a", one
        assert one["shared"] <= 227 * 1024, one
        assert not one["fp64"], f"{one['kernel']} computes in float64"
    tensor_cores = {one["kernel"] for one in compiled if one["tensor_cores"]}
    assert tensor_cores == (set() if dtype == "float32" else {"_decode_pieces", "_prefill"})
