"""What a contestant says of a benchmark, into a run's folder: resumed after whatever ended it, merged from parts.

The unit of work is a video. Its words are appended to a record of its own as they are said, so that parts of the videos
can be run by any number of processes in one folder; the file of predictions is made anew of all records that are there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import EndpointError, OptionError, OutputError, SourceError, StreamingVLMError
from ..models.patches import Patcher
from ..sinks.files import json_text, write_whole
from .benchmark import Benchmark, CommentaryBenchmark, Game, QuestionBenchmark, Said, Video
from .commentary.examples import GameExample
from .presets import Answers, OfflinePreset, Preset
from .questions.examples import VideoQuestions, replies_of, videos_with_questions
from .questions.items import Item, Reply
from .questions.length import timed
from .questions.log import ReplyLog
from .questions.offline import Answerer, sample
from .questions.replies import write_replies
from .record import Record
from .runner import raise_first
from .runs import ABOUT, ITEMS, PREDICTIONS, STREAMS, file_name, locked
from .shards import Shard

_LOG = logging.getLogger(__name__)

#: Mark of records that hold a text for each window, and nothing between windows.
WINDOWS = "windows"
#: Is told how much is done, in the units that it was given the total in.
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Run:
    """What is run: ``locator`` of the benchmark, ``name`` of the contestant, ``mode``, ``preset`` and all ``settings``.

    ``part``: of the videos; ``limit``: at most so many of them, the first of the data (None: all).
    """

    benchmark: Benchmark
    locator: str
    out: Path
    name: str
    mode: str
    preset: str
    settings: Mapping[str, Any]
    part: Shard = field(default_factory=Shard)
    limit: int | None = None

    def about(self) -> dict[str, Any]:
        """What ``run.json`` says, but for how much is there and where it was run."""
        return {
            "task": self.benchmark.name,
            "locator": self.locator,
            "revision": self.benchmark.revision,
            "name": self.name,
            "mode": self.mode,
            "preset": self.preset,
            "settings": {**self.settings, **({"limit": self.limit} if self.limit is not None else {})},
        }

    def open(self) -> None:
        """Make the folder, or take it up. OutputError if it holds a run of other settings, naming each."""
        path = self.out / ABOUT
        own = json.loads(json.dumps(self.about()))
        with locked(self.out):
            if path.exists():
                self._check_same(path, own)
                return
            try:
                (self.out / STREAMS).mkdir(exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot write {self.out} ({error.strerror or error})") from None
            write_whole(path, json.dumps(own, indent=2, ensure_ascii=False) + "\n")

    def _check_same(self, path: Path, own: Mapping[str, Any]) -> None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError("it is no object")
        except (OSError, ValueError) as error:
            raise OutputError(f"{path} cannot be read ({error}); remove the folder to start the run again") from None
        here, there = dict(_flat(own)), dict(_flat(found))
        apart = [key for key in {**here, **there} if here.get(key) != there.get(key)]
        if apart:
            each = "; ".join(f"{key} {there.get(key)!r}, here {here.get(key)!r}" for key in apart)
            raise OutputError(f"{self.out} is of another run: {each}. Choose another --out")

    def close(self, found: int, expected: int, origin: Mapping[str, Any]) -> None:
        """Write down how many videos are there, of how many, and where the last of them were run."""
        about = {**self.about(), "found": found, "expected": expected, "origin": dict(origin)}
        write_whole(self.out / ABOUT, json.dumps(about, indent=2, ensure_ascii=False) + "\n")


class Speaker(Protocol):
    """Who comments games: writes a record for each under ``folder``."""

    def comment(self, games: Sequence[GameExample], folder: Path, done: Progress) -> None: ...


def merge_run(benchmark: Benchmark, out: Path) -> tuple[int, int]:
    """Make the file of predictions of a run's folder anew of whatever its parts have made; (found, expected)."""
    about = json.loads((out / ABOUT).read_text(encoding="utf-8"))
    settings = dict(about["settings"])
    limit = settings.pop("limit", None)
    run = Run(benchmark, about["locator"], out, about["name"], about["mode"], about["preset"], settings, limit=limit)
    return merge(run, about.get("origin", {}))


def merge(run: Run, origin: Mapping[str, Any]) -> tuple[int, int]:
    """Make the file of predictions of all that is there, whichever process made it; (found, expected).

    Processes that end at once do so one behind the other, so that the last one leaves the words of all.
    """
    with locked(run.out):
        is_commented = isinstance(run.benchmark, CommentaryBenchmark)
        found, expected = merge_games(run) if is_commented else merge_items(run)
        run.close(found, expected, origin)
    return found, expected


def games_of(run: Run, preset: Preset, blind: bool = False) -> list[GameExample]:
    """The games of a run's part. OptionError if the benchmark has no games."""
    benchmark = run.benchmark
    if not isinstance(benchmark, CommentaryBenchmark):
        raise OptionError(f"{run.locator} asks questions; it has no games to be commented")
    limited = benchmark.games[: run.limit]
    return [GameExample(game, preset, benchmark.revision, blind) for game in limited if run.part.has(game.video.key)]


