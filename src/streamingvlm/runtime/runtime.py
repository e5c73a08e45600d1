"""Many live streams on one engine: one thread owns it, all others only send commands.

The thread's loop: run the commands that have come, hand the engine the steps that have come, let it advance by a round,
tell the sinks. A stream starts, ends and fails by itself.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import SessionError
from ..core.events import Dropped, Event, Question, Sink, Source, StepInput, StepSource, StreamOpened
from ..core.run_stats import RunStats
from .backend import Backend, StreamSession
from .clock import PATIENCE as JOIN
from .clock import Feed, Inline, Pace, fast, live
from .limits import COMMANDS, SUBSCRIBER_EVENTS
from .pipeline import Companion, Numbering, Pipeline
from .rules import RuleSpec
from .talk import Ask, Asker, Talk, to_question
from .watcher import Watcher

T = TypeVar("T")
CLOSED = "this runtime is closed"
#: Seconds after which a thread that waits for the engine's looks whether that is still there.
LOOK = 0.5
#: Seconds that closing waits for the round under way; the thread is a daemon, so it cannot hang the process.
PATIENCE = 0.9
#: The same for programs whose files are closed behind the runtime: a round of a large model on a CPU takes long.
LONG_PATIENCE = 60.0


class Subscription:
    """The events of one stream for another thread: iterate. At most ``SUBSCRIBER_EVENTS`` wait; :class:`Dropped` says
    how many older ones were lost.

    Whoever wants no more calls :meth:`leave`, or uses ``with``; otherwise it is kept as long as its stream.
    """

    def __init__(self, on_leave: Callable[[Subscription], None] = lambda _: None) -> None:
        self._on_leave = on_leave
        self._events: deque[Event] = deque()
        self._lost = 0
        self._closed = False
        self._changed = threading.Condition()

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`; never waits."""
        with self._changed:
            if len(self._events) >= SUBSCRIBER_EVENTS:
                self._events.popleft()
                self._lost += 1
            self._events.append(event)
            self._changed.notify_all()

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def leave(self) -> None:
        """Nothing more is wanted: iterating ends behind what has come. For any thread; safe to call twice."""
        self.close()
        self._on_leave(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def __iter__(self) -> Iterator[Event]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._events) or self._closed)
                if self._lost:
                    event: Event = Dropped(self._lost)
                    self._lost = 0
                elif self._events:
                    event = self._events.popleft()
                else:
                    return
            yield event


