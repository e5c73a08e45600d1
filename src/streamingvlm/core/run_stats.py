"""Sums over a run, in constant memory, and the memory of the process."""

from __future__ import annotations

import os
import resource
import sys
from collections import Counter, deque

from ..core.events import Commentary, StepFailed

#: Percentiles of the lag are over this many of the last steps: a stream has no end, memory has.
LAGS = 10_000


STAGES = ("read", "preprocess", "evict", "vision_encode", "prefill", "decode")


class RunStats:
    """Sums over a run, in constant memory."""

    def __init__(self) -> None:
        self.steps = self.dropped = self.unfinished = self.failed = 0
        self.seconds = self.worst = 0.0
        self.stages: Counter[str] = Counter()
        self.last: Commentary | None = None
        self._lags: deque[float] = deque(maxlen=LAGS)

    def add(self, event: Commentary | StepFailed) -> None:
        """Count one step, or one that has failed."""
        self.dropped += event.dropped
        if isinstance(event, StepFailed):
            self.failed += 1
            return
        self.steps += 1
        self.unfinished += event.finish_reason != "stop"
        self.seconds += event.end - event.start
        for stage in STAGES:
            self.stages[stage] += getattr(event.timing, stage)
        self._lags.append(event.timing.lag)
        self.worst = max(self.worst, event.timing.lag)
        self.last = event

    def lag(self, share: float) -> float:
        """The lag, in seconds, that ``share`` (0 to 1) of the last steps did not exceed."""
        ordered = sorted(self._lags)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0

    def summary(self) -> list[str]:
        """A few lines for the end of a run; none if no step has ended."""
        if self.last is None:
            return [f"failed   {self.failed} steps, {self.dropped} dropped; there are no words"] if self.failed else []
        work = {stage: self.stages[stage] / self.seconds for stage in STAGES}
        parts = ", ".join(f"{stage} {seconds:.3f}" for stage, seconds in work.items())
        cut = f", {self.unfinished} ended by max_new_tokens or the next step" if self.unfinished else ""
        cut += f", {self.failed} failed" if self.failed else ""
        rows = ", ".join(f"{kind} {count}" for kind, count in self.last.rows.items())
        return [
            f"watched  {self.seconds:g} s of video in {self.steps} steps, {self.dropped} dropped{cut}",
            f"work     {sum(work.values()):.3f} s per second of video ({parts})",
            f"lag      p50 {self.lag(0.5):.2f} s, p95 {self.lag(0.95):.2f} s, max {self.worst:.2f} s",
            *([f"cache    {sum(self.last.rows.values())} of {self.last.capacity} rows ({rows})"] if rows else []),
            f"memory   {peak_memory() / 2**20:.0f} MiB at most",
        ]


def peak_memory() -> int:
    """Most bytes of memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory() -> int:
    """Bytes of memory that this process holds now (the most it ever held, where the system does not tell)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_memory()
