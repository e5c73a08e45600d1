"""One call of ``eval generate`` as a value, so that it runs here, in parts, or in workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

import torch

from ..core.errors import OptionError
from ..core.policy import make_policy
from ..engine.ask import ANSWER_SAMPLING
from ..engine.endpoint import Endpoint
from ..engine.remote import OURS, PAPER_BASELINE, RemoteOptions
from ..models.hub import find_checkpoint
from ..models.knows import check_source, read_known_kinds
from ..models.load import pick_device
from ..runtime import reports
from ..sources.open import open_recording
from .benchmark import Benchmark, CommentaryBenchmark, QuestionBenchmark, Video
from .checkpoint import Checkpoint
from .features import Features
from .generate import Run, Speaker, answer_offline, games_of, merge, offline_videos, streams_of, there
from .presets import COMMENTARY, OFFLINE, QUESTIONS, Answers, OfflinePreset, Preset, find_preset
from .questions import offline
from .questions.examples import videos_with_questions
from .registry import open_benchmark
from .runner import Bar, TaskRunner
from .runs import STREAMS
from .shards import Shard
from .speakers import ConstantSpeaker, LocalSpeaker, RemoteSpeaker, stream_options

#: Tokens of a question: subtitles and earlier questions may stand in it.
QUESTION_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be said or answered, by whom, and where it goes; fields are those of ``eval generate``.

    One of ``endpoint``, ``constant`` and a local model is the contestant. ``words``: of before the start: ``human``,
    ``none`` or "" (the preset's). ``answers``: ``likelihood``, ``generate`` or "" (the preset's).
    """

    task: str
    data: Path
    videos: Path | None
    out: Path
    preset: str = "ours"
    mode: str = "stream"
    model: str | None = None
    policy: str | None = None
    device: str | None = None
    dtype: str | None = None
    weights: str | None = None
    endpoint: str | None = None
    remote_model: str = ""
    key: str | None = field(default=None, repr=False)
    constant: str | None = None
    blind: bool = False
    limit: int | None = None
    streams: int = 8
    seed: int = 0
    words: str = ""
    answers: str = ""
    features: Path | None = None
    allow_missing: bool = False
    name: str = ""

    def who(self, policy: str = "") -> str:
        """What the contestant is called; ``policy``: what is run where none was asked for."""
        if self.name:
            return self.name
        if self.constant is not None:
            return f"constant {self.constant!r}"
        who = self.remote_model if self.endpoint else self.model or "bundled"
        how = self.policy or policy
        return who + (f", {how}" if how else "") + (", blind" if self.blind else "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How much is there after a run of ``name``: ``unit`` (games or items) ``found`` of ``expected``."""

    name: str
    unit: str
    found: int
    expected: int


def run_job(job: Job, part: Shard, bar: Bar) -> Outcome:
    """Do the part of a job that is left, and merge all that is there."""
    benchmark = open_benchmark(job.task, job.data, job.videos)
    if not job.allow_missing:
        check_videos(benchmark, job, part)
    check_known(benchmark, job)
    if isinstance(benchmark, CommentaryBenchmark):
        return _comment(job, part, benchmark, bar)
    if not isinstance(benchmark, QuestionBenchmark):
        raise OptionError(f"{job.task} has neither games nor questions")
    return _answer_offline(job, part, benchmark, bar) if job.mode == "offline" else _answer(job, part, benchmark, bar)


def check_videos(benchmark: Benchmark, job: Job, part: Shard) -> None:
    """OptionError, naming some, if videos of a job's part are missing."""
    if job.constant is not None or (job.blind and job.mode == "offline"):
        return
    missing = [video.key for video in videos_of(benchmark, job.limit) if part.has(video.key) and not there(video)]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise OptionError(
            f"{len(missing)} videos of {job.task} are missing ({', '.join(missing[:3])}{more}); run eval check, or "
            "leave them out with --allow-missing"
        )


def check_known(benchmark: Benchmark, job: Job) -> None:
    """ModelError for a local checkpoint that was not trained on what the videos show, seen from the first of them."""
    if job.constant is not None or job.endpoint is not None:
        return
    folder = find_checkpoint(job.model)
    first = next((video for video in videos_of(benchmark, job.limit) if there(video)), None)
    if first is not None and read_known_kinds(folder):
        check_source(folder, job.model or "the bundled model", open_recording(str(first.path)))


def videos_of(benchmark: Benchmark, limit: int | None) -> Sequence[Video]:
    """The videos that a run watches, each once; ``limit``: at most so many games, or videos of items."""
    if isinstance(benchmark, CommentaryBenchmark):
        return list(dict.fromkeys(game.video for game in benchmark.games[:limit]))
    if isinstance(benchmark, QuestionBenchmark):
        return [video for video, _ in videos_with_questions(benchmark)][:limit]
    return benchmark.videos


def _comment(job: Job, part: Shard, benchmark: CommentaryBenchmark, bar: Bar) -> Outcome:
    if job.mode != "stream":
        raise OptionError("games are commented as streams: --mode stream")
    if job.answers:
        raise OptionError("games are commented, not asked: --answers has no part in it")
    preset: Preset = find_preset(COMMENTARY, job.preset, benchmark.name)
    if job.words:
        preset = replace(preset, human_words=job.words == "human")
    settings: dict[str, Any] = {**preset.json(), "seed": job.seed, "blind": job.blind}
    made = _speaker(job, preset, benchmark, settings)
    run = _run(job, part, benchmark, settings, preset.policy if isinstance(made, LocalSpeaker) else "")
    run.open()
    games = [game for game in games_of(run, preset, job.blind) if job.constant is not None or there(game.game.video)]
    total = len(games) if isinstance(made, ConstantSpeaker | RemoteSpeaker) else sum(g.end - g.start for g in games)
    with bar(f"{run.name}, {job.task}", max(total, 1)) as done:
        found, expected = _merged(run, job, lambda: made.comment(games, run.out / STREAMS, done))
    return Outcome(run.name, "games", found, expected)


def _merged(run: Run, job: Job, work: Callable[[], object]) -> tuple[int, int]:
    """Do the work and merge, also where a video has failed or an interrupt has come: what is done is kept."""
    try:
        work()
    except BaseException:
        merge(run, _origin(job))
        raise
    return merge(run, _origin(job))


def _speaker(job: Job, preset: Preset, benchmark: CommentaryBenchmark, settings: dict[str, Any]) -> Speaker:
    if job.constant is not None:
        settings["constant"] = job.constant
        return ConstantSpeaker(job.constant, benchmark.windows)
    if job.endpoint is not None:
        options = _remote_options(job, preset)
        settings |= {"endpoint": job.remote_model, "shown": repr(options), "policy": "as the endpoint is shown it"}
        windows = benchmark.windows if job.preset == "paper" else None
        return RemoteSpeaker(_endpoint(job), options, preset, windows=windows)
    checkpoint, policy = _checkpoint(job, preset, settings)
    return LocalSpeaker(checkpoint, policy, preset, job.streams, job.seed, job.features)


def _checkpoint(job: Job, preset: Preset, settings: dict[str, Any]) -> tuple[Checkpoint, str]:
    policy = job.policy or preset.policy
    make_policy(policy)
    checkpoint = Checkpoint.load(job.model, device=job.device, dtype=job.dtype, weights=job.weights)
    settings |= {
        "checkpoint": checkpoint.fingerprint,
        "policy": repr(make_policy(policy, checkpoint.model.defaults.policy)),
        **_numbers(checkpoint),
    }
    return checkpoint, policy


def _numbers(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the words of a checkpoint depend on, to the last bit, beside its files."""
    model = checkpoint.model
    dtype = str(model.kv_shape.dtype).removeprefix("torch.")
    return {"weights": model.weights, "dtype": dtype, "device": model.kv_shape.device.type}


def _remote_options(job: Job, preset: Preset) -> RemoteOptions:
    if job.preset == "paper":
        return PAPER_BASELINE
    options = replace(OURS, fps=preset.fps)
    return replace(options, instruction=preset.instruction) if preset.instruction else options


def _answer(job: Job, part: Shard, benchmark: QuestionBenchmark, bar: Bar) -> Outcome:
    """Watch every video once and ask in forks."""
    if job.constant is not None or job.endpoint is not None or job.blind:
        raise OptionError("an endpoint, a constant and the blind baseline are asked offline: --mode offline")
    _check_asked(job)
    preset: Preset = find_preset(QUESTIONS, job.preset, benchmark.name)
    answers = _answers(job.answers or "likelihood")
    settings: dict[str, Any] = {**preset.json(), "seed": job.seed, "answers": answers, "asked": "in a fork"}
    checkpoint, policy = _checkpoint(job, preset, settings)
    run = _run(job, part, benchmark, settings, policy)
    run.open()
    videos = streams_of(run, preset, answers)
    kept = Features.of(checkpoint.model, job.features) if job.features else None
    runner = TaskRunner(
        checkpoint.model,
        policy,
        run.out / STREAMS,
        checkpoint.fingerprint,
        features=kept,
        options=stream_options(preset, job.seed),
        at_once=job.streams,
        real_time=None,
        answers=ANSWER_SAMPLING,
        question_tokens=QUESTION_TOKENS,
    )
    with bar(f"{run.name}, {job.task}", max(sum(one.end for one in videos), 1)) as done:
        seconds = ceil(max((one.end for one in videos), default=0.0))
        found, expected = _merged(run, job, lambda: runner.run(videos, seconds, done))
    return Outcome(run.name, "items", found, expected)


def _answer_offline(job: Job, part: Shard, benchmark: QuestionBenchmark, bar: Bar) -> Outcome:
    _check_asked(job)
    if job.features is not None:
        raise OptionError("offline nothing is watched as a stream: --keep-vision has no part in it")
    preset: OfflinePreset = find_preset(OFFLINE, job.preset, benchmark.name)
    if job.answers:
        preset = replace(preset, answers=_answers(job.answers))
    settings: dict[str, Any] = {**preset.json(), "blind": job.blind, "asked": "one prompt with all frames"}
    patcher, answerer = None, _answerer(job, preset, settings)
    if isinstance(answerer, offline.LocalAnswerer):
        patcher = answerer.patcher
    run = _run(job, part, benchmark, settings, "offline")
    run.open()
    blind = job.blind or job.constant is not None
    with bar(f"{run.name}, {job.task}", max(len(offline_videos(run, blind)), 1)) as done:
        found, expected = _merged(
            run, job, lambda: answer_offline(run, preset, answerer, done, patcher=patcher, blind=blind)
        )
    return Outcome(run.name, "items", found, expected)


def _check_asked(job: Job) -> None:
    if job.words:
        raise OptionError("items are asked, nothing was said before them: --words has no part in it")


def _answerer(job: Job, preset: OfflinePreset, settings: dict[str, Any]) -> offline.Answerer:
    if job.constant is not None:
        settings["constant"] = job.constant
        return offline.ConstantAnswerer(job.constant)
    if job.endpoint is not None:
        options = RemoteOptions(fps=preset.fps, seconds=None, frames=preset.max_frames, history_words=0)
        settings |= {"endpoint": job.remote_model, "shown": repr(options), "answers": "generate"}
        return offline.RemoteAnswerer(_endpoint(job), options)
    if job.policy:
        raise OptionError("offline all frames are shown at once: a cache policy has no part in it")
    checkpoint = Checkpoint.load(job.model, device=job.device, dtype=job.dtype, weights=job.weights)
    settings |= {"checkpoint": checkpoint.fingerprint, **_numbers(checkpoint)}
    return offline.local(checkpoint.model, preset)


def _answers(text: str) -> Answers:
    known: dict[str, Answers] = {"likelihood": "likelihood", "generate": "generate"}
    if text not in known:
        raise OptionError(f"answers are had by {' or '.join(known)}, not {text!r}")
    return known[text]


def _endpoint(job: Job) -> Endpoint:
    assert job.endpoint is not None, "it was looked at"
    return Endpoint(job.endpoint, job.remote_model, key=job.key)


def _run(job: Job, part: Shard, benchmark: Benchmark, settings: Mapping[str, Any], policy: str = "") -> Run:
    name = job.who(policy)
    return Run(benchmark, job.task, job.out, name, job.mode, job.preset, settings, part, job.limit)


def _origin(job: Job) -> dict[str, Any]:
    return reports.provenance(torch.device("cpu") if job.endpoint else pick_device(job.device))
