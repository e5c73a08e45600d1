"""How decoding finds its fastest way: captured, fixed shapes, one by one; with stand-ins for what captures on a GPU."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch

from streamingvlm.core.errors import ModelError, OptionError
from streamingvlm.core.sampling_params import Sampling
from streamingvlm.engine.decode_graph import Capture, DecodeSteps, Place, StepInputs, StepOutputs
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import Trace
from streamingvlm.engine.runner import ModelRunner
from streamingvlm.engine.sampler import gumbel
from streamingvlm.kernels.plain import PlainKernels
from support import tiny
from support.streams import chunk, finish

Body = Callable[[], StepOutputs]


def recorded(body: Body) -> Body:
    """As a graph does: the body runs when it is captured; every replay writes into the same tensors."""
    outputs = body()

    def replay() -> StepOutputs:
        new = body()
        outputs.logits.copy_(new.logits)
        outputs.tokens.copy_(new.tokens)
        return outputs

    return replay


def constant(body: Body) -> Body:
    """A capture that has taken an input for a constant."""
    outputs = body()
    return lambda: outputs


def wrong(body: Body) -> Body:
    """A capture whose kernels give other numbers than the body."""

    def replay() -> StepOutputs:
        out = body()
        return StepOutputs(out.logits + 1e-3, out.tokens)

    return replay


def broken(body: Body) -> Body:
    body()
    raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")


def runner(capture: Capture) -> type[ModelRunner]:
    class WithCapture(ModelRunner):
        def make_capture(self) -> Capture:
            return capture

    return WithCapture


def open_engine(capture: Capture, wanted: str = "auto", slots: int = 3) -> Engine:
    return Engine(tiny.model(), slots=slots, capture=wanted, runner=runner(capture))


def run(engine: Engine, seconds: int = 3) -> list[Trace]:
    sessions, traces = [], []
    for second in range(seconds):
        if second < engine.slots:  # streams join while others are under way, and the pool grows behind the first
            sessions.append(engine.open(context="c" * (40 * second), seed=second, temperature=0.7))
        jobs = []
        for index, session in enumerate(sessions):
            traces.append(Trace())
            jobs.append(engine.submit(session, chunk(second - index, seed=index), trace=traces[-1]))
        for job in jobs:
            finish(engine, job)
    return traces


def test_a_captured_step_says_what_one_by_one_says() -> None:
    engine = open_engine(recorded)
    ours, plain = run(engine), run(Engine(tiny.model(), slots=3, capture="none"))
    assert (engine.decoding.capture, engine.decoding.reason) == ("graph", "")
    for one, other in zip(ours, plain, strict=True):
        assert one.tokens == other.tokens
        # Each token has logits of its own, although every replay writes to the same place.
        torch.testing.assert_close(torch.stack(one.logits), torch.stack(other.logits), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("capture", "reason"),
    [(constant, "does not do what its body does"), (wrong, "does not do"), (broken, "operation not permitted")],
)
def test_what_cannot_be_captured_runs_as_it_is(capture: Capture, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = open_engine(capture)
    traces = run(engine)
    (told,) = caplog.messages
    assert reason in told
    assert engine.decoding.capture == "static"
    assert engine.decoding.reason.startswith("graph: ")
    assert reason in engine.decoding.reason
    assert "more lines" not in engine.decoding.reason
    for one, other in zip(traces, run(Engine(tiny.model(), slots=3, capture="none")), strict=True):
        assert one.tokens == other.tokens


def test_a_body_that_is_wrong_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    engine = open_engine(recorded)

    class Wrong(PlainKernels):
        def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
            return super().silu_mul(gate_up) * 1.1

    engine.pool.kernels = Wrong()
    engine.open()
    (told,) = caplog.messages
    assert "off by" in told
    assert engine.decoding.capture == "none"
    assert "graph: " in engine.decoding.reason
    assert "static: " in engine.decoding.reason


class RoundedOnce(PlainKernels):
    """As kernels do it in half precision: float32 inside, ``scale`` times what is right."""

    scale = 1.0

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        return (super().silu_mul(gate_up.float()) * self.scale).to(gate_up.dtype)

    def attend_prefill(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
    ) -> torch.Tensor:
        out = super().attend_prefill(queries.float(), keys.float(), values.float(), mask, scaling * self.scale)
        return out.to(queries.dtype)


@pytest.mark.parametrize(("scale", "capture"), [(1.0, "static"), (1.5, "none")])
def test_in_bfloat16_kernels_may_round_otherwise_and_do_nothing_else(scale: float, capture: str) -> None:
    engine = Engine(tiny.model(dtype=torch.bfloat16), slots=2, runner=runner(broken))
    kernels = RoundedOnce()
    kernels.scale = scale
    engine.pool.kernels = kernels
    engine.open()
    assert engine.decoding.capture == capture, engine.decoding.reason


def test_a_failed_capture_is_not_tried_again_when_the_pool_grows(caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def counted(body: Body) -> Body:
        tried.append(body)
        raise RuntimeError("no")

    engine = open_engine(counted)
    engine.open()
    engine.open(policy="streaming:text=600")
    assert len(tried) == len(caplog.messages) == 1
    assert engine.decoding.capture == "static"


def test_memory_of_earlier_captures_is_free_before_new_ones_take_theirs() -> None:
    held: list[weakref.ref[Body]] = []
    alive: list[int] = []

    def watched(body: Body) -> Body:
        gc.collect()  # this stand-in holds the body that holds it
        alive.append(sum(one() is not None for one in held))
        replay = recorded(body)
        held.append(weakref.ref(replay))
        return replay

    engine = open_engine(watched, slots=2)
    engine.open()
    engine.open(policy="streaming:text=600")
    assert alive == [0, 1, 0, 1]  # steps of two places and of one, twice


def test_graphs_need_a_device_that_has_them() -> None:
    with pytest.raises(OptionError, match="CUDA"):
        Engine(tiny.model(), capture="graph")
    with pytest.raises(OptionError, match="auto, graph, static, none"):
        Engine(tiny.model(), capture="compile")


def test_a_strict_engine_that_cannot_capture_opens_nothing() -> None:
    class Broken(ModelRunner):
        def warm_up(self) -> None:
            raise ModelError("decoding cannot run as asked")

    engine = Engine(tiny.model(), runner=Broken)
    with pytest.raises(ModelError, match="as asked"):
        engine.open()
    with pytest.raises(ModelError, match="as asked"):  # the slot was given back
        engine.open()


def test_the_check_leaves_streams_as_they_are() -> None:
    def said(joins: bool) -> list[list[int]]:
        engine = open_engine(recorded, slots=2)
        session, traces = engine.open(temperature=0.0), []
        for second in range(4):
            traces.append(Trace())
            session.step(chunk(second), trace=traces[-1])
            if joins and second == 1:  # makes the pool grow: steps are made and checked anew
                engine.open(policy="streaming:text=600")
        return [trace.tokens for trace in traces]

    assert said(joins=True) == said(joins=False)


def test_a_capture_writes_no_row_and_no_mark_of_a_stream() -> None:
    engine = open_engine(recorded, slots=2)
    first = engine.open()
    first.step(chunk(0))
    held = max(engine.pool.length)
    stores = engine.pool.keys, engine.pool.rotated_keys, engine.pool.values
    before = [store[:, :, :, :held].clone() for store in stores]
    engine.open(policy="streaming:text=600")  # the pool grows: steps are captured anew
    stores = engine.pool.keys, engine.pool.rotated_keys, engine.pool.values
    slot = engine.pool.length.index(held)
    for old, new in zip(before, stores, strict=True):
        assert torch.equal(old[:, slot], new[:, slot, :, :held])
    mask = torch.zeros(2, engine.model.vocabulary, dtype=torch.bool)
    DecodeSteps(engine.model, engine.pool, mask, recorded)
    assert not mask.any()


@pytest.mark.parametrize("slots", [4, 9])
def test_fixed_shapes_give_the_same_bits_in_any_company(slots: int) -> None:
    def said(companions: int) -> list[torch.Tensor]:
        engine, trace = Engine(tiny.model(), slots=slots, capture="static"), Trace()
        sessions = [engine.open(context="c" * 20 * number, max_new_tokens=5) for number in range(companions + 1)]
        for second in range(2):
            jobs = [engine.submit(one, chunk(second, seed=i)) for i, one in enumerate(sessions[1:])]
            job = engine.submit(sessions[0], chunk(second), trace=trace)
            for one in [job, *jobs]:
                finish(engine, one)
        return trace.logits

    alone = torch.stack(said(0))
    for companions in (1, 2, 3, slots - 1):
        assert torch.equal(torch.stack(said(companions)), alone), companions


def test_inputs_hold_what_places_say_and_nothing_else() -> None:
    warm = Sampling(temperature=0.5, top_k=5, top_p=0.9, repetition_penalty=1.2)
    inputs = StepInputs(3, torch.device("cpu"))
    inputs.fill([Place(1, 0, 4, (1.0, 2.0, 3.0), Sampling(temperature=0.0), (0, 0, 0))] * 3)
    inputs.fill([Place(7, 2, 9, (4.0, 5.0, 6.5), warm, (1, 2, 3))])
    assert inputs.tokens.tolist() == [7, 0, 0]
    assert inputs.slots.tolist() == [2, -1, -1]
    assert inputs.lengths.tolist() == [9, 0, 0]
    assert inputs.top_k.tolist() == [5, 1, 1]
    assert inputs.position[:, 0].tolist() == [4.0, 5.0, 6.5]
    assert inputs.penalty.tolist() == pytest.approx([1.2, 1.0, 1.0])
    assert inputs.noise[0, :5].tolist() == gumbel((1, 2, 3), 5).tolist()
    assert not inputs.noise[0, 5:].any()
    assert not inputs.noise[1:].any()


def test_noise_drawn_ahead_is_the_noise() -> None:
    warm = Sampling(temperature=0.5, top_k=5)
    inputs = StepInputs(1, torch.device("cpu"))
    inputs.draw_ahead([Place(7, 0, 9, (0.0,) * 3, warm, (1, 2, 3))])
    inputs.fill([Place(7, 0, 9, (0.0,) * 3, warm, (1, 2, 4))])
    assert inputs.noise[0, :5].tolist() == gumbel((1, 2, 4), 5).tolist()


def test_what_samples_from_more_than_a_step_looks_at_says_the_same() -> None:
    def said(capture: str) -> list[int]:
        engine, trace = Engine(tiny.model(), capture=capture), Trace()
        sampling = Sampling(temperature=3.0, top_k=0, repetition_penalty=1.1, max_new_tokens=8)
        engine.open(sampling=sampling).step(chunk(0), trace=trace)
        return trace.tokens

    assert said("static") == said("none")
