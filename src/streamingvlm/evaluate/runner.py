"""Runs the examples of a task, many streams at once, free running: the model reads nothing but its own words.

All streams go in lockstep through one runtime, so that their replies are decoded as one batch. Sources and patches are
made a little ahead in a thread each. Streams that were interrupted go on from their
snapshots, and so need not be at the same second as the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import CapacityError, OptionError, OutputError
from ..core.events import Commentary, Event, Source, StepInput, StepSource
from ..core.events import Question as AskedQuestion
from ..core.policy import CachePolicy, make_policy
from ..engine.engine import Engine
from ..engine.request import StepRequest
from ..engine.session import Session
from ..engine.snapshot import there_is
from ..models.base import Model
from ..runtime.runtime import LONG_PATIENCE, Runtime, Stream
from .checkpoint import Checkpoint
from .features import Features, Seen
from .record import Record
from .task import Question, Task, TaskExample

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
        checkpoint.model, policy, checkpoint.records(folder, policy), checkpoint.fingerprint, features=kept
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

    def __init__(self, example: TaskExample, record: Record, pace: SnapshotPace, tell: Callable[[], None]) -> None:
        self.example, self.record = example, record
        self.seen: Seen | None = None
        self.stream: Stream | None = None
        self._pace, self._tell = pace, tell
        self._session: Session | None = None
        self._work: list[float] = []
        self._saved = time.perf_counter()

    def begin(self, session: Session) -> None:
        """Its stream is open, and restored if it was saved."""
        if session.time > self.record.seconds:
            raise OutputError(f"{self.record.path} ends before its snapshot; remove both to start the stream again")
        self._session = session
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
        if growing and len(self._work) == OVER and sum(self._work) / OVER > REAL_TIME and self.stream is not None:
            self.record.stop(f"slower than real time at {self._session.time:g} s")
            self.stream.stop()
        elif time.perf_counter() - self._saved > self._pace.pause:
            self._save(self._session)

    def close(self) -> None:
        """See :meth:`Sink.close`: whoever waits for the stream settles the record."""

    def keep(self, request: StepRequest) -> None:
        """A step has ended."""
        if self.seen is not None:
            self.seen.keep(request)

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
    ``features``: where what the tower sees is kept, for policies that it is enough for (None: nowhere).
    """

    model: Model
    policy: str
    folder: Path
    fingerprint: str
    features: Features | None = None

    def settings(self, example: TaskExample) -> dict[str, Any]:
        """All that the words of an example depend on."""
        shape = self.model.kv_shape
        asked = [[question.time, question.text] for question in example.questions]
        return {
            **example.settings,
            **({"questions": asked} if asked else {}),
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
        """What is said of the first ``seconds`` of every example, all of them in one batch.

        ``on_progress`` is told the seconds that are done, of all streams together. An interrupt leaves what was said
        and the last snapshots.
        """
        records = [Record(self.folder / f"{example.name}.jsonl", self.settings(example)) for example in examples]
        for record in records:
            record.load()
        pairs = zip(examples, records, strict=True)
        left = [(e, r) for e, r in pairs if r.seconds < seconds and not r.stopped and not r.ended]

        def tell() -> None:
            on_progress(sum(min(r.seconds, seconds) for r in records))

        pace = SnapshotPace(len(left))
        running = [RunningExample(example, record, pace, tell) for example, record in left]
        if running:
            self._run(running, seconds)
        for record in records:
            record.cut(seconds)
        return records

    def _run(self, examples: Sequence[RunningExample], seconds: int) -> None:
        """Run every example to its end, a step of each at a time."""
        # One more slot for the copy of a stream that answers a question.
        slots = len(examples) + any(bool(one.example.questions) for one in examples)
        try:
            with Runtime(Engine(self.model, slots=slots), lockstep=True, patience=LONG_PATIENCE) as runtime:
                runtime.call(lambda: self._start_all(runtime, examples, seconds))
                for one in examples:
                    assert one.stream is not None, "it was started"
                    one.stream.wait_ended()
                    if not one.settle(seconds):
                        one.stream.wait()  # raises what ended it
        finally:
            for one in examples:
                one.record.close(one.settle(seconds))

    def _start_all(self, runtime: Runtime, examples: Sequence[RunningExample], seconds: int) -> None:
        """Start all of them before the first step."""
        for one in examples:
            self._start(runtime, one, seconds)

    def _start(self, runtime: Runtime, one: RunningExample, seconds: int) -> None:
        example, record = one.example, one.record
        reads = self.features is not None and self.features.enough_for(self._policy)

        def source(session: Session) -> Source | StepSource:
            one.begin(session)
            if self.features is None or not reads:
                return example.source(seconds, session.time)
            one.seen = self.features.seen(example, session, seconds)
            return one.seen

        one.stream = runtime.start(
            source,
            sinks=[one],
            prepare=not reads,
            restore=record.snapshot if record.rows and there_is(record.snapshot) else None,
            on_step=one.keep,
            before_step=lambda session, step: self._ask(runtime.engine, one, session, step),
            **self._options(example),
        )

    @property
    def _policy(self) -> CachePolicy:
        return make_policy(self.policy, self.model.defaults.policy)

    def _options(self, example: TaskExample) -> dict[str, Any]:
        return {"policy": self._policy, "context": example.context, "stream": example.stream}

    def _ask(self, engine: Engine, one: RunningExample, session: Session, step: StepInput) -> None:
        """Answer the questions that are asked in ``step``, which comes next."""
        for question in one.example.questions:
            if question.time <= step.chunk.end and (question.time > session.time or not session.turn):
                answer = self._answer(engine, one.example, session, step, question)
                one.record.answer(question.time, question.text, answer)

    def _answer(
        self, engine: Engine, example: TaskExample, session: Session, step: StepInput, question: Question
    ) -> str:
        """What a copy of the stream says of its next step with the question as its instruction.

        The stream itself never sees the question.
        """
        with engine.fork(session, sampling=session.options.sampling) as fork:
            fork.take(session)
            try:
                asked = AskedQuestion(question.text, max_new_tokens=session.options.sampling.max_new_tokens)
                return fork.ask(asked, step).text
            except CapacityError as error:
                raise OptionError(f"{example.name}, question at {question.time:g} s: {error}") from None
