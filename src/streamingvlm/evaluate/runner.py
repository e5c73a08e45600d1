"""Runs the examples of a task, many streams at once, free running: the model reads nothing but its own words.

All streams go in lockstep through one runtime, so that their replies are decoded as one batch. Sources and patches are
made a little ahead in a thread each. Streams that were interrupted go on from their
snapshots, and so need not be at the same second as the others.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ..core.errors import CapacityError, OutputError, SessionError, StreamingVLMError
from ..core.events import Commentary, Event, Source, StepSource
from ..core.policy import CachePolicy, make_policy
from ..core.sampling_params import Sampling
from ..engine.engine import Engine
from ..engine.options import QUESTION_TOKENS
from ..engine.request import StepRequest
from ..engine.session import Session
from ..engine.snapshot import there_is
from ..models.base import Model
from ..runtime.runtime import LONG_PATIENCE, Runtime, Stream
from .asking import EPS, Asker
from .checkpoint import Checkpoint
from .features import Features, Seen
from .record import Record
from .runs import digest
from .task import Task, TaskExample, TimedQuestion

_LOG = logging.getLogger(__name__)

#: Seconds of work between two snapshots, and how much of the time they may take at most.
SNAPSHOT_EVERY, SNAPSHOT_SHARE = 30.0, 0.05
#: A growing cache stops being real-time when a second of a stream took more than this many seconds, over a minute.
REAL_TIME, OVER = 1.0, 60

Progress = Callable[[float], None]
#: A bar: ``with progress(what, total) as done`` gives what is called with how much of the total is done.
Bar = Callable[[str, float], AbstractContextManager[Progress]]


def run_task(
    task: Task, checkpoint: Checkpoint, policy: str, folder: Path, bar: Bar, *, features: Path | None = None
) -> list[Record]:
    """What a checkpoint says of a task's examples under a policy (as :func:`make_policy` takes it), in their order.

    ``folder``: where words are recorded, and taken up from; ``features``: where what the tower sees is kept for other
    runs (None: nowhere).
    """
    kept = Features.of(checkpoint.model, features) if features else None
    runner = TaskRunner(
        checkpoint.model,
        policy,
        checkpoint.records(folder, policy),
        checkpoint.fingerprint,
        features=kept,
        real_time=REAL_TIME,
    )
    with bar(f"{checkpoint.name}, {policy}, {task.name}", task.seconds * len(task.examples)) as done:
        return runner.run(task.examples, task.seconds, done)


@dataclass(slots=True)
class SnapshotPace:
    """When streams are saved: every so often, and for a bounded share of the time. ``streams``: how many there are."""

    streams: int
    pause: float = field(default_factory=lambda: SNAPSHOT_EVERY)

    def took(self, seconds: float) -> None:
        """Saving one of them took so long."""
        self.pause = max(SNAPSHOT_EVERY, seconds * self.streams / SNAPSHOT_SHARE)


class RunningExample:
    """One example on its way: the sink of its stream. Everything but :meth:`settle` is called by the engine's thread.

    ``seen``: its source, if that wants to know what the tower saw.
    """

    def __init__(
        self,
        example: TaskExample,
        record: Record,
        pace: SnapshotPace,
        tell: Callable[[], None],
        real_time: float | None = REAL_TIME,
    ) -> None:
        self.example, self.record = example, record
        self.seen: Seen | None = None
        self.stream: Stream | None = None
        self._pace, self._tell, self._real_time = pace, tell, real_time
        self._asker: Asker | None = None
        self._ended: SimpleQueue[RunningExample] | None = None
        self._session: Session | None = None
        self._work: list[float] = []
        self._saved = time.perf_counter()

    def begin(self, session: Session, asker: Asker, ended: SimpleQueue[RunningExample]) -> None:
        """Its stream is open, and restored if it was saved. ``ended``: told when it has ended."""
        if session.time > self.record.seconds:
            raise OutputError(f"{self.record.path} ends before its snapshot; remove both to start the stream again")
        self._session, self._asker, self._ended = session, asker, ended
        self.record.begin(session.time)

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`."""
        if not isinstance(event, Commentary):
            return
        assert self._session is not None, "a stream begins before it says something"
        self.record.add(event)
        self._work = [*self._work[1 - OVER :], event.timing.work / (event.end - event.start)]
        self._tell()
        growing = self._session.options.policy.seconds_left(0.0) is not None
        late = self._real_time is not None and len(self._work) == OVER and sum(self._work) / OVER > self._real_time
        if growing and late and self.stream is not None:
            self.record.stop(f"slower than real time at {self._session.time:g} s")
            self.stream.stop()
        elif time.perf_counter() - self._saved > self._pace.pause:
            self._save(self._session)

    def close(self) -> None:
        """See :meth:`Sink.close`: whoever waits for the stream settles the record."""
        if self._ended is not None:
            self._ended.put(self)

    def keep(self, request: StepRequest) -> None:
        """A step has ended; its commentary has not been told yet."""
        if self.seen is not None:
            self.seen.keep(request)
        if request.step.last and self._asker is not None and self._session is not None:
            self._asker.after_step(self.example, self.record, self._session, request.step.chunk.start)

    def settle(self, seconds: float) -> bool:
        """The stream has ended; ``seconds``: how far it was to be watched. Whether nothing is left to do."""
        stream = self.stream
        if stream is None or not stream.ended:
            return False
        if isinstance(stream.error, CapacityError):
            self.record.stop(f"the cache is full at {self.record.seconds:g} s")
        elif stream.error is not None:
            return False
        elif not self.record.stopped and self.record.seconds < seconds:
            if not stream.complete:  # an interrupt has stopped it
                return False
            self.record.end()
        return True

    def fault(self) -> StreamingVLMError | None:
        """What ended the stream, if it concerns no other; anything else is raised."""
        assert self.stream is not None, "it was started"
        if isinstance(self.stream.error, StreamingVLMError):
            return self.stream.error
        self.stream.wait()  # raises
        return None

    def _save(self, session: Session) -> None:
        began = time.perf_counter()
        self.record.sync()
        session.save(self.record.snapshot)
        self._saved = time.perf_counter()
        self._pace.took(self._saved - began)


