"""Which kernels a model runs with."""

from __future__ import annotations

import torch

from ..core.errors import OptionError
from .cuda import CudaKernels
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
    return PlainKernels()
