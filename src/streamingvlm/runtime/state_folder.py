"""A folder from which streams go on after a restart: their events, their snapshots, and where they stood.

``StateFolder(DIR)`` has a folder for each stream, with its journal (:mod:`.journal`), its snapshot and the one before::

    with StateFolder(folder) as state, Runtime(engine) as runtime:
        stream = state.start(runtime, "match.mp4", lambda at: open_source("match.mp4", start=at), sinks=[...])
        if stream is None:
            print("match.mp4 was watched to its end")

A recording is opened at the snapshot's second; what was said behind it is watched again and told nobody, so each event
is told once. A live source goes on by the clock, and a :class:`~..core.events.Gap` tells what nobody has watched.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ..core.errors import EndedError, OptionError, OutputError
from ..core.events import (
    Alert,
    Answered,
    Asked,
    Commentary,
    Event,
    Gap,
    Instructed,
    InstructionUpdated,
    Rebased,
    Resumed,
    RuleChanged,
    Sink,
    Source,
    StepFailed,
    StepSource,
)
from ..engine.snapshot import SnapshotError, read, there_is
from ..sinks.files import make_folder
from ..sinks.records import event_of, record_of
from ..sources.redact import hide_parameters
from .folder_lock import FolderLock
from .journal import Journal, number_of
from .keeper import EVERY, Keeper, Moment, SnapshotWriter
from .pipeline import Companion, Numbering
from .runtime import Runtime, Stream
from .shifted import Shifted, by_clock

_LOG = logging.getLogger(__name__)
#: Opens a source at a second of the stream (None: where it begins, or now if it is live).
Open = Callable[[float | None], Source | StepSource]
NOT_RUNNING = "the program was not running"
CLOCK_UNKNOWN = "the program was not running; the clock was set meanwhile and cannot say for how long"
UNANSWERED = "the program ended before it was answered"
#: A loss of more seconds is no loss but a clock that was wrong.
LONGEST_LOSS = 31 * 86400.0
#: Events before a snapshot among which questions without an answer are looked for.
LOOK_BACK = 256
#: Seconds that closing waits for the last snapshots to be on the disk.
PATIENCE = 60.0
SNAPSHOT = "snapshot"


@dataclass(frozen=True)
class Past:
    """What an earlier run has left of a stream.

    ``snapshot``: to restore (None: it was ended before there was one); ``time``: seconds, where its memory ends;
    ``said_until``: what is said of steps before this second was told. ``numbering``: goes on with the ids. ``told``:
    the events behind the snapshot; ``unanswered``: questions that have no answer. ``own``: what others have kept, by
    name. ``left``: see ``again`` of :class:`Pipeline`; ``rebase_to``: a rebase that was asked for and is still to come
    (None: none is). ``complete``: the source was watched to its end. ``moment``: when the second ``now`` of the stream
    was (None: unknown); ``snapshot_age``: see :class:`Resumed`.
    """

    snapshot: Path | None
    time: float
    said_until: float
    numbering: Numbering
    told: tuple[Event, ...]
    unanswered: tuple[Asked, ...]
    own: Mapping[str, Any]
    left: tuple[tuple[float, Event], ...]
    rebase_to: float | None
    complete: bool
    live: bool
    moment: Moment | None
    now: float
    snapshot_age: float

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Alerts that were told behind the snapshot."""
        return tuple(event for event in self.told if isinstance(event, Alert))

    @property
    def opened_at(self) -> float | None:
        """The second that the source is opened at (None: where it begins)."""
        return None if self.snapshot is None or self.live else self.time

    @property
    def began(self) -> bool:
        """Whether there was a first frame, which is second 0."""
        return max(self.said_until, self.time) > 0

    @property
    def rule_state(self) -> Mapping[str, Any] | None:
        """Where the rules of the stream stood, see :class:`Watcher` (None: it had none)."""
        told = [record_of(event) for event in self.told if isinstance(event, Alert | RuleChanged)]
        state: Mapping[str, Any] | None = self.own.get("rules")
        if state is None and told:  # it was ended before there was a snapshot
            state = {"rules": [], "skipped": 0}
        return None if state is None else {**state, "told": told}

    @property
    def asks(self) -> bool:
        """Whether a rule that was set while the stream ran is asked of the model, which takes a slot."""
        state = self.rule_state or {"rules": [], "told": []}
        rules = [row["rule"] for row in state["rules"] if row["added"]]
        return any("ask" in rule for rule in (*rules, *(one.get("spec", {}) for one in state["told"])))

    def options(self, live: bool) -> dict[str, Any]:
        """How the stream goes on, as :meth:`Runtime.start` takes it; ``live``: whether its source is."""
        return {
            "again": _again(self, live),
            "restore": self.snapshot,
            "numbering": self.numbering,
            "said_until": self.said_until,
            "rule_state": self.rule_state,
        }

    def take_up(self, stream: Stream) -> None:
        """Do to the stream, which has started, what was still to be done."""
        if stream.watcher is not None and self.told and isinstance(self.told[-1], Commentary):
            stream.watcher.write(self.told[-1])  # what its rules make of it was not told any more
        if self.rebase_to is not None and not stream.pipeline.ended:
            stream.pipeline.rebase(self.rebase_to)

    def elapsed(self) -> tuple[float, bool]:
        """The second that the stream has come to by the clock, and whether the clock can be believed."""
        least = max(self.said_until, self.time)
        if self.moment is None:
            return least, True
        lost = Moment.now().since(self.moment)
        return (least, False) if lost > LONGEST_LOSS else (max(least, self.now + lost), True)


