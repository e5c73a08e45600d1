"""Recordings on disk: played by several processes, read by the frozen tower, kept as features."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..worlds.game import Game
from ..worlds.games import find_game
from .record import Recording, record
from .vision import encode

#: First seed of the streams that checks on the way run on. Final figures use the evaluation seeds, beyond these.
HELD = 8_000_000


def _play(task: tuple[str, int, int]) -> Recording:
    torch.set_num_threads(1)
    name, seed, seconds = task
    return record(find_game(name), seed, seconds)


def play(streams: Sequence[tuple[str, int]], seconds: int, workers: int | None = None) -> Iterator[Recording]:
    """Recordings with frames of streams, given as game and seed, in their order."""
    tasks = [(name, seed, seconds) for name, seed in streams]
    # Tensors between processes go through files: descriptors would run out.
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    with multiprocessing.get_context("spawn").Pool(min(workers or os.cpu_count() or 1, len(tasks))) as pool:
        yield from pool.imap(_play, tasks)


def prepare(
    model: Any,
    games: Sequence[Game],
    seeds: Sequence[int],
    seconds: int,
    folder: Path,
    log: Callable[[str], None] = print,
) -> list[Recording]:
    """Recordings with features of these seeds of every game, made where they are not in ``folder`` yet."""
    folder.mkdir(parents=True, exist_ok=True)
    streams = [(game.name, seed) for game in games for seed in seeds]
    missing = [stream for stream in streams if not _path(folder, *stream, seconds).exists()]
    if missing:
        for done, recording in enumerate(play(missing, seconds), 1):
            path = _path(folder, recording.name, recording.seed, seconds)
            torch.save(encode(model, recording), path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
            log(f"recorded {recording.name} {recording.seed} ({done} of {len(missing)})")
    return [torch.load(_path(folder, *stream, seconds), weights_only=False) for stream in streams]


def _path(folder: Path, name: str, seed: int, seconds: int) -> Path:
    return folder / f"{name}-{seed}-{seconds}.pt"
