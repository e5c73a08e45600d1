"""LiveSports-3K-CC (Chen et al., LiveCC): events of sports videos; an event is a game and its one window.

The data (Hugging Face ``stdKonjac/LiveSports-3K``) come in two shapes, both read: one JSON array of 1,702 events
(``LiveSports-3K-CC.json``), or, of older revisions, CSV files, ``val`` (202 events) and ``test`` (1,500, without the
human words). Fields: ``video_id``, ``event_id``, ``begin``, ``end`` (seconds on the video's clock), ``event_title``
(once ``video_title``), ``class``, ``video`` (file name), ``event_asr`` and ``preasr`` (``[[start, end, text], ...]``,
as lists or as JSON in a string), ``event_asr_text``, ``preasr_text``. However many words an event loses by repairs of
their times, it is kept: its reference is text.

An event is watched in steps of 1 s from ``begin`` on until all of it was seen: ``Game.end`` is ``begin`` and the length
rounded **up** to whole seconds. (The published scripts round down and lose half a second of an event on average.)

A prediction file has lines ``{"video_id", "event_id", "begin", "end", "pred"}``; ``video_id + "_" + event_id`` names an
event. An event without human words has no reference: it is no window, and is counted.
"""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from ...core.errors import SourceError
from ...core.grammar import LONGEST_STREAM
from ...data.annotations import read_words
from ...data.report import Reason, Unusable
from ...data.words import EPS, Repairs, Transcript, Word
from ..benchmark import Count, Defect, Game, Said, Video, Window
from ..runs import file_name
from .reading import json_lines, json_objects, repair_defects, revision_of, text_of

_LOG = logging.getLogger(__name__)

DATA = "LiveSports-3K-CC.json"
#: Events and videos that were published; of the older revisions by what the file's name holds.
EVENTS, VIDEOS = 1702, 416
SPLITS = {"val": 202, "test": 1500}
#: Longest field of a CSV file: all words before an event stand in one.
LONGEST_FIELD = 1 << 24


@dataclass(frozen=True, slots=True)
class Event:
    """An event as published. ``words``: of the event; ``reference``: them as text; ``previous``: the text before."""

    key: str
    video_id: str
    event_id: str
    video: str
    begin: float
    end: float
    title: str
    group: str
    words: tuple[Word, ...]
    repairs: Repairs
    reference: str
    previous: str


