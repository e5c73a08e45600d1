"""Questions to streams that run: they are asked in a spare slot, and the streams do not notice.

A question waits for the next moment between two steps of its stream. There the stream is copied into the spare slot;
question and answer are worked on in the slack between everybody's live steps (:mod:`streamingvlm.engine.slack`), while
the stream goes on. One copy is asked at a time: people's questions in the order in which they came, then rules'.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ..core.errors import CapacityError, OptionError, SessionError, StreamingVLMError
from ..core.events import Answer, AnswerDelta, Answered, Asked, Question
from .backend import AskRequest, Backend, Fork, StreamSession
from .limits import ANSWER_SECONDS, ANSWER_TOKENS, QUESTIONS, WEIGHINGS
from .pipeline import Pipeline

T = TypeVar("T")

#: What became of a batch of questions, in their order: the answer, or why there is none.
Replies = Sequence[Answer | StreamingVLMError]

NO_ROOM = (
    "questions need a spare slot: open the runtime with Runtime(engine, questions=True), and its engine with one slot "
    "more than it has streams"
)
ENDED = "the stream has ended"
CANCELLED = "the question was cancelled"
TOO_LATE = f"too late: there was no answer within {ANSWER_SECONDS:g} s"
#: Seconds after which the engine's thread looks again while questions wait.
LOOK = 0.02


class Asker(Protocol):
    """Asks the stream of a pipeline on the engine's thread. Rules are built on it."""

    def weigh(self, pipeline: Pipeline, questions: Sequence[Question], done: Callable[[Replies], None]) -> None:
        """Ask all ``questions`` of the stream as it stands at its next moment between two steps, on one copy of it.

        Questions of people come first. ``done`` is called on the engine's thread, in any case, once. Never waits.
        """
        ...


