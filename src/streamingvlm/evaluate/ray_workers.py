"""``eval generate`` on a Ray cluster: a task for every part of the videos, in one folder that all workers see.

A worker that dies loses nothing: its part is run again by another one, which goes on from its records and snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..core.errors import OptionError, StreamingVLMError
from .benchmark import CommentaryBenchmark
from .generate import merge_run
from .jobs import Job, Outcome, run_job
from .parts import Part
from .registry import open_benchmark
from .runner import Bar

#: How often a part is begun again when its worker has died.
RETRIES = 5
#: Parts for each worker: one that is slow, or begun again, does not hold up all.
PARTS_EACH = 2


def run_on_ray(job: Job, workers: int, bar: Bar) -> Outcome:
    """Do a job in ``workers`` Ray workers, each with an equal share of the cluster's GPUs; merge what they made.

    Connects to the cluster that RAY_ADDRESS names, or starts one on this machine. OptionError where Ray is missing.
    """
    try:
        import ray
    except ImportError:
        raise OptionError("--ray needs Ray: pip install 'streamingvlm[ray]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    cluster = ray.cluster_resources()
    each = {"num_cpus": max(cluster.get("CPU", 1) / workers, 1e-3), "num_gpus": cluster.get("GPU", 0) / workers}
    task: Any = ray.remote(max_retries=RETRIES, retry_exceptions=False, **each)(_run_part)
    parts = [Part(number + 1, workers * PARTS_EACH) for number in range(workers * PARTS_EACH)]
    waiting = [task.remote(job, part) for part in parts]
    with bar(f"{job.task}, {workers} workers", len(parts)) as done:
        while waiting:
            ready, waiting = ray.wait(waiting)
            for error in ray.get(ready):
                if error:
                    raise OptionError(error)
            done(len(parts) - len(waiting))
    benchmark = open_benchmark(job.task, job.data, job.videos)
    unit = "games" if isinstance(benchmark, CommentaryBenchmark) else "items"
    return Outcome(job.who(), unit, *merge_run(benchmark, job.out))


def _run_part(job: Job, part: Part) -> str:
    """A part, in a worker; the error that ended it ("" if none did)."""
    try:
        run_job(job, part, _no_bar)
    except StreamingVLMError as error:
        return str(error)
    return ""


@contextmanager
def _no_bar(what: str, total: float) -> Iterator[Callable[[float], None]]:  # noqa: ARG001
    yield lambda _: None
