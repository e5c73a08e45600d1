"""Tests of a GPU can be called by file where there is no video library; those of its paths run on a CPU too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ["tests/engine/test_gpu.py", "tests/engine/test_gpu_paths.py", "tests/kernels"]
#: What a machine with a GPU need not have. None: it cannot be imported.
MISSING = """
import sys
missing = ("av", "ale_py", "torchao", "accelerate", "peft", "matplotlib")
sys.modules.update(dict.fromkeys(missing))
"""
TESTS = """
import pytest
sys.exit(pytest.main(["-p", "no:cacheprovider", "-n", "0", *sys.argv[1:]]))
"""
SCRIPTS = """
import pathlib, runpy
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    try:
        runpy.run_path(f"scripts/gpu/{name}.py", run_name="__main__")
    except SystemExit as end:
        print(name, end.code)
"""


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MISSING + code, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_they_are_found_without_a_video_library() -> None:
    done = run(TESTS, "--collect-only", *FILES)
    assert done.returncode == 0, done.stdout
    assert "test_fixed_shapes_say_what_one_by_one_says" in done.stdout
    assert "test_cuda_equals_cpu" in done.stdout


def test_scripts_start_without_a_video_library() -> None:
    names = ["bundled", "day", "figures", "probe", "stages"]
    done = run(SCRIPTS, *names)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.endswith(" 0")] == [f"{name} 0" for name in names]


@pytest.mark.slow
def test_they_are_right_themselves() -> None:
    done = run(TESTS, "tests/engine/test_gpu_paths.py", STREAMINGVLM_GPU_PATHS="cpu")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
