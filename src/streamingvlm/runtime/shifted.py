"""A source whose times count from another moment: for a stream that goes on when its source begins anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from ..core.events import Chunk, Gap, Notice, Source, StepInput, StepSource

#: Of the first chunk or gap, its start and end in seconds: how many are added to all times.
By = Callable[[float, float], float]
#: Steps without a picture behind ``gone_on`` that are told as a gap.
UNTOLD_STEPS = 2.0
#: Two seconds closer than this are the same.
EPS = 1e-6
NO_PICTURE = "the source has sent no picture yet"


class Shifted:
    """``source`` with seconds added to the times of all its chunks and gaps.

    ``by``: how many; or what says it when the first chunk has come. ``gone_on``: seconds of the stream that were told
    already; if the first chunk comes much later, the hole before it is told as a :class:`Gap` (None: it is not).
    ``until``: the second of the stream at which it ends (None: where the source does).
    """

    def __init__(
        self, source: Source | StepSource, by: float | By, gone_on: float | None = None, until: float | None = None
    ) -> None:
        self.name, self.context, self.kind, self.live = source.name, source.context, source.kind, source.live
        self._source, self._gone_on = source, gone_on
        self._by: float | By = by
        self._until = math.inf if until is None else until

    def __iter__(self) -> Iterator[StepInput | Notice]:
        for item in self._source:
            if isinstance(item, Gap):
                by = self._seconds(item.start, item.end)
                yield replace(item, start=item.start + by, end=min(item.end + by, self._until))
            elif isinstance(item, Chunk | StepInput):
                step = StepInput.of(item)
                moved = self._moved(step.chunk)
                if moved.end > self._until + EPS:
                    return
                if self._gone_on is not None:
                    if moved.start - self._gone_on > UNTOLD_STEPS * (moved.end - moved.start):
                        yield Gap(self._gone_on, moved.start, NO_PICTURE)
                    self._gone_on = None
                yield replace(step, chunk=moved)
            else:
                yield item

    def close(self) -> None:
        """Let the source go."""
        if (close := getattr(self._source, "close", None)) is not None:
            close()

    def _seconds(self, start: float, end: float) -> float:
        if callable(self._by):
            self._by = self._by(start, end)
        return self._by

    def _moved(self, chunk: Chunk) -> Chunk:
        by = self._seconds(chunk.start, chunk.end)
        times = tuple(time + by for time in chunk.times)
        return replace(chunk, times=times, start=chunk.start + by, end=chunk.end + by)


def by_clock(now: Callable[[], float], earliest: float) -> By:
    """Seconds so that the first chunk ends now and starts at second ``earliest`` or later.

    ``now``: the second of the stream. They are whole steps, so that times stay as round as the source's.
    """

    def by(start: float, end: float) -> float:
        step = end - start
        return max(round((now() - end) / step), math.ceil((earliest - start) / step - 1e-6)) * step

    return by
