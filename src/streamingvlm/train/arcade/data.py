"""Recordings on disk: played by several processes, read by the frozen tower, kept as features."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from .record import Recording, record
from .vision import encode

#: First seed of the streams that checks on the way run on. Final figures use the evaluation seeds, beyond these.
HELD = 8_000_000


def _play(task: tuple[int, int]) -> Recording:
    torch.set_num_threads(1)
    return record(*task)


def play(seeds: Sequence[int], seconds: int, workers: int | None = None) -> Iterator[Recording]:
    """Recordings with frames, in the order of ``seeds``."""
    # Tensors between processes go through files: descriptors would run out.
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    with multiprocessing.get_context("spawn").Pool(workers or os.cpu_count()) as pool:
        yield from pool.imap(_play, [(seed, seconds) for seed in seeds])


def prepare(
    model: Any, seeds: Sequence[int], seconds: int, folder: Path, log: Callable[[str], None] = print
) -> list[Recording]:
    """Recordings with features of these seeds, made where they are not in ``folder`` yet."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not _path(folder, seed, seconds).exists()]
    if missing:
        for recording in play(missing, seconds):
            path = _path(folder, recording.seed, seconds)
            torch.save(encode(model, recording), path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
            log(f"recorded stream {recording.seed}")
    return [torch.load(_path(folder, seed, seconds), weights_only=False) for seed in seeds]


def _path(folder: Path, seed: int, seconds: int) -> Path:
    return folder / f"{seed}-{seconds}.pt"
