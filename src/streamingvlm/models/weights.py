"""The weights of a folder: looked at before they are read, and read as plain matrices or not at all."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..core.errors import ModelError
from .edge import library
from .files import check_pointer, exists, list_files, read_json

#: Ways of quantizing that are undone while loading; ``--weights`` makes a decoder small again.
FP8, TORCHAO = "fp8", "torchao"

#: Where a method of quantizing is named, in config.json and its sections or in a file of its own.
_SECTIONS = ("quantization_config", "compression_config")
_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")

_FLOATS = {"F64", "F32", "F16", "BF16"}
_SCALE = "_scale_inv"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file, as the file's header says."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def load_weights(kind: Any, folder: Path, name: str, config: Any, dtype: torch.dtype, attention: str = "sdpa") -> Any:
    """The model of transformers class ``kind``, on the CPU in ``dtype``, every matrix plain.

    :class:`ModelError` where config.json and the files do not fit together: what is missing or of another size would
    be filled with noise. What the config does not ask for is told as a warning.
    """
    method, section = quantization(folder)
    entries = read_entries(folder)
    for part in (config, config.text_config, config.vision_config):
        vars(part).pop("quantization_config", None)
    options: dict[str, Any] = {"pretrained_model_name_or_path": folder, "use_safetensors": True}
    if method == FP8:
        options = {"pretrained_model_name_or_path": None, "state_dict": _dequantized(entries, section, dtype, folder)}
    elif method == TORCHAO:
        config.quantization_config = dict(section)
    else:
        _check_floats(entries)
    if method != TORCHAO:
        _check_amount(kind, config, entries, name)
    with library(f"{name} cannot be loaded"):
        hf, report = kind.from_pretrained(
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            **options,
        )
    _check_report(report, name)
    _make_plain(hf, dtype, name)
    return hf


def quantization(folder: Path) -> tuple[str | None, Mapping[str, Any]]:
    """How the folder's weights are quantized: None, :data:`FP8` or :data:`TORCHAO`, and what its config says of it.

    :class:`ModelError` for every other way.
    """
    config = read_json(folder, "config.json")
    parts = [config, *(config.get(name) for name in ("text_config", "vision_config"))]
    found = [part[key] for part in parts if isinstance(part, dict) for key in _SECTIONS if part.get(key) is not None]
    for name in _FILES if not found else ():
        if exists(folder / name):
            raise _refused(f"{folder / name} says that the weights are quantized ({_method(read_json(folder, name))})")
    if not found:
        return None, {}
    section = found[0]
    method = _method(section)
    if method not in (FP8, TORCHAO) or not isinstance(section, dict):
        raise _refused(f"{folder} is quantized with {method} (config.json, quantization_config)")
    return method, section


def _method(section: Any) -> str:
    if not isinstance(section, dict):
        return f"{section!r}"
    nested = section.get("quantization")
    inner = nested if isinstance(nested, dict) else {}
    says = (
        section.get("quant_method"),
        inner.get("quant_algo"),
        section.get("format"),
        section.get("checkpoint_format"),
    )
    named = next((one for one in says if isinstance(one, str)), None)
    if named is None and (section.get("load_in_4bit") or section.get("load_in_8bit")):
        named = "bitsandbytes"
    if named is None and "bits" in section:
        named = "gptq"
    return named or "an unnamed method"


def _refused(what: str) -> ModelError:
    return ModelError(
        f"{what}; only fp8 with weight_scale_inv and torchao are run: take the checkpoint that it was made of, and "
        "--weights int8, fp8 or int4 to quantize it here"
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would read. :class:`ModelError` if there are none or one is missing."""
    if "transformers_weights" in read_json(folder, "config.json"):
        raise ModelError(f"{folder / 'config.json'}: transformers_weights is not supported; name it model.safetensors")
    if exists(folder / "model.safetensors"):
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not exists(index):
        raise ModelError(f"{folder} has no model.safetensors{_instead(folder)}")
    table = read_json(folder, index.name).get("weight_map")
    names = list(table.values()) if isinstance(table, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ModelError(f"{index}: weight_map must say for each weight which file of the folder has it")
    files = [folder / name for name in dict.fromkeys(names)]
    if lacking := [path.name for path in files if not exists(path)]:
        raise ModelError(f"{folder} lacks {len(lacking)} of {len(files)} files that {index.name} names: {lacking[0]}")
    return files


def _instead(folder: Path) -> str:
    if pickled := list_files(folder, "*.bin") or list_files(folder, "*.pt*"):
        return f", only pickled weights ({pickled[0].name}), which are never loaded; save them as safetensors"
    if gguf := list_files(folder, "*.gguf"):
        return f", only GGUF files ({gguf[0].name}), which llama.cpp runs; take the checkpoint that they were made of"
    if other := list_files(folder, "*.safetensors"):
        return f" and no model.safetensors.index.json, only {other[0].name}"
    return " and no model.safetensors.index.json: its weights are missing"


def read_entries(folder: Path) -> dict[str, Entry]:
    """What the headers of the weights' files say. :class:`ModelError` names the file that is damaged or cut short."""
    entries = {}
    for path in weight_files(folder):
        check_pointer(path)
        with library(f"{path} cannot be loaded, it is damaged or cut short"), safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118  it is no dict
                part = file.get_slice(key)
                entries[key] = Entry(path, str(part.get_dtype()), tuple(part.get_shape()))
    return entries


def _check_amount(kind: Any, config: Any, entries: Mapping[str, Entry], name: str) -> None:
    """Refuse a config that asks for far more than the files have, before it is given memory filled with noise."""
    with library(f"{name} cannot be loaded"), torch.device("meta"):
        wanted = kind(deepcopy(config))
    asked = sum(weight.numel() for weight in wanted.parameters())
    there = sum(math.prod(entry.shape) for entry in entries.values())
    if asked > 2 * there:
        raise ModelError(
            f"{name} lacks weights: its config.json asks for {asked:,} numbers, its files have {there:,}; "
            "the two are not of one model"
        )


def _check_floats(entries: Mapping[str, Entry]) -> None:
    """Weights that are no floats are quantized, whatever the config says; buffers may count."""
    odd = [key for key, one in entries.items() if one.dtype not in _FLOATS | {"I64", "BOOL"} or _counts(key, one)]
    if odd:
        raise _refused(
            f"{entries[odd[0]].file}: {len(odd)} weights are no floats, such as {odd[0]} ({entries[odd[0]].dtype}), "
            "though config.json names no quantization"
        )


def _counts(key: str, entry: Entry) -> bool:
    return key.endswith("weight") and entry.dtype not in _FLOATS


def _dequantized(
    entries: Mapping[str, Entry], section: Mapping[str, Any], dtype: torch.dtype, folder: Path
) -> dict[str, Tensor]:
    """Weights in ``dtype``, those in FP8 times the scales of their blocks."""
    out: dict[str, Tensor] = {}
    with ExitStack() as stack:
        files = {path: stack.enter_context(safe_open(path, "pt")) for path in {one.file for one in entries.values()}}
        for key, entry in entries.items():
            if key.endswith((_SCALE, "activation_scale", "input_scale")):
                continue
            with library(f"{entry.file}: {key} cannot be read"):
                tensor = files[entry.file].get_tensor(key)
            if entry.dtype.startswith("F8"):
                scale = entries.get(key + _SCALE)
                if scale is None:
                    raise _refused(f"{folder} is quantized with fp8, but {key} has no {key + _SCALE}")
                with library(f"{scale.file}: {key + _SCALE} cannot be read"):
                    factors = files[scale.file].get_tensor(key + _SCALE)
                tensor = tensor.float() * _expanded(factors.float(), tensor.shape, section, f"{folder}: {key}")
            elif entry.dtype not in _FLOATS and _counts(key, entry):
                raise _refused(f"{folder} is quantized with fp8, but {key} is of {entry.dtype}")
            out[key] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return out


def _expanded(factors: Tensor, shape: torch.Size, section: Mapping[str, Any], what: str) -> Tensor:
    """One factor for every weight, from one for all, one a row, or one a block."""
    if factors.numel() == 1:
        return factors.reshape(())
    if factors.numel() == shape[0] and factors.shape[0] == shape[0] and factors.numel() != math.prod(shape):
        return factors.reshape(-1, 1)
    block = section.get("weight_block_size")
    sizes = block if isinstance(block, list) and len(block) == 2 and all(type(one) is int for one in block) else [0, 0]
    if len(shape) != 2 or min(sizes) < 1 or list(factors.shape) != [-(-shape[i] // sizes[i]) for i in (0, 1)]:
        raise _refused(f"{what}: scales of shape {tuple(factors.shape)} do not fit weight_block_size {block!r}")
    rows = factors.repeat_interleave(sizes[0], 0)[: shape[0]]
    return rows.repeat_interleave(sizes[1], 1)[:, : shape[1]]


def _check_report(report: Mapping[str, Any], name: str) -> None:
    if missing := sorted(report["missing_keys"]):
        # transformers would fill them with noise.
        raise ModelError(f"{name} lacks {len(missing)} weights that its config.json asks for, such as {missing[0]}")
    if mismatched := sorted(report["mismatched_keys"]):
        key, found, asked = mismatched[0]
        words = " (vocab_size)" if "embed_tokens" in key or key.startswith("lm_head") else ""
        raise ModelError(
            f"{name} cannot be loaded: {len(mismatched)} weights are not of the size that config.json asks for, such "
            f"as {key}: {tuple(found)} in the file, {tuple(asked)} asked for{words}"
        )
    if unexpected := sorted(report["unexpected_keys"]):
        names = ", ".join(unexpected[:3]) + (", ..." if len(unexpected) > 3 else "")
        _LOG.warning("%s has %d weights that its config.json does not ask for: %s", name, len(unexpected), names)


def _make_plain(hf: Any, dtype: torch.dtype, name: str) -> None:
    """Undo torchao's quantization; whatever is no plain float matrix then is refused."""
    for module_name, module in hf.named_modules():
        for key, weight in list(module.named_parameters(recurse=False)):
            if type(weight.data) is not Tensor:
                with library(f"{name}: {module_name}.{key} cannot be dequantized"):
                    plain = weight.data.dequantize().to(dtype)
                setattr(module, key, nn.Parameter(plain, requires_grad=weight.requires_grad))
            elif not weight.is_floating_point():
                raise _refused(f"{name}: {module_name}.{key} is {weight.dtype}, no matrix of floats")
    hf.hf_quantizer = None
    hf.is_quantized = False
    vars(hf.config).pop("quantization_config", None)


def check_run(hf: Any, name: str) -> None:
    """Run transformers' own layers once, on one patch of video and two tokens.

    Numbers in config.json that no check knows end here, and weights that are no numbers. :class:`ModelError` names the
    dtype if the logits are not finite.
    """
    vision = hf.config.vision_config
    side, device = vision.spatial_merge_size, hf.device
    with library(f"{name} cannot be run as its config.json says"), torch.no_grad():
        width = 3 * vision.temporal_patch_size * vision.patch_size**2
        pixels = torch.zeros(side * side, width, dtype=hf.dtype, device=device)
        seen = hf.model.visual(pixels, grid_thw=torch.tensor([[1, side, side]], device=device)).pooler_output
        embeds = hf.model.language_model.embed_tokens(torch.tensor([0, 1], device=device))
        states = torch.cat([embeds, torch.cat(list(seen)) if isinstance(seen, tuple | list) else seen])[None]
        positions = torch.arange(states.shape[1], device=device).expand(3, 1, -1)
        hidden = hf.model.language_model(inputs_embeds=states, position_ids=positions, use_cache=False)
        finite = bool(hf.lm_head(hidden.last_hidden_state).isfinite().all())
    if not finite:
        dtype = str(hf.dtype).removeprefix("torch.")
        raise ModelError(
            f"{name}: its logits are not finite in {dtype}; its weights are damaged, or need another --dtype"
        )
