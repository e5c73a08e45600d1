"""What a report is made of, read from disk: what contestants said, and votes with the calibration of their judge.

Of prediction files two forms are known: lines with ``items`` that have times (Inf-Streams-Eval), which also tell when
each word was said, and lines with ``pred`` (LiveSports-3K-CC). Of other forms the texts that the judge was shown are
all that a report has.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...core.errors import SourceError
from ..benchmark import CommentaryBenchmark, Said
from ..commentary.figures import figures
from ..judging.calibration import STORED
from ..judging.votes_file import JUDGE, Judged, read_votes
from ..record import Record
from ..runs import Contestant, digest
from .data import Label, Text

#: What every response of the published form ends with.
SILENCE = " ..."


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """A contestant with what it said.

    ``said``: by video as its file names it, in the order of their ends; ``events``: by video and start, where a game is
    one window; ``texts``: by window id, where the file or the benchmark tells them; ``figures``: of
    :mod:`..commentary.figures` (None: only a benchmark tells them).
    """

    label: Label
    path: Path
    about: Mapping[str, Any]
    said: Mapping[str, Sequence[Said]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    events: Mapping[tuple[str, float], Sequence[Said]] = field(default_factory=dict)
    figures: Mapping[str, Any] | None = None

    def text(self, window: str, video: str, start: float, end: float) -> Text | None:
        """What was said of a window; None if that is not known."""
        steps = self._steps(video, start, end)
        whole = self.texts.get(window)
        if whole is None:
            if steps is None:
                return None
            whole = " ".join(step.text for step in steps if step.text)
        elif steps and words(" ".join(step.text for step in steps)) != words(whole):
            steps = None  # the benchmark counts other steps to this window than the published rule
        return Text(whole, tuple(step for step in steps or () if step.text))

    def _steps(self, video: str, start: float, end: float) -> Sequence[Said] | None:
        """Steps whose end, in whole seconds, is in (start, end]; None if there are none, not even silent ones."""
        if (video, start) in self.events:
            return self.events[video, start]
        said = self.said.get(video) or self.said.get(PurePosixPath(video).name) or ()
        low = bisect_right(said, start, key=lambda one: int(one.end))
        high = bisect_right(said, end, key=lambda one: int(one.end))
        return said[low:high] if high > low else None


@dataclass(frozen=True, slots=True)
class Votes:
    """A votes file. ``calibration``: the verdict on its judge that lies beside it (None: there is none)."""

    path: Path
    judged: Judged
    calibration: Mapping[str, Any] | None = None


def read_judged(path: Path) -> Votes:
    """A votes file with its judge's calibration. SourceError for files that ``eval judge`` does not write."""
    judged = read_votes(path)
    stored = path.parent / STORED
    try:
        verdicts = json.loads(stored.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Votes(path, judged)
    except (OSError, ValueError) as error:
        raise SourceError(f"{stored} cannot be read ({error})") from None
    found = (
        verdicts.get(digest({name: judged.settings.get(name) for name in JUDGE}))
        if isinstance(verdicts, dict)
        else None
    )
    return Votes(path, judged, found if isinstance(found, dict) else None)


def read_run(contestant: Contestant, benchmark: CommentaryBenchmark | None = None) -> ReportedRun:
    """A contestant's words. ``benchmark``: tells texts of any form. SourceError for a file that is not JSON lines."""
    said: dict[str, list[Said]] = {}
    texts: dict[str, str] = {}
    for number, line in _lines(contestant.predictions):
        try:
            _take(line, said, texts)
        except (KeyError, TypeError, ValueError) as error:
            where = f"{contestant.predictions}, line {number}"
            raise SourceError(f"{where} is no prediction ({type(error).__name__}: {error})") from None
    for steps in said.values():
        steps.sort(key=lambda one: one.end)
    measured = None
    if benchmark is not None:
        texts = dict(benchmark.texts(contestant.predictions))
        measured = figures(benchmark, texts, contestant.streams)
    events = {} if said else _events(contestant)  # a prediction file that tells times needs no records
    label = Label.of({**contestant.about, "name": contestant.name})
    return ReportedRun(label, contestant.path, contestant.about, said, texts, events, measured)


def _events(contestant: Contestant) -> dict[tuple[str, float], list[Said]]:
    """What records of single steps hold, by the video and the second that each begins with."""
    found = {}
    for path in sorted(contestant.streams.glob("*.jsonl")) if contestant.streams is not None else ():
        record = Record.read(path)
        if record is not None and isinstance(start := record.settings.get("start"), int | float):
            steps = [Said(row["start"], row["end"], row["text"].strip()) for row in record.rows]
            found[str(record.settings.get("video")), float(start)] = steps
    return found


def words(text: str) -> list[str]:
    """The words of a text, for comparing two of them however they are spaced."""
    return text.split()


def _take(line: Mapping[str, Any], said: dict[str, list[Said]], texts: dict[str, str]) -> None:
    if isinstance(line.get("items"), list):
        steps = said.setdefault(str(line["video"]), [])
        for item in line["items"]:
            end = float(item["end_time"])
            steps.append(
                Said(float(item.get("start_time", max(end - 1, 0))), end, _without_mark(str(item["response"])))
            )
    elif isinstance(line.get("pred"), str) and "video_id" in line and "event_id" in line:
        texts[f"{line['video_id']}_{line['event_id']}"] = line["pred"] if line["pred"].strip(". \t\n…") else ""


def _without_mark(response: str) -> str:
    text = response.rstrip()
    return "" if text.strip() == SILENCE.strip() else text.removesuffix(SILENCE).strip()


def _lines(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SourceError(f"cannot read {path} ({error.strerror or error})") from None
    found: list[tuple[int, Mapping[str, Any]]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise SourceError(f"{path}, line {number} is not a JSON object")
        found.append((number, value))
    return found
