"""Checkpoint folders as transformers writes them, and frames as transformers' processor patches them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from streamingvlm.engine import Engine
from streamingvlm.errors import ModelError, OptionError, SourceError
from streamingvlm.events import Chunk
from streamingvlm.models import Patcher, load_model

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|video_pad|>",
    "<|image_pad|>",
]
TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint, written by transformers itself."""
    path = tmp_path_factory.mktemp("checkpoint")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, additional_special_tokens=SPECIAL)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [1], "window_size": 56, "tokens_per_second": 4,
        },
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        video_token_id=ids["<|video_pad|>"],
        image_token_id=ids["<|image_pad|>"],
    )  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    model.save_pretrained(path)
    return path


def chunk(index: int = 0) -> Chunk:
    frames = np.random.default_rng(index).integers(0, 256, (2, 60, 80, 3), dtype=np.uint8)
    return Chunk(frames, (index, index + 0.5), index, index + 1)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_folder_written_by_transformers_streams(folder: Path, dtype: str) -> None:
    model = load_model(folder, device="cpu", dtype=dtype)
    assert model.grammar.system == "Be brief."
    assert len(model.end_tokens) == 2
    assert model.tokens_per_second == 4
    model.patcher = model.patcher.with_budget(28 * 28 * 6)
    with Engine(model).open(context="ünï <|im_end|> code", temperature=0.7) as session:
        events = [session.step(chunk(i)) for i in range(3)]
        assert "ünï <|im_end|> code" in model.grammar.tokenizer.decode(session.timeline.tokens)
    assert all(event.capacity >= sum(event.rows.values()) > 0 for event in events)


def test_cached_equals_uncached_in_another_dtype_only_roughly(folder: Path) -> None:
    """bf16 streams the same way: its logits stay near those of float32."""
    from streamingvlm.engine import Trace

    logits = []
    for dtype in ("fp32", "bf16"):
        model, trace = load_model(folder, device="cpu", dtype=dtype), Trace()
        model.patcher = model.patcher.with_budget(28 * 28 * 6)
        with Engine(model).open(temperature=0) as session:
            session.step(chunk(), trace=trace)
        logits.append(trace.logits[0])
    assert (logits[0] - logits[1]).abs().max() < 0.05 * logits[0].abs().max()


def test_streaming_defaults_come_from_the_folder(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "generation_config.json"
    own = {"temperature": 0, "max_new_tokens": 7, "sink": 30, "text": 40, "system": "", "instruction": "go"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"streaming": own}))
    (tmp_path / "copy" / "preprocessor_config.json").write_text('{"min_pixels": 784, "max_pixels": 3136}')
    model = load_model(tmp_path / "copy", device="cpu")
    assert model.defaults.sampling.max_new_tokens == 7
    assert model.patcher.max_pixels == 3136
    with Engine(model).open() as session:
        assert session.options.policy.sink == 30
        assert session.options.instruction == "go"
        session.step(chunk())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/folder/here", "no checkpoint folder"),
        ("./nowhere", "no checkpoint folder"),
    ],
)
def test_unknown_checkpoints_are_one_line(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        load_model(name)
    assert "\n" not in str(error.value)


def test_broken_folders_are_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="model_type 'bert'; supported: qwen2_5_vl"):
        load_model(tmp_path)
    shutil.copytree(folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded") as error:
        load_model(tmp_path / "cut", device="cpu")
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="unknown dtype"):
        load_model(folder, dtype="int3")
    with pytest.raises(ModelError, match="device 'gpu0' cannot be used"):
        load_model(folder, device="gpu0")


# --- patches ----------------------------------------------------------------------------------------------------

VECTORS = Path(__file__).parent / "vectors" / "qwen2vl_video_processor.npz"


def frames_of(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """The frames that the vectors were recorded with: smooth shapes and noise."""
    random = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width]
    out = []
    for i in range(count):
        waves = [127 + 90 * np.sin(x / (5 + c) + i) + 30 * np.cos(y / (3 + c)) for c in range(3)]
        out.append(np.stack(waves, -1) + random.randint(-8, 9, (height, width, 3)))
    return np.clip(out, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("case", range(4))
def test_patches_equal_the_processors(case: int) -> None:
    with np.load(VECTORS) as stored:
        seed, count, height, width, low, high = (int(n) for n in stored[f"{case}.arguments"])
        grid, rows, wanted = stored[f"{case}.grid"], stored[f"{case}.rows"], stored[f"{case}.pixels"]
    frames = frames_of(seed, count, height, width)
    patcher = Patcher(min_pixels=low, max_pixels=high)
    got = patcher(Chunk(frames, tuple(range(count)), 0, count))
    assert got.grid == tuple(grid.tolist())
    np.testing.assert_allclose(got.pixels.numpy()[rows], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (5, 990), (990, 5), (28, 28), (1080, 1920), (333, 77), (27, 5400)])
@pytest.mark.parametrize("budget", [28 * 28, 36 * 784, 768 * 784])
def test_a_resized_frame_is_inside_its_budget(size: tuple[int, int], budget: int) -> None:
    patcher = Patcher().with_budget(budget)
    height, width = patcher.size(*size)
    assert height % 28 == width % 28 == 0
    assert 0 < height * width <= budget
    assert 2 * (height * width) // 784 + 2 <= patcher.most_tokens(4)


def test_a_frame_that_is_too_long_is_refused() -> None:
    with pytest.raises(SourceError, match="200 to 1"):
        Patcher().size(10, 3000)
    with pytest.raises(OptionError, match="max_pixels must be at least 784"):
        Patcher().with_budget(10)


def test_an_odd_number_of_frames_is_filled_with_the_last() -> None:
    frames = frames_of(1, 3, 56, 56)
    patcher = Patcher(min_pixels=784, max_pixels=56 * 56)
    three = patcher(Chunk(frames, (0, 1, 2), 0, 3))
    four = patcher(Chunk(frames[[0, 1, 2, 2]], (0, 1, 2, 2), 0, 3))
    assert three.grid == (2, 4, 4)
    assert torch.equal(three.pixels, four.pixels)
