"""Runs of ``eval generate`` in this process: a tiny random model, clips of some seconds, questions of a test's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.sampling_params import Sampling
from streamingvlm.evaluate import checkpoint, jobs, runner
from streamingvlm.evaluate.benchmark import Count, Defect, Video
from streamingvlm.evaluate.jobs import Job, Outcome, run_job
from streamingvlm.evaluate.questions.items import Item, Reply, Score
from streamingvlm.evaluate.shards import Shard

from . import media, tiny
from .benchmark_data import game, window, write_inf_streams

#: A cache that is full after some seconds.
POLICY = "streaming:vision=3,turns=3,sink=200,text=8"
SECONDS, START = 9, 2
#: Windows of every game: the second begins in the last second of the first.
WINDOWS = ((2, 6), (5, 9))
NAMES = ("soccer/final.mp4", "tennis/final.mp4", "golf/c.mp4")


def use_tiny(patch: pytest.MonkeyPatch, model: Any) -> None:
    """Let every local checkpoint be ``model``, saved behind every step."""
    patch.setattr(checkpoint, "load_model", lambda *_, **__: model)
    patch.setattr(checkpoint, "find_checkpoint", lambda path: Path(path or "bundled"))
    patch.setattr(checkpoint, "fingerprint_of", lambda path: f"f-{path.name}")
    patch.setattr(jobs, "find_checkpoint", lambda path: Path(path or "bundled"))
    patch.setattr(jobs, "read_known_kinds", lambda _: ())
    patch.setattr(runner, "SNAPSHOT_EVERY", 0.0)
    patch.setattr(runner, "SNAPSHOT_SHARE", 1e9)


def tiny_model() -> Any:
    """Random words that follow from the seed."""
    return tiny.model(sampling=Sampling(temperature=0.9, max_new_tokens=4))


def write_clip(path: Path, seconds: float = SECONDS, first: int = 0) -> Path:
    """An H.264 file of greys, two frames a second, other ones for every ``first``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = None if not first else media.flat(first, 64, 48)
    return media.write_clip(path, count=round(seconds * 2), fps=2, picture=picture)


def write_games(folder: Path, names: Sequence[str] = NAMES, seconds: float = SECONDS) -> Path:
    """Inf-Streams-Eval of some games, with their clips and two windows each."""
    for number, name in enumerate(names):
        write_clip(folder / name, seconds, 10 * number)
    windows = [window(name, start, end) for name in names for start, end in WINDOWS]
    return write_inf_streams(folder, [game(name, SECONDS + 0.5) for name in names], windows)


def comment(data: Path, out: Path, **more: Any) -> Job:
    """A job that comments the games of :func:`write_games`."""
    return replace(Job(f"inf-streams?start={START}", data, None, out, policy=POLICY, model="tiny"), **more)


def say(job: Job, part: str = "1/1", tell: Callable[[float], None] = lambda _: None) -> Outcome:
    """Run a job here; ``tell``: as it is told how much is done."""

    @contextmanager
    def bar(what: str, total: float) -> Iterator[Callable[[float], None]]:  # noqa: ARG001
        yield tell

    return run_job(job, Shard.parse(part), bar)


def predictions(out: Path) -> bytes:
    return (out / "predictions.jsonl").read_bytes()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@dataclass
class Asked:
    """A benchmark of questions that a test makes up."""

    items: Sequence[Item]
    videos: Sequence[Video]
    name: str = "asked"
    revision: str = "r1"
    counts: Sequence[Count] = ()
    defects: Sequence[Defect] = ()
    averages: Sequence[Any] = ()

    def replies(self, path: Path) -> Mapping[str, Reply]:
        raise NotImplementedError

    def score(self, replies: Mapping[str, Reply], parser: str, *, without_defects: bool = False) -> Score:
        raise NotImplementedError


def item(id: str, time: float, video: str = "a.mp4", **more: Any) -> Item:
    """A question with two options."""
    asked = {"question": f"What is {id}?", "prompt": f"What is {id}?", "options": ("red", "green"), **more}
    return Item(id, video, "task", "group", time, answer="A", **asked)


def ask(patch: pytest.MonkeyPatch, folder: Path, items: Sequence[Item], out: Path, **more: Any) -> Job:
    """A job that asks ``items`` of clips in ``folder``."""
    keys = dict.fromkeys(one.video for one in items)
    made = Asked(items, [Video(key, folder / key) for key in keys])
    patch.setattr(jobs, "open_benchmark", lambda *_: made)
    return replace(Job("asked", folder, None, out, policy=POLICY, model="tiny"), **more)
