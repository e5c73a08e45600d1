"""What goes in and what comes out: a chunk of video, a commentary event, and how long it took."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

#: Why a reply ended.
FinishReason = Literal["stop", "length", "deadline"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """One step of video.

    ``frames``: ``(n, height, width, 3)`` uint8 RGB, n >= 1. ``times``: n seconds from the stream's start, one per
    frame, not decreasing. The chunk covers ``start <= t < end``. ``read_seconds`` is the work that the source
    spent on making it; ``ready_at`` is the ``time.perf_counter()`` moment at which its last frame was there (None:
    unknown); ``dropped`` counts the steps that a live source skipped just before this one. ``due`` is the
    ``time.perf_counter()`` moment at which the next step is due (None: never): words that are not said by then are cut.
    ``prepared`` is what a session made of the frames ahead of its step, in the source's thread. ``last`` is false for a
    part of a step whose other frames are still to come: a session can be shown it ahead of the rest.
    """

    frames: NDArray[np.uint8]
    times: tuple[float, ...]
    start: float
    end: float
    read_seconds: float = 0.0
    ready_at: float | None = None
    dropped: int = 0
    due: float | None = None
    prepared: object = None
    last: bool = True

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or self.frames.dtype != np.uint8:
            raise ValueError(f"frames must be (n, height, width, 3) uint8, not {self.frames.shape} {self.frames.dtype}")
        if not self.frames.size:
            raise ValueError(f"frames must have pixels, not {self.frames.shape}")
        if len(self.times) != len(self.frames):
            raise ValueError(f"{len(self.frames)} frames but {len(self.times)} times; a chunk has one time per frame")
        if not all(map(math.isfinite, (self.start, self.end, *self.times))):
            raise ValueError(f"times are finite numbers of seconds, not {self.start}..{self.end} with {self.times}")
        if any(a > b for a, b in pairwise(self.times)):
            raise ValueError(f"the times of a chunk's frames must not decrease, not {self.times}")
        if not self.end > self.start:
            raise ValueError(f"a chunk must end after it starts, not {self.start}..{self.end}")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of work that one step took, by stage, and its lag.

    ``lag``: from the moment the step's last frame was there to its last word.
    """

    read: float = 0.0
    preprocess: float = 0.0
    evict: float = 0.0
    vision_encode: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    lag: float = 0.0

    @property
    def work(self) -> float:
        """Sum of all stages."""
        return self.read + self.preprocess + self.evict + self.vision_encode + self.prefill + self.decode

    def plus(self, **seconds: float) -> Timing:
        """The same with more work in some stages."""
        return replace(self, **{stage: getattr(self, stage) + more for stage, more in seconds.items()})


@dataclass(frozen=True, slots=True)
class InstructionUpdated:
    """The standing instruction of a stream was replaced.

    ``version`` counts from 1 (0 is the one that the stream was opened with). ``start``: seconds, the start of the step
    that the model is told it with; None if a later one came before that step: then the model never sees this one.
    """

    version: int
    text: str
    start: float | None


@dataclass(frozen=True, slots=True)
class Commentary:
    """The words for one step, with everything a view or a benchmark wants to know about it.

    ``text`` has no markup and is empty for a silent step; ``finish_reason`` is ``stop`` for a reply that ended
    by itself, ``length`` for one that reached ``max_new_tokens``, ``deadline`` for one that, live, had not ended when
    the next step was due.
    ``rows``: cache rows by kind after the step; ``capacity``: the bound that was reserved; ``dropped``: steps skipped
    just before this one because the stream was behind; ``instructions``: those that came since the step before, in
    order: the last one holds from this step on.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    finish_reason: FinishReason = "stop"
    timing: Timing = Timing()
    rows: Mapping[str, int] = field(default_factory=dict)
    capacity: int = 0
    dropped: int = 0
    instructions: tuple[InstructionUpdated, ...] = ()


@runtime_checkable
class Source(Protocol):
    """Anything that yields chunks of video in order.

    ``name`` is what a user would call it; ``context`` is what is known before the video starts (a file's title, the
    players of a match; "" if nothing); ``kind`` says what is shown, in a word that a checkpoint's config may name
    ("" if that is unknown); ``live`` is true when the frames come at their own pace and cannot be read faster.
    """

    name: str
    context: str
    kind: str
    live: bool

    def __iter__(self) -> Iterator[Chunk]: ...
