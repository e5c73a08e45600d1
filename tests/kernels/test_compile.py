"""Triton kernels compile for an H100, also where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

Compiled = tuple[str, list[dict[str, Any]]]

#: How often each kernel is compiled for a dtype (with and without norms of heads, with and without a sum), and anew for
#: what: a shape, a head_dim, nothing.
KERNELS = {
    "_add_norm": (2, ""),
    "_silu_mul": (1, ""),
    "_rotate_store": (2, "shape"),
    "_move_rows": (1, "dim"),
    "_decode_pieces": (2, "shape"),
    "_decode_merge": (1, "shape"),
    "_prefill": (1, "shape"),
    "_penalize": (1, ""),
    "_best": (3, ""),
    "_pick": (1, ""),
}
#: Query heads for each key head x head_dim. Float32 takes longest to compile.
SHAPES = {
    "bfloat16": ("1x128", "2x64", "3x32", "4x16", "5x128", "6x64", "7x128", "8x128"),
    "float16": ("7x128",),
    "float32": ("7x128", "8x16"),
}


@pytest.fixture(scope="module", params=SHAPES)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """A dtype, and what was compiled for it."""
    cache = {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("triton_compile.py")), request.param, *SHAPES[request.param]],
        env=os.environ | cache, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return request.param, json.loads(done.stdout.splitlines()[-1])


def test_everything_compiles_for_hopper(compiled: Compiled) -> None:
    dtype, kernels = compiled
    assert {one["kernel"] for one in kernels} == KERNELS.keys()
    for one in kernels:
        assert one["target"] == "sm_90a", one
        assert one["shared"] <= 227 * 1024, one
        assert not one["fp64"], f"{one['kernel']} computes in float64"
    tensor_cores = {one["kernel"] for one in kernels if one["tensor_cores"]}
    assert tensor_cores == (set() if dtype == "float32" else {"_decode_pieces", "_prefill"})


def test_batches_and_lengths_compile_nothing_anew(compiled: Compiled) -> None:
    dtype, kernels = compiled
    shapes = SHAPES[dtype]
    anew = {"": 1, "dim": len({shape.split("x")[1] for shape in shapes}), "shape": len(shapes)}
    wanted = {name: count * anew[what] for name, (count, what) in KERNELS.items()}
    assert Counter(one["kernel"] for one in kernels) == wanted


def test_rows_are_written_after_a_block_was_read(compiled: Compiled) -> None:
    """Warps run apart: what moves rows in place reads a block, waits for all of them, and writes; values, then keys."""
    _, kernels = compiled
    for one in kernels:
        if one["kernel"] == "_move_rows":
            assert one["order"] == ["ld.global", "bar.sync", "st.global"] * 2
