"""``eval generate`` on a Ray cluster: a task for every part of the videos, in one folder that all workers see.

A worker that dies loses nothing: its part is run again by another one, which goes on from its records and snapshots.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import OptionError, OutputError, StreamingVLMError
from .benchmark import CommentaryBenchmark
from .generate import merge_run
from .jobs import Job, Outcome, check_videos, run_job
from .registry import open_benchmark
from .runner import Bar
from .runs import ABOUT
from .shards import Shard

#: How often a part is begun again when its worker has died.
RETRIES = 5
#: Parts for each worker: one that is slow, or begun again, does not hold up all.
PARTS_EACH = 2


def run_on_ray(job: Job, workers: int, bar: Bar) -> Outcome:
    """Do a job in ``workers`` Ray workers, each with an equal share of the cluster's GPUs; merge what they made.

    Connects to the cluster that RAY_ADDRESS names, or starts one on this machine. OptionError where Ray is missing,
    OutputError where parts have failed; all others are done and merged before it is raised.
    """
    try:
        import ray
    except ImportError:
        raise OptionError("--ray needs Ray: pip install 'streamingvlm[ray]'") from None
    benchmark = open_benchmark(job.task, job.data, job.videos)
    if not job.allow_missing:
        check_videos(benchmark, job, Shard())
    own = not ray.is_initialized()
    if own:
        ray.init(log_to_driver=False, include_dashboard=False)
    try:
        faults = _run_parts(ray, anywhere(job), workers, bar)
    finally:
        if own:
            ray.shutdown()
    unit = "games" if isinstance(benchmark, CommentaryBenchmark) else "items"
    outcome = Outcome(name_of(job.out, faults), unit, *merge_run(benchmark, job.out))
    if faults:
        more = f" ({len(faults) - 1} more parts have failed)" if len(faults) > 1 else ""
        raise OutputError(faults[0] + more)
    return outcome


def name_of(out: Path, faults: Sequence[str]) -> str:
    """What the contestant of a run is called, as its parts have written it; OutputError if no part came so far."""
    try:
        return str(json.loads((out / ABOUT).read_text(encoding="utf-8"))["name"])
    except FileNotFoundError:
        raise OutputError(faults[0] if faults else f"no worker has written {out}") from None


def anywhere(job: Job) -> Job:
    """The job with paths that mean the same wherever a worker stands."""
    model = job.model
    if model is not None and Path(model).exists():
        model = str(Path(model).absolute())
    return replace(
        job,
        data=job.data.absolute(),
        videos=job.videos and job.videos.absolute(),
        out=job.out.absolute(),
        features=job.features and job.features.absolute(),
        model=model,
    )


def share(total: float, workers: int) -> float:
    """GPUs of each worker: Ray takes whole ones, or a part of one."""
    each = total / workers
    return float(int(each)) if each > 1 else each


def _run_parts(ray: Any, job: Job, workers: int, bar: Bar) -> list[str]:
    """Run all parts; what ended those that have failed."""
    cluster = ray.cluster_resources()
    each = {"num_cpus": max(cluster.get("CPU", 1) / workers, 1e-3), "num_gpus": share(cluster.get("GPU", 0), workers)}
    task: Any = ray.remote(max_retries=RETRIES, retry_exceptions=False, **each)(_run_part)
    parts = [Shard(number + 1, workers * PARTS_EACH) for number in range(workers * PARTS_EACH)]
    waiting = [task.remote(job, part) for part in parts]
    faults: list[str] = []
    with bar(f"{job.task}, {workers} workers", len(parts)) as done:
        while waiting:
            ready, waiting = ray.wait(waiting)
            try:
                faults += [error for error in ray.get(ready) if error]
            except ray.exceptions.RayTaskError:
                raise  # a bug: its traceback is of use
            except ray.exceptions.RayError as error:
                said = next(iter(str(error).splitlines()), type(error).__name__)
                faults.append(f"a worker died {RETRIES + 1} times at the same part: {said}")
            done(len(parts) - len(waiting))
    return faults


def _run_part(job: Job, part: Shard) -> str:
    """A part, in a worker; the error that ended it ("" if none did)."""
    try:
        run_job(job, part, _no_bar)
    except StreamingVLMError as error:
        return str(error)
    return ""


@contextmanager
def _no_bar(what: str, total: float) -> Iterator[Callable[[float], None]]:  # noqa: ARG001
    yield lambda _: None
