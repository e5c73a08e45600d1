"""Every way a checkpoint folder can be wrong: one line that names the file, never a wrong answer in silence."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from streamingvlm import cli
from streamingvlm.core.errors import ModelError
from streamingvlm.core.events import Chunk
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import Trace
from streamingvlm.models.load import load_for_training, load_frontend, load_model
from streamingvlm.models.qwen_vl import QwenVL
from support import tiny


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing wrong."""
    return tiny.write_checkpoint("qwen2_5_vl", tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoiled."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def edit(path: Path, **entries: Any) -> None:
    """Other entries in a JSON file, which need not be there."""
    table = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(table | entries))


def edit_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "tokenizer.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def refused(folder: Path | str, match: str, *, frontend: bool = True) -> None:
    """Neither the whole model nor its front end can be loaded, and both say so in one line."""
    loads: list[Callable[[], object]] = [lambda: load_model(folder, device="cpu")]
    if frontend:
        loads.append(lambda: load_frontend(folder))
    for load in loads:
        with pytest.raises(ModelError, match=match) as error:
            load()
        assert "\n" not in str(error.value)


def chunk(index: int = 0) -> Chunk:
    frames = np.random.default_rng(index).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    return Chunk(frames, (index, index + 0.5), index, index + 1)


def first_logits(folder: Path, **options: Any) -> torch.Tensor:
    """Logits of the first word of the first step."""
    model, trace = load_model(folder, device="cpu", **options), Trace()
    assert isinstance(model, QwenVL)
    with Engine(model).open(temperature=0, max_new_tokens=1, max_pixels=4 * 28 * 28) as session:
        session.step(chunk(), trace=trace)
    return trace.logits[0]


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / (theirs - theirs.mean()).norm())


# --- ids --------------------------------------------------------------------------------------------------------

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


@pytest.mark.parametrize("command", ["info", "watch", "verify", "train"])
def test_no_tokenizer_is_refused_by_every_command(
    folder: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
    stage = tmp_path / "stage.toml"
    (tmp_path / "data.jsonl").touch()
    stage.write_text(f'model = "{folder}"\ndata = ["{tmp_path}/data.jsonl"]\noutput = "{tmp_path}/out"\n')
    arguments = {
        "info": ["--model", str(folder)],
        "watch": ["arcade:pong", "--duration", "1", "--model", str(folder)],
        "verify": ["--seconds", "2", "--model", str(folder)],
        "train": [str(stage), "--dry-run"],
    }
    assert cli.main([command, *arguments[command]]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "has no tokenizer: tokenizer.json" in err


def drop_words(table: dict[str, Any]) -> None:
    """The vocabulary ends early; the marks keep their ids."""
    vocabulary = table["model"]["vocab"]
    table["model"]["vocab"] = {word: i for word, i in vocabulary.items() if i < 200}


def drop_some_words(table: dict[str, Any]) -> None:
    vocabulary = table["model"]["vocab"]
    table["model"]["vocab"] = {word: i for word, i in vocabulary.items() if not 180 < i < 250}


def add_words_without_merges(table: dict[str, Any]) -> None:
    vocabulary = table["model"]["vocab"]
    for token in table["added_tokens"]:
        token["id"] += 100
    vocabulary |= {f"word{i:03}": 256 + i for i in range(100)}


def lower_case(table: dict[str, Any]) -> None:
    table["normalizer"] = {"type": "Lowercase"}


def no_decoder(table: dict[str, Any]) -> None:
    table["decoder"] = None


def no_marks(table: dict[str, Any]) -> None:
    for token in table["added_tokens"]:
        token["content"] = token["content"].replace("<|", "<").replace("|>", ">")


def plain_marks(table: dict[str, Any]) -> None:
    for token in table["added_tokens"]:
        token["special"] = False


def swapped(table: dict[str, Any]) -> None:
    ids = {token["content"]: token["id"] for token in table["added_tokens"]}
    for token in table["added_tokens"]:
        if token["content"] in ("<|video_pad|>", "<|vision_end|>"):
            other = {"<|video_pad|>": "<|vision_end|>", "<|vision_end|>": "<|video_pad|>"}[token["content"]]
            token["id"] = ids[other]
    table["added_tokens"].sort(key=lambda token: token["id"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (drop_words, "config.json says vision_start_token_id 259, its tokenizer 203"),
        (drop_some_words, "tokenizer knows 194 of the ids up to 255, not 181"),
        (add_words_without_merges, "no merge of its tokenizer makes|vocab_size|config.json says"),
        (lower_case, "tokenizer makes .* of 'Time="),
        (no_decoder, "tokenizer makes .* of 'system"),
        (no_marks, r"has no <\|im_start\|> and no <\|im_end\|>"),
        (plain_marks, "no special token|reads text as marks"),
        (swapped, r"vision_end_token_id \d+, its tokenizer \d+ for <\|vision_end\|>"),
    ],
)
def test_another_models_tokenizer_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None], match: str
) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists() and change in (no_marks, plain_marks):
            (folder / name).write_text("{}")
    edit_tokenizer(folder, change)
    refused(folder, match)


