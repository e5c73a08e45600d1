"""The checkpoints in a run's folder, and which of them are whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..core.errors import OutputError, TrainingError

#: The mark of a checkpoint that is whole: JSON, what it was trained on, and the bytes of each file.
WHOLE = "whole"
#: The state of the run in a checkpoint, as Trainer writes it.
STATE = "trainer_state.json"


def checkpoints(output: Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest first, also those that a killed process left half written."""
    found = [path for path in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was written after."""
    return int(checkpoint.name.rpartition("-")[2])


def is_whole(checkpoint: Path) -> bool:
    """Whether all processes have written their part of a checkpoint to its end."""
    return (checkpoint / WHOLE).is_file()


def newest(output: Path) -> Path | None:
    """The newest whole checkpoint in a run's folder."""
    return next((path for path in reversed(checkpoints(output)) if is_whole(path)), None)


def mark_whole(output: Path, step: int, *, devices: int, device: str) -> None:
    """Say that the checkpoint of a step is whole, and on how many devices of what kind it was trained."""
    folder = output / f"{PREFIX_CHECKPOINT_DIR}-{step}"
    draft = folder / f"{WHOLE}.new"
    files = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    mark = {"devices": devices, "device": device, "steps": step, "files": files}
    draft.write_text(json.dumps(mark) + "\n", encoding="utf-8")
    draft.replace(folder / WHOLE)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with the files of a whole checkpoint, by their sizes; None: nothing.

    Weights are only looked for: what is wrong with them is told by name when they are loaded.
    """
    for name, size in sorted(_mark(checkpoint).get("files", {}).items()):
        path = checkpoint / name
        if not path.is_file():
            return f"{checkpoint} lacks {name}"
        if path.stat().st_size != size and path.suffix != ".safetensors":
            return f"{path} has {path.stat().st_size} bytes, {size} were written"
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        there = isinstance(state, dict) and state.get("global_step") == step_of(checkpoint)
    except (OSError, ValueError):
        there = False
    return None if there else f"{checkpoint / STATE} cannot be read or is of another step"


def check(checkpoint: Path) -> None:
    """Raise :class:`TrainingError` for a checkpoint whose files are not those that were written."""
    if wrong := damage(checkpoint):
        raise TrainingError(f"{wrong}: the checkpoint is damaged; without its folder --resume takes the one before")


def discard_unfinished(output: Path) -> list[Path]:
    """Remove what a killed process left half written or half removed; the newest whole checkpoint stays.

    Trainer would count them among the checkpoints that are kept, and remove good ones. Raises :class:`OutputError`.
    """
    good = newest(output)
    broken = [path for path in checkpoints(output) if path != good and (not is_whole(path) or damage(path))]
    for path in broken:
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise OutputError(f"cannot remove {path}, which is half written ({error.strerror or error})") from error
    return broken


@contextmanager
def readable(checkpoint: str | Path | None) -> Iterator[None]:
    """One line for whatever the libraries raise about a checkpoint's files: :class:`TrainingError`."""
    try:
        yield
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(f"{checkpoint} cannot be loaded: {reason}") from None


_UNREADABLE = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, EOFError, UnpicklingError,
               SafetensorError, CheckpointException)  # fmt: skip


def _mark(checkpoint: Path) -> dict[str, Any]:
    """What stands in the mark; nothing in that of an earlier version."""
    try:
        mark = json.loads((checkpoint / WHOLE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def throughput(output: Path) -> dict[str, Any] | None:
    """What the newest whole checkpoint says: ``tokens_per_second_per_device``, ``steps``, ``devices``, ``device``.

    All steps since the run was begun or resumed are counted, also the first ones, which allocate. None without any.
    """
    start = newest(output)
    try:
        if start is None:
            return None
        mark = {key: value for key, value in _mark(start).items() if key != "files"}
        log = json.loads((start / STATE).read_text(encoding="utf-8"))["log_history"]
        rate = [row["train_tokens_per_second"] for row in log if "train_tokens_per_second" in row][-1]
        return {**mark, "tokens_per_second_per_device": rate / mark["devices"]}
    except (OSError, ValueError, LookupError, TypeError):
        return None  # a run of an earlier version has an empty mark
