"""Triton kernels against plain torch in float64; on a machine without a GPU in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

CASES = (
    "add_norm",
    "silu_mul",
    "rotate_store",
    "move_rows",
    "same_rotation",
    "decode_qwen",
    "decode_small",
    "decode_merges_many_pieces",
    "prefill_shapes",
    "prefill_in_tiles",
    "prefill_rows_first",
    "penalize",
    "best",
    "pick",
)


@pytest.fixture(scope="module")
def faults() -> dict[str, str]:
    """What went wrong in each case. They share a process, since Triton decides at its import whether it interprets."""
    interpret = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("triton_cases.py"))],
        env=os.environ | interpret, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == set(CASES)
    return found


@pytest.mark.parametrize("case", CASES)
def test_kernel(case: str, faults: dict[str, str]) -> None:
    assert not faults[case], faults[case]
