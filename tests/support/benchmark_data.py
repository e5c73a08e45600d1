"""Tiny data of published benchmarks, in the forms in which they are published; videos are real H.264 files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from support import media

Row = dict[str, Any]


def timed(start: float, end: float, every: float = 0.4, word: str = "w") -> list[list[Any]]:
    """Numbered words that follow each other from ``start`` to ``end`` seconds."""
    count = int((end - start) / every + 1e-9)
    return [[round(start + i * every, 3), round(start + (i + 1) * every, 3), f"{word}{i}"] for i in range(count)]


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """A line for each value; a text stands as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def write_video(path: Path, seconds: float) -> Path:
    """An H.264 file of flat greys, one frame a second: an hour takes a moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return media.write_clip(path, count=max(round(seconds), 1), fps=1)


def game(video: str, end: float, start: float = 0.0, every: float = 0.4, **more: Any) -> Row:
    """A line of ``eval_all_metadata.jsonl``: words from ``start`` to ``end`` seconds."""
    title = f"Title of {Path(video).stem}"
    return {"video": video, "title": title, "content": timed(start, end, every), **more}


def window(video: str, start: float, end: float, every: float = 0.4, **more: Any) -> Row:
    """A line of ``score_all_clips.jsonl``."""
    return {"video": video, "title": "", "content": timed(start, end, every, "r"), "preasr": "before", **more}


def write_inf_streams(
    folder: Path,
    games: Sequence[Any] | None = None,
    windows: Sequence[Any] | None = None,
    *,
    window_file: str = "score_all_clips.jsonl",
    clips: Mapping[str, float] | None = None,
) -> Path:
    """The files of Inf-Streams-Eval in ``folder``; two games of 30 s if nothing else is asked for.

    ``windows``: None for no file of windows. ``clips``: videos to make, with their seconds.
    """
    write_jsonl(
        folder / "eval_all_metadata.jsonl",
        [game("soccer/a.mp4", 30), game("tennis/b.mp4", 30)] if games is None else games,
    )
    if windows is not None:
        write_jsonl(folder / window_file, windows)
    for name, seconds in (clips or {}).items():
        write_video(folder / name, seconds)
    return folder


def event(number: int, begin: float, end: float, video_id: str = "vid", **more: Any) -> Row:
    """An event of LiveSports-3K-CC as its JSON has it: words as lists in strings."""
    words = timed(begin, end, word="e")
    before = timed(0, begin, word="p")
    return {
        "video_id": video_id,
        "url": f"https://example.org/{video_id}",
        "event_id": number,
        "begin": begin,
        "end": end,
        "event_title": f"Event {number}",
        "event_type": 0,
        "video": f"{video_id}.mp4",
        "class": "soccer",
        "event_asr": json.dumps(words),
        "event_asr_text": " ".join(word[2] for word in words),
        "preasr": json.dumps(before),
        "preasr_text": " ".join(word[2] for word in before),
        **more,
    }


def write_livesports(
    folder: Path, events: Sequence[Any] | None = None, *, split: str = "", clips: Mapping[str, float] | None = None
) -> Path:
    """``LiveSports-3K-CC.json``, or, with ``split`` (``val``, ``test``), a CSV file of the older shape.

    Three events on two videos if nothing else is asked for. ``clips``: videos to make, with their seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [event(0, 2.0, 6.5), event(1, 7.0, 9.25), event(0, 1.0, 4.0, "other")] if events is None else events
    if split:
        _write_csv(folder / f"LiveSports-3K-{split.capitalize()}.csv", rows, with_words=split == "val")
    else:
        (folder / "LiveSports-3K-CC.json").write_text(json.dumps(list(rows)), encoding="utf-8")
    for name, seconds in (clips or {}).items():
        write_video(folder / name, seconds)
    return folder


def _write_csv(path: Path, rows: Sequence[Row], with_words: bool) -> None:
    """The older shape: ``video_title`` for ``event_title``, and no human words in the test split."""
    old = [{("video_title" if key == "event_title" else key): value for key, value in row.items()} for row in rows]
    if not with_words:
        old = [{key: value for key, value in row.items() if not key.startswith("event_asr")} for row in old]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(old[0]))
        writer.writeheader()
        writer.writerows(old)