def test_an_empty_tokenizer_is_refused(folder: Path) -> None:
    edit_tokenizer(folder, lambda table: table.update(added_tokens=[], model=table["model"] | {"vocab": {}}))
    (folder / "tokenizer_config.json").unlink()
    refused(folder, "tokenizer")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"{", b"[1, 2]", b"\xff\xfe{}", b"null", b'"text"', b"", b"[" * 100_000])
def test_a_json_file_that_is_none_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    refused(folder, f"{name} (is not valid JSON|must hold a JSON object)")


def test_a_vocabulary_larger_than_the_embedding_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 260
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, r"ids up to 262, config.json a vocab_size of 260")


@pytest.mark.parametrize("key", ["vision_start_token_id", "vision_end_token_id", "video_token_id", "image_token_id"])
def test_ids_of_the_config_must_be_the_tokenizers(folder: Path, key: str) -> None:
    edit(folder / "config.json", **{key: 7})
    refused(folder, f"config.json says {key} 7, its tokenizer")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (5_000_000, "outside the vocabulary"),
        (-1, "outside the vocabulary"),
        ([258, 300], "outside the vocabulary"),
        (40, "no special token"),
        ("258", "must be an id or a list of ids"),
        ([258, None], "must be an id or a list of ids"),
        ({"id": 2}, "must be an id or a list of ids"),
        (True, "must be an id or a list of ids"),
        (258.0, "must be an id or a list of ids"),
    ],
)
def test_wrong_ends_of_a_reply_are_refused(folder: Path, value: Any, match: str) -> None:
    edit(folder / "generation_config.json", eos_token_id=value)
    refused(folder, f"generation_config.json: eos_token_id.*{match}")


def test_no_end_but_the_turns_is_fine(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=None)
    assert load_model(folder, device="cpu").end_tokens == {258}


# --- quantized --------------------------------------------------------------------------------------------------

METHODS: list[tuple[dict[str, Any], str]] = [
    ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq"),
    ({"quant_method": "gptq", "bits": 4}, "gptq"),
    ({"bits": 4, "group_size": 128, "desc_act": False}, "gptq"),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
    ({"load_in_8bit": True}, "bitsandbytes"),
    ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt"),
    ({"quant_method": "hqq"}, "hqq"),
    ({"quant_method": "brand-new"}, "brand-new"),
    ({"quant_method": 4}, "an unnamed method"),
    ({}, "an unnamed method"),
]


@pytest.mark.parametrize(("section", "method"), METHODS)
@pytest.mark.parametrize("place", [(), ("text_config",), ("vision_config",)])
def test_a_quantized_checkpoint_is_refused_by_its_method(
    folder: Path, section: dict[str, Any], method: str, place: tuple[str, ...]
) -> None:
    config = json.loads((folder / "config.json").read_text())
    inner = config[place[0]] if place else config
    inner["quantization_config"] = section
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, f"quantized with {method} .*take the checkpoint that it was made of")


