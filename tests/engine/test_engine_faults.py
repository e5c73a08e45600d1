"""A fault stays in its stream: the stream goes back to where it was, and no other one says anything else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.cache.batch import Batch
from streamingvlm.core.errors import CapacityError, OptionError, SessionError, SourceError
from streamingvlm.core.events import Chunk, InstructionUpdated, StepInput
from streamingvlm.core.policy import make_policy
from streamingvlm.core.sampling_params import Sampling
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.options import INSTRUCTIONS
from streamingvlm.engine.request import Status
from streamingvlm.engine.session import Session
from streamingvlm.kernels.plain import PlainKernels
from streamingvlm.models.base import Prepared
from streamingvlm.models.patches import Patches
from support import tiny
from support.streams import finish

WINDOWS = "vision=2,turns=2,sink=10,text=8"
POLICIES = (
    f"streaming:{WINDOWS}",
    f"streaming:{WINDOWS},positions=append",
    f"streaming:{WINDOWS},history_kv=recompute",
    f"sliding-recompute:{WINDOWS}",
    "sliding-reset:seconds=3",
    "recent-frames:frames=5",
    "full:seconds=30",
    "public-code",
)
SIZE = tiny.FAMILIES[tiny.GOLDEN].size
STEPS = 6


class Planned(Exception):  # noqa: N818
    """The fault of a test."""


class FaultyModel:
    """A model that raises for one stream's input, whatever batch it comes in."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.slot = -1
        #: The rows are written before it raises.
        self.behind = False
        self.pixels: torch.Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, patches: Sequence[Patches]) -> Any:
        if self.pixels is not None and any(torch.equal(one.pixels, self.pixels) for one in patches):
            raise Planned("tower")
        return self._model.encode(patches)

    def forward(self, embeds: torch.Tensor, batch: Batch, deepstack: Any = None) -> torch.Tensor:
        hit = any(part.slot == self.slot for part in batch.segments)
        hidden = None if hit and not self.behind else self._model.forward(embeds, batch, deepstack)
        if hidden is None or hit:
            raise Planned("forward")
        return hidden


class Letters(tiny.CharTokenizer):
    """Every id can be seen."""

    def decode(self, ids: Sequence[int]) -> str:
        return "x" * len(ids)


@cache
def scripted() -> Any:
    return tiny.model(Letters(), sampling=Sampling(temperature=0.9, max_new_tokens=5, forced=True))


def chunk(stream: int, step: int, size: tuple[int, int] = SIZE, frames: int = 2) -> Chunk:
    pixels = np.random.default_rng([stream, step]).integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    return Chunk(pixels, tuple(step + i / frames for i in range(frames)), step, step + 1.0)


def open_stream(engine: Engine, index: int, policy: str | Any) -> Session:
    return engine.open(policy=policy, context="a:b", instruction="say", stream=index, seed=3)


@cache
def alone(index: int, policy: str, skipped: tuple[int, ...] = ()) -> list[Any]:
    """What a stream says by itself."""
    with open_stream(Engine(scripted()), index, policy) as session:
        return [session.step(chunk(index, step)).tokens for step in range(STEPS) if step not in skipped]


def rows_of(engine: Engine, session: Session) -> list[torch.Tensor]:
    length = engine.pool.length[session.stream.slot]
    return [
        store[:, session.stream.slot, :, :length].clone()
        for store in (engine.pool.keys, engine.pool.values, engine.pool.rotated_keys)
    ]


def picture(engine: Engine, session: Session) -> tuple[Any, ...]:
    """Everything that a step changes."""
    state = session.state
    assert engine.pool.length[session.stream.slot] == state.timeline.cached == state.positions.shape[1]
    shown = None if state.shown is None else (state.shown.start, state.shown.frames.sum())
    counters = (state.turn, state.sampled, state.time, state.first, state.last_position, state.version, shown)
    recompute = session.options.recomputes
    cached = [] if recompute else [state.timeline.cached, state.positions.tolist(), *rows_of(engine, session)]
    return (list(state.timeline.spans), counters, state.instructions, state.stashed, state.opened, *cached)


