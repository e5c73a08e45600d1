"""A stage's file: what it may say, and one line for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingvlm.core.errors import OptionError
from streamingvlm.train.config import TrainConfig, read_stage

PRESETS = sorted((Path(__file__).parents[2] / "configs" / "train").glob("*.toml"))


def stage(tmp_path: Path, text: str, *overrides: str) -> TrainConfig:
    file = tmp_path / "stage.toml"
    file.write_text(text)
    return read_stage(file, overrides)


def test_the_defaults_are_the_papers(tmp_path: Path) -> None:
    one = stage(tmp_path, "")
    assert (one.window, one.overlap, one.sink, one.text, one.fps) == (24, 12, 512, 512, 2)
    assert (one.learning_rate, one.warmup, one.epochs, one.global_batch) == (1e-5, 0.03, 1, 512)
    assert one.freeze_vision
    assert one.bf16


def test_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    text = 'model = "a/b"\nepochs = 3\ndata = ["one.jsonl"]\n'
    one = stage(tmp_path, text, "epochs=2", "model=runs/one/model", 'data=["x.jsonl", "y.jsonl"]', "eval_data=z.jsonl")
    assert (one.epochs, one.model, one.data) == (2.0, "runs/one/model", ("x.jsonl", "y.jsonl"))
    assert one.eval_data == ("z.jsonl",)
    # What the file alone could not mean may be put right.
    assert stage(tmp_path, "window = 10", "overlap=5").overlap == 5


@pytest.mark.parametrize(
    ("text", "override", "says"),
    [
        ("learning_rat = 1", None, "unknown key 'learning_rat'; did you mean learning_rate?"),
        ("epochs = 'two'", None, "epochs must be a number, not 'two'"),
        ("seed = 1.5", None, "seed must be a whole number, not 1.5"),
        ("bf16 = 1", None, "bf16 must be true or false, not 1"),
        ("data = 3", None, "data must be a list of texts"),
        ("window = 10", None, "overlap must be less than the window of 10 s"),
        ("learning_rate = 0", None, "learning_rate must be above 0"),
        ("learning_rate = nan", None, "learning_rate must be a finite number"),
        ("keep = 1", None, "keep must be 2 or more"),
        ("warmup = 1.0", None, "warmup is a share"),
        ("method = 'qlora'", None, "method must be full or lora"),
        ("method = 'lora'\nfreeze_vision = false", None, "freeze_vision must be true"),
        ("global_batch = 10\ndevice_batch = 4", None, "must be a multiple of device_batch 4"),
        ("window 3", None, "is not valid TOML"),
        ("", "epochs", "an override is KEY=VALUE, not 'epochs'"),
        ("", "attention=fast", "attention must be auto"),
        ("", "silence_weight=-1", "silence_weight must be 0 or more"),
        ("save_minutes = -1", None, "save_minutes must be 0 or more"),
        ("save_minutes = nan", None, "save_minutes must be a finite number"),
        ("save_minutes = inf", None, "save_minutes must be a finite number"),
        ("save_minutes = 'often'", None, "save_minutes must be a number"),
        ("dataloader_timeout = -5", None, "dataloader_timeout must be 0 or more"),
        ("dataloader_timeout = 1.5", None, "dataloader_timeout must be a whole number"),
        ("tf32 = 1", None, "tf32 must be true or false"),
        ("report_to = 3", None, "report_to must be a list of texts"),
        ("report_to = [1]", None, "report_to must be a list of texts"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path: Path, text: str, override: str | None, says: str) -> None:
    with pytest.raises(OptionError) as error:
        stage(tmp_path, text, *([override] if override else []))
    assert says in str(error.value)
    assert "\n" not in says


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"cannot read .*none\.toml: No such file"):
        read_stage(tmp_path / "none.toml")


def test_accumulation_follows_from_the_processes() -> None:
    assert TrainConfig(global_batch=512, device_batch=2).accumulation(8) == 32
    with pytest.raises(OptionError, match="cannot be split over 3 processes"):
        TrainConfig(global_batch=512, device_batch=1).accumulation(3)


def test_a_stage_survives_its_file() -> None:
    one = TrainConfig(data=("a.jsonl",), method="lora", lora_rank=8)
    again = TrainConfig.from_dict(one.to_dict(), "stage.json")
    assert again == one
    assert again.differs(TrainConfig(data=("b.jsonl",), method="lora", lora_rank=8, keep=9).to_dict()) == ["data"]


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_can_be_read(path: Path) -> None:
    one = read_stage(path)
    assert one.output.startswith("runs/")
    one.accumulation(8 if one.fsdp else 1)


def test_there_are_presets() -> None:
    assert {"one-gpu", "stage-1", "stage-2", "on-policy", "cpu-arcade"} <= {path.stem for path in PRESETS}