@pytest.mark.parametrize("section", ["awq", [1], 4, True])
def test_a_quantization_that_is_no_table_is_refused(folder: Path, section: Any) -> None:
    edit(folder / "config.json", quantization_config=section)
    refused(folder, "is quantized with")


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"])
def test_a_method_in_a_file_of_its_own_is_seen(folder: Path, name: str) -> None:
    edit(folder / name, quantization={"quant_algo": "FP8"}, bits=4)
    refused(folder, f"{name} says that the weights are quantized")


def test_no_quantization_is_none(folder: Path) -> None:
    edit(folder / "config.json", quantization_config=None)
    load_model(folder, device="cpu")


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.uint8, torch.float8_e4m3fn, torch.int64])
def test_weights_that_are_no_floats_are_refused_whatever_the_config_says(folder: Path, dtype: torch.dtype) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        key = next(key for key in weights if key.endswith("q_proj.weight"))
        weights[key] = weights[key].to(dtype)

    rewrite(folder, spoil)
    refused(folder, r"1 weights are no floats, such as .*q_proj.weight", frontend=False)


def fp8(folder: Path, block: tuple[int, int] | None, scale_dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Quantize the decoder of a folder as the published FP8 checkpoints are; what its weights are then."""
    plain: dict[str, torch.Tensor] = {}

    def quantize(weights: dict[str, torch.Tensor]) -> None:
        for key in [key for key in weights if "visual" not in key and key.endswith("proj.weight")]:
            weight = weights[key].float()
            rows, columns = block or weight.shape
            height, width = -(-weight.shape[0] // rows), -(-weight.shape[1] // columns)
            factors = torch.empty(height, width)
            parts = torch.empty_like(weight)
            for i in range(height):
                for j in range(width):
                    area = (slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns))
                    factors[i, j] = weight[area].abs().max() / 448
                    factors[i, j] = factors[i, j].to(scale_dtype).float()
                    parts[area] = weight[area] / factors[i, j]
            small = parts.to(torch.float8_e4m3fn)
            weights[key] = small
            weights[f"{key}_scale_inv"] = factors.to(scale_dtype)
            wide = factors.repeat_interleave(rows, 0)[: weight.shape[0]].repeat_interleave(columns, 1)
            plain[key] = small.float() * wide[:, : weight.shape[1]]

    rewrite(folder, quantize)
    section = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
    edit(folder / "config.json", quantization_config=section | ({"weight_block_size": list(block)} if block else {}))
    return plain


@pytest.mark.parametrize("block", [(128, 128), (48, 40), None])
@pytest.mark.parametrize("scale_dtype", [torch.bfloat16, torch.float32])
def test_fp8_is_read_as_what_it_stands_for(
    whole: Path, folder: Path, tmp_path: Path, block: tuple[int, int] | None, scale_dtype: torch.dtype
) -> None:
    plain = fp8(folder, block, scale_dtype)
    assert len(plain) == 21
    same = Path(shutil.copytree(whole, tmp_path / "same"))
    rewrite(same, lambda weights: weights.update(plain))
    wanted = first_logits(same)
    torch.testing.assert_close(first_logits(folder), wanted, rtol=0, atol=0)
    assert 1e-5 < apart(wanted, first_logits(whole)) < 0.2
    load_model(folder, device="cpu", dtype="bf16")
    assert not hasattr(load_for_training(folder, torch.bfloat16, "sdpa").config, "quantization_config")


def test_fp8_that_lacks_its_scales_is_refused(folder: Path) -> None:
    fp8(folder, (128, 128), torch.float32)
    rewrite(folder, lambda weights: weights.pop(next(key for key in weights if key.endswith("scale_inv"))))
    refused(folder, "has no .*weight_scale_inv", frontend=False)


def test_fp8_whose_blocks_do_not_fit_is_refused(folder: Path) -> None:
    fp8(folder, (32, 32), torch.float32)
    config = json.loads((folder / "config.json").read_text())
    for wrong in ([64, 64], [0, 0], None, "128", [32.0, 32.0]):
        edit(folder / "config.json", quantization_config=config["quantization_config"] | {"weight_block_size": wrong})
        refused(folder, "do not fit weight_block_size", frontend=False)


def test_torchao_checkpoints_run(whole: Path, tmp_path: Path) -> None:
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    from transformers import TorchAoConfig

    kind = tiny.FAMILIES["qwen2_5_vl"].stock
    config = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    model = kind.from_pretrained(whole, quantization_config=config, dtype=torch.bfloat16)
    path = tmp_path / "ao"
    shutil.copytree(whole, path)
    (path / "model.safetensors").unlink()
    model.save_pretrained(path)
    logits = first_logits(path, dtype="bf16")
    assert apart(logits, first_logits(whole, dtype="bf16")) < 0.2


@pytest.mark.parametrize("name", ["self_attn.k_proj", "self_attn.o_proj", "mlp.down_proj", "mlp.gate_proj"])
def test_a_layer_that_is_no_plain_matrix_is_never_read_as_one(name: str) -> None:
    class Scaled(torch.nn.Linear):
        """As adapters and quantizers have it: what it computes is not its weight."""

    parent, _, last = name.partition(".")
    for spoil in ("class", "dtype"):
        hf = tiny.stock()
        layer = getattr(hf.model.language_model.layers[1], parent)
        module = getattr(layer, last)
        if spoil == "class":
            module.__class__ = Scaled
        else:
            module.weight = torch.nn.Parameter(module.weight.to(torch.int8), requires_grad=False)
        with pytest.raises(ModelError, match="not a plain matrix of floats"):
            tiny.wrap(hf)


# --- edges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "model.safetensors"])
def test_a_file_that_may_not_be_read_is_named(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def closed(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", closed)
    refused(folder, f"{name}.*Permission denied", frontend=name != "model.safetensors")


def test_a_folder_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", closed)
    refused(folder, f"{folder} cannot be read: Permission denied")


@pytest.mark.parametrize("name", ["a" * 5000, "nul\0byte", "x" * 300 + "/y"])
def test_a_name_that_no_folder_can_have_is_one_line(name: str) -> None:
    with pytest.raises(ModelError):
        load_model(name)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') }}",
        "{% for",
        "{{ messages[7].content.x.y }}",
        "{{ 1 // 0 }}",
        "{{ range(10**12)|list }}",
    ],
)
def test_a_chat_template_that_fails_is_one_line(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    refused(folder, "chat template cannot be used")


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be from 1 to 1000"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be"),
        ({"hidden_size": 0}, "hidden_size must be"),
        ({"vocab_size": -5}, "vocab_size must be"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps must be"),
        ({"num_attention_heads": None}, "."),
        ({"num_key_value_heads": 3}, "."),
        ({"hidden_act": "nonsense"}, "."),
        ({"rope_parameters": None}, "."),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": "abc", "rope_theta": 1e4}}, "."),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 0}}, "rope_theta must"),
    ],
)
def test_nonsense_numbers_are_refused(folder: Path, entries: dict[str, Any], match: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= entries
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, match, frontend=match != ".")


@pytest.mark.parametrize(
    ("streaming", "match"),
    [
        ({"turns": "many"}, "turns must be a number, not 'many'"),
        ({"vision": None}, "vision must be"),
        ({"history": 7}, "history"),
        ({"sink": -1}, "must be 0 or more"),
        ({"vision": 1e9}, "vision must be at most 3,600"),
        ({"text": 10**9}, "text must be at most"),
        ({"max_new_tokens": 10**9}, "max_new_tokens must be at most"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": float("nan")}, "temperature must be a number"),
        ({"max_new_tokens": 1.5}, "max_new_tokens must be a whole number"),
        ({"max_new_tokens": 0}, "max_new_tokens 1 or more"),
        ({"repetition_penalty": None}, "repetition_penalty must be a number"),
        ({"top_p": 2}, "top_p must be"),
        ({"forced": "yes"}, "forced must be"),
        ({"instruction": ["go"]}, "instruction must be a text"),
        ({"system": 3}, "system must be a text"),
        ([1], "streaming must be a JSON object"),
        ("fast", "streaming must be a JSON object"),
    ],
)
def test_streaming_of_a_wrong_type_is_refused(folder: Path, streaming: Any, match: str) -> None:
    edit(folder / "generation_config.json", streaming=streaming)
    refused(folder, f"generation_config.json: .*{match}")


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"image_mean": [1, 2]}, "image_mean must be three numbers"),
        ({"image_mean": "grey"}, "image_mean must be three numbers"),
        ({"image_std": [1, 0, 1]}, "image_std must be three numbers above 0"),
        ({"image_std": [None, 1, 1]}, "image_std must be three numbers above 0"),
        ({"patch_size": 16}, "patch_size is 16, by config.json 14"),
        ({"merge_size": "2"}, "merge_size must be a whole number"),
        ({"temporal_patch_size": -2}, "temporal_patch_size must be a whole number"),
        ({"max_pixels": "many"}, "max_pixels must be a whole number"),
        ({"max_pixels": 10}, "less than one token"),
        ({"min_pixels": 7840, "max_pixels": 784}, "min_pixels 7840 is above max_pixels 784"),
        ({"size": {"longest_edge": -1}}, "longest_edge must be a whole number"),
    ],
)
@pytest.mark.parametrize(
    "name", ["preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"]
)
def test_a_preprocessor_of_a_wrong_type_is_refused(
    folder: Path, entries: dict[str, Any], match: str, name: str
) -> None:
    edit(folder / "generation_config.json", streaming={})
    edit(folder / name, **({"video_processor": entries} if name == "processor_config.json" else entries))
    refused(folder, f"{name}: .*{match}")


def paths(table: Mapping[str, Any], at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys of a JSON table, those inside its tables included."""
    out = []
    for key, value in table.items():
        out.append((*at, key))
        if isinstance(value, dict) and len(value) < 100:
            out += paths(value, (*at, key))
    return out


GONE = object()


@pytest.mark.slow
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_folder_with_one_wrong_entry_works_or_is_one_line(family: str, tmp_path: Path) -> None:
    """Whatever a JSON file says, either a step runs and its logits are numbers, or one line says why not."""
    good = tiny.write_checkpoint(family, tmp_path / "good")
    edit(good / "generation_config.json", streaming={"vision": 4, "turns": 4, "sink": 32, "text": 32, "system": ""})
    mean = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    edit(good / "preprocessor_config.json", min_pixels=4096, max_pixels=4096, size={"longest_edge": 9}, **mean)
    choice, outcomes = random.Random(family), {"works": 0, "refused": 0, "lines": 0}
    for name in ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        table = json.loads((good / name).read_text())
        for spot in choice.sample(paths(table), min(12, len(paths(table)))):
            value = choice.choice([GONE, None, "nonsense", -1, 0, [], {}, 1e30, True])
            changed = json.loads((good / name).read_text())
            inner = changed
            for key in spot[:-1]:
                inner = inner[key]
            if value is GONE:
                del inner[spot[-1]]
            else:
                inner[spot[-1]] = value
            (good / name).write_text(json.dumps(changed))
            try:
                assert bool(first_logits(good).isfinite().all()), (name, spot, value)
                outcomes["works"] += 1
            except ModelError as error:
                outcomes["refused" if "\n" not in str(error) else "lines"] += 1
            except Exception as error:
                raise AssertionError(f"{name} {spot} = {value!r}: {error!r}") from error
            (good / name).write_text(json.dumps(table))
    assert min(outcomes["works"], outcomes["refused"]) > 5
    assert outcomes["lines"] == 0


# --- files ------------------------------------------------------------------------------------------------------

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "generation_config.json"])
def test_a_git_lfs_pointer_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(POINTER)
    refused(folder, f"{name} is a git-lfs pointer", frontend=name != "model.safetensors")