def same(left: Sequence[Any], right: Sequence[Any]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


class BadPolicy:
    """A policy that raises where a turn is planned, as long as it is ``armed``."""

    def __init__(self, policy: Any) -> None:
        self._policy, self.armed = policy, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def plan(self, *args: Any) -> Any:
        if self.armed:
            raise Planned("plan")
        return self._policy.plan(*args)


@dataclass
class Streams:
    """Three streams of an engine, and what goes wrong with one of them."""

    model: FaultyModel
    engine: Engine
    sessions: list[Session]
    victim: int

    @property
    def bad(self) -> Session:
        return self.sessions[self.victim]

    def spoil(self, fault: str, item: Chunk) -> dict[str, Any]:
        """Make ready for a fault; how the victim's chunk is submitted."""
        size = (1, 300) if fault == "size" else SIZE
        if fault in ("size", "frames"):
            return {"item": chunk(self.victim, int(item.start), size, 9 if fault == "frames" else 2)}
        if fault.startswith("prefill"):
            self.model.slot, self.model.behind = self.bad.stream.slot, fault.endswith("behind")
        self.bad.options.policy.armed = fault == "plan"  # type: ignore[attr-defined]
        if fault == "encode":
            self.model.pixels = self.bad.stream.planner.patcher(
                self.bad.stream.planner.select_frames(self.bad.state, item)
            ).pixels
        calls: list[str] = []

        def on_text(text: str) -> None:
            calls.append(text)
            if len(calls) == 3 and fault == "callback":
                raise Planned("callback")
            if len(calls) == 2 and fault.startswith("decode"):
                self.model.slot, self.model.behind = self.bad.stream.slot, fault.endswith("behind")

        return {"item": item, "on_text": on_text}

    def round(self, step: int, fault: str = "") -> list[tuple[int, ...] | None]:
        """A step of every stream; what they say, None for the victim of a fault."""
        before, jobs = picture(self.engine, self.bad), []
        for index, session in enumerate(self.sessions):
            given: dict[str, Any] = {"item": chunk(index, step)}
            if fault and index == self.victim:
                given = self.spoil(fault, given["item"])
            if fault in ("size", "frames") and index == self.victim:
                with pytest.raises((SourceError, CapacityError)):
                    self.engine.submit(session, **given)
                continue
            jobs.append(self.engine.submit(session, **given))
        while any(not job.done for job in jobs):
            self.engine.advance()
        self.model.slot, self.model.pixels = -1, None
        self.bad.options.policy.armed = False  # type: ignore[attr-defined]
        words: list[tuple[int, ...] | None] = [None] * len(self.sessions)
        for job in jobs:
            index = [session.stream for session in self.sessions].index(job.stream)
            if fault and index == self.victim:
                assert job.status is Status.FAILED
                with pytest.raises(Planned):
                    finish(self.engine, job)
            else:
                words[index] = finish(self.engine, job).tokens
        if fault:
            assert same(picture(self.engine, self.bad), before)
        return words


@torch.inference_mode()
@pytest.mark.parametrize("step", range(3, STEPS))
def test_a_selection_that_has_no_memory_is_undone(step: int) -> None:
    engine = Engine(scripted(), slots=2)
    sessions = [open_stream(engine, i, POLICIES[2]) for i in range(2)]
    for earlier in range(step):
        for index, session in enumerate(sessions):
            session.step(chunk(index, earlier))
    before, kernels = picture(engine, sessions[1]), engine.pool.kernels

    class Full(PlainKernels):
        def plan_move(self, *_: Any) -> Any:
            engine.pool.kernels = kernels
            raise torch.OutOfMemoryError

    engine.pool.kernels = Full()
    with pytest.raises(torch.OutOfMemoryError):
        sessions[1].step(chunk(1, step))
    assert same(picture(engine, sessions[1]), before)
    for index, session in enumerate(sessions):
        words = [session.step(chunk(index, later)).tokens for later in range(step, STEPS)]
        assert words == alone(index, POLICIES[2])[step:]


FAULTS = ("plan", "encode", "prefill", "prefill behind", "decode", "decode behind", "callback", "size", "frames")


@torch.inference_mode()
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    policies=st.lists(st.sampled_from(POLICIES), min_size=3, max_size=3),
    faults=st.dictionaries(st.integers(0, STEPS - 1), st.sampled_from(FAULTS), min_size=1, max_size=3),
    victim=st.integers(0, 2),
    again=st.booleans(),
)
def test_a_fault_stays_in_its_stream(policies: list[str], faults: dict[int, str], victim: int, again: bool) -> None:
    model = scripted()
    faulty = FaultyModel(model)
    engine = Engine(faulty, slots=3)  # type: ignore[arg-type]
    sessions = [open_stream(engine, i, BadPolicy(make_policy(p, {}))) for i, p in enumerate(policies)]
    streams = Streams(faulty, engine, sessions, victim)
    said: list[list[Any]] = [[], [], []]
    for step in range(STEPS):
        words = streams.round(step, faults.get(step, ""))
        if again and words[victim] is None:
            words[victim] = sessions[victim].step(chunk(victim, step)).tokens
        for index, tokens in enumerate(words):
            said[index] += [] if tokens is None else [tokens]
    missed = () if again else tuple(faults)
    for index, policy in enumerate(policies):
        assert said[index] == alone(index, policy, missed if index == victim else ())


