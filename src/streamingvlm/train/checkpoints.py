"""The checkpoints in a run's folder, and which of them are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

#: The mark of a checkpoint that is whole: JSON, what it was trained on.
WHOLE = "whole"


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
    draft.write_text(json.dumps({"devices": devices, "device": device, "steps": step}) + "\n", encoding="utf-8")
    draft.replace(folder / WHOLE)


def throughput(output: Path) -> dict[str, Any] | None:
    """What the newest whole checkpoint says: ``tokens_per_second_per_device``, ``steps``, ``devices``, ``device``.

    All steps since the run was begun or resumed are counted, also the first ones, which allocate. None without any.
    """
    start = newest(output)
    try:
        if start is None:
            return None
        mark = json.loads((start / WHOLE).read_text(encoding="utf-8"))
        log = json.loads((start / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        rate = [row["train_tokens_per_second"] for row in log if "train_tokens_per_second" in row][-1]
        return {**mark, "tokens_per_second_per_device": rate / mark["devices"]}
    except (OSError, ValueError, LookupError, TypeError):
        return None  # a run of an earlier version has an empty mark