class Stream:
    """A stream of a runtime, for any thread."""

    def __init__(self, runtime: Runtime, pipeline: Pipeline, name: str) -> None:
        self.name = name
        self.pipeline = pipeline
        self._runtime = runtime
        self._ended = threading.Event()
        #: Watches its rules; for the engine's thread (None: there never was a rule).
        self.watcher: Watcher | None = None

    def mark_ended(self) -> None:
        """Called by the runtime when it is done with the stream."""
        self._ended.set()

    def instruct(self, text: str) -> int:
        """See :meth:`Session.instruct`. :class:`Instructed` is told."""
        return self._change(lambda: self.pipeline.instruct(text))

    def ask(self, question: str | Question, on_text: Callable[[str], None] | None = None) -> Ask:
        """Ask the stream as it stands at its next moment between two steps; its commentary stays as it is.

        Text and answer come by what is returned, and as events (``Asked``, ``AnswerDelta``, ``Answered``) to the sinks.
        ``on_text``: called with text as it comes, on the engine's thread; it never waits. The bounds are in
        :mod:`streamingvlm.runtime.limits`. Raises :class:`CapacityError` where no slot is kept for questions
        (``Runtime(engine, questions=True)``), where too many wait, and for one over its budget; :class:`OptionError`
        for one without words, :class:`SessionError` if the stream has ended.
        """
        return self._runtime.call(lambda: self._runtime.talk.ask(self.pipeline, to_question(question), on_text))

    def rebase(self, shown: float | None = None) -> None:
        """Let the time that the model is told start anew with the next step, which is told as ``shown`` seconds.

        None: as the stream does it by itself, before time stamps leave what the checkpoint was trained on. What the
        stream remembers stays; events keep its own time. :class:`Rebased` is told. Raises :class:`OptionError` for a
        time that the checkpoint does not know.
        """
        self._change(lambda: self.pipeline.rebase(shown))

    def snapshot(self, path: Path) -> Path:
        """Write the stream to ``path`` between two steps; returns when it is on the disk. Raises as ``save`` does.

        On the engine's thread, where a step's end cannot be waited for: :class:`SessionError` within a step.
        """
        done: Future[Path] = Future()
        now = self._runtime.own_thread
        self._runtime.call(lambda: self.pipeline.snapshot(path, done, now))
        return done.result()

    def add_rule(self, spec: RuleSpec) -> None:
        """Watch for one more thing, or for another one by the same name; see :meth:`Watcher.set`."""
        self._change(lambda: self._own_watcher().set(self.pipeline, spec))

    def remove_rule(self, name: str) -> None:
        """Watch for something no more; see :meth:`Watcher.remove`."""
        self._change(lambda: self._own_watcher().remove(self.pipeline, name))

    @property
    def rules(self) -> tuple[RuleSpec, ...]:
        """What the stream is watched for."""
        return () if self.watcher is None else self.watcher.rules

    def _change(self, change: Callable[[], T]) -> T:
        """Change what is kept: it outlives a loss of power, though the source may send no step for hours."""

        def keep() -> T:
            result = change()
            self.pipeline.keep()
            return result

        return self._runtime.call(keep)

    def _own_watcher(self) -> Watcher:
        if self.pipeline.ended:
            raise SessionError("the stream has ended; its rules cannot be changed")
        return self.watcher or self.watch(Watcher((), self._runtime.asker))

    def watch(self, watcher: Watcher) -> Watcher:
        """Called by the runtime: have the stream watched."""
        self.watcher = watcher
        self.pipeline.add_sink(watcher)
        self.pipeline.add_companion(watcher, first=True)  # what is told is known to whoever keeps the stream
        watcher.begin(self.pipeline)
        return watcher

    def subscribe(self) -> Subscription:
        """The events from now on; of a stream that has ended, how it did."""
        subscription = Subscription(self._unsubscribe)
        self._runtime.call(lambda: self.pipeline.add_sink(subscription))
        return subscription

    def _unsubscribe(self, subscription: Subscription) -> None:
        with suppress(SessionError):  # the runtime has ended, and the stream with it
            self._runtime.call(lambda: self.pipeline.remove_sink(subscription))

    def stop(self) -> None:
        """End the stream now; a step under way is given up."""
        self._runtime.call(self.pipeline.finish)

    def wait(self, timeout: float | None = None) -> bool:
        """Until the stream has ended (whether it has, if ``timeout`` seconds pass first). Raises what ended it.

        :class:`SessionError` on the engine's thread, which would wait for itself.
        """
        if not self.ended:
            self._runtime.check_waits()
        if not self._ended.wait(timeout):
            return False
        if self.pipeline.error is not None:
            raise self.pipeline.error
        return True

    def wait_ended(self) -> None:
        """Until the stream has ended, well or not; not on the engine's thread, as :meth:`wait`."""
        if not self.ended:
            self._runtime.check_waits()
        self._ended.wait()

    @property
    def ended(self) -> bool:
        """Whether it has ended, well or not."""
        return self._ended.is_set()

    @property
    def complete(self) -> bool:
        """Whether it has come to its source's end: it was not stopped and did not fail."""
        return self.ended and self.pipeline.complete

    @property
    def error(self) -> BaseException | None:
        """What ended it, if it did not come to its source's end and was not stopped."""
        return self.pipeline.error

    @property
    def stats(self) -> RunStats:
        """Sums over its steps so far."""
        return self.pipeline.stats


@dataclass(slots=True)
class Load:
    """Seconds that the engine's thread has worked and waited so far."""

    busy: float = 0.0
    idle: float = 0.0