@torch.inference_mode()
@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        # Each policy with three faults and each fault with three policies; the rest takes long.
        pytest.param(policy, fault, marks=[] if (p + f) % 3 == 0 else pytest.mark.slow)
        for p, policy in enumerate(POLICIES)
        for f, fault in enumerate(FAULTS)
    ],
)
def test_every_fault_under_every_policy(policy: str, fault: str) -> None:
    model = FaultyModel(scripted())
    engine = Engine(model, slots=2)  # type: ignore[arg-type]
    sessions = [open_stream(engine, i, BadPolicy(make_policy(policy, {}))) for i in range(2)]
    streams = Streams(model, engine, sessions, 1)
    words = [streams.round(step) for step in range(3)]
    words.append(streams.round(3, fault))
    words.append(streams.round(4))
    words.append(streams.round(5, fault))
    after = sessions[1].step(chunk(1, 5)).tokens
    assert [w[0] for w in words] == alone(0, policy)
    assert [w[1] for w in words if w[1] is not None] + [after] == alone(1, policy, (3,))


@torch.inference_mode()
def test_a_callback_may_close_its_own_stream_or_another() -> None:
    engine = Engine(scripted(), slots=3)
    sessions = [open_stream(engine, i, POLICIES[0]) for i in range(3)]
    close = [lambda _: sessions[0].close(), lambda _: sessions[2].close(), None]
    for at, on_text in enumerate(close[:2]):
        jobs = [
            engine.submit(s, chunk(i, at), on_text=on_text if i == at else None)
            for i, s in enumerate(sessions)
            if not s.closed
        ]
        while any(not job.done for job in jobs):
            engine.advance()
        closed = [job for job in jobs if job.stream.closed]
        assert [job.stream for job in closed] == [sessions[2 * at].stream]
        with pytest.raises(SessionError, match="closed before its step had ended"):
            finish(engine, closed[0])
        assert all(finish(engine, job).tokens for job in jobs if job not in closed)
    assert [sessions[1].step(chunk(1, 2)).tokens] == alone(1, POLICIES[0])[2:3]
    with open_stream(engine, 0, POLICIES[0]) as fresh:
        assert [fresh.step(chunk(0, step)).tokens for step in range(STEPS)] == alone(0, POLICIES[0])


@torch.inference_mode()
def test_a_callback_may_not_run_steps() -> None:
    engine = Engine(scripted(), slots=2)
    one, other = (open_stream(engine, i, POLICIES[0]) for i in range(2))
    with pytest.raises(SessionError, match="at work"):
        one.step(chunk(0, 0), on_text=lambda _: other.step(chunk(1, 0)))
    assert one.step(chunk(0, 0)).tokens == alone(0, POLICIES[0])[0]
    assert other.step(chunk(1, 0)).tokens == alone(1, POLICIES[0])[0]


