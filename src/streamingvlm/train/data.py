"""The data of a stage: its chunks and those that are held out, with the reports of what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from ..core.errors import OptionError
from ..data.videos import Videos
from ..models.base import Frontend
from .chunks import ChunkPlan
from .collate import ChunkDataset, Collator
from .config import DataFile, TrainConfig
from .examples import Encoding
from .processes import from_first
from .rollouts import OnPolicyDataset, read_rollouts
from .scan import Scan, scan

#: Headers of videos are remembered beside them. JSON lines, but not by its name: a folder of annotations may be there.
HEADERS = ".video-headers.cache"


def encoding_of(stage: TrainConfig, front: Frontend) -> Encoding:
    """How the stage's checkpoint writes streams."""
    return Encoding.of(
        front,
        fps=stage.fps,
        instruction=stage.standing_instruction,
        max_pixels=stage.pixel_budget,
        lead=stage.lead,
        clip_pixels=stage.clip_budget,
    )


def plan_of(stage: TrainConfig) -> ChunkPlan:
    """How the stage cuts streams into chunks."""
    return ChunkPlan(
        window=stage.window,
        overlap=stage.overlap,
        min_words=None if stage.min_words < 0 else stage.min_words,
        sink=stage.sink,
        text=stage.text,
        recut=stage.recut,
        longest=stage.longest or None,
    )


def collator_of(stage: TrainConfig) -> Collator:
    """What makes batches of the stage's chunks."""
    unreadable = cast(Literal["raise", "blank"], stage.unreadable)
    return Collator(silence_weight=stage.silence_weight, unreadable=unreadable)


def header_caches(stage: TrainConfig) -> list[Path]:
    """Where headers are remembered: beside the videos, also by a dry run; if nothing can be written there, in the
    output."""
    output = Path(stage.output)
    return [folder / HEADERS for folder in (Path(stage.video_root), output) if folder.is_dir()]


def open_chunks(
    stage: TrainConfig, front: Frontend, files: Sequence[str | DataFile], name: str = "data"
) -> ChunkDataset:
    """The chunks of some annotation files, histories true. OptionError if there is not one.

    Of several processes that ``torchrun`` started the first one reads the files; the others get what it found.
    ``name``: of these chunks, the same in all processes.
    """
    named = [file if isinstance(file, DataFile) else Path(file) for file in files]
    encoding, plan, root = encoding_of(stage, front), plan_of(stage), Path(stage.video_root)

    def read() -> Scan:
        return scan(named, Videos(root, header_caches(stage)), plan, encoding.patcher, seed=stage.seed)

    chunks = ChunkDataset(
        encoding, plan, named, root, titles=stage.titles, queries=stage.queries, found=from_first(name, read)
    )
    if not len(chunks):
        names = ", ".join(file if isinstance(file, str) else file.file for file in files)
        raise OptionError(f"no chunk to train on in {names}; {' '.join(str(chunks.report).split())}")
    return chunks


def training_chunks(stage: TrainConfig, front: Frontend) -> ChunkDataset | OnPolicyDataset:
    """What the stage trains on: with rollouts, the model's own words are the histories."""
    if not stage.data:
        raise OptionError('data names no annotation files: data = ["train.jsonl"] in the file, or data=train.jsonl')
    chunks = open_chunks(stage, front, stage.data)
    return OnPolicyDataset(chunks, read_rollouts(Path(stage.rollouts))) if stage.rollouts else chunks


def held_out_chunks(stage: TrainConfig, front: Frontend) -> ChunkDataset | None:
    """What the evaluation loss is of; None: nothing is held out. Histories are true, so that stages compare."""
    return open_chunks(stage, front, stage.eval_data, "eval_data") if stage.eval_data else None
