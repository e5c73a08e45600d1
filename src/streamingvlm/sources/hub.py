"""One live source for any number of subscribers: kept open for ever, watched, decoded once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

from ..core.errors import SourceError
from ..core.events import Notice, SourceCode, SourceFormat, SourceState, SourceStatus
from .backoff import Backoff
from .inputs import Input
from .live_options import DEFAULTS, LiveOptions
from .progress import Progress
from .reader import Reader, Shot
from .slots import Picture
from .status import TOUCHY, Trouble


class Subscriber(Protocol):
    """Who gets the frames and notices of a hub; see :class:`~streamingvlm.sources.slots.Assembler`.

    None of these waits, or joins or leaves a hub.
    """

    def wants(self, moment: float) -> bool: ...
    def put(self, picture: Picture) -> None: ...
    def tell(self, notice: Notice, why: SourceCode = "") -> None: ...
    def end(self, *notices: Notice, error: BaseException | None = None) -> None: ...


@dataclass(slots=True)
class _Watch:
    """What the keeper has seen of the connection that is open."""

    reader: Reader
    stalled: bool = False


class Hub:
    """Opens ``source`` when the first subscriber joins, again and again, and lets it go with the last.

    ``video_stream``: which of its video streams, from 0 (None: FFmpeg's choice). All methods are for any thread, and
    never wait for the source.
    """

    def __init__(self, source: Input, *, video_stream: int | None = None, options: LiveOptions = DEFAULTS) -> None:
        self.source, self.options, self.video_stream = source, options, video_stream
        self._lock = threading.Lock()
        self._subscribers: list[Subscriber] = []
        self._keeper: _Keeper | None = None

    def join(self, subscriber: Subscriber) -> None:
        """Send ``subscriber`` what comes from now on, first of all where the source stands."""
        with self._lock:
            if self._keeper is None:
                keeper = _Keeper(self)
                keeper.start()  # it waits for the lock
                self._keeper = keeper
            else:
                for notice in self._keeper.standing():
                    subscriber.tell(notice)
            self._subscribers.append(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """It wants nothing any more; the last one lets the source go."""
        with self._lock:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)
            keeper = None if self._subscribers else self._keeper
            if keeper is not None:
                self._keeper = None
        if keeper is not None:
            keeper.stop()

    def subscribers_of(self, keeper: _Keeper) -> list[Subscriber]:
        """Those that a keeper works for; none once it was let go."""
        with self._lock:
            return list(self._subscribers) if self._keeper is keeper else []

    def release(self, keeper: _Keeper) -> list[Subscriber]:
        """The source has ended by itself: whoever joins now opens it anew. Those that are to be told."""
        with self._lock:
            if self._keeper is not keeper:
                return []
            left, self._keeper, self._subscribers = self._subscribers, None, []
            return left


class _Keeper(threading.Thread):
    """Keeps a hub's source open: starts readers, watches them, waits between two tries."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(name="streamingvlm-keeper", daemon=True)
        self._hub, self._source, self._options = hub, hub.source, hub.options
        self._changed = threading.Condition()
        self._stopped = False
        self._watch: _Watch | None = None
        self._left: list[Reader] = []
        self._backoff = Backoff(hub.options)
        self._tries, self._ran = 0, False
        self._healthy_since: float | None = None
        self._status = SourceStatus("connecting")
        self._format: SourceFormat | None = None
        self._progress = Progress()
        self._complete = False

    def standing(self) -> list[Notice]:
        """Where the source stands."""
        return [self._status, *([self._format] if self._format is not None else [])]

    def stop(self) -> None:
        """Let the source go; never waits."""
        with self._changed:
            self._stopped = True
            if self._watch is not None:
                self._watch.reader.leave()
            self._changed.notify_all()

    def run(self) -> None:
        """The thread."""
        try:
            self._keep_open()
        except BaseException as error:  # a bug, or no room for a thread: nobody else would tell
            self.stop()
            self._end(Trouble("ended"), error)

    def _keep_open(self) -> None:
        self._tell(SourceStatus("connecting", tries=1))
        while self._wait_for_room():
            trouble, fault = self._connect()
            if self._stopped:
                return
            if fault is not None:
                self._end(Trouble("ended"), fault)
                return
            if self._is_final(trouble):
                self._end(trouble, None)
                return
            wait = self._backoff.next(self._options.refused_wait if trouble.code in TOUCHY else 0.0)
            state: SourceState = "reconnecting" if self._ran else "connecting"
            self._tell(SourceStatus(state, trouble.code, trouble.reason, self._tries, wait))
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, wait)

    def _wait_for_room(self) -> bool:
        """Wait while too many readers hang; false when stopped."""
        with self._changed:
            while not self._stopped:
                self._left = [reader for reader in self._left if reader.is_alive()]
                if len(self._left) < self._options.left_behind:
                    return True
                self._changed.wait(1.0)
            return False

    def _connect(self) -> tuple[Trouble, BaseException | None]:
        """Open the source and watch it until it breaks."""
        reader = Reader(
            self._source,
            self._options,
            self._deliver,
            self._on_change,
            video_stream=self._hub.video_stream,
            progress=self._progress.following(),
        )
        self._tries += 1
        with self._changed:
            if self._stopped:
                return Trouble("ended"), None
            self._watch = watch = _Watch(reader)
            reader.start()
            trouble = self._watched(watch)
            self._watch = None
        self._progress = reader.progress
        if self._healthy_since is not None and reader.since - self._healthy_since >= self._options.healthy:
            self._backoff.reset()
        self._healthy_since = None
        self._complete = reader.finite and reader.at_end
        return trouble, reader.fault

    def _watched(self, watch: _Watch) -> Trouble:
        """Why the connection has ended; a reader that hangs is left behind."""
        reader = watch.reader
        while not (reader.done or self._stopped):
            left = self._deadline(reader) - time.perf_counter()
            if left > 0 or watch.stalled:
                self._changed.wait(None if watch.stalled else left)
                continue
            trouble = self._overdue(reader)
            if reader.stage == "reading" or self._source.once:
                self._tell(SourceStatus("stalled", trouble.code, trouble.reason, self._tries))
            if self._source.once:  # it cannot be opened again: all that can be done is to wait
                watch.stalled = True
                continue
            reader.leave()
            self._left.append(reader)
            return trouble
        trouble = reader.trouble or Trouble("ended")
        self._left.append(reader)  # it may still be closing
        if trouble.code != "timeout" or not reader.frames or self._stopped:
            return trouble
        # FFmpeg has given up before the watch did.
        trouble = Trouble("stalled", trouble.detail)
        self._tell(SourceStatus("stalled", trouble.code, trouble.reason, self._tries))
        return trouble

    def _deadline(self, reader: Reader) -> float:
        options = self._options
        if reader.stage == "lookup":
            return reader.began + options.name_lookup
        if reader.frames:
            return reader.since + options.no_frame
        # The time for the first frame counts from the beginning, whatever is done meanwhile.
        return reader.began + options.first_frame

    def _overdue(self, reader: Reader) -> Trouble:
        if self._source.once:
            return Trouble("stalled")
        if reader.stage == "lookup":
            return Trouble("dns", f"no answer within {self._options.name_lookup:g} s")
        if reader.stage == "opening":
            return Trouble("timeout", f"not open within {self._options.first_frame:g} s")
        patience = self._options.no_frame if reader.frames else self._options.first_frame
        return Trouble("stalled", f"none for {patience:g} s")

    def _is_final(self, trouble: Trouble) -> bool:
        if trouble.for_good or self._source.once:
            return True
        return self._complete and trouble.code in ("ended", "format")

    def _end(self, trouble: Trouble, fault: BaseException | None) -> None:
        """Nothing more can come. That the data has ended is no error."""
        code = "" if trouble.code == "ended" else trouble.code
        status = SourceStatus("ended", code, trouble.reason if code else "", self._tries)
        error = fault
        if error is None and (code or not self._ran):
            reason = trouble.reason if code else "it ended before the first frame"
            error = SourceError(f"{self._source.name}: {reason}")
        for subscriber in self._hub.release(self):
            subscriber.end(status, error=error)

    def _tell(self, status: SourceStatus) -> None:
        self._status = status
        for subscriber in self._hub.subscribers_of(self):
            subscriber.tell(status, status.code)

    # The reader's thread.

    def _on_change(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _deliver(self, reader: Reader, shot: Shot) -> None:
        if reader.left:
            return
        if self._status.state != "running":
            self._note_running(reader)
        wanting = [one for one in self._hub.subscribers_of(self) if one.wants(shot.moment)]
        pixels = shot.rgb() if wanting else None
        if pixels is None:
            return
        height, width = pixels.shape[:2]
        told = SourceFormat(width=width, height=height, codec=reader.codec, rate=round(reader.rate, 3))
        if told != self._format:
            self._format = told
            for subscriber in self._hub.subscribers_of(self):
                subscriber.tell(told)
        for subscriber in wanting:
            subscriber.put(shot)

    def _note_running(self, reader: Reader) -> None:
        with self._changed:
            if self._watch is None or self._watch.reader is not reader:
                return
            self._watch.stalled = False
            self._ran, self._tries = True, 0
            self._healthy_since = self._healthy_since or time.perf_counter()
            self._changed.notify_all()
        self._tell(SourceStatus("running"))
