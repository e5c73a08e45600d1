"""Live frames to steps: one frame for each sample slot, one whole step that waits, and what is told between steps."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.events import Arrival, Chunk, Gap, Notice, SourceCode, StepInput
from .live_options import DEFAULTS, LiveOptions

#: Slack for times that were divided, in slots and in steps.
EPS = 1e-6


class Picture(Protocol):
    """A frame that has come. ``moment``: when it was there, ``arrival``: when it came, both by ``perf_counter``;
    ``wall``: the wall clock then; ``spent``: seconds of work on the source so far."""

    moment: float
    arrival: float
    wall: float
    spent: float

    def rgb(self, size: tuple[int, int] | None = None) -> NDArray[np.uint8] | None:
        """``(height, width, 3)``, upright, in ``size`` (height, width; None: its own); None if it cannot be shown."""
        ...


@dataclass(slots=True)
class _OpenStep:
    """A step whose frames are still coming."""

    index: int
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    arrival: float = 0.0
    wall: float = 0.0
    why: SourceCode = ""


class Assembler:
    """Steps of ``step`` seconds with up to ``fps`` frames a second for one subscriber, whose first frame is at 0.

    A slot lasts 1 / ``fps`` seconds and takes the first frame that comes in it; no frame is shown twice. A step is
    whole when its last slot has a frame, or when its time is over and it has any. One whole step waits to be taken;
    the next takes its place, and the lost ones are counted in ``arrival.dropped``. All frames of a step get the size of
    its first. Behind a hole of more than ``gap_steps`` steps a :class:`Gap` comes before the next step; the steps of a
    smaller one count as dropped.

    ``duration``: seconds after which it ends. Frames come from one thread, steps are taken by another.
    """

    def __init__(
        self,
        fps: float,
        step: float,
        duration: float | None = None,
        options: LiveOptions = DEFAULTS,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.fps, self.step, self.options = fps, step, options
        self._stop = math.inf if duration is None else duration
        self._now = now
        self._changed = threading.Condition()
        self._waiting: deque[StepInput | Notice] = deque()
        self._origin: float | None = None  # the moment of second 0
        self._open: _OpenStep | None = None
        self._slot = -1  # the last one that has a frame
        self._until = 0.0  # the end of the last step that was whole
        self._floor = 0.0  # the same, of those whose time was over: what comes late belongs to the next
        self._spent: float | None = None
        self._why: SourceCode = ""  # what went wrong first since the last step was begun
        self._ended = False
        self._error: BaseException | None = None

    # The thread that has the frames.

    def wants(self, moment: float) -> bool:
        """Whether a frame of ``moment`` would be taken: others need not be converted."""
        with self._changed:
            return not self._ended and (self._origin is None or self._slot_of(self._time_of(moment)) > self._slot)

    def put(self, picture: Picture) -> None:
        """Take a frame, if its slot has none; never waits."""
        with self._changed:
            if self._ended:
                return
            self._origin = picture.moment if self._origin is None else self._origin
            self._spent = picture.spent if self._spent is None else self._spent
            at = self._time_of(picture.moment)
            if self._open is not None and self._index_of(at) > self._open.index:
                self._finish(self._end_of(self._open.index) + self._origin)
                at = self._time_of(picture.moment)
            if at >= self._stop - EPS:
                self._end()
            elif self._slot_of(at) > self._slot:
                self._add(picture, at)

    def tell(self, notice: Notice, why: SourceCode = "") -> None:
        """Hand over what is between two steps. ``why``: the reason for a hole, if one begins here."""
        with self._changed:
            if self._ended:
                return
            self._why = self._why or why
            self._push(notice)
            self._changed.notify_all()

    def end(self, *notices: Notice, error: BaseException | None = None) -> None:
        """Nothing follows but what is there and ``notices``; then ``error`` is raised, if there is one."""
        with self._changed:
            if not self._ended:
                self._end(*notices, error=error)

    def close(self) -> None:
        """Nothing is wanted any more; whoever waits for a step is let go."""
        with self._changed:
            self._ended, self._error, self._open = True, None, None
            self._waiting.clear()
            self._changed.notify_all()

    # The thread that takes the steps.

    def take(self) -> StepInput | Notice | None:
        """The next step or notice; waits for it. None: nothing follows. Raises what has ended the source."""
        with self._changed:
            while True:
                self._look_at_clock()
                if self._waiting:
                    return self._waiting.popleft()
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    return None
                self._changed.wait(self._until_due())

    # Under the lock.

    def _time_of(self, moment: float) -> float:
        """Seconds from the first frame; a step whose time was over takes no more frames."""
        return max(moment - (self._origin or 0.0), self._floor)

    def _slot_of(self, at: float) -> int:
        return math.floor(at * self.fps + EPS)

    def _index_of(self, at: float) -> int:
        return math.floor(at / self.step + EPS)

    def _end_of(self, index: int) -> float:
        return (index + 1) * self.step

    def _add(self, picture: Picture, at: float) -> None:
        index = self._index_of(at)
        current = self._open or _OpenStep(index, why=self._why or "stalled")
        pixels = picture.rgb(current.frames[0].shape[:2] if current.frames else None)
        if pixels is None:
            return
        if self._open is None:
            self._open, self._why = current, ""
            self._changed.notify_all()  # whoever waits is to look when its time is over
        self._slot = self._slot_of(at)
        current.frames.append(pixels)
        # The frame that ends one step may belong, by a hair, to the next.
        current.times.append(max(at, current.index * self.step))
        current.arrival = picture.arrival
        current.wall = picture.wall - (at - current.index * self.step)
        if self._slot >= math.ceil(self._end_of(current.index) * self.fps - EPS) - 1:
            self._finish(picture.arrival, picture.spent)

    def _finish(self, ready_at: float, spent: float | None = None) -> None:
        """The open step is whole since ``ready_at``."""
        step, self._open = self._open, None
        if step is None:
            return
        start, end = step.index * self.step, self._end_of(step.index)
        unseen = start - self._until if self._until else 0.0
        if told := unseen > self.options.gap_steps * self.step + EPS:
            self._push(Gap(self._until, start, step.why))
        self._until = end
        work = max((spent or 0.0) - (self._spent or 0.0), 0.0)
        self._spent = spent if spent is not None else self._spent
        chunk = Chunk(np.stack(step.frames), tuple(step.times), start, end, read_seconds=work, wall=step.wall)
        dropped = 0 if told else round(unseen / self.step)
        self._push(StepInput(chunk, Arrival(ready_at=max(ready_at, step.arrival), dropped=dropped)))
        self._changed.notify_all()

    def _push(self, item: StepInput | Notice) -> None:
        old = [other for other in self._waiting if isinstance(other, StepInput) == isinstance(item, StepInput)]
        if isinstance(item, StepInput):
            late = [other for other in old if isinstance(other, StepInput)]
            self._waiting = deque(other for other in self._waiting if not isinstance(other, StepInput))
            dropped = item.arrival.dropped + sum(1 + other.arrival.dropped for other in late)
            item = replace(item, arrival=replace(item.arrival, dropped=dropped))
        elif len(old) >= self.options.notices:
            self._waiting.remove(next((other for other in old if not isinstance(other, Gap)), old[0]))
        self._waiting.append(item)

    def _look_at_clock(self) -> None:
        if self._ended or self._origin is None:
            return
        at = self._now() - self._origin
        if self._open is not None and at >= (end := self._end_of(self._open.index)):
            self._floor = end
            self._finish(self._origin + end)
        if at >= self._stop:
            self._end()

    def _until_due(self) -> float | None:
        """Seconds until something is to be done though no frame comes (None: nothing is)."""
        if self._origin is None:
            return None
        due = min(self._stop, math.inf if self._open is None else self._end_of(self._open.index))
        return None if math.isinf(due) else max(due + self._origin - self._now(), 0.0)

    def _end(self, *notices: Notice, error: BaseException | None = None) -> None:
        self._finish(self._now())
        for notice in notices:
            self._push(notice)
        self._ended, self._error = True, error
        self._changed.notify_all()
