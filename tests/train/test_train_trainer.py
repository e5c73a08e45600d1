"""The trainer: its loss, what reaches the model, and what a run leaves behind."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from streamingvlm import cli
from streamingvlm.core.errors import TrainingError
from streamingvlm.models.load import load_frontend, load_model
from streamingvlm.train import data, run, trainer
from streamingvlm.train.arguments import training_arguments
from streamingvlm.train.checkpoints import (
    checkpoints,
    damage,
    discard_unfinished,
    is_whole,
    mark_whole,
    newest,
    throughput,
)
from streamingvlm.train.config import TrainConfig
from streamingvlm.train.trainer import Upcoming, weighted_sums
from streamingvlm.train.weights import load_checkpoint, load_weights, save_checkpoint
from support import tiny
from support.training import check_positions, launch, losses, make_stage, opened, positions_seen, train

WINDOWS = ("vision=7", "turns=6", "temperature=0.5", "max_new_tokens=9", "global_batch=2", "max_steps=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests that share a checkpoint and a clip write."""
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return make_stage(folder)


@pytest.fixture(scope="module")
def plain(file: Path, folder: Path) -> Path:
    """A run that nothing disturbed."""
    return train(file, f"output={folder / 'plain'}")


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("before", [True, False])
def test_on_a_gpu_cudnn_computes_no_attention_of_a_run(
    device: str, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gradients may be NaN. A stand-in for the trainer says what is set while it trains."""
    seen = []

    class Trainer:
        def __init__(self, **_: Any) -> None:
            seen.append(torch.backends.cuda.cudnn_sdp_enabled())

        def train(self, **_: Any) -> None:
            seen.append(torch.backends.cuda.cudnn_sdp_enabled())
            raise trainer.NotFiniteError("a loss is not finite")

    stage, chunks, collate = opened(make_stage(tmp_path))
    arguments = SimpleNamespace(device=torch.device(device), process_index=0)
    monkeypatch.setattr(run, "training_arguments", lambda *_: arguments)
    monkeypatch.setattr(run, "load_weights", lambda _: None)
    monkeypatch.setattr(run, "ChunkTrainer", Trainer)
    as_it_was = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(before)
    try:
        with pytest.raises(TrainingError, match="not finite"):
            run.train(stage, load_frontend(stage.model), chunks, None, collate)
        assert seen == [before and device == "cpu"] * 2
        assert torch.backends.cuda.cudnn_sdp_enabled() is before
    finally:
        torch.backends.cuda.enable_cudnn_sdp(as_it_was)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_loss_is_that_of_all_logits(family: str, tmp_path: Path) -> None:
    stage, chunks, collate = opened(make_stage(tmp_path, family, silence_weight=0.25))
    model = load_weights(stage).eval()
    silent = next(i for i in range(len(chunks)) if "" in chunks[i].true)
    batch = collate([chunks[0], chunks[silent]])
    batch["position_ids"][:, 1] += 0.25  # the model must take them as they are
    with torch.no_grad():
        sums = weighted_sums(model, batch)
        inputs = {name: part for name, part in batch.items() if name not in ("labels", "loss_weights")}
        logits = model(**inputs).logits.float()
        alone = weighted_sums(model, collate([chunks[0]]))
    for row in range(2):
        labels, scores = batch["labels"][row, 1:], logits[row, :-1]
        each = F.cross_entropy(scores, labels, reduction="none", ignore_index=-100)
        weights = batch["loss_weights"][row, 1:] * (labels != -100)
        torch.testing.assert_close(sums[row], torch.stack([(each * weights).sum(), weights.sum()]))
    assert set(batch["loss_weights"].unique().tolist()) == {0.0, 0.25, 1.0}
    # A shorter chunk's loss does not depend on the padding behind it.
    torch.testing.assert_close(alone[0], sums[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_positions_reach_the_rotation_unrounded_in_bf16(file: Path, folder: Path, method: str) -> None:
    with positions_seen() as seen:
        train(file, "bf16=true", f"method={method}", "max_steps=1", "device_batch=1", f"output={folder / method}-bf16")
    check_positions(file, seen)


def test_how_a_batch_is_split_does_not_matter(file: Path, folder: Path, plain: Path) -> None:
    split = train(file, f"output={folder / 'split'}", "device_batch=1", "workers=1")
    assert [row[:2] for row in losses(split)] == [row[:2] for row in losses(plain)]
    for one, other in zip(losses(split), losses(plain), strict=True):
        assert one[2] == pytest.approx(other[2], rel=1e-5)
    before, after = (load_file(output / "model" / "model.safetensors") for output in (plain, split))
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, rtol=1e-3, atol=1e-5)


def test_the_evaluation_loss_is_over_all_words(file: Path, plain: Path) -> None:
    stage, chunks, collate = opened(file, f"model={plain / 'model'}", f"data={file.parent / 'held.jsonl'}")
    with torch.no_grad():
        model = load_weights(stage).eval()
        sums = sum(weighted_sums(model, collate([chunks[i]]))[0] for i in range(len(chunks)))
    assert isinstance(sums, torch.Tensor)
    assert losses(plain)[-1] == (6, "eval_loss", pytest.approx(float(sums[0] / sums[1]), rel=1e-4))


def test_the_vision_tower_stays_as_it_is(file: Path, plain: Path) -> None:
    before, after = (load_file(path / "model.safetensors") for path in (file.parent / "base", plain / "model"))
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name]) == ("visual" in name), name


@pytest.mark.slow
def test_a_result_is_a_checkpoint_with_the_stages_habits(file: Path, folder: Path) -> None:
    output = train(file, f"output={folder / 'habits'}", *WINDOWS)
    model = load_model(output / "model")
    assert dict(model.defaults.policy) == {"vision": 7, "turns": 6, "sink": 16, "text": 16}
    assert model.defaults.instruction == "Watch."
    assert (model.defaults.sampling.temperature, model.defaults.sampling.max_new_tokens) == (0.5, 9)
    assert model.patcher.max_pixels == 6 * 28 * 28
    assert model.grammar.system == load_frontend(folder / "base").grammar.system
    assert any(output.glob("runs/*/events.out.tfevents.*"))


def test_an_adapter_is_merged_into_a_checkpoint(file: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from peft import PeftModel

    output = train(file, f"output={folder / 'adapter'}", "method=lora", "lora_rank=4", *WINDOWS)
    assert cli.main(["merge", str(output), "-o", str(folder / "merged")]) == 0
    assert "streamingvlm merge" in capsys.readouterr().err
    stage, chunks, collate = opened(file)
    with torch.no_grad():
        adapted = PeftModel.from_pretrained(load_weights(stage), str(output / "adapter")).eval()
        base = weighted_sums(load_weights(stage).eval(), collate([chunks[0]]))
        with_adapter = weighted_sums(adapted, collate([chunks[0]]))
        stage, *_ = opened(file, f"model={folder / 'merged'}")
        merged = weighted_sums(load_weights(stage).eval(), collate([chunks[0]]))
    torch.testing.assert_close(merged, with_adapter)
    assert not torch.allclose(base, with_adapter)
    assert load_model(folder / "merged").defaults.policy["vision"] == 7
    assert cli.main(["merge", str(folder / "plain"), "-o", str(folder / "no")]) == 2


def test_tied_weights_are_saved_once(tmp_path: Path) -> None:
    stage = TrainConfig(model="", bf16=True)
    model = load_weights(stage)
    assert model.config.tie_word_embeddings
    save_checkpoint(model, tmp_path / "tied", stage, load_frontend(None))
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    again = load_model(tmp_path / "tied", dtype="bf16")
    assert again.parameters == load_model(None).parameters


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    (found,) = [*output.glob("model/model.safetensors"), *output.glob("adapter/adapter_model.safetensors")]
    return load_file(found)


def same_run(one: Path, other: Path) -> None:
    """Whether two runs report the same losses and gradients, and end in the same weights, to the last bit."""
    rows = [json.loads((path / "trainer_state.json").read_text())["log_history"] for path in (one, other)]
    keys = ("step", "loss", "eval_loss", "grad_norm", "learning_rate", "num_input_tokens_seen")
    ours, theirs = ([{key: row[key] for key in keys if key in row} for row in log] for log in rows)
    assert ours == theirs
    before, after = weights_of(one), weights_of(other)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def kill_after(file: Path, losses_seen: int, *arguments: str) -> None:
    """Start a run and kill it (-9) once it has reported so many losses."""
    with launch(file, *arguments) as process:
        assert process.stderr is not None
        for line in process.stderr:
            losses_seen -= "'loss'" in line
            if not losses_seen:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL


#: Dropout: the random numbers have to go on as well. Two epochs: the order of the data, too.
KILLED = {"full": ["method=full"], "lora": ["method=lora", "lora_dropout=0.3"]}


@pytest.mark.slow
@pytest.mark.parametrize("method", KILLED)
def test_killed_and_resumed_is_as_if_it_had_not_been(file: Path, folder: Path, method: str) -> None:
    keys = [*KILLED[method], "max_steps=8", "eval_steps=4"]
    whole = train(file, f"output={folder / 'whole'}-{method}", *keys)
    output = folder / f"killed-{method}"
    kill_after(file, 5, f"output={output}", *keys)
    # What is half written when a process dies is no checkpoint.
    shutil.rmtree(output / "checkpoint-6", ignore_errors=True)
    (output / "checkpoint-6").mkdir()
    (output / "checkpoint-6" / "trainer_state.json").write_text('{"global_step": 6')
    assert [(path.name, is_whole(path)) for path in checkpoints(output)][-2:] == [
        ("checkpoint-4", True),
        ("checkpoint-6", False),
    ]
    assert cli.main(["train", str(file), f"output={output}", *keys]) == 2
    train(file, f"output={output}", *keys, "--resume")
    same_run(output, whole)


@pytest.mark.slow
@pytest.mark.parametrize("bf16", ["true", "false"])
@pytest.mark.parametrize("method", KILLED)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_is_killed_and_resumed(family: str, method: str, bf16: str, tmp_path: Path) -> None:
    file = make_stage(tmp_path, family, bf16=bf16 == "true", max_steps=6)
    whole = train(file, f"output={tmp_path / 'whole'}", *KILLED[method])
    kill_after(file, 5, f"output={tmp_path / 'killed'}", *KILLED[method])
    train(file, f"output={tmp_path / 'killed'}", *KILLED[method], "--resume")
    same_run(tmp_path / "killed", whole)


@pytest.mark.parametrize("method", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_run_with_tied_embeddings_is_resumed(tmp_path: Path, method: str) -> None:
    file = make_stage(tmp_path, max_steps=4, eval_data=[])
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    change(tmp_path / "base" / "model.safetensors", lambda w: w.pop("lm_head.weight"))
    assert load_weights(opened(file)[0]).config.tie_word_embeddings
    whole = train(file, f"output={tmp_path / 'whole'}", *KILLED[method])
    shutil.copytree(whole, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoint-4")
    train(file, f"output={tmp_path / 'again'}", *KILLED[method], "--resume")
    same_run(tmp_path / "again", whole)


@pytest.mark.slow
@pytest.mark.parametrize("method", KILLED)
def test_two_processes_without_shards_are_resumed(file: Path, folder: Path, method: str) -> None:
    output = folder / f"ddp-{method}"

    def run(*arguments: str) -> None:
        _, errors = (process := launch(file, f"output={output}", *arguments, processes=2)).communicate(timeout=280)
        assert process.returncode == 0, errors

    run(*KILLED[method], "device_batch=1", "max_steps=6")
    whole, weights = losses(output), weights_of(output)
    shutil.rmtree(output / "checkpoint-6")
    run(*KILLED[method], "device_batch=1", "max_steps=6", "--resume")
    assert losses(output) == whole
    assert all(torch.equal(weights[name], part) for name, part in weights_of(output).items())


def change(path: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, {"format": "pt"})


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_checkpoint_that_is_not_the_runs_is_refused_by_name(
    file: Path, folder: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = train(file, f"output={folder / 'broken'}-{method}", f"method={method}", "max_steps=2", "global_batch=2")
    (path,) = (output / "checkpoint-2").glob("*.safetensors")
    good, names = path.read_bytes(), sorted(load_file(path))
    for edit, says in (
        (lambda w: w.pop(names[0]), "lacks 1 weights, such as"),
        (lambda w: w.update({"model.other.weight": torch.zeros(2)}), "has 1 weights that the run does not have"),
        (lambda w: w.update({names[0]: torch.zeros(3, 3)}), "checkpoint-2"),
    ):
        change(path, edit)
        again = ["train", str(file), f"output={output}", f"method={method}", "max_steps=2", "global_batch=2"]
        assert cli.main([*again, "--resume"]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert says in error
        assert "checkpoint-2" in error
        path.write_bytes(good)
    path.write_bytes(good[: len(good) // 2])
    assert cli.main([*again, "--resume"]) == 2
    assert "checkpoint-2 cannot be loaded" in capsys.readouterr().err


#: What is done to a file of a checkpoint, and what is said of it.
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (Path.unlink, "lacks"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "bytes"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"0"), "bytes"),
    "empty": (lambda path: path.write_bytes(b""), "bytes"),
    "garbled": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "cannot be"),
}


@pytest.fixture(scope="module")
def short(file: Path, folder: Path) -> Path:
    """A short run, for tests that damage a copy of it."""
    return train(file, f"output={folder / 'short'}", *SHORT)


SHORT = ("max_steps=2", "save_steps=1", "eval_data=[]")


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json"])
def test_a_checkpoint_with_a_damaged_file_is_refused_in_one_line(
    file: Path, short: Path, tmp_path: Path, name: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(short, output)
    shutil.rmtree(output / "checkpoint-2")
    change_file, says = DAMAGES[how]
    change_file(output / "checkpoint-1" / name)
    assert cli.main(["train", str(file), f"output={output}", *SHORT, "--resume"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in error
    assert "checkpoint-1" in error
    assert not (output / "checkpoint-2").exists()


def test_without_a_damaged_checkpoint_the_one_before_is_taken(
    file: Path, short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(short, output)
    (output / "checkpoint-2" / "optimizer.pt").unlink()
    arguments = ["train", str(file), f"output={output}", *SHORT, "--resume"]
    assert cli.main(arguments) == 2
    assert "without its folder --resume takes the one before" in capsys.readouterr().err
    shutil.rmtree(output / "checkpoint-2")
    assert cli.main(arguments) == 0
    same_run(output, short)


def test_unfinished_checkpoints_do_not_push_good_ones_out(
    file: Path, short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """keep = 2 are two good ones: Trainer would count what a killed process left half written, or half removed."""
    output = tmp_path / "out"
    shutil.copytree(short, output)
    for name in ("checkpoint-7", "checkpoint-9"):  # by time: the next one may come earlier than the one that broke off
        (output / name).mkdir()
        (output / name / "model.safetensors").write_bytes(b"half")
    (output / "checkpoint-1" / "scheduler.pt").unlink()
    assert newest(output) == output / "checkpoint-2"
    assert discard_unfinished(output) == [output / f"checkpoint-{step}" for step in (1, 7, 9)]
    assert checkpoints(output) == [output / "checkpoint-2"]
    (output / "checkpoint-3").mkdir()
    capsys.readouterr()
    assert cli.main(["train", str(file), f"output={output}", *SHORT, "--resume"]) == 0
    assert f"removed {output / 'checkpoint-3'}, which is not whole" in capsys.readouterr().err


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_is_loaded_by_name(file: Path, tmp_path: Path, tied: bool) -> None:
    stage = replace(opened(file)[0], **({"model": ""} if tied else {}))
    model = load_weights(stage)
    assert model.config.tie_word_embeddings == tied
    wanted = {name: part.clone() for name, part in model.state_dict().items()}
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        for part in model.parameters():
            part.zero_()
    load_checkpoint(model, tmp_path)
    for name, part in model.state_dict().items():
        assert torch.equal(part, wanted[name]), name


def test_gradients_that_are_not_finite_end_the_run(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = folder / "infinite"
    plain = trainer.weighted_sums
    calls = []

    def spoiled(model: Any, batch: Any) -> torch.Tensor:
        calls.append(1)
        return plain(model, batch) * (float("nan") if len(calls) == 9 else 1.0)

    monkeypatch.setattr(trainer, "weighted_sums", spoiled)
    arguments = ["train", str(file), f"output={output}", "eval_data=[]"]
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"the gradient norm of step 5 is nan; the last good checkpoint is {output / 'checkpoint-4'}" in error
    assert [path.name for path in checkpoints(output)] == ["checkpoint-2", "checkpoint-4"]
    assert not (output / "model").exists()
    monkeypatch.undo()
    train(file, f"output={output}", "eval_data=[]", "--resume")
    same_run(output, train(file, f"output={folder / 'finite'}", "eval_data=[]"))


class Hidden(torch.autograd.Function):
    """A loss that is no number, with gradients that are."""

    @staticmethod
    def forward(ctx: Any, sums: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return torch.full_like(sums, float("inf"))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return torch.zeros_like(grads[0])


@pytest.mark.parametrize(
    ("call", "says"),
    [(5, "the loss of step 3 is inf"), (1, "the loss of step 1 is inf")],
)
def test_a_loss_that_is_not_finite_ends_the_run(
    file: Path,
    tmp_path: Path,
    call: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, calls = trainer.weighted_sums, []

    def spoiled(model: Any, batch: Any) -> torch.Tensor:
        calls.append(1)
        sums = plain(model, batch)
        if len(calls) != call:
            return sums
        hidden: torch.Tensor = Hidden.apply(sums)  # type: ignore[no-untyped-call]
        return hidden

    monkeypatch.setattr(trainer, "weighted_sums", spoiled)
    assert cli.main(["train", str(file), f"output={tmp_path / 'out'}", "eval_data=[]"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    good = f"the last good checkpoint is {tmp_path / 'out' / 'checkpoint-2'}" if call > 4 else "there is no checkpoint"
    assert says in error
    assert good in error


def test_a_held_out_loss_that_is_not_finite_ends_the_run(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = trainer.weighted_sums

    def spoiled(model: Any, batch: Any) -> torch.Tensor:
        return plain(model, batch) * (1.0 if model.training else float("nan"))

    monkeypatch.setattr(trainer, "weighted_sums", spoiled)
    assert cli.main(["train", str(file), f"output={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the held-out loss after step 3 is nan" in error
    assert f"the last good checkpoint is {tmp_path / 'out' / 'checkpoint-2'}" in error


def test_the_weights_of_the_base_may_be_spoiled_already(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(file.parent / "base", tmp_path / "base")
    change(tmp_path / "base" / "model.safetensors", lambda w: w[min(w)].fill_(float("nan")))
    assert cli.main(["train", str(file), f"model={tmp_path / 'base'}", f"output={tmp_path / 'out'}"]) == 2
    assert "of step 1 is nan; there is no checkpoint yet" in capsys.readouterr().err


def test_a_checkpoint_is_written_when_the_last_one_is_old(file: Path, folder: Path) -> None:
    keys = ["save_steps=100", "keep=9", "max_steps=4", "eval_data=[]"]
    by_time = train(file, f"output={folder / 'by-time'}", *keys, "save_minutes=1e-9")
    assert [path.name for path in checkpoints(by_time)] == [f"checkpoint-{step}" for step in (1, 2, 3, 4)]
    by_steps = train(file, f"output={folder / 'by-steps'}", *keys, "save_minutes=0")
    assert [path.name for path in checkpoints(by_steps)] == ["checkpoint-4"]  # the last step is always saved
    assert losses(by_time) == losses(by_steps)


@pytest.mark.filterwarnings("error::FutureWarning")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_nothing_but_reports_is_told(file: Path, folder: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = train(file, f"output={folder / 'told'}-{method}", f"method={method}", "max_steps=2")
    out, err = capsys.readouterr()
    assert out.strip() == str(output / {"full": "model", "lora": "adapter"}[method])
    assert "'loss'" in err
    if method == "lora":
        assert cli.main(["merge", str(output), "-o", str(folder / "told-merged")]) == 0
        err += capsys.readouterr().err
    assert "Writing model shards" not in err
    assert "Warning" not in err


class Stuck:
    """What hangs in a worker, as a broken file may make FFmpeg do."""

    def pack(self, examples: Any) -> Any:
        del examples
        time.sleep(60)


def test_a_worker_that_hangs_ends_the_run(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "collator_of", lambda _: Stuck())
    keys = ["workers=1", "dataloader_timeout=1", "eval_data=[]", f"output={folder / 'stuck'}"]
    began = time.monotonic()
    assert cli.main(["train", str(file), *keys]) == 2
    assert time.monotonic() - began < 30
    assert "the workers that read video gave nothing for 1 s" in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_that_hangs_ends_a_resumed_run_too(
    file: Path, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loader that goes on within an epoch is another one than the first."""
    output = tmp_path / "out"
    shutil.copytree(short, output)
    shutil.rmtree(output / "checkpoint-2")
    monkeypatch.setattr(data, "collator_of", lambda _: Stuck())
    arguments = [*SHORT, "workers=1", "dataloader_timeout=1", f"output={output}", "--resume"]
    assert cli.main(["train", str(file), *arguments]) == 2
    assert "gave nothing for 1 s" in (error := capsys.readouterr().err)
    assert f"the last good checkpoint is {output / 'checkpoint-1'}" in error


def test_all_files_of_a_checkpoint_are_noted(tmp_path: Path) -> None:
    """Also shards, which lie in folders of their own."""
    folder = tmp_path / "checkpoint-3"
    shard = folder / "pytorch_model_fsdp_0" / "__1_0.distcp"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"12345678")
    (folder / "trainer_state.json").write_text('{"global_step": 3}')
    mark_whole(tmp_path, 3, devices=2, device="cpu")
    assert damage(folder) is None
    shard.write_bytes(b"1234")
    assert damage(folder) == f"{shard} has 4 bytes, 8 were written"
    shard.unlink()
    assert damage(folder) == f"{folder} lacks pytorch_model_fsdp_0/__1_0.distcp"
    # A mark of an earlier version says nothing of the files.
    (folder / "whole").write_bytes(b"")
    assert damage(folder) is None
    (folder / "trainer_state.json").write_text('{"global_step": 2}')
    assert "is of another step" in str(damage(folder))


