"""Two processes that share one model: FSDP on CPU (gloo), started by torchrun."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from streamingvlm.models.load import load_model
from support.training import check_positions, launch, losses, make_stage, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fsdp")


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return make_stage(folder, max_steps=4)


def run(file: Path, *arguments: str) -> None:
    _, errors = (process := launch(file, "fsdp=true", *arguments, processes=2)).communicate(timeout=280)
    assert process.returncode == 0, errors


@pytest.mark.slow
def test_two_processes_learn_what_one_does(file: Path, folder: Path) -> None:
    one, two = folder / "one", folder / "two"
    train(file, f"output={one}")
    run(file, f"output={two}", "device_batch=1")  # two accumulated batches
    # Each process kept a shard: with plain data parallelism there would be one file of weights.
    assert len(list((two / "checkpoint-4" / "pytorch_model_fsdp_0").glob("*.distcp"))) == 2
    assert [row[:2] for row in losses(two)] == [row[:2] for row in losses(one)]
    for ours, theirs in zip(losses(two), losses(one), strict=True):
        assert ours[2] == pytest.approx(theirs[2], rel=1e-5)
    before, after = (load_file(output / "model" / "model.safetensors") for output in (one, two))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, rtol=1e-3, atol=1e-5)
    assert load_model(two / "model").defaults.instruction == "Watch."


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_sharded_in_bf16_and_resumed(file: Path, folder: Path, method: str) -> None:
    output = folder / f"{method}-bf16"
    arguments = [f"output={output}", "bf16=true", f"method={method}", "eval_steps=4"]
    run(file, *arguments)
    whole = losses(output)
    for rank in range(2):
        # FSDP would cast them with all other inputs.
        check_positions(file, torch.load(output / f"positions-{rank}.pt"))
    shutil.rmtree(output / "checkpoint-4")
    run(file, *arguments, "--resume")
    assert losses(output) == whole
    if method == "full":
        assert str(load_model(output / "model", dtype="bf16").kv_shape.dtype) == "torch.bfloat16"
    else:
        assert (output / "adapter" / "adapter_model.safetensors").is_file()
