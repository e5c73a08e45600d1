"""How long to wait before a source is opened again: a ladder that is climbed for ever, with jitter."""

from __future__ import annotations

import random
from collections.abc import Callable

from .live_options import DEFAULTS, LiveOptions


class Backoff:
    """Waits between two tries. ``uniform``: a number from 0 to 1, by chance."""

    def __init__(self, options: LiveOptions = DEFAULTS, uniform: Callable[[], float] = random.random) -> None:
        self._options, self._uniform = options, uniform
        self._rung = self._used = 0

    def reset(self) -> None:
        """The source has been healthy: start at the bottom."""
        self._rung = self._used = 0

    def next(self, least: float = 0.0) -> float:
        """Seconds until the next try. ``least``: climb at once to the first rung that is no shorter."""
        ladder = self._options.ladder
        while self._rung < len(ladder) - 1 and (self._used >= ladder[self._rung][1] or ladder[self._rung][0] < least):
            self._rung, self._used = self._rung + 1, 0
        self._used += 1
        return ladder[self._rung][0] * (1 + self._options.jitter * (2 * self._uniform() - 1))
