"""Weight-only quantization of a decoder through torchao: fewer bytes read per token, activations as they were."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from ..core.errors import ModelError, OptionError
from .base import Model
from .linear import Linear, QuantizedLinear

#: Name -> configuration of torchao and its numbers. Per output channel, int4 per group of 128 weights.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("Int8WeightOnlyConfig", {}),
    "fp8": ("Float8WeightOnlyConfig", {}),
    "int4": ("Int4WeightOnlyConfig", {"group_size": 128}),
}

#: Matrices of a layer; norms and biases stay as they are.
_MATRICES = ("qkv", "out", "gate_up", "down")


def check(kind: str) -> None:
    """Raise :class:`OptionError` for a kind that there is not, or if torchao is missing."""
    if kind not in KINDS:
        raise OptionError(f"unknown weights {kind!r}; known: {', '.join(KINDS)}")
    try:
        _torchao()
    except ImportError:
        raise OptionError("quantized weights need torchao: pip install 'streamingvlm[quantize]'") from None


def quantize(model: Model, kind: str) -> None:
    """Quantize the matrices of a model's decoder, and the head where it is not the embedding; in place.

    The stock layers lose their weights: they would double the memory. :class:`ModelError` if torchao has no such
    format for this device.
    """
    check(kind)
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

    ours: Any = model
    ours.fingerprint = f"{kind} of {ours.fingerprint}"  # some of the weights that it is made of are about to go
    language, head, layers = ours.hf.model.language_model, ours.hf.lm_head, ours.decoder.layers
    try:
        for number, layer in enumerate(layers):
            small = {name: smaller(getattr(layer, name)) for name in _MATRICES}
            layers[number] = replace(layer, **small)
            language.layers[number] = nn.Identity()  # its matrices can go as soon as each layer is done
        if head.weight is not language.embed_tokens.weight:
            ours.decoder.head = smaller(ours.decoder.head)
            head.weight = nn.Parameter(ours.decoder.head.weight, requires_grad=False)
    except (ImportError, NotImplementedError, RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{kind} weights cannot be made on {model.kv_shape.device}: {reason}") from None
    model.weights = kind


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