class StreamFolder:
    """The folder of one stream. ``past``: what an earlier run has left (None: nothing).

    ``source``: what is watched, in words without a password; another one than before is refused. Raises OutputError
    for a folder that is in use or cannot be written, SnapshotError if no snapshot in it is whole or it is of another
    source: one line that says how to start anew.
    """

    def __init__(
        self, folder: Path, source: str, writer: SnapshotWriter, *, every: float = EVERY, number: int = 0
    ) -> None:
        self.folder, self.source = folder, source
        self._writer, self._every, self._number = writer, every, number
        self.keeper: Keeper | None = None
        make_folder(folder)
        self._lock = FolderLock(folder)
        try:
            self.journal = Journal(folder, lock=self._lock)
            try:
                self.past = self._read()
                self._lock.note({"boot": Moment.now().boot, "lost": False, "clean": False})
            except BaseException:
                self.journal.wait_closed(PATIENCE)
                raise
        except BaseException:
            self._lock.close()
            raise

    @property
    def snapshot(self) -> Path:
        """Where the snapshot is, or will be."""
        return self.folder / SNAPSHOT

    @property
    def complete(self) -> bool:
        """Whether an earlier run has watched the source to its end."""
        return self.past is not None and self.past.complete

    def start(
        self,
        runtime: Runtime,
        open: Open,
        *,
        sinks: Sequence[Sink] = (),
        companions: Sequence[Companion] = (),
        extras: Mapping[str, Callable[[], Any]] | None = None,
        until: float | None = None,
        **options: Any,
    ) -> Stream | None:
        """Start the stream, or let it go on; None if it is complete, or its source has no more.

        ``open``: see :data:`Open`; it raises EndedError where there is no more. ``until``: the second of a live stream
        that goes on at which it ends. ``extras``: JSON values to be kept in each snapshot, by name; a later run finds
        them in ``past.own``. ``options``: as :meth:`Runtime.start` takes them. Raises what opening the source and the
        stream raises; SnapshotError if the stream was opened otherwise before. Rules go on as they stood.
        """
        if self.complete:
            return None
        past = self.past
        try:
            source = open(None if past is None else past.opened_at)
        except EndedError:
            if past is None or (past.opened_at is None and not past.live):
                raise
            return None
        events: list[Event] = []
        if past is not None:
            source, events = _gone_on(past, source, until)
        running: list[Stream] = []
        self.keeper = Keeper(
            self.snapshot,
            self._writer,
            self.journal,
            every=self._every,
            number=self._number,
            extras={"rules": lambda: _rules(running), **(extras or {})},
            about={"source": self.source, "live": source.live},
            ends=not source.live,
        )
        keeper = self.keeper

        def begin() -> Stream:
            goes_on = {} if past is None else past.options(source.live)
            told: list[Sink] = [self.journal, keeper, *sinks]
            stream = runtime.start(source, sinks=told, companions=[*companions, keeper], **goes_on, **options)
            running.append(stream)
            if past is not None:
                past.take_up(stream)
            stream.pipeline.tell(*events)
            return stream

        try:
            return runtime.call(begin)
        except SnapshotError as error:
            raise SnapshotError(f"{error}; {self._anew}") from None

    def close(self, timeout: float = PATIENCE) -> bool:
        """Behind the end of the stream: let the folder go when all is on the disk; whether it is, in ``timeout`` s."""
        clean = self.journal.wait_closed(timeout)
        if clean and not self.journal.behind:
            with suppress(OutputError):
                self._lock.note(self._lock.now | {"clean": True})
        self._lock.close()
        return clean

    @property
    def _anew(self) -> str:
        return f"to start the stream anew, remove {self.folder}"

    def _read(self) -> Past | None:
        kept, extra = None, {}
        try:
            if there_is(self.snapshot):
                kept = read(self.snapshot)
                extra = dict(kept.extra)
        except SnapshotError as error:
            raise SnapshotError(f"{error}; {self._anew}") from None
        if kept is None and not self.journal.number:
            return None
        if kept is not None and kept.problem:
            _LOG.warning("%s; the stream goes on from the snapshot before, %s", kept.problem, kept.path)
        before = extra.get("about", {}).get("source", self.source)
        if before != self.source:
            raise SnapshotError(f"{self.folder} is of a stream of {before}, not of {self.source}; {self._anew}")
        return self._past(kept.path if kept else None, kept.time if kept else 0.0, extra)

    def _past(self, snapshot: Path | None, time_: float, extra: Mapping[str, Any]) -> Past:
        number = int(extra.get("next", 1)) - 1
        late = self.journal.after(max(number - LOOK_BACK, 0))
        told = tuple(event for event in late if number_of(event.id)[1] > number)
        said = [event for event in told if isinstance(event, Commentary)]
        ends = [event.end for event in told if isinstance(event, Commentary | StepFailed | Gap)]
        answered = {event.number for event in late if isinstance(event, Answered)}
        asked = [event for event in late if isinstance(event, Asked)]
        moment, now = _moment(extra, said)
        newest = max((event.wall for event in said), default=0.0)
        return Past(
            snapshot=snapshot,
            time=time_,
            said_until=max([float(extra.get("said_until", 0.0)), time_, *ends]),
            numbering=self._numbering(extra, max([int(extra.get("asked", 0)), *(one.number for one in asked)])),
            told=told,
            unanswered=tuple(one for one in asked if one.number not in answered),
            own=dict(extra.get("own", {})),
            left=tuple((due, event) for due, record in extra.get("again", ()) if (event := event_of(record))),
            rebase_to=None if any(isinstance(event, Rebased) for event in told) else extra.get("rebase"),
            complete=bool(extra.get("complete", False)),
            live=bool(extra.get("about", {}).get("live", False)),
            moment=moment,
            now=now,
            snapshot_age=max(newest - moment.wall, 0.0) if snapshot is not None and moment is not None else 0.0,
        )

    def _numbering(self, extra: Mapping[str, Any], asked: int) -> Numbering:
        """Goes on with the numbers; in another epoch if some may have been told that no file knows any more."""
        note, boot = self._lock.before, Moment.now().boot
        torn = not note.get("clean") and (not boot or note.get("boot") != boot)
        epoch = self.journal.epoch or str(extra.get("epoch", ""))
        if torn or note.get("lost") or not epoch:
            epoch = secrets.token_hex(4)
        return Numbering(epoch, max(self.journal.number + 1, int(extra.get("next", 1))), asked)