@torch.inference_mode()
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_ends_all_requests_and_leaves_the_streams_whole(interrupt: type[BaseException]) -> None:
    engine = Engine(scripted(), slots=2)
    sessions = [open_stream(engine, i, POLICIES[0]) for i in range(2)]
    for step in range(2):
        for index, session in enumerate(sessions):
            session.step(chunk(index, step))

    def stop(_: str) -> None:
        raise interrupt

    jobs = [engine.submit(session, chunk(index, 2), on_text=stop) for index, session in enumerate(sessions)]
    with pytest.raises(interrupt):
        finish(engine, jobs[0])
    for job in jobs:
        # It is told once: who asks later is not interrupted again.
        with pytest.raises(SessionError, match=f"ended by {interrupt.__name__}"):
            finish(engine, job)
    for index, session in enumerate(sessions):
        assert [session.step(chunk(index, step)).tokens for step in range(2, STEPS)] == alone(index, POLICIES[0])[2:]


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES)
def test_a_part_of_another_size_is_refused_and_the_step_can_go_on_or_be_given_up(policy: str) -> None:
    engine = Engine(scripted(), slots=2)
    kwargs: dict[str, Any] = {"context": "a:b", "instruction": "say", "seed": 3, "fps": 4.0}
    with engine.open(policy=POLICIES[0], stream=1, **kwargs) as other, engine.open(policy=policy, **kwargs) as session:
        session.step(chunk(0, 0, frames=4))
        before = picture(engine, session)
        whole = chunk(0, 1, frames=4)
        halves = [replace(whole, frames=whole.frames[at : at + 2], times=whole.times[at : at + 2]) for at in (0, 2)]
        turned = replace(halves[1], frames=np.ascontiguousarray(halves[1].frames.transpose(0, 2, 1, 3)))
        session.feed(halves[0])
        job = engine.submit(other, chunk(1, 0))
        with pytest.raises(ValueError, match="one size"):
            session.step(turned)
        assert finish(engine, job).tokens
        said = session.step(halves[1]).tokens
        session.feed(part := chunk(0, 2, frames=2))
        with pytest.raises(ValueError, match="one size"):
            session.feed(replace(part, frames=np.ascontiguousarray(part.frames.transpose(0, 2, 1, 3))))
        session.abandon()
        assert session.state.between_steps
        after = session.step(chunk(0, 3, frames=4)).tokens
    with Engine(scripted()).open(policy=policy, **kwargs) as session:
        assert before is not None
        plain = [session.step(chunk(0, step, frames=4)).tokens for step in (0, 1, 3)]
    assert plain[1:] == [said, after]


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES[:3])
@pytest.mark.parametrize("fault", ["encode", "prefill", "prefill behind", "rest"])
def test_a_fault_in_a_part_undoes_its_step(policy: str, fault: str) -> None:
    kwargs: dict[str, Any] = {"policy": policy, "context": "a:b", "instruction": "say", "seed": 3, "fps": 4.0}
    model = FaultyModel(scripted())
    engine, words = Engine(model), []  # type: ignore[arg-type]
    with engine.open(**kwargs) as session:
        for step in range(4):
            whole = chunk(0, step, frames=4)
            first, rest = (
                replace(whole, frames=whole.frames[at : at + 2], times=whole.times[at : at + 2]) for at in (0, 2)
            )
            before = picture(engine, session)
            if fault == "rest":
                session.feed(first)
            model.slot, model.behind = (-1 if fault == "encode" else session.stream.slot), fault.endswith("behind")
            model.pixels = session.stream.planner.patcher(first).pixels if fault == "encode" else None
            with pytest.raises(Planned):
                (session.step if fault == "rest" else session.feed)(rest if fault == "rest" else first)
            model.slot, model.pixels = -1, None
            assert same(picture(engine, session), before)
            session.feed(first)
            words.append(session.step(rest).tokens)
    with Engine(scripted()).open(**kwargs) as session:
        assert words == [session.step(chunk(0, step, frames=4)).tokens for step in range(4)]


