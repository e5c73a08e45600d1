"""Quantized weights: int8 products on a CPU, elsewhere torchao's formats for weights alone.

On a CPU int8 products are several times as fast as those in float32: :mod:`.int8_linear`. On other devices fewer bytes
are read per token and activations stay as they were.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..core.errors import ModelError, OptionError
from ..kernels.cpu import CpuKernels
from ..kernels.plain import BLOCK
from .base import Model
from .int8_linear import Int8Linear, Int8Module, int8_available
from .linear import Linear, LinearModule, QuantizedLinear

#: Name -> configuration of torchao and its numbers. Per output channel, int4 per group of 128 weights.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("Int8WeightOnlyConfig", {}),
    "fp8": ("Float8WeightOnlyConfig", {}),
    "int4": ("Int4WeightOnlyConfig", {"group_size": 128}),
}

#: Matrices of a layer; norms and biases stay as they are.
_MATRICES = ("qkv", "out", "gate_up", "down")

#: What is timed: tokens of a turn and of a reply, and the most numbers of a matrix.
_TURN, _REPLY, _MOST = 64, 8, 1 << 22


def check(kind: str, device: torch.device) -> None:
    """Raise :class:`OptionError` for a kind that there is not, or that cannot be made on this device.

    int8 on a CPU needs a processor with int8 dot products, the other kinds need torchao.
    """
    if kind not in KINDS:
        raise OptionError(f"unknown weights {kind!r}; known: {', '.join(KINDS)}")
    if _in_int8(kind, device):
        if not int8_available():
            raise OptionError("int8 weights need a CPU with VNNI and a torch with oneDNN; leave --weights out")
        return
    try:
        _torchao()
    except ImportError:
        raise OptionError("quantized weights need torchao: pip install 'streamingvlm[quantize]'") from None


def quantize(model: Model, kind: str) -> None:
    """Quantize the matrices of a model's decoder and its head, on a CPU with int8 the vision tower's too; in place.

    A head that is the embedding stays as it is, but for int8 on a CPU, which has a copy of it in int8. The stock
    layers lose their weights: they would double the memory. :class:`ModelError` if torchao has no such format for this
    device.
    """
    device = model.kv_shape.device
    check(kind, device)
    ours: Any = model
    ours.fingerprint = f"{kind} of {ours.fingerprint}"  # some of the weights that it is made of are about to go
    try:
        if _in_int8(kind, device):
            native = ours.kernels.native if isinstance(ours.kernels, CpuKernels) else None
            _quantize_decoder(ours, lambda matrix: Int8Linear(matrix.weight, matrix.bias, native=native))
            _quantize_head(ours, Int8Linear(ours.decoder.head.weight, ours.decoder.head.bias, native=native))
            _quantize_tower(ours.hf.model.visual)
        else:
            smaller = _weight_only(kind)
            _quantize_decoder(ours, smaller)
            if ours.hf.lm_head.weight is not ours.hf.model.language_model.embed_tokens.weight:
                _quantize_head(ours, smaller(ours.decoder.head))
    except (ImportError, NotImplementedError, RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{kind} weights cannot be made on {device}: {reason}") from None
    model.weights = kind


def int8_speedup(model: Model) -> float | None:
    """How many times as fast a decoder's products are in int8 as in the model's dtype on this CPU, measured now.

    None if there are none in int8 here. Timed are a short turn and a reply of some tokens, with random weights of the
    sizes of the model's layers, large ones in part: a fraction of a second.
    """
    if not int8_available():
        return None
    ours: Any = model
    layers, dtype = ours.decoder.layers, model.kv_shape.dtype
    shapes = [getattr(layers[0], name).shape for name in _MATRICES]
    parts = [torch.Size((min(out, max(_MOST // inner, 1)), inner)) for out, inner in shapes]
    # As many layers as the model has, up to a bound: one alone would stay in the processor's cache.
    count = min(len(layers), max(4 * _MOST // sum(part.numel() for part in parts), 1))
    weights = [torch.randn(part, dtype=dtype) for part in parts * count]
    native = model.kernels.native if isinstance(model.kernels, CpuKernels) else None
    kinds: list[list[Linear] | list[Int8Linear]] = [
        [Linear(w, None, model.kernels) for w in weights],
        [Int8Linear(w, native=native) for w in weights],
    ]
    with torch.inference_mode():
        turns = [[_seconds(matrices, dtype) for matrices in kinds] for _ in range(4)]
    plain, small = (min(times) for times in zip(*turns, strict=True))
    return float(plain / small)


def _seconds(matrices: Sequence[Linear | Int8Linear], dtype: torch.dtype) -> float:
    """How long the products of one turn and one reply take."""
    few, many = ([torch.randn(count, matrix.shape[1]).to(dtype) for matrix in matrices] for count in (BLOCK, _TURN))
    begun = time.perf_counter()
    for matrix, rows in zip(matrices, many, strict=True):
        matrix(rows)
    for _ in range(_REPLY):
        for matrix, rows in zip(matrices, few, strict=True):
            matrix(rows, few=True)
    return time.perf_counter() - begun


def _in_int8(kind: str, device: torch.device) -> bool:
    """Whether the products themselves are in int8, not the weights alone."""
    return kind == "int8" and device.type == "cpu"


def _weight_only(kind: str) -> Callable[[Linear], Linear]:
    """What makes a matrix smaller with torchao."""
    torchao = _torchao()
    name, numbers = KINDS[kind]
    config = getattr(torchao, name)(**numbers)

    def smaller(matrix: Linear) -> Linear:
        weight = matrix.weight
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torchao.quantize_(linear, config)
        return QuantizedLinear(linear.weight.detach(), matrix.bias)

    return smaller


def _quantize_decoder(model: Any, smaller: Callable[[Linear], Linear | Int8Linear]) -> None:
    layers, stock = model.decoder.layers, model.hf.model.language_model.layers
    for number, layer in enumerate(layers):
        layers[number] = replace(layer, **{name: smaller(getattr(layer, name)) for name in _MATRICES})
        stock[number] = nn.Identity()  # its matrices can go as soon as each layer is done


def _quantize_head(model: Any, head: Linear | Int8Linear) -> None:
    model.decoder.head = head
    model.hf.lm_head = nn.Identity()


def _quantize_tower(tower: nn.Module) -> None:
    """Its first layer, which sees pixels, is no ``nn.Linear`` and stays as it is."""
    for name, module in list(tower.named_modules()):
        if isinstance(module, LinearModule):
            tower.set_submodule(name, Int8Module(module))


def _torchao() -> Any:
    with quiet_torchao():
        from torchao import quantization
    return quantization


class _Reports(logging.Filter):
    """Drops what torchao reports while it is imported, and nothing else."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is somebody's business: none of a missing kernel library, none of torchao's own enums."""
        if record.name == "torchao":
            return record.levelno > logging.WARNING
        return "is an Enum subclass and is now natively supported" not in str(record.msg)


@contextmanager
def quiet_torchao() -> Iterator[None]:
    """Import torchao without its reports: on every kernel library that a machine lacks, and on enums of its own.

    Where it is installed, transformers imports it with the first of its models.
    """
    reports = _Reports()
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    for logger in loggers:
        logger.addFilter(reports)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(reports)
