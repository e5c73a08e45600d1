"""Schedule, run, deliver: one loop for all live sessions together.

A step of a stream is: evict, encode the new frames, prefill the new turn, then decode until the turn ends. Prefill
and decoding run as one batch over all streams that have the same to do, so a session may join and leave at any second.
Batches are padded to fixed numbers of rows and every stream attends by itself, so its words do not depend on who
shares the batch.

A fault stays in its stream. What can be refused is refused at ``submit``. Whatever is raised while a step is begun,
encoded, prefilled, decoded or delivered ends that request and puts its stream back where it was before the step; a
batch that raises is run again stream by stream, so that the others go on with the same words.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..cache.attention import MIN_ROWS, CosSin, bucket
from ..cache.batch import Batch, Segment
from ..cache.kv_pool import KVPool
from ..core.errors import CapacityError, OptionError, SessionError
from ..core.events import Chunk, Commentary, Timing
from ..core.policy import CachePolicy, make_policy
from ..core.positions import FloatArray
from ..core.sampling_params import Sampling
from ..models.base import Deepstack, Model, Prepared, Vision
from .decode_graph import CAPTURES, DecodeSteps
from .open_turn import PrefillInput
from .request import Status, StepRequest, Trace
from .sampler import choose
from .session import Before, Session, StreamOptions

T = TypeVar("T")
AT_WORK = "the engine is at work; a callback may open, close and instruct sessions, not run their steps"


class Engine:
    """Runs any number of sessions, up to ``slots``, on one model, for one thread.

    The thread is the first that opens a session; others are refused with a :class:`SessionError` as long as it lives.
    ``rows``: rows of a slot; by default the pool grows to the capacity of the largest session that is opened.
    ``capture``: how steps of decoding run: ``none``, one operation after the other; ``graph``, as CUDA graphs;
    ``compile``, through torch.compile (the first steps then take a minute). ``pool``: the class that keeps keys and
    values, another one for comparisons only.
    """

    #: What one forward pass is; another one for comparisons only.
    batch_class: type[Batch] = Batch

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
        #: Requests under way, in the order in which they came.
        self._jobs: list[StepRequest] = []
        self._thread: threading.Thread | None = None
        self._at_work = False
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
        sampling: Sampling | None = None,
        temperature: float | None = None,
        max_new_tokens: int | None = None,
        fps: float = 2.0,
        step: float = 1.0,
        max_pixels: int | None = None,
    ) -> Session:
        """Open a stream.

        ``policy``: a policy, or what :func:`make_policy` takes; the checkpoint's own windows are its defaults.
        ``context``: what is known before the video starts; it goes into the sink. ``instruction``: the standing
        instruction (None: the checkpoint's). ``sampling``: how replies are sampled (None: the checkpoint's way);
        ``temperature`` and ``max_new_tokens`` replace these two of its numbers. ``seed`` and ``stream`` fix the
        sampling noise. ``fps`` and ``step`` (seconds) bound the frames of a chunk, ``max_pixels`` a frame's area after
        the resize (None: the checkpoint's).
        Raises :class:`CapacityError` when there is no free slot or a text is over its budget, :class:`OptionError` for
        numbers that cannot be meant, :class:`SessionError` in a second thread.
        """
        self.check_thread()
        for name, value in (("fps", fps), ("step", step)):
            if not (value > 0 and math.isfinite(value)):
                raise OptionError(f"{name} must be a number above 0, not {value}")
        defaults = self.model.defaults
        if isinstance(policy, str):
            policy = make_policy(policy, defaults.policy)
        sampling = sampling or defaults.sampling
        if temperature is not None:
            sampling = replace(sampling, temperature=temperature)
        if max_new_tokens is not None:
            sampling = replace(sampling, max_new_tokens=max_new_tokens)
        text = defaults.instruction if instruction is None else instruction
        options = StreamOptions(policy, sampling, context, text, seed, stream, fps, step)
        return Session(self, options, self.model.patcher.with_budget(max_pixels))

    def check_thread(self) -> None:
        """Raise :class:`SessionError` in another thread than the one that the engine works for."""
        thread = threading.current_thread()
        if self._thread is None or not self._thread.is_alive():
            self._thread = thread
        if self._thread is not thread:
            raise SessionError(
                f"an engine and its sessions are for one thread, here {self._thread.name!r}; {thread.name!r} needs an "
                "engine of its own (they may share the model)"
            )

    def admit(self, capacity: int) -> int:
        """A slot of at least ``capacity`` rows, for a session that opens."""
        if self._fixed_rows is not None and capacity > self._fixed_rows:
            raise CapacityError(f"the stream needs {capacity} rows; the engine was opened with {self._fixed_rows}")
        slot = self._pool.acquire()
        try:
            self._pool.grow(capacity)
        except BaseException:
            self._pool.release(slot)
            raise
        return slot

    def dismiss(self, session: Session) -> None:
        """Forget a session that closes; what it had submitted ends with an error."""
        self.check_thread()
        for job in [job for job in self._jobs if job.session is session]:
            self._end(job, SessionError("the session was closed before its step had ended"))
        if not session.closed:
            session.closed = True
            session.before = None
            self._pool.release(session.slot)

    def submit(
        self,
        session: Session,
        chunk: Chunk,
        *,
        on_text: Callable[[str], None] | None = None,
        trace: Trace | None = None,
    ) -> StepRequest:
        """Hand in the next chunk of a session. One chunk per session is under way at a time.

        Whatever can be refused is refused here, and then nothing has changed: what :meth:`Session.step` raises.
        """
        self._check_free(session)
        session.check(chunk)
        chunk = session.whole(chunk)
        submitted = time.perf_counter()
        ahead, shown = chunk.prepared, session.look(chunk)
        if isinstance(ahead, Prepared):
            session.check_prepared(ahead, len(shown.frames))
        else:
            ahead = Prepared(session.patcher(shown), time.perf_counter() - submitted)
        session.check_patches(ahead.patches, len(shown.frames))
        job = StepRequest(session, chunk, ahead, submitted, on_text, trace)
        opened = session.state.opened
        earlier = opened.timing if opened else Timing()
        job.timing = earlier.plus(read=chunk.read_seconds, preprocess=ahead.seconds, vision_encode=ahead.vision_seconds)
        self._jobs.append(job)
        return job

    def feed(self, session: Session, part: Chunk) -> None:
        """See :meth:`Session.feed`."""
        part = replace(part, last=False)
        if session.options.recomputes:
            self._check_free(session)
            session.hold(part)
            return
        self._finish(self.submit(session, part))

    def abandon(self, session: Session) -> None:
        """See :meth:`Session.abandon`."""
        self._check_free(session)
        session.state.held = ()
        self._undo(session)

    def wait(self, job: StepRequest) -> Commentary:
        """Run everybody's work until ``job`` is done. Raises what ended it, if it failed."""
        self._finish(job)
        assert job.result is not None, "a step that is not whole has no words"
        return job.result

    def _check_free(self, session: Session) -> None:
        """Whether something may be handed in for a session."""
        self.check_thread()
        if self._at_work:
            raise SessionError(AT_WORK)
        if any(job.session is session for job in self._jobs):
            raise ValueError("this session's last chunk is still under way; wait for it first")

    def _finish(self, job: StepRequest) -> None:
        while not job.done:
            if job not in self._jobs:
                raise SessionError("this step was handed in to another engine")
            self.advance()
        if job.error is not None:
            raise job.error

    def advance(self) -> None:
        """One round: start what is waiting, then one more token for every reply under way.

        A request that fails is not raised here: its ``status`` and ``error`` say so, and :meth:`wait` raises it. An
        interrupt (KeyboardInterrupt, SystemExit) is, and ends all requests that are under way.
        """
        with self._working():
            if waiting := [job for job in self._jobs if job.status is Status.WAITING]:
                self._start(waiting)
            if running := [job for job in self._jobs if job.status is Status.RUNNING]:
                for job, (token, logits) in self._each(running, self._decode):
                    job.session.fed(job.session.next_position())
                    self._say(job, token, logits)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """A round of work; not within another one."""
        self.check_thread()
        if self._at_work:
            raise SessionError(AT_WORK)
        self._at_work = True
        try:
            yield
        except BaseException as error:
            # An interrupt is told once, by this call: whoever waits for another request is not interrupted again.
            for job in list(self._jobs):
                self._end(job, SessionError(f"the step was ended by {type(error).__name__}"))
            raise
        finally:
            self._at_work = False

    def _each(
        self, jobs: Sequence[StepRequest], run: Callable[[Sequence[StepRequest]], Sequence[T]]
    ) -> Iterator[tuple[StepRequest, T]]:
        """What ``run`` gives for each of ``jobs``, run as one batch, or one by one if the batch raises.

        ``run`` changes nothing but rows behind a slot's length and the length. Requests that it raises for alone fail;
        those that end while others are dealt with (a callback may close them) are left out.
        """
        jobs = [job for job in jobs if not job.done]
        lengths = [(job.session.slot, self._pool.length[job.session.slot]) for job in jobs]
        results: Sequence[T] = ()
        try:
            results = run(jobs) if jobs else ()
        except Exception as error:
            for slot, length in lengths:
                self._pool.rewind(slot, length)
            if len(jobs) > 1:
                for job in jobs:
                    yield from self._each([job], run)
                return
            self._end(jobs[0], error)
            return
        for job, result in zip(jobs, results, strict=True):
            if not job.done:
                yield job, result

    def _end(self, job: StepRequest, error: BaseException | None = None) -> None:
        """A request has ended; with an ``error`` its stream goes back to where it was before the step."""
        if job.done:
            return
        self._jobs.remove(job)
        job.status, job.error = (Status.DONE if error is None else Status.FAILED), error
        if error is None:
            if job.chunk.last:
                job.session.before = None
            return
        try:
            self._undo(job.session)
        except Exception as problem:
            error.add_note(f"its session is closed, since the stream could not be put back: {problem}")
            job.session.closed = True
            self._pool.release(job.session.slot)

    def _undo(self, session: Session) -> None:
        """Put a stream back where it was before the step under way."""
        before, session.before = session.before, None
        if before is None:
            return
        if before.evicted is None:
            self._pool.rewind(session.slot, before.state.timeline.cached)
        else:
            self._pool.put_back(session.slot, before.evicted, self._rotation(before.state.positions))
        session.state = before.state.with_instructions_of(session.state)

    def _start(self, jobs: Sequence[StepRequest]) -> None:
        """Evict, encode and prefill the new turns of some streams."""
        begun = [job for job in jobs for job, _ in self._each([job], self._begin)]
        begun = [job for job, _ in self._each(begun, self._encode)]
        # On a GPU one turn fills the device, and a product's last bit would depend on who else has a turn.
        together = self.model.kv_shape.device.type == "cpu"
        for group in [begun] if together else [[job] for job in begun]:
            for job, first in self._each(group, self._prefill):
                session = job.session
                assert job.feed is not None
                session.fed(job.feed.positions)
                if first is None:
                    assert session.state.opened is not None
                    session.state.opened.timing = job.timing
                    self._end(job)
                else:
                    job.status = Status.RUNNING
                    self._say(job, *first)

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

    def _begin(self, jobs: Sequence[StepRequest]) -> list[None]:
        """Evict where the turn of a single request begins, and append the turn or more of it: what has to be fed."""
        begun = time.perf_counter()
        (job,) = jobs
        session, chunk = job.session, job.chunk
        if session.state.opened is None:
            session.before = Before(session.state.before_step())
            rows, kept, renewed = session.evict(chunk)
            if session.options.recomputes:
                # Nothing is read again of the rows that are there; what was fed is fed anew in any case.
                session.before.state.forget()
                self._pool.rewind(session.slot, 0)
            else:
                self._pool.select(session.slot, rows, self._rotation(kept), renewed, session.keep)
            job.again = session.again(renewed)
            if job.trace:
                job.trace.retained = session.state.timeline.tokens
        job.feed, job.told = session.show(chunk, job.ahead.patches)
        if job.trace:
            job.trace.prefill_positions = np.concatenate([session.state.positions, job.feed.positions], axis=1)
        job.spend("evict", time.perf_counter() - begun)
        return [None]

    def _encode(self, jobs: Sequence[StepRequest]) -> list[None]:
        """What is seen in each feed: in one call for all that was not encoded ahead."""
        begun = time.perf_counter()
        left = [job for job in jobs if job.ahead.vision is None]
        feeds = [_feed(job) for job in left]
        if left:
            with self._tower:
                seen = iter(self.model.encode([patches for feed in feeds for patches in feed.patches]))
            visions = [[next(seen) for _ in feed.patches] for feed in feeds]
            sizes = [sum(len(patches.pixels) for patches in feed.patches) for feed in feeds]
            self._spread("vision_encode", begun, left, sizes)
            for job, own in zip(left, visions, strict=True):
                job.visions = own
                if len(own) == 1:
                    job.ahead = replace(job.ahead, vision=own[0])
        for job in jobs:
            if job not in left and job.ahead.vision is not None:
                job.visions = [_here(job.ahead.vision)]
        return [None] * len(jobs)

    def _prefill(self, jobs: Sequence[StepRequest]) -> list[tuple[int, Tensor] | None]:
        """One forward pass over the turns of some streams, one behind the other; the first id of each with its logits.

        Words that have moved into the history block are read once more in the same pass: in every layer their rows are
        written before the new turn looks at them. A part of a step has no id.
        """
        begun = time.perf_counter()
        again = [(job.session.slot, job.again) for job in jobs if job.again is not None]
        fed = [*((job.session.slot, _feed(job)) for job in jobs), *again]
        seen = [*(job.visions for job in jobs), *[[]] * len(again)]
        embeds, pads = zip(*(self._embed(feed, own) for (_, feed), own in zip(fed, seen, strict=True)), strict=True)
        lasts = np.cumsum([part.shape[0] for part in embeds]).tolist()
        parts = [Segment(slot, a, b, feed.at) for (slot, feed), a, b in zip(fed, [0, *lasts], lasts, strict=False)]
        deepstack = _deepstack(torch.cat(pads), [vision for own in seen for vision in own])
        numbers = np.concatenate([feed.positions for _, feed in fed], axis=1)
        hidden = self._forward(parts, torch.cat(embeds), numbers, deepstack)
        out: list[tuple[int, Tensor] | None] = [None] * len(jobs)
        if asked := [row for row, job in enumerate(jobs) if job.chunk.last]:
            for row in asked:
                jobs[row].seen = self._mark_seen(jobs[row].session)
            chosen = self._choose([jobs[row] for row in asked], self.model.logits(hidden)[asked])
            for row, first in zip(asked, chosen, strict=True):
                out[row] = first
        self._spread("prefill", begun, jobs, [len(_feed(job).tokens) for job in jobs])
        return out

    def _decode(self, jobs: Sequence[StepRequest]) -> list[tuple[int, Tensor]]:
        """One more id of some replies, with its logits (vocabulary,)."""
        begun = time.perf_counter()
        tokens = torch.tensor([job.tokens[-1] for job in jobs], device=self.model.kv_shape.device)
        numbers = np.concatenate([job.session.next_position() for job in jobs], axis=1)
        slots = [job.session.slot for job in jobs]
        if self._captured is not None:
            logits = self._captured.run(tokens, slots, self._rotation(numbers))
        else:
            parts = [Segment(slot, row, row + 1) for row, slot in enumerate(slots)]
            logits = self.model.logits(self._forward(parts, self.model.embed(tokens), numbers))
        chosen = self._choose(jobs, logits)
        self._spread("decode", begun, jobs, [1] * len(jobs))
        return chosen

    def _forward(
        self, parts: Sequence[Segment], embeds: Tensor, numbers: FloatArray, deepstack: Deepstack | None = None
    ) -> Tensor:
        """Last hidden states (bucket, hidden) of each part's last token; ``numbers`` (3, n) are the positions."""
        count = len(embeds)
        missing = (bucket(count) if count == len(parts) else max(count, MIN_ROWS)) - count
        if missing:
            embeds = F.pad(embeds, (0, 0, 0, missing))
            numbers = np.pad(numbers, ((0, 0), (0, missing)))
        if deepstack is not None:
            pads = F.pad(deepstack.pads, (0, missing)).to(embeds.device)
            deepstack = Deepstack(pads, deepstack.features)
        return self.model.forward(embeds, self.batch_class(self._pool, parts, self._rotation(numbers)), deepstack)

    def _spread(self, stage: str, begun: float, jobs: Sequence[StepRequest], sizes: Sequence[int]) -> None:
        """Add the work since ``begun`` to a stage of each of ``jobs``, in parts as large as ``sizes``."""
        spent = time.perf_counter() - begun
        for job, size in zip(jobs, sizes, strict=True):
            job.spend(stage, spent * size / sum(sizes))

    def _choose(self, jobs: Sequence[StepRequest], logits: Tensor) -> list[tuple[int, Tensor]]:
        """The next id of each reply, with its logits; ``logits`` (at least one row per job, vocabulary)."""
        logits = logits[: len(jobs)]
        seen = torch.stack([job.seen for job in jobs if job.seen is not None])
        options = [job.session.options for job in jobs]
        counters = [(o.seed, o.stream, job.session.state.sampled) for o, job in zip(options, jobs, strict=True)]
        return list(zip(choose(logits, seen, [o.sampling for o in options], counters), logits, strict=True))

    def _say(self, job: StepRequest, token: int, logits: Tensor) -> None:
        """One more id of a reply has been chosen: note it, tell its text, deliver the reply if it has ended."""
        try:
            self._note(job, token, logits)
            if not job.done:  # a callback may have closed the session
                self._deliver(job)
        except Exception as error:
            self._end(job, error)

    def _note(self, job: StepRequest, token: int, logits: Tensor) -> None:
        session = job.session
        assert job.seen is not None
        if job.trace:
            job.trace.logits.append(logits)
            job.trace.tokens.append(token)
        session.state.sampled += 1
        job.seen[token] = True
        job.tokens.append(token)
        session.write(job.chunk, job.tokens)
        if job.on_text:
            text = self.model.grammar.text(job.tokens)
            if len(text) > len(job.said) and not text.endswith("\N{REPLACEMENT CHARACTER}"):
                said, job.said = job.said, text
                job.on_text(text[len(said) :])

    def _deliver(self, job: StepRequest) -> None:
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
        ready = chunk.ready_at if chunk.ready_at is not None else job.submitted
        job.timing = replace(job.timing, lag=time.perf_counter() - ready)
        job.result = Commentary(
            start=chunk.start,
            end=chunk.end,
            text=self.model.grammar.text(job.tokens),
            tokens=tuple(job.tokens),
            finish_reason="stop" if ended else "deadline" if late else "length",
            timing=job.timing,
            rows=session.rows,
            capacity=session.capacity,
            dropped=chunk.dropped,
            instructions=job.told,
        )
        self._end(job)

    def _embed(self, feed: PrefillInput, visions: Sequence[Vision]) -> tuple[Tensor, Tensor]:
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
        seen[torch.tensor(session.state.timeline.tokens)] = True
        return seen.to(self.model.kv_shape.device)

    def _rotation(self, numbers: FloatArray) -> CosSin:
        return self.model.rope.cos_sin(torch.from_numpy(np.ascontiguousarray(numbers)).to(self.model.kv_shape.device))


def _feed(job: StepRequest) -> PrefillInput:
    assert job.feed is not None, "a request is begun before it is run"
    return job.feed


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
