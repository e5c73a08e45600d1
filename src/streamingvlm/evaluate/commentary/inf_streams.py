"""Inf-Streams-Eval (paper, section 4): whole games, of which windows of about 100 s are judged.

Files, as the scripts of mit-han-lab/streaming-vlm read them (commit a940d8c; the data themselves were not at hand):

- ``eval_all_metadata.jsonl``: a line a game, ``{"video", "title", "content": [[start, end, text], ...]}``, seconds on
  the game's clock. A game is evaluated from ``start`` (1000 s) to the end of its last word, cut to whole seconds.
- ``score_all_clips.jsonl`` or ``temp_score_clips.jsonl``: a line a window, ``{"video", "title", "content",
  "preasr"}``; a window goes from the start of its first word to the end of its last, both cut to whole seconds.
  ``preasr`` is not used: the words before are those of the game.

Without a file of windows they are made by the paper's rule: a grid of 100 s from ``start`` on, of which the windows
with at least 200 words are kept. A word belongs to the window in which it ends, ``start < time <= end``; the last
window ends with its game.

A prediction file has lines ``{"video", "chunk_start", "chunk_end", "items"}``, an item is ``{"response",
"start_time", "end_time"}`` (``start_time`` may be missing). A window's text are the responses whose ``int(end_time)``
lies in it. Each response ends with the silence mark, which is cut. ``video`` is the game's path; a bare file name, as
the published scripts write it, will do where it is unique.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ...core.errors import OptionError, SourceError
from ...data.report import Reason, Unusable
from ...data.words import EPS, Repairs, Transcript, Word
from ..benchmark import Count, Defect, Game, Said, Video, Window
from ..runs import file_name
from .reading import json_lines, json_objects, repair_defects, revision_of, text_of, usable_words

_LOG = logging.getLogger(__name__)

METADATA = "eval_all_metadata.jsonl"
#: Files of windows; the first that exists is used.
WINDOW_FILES = ("score_all_clips.jsonl", "temp_score_clips.jsonl")
#: ``windows=grid``: windows by the paper's rule, whatever files there are.
GRID = "grid"
#: Where evaluation starts, seconds (paper).
START = 1000
#: The paper's rule for windows: seconds, and least words.
WINDOW, MIN_WORDS = 100, 200
#: A window of a file begins with its first word, which may begin before the second that it ends in: seconds.
EARLY = 5.0
#: What every published response ends with.
SILENCE = " ..."
#: Fields of a line that may say which sport it is.
GROUP_FIELDS = ("sport", "category", "class")


class Spoken(NamedTuple):
    """A response of a prediction file: the second it ends in, where it stands, and where it begins (-inf: not told)."""

    end: float
    text: str
    line: int
    start: float = -math.inf


class InfStreams:
    """Inf-Streams-Eval, a :class:`~streamingvlm.evaluate.benchmark.CommentaryBenchmark`.

    ``data``: its folder, or the file of metadata in it; ``videos``: where the paths of the videos start (None: the
    folder of the data). Options, as texts: ``start``, whole seconds; ``windows``: the name of a file of windows, or
    ``grid``; ``games``: how many games there have to be (default: as many as the file has lines). Raises SourceError
    or OptionError.
    """

    name = "inf-streams"

    def __init__(
        self, data: Path, videos: Path | None = None, *, start: str = str(START), windows: str = "", games: str = ""
    ) -> None:
        folder = data if data.is_dir() else data.parent
        self._metadata = data / METADATA if data.is_dir() else data
        if not self._metadata.is_file():
            raise SourceError(f"{folder} has no {METADATA}")
        self.start = float(_whole("start", start))
        self._published = _window_file(folder, windows)
        self._defects = list(_unused(folder, self._published))
        self._root = videos or folder
        self._repaired = 0
        self._lines = 0
        self._read: dict[str, Game] = {}
        for number, value in json_lines(self._metadata):
            self._lines += 1
            self._add_game(f"{self._metadata.name}, line {number}", value)
        if not self._read:
            raise SourceError(f"{self._metadata} has no game that can be read{self._first_defect()}")
        self._expected_games = _whole("games", games) if games else self._lines
        self._names = Names(self._read)
        self.games: Sequence[Game] = tuple(game for game in self._read.values() if self._is_long_enough(game))
        self._by_key = {game.video.key: game for game in self.games}
        self._expected_windows: int | None = None
        self.windows: Sequence[Window] = tuple(self._grid() if self._published is None else self._listed())
        self.defects: Sequence[Defect] = tuple(self._defects)

    @cached_property
    def revision(self) -> str:
        """sha256 of the metadata and the windows, the first 16 digits."""
        return revision_of([self._metadata, *([self._published] if self._published else [])])

    @property
    def counts(self) -> Sequence[Count]:
        """Games, windows by where they come from, and words that were repaired."""
        source = self._published.name if self._published else f"{WINDOW} s with {MIN_WORDS} words or more"
        return (
            Count("games", len(self._read), self._expected_games),
            Count(f"games beyond {self.start:g} s", len(self.games)),
            Count(f"windows ({source})", len(self.windows), self._expected_windows),
            Count("repaired words", self._repaired),
        )

    @property
    def videos(self) -> Sequence[Video]:
        """The videos of the games that are evaluated."""
        return tuple(game.video for game in self.games)

    def published(self, game: Game, said: Sequence[Said]) -> Iterator[Mapping[str, Any]]:
        """One line for the game, with an item for every step, silent ones too."""
        items = [{"response": one.text + SILENCE, "start_time": one.start, "end_time": one.end} for one in said]
        end = int(said[-1].end) if said else int(game.start)
        video = self._names.written(game.video.key)
        yield {"video": video, "chunk_start": int(game.start), "chunk_end": end, "items": items}

    def texts(self, path: Path) -> Mapping[str, str]:
        """What a prediction file says in each window. SourceError if it cannot be read or has a second twice.

        A window in which no item ends, not even a silent one, is missing: nothing was made for it.
        """
        spoken = self._spoken(path)
        found: dict[str, str] = {}
        # What was said of a window in one piece is of no other, also where that begins in the last second of this one.
        whole = {(window.video, window.start, window.end): window.id for window in self.windows}
        for window in self.windows:
            items = spoken.get(window.video, ())
            first = bisect_right(items, window.start, key=lambda one: int(one.end))
            last = bisect_right(items, window.end, key=lambda one: int(one.end))
            ending = items[first:last]
            own = [one for one in ending if whole.get((window.video, one.start, one.end), window.id) == window.id]
            if own:
                found[window.id] = " ".join(one.text for one in own if one.text)
        return found

    def _spoken(self, path: Path) -> dict[str, list[Spoken]]:
        """Items by game, in the order of their ends."""
        spoken: dict[str, dict[float, Spoken]] = {}
        unknown: list[str] = []
        for number, line in json_objects(path):
            where = f"{path}, line {number}"
            video, items = line.get("video"), line.get("items")
            if not isinstance(video, str) or not isinstance(items, list):
                raise SourceError(f'{where} is no prediction: it needs "video" and a list of "items"')
            try:
                key = self._names.find(video)
            except Unusable as error:
                raise SourceError(f"{where}: {error}") from None
            if key is None:
                unknown.append(video)
                continue
            for item in items:
                _take(spoken.setdefault(key, {}), item, number, f"{where}, {video}")
        if unknown and not spoken:
            raise SourceError(f"{path} speaks of no game of {self._metadata} ({unknown[0]!r} is none of them)")
        if unknown:
            _LOG.warning("%s: %d lines of games that the data do not have, as %r", path, len(unknown), unknown[0])
        return {key: sorted(items.values()) for key, items in spoken.items()}

    def _add_game(self, where: str, value: Any) -> None:
        try:
            key = _key(value)
            words, repairs = usable_words(value.get("content"))
            if not words:
                raise Unusable(Reason.FEW_WORDS, f"{key} has no words")
        except Unusable as error:
            self._defects.append(Defect(where, f"left out: {error}"))
            return
        if key in self._read:
            self._defects.append(Defect(where, f"left out: {key} is there already"))
            return
        self._note(key, repairs)
        title, end = text_of(value.get("title")), float(int(words[-1].end))
        self._read[key] = Game(
            name=file_name(key),
            video=Video.find(key, self._root, end),
            title=title,
            group=_group(key, value),
            start=self.start,
            end=end,
            previous=" ".join(word.text for word in words if word.end <= self.start + EPS),
            words=Transcript(key, words, context=title, repairs=repairs),
        )

    def _is_long_enough(self, game: Game) -> bool:
        if game.end > self.start:
            return True
        self._defects.append(Defect(game.video.key, f"not evaluated: ends at {game.end:g} s, before {self.start:g} s"))
        return False

    def _grid(self) -> Iterator[Window]:
        for game in self.games:
            words = game.words.words
            ends = [word.end for word in words]
            for start in range(int(self.start), int(game.end), WINDOW):
                end = min(float(start + WINDOW), game.end)
                first, last = (bisect_right(ends, border + EPS) for border in (start, end))
                if last - first >= MIN_WORDS:
                    yield _window(game, float(start), end, words[first:last])

    def _listed(self) -> Iterator[Window]:
        """The windows of the file, in its order."""
        assert self._published is not None, "there is a file of windows"
        seen: set[str] = set()
        expected = 0
        for number, value in json_lines(self._published):
            where = f"{self._published.name}, line {number}"
            expected += 1
            try:
                window, repairs = self._read_window(value)
                if window.id in seen:
                    raise Unusable(Reason.DUPLICATE, f"{window.id} is there already")
            except Unusable as error:
                expected -= error.reason is Reason.BEYOND
                self._defects.append(Defect(where, f"left out: {error}"))
                continue
            seen.add(window.id)
            self._note(window.id, repairs)
            yield window
        self._expected_windows = expected

    def _read_window(self, value: Any) -> tuple[Window, Repairs]:
        """:class:`Unusable` for a line that is none, ``BEYOND`` for one that is not to be evaluated."""
        name = _key(value)
        key = self._names.find(name)
        if key is None:
            raise Unusable(Reason.MISSING, f"{name} is no game of {self._metadata.name}")
        words, repairs = usable_words(value.get("content"))
        if not words:
            raise Unusable(Reason.FEW_WORDS, f"a window of {key} without words")
        start, end = float(int(words[0].start)), float(int(words[-1].end))
        if (game := self._by_key.get(key)) is None:
            raise Unusable(Reason.BEYOND, f"{key} is not evaluated")
        if start < game.start - EARLY:
            raise Unusable(Reason.BEYOND, f"{key}, {start:g}-{end:g} s begins before {game.start:g} s")
        if end <= start:
            raise Unusable(Reason.TIMES, f"{key}, {start:g}-{end:g} s has no length")
        return _window(game, start, end, words), repairs

    def _note(self, item: str, repairs: Repairs) -> None:
        self._defects.extend(repair_defects(item, repairs))
        self._repaired += sum(repairs.counts.values())

    def _first_defect(self) -> str:
        return f" ({self._defects[0].item}: {self._defects[0].what})" if self._defects else ""


class Names:
    """Which game is meant: by its path with folders, or by its file's name where only one game has it."""

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self._keys = keys
        self._times = Counter(PurePosixPath(key).name for key in keys)
        self._by_name = {PurePosixPath(key).name: key for key in keys}

    def find(self, name: str) -> str | None:
        """The key; None if there is no such game. :class:`Unusable` if it may be several."""
        if "/" in name:
            key = PurePosixPath(name).as_posix()
            return key if key in self._keys else None
        if self._times[name] > 1:
            games = ", ".join(key for key in self._keys if PurePosixPath(key).name == name)
            raise Unusable(Reason.DUPLICATE, f"{name!r} may be any of {games}; a path with its folder is needed")
        return self._by_name.get(name)

    def written(self, key: str) -> str:
        """How a file names a game so that it is found again: a file name that others share begins with ``./``."""
        return key if "/" in key or self._times[key] == 1 else f"./{key}"


