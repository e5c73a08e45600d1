"""Which steps start, decode and end, and what each token means for its stream. No tensors are touched here."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from ..core.events import Answer, Commentary, FinishReason, Timing
from ..core.grammar import Grammar
from ..core.positions import FloatArray
from ..core.timeline import IntArray
from .request import AskRequest, Status, StepRequest, TurnRequest
from .slack import PIECE, Slack
from .stream import Before, OpenStream


@dataclass(frozen=True, slots=True)
class Eviction:
    """What the policy takes from a slot: ``rows`` (n,) stay, in this order, at ``positions`` (3, rows) from now on.

    ``rewritten``: rows after that which are prefilled once more; ``forget``: no row stays, all is prefilled anew.
    """

    rows: IntArray
    positions: FloatArray
    rewritten: range
    forget: bool


class Scheduler:
    """The requests that are under way, in the order in which they came.

    Those in the background are held where a live step would wait for them: ``slack`` knows when.
    """

    def __init__(self, end_tokens: frozenset[int], slack: Slack | None = None) -> None:
        self._end_tokens = end_tokens
        self.slack = slack or Slack()
        self._requests: list[TurnRequest] = []
        self._ended: list[TurnRequest] = []

    def add(self, request: TurnRequest) -> None:
        """A request that has been checked."""
        opened = request.stream.state.opened
        request.timing = opened.timing if opened else Timing()
        if request.step is not None and request.ahead is not None:
            request.timing = request.timing.plus(
                read=request.step.chunk.read_seconds,
                preprocess=request.ahead.seconds,
                vision_encode=request.ahead.vision_seconds,
            )
        self._requests.append(request)
        self.slack.handed_in(request)

    def __contains__(self, request: TurnRequest) -> bool:
        return request in self._requests

    def all(self) -> list[TurnRequest]:
        """All that are under way."""
        return list(self._requests)

    def of(self, stream: OpenStream) -> list[TurnRequest]:
        """Those of one stream."""
        return [request for request in self._requests if request.stream is stream]

    def waiting(self) -> list[TurnRequest]:
        """Those that have not been begun and may begin now."""
        return [one for one in self._requests if one.status is Status.WAITING and not self._hold(one)]

    def running(self) -> list[TurnRequest]:
        """Those whose reply is being decoded and may go on now."""
        return [one for one in self._requests if one.status is Status.RUNNING and not self._hold(one)]

    @property
    def rest(self) -> float:
        """In how many seconds one of them may go on (0: now, or there is none)."""
        return min(map(self._hold, self._requests), default=0.0)

    @property
    def live(self) -> bool:
        """Whether a step is under way that has a clock."""
        return any(request.due is not None and not request.background for request in self._requests)

    def _hold(self, request: TurnRequest) -> float:
        return self.slack.hold(request, self.live) if request.background else 0.0

    def take_ended(self) -> list[TurnRequest]:
        """Those that have ended since this was last asked."""
        ended, self._ended = self._ended, []
        return ended

    # One request, in the order in which it goes.

    def begin(self, request: TurnRequest) -> Eviction | None:
        """Where a turn begins: apply the policy. None for one that shows nothing, or of which parts have been shown."""
        stream = request.stream
        if stream.state.opened is not None or request.pieces:
            return None
        stream.before = Before(stream.state.before_step())
        if request.step is None:
            return None
        rows, positions, rewritten = stream.planner.evict(stream.state, request.step.chunk)
        forget = stream.options.recomputes
        if forget:
            # No row is read again of those that are there; what was prefilled is prefilled anew in any case.
            stream.before.state.forget()
        request.rearchive = stream.planner.rearchive_input(stream.state, rewritten)
        if request.trace:
            request.trace.retained = stream.state.timeline.tokens
        return Eviction(rows, positions, rewritten, forget)

    def build(self, request: TurnRequest) -> None:
        """Append the turn or more of it: what has to be prefilled. In the background that is a piece at a time."""
        if request.pieces:
            request.prefill = request.pieces.pop(0)
            return
        stream, asked = request.stream, request.question if isinstance(request, AskRequest) else None
        if request.step is None or request.ahead is None:
            assert asked is not None, "a turn shows something or asks something"
            request.prefill = stream.planner.build_question(stream.state, asked)
            if request.background:
                request.prefill, *request.pieces = request.prefill.split(PIECE)
            return
        request.prefill, told = stream.planner.build_turn(stream.state, request.step, request.ahead.patches, asked)
        if isinstance(request, StepRequest):
            request.instructions = told
        if request.trace:
            numbers = [stream.state.positions, request.prefill.positions]
            request.trace.prefill_positions = np.concatenate(numbers, axis=1)

    def prefilled(self, request: TurnRequest) -> bool:
        """What had to be prefilled has rows now; whether a reply follows (not to a part of a step, or to a piece)."""
        state = request.stream.state
        state.mark_cached(request.to_prefill().positions)
        if request.whole:
            request.status = Status.RUNNING
            return True
        if not request.pieces:
            assert state.opened is not None, "a part belongs to a turn"
            state.opened.timing = request.timing
        request.size = sum(len(piece.tokens) for piece in request.pieces[:1])
        return False

    def decoded(self, request: TurnRequest) -> None:
        """The last token of a reply has a row now."""
        state = request.stream.state
        state.mark_cached(state.next_position)

    def note(self, request: TurnRequest, token: int) -> None:
        """One more token of a reply has been chosen."""
        stream = request.stream
        stream.state.sampled += 1
        request.tokens.append(token)
        stream.planner.set_reply(stream.state, request.span, request.tokens)

    def new_text(self, request: TurnRequest, grammar: Grammar) -> str:
        """What the reply has grown by; "" as long as its last character is not whole."""
        text = grammar.text(request.tokens)
        if len(text) <= len(request.emitted_text) or text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        emitted, request.emitted_text = request.emitted_text, text
        return text[len(emitted) :]

    def finish_reason(self, request: TurnRequest) -> FinishReason | None:
        """Why a reply ends here (None: it goes on)."""
        sampling, due = request.stream.options.sampling, request.due
        # Live, a reply ends when the next step is due: text never piles up.
        late = due is not None and time.perf_counter() >= due
        most = sampling.max_new_tokens
        if isinstance(request, AskRequest):
            most = min(most, request.question.max_new_tokens)
        full = late or len(request.tokens) >= most
        if request.tokens[-1] in self._end_tokens and (full or not sampling.forced):
            return "stop"
        return None if not full else "deadline" if late else "length"

    def deliver(self, request: TurnRequest, reason: FinishReason, text: str) -> None:
        """Turn a reply that has ended into a commentary or an answer."""
        stream, step = request.stream, request.step
        asked_at = stream.state.time if step is None else step.chunk.end
        stream.planner.end_turn(stream.state, request.span, request.tokens)
        ready = step.arrival.ready_at if step is not None and step.arrival.ready_at is not None else request.submitted
        request.timing = replace(request.timing, lag=time.perf_counter() - ready)
        if isinstance(request, AskRequest):
            request.result = Answer(
                request.question, asked_at, text, tuple(request.tokens), reason, timing=request.timing
            )
        elif isinstance(request, StepRequest):
            request.result = _commentary(request, reason, text)

    def weigh(self, request: AskRequest, logprobs: list[float]) -> None:
        """Turn the likelihoods of a question's options into an answer."""
        asked_at = request.stream.state.time if request.step is None else request.step.chunk.end
        likeliest = request.question.options[int(np.argmax(logprobs))]
        request.timing = replace(request.timing, lag=time.perf_counter() - request.submitted)
        request.result = Answer(request.question, asked_at, likeliest, logprobs=tuple(logprobs), timing=request.timing)

    def end(self, request: TurnRequest, error: BaseException | None = None) -> None:
        """A request has ended, well or with ``error``."""
        self._requests.remove(request)
        request.status, request.error = (Status.DONE if error is None else Status.FAILED), error
        self._ended.append(request)
        if error is None and request.whole:
            request.stream.before = None


def _commentary(request: StepRequest, reason: FinishReason, text: str) -> Commentary:
    chunk = request.step.chunk
    return Commentary(
        start=chunk.start,
        end=chunk.end,
        text=text,
        tokens=tuple(request.tokens),
        finish_reason=reason,
        timing=request.timing,
        rows=request.stream.rows,
        capacity=request.stream.planner.capacity,
        dropped=request.step.arrival.dropped,
        instructions=request.instructions,
    )
