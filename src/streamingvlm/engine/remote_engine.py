"""Streams that a model behind an OpenAI-compatible endpoint watches, with the members of an engine.

Each call runs in a thread of its own; the engine's thread only starts calls and takes what they have brought. A stream
has one step under way. A failed step is told and not repeated: the next one is newer. What a stream has not been asked
about it has still seen: the pictures of steps that were dropped or have failed go with the next call.
"""

from __future__ import annotations

import json
import math
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..core.errors import CapacityError, EndpointError, OptionError, SessionError
from ..core.events import Answer, Commentary, Question, Rebased, StepFailed, StepInput
from .endpoint import Endpoint
from .remote import OURS, Pictures, RemoteOptions, RemoteSession
from .remote_call import Call, CallSlot, Outcome, Retreat
from .remote_prompt import check_question, most_pictures
from .remote_weigh import Weighing

if TYPE_CHECKING:  # it imports torch, which nothing else here needs
    from .snapshot import Taken

T = TypeVar("T")

#: Seconds from handing in a step to the end of its reply.
DEADLINE = 30.0
#: Seconds for which calls are not hung up while the endpoint has not answered any: a server that loads its model with
#: the first call may begin anew when that is hung up, and never end.
LOADING = 300.0
#: Seconds without a call behind the first step that has failed.
PAUSE = 1.0
#: Streams at once: each has a thread.
SLOTS = 64
#: Calls of a stream that were given up and have not ended: with so many no further one is begun.
LEFT_BEHIND = 4
#: Steps that were dropped since the last call, whose pictures are kept for the next one.
UNSEEN = 64
#: What is wrong from the first step on and will not pass.
HOPELESS = frozenset({"auth", "not_found", "refused_parameter"})
#: Number of the form of a saved stream.
FORMAT = 1


@dataclass(slots=True, eq=False)
class _Request(Generic[T]):
    """Something that is on its way to an endpoint; see :class:`streamingvlm.runtime.backend.Request`."""

    result: T | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.result is not None or self.error is not None


@dataclass(slots=True, eq=False, kw_only=True)
class RemoteRequest(_Request[Commentary | StepFailed]):
    """A step on its way."""

    step: StepInput


@dataclass(slots=True, eq=False, kw_only=True)
class RemoteQuestion(_Request[Answer]):
    """A question on its way."""

    question: Question


class RemoteEngine:
    """Streams on a model behind ``endpoint``, whoever owns that closes it. For a :class:`Runtime`, in place of an
    :class:`Engine`.

    ``options``: how streams are shown to the model; every frame of their sources counts, as these are sampled already.
    ``deadline``: seconds that a reply may take; ``slots``: streams and forks at once; ``pause``: seconds without a call
    behind a step that has failed, doubled for each further one; ``loading``: seconds for which calls that are late go
    on, for nobody, until the endpoint has answered one. A live step is tried once, since a newer one takes its place;
    others are tried again as the endpoint says.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        options: RemoteOptions = OURS,
        *,
        deadline: float = DEADLINE,
        slots: int = SLOTS,
        pause: float = PAUSE,
        loading: float = LOADING,
    ) -> None:
        if not all(math.isfinite(one) and one > 0 for one in (deadline, pause, loading)) or slots < 1:
            raise OptionError("deadline, pause and loading must be seconds above 0, slots 1 or more")
        self.endpoint, self.deadline, self.slots = endpoint, deadline, slots
        self.options = replace(options, fps=None)
        self._open: list[RemoteStream | RemoteFork] = []
        self._wake: Callable[[], None] = lambda: None
        self._pause, self._random = pause, random.Random()
        self._loading = loading
        #: Whether the endpoint has answered a call.
        self.answered = False
        self.weighing = Weighing()

    def wake_by(self, wake: Callable[[], None]) -> None:
        """See :meth:`Backend.wake_by`."""
        self._wake = wake

    def open(
        self,
        *,
        context: str = "",
        instruction: str | None = None,
        fps: float = 2.0,  # noqa: ARG002
        step: float = 1.0,  # noqa: ARG002
    ) -> RemoteStream:
        """Open a stream. ``instruction``: the standing one (None: that of the options); ``fps`` and ``step``: of the
        source, which it knows by itself. CapacityError when there is no free slot."""
        text = self.options.instruction if instruction is None else instruction
        self._check_room()
        session = RemoteSession(self.endpoint, replace(self.options, context=context, instruction=text))
        stream = RemoteStream(self, session, Retreat(self._random.random, self._pause))
        self._open.append(stream)
        return stream

    def fork(self, session: RemoteStream, *, answer_tokens: int = 0) -> RemoteFork:  # noqa: ARG002
        """What streams are asked questions by: see :class:`RemoteFork`. Tokens are the endpoint's to count."""
        self._check_room()
        fork = RemoteFork(self)
        self._open.append(fork)
        return fork

    def call(self, work: Any, *, retries: int | None, streamed: bool) -> Call[Any]:
        """Begin a call."""
        patience = None if self.answered else max(self.deadline, self._loading)
        wake = lambda: self._wake()  # noqa: E731
        return Call(work, self.deadline, retries=retries, streamed=streamed, wake=wake, patience=patience)

    def late(self) -> EndpointError:
        """What is told of a call that has taken too long."""
        reason = f"no answer within {self.deadline:g} s"
        if not self.answered:
            reason += ", nor before: it may be loading the model"
        return EndpointError(f"{self.endpoint!r}: {reason}", "timeout", reason=reason)

    @property
    def busy(self) -> bool:
        """Whether calls have brought something, or are too late. Not while they are only under way."""
        return any(one.changed for one in self._open)

    @property
    def rest(self) -> float:
        """Seconds for which :meth:`advance` has nothing to do while the engine is busy: none."""
        return 0.0

    @property
    def alarm(self) -> float | None:
        """Seconds to the next moment at which a call is too late or a pause is over (None: there is none)."""
        return min((left for one in self._open if (left := one.alarm) is not None), default=None)

    def advance(self) -> None:
        """Take what the calls have brought."""
        for one in list(self._open):
            one.advance()

    def forget(self, one: RemoteStream | RemoteFork) -> None:
        """It has closed."""
        if one in self._open:
            self._open.remove(one)

    def _check_room(self) -> None:
        if len(self._open) >= self.slots:
            raise CapacityError(f"no free slot: {self.slots} streams are open at this endpoint")


