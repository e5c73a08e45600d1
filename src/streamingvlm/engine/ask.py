"""Questions that disturb nothing: a stream is copied into a spare slot, asked there, and the copy is dropped.

The stream itself never sees the question: its text, positions and rows stay as they are, to the last bit. A question is
asked in a turn of its own behind the last reply, or in the turn of the step that comes next, behind its video.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Protocol

from ..core.errors import CapacityError, SessionError
from ..core.events import Answer, Chunk, Question, StepInput
from ..core.sampling_params import Sampling
from .planner import StepPlanner
from .request import AskRequest
from .session import EnginePort, Session
from .slack import PATIENCE
from .state import StreamState
from .stream import OpenStream

#: Answers are greedy and as the model would give them.
ANSWER_SAMPLING = Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=64)


class ForkPort(EnginePort, Protocol):
    """What a fork asks its engine for."""

    def open_planned(self, planner: StepPlanner) -> OpenStream: ...
    def submit_question(
        self,
        stream: OpenStream,
        question: Question,
        step: StepInput | None = None,
        *,
        on_text: Callable[[str], None] | None = None,
        background: bool = False,
        since: float | None = None,
    ) -> AskRequest: ...
    def rewind(self, stream: OpenStream, state: StreamState) -> None: ...
    def reserve(self, capacity: int) -> None: ...
    def background_wait(self, tokens: int, before: float = 0.0) -> float: ...


class Fork:
    """A slot in which streams are asked questions. Made by :meth:`Engine.fork`; ``with`` gives the slot back.

    :meth:`take` copies a stream between two of its steps; then any number of questions are asked of it, each as if it
    were the only one. The copy of the rows and what stands before the questions is shared by all of them. Like its
    engine it is for one thread.
    """

    def __init__(self, engine: ForkPort, like: Session, question_tokens: int, sampling: Sampling) -> None:
        if not like.belongs_to(engine):
            raise SessionError("a stream of another engine cannot be asked here: its rows are in another pool")
        self._engine = engine
        self._question_tokens, self._sampling = question_tokens, sampling
        self._stream = engine.open_planned(like.stream.planner.for_questions(question_tokens, sampling))
        self._capacity = self._stream.planner.capacity
        self._base: StreamState | None = None
        self._taken: Session | None = None
        #: Whether rows of the base were evicted by a question that was asked with a step.
        self._stale = False
        #: Seconds that the last copy has taken.
        self._copy_seconds = 0.0

    def widen(self, session: Session) -> None:
        """Make room for a stream that is larger than the one that the fork was opened for, at any time between rounds.

        Raises :class:`CapacityError` if that cannot be; the fork is then as it was.
        """
        planner = session.stream.planner.for_questions(self._question_tokens, self._sampling)
        if planner.capacity > self._capacity:
            self._engine.reserve(planner.capacity)
            self._capacity = planner.capacity

    def take(self, session: Session) -> None:
        """Become the stream that ``session`` is between two steps.

        Raises :class:`SessionError` within a step and for a stream of another engine, :class:`CapacityError` for one
        that may hold more than the stream that the fork was opened for.
        """
        if not session.belongs_to(self._engine):
            raise SessionError("a stream of another engine cannot be asked here: its rows are in another pool")
        self._engine.check_free(session.stream)
        self._engine.check_free(self._stream)
        if not session.state.between_steps:
            raise SessionError("a stream is asked between two steps")
        planner = session.stream.planner.for_questions(self._question_tokens, self._sampling)
        if planner.capacity > self._capacity:
            raise CapacityError(
                f"the stream may need {planner.capacity} rows in a fork, which was opened for {self._capacity}; "
                "open it for the largest stream that will be asked"
            )
        self._stream.planner = planner
        self._taken, self._base = session, session.state.before_step()
        self._copy()

    def ask(
        self, question: Question, step: Chunk | StepInput | None = None, on_text: Callable[[str], None] | None = None
    ) -> Answer:
        """Ask the stream that was taken, and wait for the answer; see :meth:`submit`."""
        request = self.submit(question, step, on_text)
        self._engine.run_until(request)
        assert request.result is not None, "a question has an answer"
        return request.result

    def submit(
        self,
        question: Question,
        step: Chunk | StepInput | None = None,
        on_text: Callable[[str], None] | None = None,
        *,
        background: bool = False,
        since: float | None = None,
    ) -> AskRequest:
        """Hand in a question; its answer is decoded in one batch with whatever else the engine has to do.

        ``step``: the one that comes next: the question is asked in its turn, behind its video, in place of an
        instruction (None: in a turn without video, behind the last reply). One question is under way at a time.
        ``background``: it is worked on in the slack between live steps; ``since``: the moment
        (``time.perf_counter()``) since when it has waited for that already.
        Raises :class:`CapacityError` for a question over its budget, and what :meth:`Session.step` raises.
        """
        if self._base is None:
            raise SessionError("take a stream before a question is asked")
        self.check(question)
        self._engine.check_free(self._stream)
        if self._stale:
            self._copy()
        else:
            self._engine.rewind(self._stream, self._base)
        whole = None if step is None else replace(StepInput.of(step), last=True)
        self._stale = whole is not None
        return self._engine.submit_question(
            self._stream, question, whole, on_text=on_text, background=background, since=since
        )

    def wait(self, question: Question, waited: float) -> float:
        """In how many seconds a stream can be taken and asked without a live step that waits for it (0: now).

        ``waited``: seconds that the question has waited; behind ``slack.PATIENCE`` it waits no longer.
        """
        if waited > PATIENCE:
            return 0.0
        return self._engine.background_wait(self._stream.planner.question_tokens(question), self._copy_seconds)

    def cancel(self) -> None:
        """Give up the question that is under way, if there is one: its request ends with an error."""
        if not self.closed:
            self._engine.cancel(self._stream)

    @property
    def closed(self) -> bool:
        """Whether the slot was given back: by :meth:`close`, or since a fault could not be undone."""
        return self._stream.closed

    def close(self) -> None:
        """Give the slot back; a question that is under way ends with an error. Safe to call twice."""
        self._base = self._taken = None
        self._engine.close_stream(self._stream)

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _copy(self) -> None:
        """Take the rows and the state of the base."""
        assert self._taken is not None, "a stream was taken"
        assert self._base is not None, "with its state"
        if self._taken.closed or self._taken.state.timeline.spans != self._base.timeline.spans:
            raise SessionError("the stream has gone on since it was taken; take it again")
        began = time.perf_counter()
        self._stream.state = self._base.before_step()
        self._engine.pool.copy(self._taken.stream.slot, self._stream.slot)
        self._stale, self._copy_seconds = False, time.perf_counter() - began

    def check(self, question: Question, session: Session | None = None) -> None:
        """Raise what :meth:`submit` raises for a question that ``session`` cannot be asked (None: who was taken)."""
        planner = self._stream.planner if session is None else session.stream.planner
        planner.check_question(question, self._question_tokens, self._stream.options.sampling.max_new_tokens)
