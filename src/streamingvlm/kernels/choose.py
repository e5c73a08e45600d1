"""Which kernels a model runs with."""

from __future__ import annotations

import logging

import torch

from ..core.errors import OptionError
from .check import wrong_parts
from .cpu import CpuKernels
from .cuda import CudaKernels
from .native import Native, load_native
from .plain import PlainKernels, flash_is_right

_LOG = logging.getLogger(__name__)

#: What may be asked for: the best that this machine can run, or torch's own operations alone.
KERNELS = ("auto", "plain")


def choose_kernels(device: torch.device, dtype: torch.dtype, wanted: str = "auto", head_dim: int = 128) -> PlainKernels:
    """The kernels for a model in ``dtype`` on ``device``, with heads of ``head_dim``; ``wanted``: of :data:`KERNELS`.

    :class:`OptionError` for another word. Where there are none for this machine, plain ones that say why.
    """
    if wanted not in KERNELS:
        raise OptionError(f"kernels must be one of {', '.join(KERNELS)}, not {wanted!r}")
    if device.type == "cuda":
        return _on_cuda(device, dtype, wanted, head_dim)
    if wanted == "plain" or device.type != "cpu":
        return PlainKernels()
    if dtype != torch.float32:
        return PlainKernels("the native kernels are for float32")
    native = load_native()
    return CpuKernels(native) if isinstance(native, Native) else PlainKernels(native.reason)


def _on_cuda(device: torch.device, dtype: torch.dtype, wanted: str, head_dim: int) -> PlainKernels:
    flash = flash_is_right(device, dtype)
    if wanted == "plain":
        return PlainKernels(flash=flash)
    if head_dim < 16 or head_dim & (head_dim - 1):
        return PlainKernels(f"the Triton kernels are not for heads of {head_dim}", flash=flash)
    try:
        kernels = CudaKernels(flash=flash)
        wrong = wrong_parts(kernels, device, dtype)
    except Exception as error:  # whatever Triton or its compiler raise
        torch.cuda.synchronize(device)  # raises where the device is broken for good
        wrong = [f"{type(error).__name__}: {error}".splitlines()[0]]
    if not wrong:
        return kernels
    _LOG.warning("the Triton kernels are not used on %s: %s", device, wrong[0])
    return PlainKernels(wrong[0], flash=flash)