class StateFolder:
    """Streams that go on where an earlier run of the program has left them, each in a folder of its own.

    ``every``: seconds between two snapshots of a stream. Close it behind the runtime: then all is on the disk.
    """

    def __init__(self, folder: Path, *, every: float = EVERY) -> None:
        self.folder, self.every = folder, every
        self.writer = SnapshotWriter()
        self._streams: dict[str, StreamFolder] = {}
        make_folder(folder)

    def stream(self, locator: str, name: str = "") -> StreamFolder:
        """The folder of a stream, with what an earlier run has left in it.

        ``locator``: of its source; it may hold a password. ``name``: of the stream, where one source has several.
        Raises as :class:`StreamFolder` does, and OptionError for two streams of one name.
        """
        shown = without_password(locator)
        key = folder_name(f"{name} {shown}" if name else shown)
        if key in self._streams:
            raise OptionError(f"two streams of {shown} would be kept in one folder; give each a name of its own")
        one = StreamFolder(self.folder / key, shown, self.writer, every=self.every, number=len(self._streams))
        self._streams[key] = one
        return one

    def start(self, runtime: Runtime, locator: str, open: Open, *, name: str = "", **options: Any) -> Stream | None:
        """:meth:`stream`, then :meth:`StreamFolder.start`."""
        return self.stream(locator, name).start(runtime, open, **options)

    @property
    def streams(self) -> tuple[StreamFolder, ...]:
        """Those that were asked for, in their order."""
        return tuple(self._streams.values())

    def close(self, timeout: float = PATIENCE) -> bool:
        """Wait until all is on the disk, and let all folders go; whether it is, within ``timeout`` seconds."""
        until = time.monotonic() + timeout
        done = self.writer.close(timeout)
        for one in self._streams.values():
            done &= one.close(max(until - time.monotonic(), 0.0))
        if not done:
            _LOG.warning("the disk is slow: the last snapshots may be missing in %s", self.folder)
        return done

    def __enter__(self) -> StateFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _again(past: Past, live: bool) -> list[tuple[float, Event]]:
    """What was done to a stream behind its snapshot, with the starts of the steps before which it is done again.

    An instruction that had come to no step yet goes with the first new one. A live stream has no such steps any more:
    all is done before its next one.
    """
    events = [event for event in past.told if isinstance(event, Instructed | InstructionUpdated | Rebased)]
    starts = {one.version: one.start for one in events if isinstance(one, InstructionUpdated) and one.start is not None}

    def due(event: Instructed | InstructionUpdated | Rebased) -> float:
        if live:
            return 0.0
        if isinstance(event, Rebased):
            return event.time
        return min((start for version, start in starts.items() if version >= event.version), default=past.said_until)

    # In the order of their steps; within one as they came.
    return sorted([*past.left, *((due(event), event) for event in events)], key=lambda one: one[0])