class LiveSports:
    """LiveSports-3K-CC, a :class:`~streamingvlm.evaluate.benchmark.CommentaryBenchmark`.

    ``data``: the JSON or CSV file, or the folder of it; ``videos``: the folder of the videos (None: that of the data).
    Raises SourceError.
    """

    name = "livesports"

    def __init__(self, data: Path, videos: Path | None = None) -> None:
        self._files = _files(data)
        self._root = videos or self._files[0].parent
        self._defects: list[Defect] = []
        self._events: dict[str, Event] = {}
        self._counts: list[Count] = []
        self._repaired = 0
        for path in self._files:
            before = len(self._events)
            for number, row in _rows(path):
                self._add(f"{path.name}, event {number}", row)
            self._counts.append(Count(f"events ({path.name})", len(self._events) - before, _published(path)))
        if not self._events:
            first = f" ({self._defects[0].item}: {self._defects[0].what})" if self._defects else ""
            raise SourceError(f"{self._files[0]} has no event that can be read{first}")
        self._defects.extend(_overlaps(self._events.values()))
        self.videos: Sequence[Video] = tuple(self._videos())
        by_key = {video.key: video for video in self.videos}
        self.games: Sequence[Game] = tuple(_game(one, by_key[one.video]) for one in self._events.values())
        self.windows: Sequence[Window] = tuple(_window(one) for one in self._events.values() if one.reference)
        self._of_game = {file_name(key): event for key, event in self._events.items()}
        self.defects: Sequence[Defect] = tuple(self._defects)

    @cached_property
    def revision(self) -> str:
        """sha256 of the data files, the first 16 digits."""
        return revision_of(self._files)

    @property
    def counts(self) -> Sequence[Count]:
        """Events by file, their videos, those that cannot be judged, and words that were repaired."""
        whole = sum(count.expected or 0 for count in self._counts) == EVENTS
        return (
            *self._counts,
            Count("videos in the data", len(self.videos), VIDEOS if whole else None),
            Count("events with human words", len(self.windows)),
            Count("events without (not judged)", len(self.games) - len(self.windows)),
            Count("repaired words", self._repaired),
        )

    def published(self, game: Game, said: Sequence[Said]) -> Iterator[Mapping[str, Any]]:
        """The one line of an event: what was said in its steps, joined by spaces."""
        event = self._of_game[game.name]
        number: int | str = int(event.event_id) if event.event_id.isdecimal() else event.event_id
        pred = " ".join(text for one in said if (text := one.text.strip()))
        about = {"video_id": event.video_id, "event_id": number, "begin": event.begin, "end": event.end}
        yield {**about, "pred": pred}

    def texts(self, path: Path) -> Mapping[str, str]:
        """What a prediction file says of each event. SourceError if it cannot be read or has an event twice.

        A text of dots alone, as LiveCC writes silence, is "".
        """
        found: dict[str, str] = {}
        lines: dict[str, int] = {}
        unknown: list[str] = []
        for number, row in json_objects(path):
            try:
                key = "_".join(_ids(row))
            except Unusable as error:
                raise SourceError(f"{path}, line {number}: {error}") from None
            if not isinstance(text := row.get("pred"), str):
                raise SourceError(f'{path}, line {number} ({key}) needs "pred", a text')
            if key in lines:
                raise SourceError(f"{path}, line {number}: {key} is there twice (the other is line {lines[key]})")
            lines[key] = number
            if key not in self._events:
                unknown.append(key)
            elif self._events[key].reference:
                found[key] = text.strip() if text.strip(". \t\n…") else ""
        if unknown and len(unknown) == len(lines):
            raise SourceError(f"{path} speaks of no event of {self._files[0]} ({unknown[0]!r} is none of them)")
        if unknown:
            _LOG.warning("%s: %d events that the data do not have, as %r", path, len(unknown), unknown[0])
        return found

    def _add(self, where: str, row: Any) -> None:
        try:
            event = _event(row)
            if event.key in self._events:
                raise Unusable(Reason.DUPLICATE, f"{event.key} is there already")
        except Unusable as error:
            self._defects.append(Defect(where, f"left out: {error}"))
            return
        self._events[event.key] = event
        self._defects.extend(repair_defects(event.key, event.repairs))
        self._repaired += sum(event.repairs.counts.values())

    def _videos(self) -> Iterator[Video]:
        """A video has to be as long as the last of its events."""
        ends: dict[str, float] = {}
        for event in self._events.values():
            ends[event.video] = max(event.end, ends.get(event.video, 0.0))
        return (Video.find(key, self._root, end) for key, end in ends.items())


def _game(event: Event, video: Video) -> Game:
    end = event.begin + math.ceil(event.end - event.begin - EPS)
    words = Transcript(
        event.video, event.words, event.begin, event.end, event.title, event.previous, repairs=event.repairs
    )
    return Game(file_name(event.key), video, event.title, event.group, event.begin, end, event.previous, words)


def _window(event: Event) -> Window:
    game = file_name(event.key)
    return Window(event.key, game, event.video, event.title, event.group, event.begin, event.end, event.reference)


