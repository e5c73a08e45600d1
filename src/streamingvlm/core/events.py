"""What goes into a stream and what comes out: chunks of video, events, and how long a step took. All frozen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .errors import EndpointFailure

#: Why a reply ended.
FinishReason = Literal["stop", "length", "deadline"]
#: Where a live source stands.
SourceState = Literal["connecting", "running", "stalled", "reconnecting", "ended"]
#: What has gone wrong at a live source ("": nothing). ``stalled``: connected, but no frame comes; ``ended``: it has
#: closed by itself; ``format``: what it sends is no video, or one that cannot be read.
SourceCode = Literal[
    "", "refused", "timeout", "dns", "auth", "not_found", "tls", "no_video", "codec", "stalled", "ended", "format"
]
#: What a rule's alert tells.
AlertKind = Literal["raised", "updated", "cleared"]
#: What a rule was found to be.
Verdict = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is seen in one step.

    ``frames``: ``(n, height, width, 3)`` uint8 RGB, n >= 1. ``times``: n seconds from the stream's start, one per
    frame, not decreasing. The chunk covers ``start <= t < end``. ``read_seconds``: the work that its source spent on
    making it. ``wall``: the wall clock at ``start``, seconds since 1970 in UTC (None: a recording). Raises ValueError
    for anything else.
    """

    frames: NDArray[np.uint8]
    times: tuple[float, ...]
    start: float
    end: float
    read_seconds: float = 0.0
    wall: float | None = None

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
class Arrival:
    """How a chunk has come. Moments are those of ``time.perf_counter()``.

    ``ready_at``: when its last frame was there (None: unknown); ``due``: when the next step is due (None: never), a
    reply ends there; ``dropped``: steps that were skipped just before this one.
    """

    ready_at: float | None = None
    due: float | None = None
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class StepInput:
    """What an engine takes: a chunk, how it came, and what was made of it ahead.

    ``prepared``: what :meth:`Session.prepare` made of the frames; ``last`` is false for a part of a step whose other
    frames are still to come.
    """

    chunk: Chunk
    arrival: Arrival = Arrival()
    prepared: object = None
    last: bool = True

    @staticmethod
    def of(item: Chunk | StepInput) -> StepInput:
        """``item``, or what an engine takes of a chunk that came by itself."""
        return item if isinstance(item, StepInput) else StepInput(item)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What all events have.

    ``id``: of this event, ``EPOCH-NUMBER``; numbers of a stream count from 1 without holes, and go on where a stream
    was resumed ("": a delta, or not told by a runtime). ``wall``: when it was told, seconds since 1970 in UTC.
    """

    id: str = field(default="", compare=False)
    wall: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class SourceStatus(Told):
    """A live source has come to another state.

    ``code``: what has gone wrong, with ``reason`` as one line without any password; ``tries``: how often it was opened
    since it last ran; ``retry_in``: seconds until it is opened again (None: it is not).
    """

    state: SourceState
    code: SourceCode = ""
    reason: str = ""
    tries: int = 0
    retry_in: float | None = None


@dataclass(frozen=True, slots=True)
class SourceFormat(Told):
    """What a live source sends, told when it begins and whenever it changes.

    ``width``, ``height``: of the upright picture, pixels; ``codec``: FFmpeg's name; ``rate``: frames a second as the
    source tells (0: it does not).
    """

    width: int
    height: int
    codec: str
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Gap(Told):
    """Nothing was seen from ``start`` to ``end`` seconds; ``reason``: why, as a code or in words."""

    start: float
    end: float
    reason: str


@dataclass(frozen=True, slots=True)
class Instructed(Told):
    """Another standing instruction was taken on, and holds from the next step on; :class:`InstructionUpdated` follows
    there. ``version``: counts from 1; ``time``: of the stream."""

    version: int
    text: str
    time: float


@dataclass(frozen=True, slots=True)
class InstructionUpdated(Told):
    """The standing instruction of a stream was replaced.

    ``version`` counts from 1 (0 is the one that the stream was opened with). ``start``: seconds, the start of the step
    that the model is told it with; None if a later one came before that step: then the model never sees this one.
    """

    version: int
    text: str
    start: float | None


@dataclass(frozen=True, slots=True)
class Delta(Told):
    """More text of the reply to the step from ``start`` to ``end`` seconds; the first, empty, says that it begins."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Commentary(Told):
    """The words for one step, with everything a view or a benchmark wants to know about it.

    ``text`` has no markup and is empty for a silent step; ``finish_reason`` is ``stop`` for a reply that ended
    by itself, ``length`` for one that reached ``max_new_tokens``, ``deadline`` for one that, live, had not ended when
    the next step was due.
    ``rows``: cache rows by kind after the step; ``capacity``: the bound that was reserved; ``dropped``: steps skipped
    just before this one because the stream was behind; ``instructions``: those that came since the step before, in
    order: the last one holds from this step on; ``wall_start``: the wall clock at ``start``, seconds since 1970 in UTC
    (None: a recording).
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
    wall_start: float | None = None


@dataclass(frozen=True, slots=True)
class StepFailed(Told):
    """There are no words for the step from ``start`` to ``end`` seconds; the stream goes on.

    Text that was told of it before (:class:`Delta`) does not count. ``code``: what has gone wrong, with ``reason`` as
    one line; ``dropped``: steps skipped just before this one; ``retry_in``: seconds until the next step is tried;
    ``tries``: steps that have failed since one last succeeded, this one included.
    """

    start: float
    end: float
    code: EndpointFailure
    reason: str
    dropped: int = 0
    retry_in: float = 0.0
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Question:
    """Something that a stream is asked beside its commentary.

    ``prefix``: what the reply begins with. With ``options`` no reply is generated: each option is weighed as what would
    follow; ``as_commentary``: it stands between the marks that the model puts around its words. ``max_new_tokens``:
    most of a reply that is generated.
    """

    text: str
    options: tuple[str, ...] = ()
    prefix: str = ""
    as_commentary: bool = False
    max_new_tokens: int = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to a question that was asked at ``time``, seconds from the stream's start.

    ``text``: the reply, or the likeliest option. ``logprobs``: of each option, the sum over its tokens, in nats.
    """

    question: Question
    time: float
    text: str
    tokens: tuple[int, ...] = ()
    finish_reason: FinishReason = "stop"
    logprobs: tuple[float, ...] = ()
    timing: Timing = Timing()

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Of each option, if one of them had to follow."""
        most = max(self.logprobs, default=0.0)
        weights = [math.exp(one - most) for one in self.logprobs]
        return tuple(weight / sum(weights) for weight in weights)


@dataclass(frozen=True, slots=True)
class Asked(Told):
    """A question was taken on. ``number``: of the question, counting from 1 in its stream; ``time``: of the stream."""

    number: int
    text: str
    time: float


@dataclass(frozen=True, slots=True)
class AnswerDelta(Told):
    """More text of the answer to question ``number``."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Answered(Told):
    """Question ``number`` has ended. ``answer``: the reply; None if ``error`` says why there is none (cancelled, too
    late, refused by the model)."""

    number: int
    answer: Answer | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class RuleChanged(Told):
    """A rule was set, replaced or removed. ``text``: what it watches for ("" if it was removed); ``spec``: the whole
    rule as a JSON object, where that was done while the stream ran (None: removed, or there from its start)."""

    rule: str
    text: str
    spec: Mapping[str, Any] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Alert(Told):
    """What a rule watches for has begun, goes on, or has ended.

    ``number``: of what has happened, counting from 1 in its rule; ``since``, ``time``: seconds of the stream, when it
    began and when this was found; ``verdict`` and ``probability`` (None: of a rule on words): the last finding;
    ``evidence``: words that were said meanwhile; ``last``: seconds, when it was last found to be so.
    """

    rule: str
    kind: AlertKind
    number: int
    since: float
    time: float
    verdict: Verdict = "yes"
    probability: float | None = None
    evidence: str = ""
    last: float | None = None


