"""Snapshots of streams that run: taken between two steps, written beside the steps that follow."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import OutputError
from ..core.events import Commentary, Event, Gap, RuleChanged, StepFailed
from ..engine.snapshot import Taken, write
from ..sinks.records import record_of
from .journal import Journal
from .pipeline import Pipeline

_LOG = logging.getLogger(__name__)
#: Seconds between two snapshots of a stream.
EVERY = 10.0
#: Part of the interval by which each stream comes later than the one before it (modulo 1): no two are close together.
STAGGER = 0.618
_clock = time.monotonic
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time that another run of the program can compare with its own.

    ``wall``: seconds since 1970 in UTC, by a clock that somebody may set; ``uptime``: seconds since the machine was
    started, in the run that ``boot`` names ("": unknown).
    """

    wall: float
    boot: str = ""
    uptime: float = 0.0

    @staticmethod
    def now() -> Moment:
        """This moment."""
        clock = getattr(time, "CLOCK_BOOTTIME", None)
        try:
            boot = _BOOT.read_text(encoding="ascii").strip()
        except OSError:
            boot = ""
        if not boot or clock is None:
            return Moment(time.time())
        return Moment(time.time(), boot, time.clock_gettime(clock))

    def since(self, earlier: Moment) -> float:
        """Seconds from ``earlier`` until now, never below 0; a clock that was set meanwhile counts after a restart
        of the machine only."""
        if self.boot and self.boot == earlier.boot:
            return max(self.uptime - earlier.uptime, 0.0)
        return max(self.wall - earlier.wall, 0.0)


class SnapshotWriter:
    """A thread that writes one snapshot at a time, for all streams of a program."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._busy = self._closed = False
        self._thread: threading.Thread | None = None

    def offer(self, job: Callable[[], None]) -> bool:
        """Do ``job`` now; false, and nothing happens, while another one is under way or waits."""
        with self._changed:
            if self.busy or self._closed:
                return False
            self._add(job)
        return True

    def put(self, job: Callable[[], None]) -> None:
        """Do ``job`` behind the others: for the last snapshot of a stream, so that one waits for each at most."""
        with self._changed:
            if not self._closed:
                self._add(job)

    @property
    def busy(self) -> bool:
        """Whether a job is under way or waits."""
        return self._busy or bool(self._jobs)

    def close(self, timeout: float | None = None) -> bool:
        """Take no more jobs; wait until those that were taken are done, and say whether they are."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def _add(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="streamingvlm-snapshots", daemon=True)
            thread.start()  # it waits for the lock
            self._thread = thread
        self._jobs.append(job)
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.wait_for(lambda: bool(self._jobs) or self._closed)
                if not self._jobs:
                    return
                job, self._busy = self._jobs.popleft(), True
            job()


