"""The data of a stage: its chunks and those that are held out, with the reports of what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from ..errors import OptionError
from ..models import Frontend
from .chunks import ChunkPlan
from .collate import ChunkDataset, Collator
from .config import Stage
from .examples import Encoding
from .rollouts import OnPolicyDataset, read_rollouts

#: Headers of videos are remembered in the run's folder.
HEADERS = "headers.json"


def encoding_of(stage: Stage, front: Frontend) -> Encoding:
    """How the stage's checkpoint writes streams."""
    return Encoding.of(
        front,
        fps=stage.fps,
        instruction=stage.standing_instruction,
        max_pixels=stage.pixel_budget,
        lead=stage.lead,
    )


def plan_of(stage: Stage) -> ChunkPlan:
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


def collator_of(stage: Stage) -> Collator:
    """What makes batches of the stage's chunks."""
    unreadable = cast(Literal["raise", "blank"], stage.unreadable)
    return Collator(silence_weight=stage.silence_weight, unreadable=unreadable)


def open_chunks(stage: Stage, front: Frontend, files: Sequence[str]) -> ChunkDataset:
    """The chunks of some annotation files, histories true. OptionError if there is not one."""
    output = Path(stage.output)
    chunks = ChunkDataset(
        encoding_of(stage, front),
        plan_of(stage),
        [Path(file) for file in files],
        Path(stage.video_root),
        titles=stage.titles,
        queries=stage.queries,
        cache=output / HEADERS if output.is_dir() else None,
    )
    if not len(chunks):
        raise OptionError(f"no chunk to train on in {', '.join(files)}; {' '.join(str(chunks.report).split())}")
    return chunks


def training_chunks(stage: Stage, front: Frontend) -> ChunkDataset | OnPolicyDataset:
    """What the stage trains on: with rollouts, the model's own words are the histories."""
    if not stage.data:
        raise OptionError('data names no annotation files: data = ["train.jsonl"] in the file, or data=train.jsonl')
    chunks = open_chunks(stage, front, stage.data)
    return OnPolicyDataset(chunks, read_rollouts(Path(stage.rollouts))) if stage.rollouts else chunks


def held_out_chunks(stage: Stage, front: Frontend) -> ChunkDataset | None:
    """What the evaluation loss is of; None: nothing is held out. Histories are true, so that stages compare."""
    return open_chunks(stage, front, stage.eval_data) if stage.eval_data else None