@torch.inference_mode()
def test_what_was_prepared_elsewhere_is_refused_at_submit() -> None:
    engine = Engine(scripted(), slots=2)
    with open_stream(engine, 0, POLICIES[0]) as session:
        good = session.stream.planner.patcher(chunk(0, 0))
        large = replace(good, merged=(1, 40, 60), grid=(1, 80, 120), pixels=torch.zeros(9600, good.pixels.shape[1]))
        for bad in (
            large,
            replace(good, pixels=good.pixels[:-1]),
            session.stream.planner.patcher(chunk(0, 0, frames=4)),
        ):
            with pytest.raises((ValueError, CapacityError)):
                engine.submit(session, StepInput(chunk(0, 0), prepared=Prepared(bad, 0.0)))
        with pytest.raises(CapacityError, match="at most"):
            session.step(replace(chunk(0, 0), times=(1e8, 1e8), start=1e8, end=1e8 + 1))
        assert session.step(chunk(0, 0)).tokens == alone(0, POLICIES[0])[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": float("nan")}, "finite"),
        ({"end": float("inf")}, "finite"),
        ({"times": (0.0, float("nan"))}, "finite"),
        ({"times": (0.5, 0.0)}, "decrease"),
        ({"times": (0.0,)}, "one time per frame"),
        ({"frames": np.zeros((2, 0, 8, 3), np.uint8)}, "pixels"),
        ({"frames": np.zeros((0, 8, 8, 3), np.uint8), "times": ()}, "pixels"),
    ],
)
def test_a_chunk_that_cannot_be_meant_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(chunk(0, 0), **change)


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES)
def test_a_stream_can_be_saved_behind_a_fault(policy: str, tmp_path: Path) -> None:
    engine = Engine(scripted(), slots=2)
    with open_stream(engine, 0, policy) as session, open_stream(engine, 0, policy) as again:
        for step in range(3):
            session.step(chunk(0, step))

        def fail(_: str) -> None:
            raise Planned

        with pytest.raises(Planned):
            session.step(chunk(0, 3), on_text=fail)
        session.save(tmp_path / "state")
        again.restore(tmp_path / "state")
        assert [again.step(chunk(0, step)).tokens for step in range(3, STEPS)] == alone(0, policy)[3:]


@torch.inference_mode()
def test_frames_may_be_a_view_of_others() -> None:
    """As they are after BGR was turned into RGB by counting backwards."""
    with open_stream(Engine(scripted()), 0, POLICIES[0]) as session:
        flipped = np.ascontiguousarray(chunk(0, 0).frames[..., ::-1])[..., ::-1]
        assert session.step(replace(chunk(0, 0), frames=flipped)).tokens == alone(0, POLICIES[0])[0]


def test_text_that_is_none_is_refused() -> None:
    """Half of a surrogate pair: how Python hands over an argument of bytes that are not UTF-8."""
    engine = Engine(scripted())
    for what, text in (("context", "a\udcff"), ("instruction", "\ud800")):
        with pytest.raises(OptionError, match=f"the {what} is not text"):
            engine.open(**{what: text})
    with engine.open() as session, pytest.raises(OptionError, match="the instruction is not text"):
        session.instruct("\udcff")