def test_a_report_that_cannot_be_made_is_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, says in (("paper", "unknown 'paper'; known:"), ("comet_ml", "comet_ml is not installed")):
        assert cli.main(["train", str(file), f"report_to={name}", f"output={file.parent / name}"]) == 2
        assert f"report_to: {says}" in capsys.readouterr().err


def test_a_run_is_resumed_as_it_was_begun(file: Path, plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(file), f"output={plain}"]) == 2
    assert "holds a run that has got to step 6: --resume, or another output" in capsys.readouterr().err
    assert cli.main(["train", str(file), f"output={plain}", "--resume", "learning_rate=1e-4", "keep=3"]) == 2
    assert "was made with other values of learning_rate" in capsys.readouterr().err


def test_batches_of_a_step_are_taken_one_by_one() -> None:
    taken: list[int] = []

    def source() -> Any:
        for number in range(5):
            taken.append(number)
            yield number

    batches = source()
    upcoming = Upcoming(batches, 3)
    assert (len(upcoming), taken) == (3, [0])
    assert (list(upcoming), taken) == ([0, 1, 2], [0, 1, 2])
    assert list(Upcoming(batches, 2)) == [3, 4]
    assert len(Upcoming(batches, 2)) == 0


def test_sharding_needs_several_processes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(file), "fsdp=true", "output=" + str(file.parent / "one")]) == 2
    assert "fsdp = true needs several processes: torchrun" in capsys.readouterr().err


def test_the_arguments_follow_the_stage(file: Path) -> None:
    stage, *_ = opened(file, "warmup=0.1", "weight_decay=0.01")
    args = training_arguments(stage, held_out=False)
    assert args.report_to == ["tensorboard"]
    assert training_arguments(replace(stage, report_to=()), held_out=False).report_to == []
    assert (args.lr_scheduler_type, args.get_warmup_steps(100), args.weight_decay) == ("cosine", 10, 0.01)
    assert args.gradient_accumulation_steps == 2


def test_throughput_is_measured(file: Path, plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = throughput(plain)
    assert measured is not None
    assert measured["tokens_per_second_per_device"] > 0
    assert (measured["steps"], measured["devices"]) == (6, 1)
    assert cli.main(["train", str(file), f"output={plain}", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hours_from"].startswith("measured: ")
