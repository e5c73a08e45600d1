"""When work in the background may go on: where it makes no live step wait.

A live step is late by all that the device still does when its last frame comes. Answers can wait, so they are worked on
in the slack between two steps: not while a live step is under way, and not so shortly before the next frames are
expected that these would have to wait. What has waited too long goes on in one batch with the steps.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from .request import Status, TurnRequest
from .stream import OpenStream

#: Seconds that frames may be late until they are no longer expected: whoever waits for a camera is not held.
GRACE = 0.1
#: Seconds that a request in the background is held in one go, and in all; behind that it shares the steps' batch.
PATIENCE = 1.0
TOTAL_PATIENCE = 5.0
#: Seconds after which a request that is held by steps under way is looked at again.
LOOK = 0.02
#: What is expected to take so long takes up to so many times as long.
MARGIN = 1.5
#: The slowest of so many measurements counts.
MEASUREMENTS = 16
#: Most tokens that are prefilled in the background at a time: a step that comes meanwhile waits for no more.
PIECE = 64
#: A prefill of fewer tokens takes as long as one of so many.
MIN_TOKENS = 32


class Slack:
    """Knows when frames are expected and how long work takes; one of each engine. Times are those of ``clock``."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._expected: dict[OpenStream, float] = {}
        #: Seconds a token, of prefills of steps and of those in the background; seconds of a round of decoding.
        self._step_prefills: deque[float] = deque(maxlen=MEASUREMENTS)
        self._prefills: deque[float] = deque(maxlen=MEASUREMENTS)
        self._decodes: deque[float] = deque(maxlen=MEASUREMENTS)

    def handed_in(self, request: TurnRequest) -> None:
        """Of a live step that comes in: when the frames behind it are expected."""
        if request.step is None or request.due is None or (ready := request.step.arrival.ready_at) is None:
            return
        seconds = len(request.step.chunk.frames) / request.stream.options.fps
        self._expected = {stream: at for stream, at in self._expected.items() if not stream.closed}
        self._expected[request.stream] = ready + seconds

    def learn_start(self, requests: Sequence[TurnRequest], seconds: float) -> None:
        """Starting some turns has taken so long."""
        alone = all(request.background for request in requests)
        if not alone and any(request.background for request in requests):
            return
        tokens = sum(len(request.prefill.tokens) for request in requests if request.prefill is not None)
        (self._prefills if alone else self._step_prefills).append(seconds / max(tokens, MIN_TOKENS))

    def learn_decode(self, seconds: float) -> None:
        """A round of decoding has taken so long."""
        self._decodes.append(seconds)

    def start_seconds(self, tokens: int) -> float:
        """How long a prefill of ``tokens`` may take (0: nothing is known yet)."""
        return MARGIN * max(tokens, MIN_TOKENS) * max(self._prefills or self._step_prefills, default=0.0)

    def wait(self, seconds: float) -> float:
        """In how many seconds work of ``seconds`` may begin (0: now), if the frames that are expected come."""
        now = self.clock()
        near = [at for stream, at in self._expected.items() if at - seconds <= now < at + GRACE and not stream.closed]
        return max(near) + GRACE - now if near else 0.0

    def hold(self, request: TurnRequest, live: bool) -> float:
        """How many seconds a request in the background waits from now on (0: it goes on). ``live``: a live step is
        under way."""
        now = self.clock()
        waiting = request.status is Status.WAITING
        seconds = self.start_seconds(request.size) if waiting else MARGIN * max(self._decodes, default=0.0)
        wait = LOOK if live else self.wait(seconds)
        since = now if request.held_since is None else request.held_since
        left = min(PATIENCE - (now - since), TOTAL_PATIENCE - request.held - (now - since))
        if wait <= 0:
            request.held, request.held_since = request.held + now - since, None
            return 0.0
        request.held_since = since
        return max(min(wait, left), 0.0)
