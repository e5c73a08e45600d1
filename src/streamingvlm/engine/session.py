"""The public face of one stream."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ..cache.kv_pool import KVPool
from ..core.errors import OptionError, SessionError
from ..core.events import Chunk, Commentary, Question, Rebased, StepInput
from ..core.grammar import LONGEST_STREAM
from ..models.base import Model, Prepared
from . import snapshot
from .options import INSTRUCTION_BUDGET, QUESTION_TOKENS, StreamOptions
from .request import StepRequest, Trace, TurnRequest
from .state import StreamState
from .stream import OpenStream


class EnginePort(Protocol):
    """What a session asks its engine for."""

    model: Model
    pool: KVPool

    def check_thread(self) -> None: ...
    def check_free(self, stream: OpenStream) -> None: ...
    def submit_stream(
        self,
        stream: OpenStream,
        step: StepInput,
        *,
        on_text: Callable[[str], None] | None = None,
        trace: Trace | None = None,
    ) -> StepRequest: ...
    def run_until(self, request: TurnRequest) -> None: ...
    def encode_ahead(self, prepared: Prepared) -> Prepared: ...
    def cancel(self, stream: OpenStream) -> None: ...
    def close_stream(self, stream: OpenStream) -> None: ...


class Session:
    """One stream. Made by :meth:`Engine.open`; ``with`` gives its slot back.

    A session and the sessions beside it share the model; all that a step changes is in :attr:`state` and in the
    stream's slot. Like its engine it is for one thread; only :meth:`prepare` may be called from another one.
    """

    def __init__(self, engine: EnginePort, stream: OpenStream) -> None:
        self.stream = stream
        self._engine = engine

    def step(
        self, item: Chunk | StepInput, *, on_text: Callable[[str], None] | None = None, trace: Trace | None = None
    ) -> Commentary:
        """Watch one chunk and say what happens in it.

        ``on_text`` receives new text as it comes; ``trace`` is filled with what a test wants to see. Raises
        ValueError for a chunk that does not follow the last one, :class:`CapacityError` for frames or steps larger
        than the session was opened for; then the stream stands as before the call. What is raised while the step is
        under way, also by ``on_text``, is raised here: then the stream stands as before the step, parts that were fed
        of it are to be fed again, and no other stream is touched.
        """
        step = replace(StepInput.of(item), last=True)
        request = self._engine.submit_stream(self.stream, step, on_text=on_text, trace=trace)
        self._engine.run_until(request)
        assert request.result is not None, "a whole step has a commentary"
        return request.result

    def submit(self, step: StepInput, *, on_text: Callable[[str], None] | None = None) -> StepRequest | None:
        """See :meth:`Engine.submit`. None for a part of a step where all that stays is prefilled anyway: it is kept."""
        if not step.last and self.options.recomputes:
            self.feed(step)
            return None
        return self._engine.submit_stream(self.stream, step, on_text=on_text)

    def dropped(self, step: StepInput) -> None:
        """A step that will not come: the model never sees it."""

    def feed(self, part: Chunk | StepInput) -> None:
        """Show a part of the coming step ahead, so that only the rest is left to do when its last frame is there.

        ``part``: whole temporal patches (:attr:`patch_frames` frames each); its start and end are the step's. The step
        is ended by :meth:`step` with the frames that are left. The text is the same. The step before must have ended.
        Raises what :meth:`step` raises.
        """
        step = replace(StepInput.of(part), last=False)
        if not self.options.recomputes:
            self._engine.run_until(self._engine.submit_stream(self.stream, step))
            return
        self._engine.check_free(self.stream)
        self.stream.planner.check(self.state, step)
        self.state.stashed = (*self.state.stashed, step.chunk)

    def abandon(self) -> None:
        """Give up the step that is under way or that parts were fed of: the stream stands as before it."""
        self._engine.cancel(self.stream)

    def prepare(self, item: Chunk | StepInput, *, encode: bool = False) -> StepInput:
        """``item`` with its patches, ready for the device: what a thread may do ahead of :meth:`step`.

        With ``encode`` the vision tower sees them as well, beside whatever the engine does meanwhile (on a GPU in a
        stream of its own). That is for one stream: of several it would be one call each in place of one for all. A
        policy that counts frames needs those of the step before, so nothing is done ahead for it.
        """
        step = StepInput.of(item)
        if self.options.newest_frames is not None:
            return step
        began = time.perf_counter()
        patches = self.stream.planner.patcher(step.chunk)
        if self._engine.model.kv_shape.device.type == "cuda":
            patches = replace(patches, pixels=patches.pixels.pin_memory())
        prepared = Prepared(patches, time.perf_counter() - began)
        if encode and not self.options.recomputes:
            prepared = self._engine.encode_ahead(prepared)
        return replace(step, prepared=prepared)

    def run(self, source: Iterable[Chunk]) -> Iterator[Commentary]:
        """Watch a source to its end."""
        for chunk in source:
            yield self.step(chunk)

    def instruct(self, text: str) -> int:
        """Replace the standing instruction, from the next step on; the version of the new one (the first is 1).

        The model is told the newest one. Every one is in :attr:`Commentary.instructions` of that step (of more than
        ``INSTRUCTIONS`` the last). Raises
        :class:`OptionError` for what is no text or has no words, :class:`CapacityError` for a text over its budget.
        """
        self.check_instruction(text)
        return self.state.instruct(text)

    def check_instruction(self, text: str) -> None:
        """Raise what :meth:`instruct` would raise."""
        self._engine.check_thread()
        if self.closed:
            raise SessionError("this session is closed; open another one")
        if not text.strip():
            raise OptionError("an instruction needs words; to open a stream without one, give instruction=''")
        self.stream.planner.check_budget("instruction", text, INSTRUCTION_BUDGET)

    def check_question(self, question: Question, answer_tokens: int) -> int:
        """See :meth:`StepPlanner.check_question`; a question has at most ``QUESTION_TOKENS``."""
        return self.stream.planner.check_question(question, QUESTION_TOKENS, answer_tokens)

    def rebase(self, shown: float, at: float | None = None) -> Rebased:
        """Start the time stamps anew: for second ``at`` of the stream (None: where its last step ended) the model is
        told ``shown`` from now on.

        All that the stream remembers stays, rows, positions and old stamps included; so do the times of its events,
        and what its policy keeps by the second. For streams that outlive the times that a checkpoint was trained on.
        Between two steps only (:class:`SessionError`). Raises :class:`OptionError` for a time that is no stamp, or a
        moment that is over.
        """
        self._engine.check_free(self.stream)
        if not self.state.between_steps:
            raise SessionError("a stream is rebased between two steps")
        if not (math.isfinite(shown) and 0 <= shown <= LONGEST_STREAM):
            raise OptionError(f"time stamps start anew from 0 to {LONGEST_STREAM:g} s, not {shown:g}")
        moment = self.time if at is None else at
        if not (math.isfinite(moment) and moment >= self.time - 1e-6):
            raise OptionError(f"the stream stands at {self.time:g} s; it cannot be rebased at {moment:g} s")
        self.state.time_offset = moment - shown
        return Rebased(moment, shown)

    @property
    def longest_time(self) -> float:
        """Seconds of a time stamp up to which the checkpoint knows them."""
        return self.model.defaults.longest_time

    def shown_time(self, time: float) -> float:
        """What the model is told in place of second ``time`` of the stream."""
        return self.state.shown_time(time)

    def save(self, path: Path) -> None:
        """Write the stream as it is between two steps: see :func:`streamingvlm.engine.snapshot.save`."""
        snapshot.save(self.stream, self.model, self._engine.pool, path)

    def take(self, extra: Mapping[str, Any] | None = None) -> snapshot.Taken:
        """Copy the stream as it is between two steps: see :func:`streamingvlm.engine.snapshot.take`."""
        return snapshot.take(self.stream, self.model, self._engine.pool, extra)

    def restore(self, path: Path) -> Path:
        """Take up a saved stream, opened in the same way: see :func:`streamingvlm.engine.snapshot.restore`."""
        return snapshot.restore(self.stream, self.model, self._engine.pool, path)

    def copy_from(self, other: Session) -> None:
        """Become the stream that ``other`` is between two of its steps: its text, positions and rows.

        Both are of one engine and were opened with the same policy and bound. Raises :class:`SessionError` for others,
        and within a step of either.
        """
        if not other.belongs_to(self._engine):
            raise SessionError("a stream of another engine cannot be copied: its rows are in another pool")
        if (other.options.policy, other.capacity) != (self.options.policy, self.capacity):
            raise SessionError("the stream to be copied was opened otherwise: policy and capacity must be the same")
        for session in (self, other):
            self._engine.check_free(session.stream)
            if not session.state.between_steps:
                raise SessionError("a stream is copied between two steps")
        self.stream.state = other.state.before_step()
        self._engine.pool.copy(other.stream.slot, self.stream.slot)

    def close(self) -> None:
        """Give the slot back; a step that is under way ends with an error. Safe to call twice."""
        self._engine.close_stream(self.stream)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def belongs_to(self, engine: EnginePort) -> bool:
        """Whether the stream's rows are in the pool of ``engine``."""
        return self._engine is engine

    @property
    def state(self) -> StreamState:
        """Where the stream stands."""
        return self.stream.state

    @property
    def options(self) -> StreamOptions:
        """What the stream was opened with."""
        return self.stream.options

    @property
    def model(self) -> Model:
        """The model that the stream runs on."""
        return self._engine.model

    @property
    def closed(self) -> bool:
        """Whether the slot was given back."""
        return self.stream.closed

    @property
    def context(self) -> str:
        """What is known before the video starts."""
        return self.options.context

    @property
    def version(self) -> int:
        """Of the newest instruction (0: the one that the stream was opened with)."""
        return self.state.version

    @property
    def between_steps(self) -> bool:
        """Whether no part of a step was fed of which the rest is still to come."""
        return self.state.between_steps

    @property
    def ready(self) -> bool:
        """Whether the stream takes a step: always, when the one before has ended."""
        return True

    @property
    def patch_frames(self) -> int:
        """Frames of one temporal patch: the least that :meth:`feed` takes."""
        return self.stream.planner.patcher.temporal

    @property
    def time(self) -> float:
        """Seconds: where the last step ended."""
        return self.state.time

    @property
    def turn(self) -> int:
        """Steps that have ended."""
        return self.state.turn

    @property
    def capacity(self) -> int:
        """Most rows that the stream can ever hold."""
        return self.stream.planner.capacity

    @property
    def bytes_per_stream(self) -> int:
        """Bytes of cache that this stream may use."""
        return self.capacity * self._engine.model.kv_shape.bytes_per_row

    @property
    def rows(self) -> dict[str, int]:
        """Tokens in the stream's text by kind, those that have no row yet included."""
        return self.stream.rows
