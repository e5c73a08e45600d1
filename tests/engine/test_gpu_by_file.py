"""Tests of a GPU can be called by file where there is no video library; those of its paths run on a CPU too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ["tests/engine/test_gpu.py", "tests/engine/test_gpu_paths.py", "tests/kernels"]
WITHOUT = """
import sys
import pytest
# None: it cannot be imported.
sys.modules.update(dict.fromkeys(("av", "ale_py", "torchao")))
sys.exit(pytest.main(["-p", "no:cacheprovider", "-n", "0", *sys.argv[1:]]))
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_they_are_found_without_a_video_library() -> None:
    done = run("--collect-only", *FILES)
    assert done.returncode == 0, done.stdout
    assert "test_fixed_shapes_say_what_one_by_one_says" in done.stdout


@pytest.mark.slow
def test_they_are_right_themselves() -> None:
    done = run("tests/engine/test_gpu_paths.py", STREAMINGVLM_GPU_PATHS="cpu")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
