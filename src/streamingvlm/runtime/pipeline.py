"""One stream's way through a runtime: source -> clock -> engine -> sinks. Everything here is the engine's thread's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from ..core.errors import OutputError, SessionError
from ..core.events import Closed, Commentary, Delta, Event, Sink, StepInput, StreamOpened
from ..core.run_stats import RunStats
from ..engine.engine import Engine
from ..engine.request import StepRequest
from ..engine.session import Session
from .clock import Feed


class Pipeline:
    """Feeds a session and tells its sinks; it starts, ends and fails by itself.

    ``keep``: the session stays open behind the end. ``error``: what ended it, if it did not come to its source's end
    and was not stopped. ``on_step`` is told of every request that has ended well,
    ``before_step`` of every whole step that is about to be submitted, ``on_end`` that the source has come to its end,
    while the session is still open.
    """

    def __init__(
        self,
        session: Session,
        feed: Feed,
        sinks: Sequence[Sink],
        opened: StreamOpened,
        on_step: Callable[[StepRequest], None] = lambda _: None,
        before_step: Callable[[Session, StepInput], None] = lambda *_: None,
        on_end: Callable[[Session], None] = lambda _: None,
        keep: bool = False,
    ) -> None:
        self.session = session
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
        self._last: Closed | None = None  # what the sinks were told last
        self._request: StepRequest | None = None
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
    def idle(self) -> bool:
        """Whether no step is under way."""
        return not self.ended and self._request is None

    def look(self) -> bool:
        """Whether a step can be taken, or the end has come; never waits for a source with a thread of its own."""
        if self._next is None and not self.ended:
            self._guarded(self._poll)
        return self._next is not None or self.ended

    def take(self, engine: Engine) -> None:
        """Hand the step that has come to the engine."""
        step, self._next = self._next, None
        if step is not None and not self.ended:
            self._guarded(lambda: self._submit(engine, step))

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

    def add_sink(self, sink: Sink) -> None:
        """One more sink, from the next event on; one that comes too late is only told how the stream has ended."""
        if self._last is None:
            self._sinks.append(sink)
        else:
            sink.write(self._last)
            sink.close()

    def snapshot(self, path: Path, done: Future[Path], now: bool = False) -> None:
        """Write a snapshot between two steps. ``now``: SessionError if the stream is not between two."""
        if self.ended:
            raise SessionError("the stream has ended; there is nothing to save")
        if now and not self._between_steps:
            raise SessionError("the engine's thread cannot wait for the end of a step; take the snapshot behind it")
        self._snapshots.append((path, done))
        self._save()

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

    def _poll(self) -> None:
        self._save()
        self._next = self._feed.poll()
        if self._next is None and self._feed.ended:
            self._on_end(self.session)
            self._at_end = True
            self.finish()

    def _submit(self, engine: Engine, step: StepInput) -> None:
        if not step.last and self.session.options.recomputes:
            self.session.feed(step)
            return
        chunk = step.chunk
        if step.last:
            self._before_step(self.session, step)
            self._emit(Delta(chunk.start, chunk.end, ""))
        if self.ended:  # one of them has stopped the stream
            return
        self._request = engine.submit(
            self.session, step, on_text=lambda text: self._deltas.append(Delta(chunk.start, chunk.end, text))
        )

    def _deliver(self, request: StepRequest, event: Commentary) -> None:
        self.stats.add(event)
        self._on_step(request)
        self._emit(*event.instructions, event)

    def _emit(self, *events: Event) -> None:
        """Tell all sinks; one that fails takes the events from none of the others."""
        first: BaseException | None = None
        for sink in self._sinks:
            try:
                for event in events:
                    sink.write(event)
            except BaseException as error:
                first = first or error
        if first is not None:
            raise first

    def _save(self) -> None:
        """Write the snapshots that wait, if the stream is between two steps."""
        if not self._between_steps:
            return
        waiting, self._snapshots = self._snapshots, []
        for path, done in waiting:
            try:
                self.session.save(path)
                done.set_result(path)
            except BaseException as error:
                done.set_exception(error)

    @property
    def _between_steps(self) -> bool:
        """Whether the stream can be saved; a step that has come and was not taken is none of it."""
        return self._request is None and self.session.state.between_steps

    def _guarded(self, act: Callable[[], None]) -> None:
        """A fault, or the wish to exit, ends this stream and no other: no interrupt comes to the engine's thread."""
        self._acting = True
        self._tried(act)
        self._acting = False
        if self.ended and self._last is None:
            self._close(0.0)

    def _tried(self, act: Callable[[], object]) -> None:
        """Call ``act``; what it raises first ends the stream."""
        try:
            act()
        except BaseException as error:
            self.ended, self.error = True, self.error or error

    def _close(self, patience: float) -> None:
        self._tried(lambda: self._feed.stop(patience))
        self._tried(self._give_back)
        for _, done in self._snapshots:
            done.set_exception(OutputError("the stream ended before its snapshot was written"))
        self._last = closed = Closed("" if self.error is None else str(self.error) or type(self.error).__name__)
        for sink in self._sinks:
            self._tried(partial(sink.write, closed))
            self._tried(sink.close)

    def _give_back(self) -> None:
        if not self._keep:
            self.session.close()
        elif not self.session.closed:
            self.session.abandon()
