"""What questions cost the streams that are asked: lag of live streams with and without them, in turns within one run.

The machine may not be the same all the time, so turns with a question every few seconds and turns without any follow
each other, each ``TURN`` seconds long; one with questions ends with the last answer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..core.errors import CapacityError, OptionError, StreamingVLMError
from ..core.events import Answered, Closed, Commentary, Event
from ..runtime.clock import Pace
from ..runtime.reports import Metrics, how_it_ran, provenance
from ..runtime.runtime import Runtime, Stream
from ..runtime.talk import Ask
from .measure import percentile
from .setup import Request

#: Seconds of a turn with questions, or without.
TURN = 20.0
#: How often turns are drawn anew for the spread of a ratio.
DRAWS = 1000
#: Seconds that the last answers may still take.
PATIENCE = 60.0
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Plan:
    """``streams`` live streams for ``seconds``, behind ``warm_up`` seconds; in every second turn one of them is asked
    ``question`` every ``every`` seconds."""

    streams: int = 1
    seconds: float = 240.0
    every: float = 5.0
    warm_up: float = 20.0
    question: str = "What has happened so far?"

    def __post_init__(self) -> None:
        if self.streams < 1:
            raise OptionError(f"--streams must be 1 or more, not {self.streams}")
        if not (self.every > 0 and self.seconds >= 2 * TURN and self.warm_up >= 0):
            raise OptionError(f"--every must be above 0, --seconds {2 * TURN:g} or more, --warm-up 0 or more")


@dataclass(slots=True)
class _Asked:
    """One question: when it was asked, when its first text and its end came (``time.perf_counter()``)."""

    at: float
    stream: int
    handle: Ask | None = None
    first: float | None = None
    end: float | None = None
    tokens: int = 0

    def text(self, _: str) -> None:
        self.first = self.first or time.perf_counter()


@dataclass(slots=True)
class _Lags:
    """The lag of every step of all streams; nothing while it is not ``open``.

    ``turn``: the one under way, of which every second is one with questions; ``steps``: (turn, lag). ``ends``: of
    question (stream, number), when it ended (``time.perf_counter()``).
    """

    open: bool = False
    turn: int = 0
    steps: list[tuple[int, float]] = field(default_factory=list)
    dropped: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    errors: list[str] = field(default_factory=list)
    ends: dict[tuple[int, int], float] = field(default_factory=dict)


@dataclass(slots=True)
class _Listener:
    """The sink of one stream."""

    lags: _Lags
    stream: int

    def write(self, event: Event) -> None:
        lags = self.lags
        if isinstance(event, Commentary) and lags.open:
            lags.steps.append((lags.turn, event.timing.lag))
            lags.dropped[lags.turn % 2 == 1] += event.dropped
        elif isinstance(event, Answered):
            lags.ends[self.stream, event.number] = time.perf_counter()
        elif isinstance(event, Closed) and event.error:
            lags.errors.append(event.error)

    def close(self) -> None: ...


def measure_questions(request: Request, plan: Plan, on_second: Callable[[float], None] = lambda _: None) -> Metrics:
    """Lag of live streams with and without questions, and how soon these are answered.

    ``lag``: percentiles in seconds of steps ``without`` and ``with`` questions, their ``ratio``, and how far that goes
    where the turns are drawn anew (``ratio_low``, ``ratio_high``: 5 and 95 of 100 draws are below); ``first_text`` and
    ``answer``: seconds from asking to the first text and to the end.
    """
    model = request.make_model()
    lags, asked = _Lags(), list[_Asked]()
    began = time.perf_counter()
    with Runtime(request.make_engine(model, slots=plan.streams + 1), questions=True) as runtime:
        streams = [_start(runtime, request, plan, number, lags) for number in range(plan.streams)]
        _sleep_until(began + plan.warm_up)
        lags.open = True
        _take_turns(plan, streams, lags, asked, on_second)
        lags.open = False
        ran = how_it_ran(runtime.engine)
        work = runtime.load.busy / max(runtime.load.busy + runtime.load.idle, 1e-9)
    if lags.errors or len({turn % 2 for turn, _ in lags.steps}) < 2:
        raise OptionError(f"nothing was measured: {next(iter(lags.errors), 'the source ends before the warm-up does')}")
    return {
        **_figures(lags, asked),
        "streams": plan.streams,
        "every": plan.every,
        "seconds": plan.seconds,
        "question": plan.question,
        "engine_busy": work,
        "model": request.model_name,
        **ran,
        **provenance(model.kv_shape.device),
    }


def _start(runtime: Runtime, request: Request, plan: Plan, number: int, lags: _Lags) -> Stream:
    source = request.make_source(plan.warm_up + plan.seconds + PATIENCE)
    return runtime.start(
        source,
        sinks=[_Listener(lags, number)],
        pace=Pace.LIVE,
        encode_ahead=plan.streams == 1,
        context=source.context,
        seed=request.seed,
        stream=number,
        sampling=request.sampling(runtime.engine.model),
        fps=request.fps,
        step=request.step,
        max_pixels=request.max_pixels(runtime.engine.model),
    )


def _take_turns(
    plan: Plan, streams: list[Stream], lags: _Lags, asked: list[_Asked], on_second: Callable[[float], None]
) -> None:
    """Turns without and with questions, until the time is up."""
    began, turn, dice = time.perf_counter(), 0, random.Random(0)
    while (turn + 1) * TURN <= plan.seconds:
        ends = began + (turn + 1) * TURN
        moment = began + turn * TURN
        while turn % 2 and moment + plan.every <= ends + 1e-6:
            # Not always at the same moment of a step.
            _sleep_until(moment + dice.uniform(0.0, min(plan.every, 1.0)))
            lags.turn = turn
            asked.append(_ask(streams, len(asked) % len(streams), plan.question))
            moment += plan.every
            on_second(time.perf_counter() - began)
        _sleep_until(ends)
        if turn % 2:
            for one in asked:
                _wait(one, lags)
        turn += 1
        lags.turn = turn
        on_second(time.perf_counter() - began)


def _ask(streams: Sequence[Stream], number: int, question: str) -> _Asked:
    one = _Asked(time.perf_counter(), number)
    try:
        one.handle = streams[number].ask(question, one.text)
    except CapacityError:  # too many wait; it counts as one without an answer
        one.handle = None
    return one


def _wait(one: _Asked, lags: _Lags) -> None:
    if one.handle is None or one.end is not None:
        return
    try:
        answer = one.handle.result(PATIENCE)
    except (StreamingVLMError, TimeoutError):
        one.handle = None
        return
    one.end, one.tokens = lags.ends[one.stream, one.handle.number], len(answer.tokens)


def _percentiles(turns: Sequence[Sequence[float]]) -> dict[str, float]:
    lags = [lag for turn in turns for lag in turn]
    return {f"p{one}": percentile(lags, one) for one in PERCENTILES}


def _spread(turns: Sequence[Sequence[float]]) -> tuple[dict[str, float], dict[str, float]]:
    """The 5th and the 95th percentile of each ratio, where turns are drawn anew with replacement."""
    dice, drawn = random.Random(0), list[dict[str, float]]()
    for _ in range(DRAWS):
        quiet, asked = (_percentiles(dice.choices(side, k=len(side))) for side in (turns[::2], turns[1::2]))
        drawn.append({key: asked[key] / quiet[key] for key in asked})
    keys = drawn[0]
    low, high = ({key: percentile([one[key] for one in drawn], at) for key in keys} for at in (5, 95))
    return low, high


def _sleep_until(moment: float) -> None:
    time.sleep(max(moment - time.perf_counter(), 0.0))


def _figures(lags: _Lags, asked: list[_Asked]) -> Metrics:
    turns = [[lag for number, lag in lags.steps if number == turn] for turn in range(lags.turn)]
    sides = {"without": turns[::2], "with": turns[1::2]}
    lag: Metrics = {name: _percentiles(side) for name, side in sides.items()}
    lag["ratio"] = {key: lag["with"][key] / lag["without"][key] for key in lag["with"]}
    lag["ratio_low"], lag["ratio_high"] = _spread(turns)
    firsts = [one.first - one.at for one in asked if one.first is not None]
    ends = [one.end - one.at for one in asked if one.end is not None]
    return {
        "lag": lag,
        "steps": {name: sum(map(len, side)) for name, side in sides.items()},
        "dropped": {"without": lags.dropped[False], "with": lags.dropped[True]},
        "questions": len(asked),
        "answered": len(ends),
        "answer_tokens": sum(one.tokens for one in asked) / max(len(ends), 1),
        "first_text": {f"p{one}": percentile(firsts, one) for one in PERCENTILES},
        "answer": {f"p{one}": percentile(ends, one) for one in PERCENTILES},
    }
