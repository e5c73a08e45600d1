"""How many streams one device keeps real-time.

Model time: N streams have a step due at every multiple of ``step`` seconds. The steps of one moment are one round of
the engine; rounds run back to back on a virtual clock, on which a round begins when it is due and the one before is
done. So a round that takes 0.2 s of work costs 0.2 s and not a second, and what is late is as late as it would be.
"""

from __future__ import annotations

import gc
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil

import numpy as np
import torch

from ..core.errors import OptionError
from ..core.events import Chunk, Commentary, Delta, Event, Sink, Timing
from ..core.policy import StreamingWindow
from ..engine.session import Session
from ..models.base import Model
from ..runtime.clock import Pace
from ..runtime.reports import Metrics, how_it_ran, provenance
from ..runtime.runtime import Runtime, Stream
from .measure import STAGES, Step, percentile
from .setup import Made, Request, Synthetic

#: A stream is real-time while 95 of 100 of its steps are said within this many seconds of their last frame.
LIMIT = 1.0
#: Share of the free memory that caches may take.
SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Round:
    """One step of N streams: seconds until the last is done, when each was done, work by stage over all of them."""

    seconds: float
    done: tuple[float, ...]
    stages: dict[str, float]

    def without(self, stage: str) -> Round:
        """The same had ``stage`` been done elsewhere."""
        spared = self.stages[stage]
        return replace(self, seconds=self.seconds - spared, done=tuple(max(at - spared, 0.0) for at in self.done))


def verdict(rounds: Sequence[Round], step: float, limit: float = LIMIT) -> Metrics:
    """``{"lag_p95", "dropped", "real_time"}`` of rounds that are due every ``step`` seconds, on the virtual clock.

    A step is dropped, as a live source would, when the next one is due before it has begun.
    """
    free, dropped = 0.0, 0
    lags: list[float] = []
    for index, one in enumerate(rounds):
        due = index * step
        begins = max(due, free)
        dropped += int((begins - due) / step + 1e-9)
        lags += [begins + at - due for at in one.done]
        free = begins + one.seconds
    p95 = percentile(lags, 95)
    return {"lag_p95": p95, "dropped": dropped, "real_time": dropped == 0 and p95 < limit}


class RoundRecorder:
    """Puts the steps of ``count`` streams that run in lockstep together as rounds. A sink of each: :meth:`sink`."""

    def __init__(self, count: int) -> None:
        self.count = count
        #: Of every round: when its steps began, and (when it was done, its timing) of each stream.
        self._begun: list[list[float]] = []
        self._done: list[list[tuple[float, Timing]]] = []

    def sink(self) -> Sink:
        """The sink of one stream."""
        return _StepClock(self)

    def begin(self, number: int, moment: float) -> None:
        """Step ``number`` of one of the streams begins."""
        if number == len(self._begun):
            self._begun.append([])
            self._done.append([])
        self._begun[number].append(moment)

    def end(self, number: int, moment: float, timing: Timing) -> None:
        """Step ``number`` of one of the streams is done."""
        self._done[number].append((moment, timing))

    @property
    def rounds(self) -> list[Round]:
        """The rounds that are whole."""
        return [
            _round(min(b), done) for b, done in zip(self._begun, self._done, strict=True) if len(done) == self.count
        ]


class _StepClock:
    """A sink that notes when the steps of one stream begin and end."""

    def __init__(self, recorder: RoundRecorder) -> None:
        self._recorder = recorder
        self._number = 0

    def write(self, event: Event) -> None:
        now = time.perf_counter()
        if isinstance(event, Commentary):
            self._recorder.end(self._number, now, event.timing)
            self._number += 1
        elif isinstance(event, Delta) and not event.text:
            self._recorder.begin(self._number, now)

    def close(self) -> None: ...


def _round(began: float, done: Sequence[tuple[float, Timing]]) -> Round:
    moments = tuple(moment - began for moment, _ in done)
    return Round(max(moments), moments, {s: sum(getattr(timing, s) for _, timing in done) for s in STAGES})


