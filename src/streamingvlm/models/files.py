"""The small files of a checkpoint folder: read, or refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..core.errors import ModelError
from .edge import library

#: How a file begins that git has put in the place of a large one.
_POINTER = b"version https://git-lfs"

#: Numbers of config.json that decide over memory and loops, and what a model can have. Others transformers checks.
_BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("num_hidden_layers", "depth"), (1, 1000)),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads"), (1, 4096)),
    **dict.fromkeys(("hidden_size", "embed_dim", "out_hidden_size"), (1, 2**17)),
    **dict.fromkeys(("intermediate_size", "num_position_embeddings"), (1, 2**20)),
    **dict.fromkeys(("head_dim", "window_size", "patch_size"), (1, 2**14)),
    **dict.fromkeys(("temporal_patch_size", "spatial_merge_size"), (1, 64)),
    **dict.fromkeys(("tokens_per_second", "mlp_ratio"), (1e-3, 1e3)),
    "rope_theta": (2, 1e12),
    "rms_norm_eps": (1e-12, 1e-2),
    **dict.fromkeys(("in_channels", "in_chans"), (3, 3)),
    "vocab_size": (1, 2**24),
}


_WANTED = "a checkpoint folder as written by save_pretrained is needed"
_ADAPTER = (".json", ".safetensors", ".bin")


def check_pointer(path: Path) -> None:
    """Refuse what git-lfs left in the place of a file that it has not fetched."""
    with library(f"{path} cannot be read"), path.open("rb") as file:
        start = file.read(len(_POINTER))
    if start == _POINTER:
        raise ModelError(f"{path} is a git-lfs pointer, not the file itself; fetch it: git lfs pull")


def check_text(path: Path) -> None:
    """Refuse a text file that is there and cannot be read."""
    if exists(path):
        check_pointer(path)
        with library(f"{path} cannot be read"):
            path.read_text(encoding="utf-8")


def exists(path: Path) -> bool:
    """Whether there is such a file; :class:`ModelError` if the folder does not let one look."""
    with library(f"{path} cannot be read"):
        return path.is_file()


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of the folder, empty if it is not there. :class:`ModelError` if it cannot be read or is broken."""
    path = folder / name
    if not exists(path):
        return {}
    check_pointer(path)
    with library(f"{path} is not valid JSON in UTF-8"):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ModelError(f"{path} must hold a JSON object, not {_what(content)}")
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, whose numbers are such as a model can have. Adapters and folders without one are refused."""
    refuse_adapter(folder)
    path = folder / "config.json"
    if not exists(path):
        if kind := next((one for one in ("gguf", "bin", "pt") if list_files(folder, f"*.{one}")), None):
            raise ModelError(f"{folder} has no config.json, only .{kind} files; {_WANTED}")
        raise ModelError(f"{folder} has no config.json; {_WANTED}")
    config = read_json(folder, "config.json")
    _check_numbers(config, path)
    return config


def refuse_adapter(folder: Path) -> None:
    """An adapter is not applied: transformers would apply one to a part of the model, and only if peft is installed."""
    names = [path.name for path in list_files(folder, "adapter_*") if path.suffix in _ADAPTER]
    if names:
        beside = exists(folder / "config.json")
        what = f"{folder} has an adapter beside the weights" if beside else f"{folder} is an adapter"
        rest = ", or move its files away to run the base alone" if beside else ""
        raise ModelError(
            f"{what} ({', '.join(names[:2])}); merge it with `streamingvlm merge RUN -o FOLDER` (RUN: the output of "
            f"the training), or with peft's merge_and_unload{rest}"
        )
    if not exists(folder / "config.json") and list_files(folder / "adapter", "adapter_config.json"):
        raise ModelError(
            f"{folder} is a run that trained an adapter; merge it with `streamingvlm merge {folder} -o FOLDER`"
        )


def list_files(folder: Path, pattern: str) -> list[Path]:
    """Files of the folder itself, by name."""
    with library(f"{folder} cannot be read"):
        if not folder.is_dir():
            return []
        # Not glob, which passes over a folder that it may not read.
        return sorted(path for path in folder.iterdir() if fnmatch(path.name, pattern) and path.is_file())


def number(table: Mapping[str, Any], key: str, path: Path, low: float, *, whole: bool = False) -> Any:
    """A number from ``low`` on of a JSON table, None if it is not there or null. :class:`ModelError` for another."""
    value = table.get(key)
    if value is None:
        return None
    good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not (good and low <= value < math.inf):
        kind = "a whole number" if whole else "a number"
        raise ModelError(f"{path}: {key} must be {kind} of {low:g} or more, not {value!r}")
    return value


def triple(table: Mapping[str, Any], key: str, default: Sequence[float], path: Path, above: float) -> tuple[float, ...]:
    """Three finite numbers, one per channel, above ``above``. :class:`ModelError` for anything else."""
    value = table.get(key)
    if value is None:
        return tuple(default)
    numbers = value if isinstance(value, list) else []
    good = [one for one in numbers if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) != 3 or len(good) != 3 or not all(above < one < math.inf for one in good):
        raise ModelError(f"{path}: {key} must be three numbers{' above 0' if above == 0 else ''}, not {value!r}")
    return tuple(good)


def _check_numbers(table: Mapping[str, Any], path: Path) -> None:
    for key, value in table.items():
        if isinstance(value, dict):
            _check_numbers(value, path)
        elif key in _BOUNDS and isinstance(value, int | float):
            low, high = _BOUNDS[key]
            if isinstance(value, bool) or not low <= value <= high:
                raise ModelError(f"{path}: {key} must be from {low:g} to {high:g}, not {value!r}")


def _what(content: object) -> str:
    kinds = {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(content), "a number")
