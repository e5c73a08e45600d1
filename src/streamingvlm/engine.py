"""Schedule, run, deliver: one loop for all live sessions together.

A step of a stream is: evict, encode the new frames, prefill the new turn, then decode until the turn ends. Prefill
runs stream by stream; decoding runs as one batch over every stream that is in the middle of a reply, so a session
may join and leave at any second. Batches are padded to fixed numbers of rows and every stream attends by itself, so
its words do not depend on who shares the batch.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import CapacityError, OptionError
from .events import Chunk, Commentary, Timing
from .graphs import CAPTURES, DecodeSteps
from .jobs import Job, Trace
from .kv import LEAST, Batch, CosSin, KVPool, Part, bucket
from .models.base import Deepstack, Model, Prepared, Vision
from .policy import CachePolicy, make_policy
from .rope import FloatArray
from .sampling import choose
from .session import Session, StreamOptions
from .turn import Feed


class Engine:
    """Runs any number of sessions, up to ``slots``, on one model.

    ``rows``: rows of a slot; by default the pool grows to the capacity of the largest session that is opened.
    ``capture``: how steps of decoding run: ``none``, one operation after the other; ``graph``, as CUDA graphs;
    ``compile``, through torch.compile (the first steps then take a minute). ``pool``: the class that keeps keys and
    values, another one for comparisons only.
    """

    def __init__(
        self,
        model: Model,
        slots: int = 1,
        rows: int | None = None,
        *,
        capture: str = "none",
        pool: type[KVPool] = KVPool,
    ) -> None:
        if capture not in CAPTURES:
            raise OptionError(f"capture must be one of {', '.join(CAPTURES)}, not {capture!r}")
        if capture == "graph" and model.kv_shape.device.type != "cuda":
            raise OptionError("CUDA graphs need a CUDA device; on this one decoding can be compiled")
        self.model = model
        self.slots = slots
        self._fixed_rows = rows
        self._pool = pool(model.kv_shape, slots, rows or 1)
        self._captured = None if capture == "none" else DecodeSteps(model, self._pool, capture)
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        #: The tower is asked by the engine and, ahead of it, by the threads of sources.
        self._tower = threading.Lock()
        self._beside: torch.cuda.Stream | None = None

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
        chunk = session.whole(chunk)
        session.check(chunk)
        if any(job.session is session for job in (*self._waiting, *self._running)):
            raise ValueError("this session's last chunk is still under way; wait for it first")
        submitted = time.perf_counter()
        # Here and not in `advance`: frames that cannot be used are the error of whoever handed them in.
        ahead = chunk.prepared
        if not isinstance(ahead, Prepared):
            ahead = Prepared(session.patcher(session.look(chunk)), time.perf_counter() - submitted)
        job = Job(session, chunk, ahead, submitted, on_text, trace)
        earlier = session.opened.timing if session.opened else Timing()
        job.timing = earlier.plus(decode=chunk.decode_seconds, patch=ahead.seconds, vision=ahead.vision_seconds)
        self._waiting.append(job)
        return job

    def feed(self, session: Session, part: Chunk) -> None:
        """See :meth:`Session.feed`."""
        part = replace(part, last=False)
        if session.options.policy.recompute:
            session.hold(part)
            return
        self._finish(self.submit(session, part))

    def wait(self, job: Job) -> Commentary:
        """Run everybody's work until ``job`` is done."""
        self._finish(job)
        assert job.result is not None, "a step that is not whole has no words"
        return job.result

    def _finish(self, job: Job) -> None:
        while not job.done:
            assert job in self._waiting or job in self._running, "a job that was dismissed never ends"
            self.advance()

    def advance(self) -> None:
        """One round: start what is waiting, then one more token for every reply under way."""
        if self._waiting:
            jobs, self._waiting = self._waiting, []
            self._start(jobs)
        if self._running:
            self._decode(list(self._running))

    def _start(self, jobs: Sequence[Job]) -> None:
        """Evict, encode and prefill the new turns of some streams together."""
        feeds = [self._begin(job) for job in jobs]
        visions = self._encode(jobs, feeds)
        # On a GPU one turn fills the device, and a product's last bit would depend on who else has a turn.
        together = self.model.kv_shape.device.type == "cpu"
        for group in [range(len(jobs))] if together else [range(i, i + 1) for i in range(len(jobs))]:
            self._prefill([jobs[i] for i in group], [feeds[i] for i in group], [visions[i] for i in group])
        for job in jobs:
            if job.chunk.last:
                self._deliver(job)
            else:
                opened = job.session.opened
                assert opened is not None
                opened.timing, job.done = job.timing, True

    def encode_ahead(self, prepared: Prepared) -> Prepared:
        """``prepared`` with what the tower sees in it; for a thread of its own, beside what the engine does."""
        with self._tower:
            began = time.perf_counter()
            device = self.model.kv_shape.device
            if device.type != "cuda":
                vision = self.model.encode([prepared.patches])[0]
            else:
                self._beside = self._beside or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
                with torch.cuda.stream(self._beside):
                    vision = self.model.encode([prepared.patches])[0]
                self._beside.synchronize()
        return replace(prepared, vision=vision, vision_seconds=time.perf_counter() - began)

    def _encode(self, jobs: Sequence[Job], feeds: Sequence[Feed]) -> list[list[Vision]]:
        """What is seen in each feed: in one call for all that was not encoded ahead."""
        begun = time.perf_counter()
        left = [index for index, job in enumerate(jobs) if job.ahead.vision is None]
        visions = [[] if job.ahead.vision is None else [_here(job.ahead.vision)] for job in jobs]
        if left:
            with self._tower:
                seen = iter(self.model.encode([patches for index in left for patches in feeds[index].patches]))
            for index in left:
                visions[index] = [next(seen) for _ in feeds[index].patches]
                if len(visions[index]) == 1:
                    jobs[index].ahead = replace(jobs[index].ahead, vision=visions[index][0])
            sizes = [sum(len(patches.pixels) for patches in feeds[index].patches) for index in left]
            self._spread("vision", begun, [jobs[index] for index in left], sizes)
        return visions

    def _begin(self, job: Job) -> Feed:
        """Evict where a turn begins, and append the turn or more of it: what has to be fed."""
        begun = time.perf_counter()
        session, chunk = job.session, job.chunk
        if session.opened is None:
            rows, kept = session.evict(chunk)
            self._pool.select(session.slot, rows, self._rotation(kept))
            if job.trace:
                job.trace.retained = session.timeline.tokens
        feed = session.show(chunk, job.ahead.patches)
        if job.trace:
            job.trace.prefill_positions = np.concatenate([session.positions, feed.positions], axis=1)
        job.spend("evict", time.perf_counter() - begun)
        return feed

    def _prefill(self, jobs: Sequence[Job], feeds: Sequence[Feed], visions: Sequence[Sequence[Vision]]) -> None:
        """One forward pass over the turns of some streams, one behind the other; then their first ids.

        Words that have moved into the history block are read once more in the same pass: in every layer their rows are
        written before the new turn looks at them.
        """
        begun = time.perf_counter()
        again = [(job.session.slot, feed) for job in jobs if (feed := job.session.again()) is not None]
        fed = [*((job.session.slot, feed) for job, feed in zip(jobs, feeds, strict=True)), *again]
        seen = [*visions, *[[]] * len(again)]
        embeds, pads = zip(*(self._embed(feed, own) for (_, feed), own in zip(fed, seen, strict=True)), strict=True)
        lasts = np.cumsum([part.shape[0] for part in embeds]).tolist()
        parts = [Part(slot, a, b, feed.at) for (slot, feed), a, b in zip(fed, [0, *lasts], lasts, strict=False)]
        deepstack = _deepstack(torch.cat(pads), [vision for own in visions for vision in own])
        numbers = np.concatenate([feed.positions for _, feed in fed], axis=1)
        hidden = self._forward(parts, torch.cat(embeds), numbers, deepstack)
        for job, feed in zip(jobs, feeds, strict=True):
            job.session.fed(feed.positions)
        if asked := [row for row, job in enumerate(jobs) if job.chunk.last]:
            for row in asked:
                jobs[row].seen = self._mark_seen(jobs[row].session)
                self._running.append(jobs[row])
            self._take([jobs[row] for row in asked], self.model.logits(hidden)[asked])
        self._spread("prefill", begun, jobs, [len(feed.tokens) for feed in feeds])

    def _decode(self, jobs: Sequence[Job]) -> None:
        begun = time.perf_counter()
        tokens = torch.tensor([job.tokens[-1] for job in jobs], device=self.model.kv_shape.device)
        numbers = np.concatenate([job.session.next_position() for job in jobs], axis=1)
        slots = [job.session.slot for job in jobs]
        if self._captured is not None:
            logits = self._captured.run(tokens, slots, self._rotation(numbers))
        else:
            parts = [Part(slot, row, row + 1) for row, slot in enumerate(slots)]
            logits = self.model.logits(self._forward(parts, self.model.embed(tokens), numbers))
        for row, job in enumerate(jobs):
            job.session.fed(numbers[:, row : row + 1])
        self._take(jobs, logits)
        self._spread("words", begun, jobs, [1] * len(jobs))
        for job in jobs:
            self._deliver(job)

    def _forward(
        self, parts: Sequence[Part], embeds: Tensor, numbers: FloatArray, deepstack: Deepstack | None = None
    ) -> Tensor:
        """Last hidden states (bucket, hidden) of each part's last token; ``numbers`` (3, n) are the positions."""
        count = len(embeds)
        missing = (bucket(count) if count == len(parts) else max(count, LEAST)) - count
        if missing:
            embeds = F.pad(embeds, (0, 0, 0, missing))
            numbers = np.pad(numbers, ((0, 0), (0, missing)))
        if deepstack is not None:
            pads = F.pad(deepstack.pads, (0, missing)).to(embeds.device)
            deepstack = Deepstack(pads, deepstack.features)
        return self.model.forward(embeds, Batch(self._pool, parts, self._rotation(numbers)), deepstack)

    def _spread(self, stage: str, begun: float, jobs: Sequence[Job], sizes: Sequence[int]) -> None:
        """Add the work since ``begun`` to a stage of each of ``jobs``, in parts as large as ``sizes``."""
        spent = time.perf_counter() - begun
        for job, size in zip(jobs, sizes, strict=True):
            job.spend(stage, spent * size / sum(sizes))

    def _take(self, jobs: Sequence[Job], logits: Tensor) -> None:
        """Choose the next id of each reply and write it down; ``logits`` (at least one row per job, vocabulary)."""
        logits = logits[: len(jobs)]
        seen = torch.stack([job.seen for job in jobs if job.seen is not None])
        options = [job.session.options for job in jobs]
        counters = [(o.seed, o.stream, job.session.sampled) for o, job in zip(options, jobs, strict=True)]
        tokens = choose(logits, seen, [o.sampling for o in options], counters)
        for row, (job, token) in enumerate(zip(jobs, tokens, strict=True)):
            if job.trace:
                job.trace.logits.append(logits[row])
            self._note(job, token)

    def _note(self, job: Job, token: int) -> None:
        session = job.session
        assert job.seen is not None
        if job.trace:
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
        sampling = session.options.sampling
        # Live, the words of a step end when the next one is due: they never pile up.
        late = chunk.due is not None and time.perf_counter() >= chunk.due
        full = late or len(job.tokens) >= sampling.max_new_tokens
        ended = job.tokens[-1] in self.model.end_tokens and (full or not sampling.forced)
        if not ended and not full:
            return
        session.end_turn(chunk, job.tokens)
        self._running.remove(job)
        ready = chunk.ready_at if chunk.ready_at is not None else job.submitted
        job.timing = replace(job.timing, lag=time.perf_counter() - ready)
        job.done = True
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

    def _embed(self, feed: Feed, visions: Sequence[Vision]) -> tuple[Tensor, Tensor]:
        """Embeddings (n, hidden) of what is fed, the pads of its video replaced by what was seen; and the pads (n,)."""
        device = self.model.kv_shape.device
        embeds = self.model.embed(torch.tensor(feed.tokens, device=device)).clone()
        pads = torch.from_numpy(feed.pads)
        if visions:
            seen = torch.cat([vision.embeds for vision in visions])
            embeds[pads.nonzero()[:, 0].to(device)] = seen.to(embeds.dtype)
        return embeds, pads

    def _mark_seen(self, session: Session) -> Tensor:
        """Which ids occur in the stream's text, (vocabulary,) bool; the repetition penalty is for them."""
        seen = torch.zeros(self.model.vocabulary, dtype=torch.bool)
        seen[torch.tensor(session.timeline.tokens)] = True
        return seen.to(self.model.kv_shape.device)

    def _rotation(self, numbers: FloatArray) -> CosSin:
        return self.model.rope.cos_sin(torch.from_numpy(np.ascontiguousarray(numbers)).to(self.model.kv_shape.device))


def _here(vision: Vision) -> Vision:
    """What was encoded in another stream of a GPU, for the use in this one."""
    for part in (vision.embeds, *vision.deepstack):
        if part.is_cuda:
            part.record_stream(torch.cuda.current_stream(part.device))
    return vision


def _deepstack(pads: Tensor, visions: Sequence[Vision]) -> Deepstack | None:
    """The deepstack features of all that is seen in one forward pass; ``pads`` (tokens,) says where it goes."""
    if not visions or not visions[0].deepstack:
        return None
    layers = zip(*(vision.deepstack for vision in visions), strict=True)
    return Deepstack(pads, tuple(torch.cat(parts) for parts in layers))
