"""Benchmarks of multiple choice in their published forms, made on the fly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.question_data import Entry, write_json


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