def without_mark(response: str) -> str:
    """A response without the silence mark at its end, and nothing else of it."""
    text = response.rstrip()
    return "" if text.strip() == SILENCE.strip() else text.removesuffix(SILENCE).strip()


def _take(items: dict[float, Spoken], item: Any, line: int, where: str) -> None:
    """Add an item of a prediction to those of its game."""
    end = item.get("end_time") if isinstance(item, dict) else None
    response = item.get("response") if isinstance(item, dict) else None
    if isinstance(end, bool) or not isinstance(end, int | float) or not abs(end) < 2.0**53:
        raise SourceError(f'{where}: an item needs "end_time", in seconds')
    if not isinstance(response, str):
        raise SourceError(f'{where}: the item that ends at {end:g} s needs "response", a text')
    key = round(float(end), 3)
    if key in items:
        raise SourceError(
            f"{where}: the item that ends at {end:g} s is there twice (the other is in line {items[key].line}); "
            "the parts of this file were merged more than once"
        )
    start = item.get("start_time")
    begins = float(start) if isinstance(start, int | float) and abs(start) < 2.0**53 else -math.inf
    items[key] = Spoken(key, without_mark(response), line, begins)


def _window(game: Game, start: float, end: float, words: Sequence[Word]) -> Window:
    key = game.video.key
    text = " ".join(word.text for word in words)
    return Window(f"{key}:{start:g}-{end:g}", game.name, key, game.title, game.group, start, end, text)