def split(folder: Path) -> list[Path]:
    """The weights in shards of which an index tells."""
    model = tiny.FAMILIES["qwen2_5_vl"].stock.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    files = sorted(folder.glob("model-*.safetensors"))
    assert len(files) > 2
    return files


def test_a_pointer_in_place_of_one_shard_is_named(folder: Path) -> None:
    shard = split(folder)[1]
    shard.write_bytes(POINTER)
    refused(folder, f"{shard.name} is a git-lfs pointer", frontend=False)


def test_a_shard_cut_short_is_named(folder: Path) -> None:
    shard = split(folder)[1]
    shard.write_bytes(shard.read_bytes()[:-8])
    refused(folder, f"{shard.name} cannot be loaded, it is damaged or cut short", frontend=False)


def test_shards_that_are_not_there_are_named(folder: Path) -> None:
    shard = split(folder)[1]
    load_model(folder, device="cpu")
    shard.unlink()
    refused(folder, rf"lacks 1 of \d+ files that model.safetensors.index.json names: {shard.name}", frontend=False)


@pytest.mark.parametrize("table", [None, [], {}, {"a": 3}, {"a": "../model.safetensors"}, {"a": None}, "x"])
def test_an_index_that_names_no_files_is_refused(folder: Path, table: Any) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    refused(folder, r"model.safetensors.index.json: weight_map must say", frontend=False)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("pytorch_model.bin", "only pickled weights"),
        ("model.gguf", "only GGUF files"),
        ("part.safetensors", "only part.safetensors"),
        ("notes.txt", "its weights are missing"),
    ],
)
def test_a_folder_without_safetensors_says_what_it_has(folder: Path, name: str, match: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    refused(folder, match, frontend=False)


def test_a_gguf_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "x.gguf", "x.gguf is a GGUF file")
    refused(tmp_path, "has no config.json, only .gguf files")
    refused("nowhere/x.gguf", "x.gguf is a GGUF file")
    (tmp_path / "model.safetensors").touch()
    refused(tmp_path / "model.safetensors", "is a file; a checkpoint is a folder")


