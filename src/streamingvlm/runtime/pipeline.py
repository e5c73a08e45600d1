"""One stream's way through a runtime: source -> clock -> engine -> sinks. Everything here is the engine's thread's."""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..core.errors import OptionError, OutputError, SessionError
from ..core.events import (
    AnswerDelta,
    Closed,
    Commentary,
    Delta,
    Event,
    FrameSink,
    Instructed,
    InstructionUpdated,
    Rebased,
    Sink,
    StepFailed,
    StepInput,
    StreamOpened,
)
from ..core.run_stats import RunStats
from .backend import Request, StreamSession
from .clock import Feed

#: Second at which time stamps start anew, at most: there a stream's memory is full, as in chunks of training that
#: stand in mid-match; at zero it would be empty.
REBASE_TO = 600.0
#: Two starts closer than this, seconds, are of the same step.
SAME_MOMENT = 1e-3


@dataclass(slots=True)
class Numbering:
    """Gives the events of a stream their ids: ``EPOCH-NUMBER``. ``next``: the number of the next one; ``asked``: of the
    last question.

    A stream that is resumed goes on with the epoch and the numbers that it had.
    """

    epoch: str = field(default_factory=lambda: secrets.token_hex(4))
    next: int = 1
    asked: int = 0

    def stamp(self, event: Event) -> Event:
        """``event`` with its id and the time; a delta gets the time alone."""
        now = time.time()
        if isinstance(event, Delta | AnswerDelta):
            return replace(event, wall=now)
        number, self.next = self.next, self.next + 1
        return replace(event, id=f"{self.epoch}-{number}", wall=now)


class Companion(Protocol):
    """Goes along with a stream: rules, say, or whatever keeps snapshots. Its calls come on the engine's thread.

    What it raises ends the stream. :meth:`Pipeline.tell` is how it tells events.
    """

    def between(self, pipeline: Pipeline) -> None:
        """A step has ended and was told; the next one was not begun."""
        ...

    def close(self) -> None:
        """The stream has ended. Never waits."""
        ...


@runtime_checkable
class KeepingCompanion(Companion, Protocol):
    """One that keeps the stream somewhere. It comes behind the others: behind what they make of a step."""

    def keep(self, pipeline: Pipeline, now: bool) -> None:
        """Something was changed that no event tells enough of. ``now``: the stream stands between two steps."""
        ...

    def ending(self, pipeline: Pipeline) -> None:
        """The stream ends; its session is still open."""
        ...


