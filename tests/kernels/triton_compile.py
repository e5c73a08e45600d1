"""Compiles what the launchers of the Triton kernels launch for an H100, without one: a program.

The launchers are called with tensors on the CPU while a stand-in takes the place of Triton's CUDA driver: it compiles
and launches nothing. Prints a JSON list of what each kernel needs. Arguments: a dtype, then shapes such as 7x128, which
is query heads for each key head x head_dim.
"""

from __future__ import annotations

import json
import re
import sys
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from streamingvlm.kernels import triton_kernels as kernels

#: Shared memory that a block of threads on Hopper can have.
SHARED = 227 * 1024


class Driver:
    """Triton's driver of a device that is not there."""

    utils = SimpleNamespace(
        get_device_properties=lambda device: {"max_shared_mem": SHARED},  # noqa: ARG005
        load_binary=lambda name, kernel, shared, device: (0, 0, 0, 0, 1024),  # noqa: ARG005
    )

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:  # noqa: ARG002
        return 0

    def launcher_cls(self, source: Any, metadata: Any) -> Any:  # noqa: ARG002
        return lambda *arguments: None  # noqa: ARG005


def launch(dtype: torch.dtype, group: int, dim: int) -> None:
    """Everything with and without what is optional, at the widths of Qwen2.5-VL-7B; several batches and lengths."""

    def empty(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=dtype)

    key_heads = 4
    heads, norm = key_heads * group, empty(dim)
    stores = [empty(2, key_heads, 300, dim) for _ in range(3)]
    for count in (1, 2, 16):
        # Numbers of the streams lie side by side, and so at any address.
        slots, rows = torch.zeros(2, count, dtype=torch.long)
        cos, qkv = torch.zeros(count, dim), empty(count, (heads + 2 * key_heads) * dim)
        for norms in ((None, None), (norm, norm)):
            kernels.rotate_store(qkv, cos, cos, *norms, 1e-6, *stores, slots, rows, heads=heads)
            kernels.decode_attention(qkv, cos, cos, *norms, 1e-6, *stores, slots, rows, heads=heads, scaling=dim**-0.5)
        for delta in (empty(count, 3584), None):
            kernels.add_norm(empty(count, 3584), delta, empty(3584), 1e-6)
        kernels.silu_mul(empty(count, 2 * 18944))
        ones, mask = torch.ones(count), torch.zeros(2, 152064, dtype=torch.bool)
        kernels.penalize(empty(count, 152064), mask, slots, rows, ones, ones)
        kernels.best(torch.zeros(count, 152064), 64)
        top = torch.zeros(count, 50)
        kernels.pick(top, top.long(), top, rows, ones)
        kernels.prefill_attention(empty(count, heads, dim), stores[0][0], stores[2][0], 31 + count, dim**-0.5)
        kernels.move_rows(*(store[None] for store in stores), count % 2, rows, count - 1, cos, cos)


def describe(metadata: Any, ptx: str) -> dict[str, Any]:
    """What the tests look at in a compiled kernel."""
    return {
        "kernel": metadata["name"],
        "shared": metadata["shared"],
        "target": next(line.split()[1] for line in ptx.splitlines() if line.startswith(".target")),
        "fp64": ".f64" in ptx,
        "tensor_cores": "mma.sync" in ptx or "wgmma.mma_async" in ptx,
        "order": [name for name, _ in groupby(re.findall(r"\b(ld\.global|bar\.sync|st\.global)\b", ptx))],
    }


def main() -> None:
    triton.runtime.driver.set_active(Driver())
    compiled: list[dict[str, Any]] = []

    def listen(*, metadata: Any, metadata_group: dict[str, str], **_: Any) -> None:
        path = next(path for name, path in metadata_group.items() if name.endswith(".ptx"))
        compiled.append(describe(metadata, Path(path).read_text()))

    triton.knobs.compilation.listener = listen
    dtype, *shapes = sys.argv[1:]
    for shape in shapes:
        group, dim = map(int, shape.split("x"))
        launch(getattr(torch, dtype), group, dim)
    print(json.dumps(compiled))


if __name__ == "__main__":
    main()
