"""The plan of a stage: counted, not guessed, where it can be counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from streamingvlm import cli
from streamingvlm.bench.shapes import shape_named
from streamingvlm.data.videos import Clip, Header
from streamingvlm.train.checkpoints import mark_whole
from streamingvlm.train.collate import unpack
from streamingvlm.train.config import TrainConfig
from streamingvlm.train.examples import Encoding, TrainingExample
from streamingvlm.train.plan import Lengths, ResourceEstimate, count
from streamingvlm.train.weights import load_weights
from support import tiny
from support.training import make_stage, opened


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
    plan = ResourceEstimate(stage, count(chunks), 1)
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
        return ResourceEstimate(stage, count(chunks), devices).memory

    full, lora = memory(1), memory(1, "method=lora", "lora_rank=4")
    assert lora["optimizer"] < full["optimizer"] / 5
    assert memory(2, "fsdp=true")["optimizer"] == full["optimizer"] // 2
    assert memory(1, "gradient_checkpointing=false")["activations"] > full["activations"]
    stage, chunks, _ = opened(file)
    assert full["optimizer"] == 8 * ResourceEstimate(stage, count(chunks), 1).parameters["trained"]


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("keys", [("device_batch=1",), ("device_batch=2", "fps=2.5"), ("clip_pixels=9408",)])
def test_patches_and_learnt_rows_are_those_of_a_batch(tmp_path: Path, family: str, keys: tuple[str, ...]) -> None:
    stage, chunks, collate = opened(make_stage(tmp_path, family), *keys)
    plan = ResourceEstimate(stage, count(chunks), 1)
    batch = [chunks[i] for i in range(stage.device_batch)]
    sent = collate.pack(batch)
    assert plan.memory["patches"] == sent["patches"].nbytes + unpack(sent)["pixel_values_videos"].nbytes
    # Two batches that each worker holds ready; pictures are nearly all of them.
    assert replace_workers(plan, 3).shared_memory == 3 * 2 * sent["patches"].nbytes
    rows = [int((collate([chunk])["labels"] != -100).sum()) for chunk in chunks]
    seen = [int((collate([chunk])["input_ids"] == chunk.encoding.grammar.marks.vision_pad).sum()) for chunk in chunks]
    assert (plan.lengths.predicted, plan.lengths.most_seen) == (max(rows), max(seen))
    assert plan.lengths.seen == pytest.approx(sum(seen) / len(seen))


def replace_workers(plan: ResourceEstimate, workers: int) -> ResourceEstimate:
    return ResourceEstimate(replace(plan.stage, workers=workers), plan.lengths, 1)


def published(folder: Path, name: str, **keys: Any) -> ResourceEstimate:
    """The plan for a published shape: chunks of 24 s of 720p."""
    shape = shape_named(name)
    config = AutoConfig.for_model(
        shape.family,
        text_config=dict(shape.text),
        vision_config=dict(shape.vision),
        tie_word_embeddings=shape.tied,
    )
    config.save_pretrained(folder)
    lengths = Lengths(
        chunks=525_000, counted=1, mean=18_800, longest=18_800, squares=18_800**2, seen=17_280, most_seen=17_280,
        predicted=300, seconds=525_000 * 24,
    )  # fmt: skip
    return ResourceEstimate(TrainConfig(model=str(folder), **keys), lengths, 8 if keys.get("fsdp") else 1)


def test_what_eight_devices_gather_is_in_the_plan(tmp_path: Path) -> None:
    plan = published(tmp_path, "qwen2.5-vl-7b", fsdp=True)
    memory = plan.memory
    assert plan.parameters["all"] == 8_292_166_656
    embedding = 152_064 * 3584
    # Embedding and head stay gathered, and their gradient is whole in bf16 and in float32.
    assert memory["communication"] > (2 + 2 + 4) * 2 * embedding
    assert memory["communication"] == pytest.approx(9.6e9, rel=0.03)
    assert memory["logits"] == 300 * 152_064 * 14
    # 24 s of 720 tokens, four patches each, in float32.
    assert memory["patches"] == 17_280 * 4 * 1176 * 5
    assert 32e9 < sum(memory.values()) < 36e9
    shown = "\n".join(plan.lines())
    assert "communication 9.7 GB" in shown
    assert "without the tower's activations" in shown
    assert plan.to_dict()["shared_memory_per_device"] == 2 * 2 * 17_280 * 4 * 1176
    frozen = published(tmp_path, "qwen2.5-vl-7b", fsdp=True, method="lora")
    assert frozen.memory["communication"] < 0.4 * memory["communication"], "no gradient of what is not trained"


def test_adapters_copy_what_they_read(tmp_path: Path) -> None:
    plan = published(tmp_path, "qwen2.5-vl-3b", method="lora")
    some = published(tmp_path, "qwen2.5-vl-3b", method="lora", lora_targets=("q_proj",))
    reads = 6 * 2048 + 11_008
    assert plan.memory["activations"] - some.memory["activations"] == 18_800 * 4 * (reads - 2048)
    assert plan.memory["communication"] == 0


def test_one_device_without_sharding_keeps_float32(tmp_path: Path) -> None:
    one = published(tmp_path, "qwen2.5-vl-3b")
    exact = published(tmp_path, "qwen2.5-vl-3b", bf16=False)
    kept = 36 * 18_800 * 2048 * 4
    assert kept < one.memory["activations"] < exact.memory["activations"]
    assert exact.memory["logits"] == 300 * 151_936 * 12


def test_a_bound_on_a_clip_makes_the_papers_tokens() -> None:
    """720p, 64 s: the frame bound of inference alone, and with the authors' bound of 24,576 x 28 x 28 on a clip."""
    ours, theirs = (
        TrainingExample(
            Encoding.of(tiny.model(), max_pixels=768 * 28 * 28, clip_pixels=bound),
            Clip(Path("a.mp4"), 0.0, Header(720, 1280, 64.0)), 0.0, ("",) * 64, ("",) * 64, (), "",
        )
        for bound in (None, 24_576 * 28 * 28)
    )  # fmt: skip
    assert (ours.grid, ours.video_tokens) == ((20, 36), 46_080)
    assert (theirs.grid, theirs.video_tokens) == ((14, 26), 23_296)
    shorter = {seconds: replace(theirs, true=("",) * seconds, said=("",) * seconds) for seconds in (24, 30, 32, 33, 48)}
    tokens = {seconds: one.video_tokens // seconds for seconds, one in shorter.items()}
    assert (tokens[24], tokens[30], tokens[32]) == (720, 720, 720), "no bound up to 32 s"
    assert tokens[48] == 480
    assert [shorter[seconds].video_tokens for seconds in (24, 32, 48)] == [17_280, 23_040, 23_040]
    assert all(one.video_tokens <= 24_576 for one in shorter.values())
    assert shorter[24].length == replace(ours, true=("",) * 24, said=("",) * 24).length


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


def test_what_was_repaired_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = make_stage(tmp_path)
    record = json.loads((tmp_path / "train.jsonl").read_text())
    content = record["content"]
    before = len(content)
    content[3] = [content[3][1] + 5.0, *content[3][1:]]
    content[7] = [None, None, "7"]
    content.insert(30, [1.0, 2.0, "again"])
    (tmp_path / "train.jsonl").write_text(json.dumps(record) + "\n")
    target = tmp_path / "report.json"
    assert dry_run(file, capsys, "--report", str(target))["chunks"] == 12
    told = json.loads(target.read_text())["repaired"]
    assert [(one["words"], one["lines"], one["lost"]) for one in told.values()] == [(1, 1, False)] * 2 + [(1, 1, True)]
    cli.main(["train", str(file), "--dry-run"])
    shown = capsys.readouterr().err
    assert "repaired: 1 words: start after the end: the word starts at its end" in shown
    assert f"train.jsonl, byte 0: 1 of {before + 1} words, the first is 'again' at 1-2 s" in shown
    # Two more of them are above 2 %: the line is refused, with the reason.
    content[30:30] = [[1.0, 2.0, "again"]] * 2
    (tmp_path / "train.jsonl").write_text(json.dumps(record) + "\n")
    assert cli.main(["train", str(file), "--dry-run"]) == 2
    assert f"train.jsonl, byte 0: 3 of {before + 3} words lost, more than 2%" in capsys.readouterr().err
