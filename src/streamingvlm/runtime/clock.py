"""When steps reach an engine: at the video's own pace, as fast as they can be read, or when they are asked for.

A :class:`Feed` never makes the thread that polls it wait, but for :class:`Inline`, which reads its source right there.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Protocol

from ..core.events import Chunk, Gap, Notice, Source, StepInput, StepSource
from .limits import LIVE_STEPS, NOTICES, STEPS_AHEAD

#: How long closing waits for a source that is in the middle of a read. Its thread is a daemon, so it cannot hang.
PATIENCE = 0.2

Prepare = Callable[[StepInput], StepInput]


class Pace(StrEnum):
    """``live`` keeps the clock and drops what is late; ``fast`` takes every step as fast as it can.

    ``inline`` is ``fast`` without a thread of its own: a step is read when the engine wants it (for measurements).
    """

    LIVE = "live"
    FAST = "fast"
    INLINE = "inline"


class Feed(Protocol):
    """Where a pipeline takes its steps from."""

    def poll(self, steps: bool = True) -> StepInput | Notice | None:
        """The next step, part of one, or what the source tells between two; None if nothing has come yet.

        ``steps``: False for what comes before the next step alone. Raises what the source raised, behind the rest.
        """
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing follows any more."""
        ...

    def stop(self, patience: float = PATIENCE) -> None:
        """Nothing is wanted any more; returns within ``patience`` seconds, whatever the source does."""
        ...


class _Mailbox:
    """Steps on their way from the thread that makes them to the one that takes them, and how that ends.

    ``keep`` steps wait at most. When it is full, ``put`` waits; with ``newest`` it never waits, but drops the steps
    that nobody has begun to take when another step comes, and counts them on the last part of that one.
    """

    def __init__(
        self,
        keep: int,
        newest: bool,
        on_change: Callable[[], None],
        on_drop: Callable[[StepInput], None] = lambda _: None,
    ) -> None:
        self._on_drop = on_drop
        self.keep, self.newest = keep, newest
        self.waiting: deque[StepInput | Notice] = deque()
        self.changed = threading.Condition()
        self.done = False
        self.stopped = False
        self.error: BaseException | None = None
        self._on_change = on_change
        self._begun: float | None = None  # start of the step that was last handed out
        self._missed = 0

    def put(self, step: StepInput) -> bool:
        """Hand over a step; false when nobody takes any more."""
        if self.newest:
            with self.changed:
                step, late = self._drop_for(step)
            for other in late:  # nobody waits for this lock meanwhile: it may take as long as a picture takes
                self._on_drop(other)
        with self.changed:
            if not self.newest:
                self.changed.wait_for(lambda: self.stopped or len(self.waiting) < self.keep)
            self.waiting.append(step)
            self.changed.notify_all()
            stopped = self.stopped
        self._on_change()
        return not stopped

    def tell(self, notice: Notice) -> None:
        """Hand over what is between two steps; never waits.

        Nobody takes: the oldest that is no :class:`Gap` is lost behind ``NOTICES``.
        """
        with self.changed:
            told = [other for other in self.waiting if not isinstance(other, StepInput)]
            if len(told) >= NOTICES:
                self.waiting.remove(next((other for other in told if not isinstance(other, Gap)), told[0]))
            self.waiting.append(notice)
            self.changed.notify_all()
        self._on_change()

    def _drop_for(self, step: StepInput) -> tuple[StepInput, list[StepInput]]:
        """Drop the steps that ``step`` makes old; ``step`` with their number if it is its step's last part, and what
        was dropped."""
        kept = (step.chunk.start, self._begun)

        def is_late(other: StepInput | Notice) -> bool:
            return isinstance(other, StepInput) and other.chunk.start not in kept

        late = [other for other in self.waiting if isinstance(other, StepInput) and is_late(other)]
        self.waiting = deque(other for other in self.waiting if not is_late(other))
        dropped = sum(other.arrival.dropped for other in late) + step.arrival.dropped
        self._missed += len({other.chunk.start for other in late}) + dropped
        missed = 0
        if step.last:
            missed, self._missed = self._missed, 0
        return replace(step, arrival=replace(step.arrival, dropped=missed)), late

    def poll(self, steps: bool = True) -> StepInput | Notice | None:
        """The next step or notice, if there is one; raises what the source raised, behind those made before."""
        with self.changed:
            if self.waiting and (steps or not isinstance(self.waiting[0], StepInput)):
                step = self.waiting.popleft()
                if isinstance(step, StepInput):
                    self._begun = step.chunk.start
                self.changed.notify_all()
                return step
            if self.done and self.error is not None and not self.waiting:
                raise self.error
            return None

    @property
    def step_waits(self) -> bool:
        """Whether nobody has taken the step before."""
        with self.changed:
            return any(isinstance(other, StepInput) for other in self.waiting)

    @property
    def ended(self) -> bool:
        with self.changed:
            return self.done and not self.waiting and self.error is None

    def wait(self) -> None:
        """Until there is a step, or there will be none."""
        with self.changed:
            self.changed.wait_for(lambda: bool(self.waiting) or self.done)

    def sleep_until(self, moment: float) -> bool:
        """Wait for a ``perf_counter`` moment; false when stopped meanwhile."""
        with self.changed:
            while not self.stopped and (left := moment - time.perf_counter()) > 0:
                self.changed.wait(left)
            return not self.stopped

    def end(self, error: BaseException | None) -> None:
        with self.changed:
            self.done, self.error = True, error
            self.changed.notify_all()
        self._on_change()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