@dataclass(frozen=True, slots=True)
class Resumed(Told):
    """The stream goes on where an earlier run of the program was ended.

    ``time``: seconds of the stream, where its memory ends; ``lost_seconds``: of the source that nobody has watched
    since; ``snapshot_age``: seconds from the snapshot to the last commentary that was kept.
    """

    time: float
    lost_seconds: float
    snapshot_age: float = 0.0


@dataclass(frozen=True, slots=True)
class Rebased(Told):
    """The time that the model is told starts anew: second ``time`` of the stream is ``shown`` from now on."""

    time: float
    shown: float


@dataclass(frozen=True, slots=True)
class StreamOpened(Told):
    """A stream begins. ``name``: its source's; ``context``: what is known before the video starts."""

    name: str
    context: str


@dataclass(frozen=True, slots=True)
class Dropped(Told):
    """``count`` events were lost before the next one, since whoever subscribed did not take them in time."""

    count: int


@dataclass(frozen=True, slots=True)
class Closed(Told):
    """A stream has ended. ``error``: why, if it did not come to its source's end or was stopped ("")."""

    error: str = ""


#: What a live source tells between its chunks.
Notice = SourceStatus | SourceFormat | Gap
#: What a stream tells its sinks and subscribers.
Event = (
    StreamOpened
    | Delta
    | Instructed
    | InstructionUpdated
    | Commentary
    | StepFailed
    | Notice
    | Asked
    | AnswerDelta
    | Answered
    | RuleChanged
    | Alert
    | Resumed
    | Rebased
    | Dropped
    | Closed
)


class Sink(Protocol):
    """Takes the events of one stream. What it does not know it passes over.

    It is called on the engine's thread: while it waits, for a slow reader say, all streams of the engine wait. Whoever
    may be slow reads a :meth:`Stream.subscribe` in a thread of its own.
    """

    def write(self, event: Event) -> None:
        """Take one event; OutputError if that cannot be, which ends the stream."""
        ...

    def close(self) -> None:
        """Nothing follows. Called once, however the stream has ended."""
        ...


@runtime_checkable
class FrameSink(Sink, Protocol):
    """A sink that is shown what the model sees, too."""

    def see(self, step: StepInput) -> None:
        """Take the frames of a step, or of a part of it, before any of its words. They may be kept, not changed."""
        ...


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


class StepSource(Protocol):
    """A source that knows more of its steps than what is seen in them, or tells what becomes of it meanwhile.

    See :class:`Source`. One with a ``close`` method is let go by it: that never waits, and ends whoever iterates.
    """

    name: str
    context: str
    kind: str
    live: bool

    def __iter__(self) -> Iterator[StepInput | Notice]: ...