def _rules(running: Sequence[Stream]) -> dict[str, Any] | None:
    """Where the rules of the stream stand; None as long as it has none."""
    watchers = [stream.watcher for stream in running if stream.watcher is not None]
    return watchers[0].state() if watchers else None


def folder_name(text: str) -> str:
    """A name for a folder that no two streams share and that any file system takes."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[-60:]
    return f"{plain or 'stream'}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"


def without_password(locator: str) -> str:
    """A URL without user, password and the values of secret parameters; anything else as it is."""
    scheme, mark, rest = locator.partition("://")
    return f"{scheme}://{hide_parameters(rest.rpartition('@')[2])}" if mark else locator


def _gone_on(past: Past, source: Source | StepSource, until: float | None) -> tuple[Source | StepSource, list[Event]]:
    """The source of a stream that goes on, and what is told before its first step."""
    events: list[Event] = []
    lost = 0.0
    start = max(past.said_until, past.time)
    if source.live and past.began:  # else second 0 is still to come
        now, known = past.elapsed()
        lost = now - start
        events.append(Gap(start, now, NOT_RUNNING if known else CLOCK_UNKNOWN))
        began = time.monotonic()
        source = Shifted(source, by_clock(lambda: now + time.monotonic() - began, now), now, until)
    events.append(Resumed(past.time, lost, past.snapshot_age))
    events += [Answered(one.number, None, UNANSWERED) for one in past.unanswered]
    return source, events


def _moment(extra: Mapping[str, Any], said: Sequence[Commentary]) -> tuple[Moment | None, float]:
    """A moment, and the second of the stream that it was."""
    if "moment" in extra:
        return Moment(**extra["moment"]), float(extra["now"])
    if said:
        return Moment(said[-1].wall), said[-1].end + said[-1].timing.lag
    return None, 0.0
