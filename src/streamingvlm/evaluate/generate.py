"""What a contestant says of a benchmark, into a run's folder: resumed after whatever ended it, merged from parts.

The unit of work is a video. Its words are appended to a record of its own as they are said, so that parts of the videos
can be run by any number of processes in one folder; the file of predictions is made anew of all records that are there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import OptionError, OutputError
from ..models.patches import Patcher
from ..sinks.files import json_text, write_whole
from .benchmark import Benchmark, CommentaryBenchmark, Game, QuestionBenchmark, Said, Video
from .commentary.examples import GameExample
from .parts import Part
from .presets import Answers, OfflinePreset, Preset
from .questions.examples import VideoQuestions, replies_of, videos_with_questions
from .questions.items import Item, Reply
from .questions.log import ReplyLog
from .questions.offline import Answerer, sample
from .questions.replies import write_replies
from .record import Record
from .runs import ABOUT, ITEMS, PREDICTIONS, STREAMS, file_name

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
    part: Part = field(default_factory=Part)
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
        if path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise OutputError(
                    f"{path} cannot be read ({error}); remove the folder to start the run again"
                ) from None
            apart = [key for key, value in _flat(own) if dict(_flat(found)).get(key) != value]
            if apart:
                each = "; ".join(
                    f"{key} {dict(_flat(found)).get(key)!r}, here {dict(_flat(own))[key]!r}" for key in apart
                )
                raise OutputError(f"{self.out} is of another run: {each}. Choose another --out")
            return
        try:
            (self.out / STREAMS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {self.out} ({error.strerror or error})") from None
        write_whole(path, json.dumps(own, indent=2, ensure_ascii=False) + "\n")

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
    found, expected = merge_games(run) if isinstance(benchmark, CommentaryBenchmark) else merge_items(run)
    run.close(found, expected, about.get("origin", {}))
    return found, expected


def games_of(run: Run, preset: Preset, blind: bool = False) -> list[GameExample]:
    """The games of a run's part. OptionError if the benchmark has no games."""
    benchmark = run.benchmark
    if not isinstance(benchmark, CommentaryBenchmark):
        raise OptionError(f"{run.locator} asks questions; it has no games to be commented")
    limited = benchmark.games[: run.limit]
    return [GameExample(game, preset, benchmark.revision, blind) for game in limited if run.part.has(game.video.key)]


def merge_games(run: Run) -> tuple[int, int]:
    """Make the file of predictions of all records that are whole, whoever made them; (games that are, games).

    Made anew from the records each time: merging twice gives the same file.
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
        found += 1
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


def streams_of(run: Run, preset: Preset, answers: Answers) -> list[VideoQuestions]:
    """The videos of a run's part with their questions, to be watched once each."""
    return [
        VideoQuestions(video, items, preset, answers, run.benchmark.revision)
        for video, items in _videos_of(run)
        if run.part.has(video.key)
    ]


def answer_offline(
    run: Run, preset: OfflinePreset, answerer: Answerer, done: Progress, *, patcher: Patcher | None, blind: bool = False
) -> None:
    """Have the items of a run's part answered, one by one; what has a reply already is passed over."""
    videos = [(video, items) for video, items in _videos_of(run) if run.part.has(video.key)]
    count = 0
    for video, items in videos:
        settings = {"video": video.key, "data": run.benchmark.revision}
        with ReplyLog(run.out / ITEMS / f"{file_name(video.key)}.jsonl", settings) as log:
            for item in items:
                if item.id not in log.replies:
                    shown = None if blind else sample(str(video.path), item.start, item.time, preset, patcher)
                    log.add(answerer.answer(item, shown))
                count += 1
                done(count)


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
