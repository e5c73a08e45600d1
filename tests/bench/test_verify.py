"""``streamingvlm verify`` on a tiny checkpoint and a clip made on the fly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from streamingvlm import cli
from streamingvlm.bench import verify as bench
from streamingvlm.bench.setup import Request
from streamingvlm.cache.batch import Batch
from streamingvlm.core.errors import ModelError
from streamingvlm.models.base import Model
from streamingvlm.models.reference import reference_forward
from support import media

MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint, with windows short enough to be left within a clip."""
    path = tmp_path_factory.mktemp("checkpoint")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, additional_special_tokens=MARKS)
    tokenizer.save_pretrained(path)
    ids = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in MARKS}
    torch.manual_seed(0)
    text = {
        "vocab_size": 272, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32,
        "fullatt_block_indexes": [1], "window_size": 56, "tokens_per_second": 2,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        video_token_id=ids["<|video_pad|>"],
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(path)
    own = {"vision": 3, "turns": 3, "sink": 64, "text": 8, "max_new_tokens": 4, "instruction": "", "system": ""}
    (path / "generation_config.json").write_text(json.dumps({"streaming": own}))
    (path / "preprocessor_config.json").write_text('{"min_pixels": 784, "max_pixels": 4704}')
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", count=90, fps=10)


@pytest.fixture
def request_(folder: Path, clip: Path) -> Request:
    return Request(model=str(folder), source=str(clip), device="cpu")


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine under load is no reason for a test to fail."""
    real = bench.compare

    def compare(*arguments: Any, **options: Any) -> Any:
        figures, lanes = real(*arguments, **options)
        for one in figures["policies"].values():
            one["lag_p95"] = min(one["lag_p95"], 0.5)
        return figures, lanes

    monkeypatch.setattr(bench, "compare", compare)


@pytest.mark.usefixtures("unhurried")
def test_a_good_checkpoint(folder: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.md"
    arguments = ["--model", str(folder), "--seconds", "6", "--policies", "streaming,full", "--device", "cpu"]
    assert cli.main(["verify", str(clip), *arguments, "--report", str(target)]) == 0, capsys.readouterr().err
    figures = json.loads(target.with_suffix(".json").read_text())
    assert figures["ok"]
    assert all(check["ok"] for check in figures["checks"])
    assert set(figures["policies"]) == {"streaming", "full"}
    before = [one for one in figures["logits"] if not one["evicted"]]
    after = [one for one in figures["logits"] if one["evicted"]]
    assert len(before) >= 2
    assert len(after) == bench.AFTER
    assert max(one["relative"] for one in before) < 1e-5
    assert min(one["relative"] for one in after) > 1e-5, "states are reused, not recomputed"
    text = target.read_text()
    assert text.startswith(f"# {folder}: all checks hold")
    assert "| streaming: cache rows stay bounded | yes |" in text


@pytest.mark.usefixtures("unhurried")
def test_a_wrong_cache_is_found(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    normal = Batch.attention

    def wrong(batch: Batch, *given: Any, **more: Any) -> torch.Tensor:
        return normal(batch, *given, **more) * (0.5 if batch.single else 1.0)

    monkeypatch.setattr(Batch, "attention", wrong)
    figures = bench.verify(request_, seconds=4, specs=["streaming"])
    assert not figures["ok"]
    assert [check["name"] for check in figures["checks"] if not check["ok"]] == [
        "logits from the cache equal uncached ones"
    ]
    assert "NOT all checks hold" in bench.to_markdown(figures)


def test_a_failed_check_ends_with_1(
    folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(bench.TOLERANCE, torch.float32, -1.0)
    arguments = ["--model", str(folder), "--seconds", "2", "--policies", "streaming", "--device", "cpu"]
    assert cli.main(["verify", str(clip), *arguments]) == 1
    out, err = capsys.readouterr()
    assert "fails: logits from the cache" in err
    assert out.startswith("# ")


def test_uncached_leaves_the_model_as_it_was(request_: Request) -> None:
    model = request_.make_model()
    first = bench.compare_logits(request_, model)
    second = bench.compare_logits(request_, model)
    assert first == second


def test_uncached_needs_layers_of_transformers() -> None:
    class Other:
        name = "other"

    other: Model = Other()  # type: ignore[assignment]
    with pytest.raises(ModelError, match="nothing to compare"):
        reference_forward(other, torch.zeros(1, 1), torch.zeros(3, 1).numpy())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nothing.mp4"], "no such file"),
        (["--seconds", "0"], "--seconds"),
        (["--policies", "magic"], "unknown policy 'magic'"),
        (["--report", "out.txt"], "must end in .md"),
        (["--report", "/nowhere/out.md"], "cannot write"),
        (["--model", "/nowhere"], "no checkpoint folder"),
        (["--device", "gpu0"], "cannot be used"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert word in err


def test_the_bundled_model_refuses_other_video(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(clip)]) == 2
    assert "knows only arcade:pong, arcade:boxing" in capsys.readouterr().err
