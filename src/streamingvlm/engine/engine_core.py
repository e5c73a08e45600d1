"""The machinery of an engine: requests under way, faults that stay in their stream, one thread.

:class:`EngineCore` is what sessions ask (:class:`streamingvlm.engine.session.EnginePort`);
:class:`streamingvlm.engine.engine.Engine` is its face.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from ..core.errors import CapacityError, SessionError
from ..core.events import Question, StepInput
from ..models.base import Prepared
from ..models.patches import Patcher
from .options import StreamOptions
from .planner import StepPlanner
from .request import AskRequest, StepRequest, Trace, TurnRequest
from .runner import ModelRunner
from .scheduler import Scheduler
from .slack import LOOK, PIECE
from .state import StreamState
from .stream import OpenStream

T = TypeVar("T")
AT_WORK = "the engine is at work; a callback may open, close and instruct sessions, not run their steps"


class EngineCore:
    """Runs requests of open streams through ``runner``. ``rows``: of a slot (None: the pool grows)."""

    def __init__(self, runner: ModelRunner, rows: int | None = None) -> None:
        self.model = runner.model
        self.pool = runner.pool
        self._runner = runner
        self._fixed_rows = rows
        self._scheduler = Scheduler(self.model.end_tokens)
        self._thread: threading.Thread | None = None
        self._at_work = False

    def open_stream(self, options: StreamOptions, patcher: Patcher) -> OpenStream:
        """A stream with a slot of its own."""
        return self.open_planned(StepPlanner(self.model, options, patcher))

    def open_planned(self, planner: StepPlanner) -> OpenStream:
        """A stream of a planner, with a slot of its own."""
        self.check_thread()
        return OpenStream(planner, self._admit(planner.capacity))

    def advance(self) -> list[TurnRequest]:
        """See :meth:`Engine.advance`."""
        with self._working():
            slack = self._scheduler.slack
            if waiting := self._scheduler.waiting():
                began = slack.clock()
                self._start(waiting)
                slack.learn_start(waiting, slack.clock() - began)
            if running := self._scheduler.running():
                began = slack.clock()
                for request, (token, logits) in self._each(running, self._runner.decode):
                    self._scheduler.decoded(request)
                    self._take(request, token, logits)
                slack.learn_decode(slack.clock() - began)
        return self._scheduler.take_ended()

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""
        return bool(self._scheduler.all())

    @property
    def rest(self) -> float:
        """See :attr:`Engine.rest`."""
        return self._scheduler.rest

    def background_wait(self, tokens: int, before: float = 0.0) -> float:
        """In how many seconds a turn of ``tokens`` may begin in the background, behind ``before`` seconds of other
        work, without a live step that waits for it (0: now)."""
        slack = self._scheduler.slack
        return LOOK if self._scheduler.live else slack.wait(slack.start_seconds(min(tokens, PIECE)) + before)

    def check_thread(self) -> None:
        """Raise :class:`SessionError` in another thread than the one that the engine works for."""
        thread = threading.current_thread()
        if self._thread is None or not self._thread.is_alive():
            self._thread = thread
            # A new thread takes over torch's number of threads when it first asks: results must not depend on it.
            torch.get_num_threads()
        if self._thread is not thread:
            raise SessionError(
                f"an engine and its sessions are for one thread, here {self._thread.name!r}; {thread.name!r} needs an "
                "engine of its own (they may share the model)"
            )

    def submit_stream(
        self,
        stream: OpenStream,
        step: StepInput,
        *,
        on_text: Callable[[str], None] | None = None,
        trace: Trace | None = None,
    ) -> StepRequest:
        """Hand in a step. Whatever can be refused is refused here, and then nothing has changed."""
        self.check_free(stream)
        submitted = time.perf_counter()
        step, ahead = self._prepared(stream, step)
        request = StepRequest(stream, step, ahead, submitted, on_text, trace)
        self._scheduler.add(request)
        return request

    def submit_question(
        self,
        stream: OpenStream,
        question: Question,
        step: StepInput | None = None,
        *,
        on_text: Callable[[str], None] | None = None,
        background: bool = False,
        since: float | None = None,
    ) -> AskRequest:
        """Hand in a question, asked in the turn of ``step`` if there is one; refused as a step is.

        ``background``: see :class:`TurnRequest`; ``since``: the moment since when it has waited for slack already.
        """
        self.check_free(stream)
        submitted, ahead = time.perf_counter(), None
        if step is not None:
            step, ahead = self._prepared(stream, step)
        request = AskRequest(
            stream,
            step,
            ahead,
            submitted,
            on_text,
            question=question,
            background=background,
            size=min(stream.planner.question_tokens(question), PIECE),
            held_since=since,
        )
        self._scheduler.add(request)
        return request

    def _prepared(self, stream: OpenStream, step: StepInput) -> tuple[StepInput, Prepared]:
        """A step that may come next, whole, and what was made of its frames."""
        planner, state, began = stream.planner, stream.state, time.perf_counter()
        planner.check(state, step)
        step = planner.merge_parts(state, step)
        ahead, shown = step.prepared, planner.select_frames(state, step.chunk)
        if isinstance(ahead, Prepared):
            planner.check_prepared(ahead, len(shown.frames))
        else:
            ahead = Prepared(planner.patcher(shown), time.perf_counter() - began)
        planner.check_patches(state, ahead.patches, len(shown.frames))
        return step, ahead

    def rewind(self, stream: OpenStream, state: StreamState) -> None:
        """Put a stream back to an earlier state whose rows are all still there."""
        stream.state = state.before_step()
        self.pool.rewind(stream.slot, state.timeline.cached)

    def run_until(self, request: TurnRequest) -> None:
        """Run everybody's work until ``request`` is done. Raises what ended it, if it failed."""
        while not request.done:
            if request not in self._scheduler:
                raise SessionError("this step was handed in to another engine")
            self.advance()
        if request.error is not None:
            raise request.error

    def check_free(self, stream: OpenStream) -> None:
        """Whether something may be handed in for a stream."""
        self.check_thread()
        if stream.closed:
            raise SessionError("this session is closed; open another one")
        if self._at_work:
            raise SessionError(AT_WORK)
        if self._scheduler.of(stream):
            raise ValueError("this session's last chunk is still under way; wait for it first")

    def encode_ahead(self, prepared: Prepared) -> Prepared:
        """See :meth:`ModelRunner.encode_ahead`."""
        return self._runner.encode_ahead(prepared)

    def cancel(self, stream: OpenStream) -> None:
        """Give up a stream's step: it stands as before; its request, if there is one, ends with an error."""
        self.check_thread()
        if stream.closed:
            raise SessionError("this session is closed; open another one")
        for request in self._scheduler.of(stream):
            self._end(request, SessionError("the step was given up"))
        stream.state.stashed = ()
        self._undo(stream)

    def _undo(self, stream: OpenStream) -> None:
        """Put a stream back where it was before the step under way."""
        before, stream.before = stream.before, None
        if before is None:
            return
        if before.evicted is None:
            self.pool.rewind(stream.slot, before.state.timeline.cached)
        else:
            self._runner.put_back(stream.slot, before.evicted, before.state.positions)
        stream.state = before.state.with_instructions_of(stream.state)

    def close_stream(self, stream: OpenStream) -> None:
        """Forget a stream that closes; what it had submitted ends with an error. Safe to call twice."""
        if stream.closed:
            return
        self.check_thread()
        for request in self._scheduler.of(stream):
            self._end(request, SessionError("the session was closed before its step had ended"))
        if not stream.closed:
            stream.closed, stream.before = True, None
            self.pool.release(stream.slot)

    def _admit(self, capacity: int) -> int:
        """A slot of at least ``capacity`` rows, for a stream that opens."""
        self._check_rows(capacity)
        slot = self.pool.acquire()
        try:
            self.reserve(capacity)
        except BaseException:
            self.pool.release(slot)
            raise
        return slot

    def reserve(self, capacity: int) -> None:
        """Make every slot at least ``capacity`` rows long."""
        self._check_rows(capacity)
        self.pool.grow(capacity)
        self._runner.warm_up()

    def _check_rows(self, capacity: int) -> None:
        if self._fixed_rows is not None and capacity > self._fixed_rows:
            raise CapacityError(f"the stream needs {capacity} rows; the engine was opened with {self._fixed_rows}")

    # A round.

    @contextmanager
    def _working(self) -> Iterator[None]:
        """A round of work; not within another one."""
        self.check_thread()
        if self._at_work:
            raise SessionError(AT_WORK)
        self._at_work = True
        try:
            yield
        except BaseException as error:
            # An interrupt is told once, by this call: whoever waits for another request is not interrupted again.
            for request in self._scheduler.all():
                self._end(request, SessionError(f"the step was ended by {type(error).__name__}"))
            raise
        finally:
            self._at_work = False

    def _each(
        self, requests: Sequence[TurnRequest], run: Callable[[Sequence[TurnRequest]], Sequence[T]]
    ) -> Iterator[tuple[TurnRequest, T]]:
        """What ``run`` gives for each of ``requests``, run as one batch, or one by one if the batch raises.

        ``run`` changes nothing but rows behind a slot's length and the length. Requests that it raises for alone fail;
        those that end while others are dealt with (a callback may close them) are left out.
        """
        requests = [request for request in requests if not request.done]
        lengths = [(request.stream.slot, self.pool.length[request.stream.slot]) for request in requests]
        results: Sequence[T] = ()
        try:
            results = run(requests) if requests else ()
        except Exception as error:
            for slot, length in lengths:
                self.pool.rewind(slot, length)
            if len(requests) > 1:
                for request in requests:
                    yield from self._each([request], run)
                return
            self._end(requests[0], error)
            return
        for request, result in zip(requests, results, strict=True):
            if not request.done:
                yield request, result

    def _start(self, requests: Sequence[TurnRequest]) -> None:
        """Evict, encode and prefill the new turns of some streams."""
        begun = [request for one in requests for request, _ in self._each([one], self._begin)]
        begun = [request for request, _ in self._each(begun, self._runner.encode)]
        logits: dict[TurnRequest, Tensor] = {}
        for group in [begun] if self._runner.batches_prefills else [[request] for request in begun]:
            for request, last in self._each(group, self._runner.prefill):
                if not self._scheduler.prefilled(request):
                    if not request.pieces:  # a part of a step has been done
                        self._end(request)
                    continue
                assert last is not None, "a whole turn has a first token"
                logits[request] = last
        for request in [one for one in logits if isinstance(one, AskRequest) and one.question.options]:
            self._weigh(request, logits.pop(request))
        # All prefills have been handed to the device before the first token is waited for.
        for request, (token, own) in self._each(
            list(logits), lambda some: self._runner.choose_first(some, [logits[one] for one in some])
        ):
            self._take(request, token, own)

    def _begin(self, requests: Sequence[TurnRequest]) -> list[None]:
        """Evict where the turn of a single request begins, and append the turn or more of it."""
        begun = time.perf_counter()
        (request,) = requests
        stream = request.stream
        eviction = self._scheduler.begin(request)
        if eviction is not None and eviction.forget:
            self.pool.rewind(stream.slot, 0)
        elif eviction is not None:
            self._runner.select(stream.slot, eviction.rows, eviction.positions, eviction.rewritten, stream.keep)
        self._scheduler.build(request)
        request.spend("evict", time.perf_counter() - begun)
        return [None]

    def _weigh(self, request: AskRequest, logits: Tensor) -> None:
        """Answer a question by the likelihood of its options."""
        try:
            options = request.stream.planner.option_tokens(request.question)
            self._scheduler.weigh(request, self._runner.weigh(request, options, logits))
            self._end(request)
        except Exception as error:
            self._end(request, error)

    def _take(self, request: TurnRequest, token: int, logits: Tensor) -> None:
        """One more token of a reply has been chosen: note it, tell its text, deliver the reply if it has ended."""
        try:
            if request.trace:
                request.trace.logits.append(logits.clone())
                request.trace.tokens.append(token)
            self._scheduler.note(request, token)
            if request.on_text and (text := self._scheduler.new_text(request, self.model.grammar)):
                request.on_text(text)
            if request.done:  # the callback has closed the session
                return
            if reason := self._scheduler.finish_reason(request):
                self._scheduler.deliver(request, reason, self.model.grammar.text(request.tokens))
                self._end(request)
        except Exception as error:
            self._end(request, error)

    def _end(self, request: TurnRequest, error: BaseException | None = None) -> None:
        """A request has ended; with an ``error`` its stream goes back to where it was before the step."""
        if request.done:
            return
        self._scheduler.end(request, error)
        if error is None:
            return
        try:
            self._undo(request.stream)
        except Exception as problem:
            error.add_note(f"its session is closed, since the stream could not be put back: {problem}")
            request.stream.closed = True
            self.pool.release(request.stream.slot)
