"""Games as a benchmark in the form of Inf-Streams-Eval (paper, section 4), with an exact transcript.

A folder::

    benchmark.json            what all games of the folder have in common
    eval_all_metadata.jsonl   a line for each game: {"video", "title", "content": [[start, end, word], ...]}
    score_all_clips.jsonl     a line for each window that is judged: the same, and "preasr": the words before it
    videos/NAME.mp4           H.264, 320 x 420; none where the video is a locator (``arcade:pong?seed=9100000``)
    games/NAME.json           a game's line, written once its video is whole

``video`` is a path from the folder, or the locator. Times are seconds on the game's clock. The words of a second are
spread evenly over it, the last one ends with it. The lines have three fields more than the published ones: ``sport``,
``game`` (the same) and ``seed``. The two ``.jsonl`` files are made anew from ``games/``, so a run that was killed goes
on behind its last whole game.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamingvlm import OptionError, OutputError, SourceError
from streamingvlm.data.words import EPS, spread
from streamingvlm.sinks.clip import write_video
from streamingvlm.sinks.files import json_text, make_folder, write_whole
from streamingvlm.sources.file import kind_comment

from ..worlds.context import EVALUATION_SEEDS
from ..worlds.game import FRAMES_PER_SECOND, Game
from ..worlds.games import find_game
from ..worlds.record import CLIP_FPS, enlarge
from ..worlds.source import kind_of
from ..worlds.stream import GameStream

ABOUT, METADATA, WINDOWS, GAMES_FOLDER, VIDEOS = (
    "benchmark.json",
    "eval_all_metadata.jsonl",
    "score_all_clips.jsonl",
    "games",
    "videos",
)
BENCHMARK_SEEDS = EVALUATION_SEEDS + 100_000
"""The first seed of a benchmark: neither training nor ``eval arcade`` uses those from here on."""
SECONDS = 7200
BEGIN = 1000
"""Where Inf-Streams-Eval begins to generate and to judge, seconds."""
WINDOW = 100

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BenchmarkForm:
    """What all games of a folder have in common.

    ``seconds``: length of a game; ``fps``: frames per second of its video (a divisor of 60); ``videos``: ``mp4`` for
    files, ``locator`` for games that are played whenever they are opened; ``begin`` and ``window``: where the first
    window begins and how long each is, seconds.
    """

    seconds: int = SECONDS
    fps: int = CLIP_FPS
    videos: Literal["mp4", "locator"] = "mp4"
    begin: int = BEGIN
    window: int = WINDOW

    def check(self) -> None:
        """OptionError for what cannot be meant."""
        if self.fps < 1 or FRAMES_PER_SECOND % self.fps:
            raise OptionError(f"a game has {FRAMES_PER_SECOND} frames per second: fps must divide them, not {self.fps}")
        if self.videos not in ("mp4", "locator"):
            raise OptionError(f"videos are mp4 or locator, not {self.videos!r}")
        if self.begin < 0 or self.window < 1:
            raise OptionError(f"windows begin at 0 s or later and last 1 s or more, not {self.begin} and {self.window}")
        if self.seconds < self.begin + self.window:
            raise OptionError(
                f"a game of {self.seconds} s has no window of {self.window} s from {self.begin} s on: "
                "make games longer, or windows earlier"
            )


@dataclass(frozen=True, slots=True)
class Recording:
    """A game of a seed that is to be written."""

    game: Game
    seed: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.game.name}-{self.seed}"

    def video(self, form: BenchmarkForm) -> str:
        """What the data calls its video: its path from the folder, or a locator."""
        return f"{VIDEOS}/{self.name}.mp4" if form.videos == "mp4" else f"arcade:{self.game.name}?seed={self.seed}"


def write_benchmark(
    folder: Path,
    games: Sequence[str],
    seeds: Sequence[int],
    form: BenchmarkForm | None = None,
    on_game: Callable[[str, bool], None] = lambda _name, _new: None,
) -> list[Line]:
    """Writes every game of every seed into ``folder``; what is there whole stays. Returns the lines of the metadata.

    Games that an earlier call wrote belong to the benchmark too. ``on_game``: is told each name and whether it was
    written now. OptionError for a seed of training or a form that cannot be meant, OutputError for a folder that
    holds games of another form.
    """
    form = form or BenchmarkForm()
    form.check()
    recordings = _recordings(games, seeds)
    _check_folder(folder, form)
    for recording in recordings:
        new = not _whole(folder, recording, form)
        if new:
            _write_game(folder, recording, form)
        on_game(recording.name, new)
    lines = [_read_line(path) for path in sorted((folder / GAMES_FOLDER).glob("*.json"))]
    _write_lines(folder / METADATA, lines)
    _write_lines(folder / WINDOWS, [window for line in lines for window in windows(line, form)])
    return lines


def _recordings(games: Sequence[str], seeds: Sequence[int]) -> list[Recording]:
    if not games or not seeds:
        raise OptionError("at least one game and one seed are needed")
    if min(seeds) < EVALUATION_SEEDS:
        raise OptionError(f"seeds below {EVALUATION_SEEDS} are for training: not {min(seeds)}")
    return [Recording(find_game(game), seed) for game in dict.fromkeys(games) for seed in dict.fromkeys(seeds)]


def _check_folder(folder: Path, form: BenchmarkForm) -> None:
    make_folder(folder)
    about = folder / ABOUT
    settings = asdict(form)
    if about.is_file():
        found = read_about(folder)
        if found != settings:
            other = ", ".join(f"{key}={found.get(key)}" for key, value in settings.items() if found.get(key) != value)
            raise OutputError(f"{folder} holds games of another form ({other}): write these into another folder")
    for name in (GAMES_FOLDER, VIDEOS) if form.videos == "mp4" else (GAMES_FOLDER,):
        make_folder(folder / name)
    write_whole(about, json.dumps(settings, indent=2) + "\n")


def read_about(folder: Path) -> dict[str, Any]:
    """What ``benchmark.json`` says. SourceError if it cannot be read."""
    try:
        found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder / ABOUT} cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise SourceError(f"{folder / ABOUT} is no object of settings")
    return found


def _whole(folder: Path, recording: Recording, form: BenchmarkForm) -> bool:
    video = form.videos == "locator" or (folder / recording.video(form)).is_file()
    return video and (folder / GAMES_FOLDER / f"{recording.name}.json").is_file()


def _write_game(folder: Path, recording: Recording, form: BenchmarkForm) -> None:
    rows: list[tuple[float, float, str]] = []
    stream = GameStream(recording.game, recording.seed, fps=form.fps, render=form.videos == "mp4")
    # One wording of each kind, the one that the bundled model was trained on: its words go on behind human ones.
    stream.style = recording.game.language.plain
    if form.videos == "mp4":
        frames = _frames(stream, form.seconds, rows)
        comment = kind_comment(kind_of(recording.game), f"seed={recording.seed}")
        path = folder / recording.video(form)
        write_video(path, frames, fps=form.fps, title=stream.context.text, comment=comment)
    else:
        rows += [(second.start, second.end, second.text) for second in islice(stream, form.seconds)]
    line = {
        "video": recording.video(form),
        "title": stream.context.text,
        "content": _timed(rows),
        "sport": recording.game.name,
        "game": recording.game.name,
        "seed": recording.seed,
    }
    write_whole(folder / GAMES_FOLDER / f"{recording.name}.json", json_text(line) + "\n")


def _frames(stream: GameStream, seconds: int, rows: list[tuple[float, float, str]]) -> Iterator[NDArray[np.uint8]]:
    for second in islice(stream, seconds):
        rows.append((second.start, second.end, second.text))
        yield from enlarge(second.frames)


def _timed(rows: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    words = [word for start, end, text in rows for word in spread(start, end, text)]
    return [(round(word.start, 3), round(word.end, 3), word.text) for word in words]


def _read_line(path: Path) -> Line:
    try:
        line: Line = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read ({error}): remove it to write the game anew") from None
    return line


def _write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    write_whole(path, "".join(json_text(line) + "\n" for line in lines))


def windows(line: Line, form: BenchmarkForm) -> Iterator[Line]:
    """The windows of a game that are judged, whole ones only: every ``form.window`` seconds from ``form.begin`` on.

    A word belongs to the window in which it ends. ``preasr``: the words of the window before.
    """
    for start in range(form.begin, form.seconds - form.window + 1, form.window):
        content = _between(line["content"], start, start + form.window)
        before = _between(line["content"], start - form.window, start)
        if content:
            yield {**line, "content": content, "preasr": " ".join(word for _, _, word in before)}


def _between(content: Sequence[Any], start: float, end: float) -> list[Any]:
    return [word for word in content if start + EPS < word[1] <= end + EPS]