@dataclass(slots=True)
class StreamBatch:
    """Streams of synthetic frames on one runtime; the first is warmed up, the others start as copies of it."""

    request: Request
    runtime: Runtime
    sessions: list[Session]
    frames: Synthetic
    rounds: int
    deadline: float | None = None
    on_trial: Callable[[int], None] = lambda _: None
    complete: bool = True
    trials: dict[int, list[Round]] = field(default_factory=dict)
    #: Why a number of streams could not be tried to its end.
    ended: dict[int, str] = field(default_factory=dict)
    on_trial_end: Callable[[], None] = lambda: None

    def run(self, count: int, rounds: int, *, until_dropped: bool = False) -> list[Round]:
        """So many steps of the first ``count`` streams, in lockstep; fewer behind the first that is dropped."""
        recorder = RoundRecorder(count)

        def go_on() -> bool:
            # The first round is not counted: it may load kernels.
            measured = recorder.rounds[1:]
            return not (until_dropped and measured and verdict(measured, self.request.step)["dropped"])

        def chunks(number: int, session: Session) -> Iterator[Chunk]:
            for _ in range(rounds):
                if not go_on():
                    return
                yield self.frames.chunk(7 * number + session.turn, session.time)

        def start() -> list[Stream]:
            sources = [Made(self.frames.name, chunks(i, s)) for i, s in enumerate(self.sessions[:count])]
            return [
                self.runtime.start(source, sinks=[recorder.sink()], pace=Pace.INLINE, session=session)
                for source, session in zip(sources, self.sessions, strict=False)
            ]

        full: list[torch.OutOfMemoryError] = []
        for stream in self.runtime.call(start):  # all of them before the first step
            try:
                stream.wait()
            except torch.OutOfMemoryError as error:
                full.append(error)
        if full:
            raise full[0]
        return recorder.rounds

    def watch(self, steps: int) -> list[Step]:
        """So many steps of the first stream alone."""
        return self.runtime.call(
            lambda: [Step.of(s.step(self.frames.chunk(s.turn, s.time))) for s in self.sessions[:1] * steps]
        )

    def trial(self, count: int) -> list[Round]:
        """Rounds of ``count`` streams behind one that is not counted; measured once, then remembered.

        It stops at the first dropped step: from there on the streams only fall further behind. Empty behind the
        deadline, and where the memory does not take so many streams.
        """
        if count in self.trials or self.late():
            return self.trials.get(count, [])
        self.on_trial(count)
        try:
            while len(self.sessions) < count:
                self.add()
            self.trials[count] = self.run(count, self.rounds + 1, until_dropped=True)[1:]
        except torch.OutOfMemoryError as error:
            self.trials[count], self.ended[count] = [], "out of memory"
            traceback.clear_frames(error.__traceback__)  # what was worked on is memory of the next trial
        self.on_trial_end()
        return self.trials[count]

    def figures(self) -> Metrics:
        """``trials``: what every number of streams that was tried to its end gave; ``ended``: why others were not."""
        tried = sorted(self.trials.items())
        return {
            "trials": {str(count): _trial(rounds, self.request.step) for count, rounds in tried if rounds},
            "ended": {str(count): why for count, why in self.ended.items()},
        }

    def late(self) -> bool:
        """Whether the deadline has passed; then :attr:`complete` is false."""
        if self.deadline is not None and time.perf_counter() > self.deadline:
            self.complete = False
        return not self.complete

    def real_time(self, count: int, without: str = "") -> bool:
        """Whether ``count`` streams are real-time, had the stage ``without`` been done elsewhere."""
        rounds = [one.without(without) for one in self.trial(count)] if without else self.trial(count)
        return bool(rounds) and bool(verdict(rounds, self.request.step)["real_time"])

    def add(self) -> None:
        """One more stream, in the state of the first."""
        first, number = self.sessions[0], len(self.sessions)

        def copied() -> Session:
            session = self.request.open_session(self.runtime.engine, first.options.policy, stream=number)
            session.copy_from(first)
            return session

        self.sessions.append(self.runtime.call(copied))

    def close(self) -> None:
        """Give everything back."""
        for session in self.sessions:
            self.runtime.call(session.close)
        self.runtime.close()


def steps_to_fill(session: Session) -> int:
    """Steps until the cache of a fresh stream is full: its turns, then its text window and what is left of the sink."""
    policy, tokens = session.options.policy, session.options.sampling.max_new_tokens
    if not isinstance(policy, StreamingWindow):
        raise OptionError("only the streaming policy has a cache that fills up and stays")
    known = len(session.options.context.encode())  # tokens of the stand-in tokenizer; a real one has fewer
    missing = max(policy.sink - known, 0) + policy.text
    return ceil(max(policy.turns, policy.vision) / session.options.step) + ceil(missing / tokens) + 2