def _key(value: Any) -> str:
    """The path of a line's video. :class:`Unusable` if it has none."""
    name = value.get("video") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise Unusable(Reason.MALFORMED, 'not an object with a "video"')
    return PurePosixPath(name).as_posix()


def _group(key: str, value: Mapping[str, Any]) -> str:
    told = next((text for field in GROUP_FIELDS if (text := text_of(value.get(field)))), "")
    path = PurePosixPath(key)
    return told or (path.parts[0] if len(path.parts) > 1 and not path.is_absolute() else "")


def _whole(option: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise OptionError(f"{option}={value}: a whole number, 0 or more, is needed")
    return int(value)


def _window_file(folder: Path, asked: str) -> Path | None:
    """The file of windows; None for the paper's grid."""
    if asked == GRID:
        return None
    if asked and not (folder / asked).is_file():
        raise SourceError(f"{folder} has no {asked}; windows={GRID} makes windows by the paper's rule")
    names = (asked,) if asked else WINDOW_FILES
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _unused(folder: Path, used: Path | None) -> Iterator[Defect]:
    """Files of windows beside the one that is used, if they say something else."""
    for other in (folder / name for name in WINDOW_FILES):
        if used is not None and other != used and other.is_file() and revision_of([other]) != revision_of([used]):
            yield Defect(other.name, f"not used: windows are those of {used.name}; windows={other.name} takes these")
