"""The plan of a stage: counted, not guessed, where it can be counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamingvlm import cli
from streamingvlm.train.checkpoints import mark_whole
from streamingvlm.train.plan import Plan, count
from streamingvlm.train.weights import load_weights
from training import make_stage, opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stage(tmp_path_factory.mktemp("plan"), max_steps=0, epochs=2.0)


def dry_run(file: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main(["train", str(file), "--dry-run", "--json", *arguments]) == 0
    plan: dict[str, Any] = json.loads(capsys.readouterr().out)
    return plan


def test_tokens_and_steps_are_those_of_the_run(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, chunks, collate = opened(file)
    lengths = [int(collate([chunks[i]])["attention_mask"].sum()) for i in range(len(chunks))]
    plan = dry_run(file, capsys)
    assert (plan["chunks"], plan["tokens"], plan["longest_chunk"]) == (12, 2 * sum(lengths), max(lengths))
    # 12 chunks, 4 a step, twice.
    assert (plan["steps"], plan["accumulation"]) == (6, 2)
    assert dry_run(file, capsys, "--devices", "2")["accumulation"] == 1
    assert not (file.parent / "out").exists()


@pytest.mark.parametrize("keys", [[], ["method=lora", "lora_rank=4"], ["freeze_vision=false"]])
def test_parameters_are_those_of_the_model(file: Path, keys: list[str]) -> None:
    stage, chunks, _ = opened(file, *keys)
    model = load_weights(stage)
    plan = Plan(stage, count(chunks), 1)
    assert plan.parameters["trained"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() for name, p in model.named_parameters() if "lora_" not in name)
    assert plan.parameters["all"] == every


def test_hours_say_where_they_come_from(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = dry_run(file, capsys)
    assert (unknown["hours"], unknown["hours_from"][:7]) == (None, "unknown")
    stated = dry_run(file, capsys, "tflops=0.001")
    assert stated["hours"] == pytest.approx(stated["flops"] / 1e9 / 3600)
    assert stated["hours_from"].startswith("stated: 0.001 TFLOP/s")
    output = file.parent / "measured"
    for step, rate in ((2, 50), (5, 200), (6, 1)):
        folder = output / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        log = [{"loss": 1.0, "train_tokens_per_second": rate}, {"eval_loss": 1.0}]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": log}))
        if step < 6:  # the newest is half written
            mark_whole(output, step, devices=2, device="cpu")
    measured = dry_run(file, capsys, f"output={output}", "--devices", "2")
    assert measured["hours"] == pytest.approx(measured["tokens"] / 100 / 2 / 3600)
    assert measured["hours_from"].startswith("measured: 100 tokens/s a device (cpu")


def test_bytes_follow_what_is_trained_and_sharded(file: Path) -> None:
    def memory(devices: int, *keys: str) -> dict[str, int]:
        stage, chunks, _ = opened(file, *keys)
        return Plan(stage, count(chunks), devices).memory

    full, lora = memory(1), memory(1, "method=lora", "lora_rank=4")
    assert lora["optimizer"] < full["optimizer"] / 5
    assert memory(2, "fsdp=true")["optimizer"] == full["optimizer"] // 2
    assert memory(1, "gradient_checkpointing=false")["activations"] > full["activations"]
    stage, chunks, _ = opened(file)
    assert full["optimizer"] == 8 * Plan(stage, count(chunks), 1).parameters["trained"]


def test_many_chunks_are_sampled(file: Path) -> None:
    _, chunks, _ = opened(file)
    few, every = count(chunks, 4), count(chunks)
    assert (few.counted, few.chunks, every.counted) == (4, 12, 12)
    assert few.mean == pytest.approx(every.mean, rel=0.1)


def test_no_weight_is_read(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = file.parent / "base" / "model.safetensors"
    aside = weights.rename(weights.with_suffix(".aside"))
    try:
        assert dry_run(file, capsys)["chunks"] == 12
    finally:
        aside.rename(weights)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--devices", "0"], "--devices must be 1 or more"),
        (["--devices", "3"], "cannot be split over 3 processes"),
        (["fsdp=true"], "fsdp = true needs several devices"),
        (["data=[]"], "data names no annotation files"),
        (["min_words=99"], "no chunk to train on"),
        (["model=nowhere"], "no checkpoint folder nowhere"),
        (["epoch=1"], "unknown key 'epoch'; did you mean epochs?"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    file: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", str(file), "--dry-run", *arguments]) == 2
    assert says in capsys.readouterr().err.strip().splitlines()[-1]


def test_what_was_left_out_is_reported(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = file.parent / "report.json"
    dry_run(file, capsys, "--report", str(target))
    assert json.loads(target.read_text())["skipped"]["too few words"]["count"] == 2
