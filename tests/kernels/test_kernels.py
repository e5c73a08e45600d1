"""Every set of kernels does what plain torch does, and which one a model gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from streamingvlm.core.errors import OptionError
from streamingvlm.kernels import choose
from streamingvlm.kernels.check import wrong_parts
from streamingvlm.kernels.choose import choose_kernels
from streamingvlm.kernels.cpu import CpuKernels
from streamingvlm.kernels.native import Native, Unavailable, load_native
from streamingvlm.kernels.plain import PlainKernels

CPU = torch.device("cpu")
TRITON = """
import torch
from streamingvlm.kernels.check import wrong_parts
from streamingvlm.kernels.cuda import CudaKernels
print(wrong_parts(CudaKernels(flash=False), torch.device("cpu"), torch.float32))
"""
ENGINE = """
import torch
from streamingvlm.bench.setup import Synthetic
from streamingvlm.bench.shapes import build
from streamingvlm.engine.engine import Engine
from streamingvlm.kernels.cuda import CudaKernels
from streamingvlm.kernels.plain import PlainKernels

frames = Synthetic((84, 56), 2.0, 1.0)

def said(kernels, capture):
    model = build("tiny", device=torch.device("cpu"), dtype=torch.float32, kernels=kernels)
    engine = Engine(model, slots=2, capture=capture)
    options = {"policy": "streaming:vision=1,turns=1,sink=8,text=8", "max_new_tokens": 3, "temperature": 0.7}
    sessions = [engine.open(context="context " * number, **options) for number in range(2)]
    return [session.step(frames.chunk(second)).tokens for second in range(3) for session in sessions]

assert said(CudaKernels(flash=False), "static") == said(PlainKernels(), "none")
"""


def native() -> Native:
    found = load_native()
    if isinstance(found, Unavailable):
        pytest.skip(found.reason)
    return found


def test_native_kernels_do_what_plain_torch_does() -> None:
    assert wrong_parts(CpuKernels(native()), CPU, torch.float32) == []


def test_triton_kernels_do_what_plain_torch_does() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", TRITON], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.slow
def test_an_engine_on_triton_kernels_says_the_same() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", ENGINE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_kernel_that_is_wrong_is_named() -> None:
    class Wrong(PlainKernels):
        def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
            return super().silu_mul(gate_up) * 1.01

    assert [one.split(" is off")[0] for one in wrong_parts(Wrong(), CPU, torch.float32)] == [
        "elementwise of 14 heads of 128",
        "elementwise of 4 heads of 64",
    ]


def test_the_switch() -> None:
    assert type(choose_kernels(CPU, torch.float32, "plain")) is PlainKernels
    with pytest.raises(OptionError, match="auto, plain"):
        choose_kernels(CPU, torch.float32, "fast")


def test_half_precision_on_a_cpu_is_plain_and_says_so() -> None:
    kernels = choose_kernels(CPU, torch.bfloat16)
    assert (kernels.name, kernels.reason) == ("plain", "the native kernels are for float32")


def test_without_a_compiler_kernels_are_plain_and_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(choose, "load_native", lambda: Unavailable(f"no compiler in {tmp_path}"))
    kernels = choose_kernels(CPU, torch.float32)
    assert (kernels.name, kernels.reason) == ("plain", f"no compiler in {tmp_path}")
