"""One pass of lmms-eval's own evaluator over two tiny tasks, answered by the plug-in: ``python scripts/lmms/check.py``.

Run it in the environment that ``scripts/lmms_job.sh`` makes. Everything is lmms-eval's own: it finds the model by its
entry point, reads tasks from YAML, builds the requests, and scores the replies. Only the model behind the plug-in is
replaced by one that tells bright frames from dark ones, so that the right score is known: whatever goes wrong between a
request and the frames gives another one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streamingvlm.evaluate import lmms
from support import media

UTILS = """
def visual(doc, lmms_eval_specific_kwargs=None):
    return [doc["video"]]


def text(doc, lmms_eval_specific_kwargs=None, round_idx=None, previous_output=None, previous_round_info=None):
    question = "Is it A. dark or B. bright?"
    if round_idx is None:
        return question
    last = round_idx == doc["rounds"]
    return visual(doc), f"{question} Before you said {previous_output[-1]}.", last, previous_output, None


def process(doc, results):
    replies = results[0] if isinstance(results[0], list) else [results[0]]
    return {"right": float(replies == [doc["answer"]] * doc["rounds"])}


def mean(values):
    return sum(values) / len(values)
"""

TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {kind}
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: answer
process_results: !function utils.process
generation_kwargs:
  max_new_tokens: 8
  temperature: 0
  do_sample: false
metric_list:
  - metric: right
    aggregation: !function utils.mean
    higher_is_better: true
"""


class LightMeter:
    """Says whether frames are dark or bright."""

    def answer(
        self, frames: lmms.Frames, times: Sequence[float], prompt: str, *, choices: Sequence[str], max_new_tokens: int
    ) -> str:
        assert "A. dark or B. bright" in prompt
        assert (max_new_tokens, choices) == (8, ())
        assert list(times) == [0.0, 1.0, 2.0, 3.0]
        return "B" if np.mean(frames) > 128 else "A"


def open_answerer(pretrained: str, device: str | None) -> LightMeter:  # noqa: ARG001
    """In place of a model."""
    assert pretrained == "light-meter"
    return LightMeter()


def write_tasks(folder: Path) -> list[str]:
    """Two tasks over three clips, one of them in two rounds; returns their names."""
    levels = {"dark.mp4": 20, "bright.mp4": 230, "mixed.mp4": 160}
    for name, level in levels.items():
        media.write_clip(folder / name, count=20, fps=5, picture=np.full((48, 64, 3), level, np.uint8))
    (folder / "utils.py").write_text(UTILS)
    kinds = {"light": ("generate_until", 1), "light_twice": ("generate_until_multi_round", 2)}
    for name, (kind, rounds) in kinds.items():
        rows = [
            {"video": str(folder / clip), "answer": "B" if level > 128 else "A", "rounds": rounds}
            for clip, level in levels.items()
        ]
        data = folder / f"{name}.json"
        data.write_text("\n".join(map(json.dumps, rows)))
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, data=data, kind=kind))
    return list(kinds)


def evaluate(names: Sequence[str], folder: Path) -> dict[str, float]:
    """What lmms-eval makes of the tasks."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False, model_name=lmms.MODEL)
    settings = argparse.Namespace(process_with_media=False, output_path=None, reasoning_tags=None, baseline=None)
    found: dict[str, Any] = simple_evaluate(
        lmms.MODEL, "pretrained=light-meter", tasks=list(names), task_manager=manager, batch_size=1, cli_args=settings
    )
    return {name: found["results"][name]["right,none"] for name in names}


def main() -> int:
    """Prints the scores; 1 if one of them is not 1."""
    lmms.OPENER = f"{__name__}:open_answerer"
    with tempfile.TemporaryDirectory() as folder:
        scores = evaluate(write_tasks(Path(folder)), Path(folder))
    print(scores)
    return 0 if set(scores.values()) == {1.0} else 1


if __name__ == "__main__":
    raise SystemExit(main())
