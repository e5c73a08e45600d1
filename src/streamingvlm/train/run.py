"""Runs a stage: resume, train, save. Also started by ``torchrun`` and ``accelerate launch``, one process a device."""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from accelerate import PartialState
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import PrinterCallback, TrainerCallback, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..errors import OptionError, OutputError
from ..models import Frontend
from ..models.checkpoint import quiet_loading
from .arguments import training_arguments
from .config import Stage
from .progress import Throughput, Told, board
from .trainer import ChunkTrainer
from .weights import load_weights, save_checkpoint, stage_of

#: The mark of a checkpoint that is whole.
WHOLE = "whole"


class Chunks(Protocol):
    """What is needed of a data set: examples that a collator understands, by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


def train(
    stage: Stage, front: Frontend, chunks: Chunks, held_out: Chunks | None, collator: Any, *, resume: bool = False
) -> Path:
    """Train a stage and return where its result is: ``model`` (a checkpoint folder) or ``adapter`` in its output.

    ``resume``: go on from the newest whole checkpoint in the output, with the same order of data and the same random
    numbers; from the start if there is none. Raises :class:`OptionError` for an output that holds another run.
    """
    args = training_arguments(stage, held_out is not None)
    output = Path(stage.output)
    take_up(stage, resume)
    whole = [path for path in checkpoints(output) if is_whole(path)]
    start = whole[-1] if whole else None
    if resume and args.process_index == 0:
        print(
            f"going on from {start}" if start else "no whole checkpoint to go on from: from the start", file=sys.stderr
        )
    set_seed(stage.seed)
    told = Told()
    trainer = ChunkTrainer(
        model=load_weights(stage),
        args=args,
        data_collator=collator,
        train_dataset=chunks,
        eval_dataset=held_out,
        callbacks=[told, Throughput(), MarkWhole()],
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.is_world_process_zero():
        trainer.add_callback(board(output / "tensorboard", _step(start) + 1 if start else 0))
    with quiet_loading(bars=False), closing(told):
        trainer.train(resume_from_checkpoint=str(start) if start else None)
        if held_out is not None and not _evaluated(trainer.state):
            trainer.evaluate()
        trainer.save_state()
        return _save(trainer, stage, front, output)


def _evaluated(state: Any) -> bool:
    """Whether the last step was followed by an evaluation."""
    return any("eval_loss" in entry and entry["step"] == state.global_step for entry in state.log_history)


def take_up(stage: Stage, resume: bool) -> None:
    """Make the output's folder, or check that the run in it is the one to go on with; the stage is noted in it.

    Also called before the data is read, which may take long. Raises :class:`OptionError` for an output that holds
    another run, :class:`OutputError` for one that cannot be written.
    """
    output = Path(stage.output)
    found = checkpoints(output)
    if found and not resume:
        raise OptionError(f"{output} holds a run that has got to step {_step(found[-1])}: --resume, or another output")
    other = stage.differs(stage_of(output).to_dict()) if found else []
    if other:
        raise OptionError(
            f"{output} was made with other values of {', '.join(other)}; a run is resumed as it was begun"
        )
    if os.environ.get("RANK", "0") == "0":
        try:
            output.mkdir(parents=True, exist_ok=True)
            # In one move: the other processes may be reading it.
            draft = output / "stage.json.new"
            draft.write_text(json.dumps(stage.to_dict(), indent=2) + "\n", encoding="utf-8")
            draft.replace(output / "stage.json")
        except OSError as error:
            raise OutputError(f"cannot write to {output} ({error.strerror or error})") from error


def checkpoints(output: Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest first, also those that a killed process left half written."""
    found = [path for path in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=_step)


def is_whole(checkpoint: Path) -> bool:
    """Whether all processes have written their part of a checkpoint to its end."""
    return (checkpoint / WHOLE).is_file()


class MarkWhole(TrainerCallback):  # type: ignore[misc]
    """Puts a mark into every checkpoint behind everything else, when all processes have written theirs."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """The checkpoint of this step is written."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}", WHOLE).touch()


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _save(trainer: Any, stage: Stage, front: Frontend, output: Path) -> Path:
    """Write the result; all processes take part where each holds a part of it."""
    state = None
    if trainer.is_fsdp_enabled:
        state = get_model_state_dict(trainer.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    folder = output / ("adapter" if stage.method == "lora" else "model")
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        if stage.method == "lora":
            model.save_pretrained(folder, state_dict=state)
        else:
            save_checkpoint(model, folder, stage, front, state)
    trainer.accelerator.wait_for_everyone()
    return folder