class RemoteStream:
    """One stream, as :class:`streamingvlm.runtime.backend.StreamSession` says. Made by :meth:`RemoteEngine.open`."""

    patch_frames: int | None = None
    longest_time = math.inf

    def __init__(self, engine: RemoteEngine, session: RemoteSession, retreat: Retreat) -> None:
        self._engine, self._session, self._retreat = engine, session, retreat
        self._request: RemoteRequest | None = None
        self._calls: CallSlot[Commentary] = CallSlot()
        self._fork: RemoteSession | None = None  # what the call works on
        self._shown: Pictures | None = None  # what it shows
        self._instructed: list[str] = []  # while it is under way
        self._unseen: deque[Pictures] = deque(maxlen=UNSEEN)
        self._unseen_lock = threading.Lock()
        self._succeeded = False
        self.closed = False

    @property
    def context(self) -> str:
        """See :class:`StreamSession`."""
        return self._session.options.context

    @property
    def time(self) -> float:
        """Seconds: where what was seen ends."""
        return self._session.time

    @property
    def turn(self) -> int:
        """Steps that have ended."""
        return self._session.turn

    @property
    def between_steps(self) -> bool:
        """Whether no step is under way."""
        return self._request is None

    @property
    def ready(self) -> bool:
        """Whether a step would be taken now: none is under way, no pause, not too many calls that hang."""
        hanging, answered = self._calls.settle()
        if answered:
            self._engine.answered = True
            if not self._succeeded:  # the model is loaded now
                self._retreat.passed()
        return self._request is None and self._retreat.over and hanging < LEFT_BEHIND

    @property
    def changed(self) -> bool:
        """Whether :meth:`advance` has something to do."""
        return self._calls.changed

    @property
    def alarm(self) -> float | None:
        """Seconds until it will have, or until the stream takes a step again."""
        return self._retreat.left if self._calls.free else self._calls.alarm

    def prepare(self, item: StepInput, *, encode: bool = False) -> StepInput:  # noqa: ARG002
        """``item`` with its pictures encoded."""
        return replace(item, prepared=self._session.encode(item.chunk))

    def dropped(self, step: StepInput) -> None:
        """Keep what a step shows that will not be submitted."""
        shown = step.prepared if isinstance(step.prepared, Pictures) else self._session.encode(step.chunk)
        with self._unseen_lock:
            self._unseen.append(shown)

    def submit(self, step: StepInput, *, on_text: Callable[[str], None] | None = None) -> RemoteRequest:
        """Hand in a whole step. ValueError if it does not follow the last one, SessionError if one is under way."""
        if self.closed or self._request is not None:
            raise SessionError("this stream is closed" if self.closed else "a step of this stream is under way")
        if not step.last:
            raise OptionError("a model behind an endpoint is shown whole steps")
        shown = step.prepared if isinstance(step.prepared, Pictures) else self._session.encode(step.chunk)
        self._see_unseen(shown.start)
        if shown.start < self.time - 1e-6:
            raise ValueError(f"a chunk from {shown.start:g} s cannot follow one that ended at {self.time:g} s")
        self._request, self._shown = RemoteRequest(step=step), shown
        self._fork, self._instructed = self._session.fork(), []
        work = partial(self._fork.step, replace(step, prepared=shown))
        retries = None if step.arrival.due is None else 0
        self._calls.begin(self._engine.call(work, retries=retries, streamed=on_text is not None), on_text)
        return self._request

    def instruct(self, text: str) -> int:
        """Replace the standing instruction, from the next step that is submitted on; its version."""
        version = self._session.instruct(text)
        self._instructed.append(text)
        return version

    def check_instruction(self, text: str) -> None:
        """Raise what :meth:`instruct` would raise."""
        self._session.check_instruction(text)

    def check_question(self, question: Question, answer_tokens: int) -> int:  # noqa: ARG002
        """OptionError for what a model behind an endpoint cannot be asked; 0: nothing is reserved for questions."""
        check_question(question)
        return 0

    def copy(self) -> RemoteSession:
        """A session that stands where this one does between two steps, and has seen what was seen since."""
        self._see_unseen(math.inf if self._shown is None else self._shown.start)
        session = self._session.fork()
        if self._shown is not None:
            session.see(self._shown)
        return session

    def advance(self) -> None:
        """Take what the call has brought."""
        request = self._request
        if request is None or (outcome := self._calls.take()) is None:
            return
        if outcome.late:
            self._fail(request, self._engine.late())
        else:
            self._end(request, outcome)

    def shown_time(self, time: float) -> float:
        """Second ``time`` of the stream: the model is told the true one."""
        return time

    def rebase(self, shown: float, at: float | None = None) -> Rebased:  # noqa: ARG002
        """OptionError: there are no time stamps that a model was trained on."""
        raise OptionError("the times that a model behind an endpoint is told need no rebase, and have none")

    @property
    def version(self) -> int:
        """Of the newest instruction."""
        return self._session.version

    def take(self, extra: Mapping[str, Any] | None = None) -> Taken:
        """See :meth:`Session.take`; the pictures are left out."""
        from .snapshot import REMOTE, Taken

        record = {
            REMOTE: FORMAT,
            "model": self._engine.endpoint.model,
            "time": self.time,
            "state": self._session.state(),
            "extra": json.loads(json.dumps(dict(extra or {}), allow_nan=False)),
        }
        return Taken({}, record)

    def save(self, path: Path) -> None:
        """Write the stream as it is between two steps, without its pictures."""
        from .snapshot import write

        write(path, self.take())

    def restore(self, path: Path) -> Path:
        """Take up a saved stream. It keeps its words and its instruction; its pictures are gone.

        SnapshotError for a file that is no snapshot of a stream of an endpoint.
        """
        from .snapshot import REMOTE, SnapshotError, read_record

        record, taken = read_record(path)
        if record.get(REMOTE) != FORMAT or not isinstance(record.get("state"), dict):
            raise SnapshotError(f"{taken} is not of a stream that a model behind an endpoint watched")
        session = RemoteSession(self._engine.endpoint, self._session.options, state=record["state"])
        session.forget_pictures()
        self._session = session
        return taken

    def abandon(self) -> None:
        """Give up the step that is under way: the stream stands as before it."""
        if not self._calls.free:
            self._calls.give_up()
            self._settle(SessionError("the step was given up"))

    def close(self) -> None:
        """Nothing follows; a step under way ends with an error. Never waits."""
        if not self.closed:
            self.abandon()
            self.closed = True
            self._session.close()
            self._engine.forget(self)

    def _see_unseen(self, until: float) -> None:
        """See what was dropped before ``until`` seconds."""
        with self._unseen_lock:
            while self._unseen and self._unseen[0].start < until - 1e-6:
                shown = self._unseen.popleft()
                if shown.start >= self._session.time - 1e-6:
                    self._session.see(shown)

    def _end(self, request: RemoteRequest, outcome: Outcome[Commentary]) -> None:
        if isinstance(outcome.error, EndpointError):
            self._fail(request, outcome.error)
        elif outcome.error is not None:
            self._settle(outcome.error)
        else:
            assert self._fork is not None, "a call works on a copy"
            for text in self._instructed:  # they came while the model was looking
                self._fork.instruct(text)
            self._session = self._fork
            self._succeeded = self._engine.answered = True
            self._retreat.passed()
            self._settle(outcome.result)

    def _fail(self, request: RemoteRequest, error: EndpointError) -> None:
        """There are no words for a step: tell so, and keep what it showed."""
        if error.kind in HOPELESS and not self._succeeded:
            self._settle(error)
            return
        fewer = self._show_fewer(error)
        if self._shown is not None:
            self._session.see(self._shown)
        wait = 0.0
        if fewer or error.kind == "no_text":  # it answers, and declines
            self._retreat.passed()
        else:
            wait = self._retreat.failed(error.after)
        chunk, reason = request.step.chunk, " ".join(str(error).split()) + fewer
        dropped, tries = request.step.arrival.dropped, max(self._retreat.failures, 1)
        self._settle(StepFailed(chunk.start, chunk.end, error.kind, reason, dropped, wait, tries))

    def _show_fewer(self, error: EndpointError) -> str:
        """Show as many pictures as the server takes, where it says that they were too many; what is told of that."""
        if error.kind not in {"bad_request", "server"} or self._fork is None:
            return ""
        most = most_pictures(error.reason, self._fork.pictures)
        if most is None:
            return ""
        self._session.options = replace(self._session.options, frames=most)
        return f"; from now on a call shows {most} pictures at most"

    def _settle(self, outcome: Commentary | StepFailed | BaseException | None) -> None:
        request = self._request
        self._request = self._fork = self._shown = None
        self._instructed = []
        if request is None:
            return
        if isinstance(outcome, Commentary | StepFailed):
            request.result = outcome
        else:
            request.error = outcome or SessionError("the call has ended without a result")