class EngineThread(Protocol):
    """The thread that an engine belongs to."""

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` there; :class:`SessionError` if it has ended."""
        ...

    def check_waits(self) -> None:
        """Raise :class:`SessionError` if this is that thread: it cannot wait for itself."""
        ...


class Ask:
    """A question that was taken on, for any thread: iterate over the text as it comes, or wait for the result.

    ``number``: of the question, counting from 1 in its stream.
    """

    def __init__(self, thread: EngineThread, cancel: Callable[[Ask], None], number: int, question: Question) -> None:
        self.number, self.question = number, question
        self._thread, self._cancel = thread, cancel
        self._changed = threading.Condition()
        self._pieces: list[str] = []
        self._answer: Answer | None = None
        self._error: StreamingVLMError | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._answer is not None or self._error is not None

    def result(self, timeout: float | None = None) -> Answer:
        """The answer, as soon as it is whole.

        Raises why there is none: :class:`SessionError` where it was cancelled, came too late, or its stream has ended;
        what the engine raised; TimeoutError if ``timeout`` seconds pass first.
        """
        if not self.done:
            self._thread.check_waits()
        with self._changed:
            if not self._changed.wait_for(lambda: self.done, timeout):
                raise TimeoutError(f"no answer within {timeout:g} s")
        if self._error is not None:
            raise self._error
        assert self._answer is not None, "it has ended"
        return self._answer

    def cancel(self) -> None:
        """Give the question up; nothing happens if it has ended. Safe to call at any moment, from any thread."""
        if not self.done:
            try:
                self._thread.call(lambda: self._cancel(self))
            except SessionError:  # the thread has ended, and with it all its questions
                return

    def __iter__(self) -> Iterator[str]:
        """The pieces of the answer as they come; raises what :meth:`result` raises, behind the last one."""
        place = 0
        while True:
            if not self.done:
                self._thread.check_waits()
            with self._changed:
                self._changed.wait_for(lambda at=place: self.done or len(self._pieces) > at)  # type: ignore[misc]
                pieces = self._pieces[place:]
            place += len(pieces)
            yield from pieces
            if not pieces and self.done:
                self.result()
                return

    def add(self, text: str) -> None:
        """More text has come; called by the runtime."""
        with self._changed:
            self._pieces.append(text)
            self._changed.notify_all()

    def end(self, reply: Answer | StreamingVLMError) -> None:
        """It has ended; called by the runtime."""
        with self._changed:
            if isinstance(reply, Answer):
                self._answer = reply
            else:
                self._error = reply
            self._changed.notify_all()


@dataclass(slots=True, eq=False)
class _Inquiry:
    """Questions that are asked on one copy of a stream. ``handle``: of a person's question; ``asked``: when."""

    pipeline: Pipeline
    questions: tuple[Question, ...]
    done: Callable[[Replies], None]
    asked: float
    handle: Ask | None = None
    on_text: Callable[[str], None] | None = None
    replies: list[Answer | StreamingVLMError] = field(default_factory=list)
    ended: bool = False


class Talk:
    """Asks streams of a runtime questions, on the engine's thread; it implements :class:`Asker`.

    ``enabled``: whether a slot of the engine is kept for it, from the first stream on. ``clock``: seconds.
    """

    def __init__(
        self,
        engine: Backend,
        thread: EngineThread,
        *,
        enabled: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if enabled and engine.slots < 2:
            raise OptionError("questions need a spare slot: open the engine with 2 slots or more, not 1")
        self.enabled = enabled
        self._engine, self._thread, self.clock = engine, thread, clock
        self._fork: Fork | None = None
        self._people: deque[_Inquiry] = deque()
        self._rules: deque[_Inquiry] = deque()
        self._current: _Inquiry | None = None
        self._request: AskRequest | None = None
        self._pieces: list[str] = []
        #: Ended before they were asked; whoever asked is not called back within the call.
        self._refused: deque[tuple[_Inquiry, StreamingVLMError]] = deque()

    # What streams and rules ask for.

    def admit(self, session: StreamSession) -> None:
        """Keep room for questions to a stream that opens. :class:`CapacityError` if there is none."""
        if not self.enabled:
            return
        if self._fork is None or self._fork.closed:
            self._fork = self._open(session)
        else:
            self._fork.widen(session)

    def watch(self, pipeline: Pipeline) -> None:
        """The stream of ``pipeline`` begins: its questions end with it."""
        pipeline.add_companion(_Ending(self, pipeline))

    def ask(self, pipeline: Pipeline, question: Question, on_text: Callable[[str], None] | None = None) -> Ask:
        """See :meth:`Stream.ask`."""
        if self._fork is None or not self.enabled:
            raise CapacityError(NO_ROOM)
        if pipeline.ended:
            raise SessionError(f"{ENDED}; there is nothing to ask")
        if not question.text.strip():
            raise OptionError("a question needs words")
        self._fork.check(question, pipeline.session)
        if sum(one.pipeline is pipeline for one in self._all() if one.handle is not None) >= QUESTIONS:
            raise CapacityError(f"{QUESTIONS} questions to this stream wait already; ask again when one is answered")
        pipeline.numbering.asked += 1
        handle = Ask(self._thread, self._cancel, pipeline.numbering.asked, question)
        inquiry = _Inquiry(pipeline, (question,), lambda _: None, self.clock(), handle, on_text)
        self._people.append(inquiry)
        pipeline.tell(Asked(handle.number, question.text, pipeline.session.time))
        return handle

    def weigh(self, pipeline: Pipeline, questions: Sequence[Question], done: Callable[[Replies], None]) -> None:
        """See :meth:`Asker.weigh`. At most ``WEIGHINGS`` wait for each stream; ``done`` is told why more are refused.

        ``done`` is never called within this call. What it raises ends the stream.
        """
        inquiry = _Inquiry(pipeline, tuple(questions), done, self.clock())
        if self._fork is None or not self.enabled:
            self._refused.append((inquiry, CapacityError(NO_ROOM)))
        elif pipeline.ended:
            self._refused.append((inquiry, SessionError(ENDED)))
        elif sum(one.pipeline is pipeline for one in self._all() if one.handle is None) >= WEIGHINGS:
            self._refused.append((inquiry, CapacityError(f"{WEIGHINGS} batches of questions wait already")))
        else:
            self._rules.append(inquiry)

    # The engine's thread, in every turn of its loop.

    @property
    def rest(self) -> float | None:
        """Seconds until :meth:`begin` is to be called again, if nothing else happens (None: nothing waits)."""
        return LOOK if self._refused or self._all() else None

    def begin(self) -> None:
        """Before steps are handed in: end what is too late, and ask what can be asked now."""
        self._tell_refused()
        now = self.clock()
        for inquiry in self._all():
            if now - inquiry.asked >= ANSWER_SECONDS:
                self._end(inquiry, SessionError(TOO_LATE))
        if self._current is None and (ready := self._next(now)) is not None:
            self._start(ready)

    def settle(self) -> None:
        """Behind a round: tell the text that has come, and go on where an answer has ended."""
        inquiry, request = self._current, self._request
        if inquiry is None or request is None:
            return
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces.clear()
            self._tell(inquiry, text)
        if request.done and not inquiry.ended:
            self._request = None
            reply = request.result if request.error is None else _as_error(request.error)
            assert reply is not None, "a question that went well has an answer"
            inquiry.replies.append(reply)
            self._go_on(inquiry)

    def forget(self, pipeline: Pipeline) -> None:
        """A stream has ended: its questions end with it."""
        for inquiry in [one for one in self._all() if one.pipeline is pipeline]:
            self._end(inquiry, SessionError(ENDED))

    def close(self) -> None:
        """The runtime ends."""
        self._tell_refused()
        for inquiry in self._all():
            self._end(inquiry, SessionError(ENDED))
        if self._fork is not None and not self._fork.closed:
            self._fork.close()

    # One inquiry, in the order in which it goes.

    def _tell_refused(self) -> None:
        """Those that are there now: whoever is called back may ask again, and be refused again."""
        for _ in range(len(self._refused)):
            self._end(*self._refused.popleft())

    def _all(self) -> list[_Inquiry]:
        return [*([self._current] if self._current is not None else []), *self._people, *self._rules]

    def _next(self, now: float) -> _Inquiry | None:
        """The first whose stream is between two steps; where live steps would wait for it, it waits for a while."""
        assert self._fork is not None or not self._all(), "nothing is taken on without a slot"
        for inquiry in [*self._people, *self._rules]:
            if not inquiry.pipeline.between_steps:
                continue
            if not inquiry.questions or self._fork is None or self._fork.closed:
                return inquiry
            if not self._fork.wait(inquiry.questions[0], now - inquiry.asked):
                return inquiry
        return None

    def _start(self, inquiry: _Inquiry) -> None:
        """Copy the stream and ask the first question."""
        (self._people if inquiry.handle is not None else self._rules).remove(inquiry)
        self._current = inquiry
        try:
            if self._fork is None or self._fork.closed:  # a fault has taken the slot
                self._fork = self._open(inquiry.pipeline.session)
            self._fork.widen(inquiry.pipeline.session)
            self._fork.take(inquiry.pipeline.session)
        except Exception as error:
            self._end(inquiry, _as_error(error))
            return
        self._go_on(inquiry)

    def _go_on(self, inquiry: _Inquiry) -> None:
        """Ask the next question of an inquiry, or end it behind the last."""
        while len(inquiry.replies) < len(inquiry.questions):
            question = inquiry.questions[len(inquiry.replies)]
            self._pieces.clear()
            on_text = self._pieces.append if inquiry.handle is not None else None
            since = None if inquiry.replies else inquiry.asked
            try:
                assert self._fork is not None, "a stream was taken"
                self._request = self._fork.submit(question, on_text=on_text, background=True, since=since)
            except Exception as error:
                inquiry.replies.append(_as_error(error))
            else:
                return
        self._end(inquiry)

    def _tell(self, inquiry: _Inquiry, text: str) -> None:
        assert inquiry.handle is not None, "rules take no text"
        inquiry.handle.add(text)
        inquiry.pipeline.tell(AnswerDelta(inquiry.handle.number, text))
        if inquiry.on_text is None or inquiry.ended:
            return
        try:
            inquiry.on_text(text)
        except BaseException as error:  # no wish to exit ends the thread that all streams are on
            self._end(inquiry, _as_error(error))

    def _cancel(self, handle: Ask) -> None:
        for inquiry in self._all():
            if inquiry.handle is handle:
                self._end(inquiry, SessionError(CANCELLED))

    def _end(self, inquiry: _Inquiry, error: StreamingVLMError | None = None) -> None:
        """An inquiry has ended; ``error``: what is told of questions without a reply."""
        if inquiry.ended:
            return
        inquiry.ended = True
        for queue in (self._people, self._rules):
            if inquiry in queue:
                queue.remove(inquiry)
        if inquiry is self._current:
            self._current = self._request = None
            if self._fork is not None:
                self._fork.cancel()
        replies = list(inquiry.replies)
        while len(replies) < len(inquiry.questions):
            assert error is not None, "every question has a reply at the end"
            replies.append(error)
        if inquiry.handle is None:
            self._call_back(inquiry, replies)
        else:
            self._answer(inquiry, inquiry.handle, replies[0])

    def _call_back(self, inquiry: _Inquiry, replies: Replies) -> None:
        try:
            inquiry.done(replies)
        except BaseException as problem:
            inquiry.pipeline.finish(problem)

    def _answer(self, inquiry: _Inquiry, handle: Ask, reply: Answer | StreamingVLMError) -> None:
        answer, why = (reply, "") if isinstance(reply, Answer) else (None, str(reply))
        inquiry.pipeline.tell(Answered(handle.number, answer, why))
        handle.end(reply)

    def _open(self, session: StreamSession) -> Fork:
        try:
            return self._engine.fork(session, answer_tokens=ANSWER_TOKENS)
        except CapacityError as error:
            raise CapacityError(f"no room for questions: {error}") from error


class _Ending:
    """Ends the questions of a stream with it."""

    def __init__(self, talk: Talk, pipeline: Pipeline) -> None:
        self._talk, self._pipeline = talk, pipeline

    def between(self, pipeline: Pipeline) -> None:
        """See :meth:`Companion.between`."""

    def close(self) -> None:
        """See :meth:`Companion.close`."""
        self._talk.forget(self._pipeline)


def to_question(question: str | Question) -> Question:
    """``question`` with its bounds: an answer of at most ``ANSWER_TOKENS`` where only a text is given."""
    return question if isinstance(question, Question) else Question(question, max_new_tokens=ANSWER_TOKENS)


def _as_error(error: BaseException) -> StreamingVLMError:
    """What is told of a question that has failed, as one line."""
    if isinstance(error, StreamingVLMError):
        return error
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return SessionError(f"the question has failed: {line}")
