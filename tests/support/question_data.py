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


def write_parquet(path: Path, rows: Sequence[Entry]) -> Path:
    """A Parquet file, with its folder."""
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


#: Category, group, candidates, and the right one from 0, of the questions of the tiny LongVideoBench.
LONGVIDEOBENCH = (("S2E", 15, 4, 1), ("T3O", 60, 5, 4), ("S2E", 600, 2, 0), ("TOS", 15, 4, 2))


def longvideobench_entry(number: int, **more: Any) -> Entry:
    """A question of the validation split."""
    category, group, candidates, right = LONGVIDEOBENCH[number % len(LONGVIDEOBENCH)]
    return {
        "id": f"vid{number}_0",
        "video_id": f"vid{number}",
        "video_path": f"vid{number}.mp4",
        "subtitle_path": f"vid{number}_en.json",
        "question": f"What comes after {number}?",
        "candidates": [f"choice {letter}" for letter in "abcde"[:candidates]],
        "correct_choice": right,
        "duration": 8.5 + number,
        "duration_group": group,
        "question_category": category,
        "topic_category": "NP-News-Programs",
        "level": "L1-Perception",
        "starting_timestamp_for_subtitles": 100,
        **more,
    }


def longvideobench_subtitles(wide: bool = False) -> list[Entry]:
    """Lines of one video in either published shape: 0 to 2 s, 4.2 to 4.4 s, behind its end, and an end that is None."""
    if wide:
        return [
            {"start": "00:01:40.000", "end": "00:01:42.000", "line": "first"},
            {"start": "00:01:44.200", "end": "00:01:44.400", "line": "short"},
            {"start": "00:02:40.000", "end": "00:02:42.000", "line": "too late"},
        ]
    return [
        {"timestamp": [100.0, 102.0], "text": "first"},
        {"timestamp": [104.2, 104.4], "text": "short"},
        {"timestamp": [160.0, 162.0], "text": "too late"},
    ]


def write_longvideobench(folder: Path, entries: Sequence[Entry] | None = None, parquet: bool = False) -> Path:
    """``lvb_val.json``, or the Parquet form with ``option0`` to ``option4``, and subtitles of every entry."""
    rows = [longvideobench_entry(number) for number in range(4)] if entries is None else list(entries)
    for number, row in enumerate(rows):
        if isinstance(row, dict) and "subtitle_path" in row:
            write_json(folder / "subtitles" / row["subtitle_path"], longvideobench_subtitles(number % 2 == 1))
    if not parquet:
        write_json(folder / "lvb_val.json", rows)
        return folder
    flat = []
    for row in rows:
        options = [*row["candidates"], *["N/A"] * 5][:5]
        flat.append({**row, **{f"option{number}": option for number, option in enumerate(options)}})
        del flat[-1]["candidates"]
    write_parquet(folder / "data" / "validation-00000-of-00001.parquet", flat)
    return folder


SRT = """\ufeff1
00:00:00,000 --> 00:00:02,000
<i>Hello</i>
{\\an8}there

2
00:00:04,500 --> 00:00:05,500
second\\Nline

3
00:00:07,000 --> 00:00:08,000

"""


def videomme_result(videos: int = 3, response: str | None = None) -> list[Entry]:
    """A result file: a video of each duration in turn, with three questions each; ``response``: the same for all."""
    return [
        {
            "video_id": f"{number + 1:03d}",
            "duration": ("short", "medium", "long")[number % 3],
            "domain": ("Knowledge", "Life Record")[number % 2],
            "sub_category": "Law",
            "questions": [
                {
                    "question_id": f"{number + 1:03d}-{place + 1}",
                    "task_type": ("Counting Problem", "OCR Problems", "Counting Problem")[place],
                    "question": f"What is {place}?",
                    "options": ["A. red", "B. green", "C. blue", "D. none of them"],
                    "answer": "ABCD"[(number + place) % 4],
                    **({} if response is None else {"response": response}),
                }
                for place in range(3)
            ],
        }
        for number in range(videos)
    ]


def videomme_rows(videos: int = 3) -> list[Entry]:
    """The same as rows of the Parquet file, which also names the files of the videos."""
    return [
        {**{key: value for key, value in video.items() if key != "questions"}, "videoID": f"id-{number}", **question}
        for number, video in enumerate(videomme_result(videos))
        for question in video["questions"]
    ]


def write_videomme(folder: Path, rows: Sequence[Entry] | None = None) -> Path:
    """``videomme/test-00000-of-00001.parquet``, and subtitles of the first video."""
    write_parquet(folder / "videomme" / "test-00000-of-00001.parquet", videomme_rows() if rows is None else rows)
    (folder / "subtitle").mkdir(exist_ok=True)
    (folder / "subtitle" / "id-0.srt").write_text(SRT, encoding="utf-8")
    return folder


def mvbench_entry(number: int = 0, **more: Any) -> Entry:
    """A question of a task without stretches."""
    return {
        "video": f"clip_{number}.mp4",
        "question": f"What moves {number}?",
        "candidates": ["a ball", "A cube", "nothing"],
        "answer": ("a ball", "A cube", "nothing")[number % 3],
        **more,
    }


def mvbench_tasks() -> dict[str, list[Entry]]:
    """Two tasks without stretches, one with, and episodic reasoning: nine questions."""
    return {
        "object_existence": [mvbench_entry(number) for number in range(3)],
        "action_count": [mvbench_entry(number, candidates=["1", "2"], answer="2") for number in range(2)],
        "action_sequence": [mvbench_entry(number, start=1.5, end=4.5 + number) for number in range(2)],
        "episodic_reasoning": [mvbench_entry(number, video=f"show_{number}", start=1, end=2.0) for number in range(2)],
    }


def write_mvbench(folder: Path, tasks: Mapping[str, Sequence[Any]] | None = None) -> Path:
    """``json/TASK.json`` for every task."""
    for task, entries in (mvbench_tasks() if tasks is None else tasks).items():
        write_json(folder / "json" / f"{task}.json", list(entries))
    return folder
