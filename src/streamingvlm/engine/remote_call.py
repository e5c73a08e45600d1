"""Calls of an endpoint beside the engine's thread: each in a thread of its own, which nobody ever waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..core.errors import EndpointError
from .endpoint import CallLimit

T = TypeVar("T", covariant=True)
#: Longest reply, characters: a server that never ends is not listened to for ever.
LONGEST_REPLY = 65_536


class Work(Protocol[T]):
    """What a call does: one request and its reply, within ``limit``; ``on_text`` takes the text as it comes."""

    def __call__(self, *, limit: CallLimit, on_text: Callable[[str], None] | None) -> T: ...


class Call(Generic[T]):
    """``work`` in a thread of its own; ``seconds``: its bound. All else is for the engine's thread.

    ``wake`` is called when text has come and when the call has ended, also when that was given up. The thread is a
    daemon: it cannot hang the process, and it ends with its request at the latest.
    """

    def __init__(
        self, work: Work[T], seconds: float, *, retries: int | None, streamed: bool, wake: Callable[[], None]
    ) -> None:
        self.limit = CallLimit(seconds, retries)
        self.result: T | None = None
        self.error: BaseException | None = None
        self._work, self._streamed, self._wake = work, streamed, wake
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
    def late(self) -> bool:
        """Whether it has taken too long."""
        return self.limit.left == 0.0

    @property
    def changed(self) -> bool:
        """Whether there is something to take, or it is too late for it."""
        return bool(self._pieces) or self._ended or self.late

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
        except BaseException as error:  # told by the engine's thread
            self.error = error
        self._ended = True
        self._wake()

    def _add(self, text: str) -> None:
        if self.limit.given_up.is_set():
            raise EndpointError("the call was given up", "timeout")
        self._characters += len(text)
        if self._characters > LONGEST_REPLY:
            reason = f"the reply has more than {LONGEST_REPLY} characters and does not end"
            raise EndpointError(reason, "malformed", reason=reason)
        with self._lock:
            self._pieces.append(text)
        self._wake()


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
