"""Readers of annotations as they are published: one line of a JSONL file to one :class:`Transcript`.

Three forms, told apart line by line:

- **Inf-Streams** (paper, Inf-Streams-Eval; also what ``streamingvlm record`` writes beside a clip): an object
  ``{"video", "title", "content": [[start, end, text], ...]}``. A ``text`` of several words is a segment, whose words
  are spread evenly over its time.
- **Inf-Streams-Train** (mit-han-lab/Inf-Stream-Train: ``train_s12w24_with_seeks.jsonl`` and others): a list of two
  messages. The user's ``content`` holds ``{"type": "video", "video", "video_start", "video_end"}`` and ``{"type":
  "text", "text", "previous", "title"}``, the assistant's ``{"type": "text_stream", "text_stream": [[start, end, word],
  ...]}``, perhaps with a ``"qa_stream"``, which is not used. Times are on the clock of the video file. The byte offsets
  of the lines are a JSON list in a file beside it, ``train_s12w24_seeks.jsonl``.
- **Live-WhisperX-526K** (chenjoya/Live-WhisperX-526K: ``live_whisperx_526k_with_seeks.jsonl``): the same messages, with
  times on the clock of the whole video (``video/youtube/ID.mp4``), of which clips are published as
  ``ID_START-END_2.0fps.mp4``. The byte offsets are the last line of the file itself.

In all of them a word may also be an object, as WhisperX writes it: ``{"word" or "text", "start", "end"}``. Words whose
times are missing, null or impossible are repaired, see :mod:`streamingvlm.data.repair`.

The forms were read off the loaders of the two projects (``streaming_vlm/data/lmm_dataset.py`` of
mit-han-lab/streaming-vlm at commit a940d8c; ``data/lmm_dataset.py`` and ``data/production`` of showlab/livecc) and off
what users of the data report (videos of zero bytes, files listed twice, clips of more than 64 s; how clips are called).
The published files themselves were not at hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import SourceError
from ..core.grammar import LONGEST_STREAM
from ..sources.file import TITLE_LIMIT
from .repair import TimedText, check_losses, repair
from .report import Reason, Report, Unusable
from .words import Repairs, Transcript, Word

_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Line:
    """Where a line begins: a byte offset in a file."""

    path: Path
    offset: int

    def __str__(self) -> str:
        return f"{self.path.name}, byte {self.offset}"

    def read(self) -> bytes:
        """The line. :class:`Unusable` if no line begins here (a seek index of another file), SourceError if the file
        cannot be read."""
        try:
            with self.path.open("rb") as file:
                if self.offset:
                    file.seek(self.offset - 1)
                    if file.read(1) != b"\n":
                        raise Unusable(Reason.SEEK_INDEX, "no line begins there")
                text = file.readline()
        except OSError as error:
            raise SourceError(f"cannot read {self.path} ({error.strerror or error})") from error
        if not text:
            raise Unusable(Reason.SEEK_INDEX, "the file ends before that")
        return text

    def transcript(self) -> Transcript:
        """What the line says. :class:`Unusable` if it is in none of the forms, see :func:`parse`."""
        return parse(self.read())


def annotation_files(paths: Sequence[Path]) -> list[Path]:
    """The JSONL files that ``paths`` name; a folder stands for those in it. SourceError if there are none."""
    files: list[Path] = []
    for path in paths:
        found = [file for file in sorted(path.glob("*.jsonl")) if not _is_index(file)] if path.is_dir() else [path]
        if not found or not all(file.is_file() for file in found):
            raise SourceError(f"{path}: no annotations there; a .jsonl file or a folder of them is needed")
        files += found
    return files


def _is_index(path: Path) -> bool:
    """NAME_seeks.jsonl is the index of NAME_with_seeks.jsonl or of NAME.jsonl."""
    return path.name.endswith("_seeks.jsonl") and not path.name.endswith("_with_seeks.jsonl")


def lines(path: Path, report: Report) -> Iterator[Line]:
    """Where the lines of a file begin: by its seek index if it has one, else as they come.

    Raises SourceError if the file cannot be read.
    """
    try:
        yield from _lines(path, report)
    except OSError as error:
        raise SourceError(f"cannot read {path} ({error.strerror or error})") from error


def _lines(path: Path, report: Report) -> Iterator[Line]:
    offsets = _index_beside(path, report)
    if offsets is None:
        offsets = _as_offsets(_last_line(path))
    if offsets is not None:
        yield from (Line(path, offset) for offset in offsets)
        return
    with path.open("rb") as file:
        at = 0
        for text in file:
            if text.strip():
                yield Line(path, at)
            at += len(text)


def _index_beside(path: Path, report: Report) -> list[int] | None:
    """The offsets in ``NAME_seeks.jsonl``. One that is broken is reported, and the lines are read as they come."""
    beside = path.with_name(path.name.replace("_with_seeks", "").removesuffix(".jsonl") + "_seeks.jsonl")
    if beside == path or not beside.is_file():
        return None
    offsets = _as_offsets(beside.read_bytes())
    if offsets is None:
        report.skip(Reason.SEEK_INDEX, f"{beside.name} is not a list of byte offsets; {path.name} was read without it")
    return offsets


def _as_offsets(text: bytes) -> list[int] | None:
    if not text.lstrip().startswith(b"["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    right = isinstance(found, list) and all(type(offset) is int and offset >= 0 for offset in found)
    return found if right else None


def _last_line(path: Path) -> bytes:
    """The last line that is not empty; an index of half a million offsets is one line of some megabytes."""
    with path.open("rb") as file:
        end = at = file.seek(0, 2)
        tail = b""
        while at > 0 and b"\n" not in tail.rstrip():
            at = max(at - max(end - at, _BLOCK), 0)
            file.seek(at)
            tail = file.read(end - at)
    return tail.rstrip().rpartition(b"\n")[2]


def parse(text: bytes) -> Transcript:
    """One line of any of the forms, its words repaired by :func:`~streamingvlm.data.repair.repair`.

    :class:`Unusable` if it is none of them, or if the repairs lose more than
    :data:`~streamingvlm.data.repair.MAX_LOST_SHARE` of its words.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise Unusable(Reason.MALFORMED, "not JSON") from None
    try:
        if isinstance(record, dict):
            return _segments(record)
        return _conversation(record)
    except KeyError as error:
        raise Unusable(Reason.MALFORMED, f"lacks {error}") from None
    except (IndexError, TypeError, AttributeError, ValueError, StopIteration):
        raise Unusable(Reason.MALFORMED, "neither a stream nor a conversation with a text_stream") from None


