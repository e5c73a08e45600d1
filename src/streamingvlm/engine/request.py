"""What a stream has to do, on its way through an engine: a step, or a question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from torch import Tensor

from ..core.events import Answer, Commentary, InstructionUpdated, Question, StepInput, Timing
from ..core.positions import FloatArray
from ..models.base import Prepared, Vision
from .open_turn import PrefillInput
from .stream import OpenStream


@dataclass(slots=True)
class Trace:
    """What a test or a check wants to see of one step; filled by the engine.

    ``retained``: tokens after eviction, before the new turn; ``prefill_positions``: (3, all tokens) at the prefill;
    ``tokens``: sampled ones; ``logits``: one (vocabulary,) float32 tensor per sampled token.
    """

    retained: list[int] = field(default_factory=list)
    prefill_positions: FloatArray = field(default_factory=lambda: np.zeros((3, 0), np.float32))
    tokens: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)


class Status(StrEnum):
    """How far a request has come. ``failed``: its ``error`` says why, and its stream stands as before the step."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class TurnRequest:
    """One turn on its way to a reply.

    ``step``: what it shows (None: nothing); ``ahead``: what was made of its frames, also what the tower sees in them as
    soon as that is known. ``prefill`` and ``rearchive``: what has to be prefilled, known when it is begun; ``visions``:
    what the tower sees in that. ``background``: it is worked on where that makes no live step wait; ``size``: tokens
    that it is expected to prefill there next; ``pieces``: what is to be prefilled behind ``prefill``; ``held`` and
    ``held_since``: seconds that it was held back before, and the moment (``time.perf_counter()``) since when it is now
    (None: it is not).
    """

    stream: OpenStream
    step: StepInput | None
    ahead: Prepared | None
    submitted: float
    on_text: Callable[[str], None] | None = None
    trace: Trace | None = None
    prefill: PrefillInput | None = None
    rearchive: PrefillInput | None = None
    visions: list[Vision] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    emitted_text: str = ""
    timing: Timing = field(default_factory=Timing)
    status: Status = Status.WAITING
    error: BaseException | None = None
    background: bool = False
    size: int = 0
    pieces: list[PrefillInput] = field(default_factory=list)
    held: float = 0.0
    held_since: float | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in (Status.DONE, Status.FAILED)

    @property
    def whole(self) -> bool:
        """Whether a reply follows: not to a part of a step, and not before the last piece."""
        return not self.pieces and (self.step is None or self.step.last)

    @property
    def span(self) -> tuple[float, float]:
        """Seconds that the reply is about."""
        if self.step is None:
            return self.stream.state.time, self.stream.state.time
        return self.step.chunk.start, self.step.chunk.end

    @property
    def due(self) -> float | None:
        """The moment at which the reply ends at the latest (``time.perf_counter()``; None: never)."""
        return self.step.arrival.due if self.step is not None else None

    def spend(self, stage: str, seconds: float) -> None:
        """Add work to a stage."""
        self.timing = self.timing.plus(**{stage: seconds})

    def to_prefill(self) -> PrefillInput:
        """What has to be prefilled; the request has been begun."""
        assert self.prefill is not None, "a request is begun before it is run"
        return self.prefill


@dataclass(slots=True, eq=False)
class StepRequest(TurnRequest):
    """One submitted step on its way to a commentary; a part of a step only on its way into the cache.

    ``result``: None for a part.
    """

    step: StepInput
    ahead: Prepared
    instructions: tuple[InstructionUpdated, ...] = ()
    result: Commentary | None = None


@dataclass(slots=True, eq=False)
class AskRequest(TurnRequest):
    """A question on its way to an answer, in a fork of its stream. With a ``step`` it is asked in that step's turn."""

    question: Question = field(default_factory=lambda: Question(""))
    result: Answer | None = None
