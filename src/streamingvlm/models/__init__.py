"""Checkpoints. One file per Hugging Face model_type and one line in :data:`FAMILIES`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from ..errors import ModelError
from .base import Frontend, Model, StreamDefaults, window_options
from .patches import Patcher, Patches
from .quantize import check, quantize, quiet_torchao

__all__ = [
    "BUNDLED",
    "FAMILIES",
    "Frontend",
    "Model",
    "Patcher",
    "Patches",
    "StreamDefaults",
    "find_checkpoint",
    "load_frontend",
    "load_model",
    "pick_device",
    "pick_dtype",
    "settle_threads",
    "window_options",
]

#: model_type of config.json -> module of this package with a ``load`` function.
FAMILIES = {
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen3_vl": "qwen3_vl",
}

#: The small model that comes with the package; it knows the arcade.
BUNDLED = Path(__file__).parent.parent / "assets" / "arcade"

#: Parameters up to which one thread is faster than several: they would wait for each other most of the time.
SMALL = 50_000_000

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_model(
    name: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    weights: str | None = None,
) -> Model:
    """Load a checkpoint from a folder or a hub id; ``None`` is the bundled model.

    ``device``: cpu, cuda, cuda:N or mps (default: the best there is). ``dtype``: bf16, fp16 or fp32 (default: bf16
    on cuda, fp16 on mps, fp32 on cpu). ``weights``: int8, fp8 or int4 for a decoder whose matrices are quantized
    (torchao, weights only; None: as they are). Raises :class:`ModelError` when there is no such checkpoint or its
    family is not supported.
    """
    folder = find_checkpoint(name)
    family = _family(folder)
    place = pick_device(device)
    if weights is not None:
        check(weights)
    label = _label(name)
    kept = pick_dtype(dtype, place)
    with _one_line(label), quiet_torchao():
        model: Model = family.load(folder, label, place, kept)
    if weights is not None:
        quantize(model, weights)
    return model


def load_frontend(name: str | Path | None = None) -> Frontend:
    """What a checkpoint makes of text and frames, without reading its weights. Raises as :func:`load_model` does."""
    folder = find_checkpoint(name)
    family = _family(folder)
    with _one_line(_label(name)), quiet_torchao():
        front: Frontend = family.frontend(folder, _label(name))
    return front


def _label(name: str | Path | None) -> str:
    return "bundled arcade model" if name is None else str(name)


def _family(folder: Path) -> Any:
    """The module of :data:`FAMILIES` that knows the checkpoint."""
    family = _config(folder).get("model_type")
    if family not in FAMILIES:
        raise ModelError(f"{folder} is of model_type {family!r}; supported: {', '.join(FAMILIES)}")
    with quiet_torchao():  # transformers imports it
        return import_module(f".{FAMILIES[str(family)]}", __name__)


@contextmanager
def _one_line(label: str) -> Iterator[None]:
    """What libraries raise over a folder that cannot be used, as one line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, StrictDataclassError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{label} cannot be loaded: {reason}") from error


def find_checkpoint(name: str | Path | None) -> Path:
    """The folder of a checkpoint, fetched from the hub if need be. Raises :class:`ModelError`."""
    if name is None:
        return BUNDLED
    if Path(name).is_dir():
        return Path(name)
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise ModelError(f"no checkpoint folder {name}; give one, or a hub id like Qwen/Qwen2.5-VL-7B-Instruct")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        raise ModelError(
            f"{name} is neither a folder here nor a checkpoint that the hub serves (or the hub cannot be reached)"
        ) from None


def _config(folder: Path) -> dict[str, object]:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json; a checkpoint folder as written by save_pretrained is needed")
    try:
        config: dict[str, object] = json.loads(path.read_text())
    except ValueError:
        raise ModelError(f"{path} is not valid JSON") from None
    return config


def pick_device(device: str | None) -> torch.device:
    """The device that ``device`` names (None: the best there is). :class:`ModelError` if it cannot be used."""
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return place


def pick_dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    """bf16, fp16 or fp32 as torch has it (None: what suits the device). :class:`ModelError` for another name."""
    if dtype is None:
        dtype = {"cuda": "bf16", "mps": "fp16"}.get(device.type, "fp32")
    if dtype not in _DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; known: {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def settle_threads(model: Model, threads: int | None = None) -> None:
    """Give torch so many threads on a CPU (None: one for a small model, which several make slower, else as it is)."""
    if model.kv_shape.device.type == "cpu" and (threads or model.parameters < SMALL):
        torch.set_num_threads(threads or 1)
