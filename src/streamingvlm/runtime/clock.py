"""When chunks reach the consumer: at the video's own pace, or as fast as they can be made.

Both wrap a source in a thread, so that decoding goes on while the model works. The thread ends with the iteration:
close the iterator (``contextlib.closing``) to stop early.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import replace

from ..core.events import Chunk, Source

#: Chunks that ``fast`` makes ahead: enough to overlap decoding, little enough to stay small in memory.
AHEAD = 2
#: How long closing waits for a decoder that is in the middle of a packet. The thread is a daemon, so it cannot hang.
PATIENCE = 5.0


Prepare = Callable[[Chunk], Chunk]


class _Mailbox:
    """Chunks on their way from the thread that makes them to the one that takes them, and how that ends.

    ``keep`` chunks wait at most. When it is full, ``put`` waits; with ``newest`` it never waits, but drops the steps
    that nobody has begun to take when another step comes, and counts them on the last chunk of that one.
    """

    def __init__(self, keep: int, newest: bool) -> None:
        self.keep, self.newest = keep, newest
        self.waiting: deque[Chunk] = deque()
        self.changed = threading.Condition()
        self.done = False
        self.stopped = False
        self.error: BaseException | None = None
        self._begun: float | None = None  # start of the step that was last handed out
        self._missed = 0

    def put(self, chunk: Chunk) -> bool:
        """Hand over a chunk; false when nobody takes any more."""
        with self.changed:
            if self.newest:
                chunk = self._drop_for(chunk)
            else:
                self.changed.wait_for(lambda: self.stopped or len(self.waiting) < self.keep)
            self.waiting.append(chunk)
            self.changed.notify_all()
            return not self.stopped

    def _drop_for(self, chunk: Chunk) -> Chunk:
        """Drop the steps that ``chunk`` makes old; ``chunk`` with their number if it is its step's last."""
        late = [other for other in self.waiting if other.start not in (chunk.start, self._begun)]
        self.waiting = deque(other for other in self.waiting if other.start in (chunk.start, self._begun))
        self._missed += len({other.start for other in late}) + sum(other.dropped for other in late) + chunk.dropped
        if not chunk.last:
            return replace(chunk, dropped=0)
        missed, self._missed = self._missed, 0
        return replace(chunk, dropped=missed)

    def take(self) -> Chunk | None:
        """The next chunk, or None after the last; raises what the source raised, behind the chunks made before."""
        with self.changed:
            self.changed.wait_for(lambda: bool(self.waiting) or self.done)
            if self.waiting:
                chunk = self.waiting.popleft()
                self._begun = chunk.start
                self.changed.notify_all()
                return chunk
            if self.error is not None:
                raise self.error
            return None

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

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


class Paced:
    """A source that runs in its own thread.

    ``clock``: hand out each chunk when its last frame has come, and if ``part`` is given, so many frames of it at a
    time as they come. ``newest``: drop a step that is not taken in time. ``prepare``: what the thread still does with
    each chunk before it hands it over.
    """

    def __init__(
        self, source: Source, *, clock: bool, newest: bool, prepare: Prepare | None = None, part: int | None = None
    ) -> None:
        self.source, self.clock, self.newest, self.prepare = source, clock, newest, prepare
        self.part = part if clock else None
        self.name, self.context, self.kind = source.name, source.context, source.kind
        self.live = newest

    def __iter__(self) -> Generator[Chunk, None, None]:
        box = _Mailbox(keep=1 if self.newest else AHEAD, newest=self.newest)
        thread = threading.Thread(target=self._make, args=(box,), name="streamingvlm-source", daemon=True)
        thread.start()
        try:
            while (chunk := box.take()) is not None:
                # Without a clock a frame is "there" once it is decoded and asked for: waiting in line is not lag.
                ready = time.perf_counter() if chunk.ready_at is None else chunk.ready_at
                due = ready + chunk.end - chunk.start if self.newest else None
                yield replace(chunk, ready_at=ready, due=due)
        finally:
            box.stop()
            thread.join(PATIENCE)

    def _make(self, box: _Mailbox) -> None:
        """The thread: make chunks, wait for their moment, hand them over."""
        error: BaseException | None = None
        try:
            began: float | None = None
            for chunk in (part for whole in self.source for part in split(whole, self.part)):
                if self.clock:
                    if began is None:  # the clock starts with the first chunk, not with opening the file
                        began = time.perf_counter() - chunk.start
                    chunk = replace(chunk, ready_at=began + chunk.times[-1])
                    if not box.sleep_until(chunk.ready_at or began):
                        break
                # Who is late may never ask for this one: then nothing is made of it ahead.
                if self.prepare is not None and not (self.newest and box.waiting):
                    chunk = self.prepare(chunk)
                if not box.put(chunk):
                    break
        except BaseException as problem:
            error = problem
        box.end(error)


def split(chunk: Chunk, part: int | None) -> list[Chunk]:
    """A step in parts of ``part`` frames, the last of which has what is left (None: in one)."""
    count = len(chunk.frames)
    if part is None or count <= part:
        return [chunk]
    return [
        replace(
            chunk,
            frames=chunk.frames[at : at + part],
            times=chunk.times[at : at + part],
            read_seconds=chunk.read_seconds if at == 0 else 0.0,
            dropped=chunk.dropped if at == 0 else 0,
            last=at + part >= count,
        )
        for at in range(0, count, part)
    ]


def live(source: Source, prepare: Prepare | None = None, part: int | None = None) -> Paced:
    """The source at its own pace: a chunk comes with its last frame, a late consumer gets the newest step.

    ``part``: hand a step out in parts of so many frames, each when it is there (for :meth:`Session.feed`).
    ``ready_at`` is the moment of the chunk's last frame on that clock, ``due`` one step later; ``dropped`` counts
    chunks that were skipped.
    """
    return Paced(source, clock=not source.live, newest=True, prepare=prepare, part=part)


def fast(source: Source, prepare: Prepare | None = None) -> Paced:
    """The source as fast as it can be read and consumed, decoded a little ahead."""
    return Paced(source, clock=False, newest=False, prepare=prepare)