def merge_games(run: Run) -> tuple[int, int]:
    """Make the file of predictions of all records that are done, whoever made them; (games that are whole, games).

    A game whose video ended too early, or of which something was declined, is in the file but does not count. Made
    anew from the records each time: merging twice gives the same file.
    """
    benchmark = run.benchmark
    assert isinstance(benchmark, CommentaryBenchmark), "it was checked"
    games = benchmark.games[: run.limit]
    path, found = run.out / PREDICTIONS, 0
    lines: list[str] = []
    for game in games:
        record = whole(run.out / STREAMS / f"{game.name}.jsonl", game)
        if record is None:
            continue
        found += not _lacks(record, game)
        said = [Said(row["start"], row["end"], row["text"]) for row in record.rows]
        lines += [json_text(dict(line)) for line in benchmark.published(game, said)]
    write_whole(path, "".join(f"{line}\n" for line in lines))
    return found, len(games)


def whole(path: Path, game: Game) -> Record | None:
    """The record of a game that was watched to its end, or ended early for good; None for any other."""
    record = Record.read(path)
    if record is None or record.settings.get("video") != game.video.key:
        return None
    done = record.ended or record.stopped or record.seconds >= game.end - 1e-6
    return record if done and (record.settings["start"], record.settings["end"]) == (game.start, game.end) else None


def _lacks(record: Record, game: Game) -> bool:
    """Whether something is missing of a game that is done; the log says what."""
    if record.errors:
        _LOG.warning("%s: %d stretches without words: %s", game.name, len(record.errors), record.errors[0]["error"])
    of_windows = record.settings.get("by") == WINDOWS
    short = record.ended and not of_windows and record.seconds < game.end - 1e-6
    if short:
        _LOG.warning("%s ends at %g s; its data ask for %g s", game.video.path, record.seconds, game.end)
    return short or bool(record.errors)


def streams_of(run: Run, preset: Preset, answers: Answers) -> list[VideoQuestions]:
    """The videos of a run's part that are there, with their questions, to be watched once each."""
    return [
        VideoQuestions(video, timed(video, items), preset, answers, run.benchmark.revision)
        for video, items in _videos_of(run)
        if run.part.has(video.key) and there(video)
    ]


def answer_offline(
    run: Run, preset: OfflinePreset, answerer: Answerer, done: Progress, *, patcher: Patcher | None, blind: bool = False
) -> None:
    """Have the items of a run's part answered, one by one; what has a reply already is passed over.

    ``done`` is told how many videos are. A video that is missing is left out. One that cannot be read, and an item that
    is declined, do not stop the others; the first such error is raised at the end.
    """
    faults: list[StreamingVLMError] = []
    for number, (video, items) in enumerate(offline_videos(run, blind), 1):
        settings = {"video": video.key, "data": run.benchmark.revision}
        with ReplyLog(run.out / ITEMS / f"{file_name(video.key)}.jsonl", settings) as log:
            left = [item for item in items if item.id not in log.replies]
            try:
                for item in left if blind else timed(video, left):
                    shown = None if blind else sample(str(video.path), item.start, item.time, preset, patcher)
                    try:
                        log.add(answerer.answer(item, shown))
                    except EndpointError as error:
                        if error.kind != "no_text":
                            raise
                        faults.append(error)
            except SourceError as error:
                faults.append(error)
        done(number)
    raise_first(faults)


def offline_videos(run: Run, blind: bool) -> list[tuple[Video, list[Item]]]:
    """The videos of a run's part with their items; ``blind``: also those that are missing."""
    return [pair for pair in _videos_of(run) if run.part.has(pair[0].key) and (blind or there(pair[0]))]


def there(video: Video) -> bool:
    """Whether a video has a file, or is made on the way."""
    return video.made or video.path.exists()


def merge_items(run: Run) -> tuple[int, int]:
    """Make the file of predictions of all replies that are there; (items with a reply, items)."""
    replies: list[Reply] = []
    expected = 0
    for video, items in _videos_of(run):
        expected += len(items)
        name = f"{file_name(video.key)}.jsonl"
        record = Record.read(run.out / STREAMS / name)
        found = replies_of(record, items) if record is not None else {}
        found |= ReplyLog.read(run.out / ITEMS / name)
        replies += [found[item.id] for item in items if item.id in found]
    write_replies(run.out / PREDICTIONS, replies)
    return len(replies), expected


def _videos_of(run: Run) -> list[tuple[Video, list[Item]]]:
    if not isinstance(run.benchmark, QuestionBenchmark):
        raise OptionError(f"{run.locator} is commented; it asks no questions")
    return list(videos_with_questions(run.benchmark))[: run.limit]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, part in value.items():
        if name or key not in ("found", "expected", "origin"):
            yield from _flat(part, f"{name}.{key}" if name else key)