class Pipeline:
    """Feeds a session and tells its sinks; it starts, ends and fails by itself.

    ``numbering``: gives events their ids. ``said_until``: seconds; what is said of steps before it was told by an
    earlier run: it goes into the memory of the stream and is told nobody. ``companions``: see :class:`Companion`.
    ``longest_time``: seconds; before a step whose time stamp would be larger, stamps start anew (None: the
    checkpoint's own; ``math.inf``: never). ``again``: what an earlier run was told to do, each with the start of the
    step, seconds, before which it is done again and told nobody, in order.
    ``keep``: the session stays open behind the end. ``error``: what ended it, if it did not come to its source's end
    and was not stopped. ``on_step`` is told of every request that has ended well,
    ``before_step`` of every whole step that is about to be submitted, ``on_end`` that the source has come to its end,
    while the session is still open.
    """

    def __init__(
        self,
        session: StreamSession,
        feed: Feed,
        sinks: Sequence[Sink],
        opened: StreamOpened,
        on_step: Callable[[Any], None] = lambda _: None,
        before_step: Callable[[Any, StepInput], None] = lambda *_: None,
        on_end: Callable[[Any], None] = lambda _: None,
        keep: bool = False,
        numbering: Numbering | None = None,
        said_until: float = 0.0,
        companions: Sequence[Companion] = (),
        longest_time: float | None = None,
        again: Sequence[tuple[float, Event]] = (),
    ) -> None:
        self.session = session
        self._again = deque(again)
        self._longest_time = session.longest_time if longest_time is None else longest_time
        #: Where a rebase that was asked for goes with the next step (None: nowhere).
        self.rebase_to: float | None = None
        self.numbering = numbering or Numbering()
        self._said_until = said_until
        self._companions = list(companions)
        self._outbox: deque[Event] = deque()
        self._failed: list[Sink] = []
        self._telling = False
        self.stats = RunStats()
        self.error: BaseException | None = None
        self.ended = False
        self._feed = feed
        self._sinks = list(sinks)
        self._opened = opened
        self._on_step, self._before_step, self._on_end = on_step, before_step, on_end
        self._keep = keep
        self._at_end = False
        self._acting = False
        self._last: Event | None = None  # what the sinks were told last
        self._request: Request | None = None
        self._next: StepInput | None = None
        self._deltas: list[Delta] = []
        self._snapshots: list[tuple[Path, Future[Path]]] = []

    def open(self) -> None:
        """Tell the sinks that the stream begins."""
        self._guarded(lambda: self._emit(self._opened))

    @property
    def complete(self) -> bool:
        """Whether the stream has come to its source's end without a fault."""
        return self._at_end and self.error is None

    @property
    def said_until(self) -> float:
        """Seconds: what is said of steps before was told, now or by an earlier run."""
        return max(self._said_until, self.session.time)

    @property
    def idle(self) -> bool:
        """Whether a step would be taken now: none is under way."""
        return not self.ended and self._request is None and self.session.ready

    def look(self) -> bool:
        """Whether a step can be taken, or the end has come; never waits for a source with a thread of its own."""
        if self._next is None and not self.ended:
            self._guarded(self._poll)
        return self._next is not None or self.ended

    def listen(self) -> None:
        """While the stream takes no step: what its source tells is told, and its end is noticed."""
        if not self.ended and self._request is None and self._next is None:
            self._guarded(partial(self._poll, False))

    def take(self) -> None:
        """Hand the step that has come to the engine."""
        step, self._next = self._next, None
        if step is not None and not self.ended:
            self._guarded(lambda: self._submit(step))

    def flush(self) -> None:
        """Tell the sinks the text that has come."""
        deltas, self._deltas = self._deltas, []
        if deltas and not self.ended:
            self._guarded(lambda: self._emit(*deltas))

    def settle(self) -> None:
        """Look whether the step under way has ended."""
        request = self._request
        if request is None or not request.done or self.ended:
            return
        self._request = None
        if request.error is not None:
            self.finish(request.error)
        elif (result := request.result) is not None:
            self._guarded(lambda: self._deliver(request, result))
            for companion in sorted(self._companions, key=lambda one: isinstance(one, KeepingCompanion)):
                if not self.ended:
                    self._guarded(partial(companion.between, self))

    def tell(self, *events: Event) -> None:
        """Tell the sinks events, behind those that they are being told. They get their ids here.

        Nothing follows :class:`Closed`.
        """
        if self._last is not None:
            return
        self._outbox.extend(events)
        if not self._telling and not self.ended:
            self._guarded(self._emit)

    def add_companion(self, companion: Companion, first: bool = False) -> None:
        """One more companion, from the next step's end on; ``first``: it is called before the others."""
        self._companions.insert(0 if first else len(self._companions), companion)

    def add_sink(self, sink: Sink) -> None:
        """One more sink, from the next event on; one that comes too late is only told how the stream has ended."""
        if self._last is None:
            self._sinks.append(sink)
        else:
            sink.write(self._last)
            sink.close()

    def remove_sink(self, sink: Sink) -> None:
        """Tell a sink nothing more; it is not closed. Nothing happens if it is none of the stream's."""
        self._sinks = [one for one in self._sinks if one is not sink]

    def snapshot(self, path: Path, done: Future[Path], now: bool = False) -> None:
        """Write a snapshot between two steps. ``now``: SessionError if the stream is not between two."""
        if self.ended:
            raise SessionError("the stream has ended; there is nothing to save")
        if now and not self.between_steps:
            raise SessionError("the engine's thread cannot wait for the end of a step; take the snapshot behind it")
        self._snapshots.append((path, done))
        self._save()

    def instruct(self, text: str) -> int:
        """See :meth:`StreamSession.instruct`; it is told at once.

        Steps that an earlier run has told come first, as they were.
        """
        if not self._again and not self._was_said(self.session.time):
            version = self.session.instruct(text)
        else:
            self.session.check_instruction(text)
            known = (event.version for _, event in self._again if isinstance(event, Instructed | InstructionUpdated))
            version = max([self.session.version, *known]) + 1
            self._again.append((self._said_until, Instructed(version, text, self.session.time)))
        self.tell(Instructed(version, text, self.session.time))
        return version

    @property
    def left(self) -> tuple[tuple[float, Event], ...]:
        """What is still to be done again, see ``again``."""
        return tuple(self._again)

    def rebase(self, shown: float | None = None) -> None:
        """Let time stamps start anew at ``shown`` seconds with the next step (None: where a rebase goes by itself).

        OptionError for a time that the checkpoint does not know.
        """
        if self.ended:
            raise SessionError("the stream has ended; it cannot be rebased")
        if not math.isfinite(self.session.longest_time):
            raise OptionError("the times that this model is told have no end: there is nothing to rebase")
        if shown is not None and not 0 <= shown < self._longest_time:
            raise OptionError(f"a rebase goes to 0 s or more and less than {self._longest_time:g} s, not {shown:g}")
        self.rebase_to = self._restart if shown is None else shown

    def keep(self) -> None:
        """Something was changed that no event tells enough of: see :meth:`KeepingCompanion.keep`."""
        now = self.between_steps and not self._acting
        for companion in self._companions:
            if isinstance(companion, KeepingCompanion):
                self._guarded(partial(companion.keep, self, now))

    def let_go(self) -> None:
        """Tell the source that nothing is wanted any more; does not wait for it."""
        self._feed.stop(0.0)

    def finish(self, error: BaseException | None = None, patience: float = 0.0) -> None:
        """End the stream: its source is let go, its slot is given back, its sinks are closed.

        ``patience``: seconds to wait for the source's thread, at most. None as a rule: the engine's other streams would
        wait too, and the thread ends by itself.

        Where a sink or another callback of the stream asks for it, that is done when all sinks have been told the
        events under way: nothing follows :class:`Closed`.
        """
        if self.ended:
            return
        self.ended, self.error = True, error
        if not self._acting:
            self._close(patience)

    def _poll(self, steps: bool = True) -> None:
        self._save()
        while (item := self._feed.poll(steps)) is not None and not isinstance(item, StepInput):
            self._emit(item)
            if self.ended:  # a sink has stopped the stream
                return
        self._next = item
        if self._next is None and self._feed.ended:
            self._on_end(self.session)
            self._at_end = True
            self.finish()

    @property
    def _restart(self) -> float:
        """Where time stamps start anew."""
        return min(REBASE_TO, self._longest_time / 2)

    def _rebase_for(self, step: StepInput) -> None:
        """Rebase the stream before ``step`` where that was asked for, or where its stamp would be too large."""
        session, chunk = self.session, step.chunk
        if not session.between_steps:
            return
        shown = None
        if not self._was_said(chunk.start):
            shown, self.rebase_to = self.rebase_to, None
        if shown is None and session.shown_time(chunk.end) > self._longest_time:
            shown = self._restart
        if shown is not None:
            event = session.rebase(shown, chunk.start)
            if not self._was_said(chunk.start):
                self._emit(event)

    def _do_again(self, step: StepInput) -> None:
        """Do what an earlier run did before ``step``."""
        session = self.session
        while self._again and session.between_steps and step.chunk.start > self._again[0][0] - SAME_MOMENT:
            _, event = self._again.popleft()
            if isinstance(event, Rebased):
                session.rebase(event.shown, max(event.time, session.time))
            elif isinstance(event, Instructed | InstructionUpdated):
                while session.version < event.version:  # those between are lost; their numbers are not given again
                    session.instruct(event.text)

    def _submit(self, step: StepInput) -> None:
        self._do_again(step)
        self._rebase_for(step)
        if self.ended:  # whoever was told of it has stopped the stream
            return
        chunk, new = step.chunk, not self._was_said(step.chunk.start)
        if new:
            self._show(step)
        if step.last:
            self._before_step(self.session, step)
            if new:
                self._emit(Delta(chunk.start, chunk.end, ""))
        if self.ended:  # one of them has stopped the stream
            return

        def on_text(text: str) -> None:
            self._deltas.append(Delta(chunk.start, chunk.end, text))

        self._request = self.session.submit(step, on_text=on_text if new else None)

    def _show(self, step: StepInput) -> None:
        """Show the frames to the sinks that want them."""
        for sink in self._sinks:
            if isinstance(sink, FrameSink) and sink not in self._failed:
                sink.see(step)

    def _was_said(self, start: float) -> bool:
        return start < self._said_until - SAME_MOMENT

    def _deliver(self, request: Request, event: Commentary | StepFailed) -> None:
        self.stats.add(event)
        if isinstance(event, StepFailed):
            self._emit(event)
            return
        event = replace(event, wall_start=request.step.chunk.wall)
        self._on_step(request)
        if not self._was_said(event.start):
            self._emit(*event.instructions, event)

    def _emit(self, *events: Event) -> None:
        """Tell all sinks; one that fails takes the events from none of the others.

        What they tell meanwhile (:meth:`tell`) comes behind.
        """
        self._outbox.extend(events)
        if self._telling:
            return
        first: BaseException | None = None
        self._telling = True
        try:
            while self._outbox:
                first = self._tell_one(self.numbering.stamp(self._outbox.popleft())) or first
        finally:
            self._telling = False
        if first is not None:
            raise first

    def _tell_one(self, event: Event) -> BaseException | None:
        """What the first sink raised."""
        first: BaseException | None = None
        for sink in tuple(self._sinks):
            if sink in self._failed:
                continue
            try:
                sink.write(event)
            except BaseException as error:
                self._failed.append(sink)
                first = first or error
        return first

    def _save(self) -> None:
        """Write the snapshots that wait, if the stream is between two steps."""
        if not self.between_steps:
            return
        waiting, self._snapshots = self._snapshots, []
        for path, done in waiting:
            try:
                self.session.save(path)
                done.set_result(path)
            except BaseException as error:
                done.set_exception(error)

    @property
    def between_steps(self) -> bool:
        """Whether the stream can be saved and copied now; a step that has come and was not taken is none of it."""
        return not self.ended and self._request is None and self.session.between_steps

    def _guarded(self, act: Callable[[], None]) -> None:
        """A fault, or the wish to exit, ends this stream and no other: no interrupt comes to the engine's thread."""
        outer, self._acting = self._acting, True
        self._tried(act)
        self._acting = outer
        if self.ended and self._last is None and not outer:
            self._close(0.0)

    def _tried(self, act: Callable[[], object]) -> None:
        """Call ``act``; what it raises first ends the stream."""
        try:
            act()
        except BaseException as error:
            self.ended, self.error = True, self.error or error

    def _close(self, patience: float) -> None:
        self._tried(lambda: self._feed.stop(patience))
        for companion in self._companions:
            if isinstance(companion, KeepingCompanion):
                self._tried(partial(companion.ending, self))
        self._tried(self._give_back)
        for _, done in self._snapshots:
            done.set_exception(OutputError("the stream ended before its snapshot was written"))
        for companion in self._companions:
            self._tried(companion.close)
        self._tried(self._emit)  # what companions have told
        reason = "" if self.error is None else str(self.error) or type(self.error).__name__
        self._last = closed = self.numbering.stamp(Closed(reason))
        for sink in self._sinks:
            self._tried(partial(sink.write, closed))
            self._tried(sink.close)

    def _give_back(self) -> None:
        if not self._keep:
            self.session.close()
        elif not self.session.closed:
            self.session.abandon()