def _event(row: Any) -> Event:
    """An event of either shape. :class:`Unusable` if it is none."""
    if not isinstance(row, dict):
        raise Unusable(Reason.MALFORMED, "not an object")
    video_id, event_id = _ids(row)
    key = f"{video_id}_{event_id}"
    begin, end = (_seconds(row.get(field), f"{key}: {field}") for field in ("begin", "end"))
    if end <= begin:
        raise Unusable(Reason.TIMES, f"{key} ends at {end:g} s and begins at {begin:g} s")
    words, repairs = _asr(row.get("event_asr"), f"{key}: event_asr")
    return Event(
        key=key,
        video_id=video_id,
        event_id=event_id,
        video=text_of(row.get("video")) or f"{video_id}.mp4",
        begin=begin,
        end=end,
        title=text_of(row.get("event_title")) or text_of(row.get("video_title")),
        group=text_of(row.get("class")),
        words=words,
        repairs=repairs,
        reference=text_of(row.get("event_asr_text")) or _joined(words),
        previous=text_of(row.get("preasr_text")) or _joined(_asr(row.get("preasr"), f"{key}: preasr")[0]),
    )


def _ids(row: Mapping[str, Any]) -> tuple[str, str]:
    """Video and number of an event, as text; numbers may be written as 3, 3.0 or "3"."""
    video, event = row.get("video_id"), row.get("event_id")
    if isinstance(event, float) and event.is_integer():
        event = int(event)
    if isinstance(event, int) and not isinstance(event, bool):
        event = str(event)
    if not isinstance(video, str) or not video or not isinstance(event, str) or not event.strip():
        raise Unusable(Reason.MALFORMED, 'an event needs "video_id", a text, and "event_id", a number')
    return video, event.strip()


def _seconds(value: Any, what: str) -> float:
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_STREAM:
        raise Unusable(Reason.TIMES, f"{what} is {value!r}, no time in seconds")
    return seconds


def _asr(value: Any, what: str) -> tuple[tuple[Word, ...], Repairs]:
    """Timed words: a list, a list as JSON in a string, or nothing."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unusable(Reason.MALFORMED, f"{what} is no JSON") from None
    if value is None or value == "" or (isinstance(value, str) and not value.strip()):
        return (), Repairs()
    try:
        return read_words(value)
    except Unusable as error:
        raise Unusable(error.reason, f"{what}: {error}") from None


def _joined(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def _overlaps(events: Any) -> Iterator[Defect]:
    """Events that begin before the one before them on the same video has ended."""
    ordered = sorted(events, key=lambda event: (event.video, event.begin, event.end))
    for one, two in pairwise(ordered):
        if one.video == two.video and two.begin < one.end - EPS:
            shared = min(one.end, two.end) - two.begin
            yield Defect(two.key, f"overlaps {one.key} by {shared:.1f} s; both are judged")


def _files(data: Path) -> list[Path]:
    """The data file; of a folder, the JSON of the newest revision, else all CSV files."""
    if data.is_file():
        return [data]
    if (data / DATA).is_file():
        return [data / DATA]
    found = sorted(path for path in data.glob("*.csv") if path.is_file())
    if not found:
        raise SourceError(f"{data} has neither {DATA} nor the CSV files of older revisions")
    return found


def _published(path: Path) -> int | None:
    """How many events a file was published with."""
    if path.suffix == ".csv":
        return next((count for split, count in SPLITS.items() if split in path.stem.lower()), None)
    return EVENTS


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Events of a file, numbered from 1. SourceError if it cannot be read."""
    if path.suffix == ".jsonl":
        yield from json_lines(path)
        return
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(_csv(file)) if path.suffix == ".csv" else json.load(file)
    except OSError as error:
        raise SourceError(f"cannot read {path} ({error.strerror or error})") from None
    except (ValueError, RecursionError, csv.Error) as error:
        raise SourceError(f"{path} is neither a JSON array of events nor CSV ({error})") from None
    if not isinstance(rows, list):
        raise SourceError(f"{path} is not a JSON array of events")
    yield from enumerate(rows, 1)


def _csv(file: Any) -> Iterator[dict[str, Any]]:
    old = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield from csv.DictReader(file)
    finally:
        csv.field_size_limit(old)
