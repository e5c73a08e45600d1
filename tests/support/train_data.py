"""Annotations and videos for the tests of the training data, made on the fly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamingvlm.train.examples import Encoding
from support import media, tiny


def encoding(family: str = tiny.GOLDEN, **more: Any) -> Encoding:
    """That of a tiny model with a tokenizer of characters: nothing is loaded."""
    return Encoding.of(tiny.model(family=family), **more)


def words(lo: float, hi: float, every: float = 0.4) -> list[list[Any]]:
    """Numbered words from ``lo`` to ``hi``, one ``every`` so many seconds."""
    count = int((hi - lo) / every + 1e-9)
    return [[round(lo + i * every, 3), round(lo + (i + 1) * every, 3), f"w{i}"] for i in range(count)]


def conversation(
    video: str, start: float | None, end: float | None, said: Sequence[Sequence[Any]], **asked: Any
) -> list[dict[str, Any]]:
    """A line of Inf-Streams-Train or Live-WhisperX-526K."""
    shown = {"type": "video", "video": video, "video_start": start, "video_end": end}
    question = {"type": "text", "text": "What happens?", **asked}
    return [
        {"role": "user", "content": [shown, question]},
        {"role": "assistant", "content": [{"type": "text_stream", "text_stream": list(said)}]},
    ]


def write_lines(path: Path, records: Sequence[Any]) -> list[int]:
    """Records as JSON lines (bytes as they are); returns where each begins."""
    offsets: list[int] = []
    with path.open("wb") as file:
        for record in records:
            offsets.append(file.tell())
            text = record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False).encode()
            file.write(text + b"\n")
    return offsets


def unknown_codec(path: Path) -> Path:
    """A whole MP4 whose video is in a format that no decoder is called by."""
    data = clip(path).read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzz1"))
    return path


def clip(path: Path, seconds: float = 30.0, **more: Any) -> Path:
    """A real H.264 file of flat greys, five frames a second."""
    return media.write_clip(path, count=round(seconds * 5), fps=5, **more)
