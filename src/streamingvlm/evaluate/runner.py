"""Many streams of the arcade at once, free running: the model reads nothing but its own words.

All streams go in lockstep through one engine, a second of each in a round, so that their replies are decoded as one
batch. Sources and patches are made a little ahead in a thread each. Streams that were interrupted go on from their
snapshots, and so need not be at the same second as the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from arcade_streams.evaluate.match import Match

from ..core.errors import CapacityError, OutputError
from ..core.events import Chunk
from ..core.policy import make_policy
from ..engine.engine import Engine
from ..engine.session import Session
from ..engine.snapshot import restore, save, there_is
from ..models.base import Model
from ..runtime.clock import fast
from .features import Features, Seen
from .record import Record

#: Seconds of work between two snapshots, and how much of the time they may take at most.
SNAPSHOT_EVERY, SNAPSHOT_SHARE = 30.0, 0.05
#: A growing cache stops being real-time when a second of a stream took more than this many seconds, over a minute.
REAL_TIME, OVER = 1.0, 60

Progress = Callable[[float], None]


@dataclass(slots=True)
class Lane:
    """One stream on its way. ``seen``: its source, if that wants to know what the tower saw."""

    record: Record
    session: Session
    chunks: Iterator[Chunk]
    seen: Seen | None
    done: bool = False
    work: list[float] = field(default_factory=list)

    def too_slow(self) -> bool:
        """Whether the last minute took longer than it lasted."""
        last = self.work[-OVER:]
        return len(last) == OVER and sum(last) / OVER > REAL_TIME


@dataclass(frozen=True, slots=True)
class Watcher:
    """Watches matches with one model and one policy (as :func:`make_policy` takes it); records under ``folder``.

    ``fingerprint``: of the checkpoint's files. Words that were recorded with the same of all this are taken up.
    ``features``: where what the tower sees is kept, for policies that it is enough for (None: nowhere).
    """

    model: Model
    policy: str
    folder: Path
    fingerprint: str
    features: Features | None = None

    def settings(self, match: Match) -> dict[str, Any]:
        """All that the words of a match depend on."""
        shape = self.model.kv_shape
        return {
            "game": match.game,
            "seed": match.seed,
            "flipped": match.flipped,
            "stream": match.fingerprint(),
            "checkpoint": self.fingerprint,
            "weights": self.model.weights,
            "policy": repr(make_policy(self.policy, self.model.defaults.policy)),
            "sampling": repr(self.model.defaults.sampling),
            "dtype": str(shape.dtype).removeprefix("torch."),
            "device": shape.device.type,
        }

    def watch(self, matches: Sequence[Match], seconds: int, on_progress: Progress = lambda _: None) -> list[Record]:
        """What is said of the first ``seconds`` of every match, all of them in one batch.

        ``on_progress`` is told the seconds that are done, of all streams together. An interrupt leaves what was said
        and the last snapshots.
        """
        records = [Record(self.folder / f"{match.name}.jsonl", self.settings(match)) for match in matches]
        for record in records:
            record.load()
        left = [(m, r) for m, r in zip(matches, records, strict=True) if r.seconds < seconds and not r.stopped]
        if left:
            with ExitStack() as stack, torch.inference_mode():
                engine = Engine(self.model, slots=len(left))
                lanes = [self._open(stack, engine, match, record, seconds) for match, record in left]
                self._run(engine, lanes, lambda: on_progress(sum(min(r.seconds, seconds) for r in records)))
        for record in records:
            record.rows = [row for row in record.rows if row["end"] <= seconds]
        return records

    def _open(self, stack: ExitStack, engine: Engine, match: Match, record: Record, seconds: int) -> Lane:
        session = stack.enter_context(engine.open(policy=self.policy, context=match.context, stream=match.seed))
        if record.rows and there_is(record.snapshot):
            restore(session, engine.pool, record.snapshot)
            if session.time > record.seconds:
                raise OutputError(f"{record.path} ends before its snapshot; remove both to start the stream again")
        record.begin(session.time)
        seen = None
        if self.features is not None and self.features.enough_for(session):
            seen = self.features.seen(match, session, seconds)
        source = fast(seen) if seen else fast(match.source(seconds, session.time), session.prepare)
        lane = Lane(record, session, stack.enter_context(closing(iter(source))), seen)
        stack.callback(lambda: record.close(lane.done))
        return lane

    def _run(self, engine: Engine, lanes: Sequence[Lane], tell: Callable[[], None]) -> None:
        growing = any(lane.session.options.policy.seconds_left(0.0) is not None for lane in lanes)
        saved, pause = time.perf_counter(), SNAPSHOT_EVERY
        while running := [lane for lane in lanes if not lane.done]:
            self._round(engine, running)
            for lane in running:
                if growing and not lane.done and lane.too_slow():
                    lane.record.stop(f"slower than real time at {lane.session.time:g} s")
                    lane.done = True
            tell()
            if time.perf_counter() - saved > pause:
                began = time.perf_counter()
                for lane in running:
                    if not lane.done:
                        lane.record.sync()
                        save(lane.session, engine.pool, lane.record.snapshot)
                saved = time.perf_counter()
                pause = max(SNAPSHOT_EVERY, (saved - began) / SNAPSHOT_SHARE)

    def _round(self, engine: Engine, lanes: Sequence[Lane]) -> None:
        """A second of every stream."""
        jobs = []
        for lane in lanes:
            chunk = next(lane.chunks, None)
            if chunk is None:
                lane.done = True
                continue
            try:
                jobs.append((lane, engine.submit(lane.session, chunk)))
            except CapacityError:
                lane.record.stop(f"the cache is full at {lane.session.time:g} s")
                lane.done = True
        for lane, job in jobs:
            event = engine.wait(job)
            lane.record.add(event)
            if lane.seen is not None:
                lane.seen.keep(job)
            lane.work.append(event.timing.work / (event.end - event.start))
