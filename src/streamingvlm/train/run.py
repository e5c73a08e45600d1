"""Runs a stage: resume, train, save. Also started by ``torchrun`` and ``accelerate launch``, one process a device."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import TrainerCallback, set_seed

from ..core.errors import OptionError, OutputError, TrainingError
from ..models.base import Frontend
from ..models.checkpoint import no_bars
from .arguments import training_arguments
from .checkpoints import check, checkpoints, discard_unfinished, mark_whole, newest, step_of
from .config import TrainConfig
from .trainer import ChunkTrainer, NotFiniteError
from .weights import load_weights, save_checkpoint, stage_of, without_notice


class Chunks(Protocol):
    """What is needed of a data set: examples by number that a collator understands and that have a ``length``."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


def train(
    stage: TrainConfig, front: Frontend, chunks: Chunks, held_out: Chunks | None, collator: Any, *, resume: bool = False
) -> Path:
    """Train a stage and return where its result is: ``model`` (a checkpoint folder) or ``adapter`` in its output.

    ``resume``: go on from the newest whole checkpoint in the output, with the same order of data and the same random
    numbers; from the start if there is none. Raises :class:`OptionError` for an output that holds another run,
    :class:`TrainingError` where a loss or a gradient is not finite, or a checkpoint cannot be gone on from.
    """
    args = training_arguments(stage, held_out is not None)
    output = Path(stage.output)
    take_up(stage, resume)
    start = newest(output)
    if start is not None:
        check(start)
    if resume and args.process_index == 0:
        for path in discard_unfinished(output):
            print(f"removed {path}, which is not whole", file=sys.stderr)
        print(
            f"going on from {start}" if start else "no whole checkpoint to go on from: from the start", file=sys.stderr
        )
    set_seed(stage.seed)
    # Trainer reports on standard output: what we print there is data.
    with redirect_stdout(sys.stderr), without_notice(), no_bars(), without_cudnn_attention(args.device):
        trainer = ChunkTrainer(
            model=load_weights(stage),
            args=args,
            data_collator=collator,
            train_dataset=chunks,
            eval_dataset=held_out,
            callbacks=[SaveByTime(stage.save_minutes), MarkWhole()],
            loader_timeout=stage.dataloader_timeout,
        )
        try:
            trainer.train(resume_from_checkpoint=str(start) if start else None)
            if held_out is not None and not _evaluated(trainer.state):
                trainer.evaluate()
        except NotFiniteError as error:
            advice = "a lower learning_rate, a longer warmup or a lower max_grad_norm may help"
            raise TrainingError(f"{error}; {_last(output)}; {advice}") from None
        except RuntimeError as error:
            if "DataLoader" not in str(error):
                raise
            reason = f"the workers that read video gave nothing for {stage.dataloader_timeout} s, or died ({error})"
            raise TrainingError(f"{reason}; {_last(output)}") from error
        trainer.save_state()
        return _save(trainer, stage, front, output)


@contextmanager
def without_cudnn_attention(device: torch.device) -> Iterator[None]:
    """Attention by other kernels than cuDNN's on a GPU; what was set before holds again afterwards.

    On Hopper, torch 2.11 prefers cuDNN's, whose gradients behind a mask are NaN where a length is 64 more than a
    multiple of 128. Chunks of several lengths in a batch are padded, so they have a mask.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def _last(output: Path) -> str:
    good = newest(output)
    return f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"


def _evaluated(state: Any) -> bool:
    """Whether the last step was followed by an evaluation."""
    return any("eval_loss" in entry and entry["step"] == state.global_step for entry in state.log_history)


def take_up(stage: TrainConfig, resume: bool) -> None:
    """Make the output's folder, or check that the run in it is the one to go on with; the stage is noted in it.

    Also called before the data is read, which may take long. Raises :class:`OptionError` for an output that holds
    another run, :class:`OutputError` for one that cannot be written.
    """
    output = Path(stage.output)
    found = checkpoints(output)
    if found and not resume:
        raise OptionError(
            f"{output} holds a run that has got to step {step_of(found[-1])}: --resume, or another output"
        )
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


class SaveByTime(TrainerCallback):  # type: ignore[misc]
    """Asks for a checkpoint when the last one is ``minutes`` old (0: never); the first process's clock decides."""

    def __init__(self, minutes: float) -> None:
        self._pause, self._saved = 60 * minutes, time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """The clock begins with the training, not with reading the data."""
        self._saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """A step has ended."""
        if not self._pause:
            return
        due = [time.monotonic() - self._saved >= self._pause]
        if args.world_size > 1:
            broadcast_object_list(due)
        if due[0]:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """A checkpoint is there, for whatever reason."""
        self._saved = time.monotonic()


class MarkWhole(TrainerCallback):  # type: ignore[misc]
    """Puts a mark into every checkpoint behind everything else, when all processes have written theirs.

    In the mark stands what was trained on, for later dry runs.
    """

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """The checkpoint of this step is written."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
            mark_whole(Path(args.output_dir), state.global_step, devices=args.world_size, device=device)


def _save(trainer: Any, stage: TrainConfig, front: Frontend, output: Path) -> Path:
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