def test_sizes_that_do_not_fit_are_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 400
    (folder / "config.json").write_text(json.dumps(config))
    refused(
        folder,
        r"embed_tokens.weight: \(264, 64\) in the file, \(400, 64\) asked for \(vocab_size\)|lm_head",
        frontend=False,
    )
    config["text_config"] |= {"vocab_size": 264, "intermediate_size": 96}
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, r"9 weights are not of the size .*mlp.*in the file", frontend=False)


@pytest.mark.parametrize("section", ["text_config", "vision_config"])
@pytest.mark.parametrize("content", [{}, None])
def test_a_config_of_a_far_larger_model_is_refused_before_memory_is_taken(
    folder: Path, section: str, content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder / "config.json", **{section: content})
    kind = tiny.FAMILIES["qwen2_5_vl"].stock
    monkeypatch.setattr(kind, "from_pretrained", lambda *_, **__: pytest.fail("took memory"))
    refused(
        folder, "its config.json asks for [0-9,]+ numbers, its files have 228,832|must be|cannot be", frontend=False
    )


def test_missing_weights_are_named(folder: Path) -> None:
    rewrite(folder, lambda weights: weights.pop("lm_head.weight"))
    refused(folder, "lacks 1 weights that its config.json asks for, such as lm_head.weight", frontend=False)
    with pytest.raises(ModelError, match="lacks 1 weights"):
        load_for_training(folder, torch.float32, "sdpa")


