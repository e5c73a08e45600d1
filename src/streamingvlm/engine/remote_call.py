"""Calls of an endpoint beside the engine's thread: each in a thread of its own, which nobody ever waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ..core.errors import EndpointError
from .endpoint import CallLimit

T = TypeVar("T", covariant=True)
U = TypeVar("U")
#: Longest reply, characters: a server that never ends is not listened to for ever.
LONGEST_REPLY = 65_536


class Work(Protocol[T]):
    """What a call does: one request and its reply, within ``limit``; ``on_text`` takes the text as it comes."""

    def __call__(self, *, limit: CallLimit, on_text: Callable[[str], None] | None) -> T: ...


class Call(Generic[U]):
    """``work`` in a thread of its own; ``seconds``: after which it is late. All else is for the engine's thread.

    ``patience``: seconds to the end of its request, at least ``seconds`` (None: the same): a call that is late may go
    on for nobody, where hanging up would do harm. ``wake`` is called when text has come and when the call has ended,
    also when that was given up. The thread is a daemon: it cannot hang the process, and it ends with its request at
    the latest.
    """

    def __init__(
        self,
        work: Work[U],
        seconds: float,
        *,
        retries: int | None,
        streamed: bool,
        wake: Callable[[], None],
        patience: float | None = None,
    ) -> None:
        self.limit = CallLimit(max(seconds, patience or 0.0), retries, silence=patience)
        self.result: U | None = None
        self.error: BaseException | None = None
        #: Whether the model has begun to answer.
        self.answered = False
        self._work, self._seconds, self._streamed, self._wake = work, seconds, streamed, wake
        self._lock = threading.Lock()
        self._pieces: list[str] = []
        self._characters = 0
        self._ended = False
        threading.Thread(target=self._run, name="streamingvlm-call", daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether its thread is done: there is a result or an error."""
        return self._ended

    @property
    def left(self) -> float:
        """Seconds until it is late."""
        return max(self.limit.began + self._seconds - time.monotonic(), 0.0)

    @property
    def changed(self) -> bool:
        """Whether there is something to take, or it is too late for it."""
        return bool(self._pieces) or self._ended or not self.left

    def take_text(self) -> str:
        """What has come since the last time."""
        with self._lock:
            pieces, self._pieces = self._pieces, []
        return "".join(pieces)

    def give_up(self) -> None:
        """Nobody waits for it any more; no further try is begun. Never waits."""
        self.limit.given_up.set()

    def _run(self) -> None:
        try:
            self.result = self._work(limit=self.limit, on_text=self._add if self._streamed else None)
            self.answered = True
        except BaseException as error:  # told by the engine's thread
            self.error = error
        self._ended = True
        self._wake()

    def _add(self, text: str) -> None:
        self.answered = True
        if self.limit.given_up.is_set():
            raise EndpointError("the call was given up", "timeout")
        self._characters += len(text)
        if self._characters > LONGEST_REPLY:
            reason = f"the reply has more than {LONGEST_REPLY} characters and does not end"
            raise EndpointError(reason, "malformed", reason=reason)
        with self._lock:
            self._pieces.append(text)
        self._wake()


@dataclass(frozen=True, slots=True)
class Outcome(Generic[U]):
    """How a call has ended: with a result, with an error, or, ``late``, with neither in time."""

    result: U | None = None
    error: BaseException | None = None
    late: bool = False


class CallSlot(Generic[U]):
    """One call at a time, and those before it that were given up and have not ended. For the engine's thread."""

    def __init__(self) -> None:
        self._call: Call[U] | None = None
        self._on_text: Callable[[str], None] | None = None
        self._left: list[Call[U]] = []

    def begin(self, call: Call[U], on_text: Callable[[str], None] | None) -> None:
        """``call`` is under way; ``on_text`` takes its text in :meth:`take`."""
        self._call, self._on_text = call, on_text

    @property
    def free(self) -> bool:
        """Whether no call is under way."""
        return self._call is None

    @property
    def changed(self) -> bool:
        """Whether :meth:`take` has something to do."""
        return self._call is not None and self._call.changed

    @property
    def alarm(self) -> float | None:
        """Seconds until it will have (None: no call is under way)."""
        return None if self._call is None else self._call.left

    def take(self) -> Outcome[U] | None:
        """Pass on the text that has come; how the call has ended, if it has. The slot is free then."""
        call = self._call
        if call is None:
            return None
        ended = call.ended  # asked first: no text comes behind it
        if (text := call.take_text()) and self._on_text is not None:
            self._on_text(text)
        if ended:
            self._call = None
            return Outcome(call.result, call.error)
        if not call.left:
            self.give_up()
            return Outcome(late=True)
        return None

    def give_up(self) -> None:
        """Wait for the call no longer, if there is one."""
        if self._call is not None:
            self._call.give_up()
            self._left.append(self._call)
        self._call = None

    def settle(self) -> tuple[int, bool]:
        """How many calls that were given up are still under way, and whether one has been answered since."""
        ended = [call for call in self._left if call.ended]
        self._left = [call for call in self._left if call not in ended]
        return len(self._left), any(call.answered for call in ended)


class Retreat:
    """How long to wait behind failures in a row: ``first`` seconds, doubled each time, up to ``longest``.

    ``jitter``: by which share the waits differ at random, so that streams part; ``draw``: a number from 0 to 1.
    """

    def __init__(
        self, draw: Callable[[], float], first: float = 1.0, longest: float = 60.0, jitter: float = 0.2
    ) -> None:
        self._draw, self._first, self._longest, self._jitter = draw, first, longest, jitter
        self.failures = 0
        self._until: float | None = None

    def failed(self, least: float = 0.0) -> float:
        """One more failure; the seconds to wait. ``least``: what the server asks for."""
        self.failures += 1
        wait = min(self._first * 2.0 ** min(self.failures - 1, 30), self._longest)
        wait = max(wait * (1 + self._jitter * (2 * self._draw() - 1)), min(least, self._longest))
        self._until = time.monotonic() + wait
        return wait

    def passed(self) -> None:
        """A success."""
        self.failures, self._until = 0, None

    @property
    def left(self) -> float | None:
        """Seconds that are left to wait; None once somebody was told that it is over."""
        if self._until is None:
            return None
        return max(self._until - time.monotonic(), 0.0)

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for any more."""
        if self.left == 0.0:
            self._until = None
        return self._until is None
