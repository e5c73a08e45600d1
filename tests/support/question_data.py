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


def streaming_question(task: str, stamp: str, answer: str = "B", **more: Any) -> Entry:
    """A question of StreamingBench with options that have letters."""
    options = ["A. Red.", "B. Green.", "C. Blue.", "D. None."]
    return {
        "task_type": task,
        "question": f"{task}?",
        "time_stamp": stamp,
        "answer": answer,
        "options": options,
        **more,
    }


def streaming_entry(video: str, *questions: Entry, window: str = "[0:00:00 - 0:01:00]") -> Entry:
    """An entry of StreamingBench: one video with its questions."""
    return {"time": window, "questions": list(questions), "video_categories": "x", "video_path": f"./videos/{video}"}


def streaming_files() -> dict[str, list[Any]]:
    """Two real-time, two omni-source, three sequential and one proactive question, by file."""
    plain = ["Wang.", "Fan.", "Xu.", "Ma."]
    sequence = [
        streaming_entry("s_sqa.mp4", streaming_question("Sequential Question Answering", stamp, answer, options=plain))
        for stamp, answer in (("00:00:36", "A"), ("00:01:02", "C"), ("00:01:40", "D"))
    ]
    for number, entry in enumerate(sequence):
        entry["questions"][0]["question"] = f"Who serves {number}?"
    output = {
        "task_type": "Proactive Output",
        "question": 'When the score is 3, output "3 points".',
        "time_stamp": "00:00:20",
        "ground_truth_time_stamp": "00:00:29",
        "ground_truth_output": "3 points",
        "required_ability": "working memory",
    }
    counting, misleading = streaming_question("Counting", "00:00:31"), "Misleading Context Understanding"
    return {
        "questions_real": [
            streaming_entry("a_real.mp4", streaming_question("Object Recognition", "0:02:10"), counting),
        ],
        "questions_omni": [
            streaming_entry("b_omni.mp4", streaming_question("Emotion Recognition", "00:00:50", "D")),
            streaming_entry("b_omni.mp4", streaming_question(misleading, "00:00:55", "A")),
        ],
        "questions_sqa": [sequence],
        "questions_proactive": [streaming_entry("p_proactive.mp4", output)],
    }


def write_streamingbench(folder: Path, files: Mapping[str, Any] | None = None) -> Path:
    """The question files of StreamingBench in ``folder``, which is returned."""
    for name, entries in (streaming_files() if files is None else files).items():
        write_json(folder / f"{name}.json", entries)
    return folder


def streaming_output(entries: Sequence[Any], reply: Callable[[Entry], Any], model: str = "Some-Model") -> list[Any]:
    """An output file of StreamingBench's repository. ``reply``: to a question; ``...`` writes none."""
    found = copy.deepcopy(list(entries))
    for entry in found:
        for member in entry if isinstance(entry, list) else [entry]:
            for question in member["questions"]:
                if (said := reply(question)) is not ...:
                    question[model] = said
    return found
