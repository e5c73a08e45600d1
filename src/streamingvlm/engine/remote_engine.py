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
from typing import TYPE_CHECKING, Any

from ..core.errors import CapacityError, EndpointError, OptionError, SessionError
from ..core.events import Answer, Commentary, Question, Rebased, StepFailed, StepInput
from .endpoint import Endpoint
from .remote import OURS, Pictures, RemoteOptions, RemoteSession
from .remote_call import Call, Retreat
from .remote_prompt import check_question

if TYPE_CHECKING:  # it imports torch, which nothing else here needs
    from .snapshot import Taken

#: Seconds from handing in a step to the end of its reply.
DEADLINE = 30.0
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
class RemoteRequest:
    """A step on its way; see :class:`streamingvlm.runtime.backend.Request`."""

    step: StepInput
    on_text: Callable[[str], None] | None = None
    result: Commentary | StepFailed | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.result is not None or self.error is not None


@dataclass(slots=True, eq=False)
class RemoteQuestion:
    """A question on its way."""

    question: Question
    on_text: Callable[[str], None] | None = None
    result: Answer | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.result is not None or self.error is not None


class RemoteEngine:
    """Streams on a model behind ``endpoint``, whoever owns that closes it. For a :class:`Runtime`, in place of an
    :class:`Engine`.

    ``options``: how streams are shown to the model; every frame of their sources counts, as these are sampled already.
    ``deadline``: seconds that a reply may take; ``slots``: streams and forks at once; ``pause``: seconds without a call
    behind a step that has failed, doubled for each further one. A live step is tried once, since a newer one takes its
    place; others are tried again as the endpoint says.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        options: RemoteOptions = OURS,
        *,
        deadline: float = DEADLINE,
        slots: int = SLOTS,
        pause: float = PAUSE,
    ) -> None:
        if not all(math.isfinite(one) and one > 0 for one in (deadline, pause)) or slots < 1:
            raise OptionError("deadline and pause must be seconds above 0, slots 1 or more")
        self.endpoint, self.deadline, self.slots = endpoint, deadline, slots
        self.options = replace(options, fps=None)
        self._open: list[RemoteStream | RemoteFork] = []
        self._wake: Callable[[], None] = lambda: None
        self._pause, self._random = pause, random.Random()

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
        return Call(work, self.deadline, retries=retries, streamed=streamed, wake=lambda: self._wake())

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
        self._call: Call[Commentary] | None = None
        self._fork: RemoteSession | None = None  # what the call works on
        self._shown: Pictures | None = None  # what it shows
        self._instructed: list[str] = []  # while it is under way
        self._left: list[Call[Commentary]] = []
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
        self._left = [call for call in self._left if not call.ended]
        return self._request is None and self._retreat.over and len(self._left) < LEFT_BEHIND

    @property
    def changed(self) -> bool:
        """Whether :meth:`advance` has something to do."""
        return self._call is not None and self._call.changed

    @property
    def alarm(self) -> float | None:
        """Seconds until it will have, or until the stream takes a step again."""
        return self._retreat.left if self._call is None else self._call.limit.left

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
        self._request, self._shown = RemoteRequest(step, on_text), shown
        self._fork, self._instructed = self._session.fork(), []
        work = partial(self._fork.step, replace(step, prepared=shown))
        retries = None if step.arrival.due is None else 0
        self._call = self._engine.call(work, retries=retries, streamed=on_text is not None)
        return self._request

    def instruct(self, text: str) -> int:
        """Replace the standing instruction, from the next step that is submitted on; its version."""
        version = self._session.instruct(text)
        self._instructed.append(text)
        return version

    def check_instruction(self, text: str) -> None:
        """Raise what :meth:`instruct` would raise."""
        self._session.check_instruction(text)

    def copy(self) -> RemoteSession:
        """A session that stands where this one does between two steps, and has seen what was seen since."""
        self._see_unseen(math.inf if self._shown is None else self._shown.start)
        session = self._session.fork()
        if self._shown is not None:
            session.see(self._shown)
        return session

    def advance(self) -> None:
        """Take what the call has brought."""
        call, request = self._call, self._request
        if call is None or request is None:
            return
        ended = call.ended  # asked first: no text comes behind it
        if (text := call.take_text()) and request.on_text is not None:
            request.on_text(text)
        if ended:
            self._end(request, call)
        elif call.late:
            self._leave(call)
            reason = f"no answer within {self._engine.deadline:g} s"
            self._fail(request, EndpointError(f"{self._engine.endpoint!r}: {reason}", "timeout", reason=reason))

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
        if self._call is not None:
            self._leave(self._call)
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

    def _leave(self, call: Call[Commentary]) -> None:
        call.give_up()
        self._left.append(call)

    def _end(self, request: RemoteRequest, call: Call[Commentary]) -> None:
        if isinstance(call.error, EndpointError):
            self._fail(request, call.error)
        elif call.error is not None:
            self._settle(call.error)
        else:
            assert self._fork is not None, "a call works on a copy"
            for text in self._instructed:  # they came while the model was looking
                self._fork.instruct(text)
            self._session = self._fork
            self._succeeded = True
            self._retreat.passed()
            self._settle(call.result)

    def _fail(self, request: RemoteRequest, error: EndpointError) -> None:
        """There are no words for a step: tell so, and keep what it showed."""
        if error.kind in HOPELESS and not self._succeeded:
            self._settle(error)
            return
        if self._shown is not None:
            self._session.see(self._shown)
        wait = 0.0
        if error.kind == "no_text":  # it answers, and declines
            self._retreat.passed()
        else:
            wait = self._retreat.failed(error.after)
        chunk, reason = request.step.chunk, " ".join(str(error).split())
        dropped, tries = request.step.arrival.dropped, max(self._retreat.failures, 1)
        self._settle(StepFailed(chunk.start, chunk.end, error.kind, reason, dropped, wait, tries))

    def _settle(self, outcome: Commentary | StepFailed | BaseException | None) -> None:
        request = self._request
        self._call = self._request = self._fork = self._shown = None
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
        self._call: Call[Answer] | None = None
        self._left: list[Call[Answer]] = []
        self.closed = False

    def widen(self, session: RemoteStream) -> None:
        """Every stream fits."""

    def wait(self, question: Question) -> float:  # noqa: ARG002
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
        if self._session is None or self.closed or self._call is not None:
            raise SessionError("take a stream before a question is asked; one is asked at a time")
        check_question(question)
        self._left = [call for call in self._left if not call.ended]
        if len(self._left) >= LEFT_BEHIND:
            reason = f"{LEFT_BEHIND} calls hang already"
            raise EndpointError(f"{self._engine.endpoint!r}: {reason}", "timeout", reason=reason)
        self._request = RemoteQuestion(question, on_text)
        work = partial(self._session.fork().answer, question)
        self._call = self._engine.call(work, retries=None, streamed=on_text is not None)
        return self._request

    @property
    def changed(self) -> bool:
        """Whether :meth:`advance` has something to do."""
        return self._call is not None and self._call.changed

    @property
    def alarm(self) -> float | None:
        """Seconds until it will have."""
        return None if self._call is None else self._call.limit.left

    def advance(self) -> None:
        """Take what the call has brought."""
        call, request = self._call, self._request
        if call is None or request is None:
            return
        ended = call.ended
        if (text := call.take_text()) and request.on_text is not None:
            request.on_text(text)
        if ended:
            self._call, self._request = None, None
            request.result, request.error = call.result, call.error
        elif call.late:
            reason = f"no answer within {self._engine.deadline:g} s"
            self._give_up(EndpointError(f"{self._engine.endpoint!r}: {reason}", "timeout", reason=reason))

    def cancel(self) -> None:
        """Give up the question that is under way, if there is one: its request ends with an error."""
        self._give_up(SessionError("the question was given up"))

    def close(self) -> None:
        """Nothing follows. Never waits; safe to call twice."""
        self.cancel()
        self.closed, self._session = True, None
        self._engine.forget(self)

    def _give_up(self, error: BaseException) -> None:
        if self._call is not None and self._request is not None:
            self._call.give_up()
            self._left.append(self._call)
            self._request.error = error
        self._call = self._request = None
