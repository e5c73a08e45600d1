"""Runs the examples of a task, many streams at once, free running: the model reads nothing but its own words.

All streams go in lockstep through one engine, a step of each in a round, so that their replies are decoded as one
batch. Sources and patches are made a little ahead in a thread each. Streams that were interrupted go on from their
snapshots, and so need not be at the same second as the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..core.errors import CapacityError, OptionError, OutputError
from ..core.events import Chunk
from ..core.policy import make_policy
from ..engine.engine import Engine
from ..engine.session import Session
from ..engine.snapshot import remove, restore, save, there_is
from ..models.base import Model
from ..runtime.clock import fast
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
class RunningExample:
    """One example on its way. ``seen``: its source, if that wants to know what the tower saw."""

    example: TaskExample
    record: Record
    session: Session
    chunks: Iterator[Chunk]
    seen: Seen | None
    done: bool = False
    work: list[float] = field(default_factory=list)

    def too_slow(self) -> bool:
        """Whether the last minute took longer than it lasted."""
        last = self.work[-OVER:]
        return len(last) == OVER and sum(last) / OVER > REAL_TIME

    def due(self, chunk: Chunk) -> list[Question]:
        """The questions that are asked in the step of ``chunk``, which comes next."""
        session = self.session
        return [
            question
            for question in self.example.questions
            if question.time <= chunk.end and (question.time > session.time or not session.turn)
        ]

    def stop(self, why: str) -> None:
        """End it early."""
        self.record.stop(why)
        self.done = True

    def end(self, seconds: float) -> None:
        """Its source has no more steps; ``seconds``: how far it was to be watched."""
        if self.record.seconds < seconds:
            self.record.end()
        self.done = True


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
            "policy": repr(make_policy(self.policy, self.model.defaults.policy)),
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
        if left:
            with ExitStack() as stack, torch.inference_mode():
                # One more slot for the copy of a stream that answers a question.
                engine = Engine(self.model, slots=len(left) + any(bool(e.questions) for e, _ in left))
                running = [self._open(stack, engine, example, record, seconds) for example, record in left]
                on_round = self._make_on_round(engine, running)

                def tell() -> None:
                    on_progress(sum(min(r.seconds, seconds) for r in records))
                    on_round()

                self._drive(engine, running, seconds, tell)
        for record in records:
            record.cut(seconds)
        return records

    def _open(
        self, stack: ExitStack, engine: Engine, example: TaskExample, record: Record, seconds: int
    ) -> RunningExample:
        session = stack.enter_context(self._session(engine, example))
        if record.rows and there_is(record.snapshot):
            restore(session, engine.pool, record.snapshot)
            if session.time > record.seconds:
                raise OutputError(f"{record.path} ends before its snapshot; remove both to start the stream again")
        record.begin(session.time)
        seen = None
        if self.features is not None and self.features.enough_for(session):
            seen = self.features.seen(example, session, seconds)
        source = fast(seen) if seen else fast(example.source(seconds, session.time), session.prepare)
        chunks = stack.enter_context(closing(iter(source)))
        running = RunningExample(example, record, session, chunks, seen)
        stack.callback(lambda: record.close(running.done))
        return running

    def _session(self, engine: Engine, example: TaskExample) -> Session:
        return engine.open(policy=self.policy, context=example.context, stream=example.stream)

    def _make_on_round(self, engine: Engine, examples: Sequence[RunningExample]) -> Callable[[], None]:
        """What is done behind every round: streams that are too slow end, the others are saved now and then."""
        growing = any(one.session.options.policy.seconds_left(0.0) is not None for one in examples)
        saved, pause = time.perf_counter(), SNAPSHOT_EVERY

        def on_round() -> None:
            nonlocal saved, pause
            running = [one for one in examples if not one.done]
            for one in running:
                if growing and one.too_slow():
                    one.stop(f"slower than real time at {one.session.time:g} s")
            if time.perf_counter() - saved <= pause:
                return
            began = time.perf_counter()
            for one in running:
                if not one.done:
                    one.record.sync()
                    save(one.session, engine.pool, one.record.snapshot)
            saved = time.perf_counter()
            pause = max(SNAPSHOT_EVERY, (saved - began) / SNAPSHOT_SHARE)

        return on_round

    def _drive(
        self, engine: Engine, examples: Sequence[RunningExample], seconds: int, on_round: Callable[[], None]
    ) -> None:
        """Run every example to its end, a step of each in a round. Only this and :meth:`_answer` run the engine."""
        while running := [one for one in examples if not one.done]:
            jobs = []
            for one in running:
                chunk = next(one.chunks, None)
                if chunk is None:
                    one.end(seconds)
                    continue
                try:
                    for question in one.due(chunk):
                        one.record.answer(question.time, question.text, self._answer(engine, one, chunk, question))
                    jobs.append((one, engine.submit(one.session, chunk)))
                except CapacityError:
                    one.stop(f"the cache is full at {one.session.time:g} s")
            for one, job in jobs:
                event = engine.wait(job)
                one.record.add(event)
                if one.seen is not None:
                    one.seen.keep(job)
                one.work.append(event.timing.work / (event.end - event.start))
            on_round()

    def _answer(self, engine: Engine, running: RunningExample, chunk: Chunk, question: Question) -> str:
        """What a copy of the stream says of its next step with the question as its instruction.

        The stream itself never sees the question. The copy goes over the disk, beside the record.
        """
        path = running.record.path.with_suffix(".asked")
        with self._session(engine, running.example) as copy:
            if running.session.turn:
                save(running.session, engine.pool, path)
                restore(copy, engine.pool, path)
                remove(path)
            try:
                copy.instruct(question.text)
            except CapacityError as error:
                raise OptionError(f"{running.example.name}, question at {question.time:g} s: {error}") from None
            return copy.step(chunk).text