class Runtime:
    """Runs streams on ``engine``, which is the runtime's own thread's from now on; close it, or use ``with``.

    ``engine``: an :class:`Engine`, a :class:`RemoteEngine`, or whatever has the members of :class:`Backend`.

    ``lockstep``: the next step of a stream waits until every other one has one too, so that all go as one batch.
    ``patience``: seconds that :meth:`close` waits at most. ``questions``: keep one slot of the engine for questions to
    the streams (:meth:`Stream.ask`), from the first stream on: an engine with N + 1 slots holds N streams then.
    """

    def __init__(
        self, engine: Backend, *, lockstep: bool = False, patience: float = PATIENCE, questions: bool = False
    ) -> None:
        self.engine: Any = engine
        #: Asks the streams; for the engine's thread (others: :meth:`Stream.ask`).
        self.talk = Talk(engine, self, enabled=questions)
        #: Asks what rules want to know; another one is set before a stream is started.
        self.asker: Asker | None = self.talk if questions else None
        self.load = Load()
        self._patience = patience
        self._lockstep = lockstep
        self._commands: queue.Queue[Callable[[], None]] = queue.Queue(COMMANDS)
        self._streams: list[Stream] = []
        self._wake = threading.Event()
        engine.wake_by(self._wake.set)
        self._closing = False
        self._failure: BaseException | None = None
        self._first_error: BaseException | None = None  # of a stream
        self._thread = threading.Thread(target=self._run, name="streamingvlm-engine", daemon=True)
        self._thread.start()

    def start(
        self,
        source: Source | StepSource | Callable[[Any], Source | StepSource],
        *,
        sinks: Sequence[Sink] = (),
        pace: Pace = Pace.FAST,
        encode_ahead: bool = False,
        parts: bool = False,
        prepare: bool = True,
        restore: Path | None = None,
        session: StreamSession | None = None,
        name: str | None = None,
        numbering: Numbering | None = None,
        said_until: float = 0.0,
        companions: Sequence[Companion] = (),
        rules: Sequence[RuleSpec] = (),
        rule_state: Mapping[str, Any] | None = None,
        longest_time: float | None = None,
        again: Sequence[tuple[float, Event]] = (),
        on_step: Callable[[Any], None] = lambda _: None,
        before_step: Callable[[Any, StepInput], None] = lambda *_: None,
        on_end: Callable[[Any], None] = lambda _: None,
        **options: Any,
    ) -> Stream:
        """Start a stream.

        ``source``: where its chunks come from, or what makes it when the stream is open. ``sinks`` are told its events
        on the engine's thread. ``encode_ahead``: the source's thread also asks the vision tower (for one stream; of
        several the engine asks once for all). ``prepare``: it makes patches of the frames. ``parts``: temporal patches
        of a step are shown as they come (always where the pace is live). ``restore``: a snapshot to go on from.
        ``options``: as the engine's ``open`` takes them; or ``session``: one that is open and stays so behind the end.
        ``name``: of the stream (None: its source's). ``numbering``, ``said_until``, ``companions``, ``longest_time``
        and ``again``: see :class:`Pipeline`. ``rules``: what the stream is watched for; ``rule_state``: see
        :class:`Watcher`. ``before_step`` is told of a whole step before it is submitted, ``on_step`` of its request
        when it has ended, ``on_end`` that the source has ended while the session is still open, all on the engine's
        thread. Raises what opening and restoring raise.
        """
        watcher = Watcher(rules, self.asker, rule_state) if rules or rule_state else None
        feed = partial(self._feed, source, pace, encode_ahead, parts, prepare)
        make = partial(
            Pipeline,
            sinks=sinks,
            on_step=on_step,
            before_step=before_step,
            on_end=on_end,
            keep=session is not None,
            numbering=numbering,
            said_until=said_until,
            companions=companions,
            longest_time=longest_time,
            again=again,
        )
        return self.call(lambda: self._start(session, options, restore, feed, make, name, watcher))

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the engine's thread, between two rounds; its result. :class:`SessionError` if closed."""
        if self.own_thread:
            return function()
        done: Future[T] = Future()
        self._send(lambda: _settle(done, function))
        while not wait([done], LOOK).done:
            if not self._thread.is_alive() and not done.done():
                raise SessionError(CLOSED)
        return done.result()

    def wait(self) -> None:
        """Until all streams have ended. Raises what ended the first that failed since the runtime was made."""
        for stream in list(self._streams):
            stream.wait_ended()
        if self._first_error is not None:
            raise self._first_error

    @property
    def own_thread(self) -> bool:
        """Whether this is the engine's thread."""
        return threading.current_thread() is self._thread

    def check_waits(self) -> None:
        """Raise :class:`SessionError` on the engine's thread: it cannot wait for what it does itself."""
        if self.own_thread:
            raise SessionError("the engine's thread cannot wait for its streams; wait in another one")

    def close(self) -> None:
        """End all streams and the thread. Safe to call twice.

        Returns within ``patience`` seconds, whatever a source does; a round under way may end behind that.
        """
        self._closing = True
        self._wake.set()
        if not self.own_thread:
            self._thread.join(self._patience)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The engine's thread.

    def _send(self, command: Callable[[], None]) -> None:
        while not self._closing and self._thread.is_alive():
            try:
                self._commands.put(command, timeout=LOOK)
            except queue.Full:
                continue
            self._wake.set()
            return
        raise SessionError(CLOSED)

    def _start(
        self,
        kept: StreamSession | None,
        options: Mapping[str, Any],
        restore: Path | None,
        feed: Callable[[StreamSession], tuple[Feed, StreamOpened]],
        make: Callable[..., Pipeline],
        name: str | None,
        watcher: Watcher | None,
    ) -> Stream:
        if self._closing:  # nobody would end it
            raise SessionError(CLOSED)
        session = kept or self.engine.open(**options)
        try:
            self.talk.admit(session)
            if restore is not None:
                session.restore(restore)
            if watcher is not None:
                watcher.check(session)
            steps, event = feed(session)
        except BaseException:
            if kept is None:
                session.close()
            raise
        pipeline = make(session=session, feed=steps, opened=event)
        stream = Stream(self, pipeline, name or event.name)
        self._streams.append(stream)
        self.talk.watch(pipeline)
        pipeline.open()
        if watcher is not None and not pipeline.ended:
            stream.watch(watcher)
        return stream

    def _feed(
        self,
        source: Source | StepSource | Callable[[Any], Source | StepSource],
        pace: Pace,
        encode_ahead: bool,
        parts: bool,
        prepare: bool,
        session: StreamSession,
    ) -> tuple[Feed, StreamOpened]:
        video = source(session) if callable(source) else source
        event = StreamOpened(video.name, session.context)
        ahead = partial(session.prepare, encode=encode_ahead) if prepare else None
        if pace is Pace.LIVE:
            return live(video, ahead, session.patch_frames, self._wake.set, session.dropped), event
        if pace is Pace.FAST:
            return fast(video, ahead, self._wake.set), event
        return Inline(video, session.patch_frames if parts else None), event

    def _run(self) -> None:
        try:
            while True:
                # In this order: whoever closes sets both, the other way round.
                self._wake.clear()
                if self._closing:
                    break
                self._run_commands()
                began = time.perf_counter()
                self.talk.begin()
                moved = self._submit()
                if self.engine.busy and not self.engine.rest:
                    self.engine.advance()
                    moved = True
                self._settle()
                self.talk.settle()
                if moved:
                    self.load.busy += time.perf_counter() - began
                else:
                    self._wake.wait(_sooner(self.engine.alarm, self.talk.rest))
                    self.load.idle += time.perf_counter() - began
        except BaseException as error:
            self._failure = error
        finally:
            self._end()

    def _run_commands(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            command()

    def _submit(self) -> bool:
        """Hand the engine the steps that have come; whether there were any."""
        pipelines = [stream.pipeline for stream in self._streams]
        idle = [pipeline for pipeline in pipelines if pipeline.idle]
        if self._lockstep and (len(idle) < sum(not pipeline.ended for pipeline in pipelines) or not _all_look(idle)):
            return False
        for pipeline in pipelines:
            if pipeline not in idle:
                pipeline.listen()
        ready = [pipeline for pipeline in idle if pipeline.look()]
        for pipeline in ready:
            pipeline.take()
        return bool(ready)

    def _settle(self) -> None:
        """Tell the sinks what has come, and forget the streams that have ended."""
        for stream in self._streams:
            stream.pipeline.flush()
            stream.pipeline.settle()
        for stream in self._streams:
            if stream.pipeline.ended:
                self._mark_ended(stream)
        self._streams = [stream for stream in self._streams if not stream.pipeline.ended]

    def _end(self) -> None:
        self._closing = True
        for stream in self._streams:
            stream.pipeline.let_go()
        until = time.perf_counter() + JOIN
        for stream in self._streams:
            stream.pipeline.finish(self._failure, max(until - time.perf_counter(), 0.0))
            self._mark_ended(stream)
        self._streams = []
        self.talk.close()
        self._run_commands()

    def _mark_ended(self, stream: Stream) -> None:
        self._first_error = self._first_error or stream.error
        stream.mark_ended()


def _sooner(*waits: float | None) -> float | None:
    """The shortest of some waits (None: for ever)."""
    return min((wait for wait in waits if wait is not None), default=None)


def _all_look(pipelines: Sequence[Pipeline]) -> bool:
    """Whether each of them has a step, or has ended; all are asked, so that none ends unseen behind one that waits."""
    looked = [pipeline.look() for pipeline in pipelines]
    return all(looked)


def _settle(done: Future[T], function: Callable[[], T]) -> None:
    try:
        done.set_result(function())
    except BaseException as error:
        done.set_exception(error)