@torch.inference_mode()
def test_an_engine_is_for_one_thread() -> None:
    engine = Engine(scripted(), slots=3)
    sessions = [open_stream(engine, i, POLICIES[0]) for i in range(3)]
    caught: list[BaseException] = []

    def use(act: Callable[[], object]) -> None:
        try:
            act()
        except BaseException as error:
            caught.append(error)

    acts: list[Callable[[], object]] = [
        lambda: sessions[0].step(chunk(0, 0)),
        lambda: sessions[1].feed(chunk(1, 0)),
        lambda: sessions[2].instruct("x"),
        lambda: engine.advance(),
        lambda: engine.open(),
        lambda: sessions[0].close(),
    ]
    threads = [threading.Thread(target=use, args=(act,), name=f"thread {i}") for i, act in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(caught) == len(acts)
    assert all(isinstance(error, SessionError) and "one thread" in str(error) for error in caught)
    assert sessions[0].step(chunk(0, 0)).tokens == alone(0, POLICIES[0])[0]
    thread = threading.Thread(target=lambda: sessions[0].prepare(chunk(0, 1), encode=True))
    thread.start()
    thread.join()


def test_an_engine_goes_to_another_thread_when_its_own_has_ended() -> None:
    engine = Engine(scripted())
    sessions: list[Session] = []
    thread = threading.Thread(target=lambda: sessions.append(open_stream(engine, 0, POLICIES[0])))
    thread.start()
    thread.join()
    with torch.inference_mode():
        assert sessions[0].step(chunk(0, 0)).tokens == alone(0, POLICIES[0])[0]


@torch.inference_mode()
def test_instructions_have_versions_and_none_is_lost() -> None:
    engine = Engine(scripted())
    with engine.open(policy=POLICIES[0], instruction="say") as session:
        assert session.step(chunk(0, 0)).instructions == ()
        assert [session.instruct("first"), session.instruct("second")] == [1, 2]
        told = session.step(chunk(0, 1)).instructions
        assert told == (InstructionUpdated(1, "first", None), InstructionUpdated(2, "second", 1.0))
        assert "second" in tiny.CharTokenizer().decode(session.state.timeline.tokens)
        assert "first" not in tiny.CharTokenizer().decode(session.state.timeline.tokens)

        def interrupt(_: str) -> None:
            session.instruct("fourth")
            raise Planned

        session.instruct("third")
        with pytest.raises(Planned):
            session.step(chunk(0, 2), on_text=interrupt)
        told = session.step(chunk(0, 2)).instructions
        assert told == (InstructionUpdated(3, "third", None), InstructionUpdated(4, "fourth", 2.0))
        assert session.step(chunk(0, 3)).instructions == ()
        for empty in ("", " \n"):
            with pytest.raises(OptionError, match="needs words"):
                session.instruct(empty)
        for number in range(5, 505):  # a camera may be down for days
            assert session.instruct(f"number {number}") == number
        told = session.step(chunk(0, 4)).instructions
        assert [one.version for one in told] == list(range(505 - INSTRUCTIONS, 505))
        assert told[-1] == InstructionUpdated(504, "number 504", 4.0)


@torch.inference_mode()
@pytest.mark.parametrize("policy", ["full:seconds=100000000", "full:seconds=1e15", "streaming:text=900000000000"])
def test_a_cache_that_does_not_fit_is_one_line_and_leaves_the_others(policy: str) -> None:
    engine = Engine(scripted(), slots=2)
    with open_stream(engine, 0, POLICIES[0]) as session:
        words = [session.step(chunk(0, 0)).tokens]
        for _ in range(3):
            with pytest.raises(CapacityError, match="does not fit into the memory"):
                engine.open(policy=policy)
        words += [session.step(chunk(0, step)).tokens for step in range(1, STEPS)]
        with open_stream(engine, 1, POLICIES[0]):
            pass
    assert words == alone(0, POLICIES[0])


@torch.inference_mode()
def test_sampling_is_a_stream_s_own() -> None:
    model = scripted()
    before = model.defaults
    engine = Engine(model, slots=2)
    greedy = Sampling(temperature=0.0, max_new_tokens=3, forced=True)
    with engine.open(sampling=greedy) as one, engine.open(sampling=greedy, max_new_tokens=2, temperature=0.5) as two:
        assert one.options.sampling == greedy
        assert two.options.sampling == replace(greedy, temperature=0.5, max_new_tokens=2)
        assert [len(s.step(chunk(0, 0)).tokens) for s in (one, two)] == [3, 2]
    assert model.defaults is before


def test_a_stream_that_was_opened_otherwise_is_not_copied() -> None:
    """Its rows would be those of another pool, or more than the bound."""
    model = tiny.model()
    engine = Engine(model, slots=3)
    one, large = engine.open(policy="full:seconds=10"), engine.open(policy="full:seconds=20")
    foreign = Engine(model).open(policy="full:seconds=10")
    for other, why in ((foreign, "another engine"), (large, "opened otherwise")):
        with pytest.raises(SessionError, match=why):
            one.copy_from(other)
    assert one.turn == 0
    one.copy_from(engine.open(policy="full:seconds=10"))