def test_weights_that_are_not_asked_for_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}
    (folder / "config.json").write_text(json.dumps(config))
    assert cli.main(["info", "--model", str(folder), "--device", "cpu"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "12 weights that its config.json does not ask for: model.language_model.layers.2.input" in lines[0]


def test_weights_that_are_no_numbers_are_refused(folder: Path) -> None:
    rewrite(folder, lambda weights: weights["lm_head.weight"].fill_(float("nan")))
    refused(folder, "its logits are not finite in float32", frontend=False)


# --- adapters ---------------------------------------------------------------------------------------------------


def write_adapter(base: Path, path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model = tiny.FAMILIES["qwen2_5_vl"].stock.from_pretrained(base)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "qkv"], init_lora_weights=False)
    peft.get_peft_model(model, config).save_pretrained(path)


def test_an_adapter_beside_the_weights_is_refused(folder: Path) -> None:
    write_adapter(folder, folder)
    match = "has an adapter beside the weights .*adapter_config.json.*streamingvlm merge"
    refused(folder, match)
    with pytest.raises(ModelError, match=match):
        load_for_training(folder, torch.float32, "sdpa")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
def test_any_file_of_an_adapter_is_enough(folder: Path, name: str) -> None:
    (folder / name).write_text("{}")
    refused(folder, f"adapter beside the weights \\({name}\\)")


def test_a_bare_adapter_says_how_to_merge_it(whole: Path, tmp_path: Path) -> None:
    write_adapter(whole, tmp_path / "run" / "adapter")
    refused(tmp_path / "run" / "adapter", "is an adapter .*streamingvlm merge RUN -o FOLDER")
    refused(tmp_path / "run", "is a run that trained an adapter; merge it with `streamingvlm merge .*run -o FOLDER`")


# --- pixels -----------------------------------------------------------------------------------------------------

BUDGET = {"min_pixels": 50_176, "max_pixels": 200_704}


@pytest.mark.parametrize(
    "files",
    [
        {"preprocessor_config.json": BUDGET},
        {"preprocessor_config.json": {"size": {"shortest_edge": 50_176, "longest_edge": 200_704}}},
        {"preprocessor_config.json": {"size": BUDGET, "min_pixels": None, "max_pixels": None}},
        {"video_preprocessor_config.json": {"size": {"shortest_edge": 50_176, "longest_edge": 200_704}}},
        {"processor_config.json": {"video_processor": {"size": {"shortest_edge": 50_176, "longest_edge": 200_704}}}},
        {"processor_config.json": {"video_processor": BUDGET}},
        {"preprocessor_config.json": BUDGET | {"size": {"shortest_edge": 1, "longest_edge": 9999}}},
        {"preprocessor_config.json": {"image_mean": [0.5, 0.5, 0.5]}, "generation_config.json": BUDGET},
    ],
)
def test_the_budget_of_a_folder_made_for_streams_holds(folder: Path, files: dict[str, Any]) -> None:
    streaming = files.get("generation_config.json", {})
    edit(folder / "generation_config.json", streaming=streaming)
    for name in files.keys() - {"generation_config.json"}:
        edit(folder / name, **files[name])
    patcher = load_frontend(folder).patcher
    assert (patcher.min_pixels, patcher.max_pixels) == (50_176, 200_704)


def test_a_budget_is_a_whole_videos_where_the_folder_is_not_made_for_streams(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", size={"shortest_edge": 50_176, "longest_edge": 200_704})
    assert load_frontend(folder).patcher.max_pixels == 768 * 784


def test_a_small_budget_lowers_the_least_too(folder: Path) -> None:
    edit(folder / "generation_config.json", streaming={})
    edit(folder / "preprocessor_config.json", size={"longest_edge": 7840})
    patcher = load_frontend(folder).patcher
    assert (patcher.min_pixels, patcher.max_pixels) == (7840, 7840)