class Threaded:
    """A source that is read in a thread of its own, so that decoding goes on while the model works.

    ``clock``: hand out each step when its last frame has come, and if ``part`` is given, so many frames of it at a
    time as they come. ``newest``: drop a step that is not taken in time; ``arrival.due`` is then one step behind its
    last frame. ``prepare``: what the thread still does with each step before it hands it over. ``on_change`` is called
    when there is something to poll, ``on_drop`` with every step, or part of one, that is dropped.
    """

    def __init__(
        self,
        source: Source | StepSource,
        *,
        clock: bool,
        newest: bool,
        prepare: Prepare | None = None,
        part: int | None = None,
        on_change: Callable[[], None] = lambda: None,
        on_drop: Callable[[StepInput], None] = lambda _: None,
    ) -> None:
        self._source, self._clock, self._newest, self._prepare = source, clock, newest, prepare
        self._part = part if clock else None
        self._box = _Mailbox(LIVE_STEPS if newest else STEPS_AHEAD, newest, on_change, on_drop)
        self._thread = threading.Thread(target=self._make, name="streamingvlm-source", daemon=True)
        self._thread.start()

    def poll(self, steps: bool = True) -> StepInput | Notice | None:
        """See :meth:`Feed.poll`."""
        step = self._box.poll(steps)
        if not isinstance(step, StepInput):
            return step
        # Without a clock a frame is "there" once it is read and asked for: waiting in line is not lag.
        ready = time.perf_counter() if step.arrival.ready_at is None else step.arrival.ready_at
        due = ready + step.chunk.end - step.chunk.start if self._newest else None
        return replace(step, arrival=replace(step.arrival, ready_at=ready, due=due))

    @property
    def ended(self) -> bool:
        """See :attr:`Feed.ended`."""
        return self._box.ended

    def stop(self, patience: float = PATIENCE) -> None:
        """See :meth:`Feed.stop`."""
        self._box.stop()
        if (close := getattr(self._source, "close", None)) is not None:
            close()
        self._thread.join(patience)

    def __iter__(self) -> Generator[StepInput | Notice, None, None]:
        """The steps as they come; waits for them. Closing the iterator stops the thread."""
        try:
            while not self.ended:
                self._box.wait()
                if (step := self.poll()) is not None:
                    yield step
        finally:
            self.stop()

    def _make(self) -> None:
        """The thread: make steps, wait for their moment, hand them over."""
        error: BaseException | None = None
        try:
            self._read()
        except BaseException as problem:
            error = problem
        self._box.end(error)

    def _read(self) -> None:
        began: float | None = None
        for step in steps_of(self._source, self._part):
            if not isinstance(step, StepInput):
                self._box.tell(step)
                continue
            if self._clock:
                if began is None:  # the clock starts with the first chunk, not with opening the file
                    began = time.perf_counter() - step.chunk.start
                step = replace(step, arrival=replace(step.arrival, ready_at=began + step.chunk.times[-1]))
                if not self._box.sleep_until(began + step.chunk.times[-1]):
                    return
            # Who is late may never ask for this one: then nothing is made of it ahead.
            if self._prepare is not None and not (self._newest and self._box.step_waits):
                step = self._prepare(step)
            if not self._box.put(step):
                return


class Inline:
    """A source that is read on the thread that polls, ``part`` frames of a step at a time (None: in one)."""

    def __init__(self, source: Iterable[Chunk | StepInput | Notice], part: int | None = None) -> None:
        self._steps = steps_of(source, part)
        self._next: StepInput | None = None
        self._ended = False

    def poll(self, steps: bool = True) -> StepInput | Notice | None:
        """See :meth:`Feed.poll`."""
        if not steps:  # what comes is only known when it is read
            return None
        step = None if self._ended else next(self._steps, None)
        self._ended = step is None
        return step

    @property
    def ended(self) -> bool:
        """See :attr:`Feed.ended`."""
        return self._ended

    def stop(self, patience: float = PATIENCE) -> None:  # noqa: ARG002
        """See :meth:`Feed.stop`."""
        self._ended = True
        self._steps.close()


def steps_of(
    source: Iterable[Chunk | StepInput | Notice], part: int | None
) -> Generator[StepInput | Notice, None, None]:
    """The steps of a source, each in parts of ``part`` frames (None: in one); what is a step already stays whole."""
    for item in source:
        if isinstance(item, Chunk):
            yield from split(item, part)
        else:
            yield item


def split(chunk: Chunk, part: int | None) -> list[StepInput]:
    """A step in parts of ``part`` frames, the last of which has what is left (None: in one)."""
    count = len(chunk.frames)
    if part is None or count <= part:
        return [StepInput(chunk)]
    return [
        StepInput(
            replace(
                chunk,
                frames=chunk.frames[at : at + part],
                times=chunk.times[at : at + part],
                read_seconds=chunk.read_seconds if at == 0 else 0.0,
            ),
            last=at + part >= count,
        )
        for at in range(0, count, part)
    ]


def live(
    source: Source | StepSource,
    prepare: Prepare | None = None,
    part: int | None = None,
    on_change: Callable[[], None] = lambda: None,
    on_drop: Callable[[StepInput], None] = lambda _: None,
) -> Threaded:
    """The source at its own pace: a step comes with its last frame, a late consumer gets the newest step.

    ``part``: hand a step out in parts of so many frames, each when it is there (for :meth:`Session.feed`). Of each
    step, ``arrival.ready_at`` is the moment of its last frame, ``due`` one step later, ``dropped`` what was skipped.
    """
    return Threaded(
        source, clock=not source.live, newest=True, prepare=prepare, part=part, on_change=on_change, on_drop=on_drop
    )


def fast(
    source: Source | StepSource, prepare: Prepare | None = None, on_change: Callable[[], None] = lambda: None
) -> Threaded:
    """The source as fast as it can be read and consumed, read a little ahead."""
    return Threaded(source, clock=False, newest=False, prepare=prepare, on_change=on_change)