def open_stream_batch(
    request: Request,
    model: Model,
    *,
    most: int,
    rounds: int,
    warm_up: int | None = None,
    deadline: float | None = None,
    on_trial: Callable[[int], None] = lambda _: None,
) -> StreamBatch:
    """Room for at most ``most`` streams, as many as the memory takes, and a first one that has filled its cache.

    ``warm_up``: steps that it runs first (None: until its cache is full). Close it.
    """
    if most < 1 or rounds < 1:
        raise OptionError(f"--most and --rounds must be 1 or more, not {most} and {rounds}")
    slots = max(min(most, _room(request, model)), 1)
    runtime = Runtime(request.make_engine(model, slots=slots), lockstep=True)
    try:
        opened = partial(request.open_session, runtime.engine, "streaming", context=request.full_sink(model))
        first = runtime.call(opened)
        frames = Synthetic(request.frame_size, request.fps, request.step, seed=request.seed)
        batch = StreamBatch(request, runtime, [first], frames, rounds, deadline, on_trial)
        batch.run(1, steps_to_fill(first) if warm_up is None else warm_up)
    except BaseException:
        runtime.close()
        raise
    return batch


def _room(request: Request, model: Model) -> int:
    """How many streams' caches fit into the memory that is free now."""
    _, probe = request.open(model)
    with probe:
        per_stream = probe.bytes_per_stream
    del _, probe
    gc.collect()  # its pool, and those of batches before it, must not count
    device = model.kv_shape.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(free * SHARE) // per_stream


def search(good: Callable[[int], bool], most: int) -> int:
    """The largest number up to ``most`` for which ``good`` holds (0: none): doubled until it fails, then bisected."""
    best, bad = 0, most + 1
    count = 1
    while best < most:
        count = min(count, most)
        if not good(count):
            bad = count
            break
        best, count = count, count * 2
    while bad - best > 1:
        middle = (best + bad) // 2
        best, bad = (middle, bad) if good(middle) else (best, middle)
    return best


def count_streams(batch: StreamBatch, batches: Sequence[int] = (1, 2, 4, 8)) -> Metrics:
    """Real-time streams of synthetic frames, and what a batch costs beside one stream. Closes the batch.

    ``streams``: with all work counted; ``streams_without_preprocess``: had the frames been cut into patches elsewhere;
    ``batches``: count -> seconds of a round and of its decoding, and their ratio to one stream's; ``trials``: what
    every count that was tried gave; ``ended``: counts whose trial did not come to its end, and why: those are not
    real-time; ``capture`` and ``kernels``: see :func:`how_it_ran`. Where the deadline came first, ``complete`` is false
    and the counts are lower bounds.
    """
    request, engine, first = batch.request, batch.runtime.engine, batch.sessions[0]
    slots = engine.slots
    with closing(batch):
        rounds = {count: batch.trial(count) for count in batches if count <= slots}
        streams = search(batch.real_time, slots)
        without = search(lambda count: batch.real_time(count, "preprocess"), slots)
        return {
            "streams": streams,
            "streams_without_preprocess": without,
            "all_slots": streams == slots,
            "slots": slots,
            "complete": batch.complete,
            "batches": _batches({count: measured for count, measured in rounds.items() if measured}),
            **batch.figures(),
            "time": "model time: rounds run back to back, lag is counted from due times",
            "lag_limit": LIMIT,
            "rows": first.state.timeline.cached,
            "bytes_per_stream": first.bytes_per_stream,
            "fps": request.fps,
            "size": list(request.frame_size),
            "tokens_per_step": first.options.sampling.max_new_tokens,
            "step": request.step,
            "model": request.model_name,
            **how_it_ran(engine),
            **provenance(engine.model.kv_shape.device),
        }


def _trial(rounds: Sequence[Round], step: float) -> Metrics:
    seconds = float(np.median([one.seconds for one in rounds]))
    stages = {stage: float(np.median([one.stages[stage] for one in rounds])) for stage in STAGES}
    return {"round_seconds": seconds, "stages": stages, **verdict(rounds, step)}


def _batches(trials: dict[int, list[Round]]) -> Metrics:
    """Median seconds of a round and of its decoding, and how many times one stream's that is."""
    out: Metrics = {}
    for count, rounds in trials.items():
        seconds = float(np.median([one.seconds for one in rounds]))
        decode = float(np.median([one.stages["decode"] for one in rounds]))
        base = out.get("1", {"seconds": seconds, "decode": decode})
        one_more = {
            "ratio": seconds / base["seconds"],
            "decode_ratio": decode / base["decode"] if base["decode"] else None,
        }
        out[str(count)] = {"seconds": seconds, "decode": decode, **one_more}
    return out