def _segments(record: dict[str, Any]) -> Transcript:
    words, repairs = _words(record["content"])
    return Transcript(
        video=_text(record["video"]),
        words=words,
        context=_title(record.get("title")),
        repairs=repairs,
    )


def _conversation(record: Any) -> Transcript:
    user, assistant = record
    parts: list[dict[str, Any]] = user["content"]
    video = next(part for part in parts if "video" in part)
    asked: dict[str, Any] = {key: value for part in parts for key, value in part.items()}
    said = next(part for part in assistant["content"] if "text_stream" in part)
    start = _seconds(video.get("video_start") or 0.0)
    end = None if video.get("video_end") is None else _seconds(video["video_end"])
    if end is not None and end <= start:
        raise Unusable(Reason.TIMES, f"ends at {end:g} s and starts at {start:g} s")
    words, repairs = _words(said["text_stream"])
    return Transcript(
        video=_text(video["video"]),
        words=words,
        start=start,
        end=end,
        context=_title(asked.get("title")),
        previous=_text(asked.get("previous") or "").strip(),
        query=_text(asked.get("text") or "").strip(),
        whole=True,
        questions=len(said.get("qa_stream") or ()),
        repairs=repairs,
    )


def read_words(items: Any) -> tuple[tuple[Word, ...], Repairs]:
    """A list of timed words as published files have it: words with usable times, and what was repaired.

    However many words are lost by that. :class:`Unusable` if it is no such list.
    """
    try:
        return repair([_timed_text(item) for item in items])
    except KeyError as error:
        raise Unusable(Reason.MALFORMED, f"lacks {error}") from None
    except (TypeError, ValueError):
        raise Unusable(Reason.MALFORMED, "not a list of [start, end, text]") from None


def _words(items: Any) -> tuple[tuple[Word, ...], Repairs]:
    """Words with usable times, and what was repaired. :class:`Unusable` if too many words are lost by that."""
    words, repairs = repair([_timed_text(item) for item in items])
    check_losses(repairs)
    return words, repairs


def _timed_text(item: Any) -> TimedText:
    """``[start, end, text]``, or an object with ``word`` or ``text`` and perhaps ``start`` and ``end``."""
    if isinstance(item, dict):
        text = item["text"] if "text" in item else item["word"]
        return TimedText(_time(item.get("start")), _time(item.get("end")), _text(text))
    start, end, text = item
    return TimedText(_time(start), _time(end), _text(text))


def _time(value: Any) -> float | None:
    """A number of seconds, possible or not; None where it is missing."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    # JSON has whole numbers that no float holds.
    return float(value) if abs(value) < 2.0**63 else math.inf


def _seconds(value: Any) -> float:
    """Where a clip starts or ends. :class:`Unusable` for a number that is no time of a video."""
    seconds = _time(value)
    if seconds is None or not 0 <= seconds <= LONGEST_STREAM:
        raise Unusable(Reason.TIMES, f"{value} is no time")
    return seconds


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # half a surrogate is no text: nothing behind this could print it
    return value


def _title(value: Any) -> str:
    """A title as a video file's is taken: on one line, cut where it is long."""
    return " ".join(_text(value or "").split())[:TITLE_LIMIT]