class Keeper:
    """A sink and a companion of one stream that keeps it on disk; the pipeline calls it behind other companions.

    ``path``: of the snapshot. ``writer``: shared by the streams of a program. ``journal``: of the stream; it is on the
    disk before a snapshot is. ``every``: seconds between two; ``number``: of the stream, which sets when its first one
    is due. ``extras``: JSON values of others that are kept with it, by name, asked for between two steps. ``about``:
    kept as it is. ``ends``: the source has an end, which is kept too.

    One that cannot be taken or written is told once in the log, and the stream goes on. While the disk is slow, none
    waits: ``skipped`` counts those that were due meanwhile, ``failed`` those that could not be written. ``seconds``:
    what the last one took of the engine's thread; ``written_at``: when the last one was on the disk, seconds since 1970
    (None: none yet).
    """

    def __init__(
        self,
        path: Path,
        writer: SnapshotWriter,
        journal: Journal | None = None,
        *,
        every: float = EVERY,
        number: int = 0,
        extras: Mapping[str, Callable[[], Any]] | None = None,
        about: Mapping[str, Any] | None = None,
        ends: bool = True,
    ) -> None:
        self.path = path
        self.written = self.skipped = self.failed = 0
        self.seconds = 0.0
        self.written_at: float | None = None
        self._writer, self._journal = writer, journal
        self._every, self._extras, self._about, self._ends = every, dict(extras or {}), dict(about or {}), ends
        self._due = time.monotonic() + every * (STAGGER * (number + 1) % 1.0)
        self._late = False
        self._waiting: deque[Taken] = deque(maxlen=1)
        self._told_failure = False
        self._told_until = 0.0
        #: The second that the stream had come to when something was last told, and when that was.
        self._stood: tuple[float, float] | None = None

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`."""
        if isinstance(event, Commentary):
            now = event.end + event.timing.lag
            if event.wall_start is not None:  # a step can be whole before its time is over
                now = min(now, event.start + max(event.wall - event.wall_start, 0.0))
            self._stand(event.end, now)
        elif isinstance(event, StepFailed | Gap):
            self._stand(event.end, event.end)
        elif isinstance(event, RuleChanged):  # alerts mean nothing to a later run without their rule
            self._due = -math.inf

    def between(self, pipeline: Pipeline) -> None:
        """See :meth:`Companion.between`."""
        now = time.monotonic()
        if now < self._due:
            return
        if self._writer.busy:  # tried again after the next step
            self.skipped += not self._late
            self._late = True
            return
        self._due, self._late = now + self._every, False
        self._take(pipeline, self._writer.offer)

    def keep(self, pipeline: Pipeline, now: bool) -> None:
        """Something has changed that no event tells enough of to do it again: that is kept ``now``, or behind the step
        that is under way."""
        if now:  # while the disk is slow as well: a source that is down may send no step for hours
            self._take(pipeline, self._writer.put)
        else:
            self._due = -math.inf

    def ending(self, pipeline: Pipeline) -> None:
        """The stream ends, however that is: a last snapshot, without the step that is under way."""
        if pipeline.session.closed:
            return
        pipeline.session.abandon()
        self._take(pipeline, self._writer.put)

    def close(self) -> None:
        """See :meth:`Sink.close` and :meth:`Companion.close`."""

    def _take(self, pipeline: Pipeline, hand_over: Callable[[Callable[[], None]], object]) -> None:
        """Copy the stream; of copies that wait to be written only the newest is."""
        began = time.perf_counter()
        try:
            self._waiting.append(pipeline.session.take(self._extra(pipeline)))
            hand_over(self._write)
        except Exception as error:  # it is better to watch on than to end for a copy
            self._fail(error)
        finally:
            self.seconds = time.perf_counter() - began

    def _stand(self, told_until: float, now: float) -> None:
        """All before a second of the stream was told; it is second ``now``."""
        self._told_until = max(self._told_until, told_until)
        self._stood = (now, _clock())

    def _extra(self, pipeline: Pipeline) -> dict[str, Any]:
        now, second = Moment.now(), pipeline.session.time
        if self._stood is not None:  # a source that is down sends no step, and time goes on
            second = max(second, self._stood[0] + _clock() - self._stood[1])
        return {
            "about": self._about,
            "epoch": pipeline.numbering.epoch,
            "next": pipeline.numbering.next,
            "said_until": max(pipeline.said_until, self._told_until),
            "asked": pipeline.numbering.asked,
            "rebase": pipeline.rebase_to,
            "again": [(due, record_of(event)) for due, event in pipeline.left],
            "now": second,
            "moment": {"wall": now.wall, "boot": now.boot, "uptime": now.uptime},
            "complete": self._ends and pipeline.complete,
            "own": {name: state() for name, state in self._extras.items()},
        }

    def _write(self) -> None:
        """On the writer's thread."""
        try:
            taken = self._waiting.pop()
        except IndexError:  # a newer one has gone before
            return
        try:
            if self._journal is not None:
                self._journal.sync()
            write(self.path, taken)
        except Exception as error:
            self._fail(error)
            return
        self.written += 1
        self.written_at = time.time()
        if self._told_failure:
            self._told_failure = False
            _LOG.warning("snapshots are written to %s again", self.path)

    def _fail(self, error: Exception) -> None:
        self.failed += 1
        if self._told_failure:
            return
        self._told_failure = True
        why = str(error) if isinstance(error, OutputError) else f"no snapshot for {self.path}: {error!r}"
        _LOG.warning("%s; the stream goes on, and would be resumed from an older snapshot until this works again", why)