class RemoteFork:
    """Asks streams questions, one at a time, while their steps go on; with the members of a :class:`Fork`.

    A stream is asked as it stands: behind its last whole step, with all pictures that came since.
    """

    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine
        self._session: RemoteSession | None = None
        self._request: RemoteQuestion | None = None
        self._calls: CallSlot[Answer] = CallSlot()
        self.closed = False

    def widen(self, session: RemoteStream) -> None:
        """Every stream fits."""

    def wait(self, question: Question, waited: float) -> float:  # noqa: ARG002
        """Seconds until a question may be asked without a live step that waits for it: none ever does."""
        return 0.0

    def check(self, question: Question, session: RemoteStream | None = None) -> None:  # noqa: ARG002
        """OptionError for what a model behind an endpoint cannot be asked."""
        check_question(question)

    def take(self, session: RemoteStream) -> None:
        """Become ``session`` as it stands."""
        if self.closed or session.closed:
            raise SessionError("a stream that is closed cannot be asked")
        self._session = session.copy()

    def submit(
        self,
        question: Question,
        step: None = None,  # noqa: ARG002
        on_text: Callable[[str], None] | None = None,
        *,
        background: bool = True,  # noqa: ARG002
        since: float | None = None,  # noqa: ARG002
    ) -> RemoteQuestion:
        """Ask the stream that was taken; one question is under way at a time."""
        if self._session is None or self.closed or not self._calls.free:
            raise SessionError("take a stream before a question is asked; one is asked at a time")
        check_question(question)
        if self._calls.settle()[0] >= LEFT_BEHIND:
            reason = f"{LEFT_BEHIND} calls hang already"
            raise EndpointError(f"{self._engine.endpoint!r}: {reason}", "timeout", reason=reason)
        self._request = RemoteQuestion(question=question)
        work = partial(self._session.fork().answer, question, weighing=self._engine.weighing)
        self._calls.begin(self._engine.call(work, retries=None, streamed=on_text is not None), on_text)
        return self._request

    @property
    def changed(self) -> bool:
        """Whether :meth:`advance` has something to do."""
        return self._calls.changed

    @property
    def alarm(self) -> float | None:
        """Seconds until it will have."""
        return self._calls.alarm

    def advance(self) -> None:
        """Take what the call has brought."""
        request = self._request
        if request is None or (outcome := self._calls.take()) is None:
            return
        self._request = None
        if outcome.late:
            request.error = self._engine.late()
        else:
            request.result, request.error = outcome.result, outcome.error
            self._engine.answered |= outcome.error is None

    def cancel(self) -> None:
        """Give up the question that is under way, if there is one: its request ends with an error."""
        self._calls.give_up()
        if self._request is not None:
            self._request.error = SessionError("the question was given up")
        self._request = None

    def close(self) -> None:
        """Nothing follows. Never waits; safe to call twice."""
        self.cancel()
        self.closed, self._session = True, None
        self._engine.forget(self)
