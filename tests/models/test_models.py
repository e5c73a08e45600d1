"""Checkpoint folders as transformers writes them, and frames as transformers' processor patches them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from streamingvlm.core.errors import ModelError, OptionError, SourceError
from streamingvlm.core.events import Chunk
from streamingvlm.core.spans import Kind, Role
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import Trace
from streamingvlm.models.int8_linear import int8_available
from streamingvlm.models.linear import Linear
from streamingvlm.models.load import load_model
from streamingvlm.models.patches import Patcher
from support import tiny
from support.tiny import write_checkpoint


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def of_family(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of every family in turn."""
    return write_checkpoint(family, tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, where the family does not matter."""
    return write_checkpoint("qwen2_5_vl", tmp_path_factory.mktemp("checkpoint"))


def chunk(index: int = 0) -> Chunk:
    frames = np.random.default_rng(index).integers(0, 256, (2, 60, 80, 3), dtype=np.uint8)
    return Chunk(frames, (index, index + 0.5), index, index + 1)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_folder_written_by_transformers_streams(family: str, of_family: Path, dtype: str) -> None:
    model = load_model(of_family, device="cpu", dtype=dtype)
    assert model.grammar.system == "Be brief."
    assert len(model.end_tokens) == 2
    assert model.tokens_per_second == (2 if family == "qwen2_5_vl" else None)
    model.patcher = model.patcher.with_budget(model.patcher.factor**2 * 6)
    with Engine(model).open(context="ünï <|im_end|> code", temperature=0.7) as session:
        events = [session.step(chunk(i)) for i in range(3)]
        assert "ünï <|im_end|> code" in model.grammar.tokenizer.decode(session.state.timeline.tokens)
    assert all(event.capacity >= sum(event.rows.values()) > 0 for event in events)


def test_cached_equals_uncached_in_another_dtype_only_roughly(of_family: Path) -> None:
    """bf16 streams the same way: its logits stay near those of float32."""
    from streamingvlm.engine.request import Trace

    logits = []
    for dtype in ("fp32", "bf16"):
        model, trace = load_model(of_family, device="cpu", dtype=dtype), Trace()
        model.patcher = model.patcher.with_budget(model.patcher.factor**2 * 6)
        with Engine(model).open(temperature=0) as session:
            session.step(chunk(), trace=trace)
        logits.append(trace.logits[0])
    assert (logits[0] - logits[1]).abs().max() < 0.05 * logits[0].abs().max()


def test_frames_are_wanted_as_the_folder_or_the_family_says(family: str, of_family: Path, tmp_path: Path) -> None:
    wanted = tiny.FAMILIES[family]
    own = load_model(of_family, device="cpu").patcher
    assert (own.patch, own.mean, own.std) == (wanted.patch, wanted.mean, wanted.std)
    assert own.max_pixels == 768 * (2 * wanted.patch) ** 2
    shutil.copytree(of_family, tmp_path / "copy")
    video = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}
    (tmp_path / "copy" / "processor_config.json").write_text(json.dumps({"video_processor": video}))
    assert load_model(tmp_path / "copy", device="cpu").patcher.mean == (0.1, 0.2, 0.3)
    (tmp_path / "copy" / "preprocessor_config.json").write_text(json.dumps(video | {"image_mean": [0, 0, 0]}))
    assert load_model(tmp_path / "copy", device="cpu").patcher.mean == (0, 0, 0)


class Sized:
    """In the place of a video processor, which needs torchvision: the sizes of a video and its frames' times."""

    merge_size = temporal_patch_size = 2
    model_input_names: ClassVar[list[str]] = ["pixel_values_videos", "video_grid_thw"]

    def __init__(self, grid: tuple[int, int, int], fps: float, indices: list[int]) -> None:
        metadata = SimpleNamespace(fps=fps, frames_indices=list(indices))
        self.made = {"video_grid_thw": np.array([grid]), "video_metadata": [metadata]}

    def __call__(self, videos: Any, **_: Any) -> dict[str, Any]:  # noqa: ARG002
        return dict(self.made)


class OfTransformers(Qwen3VLProcessor):
    """transformers' processor, whole, but for the check that its parts are of the classes that it knows."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:  # noqa: ARG002
        return type(argument)


def test_video_is_written_as_the_processor_of_qwen3_vl_writes_it(tmp_path: Path) -> None:
    """All ids of a text with a video in it, from transformers' whole processor, but for one stated difference.

    Around all blocks of a video transformers from 5.10 on leaves the chat template's own pair of marks. The published
    checkpoints came with 4.57, whose processor puts the blocks in the place of the pair: docs/differences.md.
    """
    folder = write_checkpoint("qwen3_vl", tmp_path / "own")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    grammar, fps, indices = load_model(folder, device="cpu").grammar, 30.0, [150, 157, 165, 172, 179]
    processor = OfTransformers(None, tokenizer, Sized((3, 4, 6), fps, indices))
    text = "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>go<|im_end|>\n"
    item = Chunk(np.zeros((5, 64, 96, 3), np.uint8), tuple(i / fps for i in indices), 5, 6)
    wanted = processor(text=[text], videos=[torch.from_numpy(item.frames)])["input_ids"][0]
    patcher = Patcher(16, min_pixels=1024)
    spans = grammar.video(0, 5, 6, patcher(item).merged, 1.0, patcher.times(item.times))
    assert [span.kind for span in spans] == [Kind.TIME, Kind.VISION] * 3
    ours = [token for span in spans for token in span.tokens]
    start, end = grammar.marks.vision_start, grammar.marks.vision_end
    around = [grammar.header(Role.USER).tokens, grammar.tokenizer.encode("go"), grammar.footer(Role.USER).tokens]
    before, query, after = map(list, around)
    assert wanted == [*before, start, *ours, end, *query, *after]
    assert (ours.count(start), wanted.count(start)) == (3, 4)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_turn_is_inside_its_bounds(family: str, frames: int) -> None:
    """What a policy computes its capacity from: markup, stamps and marks, and the largest video."""
    model = tiny.model(family=family)
    item = Chunk(np.zeros((frames, *tiny.FAMILIES[family].size, 3), np.uint8), (1e6,) * frames, 1e6, 1e6 + 1)
    patches, times = model.patcher(item).merged, model.patcher.times(item.times)
    turn = model.grammar.turn(7, 1e6, 1e6 + 1, patches, times=times)
    overhead = model.grammar.turn_overhead(model.patcher.patches(frames))
    most = overhead + model.patcher.max_tokens(frames)
    assert most - 40 < sum(map(len, [model.grammar.separator(6), *turn])) <= most


def change(folder: Path, path: Path, change: Mapping[str, Any]) -> Path:
    """A copy of a checkpoint with other entries in its config.json; a dotted key goes into a section."""
    shutil.copytree(folder, path)
    config = json.loads((path / "config.json").read_text())
    for key, value in change.items():
        *sections, last = key.split(".")
        inner = config
        for section in sections:
            inner = inner[section]
        inner[last] = value
    (path / "config.json").write_text(json.dumps(config))
    return path


ROPE = "text_config.rope_parameters"
WRONG = [
    ({f"{ROPE}.rope_type": "linear", f"{ROPE}.factor": 2.0}, "rope type 'linear' is not supported"),
    ({f"{ROPE}.mrope_section": [2, 3, 4]}, r"mrope_section \[2, 3, 4\] must be three numbers that add up to"),
    ({"vision_config.depth": 4}, r"lacks \d+ weights that its config.json asks for, such as model"),
    ({"text_config.hidden_size": "wide"}, "cannot be loaded"),
    ({"text_config.hidden_size": 48}, "cannot be loaded"),
    ({"vision_config.patch_size": [14, 14]}, "patch sizes .* are not supported"),
    ({"model_type": "qwen3_vl_moe"}, "'qwen3_vl_moe'; supported: qwen2_vl, qwen2_5_vl, qwen3_vl"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_config_is_one_line(of_family: Path, tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        load_model(change(of_family, tmp_path / "copy", wrong), device="cpu")
    assert "\n" not in str(error.value)


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
    with pytest.raises(ModelError, match="model_type 'bert'; supported: qwen2_vl, qwen2_5_vl, qwen3_vl"):
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


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_sliding_attention_is_refused(family: str, tmp_path: Path) -> None:
    layers = ["full_attention", "sliding_attention", "full_attention"]
    path = change(write_checkpoint(family, tmp_path / "own"), tmp_path / "copy", {"text_config.layer_types": layers})
    with pytest.raises(ModelError, match="only full attention in every layer"):
        load_model(path, device="cpu")


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
    assert 2 * (height * width) // 784 + 2 <= patcher.max_tokens(4)


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


@torch.inference_mode()
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_frames_that_are_cut_on_the_device_are_seen_alike(family: str) -> None:
    """On a device a model gets the resized frames; on a CPU it makes the same of them, bit for bit."""
    model = tiny.model(family=family)
    patcher = model.patcher
    later = replace(patcher, cut_on_device=True)
    assert not patcher.cut_on_device
    assert later == patcher
    height, width = tiny.FAMILIES[family].size
    for count, size in ((2, (height, width)), (3, (97, 61)), (4, (300, 411))):
        item = Chunk(frames_of(count, count, *size), tuple(range(count)), 0, count)
        cut, kept, unnormalized = patcher(item), later(item), patcher.unnormalized(item)
        assert (kept.grid, kept.merged) == (cut.grid, cut.merged)
        assert (cut.pixels.dtype, kept.pixels.dtype) == (torch.float32, torch.uint8)
        assert 4 * kept.pixels.nbytes == cut.pixels.nbytes
        item.frames[:] = 0  # whoever made them may use their memory again
        assert all(map(patcher.fills, (cut, kept, unnormalized)))
        ours, theirs, training = (model.encode([one])[0] for one in (kept, cut, unnormalized))
        both = model.encode([cut, kept])
        for one in (ours, training, *both):
            assert torch.equal(one.embeds, theirs.embeds)
            assert len(one.deepstack) == len(theirs.deepstack)
            assert all(map(torch.equal, one.deepstack, theirs.deepstack))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_only_a_model_on_a_device_gets_frames_uncut(family: str) -> None:
    there = tiny.wrap(tiny.stock(family).to("meta"), family=family).patcher
    assert there.cut_on_device
    assert there.with_budget(2 * there.factor**2).cut_on_device
    assert there == tiny.model(family=family).patcher


@pytest.mark.parametrize("later", [False, True])
def test_patches_that_do_not_fill_their_grid_are_known(later: bool) -> None:
    patcher = Patcher(min_pixels=784, max_pixels=4 * 784, cut_on_device=later)
    good = patcher(Chunk(frames_of(0, 2, 56, 28), (0, 0.5), 0, 1))
    assert patcher.fills(good)
    assert not patcher.fills(replace(good, pixels=good.pixels[:-1]))
    assert not patcher.fills(replace(good, pixels=good.pixels[..., :-1]))
    assert not patcher.fills(replace(good, pixels=good.pixels.double()))
    assert not patcher.fills(replace(good, merged=(1, 1, 2)))
    # Patches once cut do not tell how wide their frame was.
    assert patcher.fills(replace(good, grid=(1, 2, 4), merged=(1, 1, 2))) is not later
    assert not patcher.fills(replace(good, pixels=torch.zeros(1)))


@torch.inference_mode()
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_video_of_several_streams_is_encoded_in_one_call(family: str) -> None:
    kind = tiny.FAMILIES[family]
    patcher = Patcher(kind.patch, min_pixels=1024, max_pixels=100_000, mean=kind.mean, std=kind.std)
    model, tower = tiny.model(family=family, patcher=patcher), tiny.stock(family).model.visual
    random = np.random.default_rng(0)
    # Sizes whose windows are whole, cut at the edges, and smaller than one window.
    frames = [random.integers(0, 256, (4, *size, 3), dtype=np.uint8) for size in ((224, 224), (196, 308), (64, 96))]
    blocks = [patcher(Chunk(each, (0.0, 0.5, 1.0, 1.5), 0.0, 2.0)) for each in frames]
    for block, together in zip(blocks, model.encode(blocks), strict=True):
        (alone,) = model.encode([block])
        stock = tower(block.pixels, grid_thw=torch.tensor([block.grid]))
        assert torch.equal(together.embeds, alone.embeds)
        torch.testing.assert_close(together.embeds, stock.pooler_output, rtol=0, atol=1e-5)
        for ours, theirs in zip(together.deepstack, getattr(stock, "deepstack_features", None) or (), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantized_weights_say_nearly_the_same(of_family: Path, kind: str) -> None:
    if kind == "fp8":
        pytest.importorskip("torchao", reason="torchao is not installed")
    elif not int8_available():
        pytest.skip("no int8 products on this processor")

    def logits(weights: str | None) -> tuple[torch.Tensor, int]:
        model = load_model(of_family, device="cpu", weights=weights)
        frames = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
        trace = Trace()
        with Engine(model).open(temperature=0.0, max_new_tokens=1) as session:
            session.step(Chunk(frames, (0.0, 0.5), 0.0, 1.0), trace=trace)
        held = [getattr(layer, name) for layer in model.decoder.layers for name in ("qkv", "out", "gate_up", "down")]
        plain = [isinstance(one, Linear) and type(one.weight) is torch.Tensor for one in held]
        return torch.stack(trace.logits), len(plain) - sum(plain)

    plain, (small, quantized) = logits(None)[0], logits(kind)
    assert quantized > 0
    assert 0 < float((small - plain).norm() / plain.norm()) < 0.15


def test_bad_weights_are_one_line(folder: Path) -> None:
    with pytest.raises(OptionError, match="unknown weights 'int3'; known: int8, fp8, int4"):
        load_model(folder, weights="int3")
