"""What a run tells while it goes: a bar with the time left, TensorBoard, and the throughput that was measured."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

#: The measured throughput, in the folder of a run.
THROUGHPUT = "throughput.json"
#: Steps at the start of a run that are not counted: the first ones allocate and compile.
WARM_UP = 2


class Told(TrainerCallback):  # type: ignore[misc]
    """A bar where a person sees it, else a line for every report; both on standard error, by the first process."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: Any = None
        self._began, self._first = 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Show the bar."""
        self._began, self._first = time.monotonic(), state.global_step
        if not state.is_world_process_zero or not sys.stderr.isatty():
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
        )
        self._task = self._bar.add_task("training", total=state.max_steps, completed=state.global_step)
        self._bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """One step more."""
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Show the newest loss."""
        if not state.is_world_process_zero or not logs or not {"loss", "eval_loss"} & logs.keys():
            return
        name = "loss" if "loss" in logs else "eval_loss"
        text = f"{name.replace('_', ' ')} {float(logs[name]):.4f}"
        if self._bar is not None:
            self._bar.update(self._task, description=text)
            return
        done = state.global_step - self._first
        left = (time.monotonic() - self._began) / max(done, 1) * (state.max_steps - state.global_step)
        print(f"step {state.global_step}/{state.max_steps}  {text}  {clock(left)} left", file=sys.stderr, flush=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Take the bar away, also from a run that was stopped."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Throughput(TrainerCallback):  # type: ignore[misc]
    """Tokens per second and device, written into the run's folder for later dry runs."""

    def __init__(self) -> None:
        self._began, self._tokens, self._first = 0.0, 0, -1

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Begin to count once the first steps are over."""
        if self._first < 0:
            self._first = state.global_step - 1
        if state.global_step - self._first == WARM_UP:
            self._began, self._tokens = time.monotonic(), state.num_input_tokens_seen

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Write what was measured so far."""
        steps = state.global_step - self._first - WARM_UP
        if self._first < 0 or steps < 1 or not state.is_world_process_zero:
            return
        seconds = time.monotonic() - self._began
        rate = (state.num_input_tokens_seen - self._tokens) / seconds / args.world_size
        measured = {
            "tokens_per_second_per_device": round(rate, 1),
            "steps": steps,
            "devices": args.world_size,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        }
        Path(args.output_dir, THROUGHPUT).write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")

    on_train_end = on_save


def board(folder: Path, from_step: int) -> Any:
    """TensorBoard's callback, writing under ``folder``; what an earlier run wrote from ``from_step`` on is dropped."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(str(folder), purge_step=from_step or None))


def clock(seconds: float) -> str:
    """``3:05:20`` or ``12:07``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