@dataclass(frozen=True, slots=True)
class TaskRunner:
    """Runs examples with one model and one policy (as :func:`make_policy` takes it); records under ``folder``.

    ``fingerprint``: of the checkpoint's files. Words that were recorded with the same of all this are taken up.
    ``features``: where what the tower sees is kept, for policies that it is enough for (None: nowhere). ``options``:
    how streams are opened besides, as :meth:`Engine.open` takes it. ``at_once``: streams that run at a time (None:
    all). ``real_time``: a growing cache ends its stream when it has become slower than this many seconds a second over
    a minute (None: never). ``answers``: how answers are sampled (None: as replies are); ``question_tokens``: most of a
    question.
    """

    model: Model
    policy: str
    folder: Path
    fingerprint: str
    features: Features | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    at_once: int | None = None
    real_time: float | None = REAL_TIME
    answers: Sampling | None = None
    question_tokens: int = QUESTION_TOKENS

    def settings(self, example: TaskExample) -> dict[str, Any]:
        """All that the words of an example depend on."""
        shape = self.model.kv_shape
        asked = [[question.time, question.text, *_more(question)] for question in example.questions]
        previous = {"previous": digest(list(example.previous))} if example.previous else {}
        return {
            **example.settings,
            **({"questions": asked} if asked else {}),
            **({"answers": repr(self.answers)} if asked and self.answers else {}),
            **previous,
            **({"options": {key: repr(value) for key, value in self.options.items()}} if self.options else {}),
            "checkpoint": self.fingerprint,
            "weights": self.model.weights,
            "kernels": self.model.kernels.name,
            "policy": repr(self._policy),
            "sampling": repr(self.model.defaults.sampling),
            "dtype": str(shape.dtype).removeprefix("torch."),
            "device": shape.device.type,
        }

    def run(
        self, examples: Sequence[TaskExample], seconds: int, on_progress: Progress = lambda _: None
    ) -> list[Record]:
        """What is said of every example up to ``seconds`` on its clock, ``at_once`` of them in one batch.

        ``on_progress`` is told the seconds that are done, of all streams together. An interrupt leaves what was said
        and the last snapshots. A stream whose video is missing or broken ends alone: the others go on, then the first
        such error is raised.
        """
        records = [Record(self.folder / f"{example.name}.jsonl", self.settings(example)) for example in examples]
        for record in records:
            record.load()
        pairs = list(zip(examples, records, strict=True))
        left = [(e, r) for e, r in pairs if r.seconds < seconds and not r.stopped and not r.ended]

        def tell() -> None:
            on_progress(sum(max(min(r.seconds, seconds) - e.start, 0.0) for e, r in pairs))

        pace = SnapshotPace(len(left) if self.at_once is None else min(len(left), self.at_once))
        running = [RunningExample(example, record, pace, tell, self.real_time) for example, record in left]
        if running:
            self._run(running, seconds)
        for record in records:
            record.cut(seconds)
        return records

    def _run(self, examples: Sequence[RunningExample], seconds: int) -> None:
        """Run every example to its end, a step of each at a time."""
        most = min(self.at_once or len(examples), len(examples))
        # One more slot for the fork in which streams are asked.
        slots = most + any(bool(one.example.questions) for one in examples)
        waiting = deque(examples)
        try:
            with Runtime(Engine(self.model, slots=slots), lockstep=True, patience=LONG_PATIENCE) as runtime:
                asker = Asker(runtime.engine, self.answers, self.question_tokens)
                ended: SimpleQueue[RunningExample] = SimpleQueue()
                faults: list[StreamingVLMError] = []

                def start(count: int) -> int:
                    """Start so many of those that wait; how many have started."""
                    started = 0
                    while waiting and started < count:
                        try:
                            self._start(runtime, asker, waiting.popleft(), seconds, ended)
                            started += 1
                        except StreamingVLMError as error:
                            faults.append(error)
                    return started

                running = runtime.call(lambda: start(most))  # all of them before the first step
                while running:
                    one = next_ended(ended)
                    if not one.settle(seconds) and (fault := one.fault()) is not None:
                        faults.append(fault)
                    running += _started(runtime, lambda: start(1), faults) - 1
                raise_first(faults)
        finally:
            for one in examples:
                one.record.close(one.settle(seconds))

    def _start(
        self,
        runtime: Runtime,
        asker: Asker,
        one: RunningExample,
        seconds: int,
        ended: SimpleQueue[RunningExample],
    ) -> None:
        example, record = one.example, one.record
        reads = self.features is not None and self.features.enough_for(self._policy)

        def source(session: Session) -> Source | StepSource:
            one.begin(session, asker, ended)
            if self.features is None or not reads:
                return example.source(seconds, session.time)
            one.seen = self.features.seen(example, session, seconds)
            return one.seen

        def at_end(session: Session) -> None:
            if session.time < seconds - EPS:  # the video itself has ended
                asker.at_end(example, record, session)

        one.stream = runtime.start(
            source,
            sinks=[one],
            prepare=not reads,
            restore=record.snapshot if record.rows and there_is(record.snapshot) else None,
            on_step=one.keep,
            before_step=lambda session, step: asker.before_step(example, record, session, step),
            on_end=at_end,
            policy=self._policy,
            context=example.context,
            previous=example.previous,
            stream=example.stream,
            **self.options,
        )

    @property
    def _policy(self) -> CachePolicy:
        return make_policy(self.policy, self.model.defaults.policy)


def next_ended(ended: SimpleQueue[RunningExample]) -> RunningExample:
    """The next example whose stream has ended; waits for it."""
    one = ended.get()
    assert one.stream is not None, "it was started"
    one.stream.wait_ended()
    return one


def raise_first(faults: Sequence[StreamingVLMError]) -> None:
    """Raise the first of the errors that ended single streams or videos, if any; the others are logged."""
    for other in faults[1:]:
        _LOG.warning("%s", other)
    if faults:
        raise faults[0]


def _started(runtime: Runtime, start: Callable[[], int], faults: Sequence[StreamingVLMError]) -> int:
    try:
        return runtime.call(start)
    except SessionError:  # the engine has failed, and said why to a stream
        raise_first(faults)
        raise


def _more(question: TimedQuestion) -> tuple[Any, ...]:
    """What a question is besides its time and text, where it is more than these."""
    plain = TimedQuestion(question.time, question.text)
    return () if question == plain else tuple(astuple(question)[2:])
