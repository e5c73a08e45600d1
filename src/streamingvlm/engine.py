"""Schedule, run, deliver: one loop for all live sessions together.

A step of a stream is: evict, encode the new frames, prefill the new turn, then decode until the turn ends. Prefill
runs stream by stream; decoding runs as one batch over every stream that is in the middle of a reply, so a session
may join and leave at any second. Batches are padded to fixed numbers of rows and every stream attends by itself, so
its words do not depend on who shares the batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from .errors import CapacityError, OptionError
from .events import Chunk, Commentary, Timing
from .kv import Batch, CosSin, KVPool
from .models.base import Deepstack, Model, Vision
from .models.patches import Patches
from .policy import CachePolicy, make_policy
from .rope import FloatArray
from .sampling import choose
from .session import Session, StreamOptions
from .spans import Kind, Span

#: Numbers of batch rows that decoding is padded to. On CPUs a product of 1 to 3 rows differs in the last bit.
BUCKETS = (4, 8, 16, 32, 64, 128)


@dataclass(slots=True)
class Trace:
    """What a test or a check wants to see of one step; filled by the engine.

    ``retained``: ids after eviction, before the new turn; ``prefill_positions``: (3, all ids) at the prefill;
    ``tokens``: sampled ids; ``logits``: one (vocabulary,) float32 tensor per sampled id.
    """

    retained: list[int] = field(default_factory=list)
    prefill_positions: FloatArray = field(default_factory=lambda: np.zeros((3, 0), np.float32))
    tokens: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Job:
    """One submitted chunk on its way to a commentary."""

    session: Session
    chunk: Chunk
    patches: Patches
    submitted: float
    on_text: Callable[[str], None] | None = None
    trace: Trace | None = None
    tokens: list[int] = field(default_factory=list)
    seen: Tensor | None = None
    said: str = ""
    timing: Timing = field(default_factory=Timing)
    result: Commentary | None = None

    def spend(self, stage: str, seconds: float) -> None:
        """Add work to a stage."""
        self.timing = replace(self.timing, **{stage: getattr(self.timing, stage) + seconds})


class Engine:
    """Runs any number of sessions, up to ``slots``, on one model.

    ``rows``: rows of a slot; by default the pool grows to the capacity of the largest session that is opened.
    """

    def __init__(self, model: Model, slots: int = 1, rows: int | None = None) -> None:
        self.model = model
        self.slots = slots
        self._fixed_rows = rows
        self._pool = KVPool(model.kv_shape, slots, rows or 1)
        self._waiting: list[Job] = []
        self._running: list[Job] = []

    @property
    def pool(self) -> KVPool:
        """The pool, for checks."""
        return self._pool

    def open(
        self,
        *,
        policy: CachePolicy | str = "streaming",
        context: str = "",
        instruction: str | None = None,
        seed: int = 0,
        stream: int = 0,
        temperature: float | None = None,
        max_new_tokens: int | None = None,
        fps: float = 2.0,
        step: float = 1.0,
        max_pixels: int | None = None,
    ) -> Session:
        """Open a stream.

        ``policy``: a policy, or what :func:`make_policy` takes; the checkpoint's own windows are its defaults.
        ``context``: what is known before the video starts; it goes into the sink. ``instruction``: the standing
        instruction (None: the checkpoint's). ``seed`` and ``stream`` fix the sampling noise. ``fps`` and ``step``
        (seconds) bound the frames of a chunk, ``max_pixels`` a frame's area after the resize (None: the checkpoint's).
        Raises :class:`CapacityError` when there is no free slot or a text is over its budget.
        """
        for name, value in (("fps", fps), ("step", step)):
            if not (value > 0 and math.isfinite(value)):
                raise OptionError(f"{name} must be a number above 0, not {value}")
        defaults = self.model.defaults
        if isinstance(policy, str):
            policy = make_policy(policy, defaults.policy)
        sampling = defaults.sampling
        if temperature is not None:
            sampling = replace(sampling, temperature=temperature)
        if max_new_tokens is not None:
            sampling = replace(sampling, max_new_tokens=max_new_tokens)
        wish = defaults.instruction if instruction is None else instruction
        options = StreamOptions(policy, sampling, context, wish, seed, stream, fps, step)
        return Session(self, options, self.model.patcher.with_budget(max_pixels))

    def admit(self, capacity: int) -> int:
        """A slot of at least ``capacity`` rows, for a session that opens."""
        if self._fixed_rows is not None and capacity > self._fixed_rows:
            raise CapacityError(f"the stream needs {capacity} rows; the engine was opened with {self._fixed_rows}")
        slot = self._pool.acquire()
        self._pool.grow(capacity)
        return slot

    def dismiss(self, session: Session) -> None:
        """Forget a session that closes, and what it had submitted."""
        self._waiting = [job for job in self._waiting if job.session is not session]
        self._running = [job for job in self._running if job.session is not session]
        self._pool.release(session.slot)

    def submit(
        self,
        session: Session,
        chunk: Chunk,
        *,
        on_text: Callable[[str], None] | None = None,
        trace: Trace | None = None,
    ) -> Job:
        """Hand in the next chunk of a session. One chunk per session is under way at a time."""
        session.check(chunk)
        if any(job.session is session for job in (*self._waiting, *self._running)):
            raise ValueError("this session's last chunk is still under way; wait for it first")
        submitted = time.perf_counter()
        # Here and not in `advance`: frames that cannot be used are the error of whoever handed them in.
        patches = session.patcher(chunk)
        job = Job(session, chunk, patches, submitted, on_text, trace)
        job.timing = Timing(decode=chunk.decode_seconds, patch=time.perf_counter() - submitted)
        self._waiting.append(job)
        return job

    def wait(self, job: Job) -> Commentary:
        """Run everybody's work until ``job`` is done."""
        while job.result is None:
            assert job in self._waiting or job in self._running, "a job that was dismissed never ends"
            self.advance()
        return job.result

    def advance(self) -> None:
        """One round: start what is waiting, then one more token for every reply under way."""
        while self._waiting:
            self._start(self._waiting.pop(0))
        if self._running:
            self._decode(list(self._running))

    def _start(self, job: Job) -> None:
        session, chunk = job.session, job.chunk
        begun = time.perf_counter()
        rows, kept = session.evict(chunk)
        self._pool.select(session.slot, rows, self._rotation(kept))
        if job.trace:
            job.trace.retained = session.timeline.tokens
        feed, numbers = session.begin_turn(chunk, job.patches.merged)
        evicted = time.perf_counter()
        vision = self.model.encode(job.patches)
        encoded = time.perf_counter()
        if job.trace:
            job.trace.prefill_positions = np.concatenate([kept, numbers], axis=1)
        embeds, deepstack = self._embed(feed, vision)
        batch = Batch.prefill(self._pool, session.slot, numbers.shape[1], self._rotation(numbers))
        hidden = self.model.forward(embeds[None], batch, deepstack)
        session.fed(numbers)
        job.seen = self._mark_seen(session)
        self._running.append(job)
        self._take(job, self.model.logits(hidden[0, -1]))
        prefilled = time.perf_counter()
        for stage, seconds in (
            ("evict", evicted - begun),
            ("vision", encoded - evicted),
            ("prefill", prefilled - encoded),
        ):
            job.spend(stage, seconds)
        self._deliver(job)

    def _decode(self, jobs: Sequence[Job]) -> None:
        begun = time.perf_counter()
        rows = next(size for size in (*BUCKETS, len(jobs)) if size >= len(jobs))
        tokens = torch.zeros(rows, dtype=torch.long)
        numbers = np.zeros((3, rows), np.float32)
        for row, job in enumerate(jobs):
            tokens[row] = job.tokens[-1]
            numbers[:, row : row + 1] = job.session.next_position()
        embeds = self.model.embed(tokens.to(self.model.kv_shape.device))
        slots = [job.session.slot for job in jobs]
        hidden = self.model.forward(embeds[:, None], Batch.decode(self._pool, slots, self._rotation(numbers)))
        logits = self.model.logits(hidden[:, 0])
        for row, job in enumerate(jobs):
            job.session.fed(numbers[:, row : row + 1])
            self._take(job, logits[row])
        share = (time.perf_counter() - begun) / len(jobs)
        for job in jobs:
            job.spend("words", share)
            self._deliver(job)

    def _take(self, job: Job, logits: Tensor) -> None:
        """Choose the next id of a reply and write it down."""
        session = job.session
        options = session.options
        assert job.seen is not None
        token = choose(logits, job.seen, options.sampling, (options.seed, options.stream, session.sampled))
        if job.trace:
            job.trace.logits.append(logits)
            job.trace.tokens.append(token)
        session.sampled += 1
        job.seen[token] = True
        job.tokens.append(token)
        session.write(job.chunk, job.tokens)
        if job.on_text:
            text = self.model.grammar.text(job.tokens)
            if len(text) > len(job.said) and not text.endswith("\N{REPLACEMENT CHARACTER}"):
                job.on_text(text[len(job.said) :])
                job.said = text

    def _deliver(self, job: Job) -> None:
        """Turn a reply that has ended into a commentary."""
        session, chunk = job.session, job.chunk
        ended = job.tokens[-1] in self.model.end_tokens
        if not ended and len(job.tokens) < session.options.sampling.max_new_tokens:
            return
        session.end_turn(chunk, job.tokens)
        self._running.remove(job)
        ready = chunk.ready_at if chunk.ready_at is not None else job.submitted
        job.timing = replace(job.timing, lag=time.perf_counter() - ready)
        job.result = Commentary(
            start=chunk.start,
            end=chunk.end,
            text=self.model.grammar.text(job.tokens),
            tokens=tuple(job.tokens),
            cut=not ended,
            timing=job.timing,
            rows=session.rows,
            capacity=session.capacity,
            dropped=chunk.dropped,
        )

    def _embed(self, feed: Sequence[Span], vision: Vision) -> tuple[Tensor, Deepstack | None]:
        """Embeddings (n, hidden) of what is fed, the pads of its video replaced by what was seen; and what else was."""
        device = self.model.kv_shape.device
        ids = [token for span in feed for token in span.tokens]
        embeds = self.model.embed(torch.tensor(ids, device=device)).clone()
        pads = torch.zeros(1, len(ids), dtype=torch.bool)
        at = 0
        for span in feed:
            if span.kind is Kind.VISION:
                pads[0, at + 1 : at + len(span) - 1] = True
            at += len(span)
        embeds[pads[0].nonzero()[:, 0].to(device)] = vision.embeds.to(embeds.dtype)
        return embeds, Deepstack(pads.to(device), vision.deepstack) if vision.deepstack else None

    def _mark_seen(self, session: Session) -> Tensor:
        """Which ids occur in the stream's text, (vocabulary,) bool; the repetition penalty is for them."""
        seen = torch.zeros(self.model.vocabulary, dtype=torch.bool)
        seen[torch.tensor(session.timeline.tokens)] = True
        return seen.to(self.model.kv_shape.device)

    def _rotation(self, numbers: FloatArray) -> CosSin:
        return self.model.rope.cos_sin(torch.from_numpy(np.ascontiguousarray(numbers)).to(self.model.kv_shape.device))
