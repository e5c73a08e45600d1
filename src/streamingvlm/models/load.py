"""Checkpoints. One file per Hugging Face model_type and one line in :data:`FAMILIES`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..core.errors import ModelError
from .base import Frontend, Model, StreamDefaults, window_options
from .checkpoint import quiet_loading
from .edge import library
from .files import read_config
from .hub import BUNDLED, find_checkpoint
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
    "load_for_training",
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

#: Parameters up to which one thread is faster than several: they would wait for each other most of the time.
SINGLE_THREAD_PARAMS = 50_000_000

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_model(
    name: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    kernels: str = "auto",
) -> Model:
    """Load a checkpoint from a folder or a hub id; ``None`` is the bundled model.

    ``device``: cpu, cuda, cuda:N or mps (default: the best there is). ``dtype``: bf16, fp16 or fp32 (default: bf16
    on cuda, fp16 on mps, fp32 on cpu). ``weights``: int8, fp8 or int4 for quantized matrices (None: as
    they are), see :mod:`.quantize`. ``kernels``: ``auto``, those of our own where this machine can run them, or
    ``plain``, torch's operations alone. Raises :class:`ModelError` when there is no such checkpoint or its family is
    not supported.
    """
    folder = find_checkpoint(name)
    family = _family(folder)
    place = pick_device(device)
    if weights is not None:
        check(weights, place)
    label = _label(name)
    kept = pick_dtype(dtype, place)
    with quiet_torchao(), quiet_loading():
        model: Model = family.load(folder, label, place, kept, kernels)
    if weights is not None:
        quantize(model, weights)
    return model


def load_frontend(name: str | Path | None = None) -> Frontend:
    """What a checkpoint makes of text and frames, without reading its weights. Raises as :func:`load_model` does."""
    folder = find_checkpoint(name)
    family = _family(folder)
    with quiet_torchao(), quiet_loading():
        front: Frontend = family.frontend(folder, _label(name))
    return front


def load_for_training(name: str | Path | None, dtype: torch.dtype, attention: str) -> Any:
    """transformers' own model of a checkpoint, on the CPU, to be trained. Raises as :func:`load_model` does."""
    folder = find_checkpoint(name)
    family = _family(folder)
    with quiet_torchao(), quiet_loading():
        return family.load_for_training(folder, _label(name), dtype, attention)


def _label(name: str | Path | None) -> str:
    return f"bundled {BUNDLED.name} model" if name is None else str(name)


def _family(folder: Path) -> Any:
    """The module of :data:`FAMILIES` that knows the checkpoint."""
    family = read_config(folder).get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ModelError(f"{folder} is of model_type {family!r}; supported: {', '.join(FAMILIES)}")
    with quiet_torchao():  # transformers imports it
        return import_module(f".{FAMILIES[family]}", __package__)


def pick_device(device: str | None) -> torch.device:
    """The device that ``device`` names (None: the best there is). :class:`ModelError` if it cannot be used."""
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    with library(f"device {device!r} cannot be used"):
        place = torch.device(device)
        torch.empty(0, device=place)
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
    if model.kv_shape.device.type == "cpu" and (threads or model.parameters < SINGLE_THREAD_PARAMS):
        torch.set_num_threads(threads or 1)
