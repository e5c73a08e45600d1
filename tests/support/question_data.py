"""Benchmarks of questions in their published forms, made on the fly: a writer for each."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from support import media

Entry = dict[str, Any]


def write_json(path: Path, value: Any) -> Path:
    """A JSON file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def write_videos(folder: Path, seconds: Mapping[str, float]) -> None:
    """Real H.264 files of so many seconds by their names."""
    for name, length in seconds.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        media.write_clip(path, count=round(length * 5), fps=5)


def ovo_choice(id: int, task: str, gt: int = 1, realtime: float = 12, video: str = "", **more: Any) -> Entry:
    """An entry of OVO-Bench with options."""
    asked = {"question": f"What is {id}?", "answer": "free text", "options": ["red", "green", "blue", "none"]}
    video = video or f"YouTube_Games/a&index={id}.mp4"
    return {"id": id, "task": task, "video": video, "realtime": realtime, **asked, "gt": gt, **more}


def ovo_entries() -> list[Entry]:
    """An entry of every task of OVO-Bench: 9 choices, 3 counts, 4 steps, 5 polls: 21 items of 12 videos."""
    tasks = ("EPM", "HLD", "ASI", "STU", "OJR", "ATR", "ACR", "OCR", "FPD")
    choices = [ovo_choice(number, task) for number, task in enumerate(tasks)]
    repetitions = {"activity": "clapping hands", "start_times": [1, 4, 8], "end_times": [3.5, 6, 10]}
    counts = [{"realtime": 3.2, "count": 0}, {"realtime": 6, "count": 2}, {"realtime": 20.0, "count": 3}]
    steps = ["open the box", "take the lid"]
    told = [(2, 0, 0), (6, 0, 1), (11, 1, 0), (10, 0, 1)]  # second, step, whether it is being carried out
    polls = [(20, 0), (25, 0), (31, 1), (36, 1), (56, 1)]
    return [
        *choices,
        {"id": 20, "task": "REC", "video": "perception_test/v.mp4", **repetitions, "test_info": counts},
        {
            "id": 21,
            "task": "SSR",
            "video": "COIN/x.mp4",
            "tutorial": "Boxes",
            "all_steps": steps,
            "start_time": [5, 12],
            "end_time": [10, 15],
            "test_info": [{"realtime": second, "step": steps[step], "type": now} for second, step, now in told],
        },
        {
            "id": 22,
            "task": "CRR",
            "video": "MovieNet/y.mp4",
            "question": "Who opens the door?",
            "answer": "The cook",
            "ask_time": 20,
            "clue_time": 30,
            "test_info": [{"realtime": second, "type": now} for second, now in polls],
        },
    ]


def write_ovo(folder: Path, entries: Sequence[Any] | None = None, videos: Mapping[str, float] | None = None) -> Path:
    """``ovo_bench_new.json`` in ``folder``; ``videos``: seconds of files that are made in ``folder/videos``."""
    write_videos(folder / "videos", videos or {})
    return write_json(folder / "ovo_bench_new.json", ovo_entries() if entries is None else entries)


def ovo_results(entries: Sequence[Entry], reply: Callable[[Entry], Any]) -> dict[str, list[Entry]]:
    """A results file of OVO-Bench's repository. ``reply``: to an entry with options or a line of ``test_info``, which
    also has the task."""
    found: dict[str, list[Entry]] = {"backward": [], "realtime": [], "forward": []}
    for entry in copy.deepcopy(list(entries)):
        if "test_info" in entry:
            for query in entry["test_info"]:
                query["response"] = reply({**query, "task": entry["task"]})
            found["forward"].append(entry)
            continue
        group = "backward" if entry["task"] in {"EPM", "ASI", "HLD"} else "realtime"
        kept = {key: entry[key] for key in ("id", "video", "task", "question")}
        found[group].append({**kept, "response": reply(entry), "ground_truth": chr(65 + entry["gt"])})
    return found


def ovo_truth(asked: Entry) -> str:
    """The right reply, for :func:`ovo_results`."""
    if "gt" in asked:
        return chr(65 + int(asked["gt"]))
    return str(asked["count"]) if "count" in asked else ("No", "Yes")[asked["type"]]
