"""Which kernels a model runs with."""

from __future__ import annotations

import torch

from ..core.errors import OptionError
from .cpu import CpuKernels
from .cuda import CudaKernels
from .native import Native, load_native
from .plain import PlainKernels, flash_is_right

#: What may be asked for: the best that this machine can run, or torch's own operations alone.
KERNELS = ("auto", "plain")


def choose_kernels(device: torch.device, dtype: torch.dtype, wanted: str = "auto") -> PlainKernels:
    """The kernels for a model in ``dtype`` on ``device``; ``wanted``: one of :data:`KERNELS`.

    :class:`OptionError` for another word. Where there are none for this machine, plain ones that say why.
    """
    if wanted not in KERNELS:
        raise OptionError(f"kernels must be one of {', '.join(KERNELS)}, not {wanted!r}")
    if device.type == "cuda":
        flash = flash_is_right(device, dtype)
        if wanted == "plain":
            return PlainKernels(flash=flash)
        try:
            return CudaKernels(flash=flash)
        except ImportError as error:
            return PlainKernels(f"Triton cannot be imported: {error}", flash=flash)
    if wanted == "plain" or device.type != "cpu":
        return PlainKernels()
    if dtype != torch.float32:
        return PlainKernels("the native kernels are for float32")
    native = load_native()
    return CpuKernels(native) if isinstance(native, Native) else PlainKernels(native.reason)
