"""For random turns and policies, what the timeline says and what the pool holds agree row for row.

The model here is a double that computes nothing: the raw key of every token is the serial number under which it was
fed, so each row of the pool tells which token it is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamingvlm.cache.batch import Batch
from streamingvlm.cache.kv_pool import KVShape
from streamingvlm.cache.rope import Rope
from streamingvlm.core.events import Chunk
from streamingvlm.core.grammar import Grammar
from streamingvlm.core.policy import (
    POLICIES,
    CachePolicy,
    KeepAll,
    PublicCode,
    RecentFrames,
    SlidingRecompute,
    SlidingReset,
    StreamingWindow,
    make_policy,
)
from streamingvlm.core.positions import positions
from streamingvlm.core.sampling_params import Sampling
from streamingvlm.core.spans import Kind
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import Trace
from streamingvlm.engine.session import INSTRUCTION_BUDGET, Session
from streamingvlm.kernels.plain import PlainKernels
from streamingvlm.models.base import Deepstack, StreamDefaults, Vision
from streamingvlm.models.patches import Patcher, Patches
from support import tiny

WORDS = 40


class ShortTokenizer:
    """Ids below 100, one per character; a reply is made of the ids 1 to ``WORDS``."""

    def encode(self, text: str) -> list[int]:
        return [50 + ord(character) % 40 for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(64 + i) for i in ids)


MARKS = tiny.Marks(turn_start=91, turn_end=92, vision_start=93, vision_end=94, vision_pad=95)


class SerialModel:
    """Feeds serial numbers into the pool and says random words. Chunks say how large their video block is."""

    name = "serial"
    tokens_per_second = 2.0
    parameters = 0
    vocabulary = 100
    end_tokens = frozenset({MARKS.turn_end})
    kv_shape = KVShape(1, 1, 2, torch.float64, torch.device("cpu"))
    rope = Rope(torch.ones(1), torch.zeros(1, dtype=torch.long))
    kernels = PlainKernels()
    defaults = StreamDefaults(Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=6))

    def __init__(self, seed: int) -> None:
        self.grammar = Grammar(ShortTokenizer(), MARKS, system="s")
        self.patcher = SizePatcher(patch=1, merge=1, temporal=1, min_pixels=1, max_pixels=12)
        self.random = random.Random(seed)
        self.tokens: list[int] = []

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens[:, None].double()

    def encode(self, patches: Sequence[Patches]) -> list[Vision]:
        pad = float(MARKS.vision_pad)
        return [Vision(torch.full((int(np.prod(part.merged)), 1), pad, dtype=torch.float64)) for part in patches]

    def forward(self, embeds: Tensor, batch: Batch, deepstack: Deepstack | None = None) -> Tensor:
        assert deepstack is None
        keys = torch.zeros(len(embeds), 1, 2, dtype=torch.float64)
        for part in batch.segments:
            for i in range(part.first, part.last):
                keys[i, 0, 0] = len(self.tokens)
                self.tokens.append(int(embeds[i, 0]))
        batch.store(0, keys, keys * 3)
        batch.finish()
        return batch.take_ends(embeds)

    def logits(self, hidden: Tensor) -> Tensor:
        def one() -> Tensor:
            end = self.random.random() < 0.3
            return torch.nn.functional.one_hot(
                torch.tensor(MARKS.turn_end if end else self.random.randint(1, WORDS)), self.vocabulary
            ).float()

        return one() if hidden.ndim == 1 else torch.stack([one() for _ in hidden])


class SizePatcher(Patcher):
    def __call__(self, chunk: Chunk) -> Patches:
        grid = (1, *chunk.frames.shape[1:3])
        return Patches(torch.zeros(1), grid, grid)


def small_chunk(index: int, rng: random.Random, step: float) -> Chunk:
    frame = np.zeros((1, rng.randint(1, 3), rng.randint(1, 4), 3), np.uint8)
    return Chunk(frame, (index * step,), index * step, (index + 1) * step)


def check(engine: Engine, session: Session, model: SerialModel, known: dict[int, tuple[int, float]]) -> list[int]:
    """Everything that must hold after a step; returns the serial numbers of the rows, in order."""
    pool, slot = engine.pool, session.stream.slot
    held = pool.length[slot]
    assert held == session.state.timeline.cached <= session.capacity
    serials = [int(serial) for serial in pool.keys[0, slot, 0, :held, 0].tolist()]
    assert torch.equal(pool.values[0, slot, 0, :held], pool.keys[0, slot, 0, :held] * 3), "keys and values went apart"
    assert [model.tokens[serial] for serial in serials] == session.state.timeline.tokens[:held]
    assert len(set(serials)) == held
    numbers = session.state.positions
    assert numbers.shape == (3, held)
    if session.options.policy.positions == "contiguous":
        np.testing.assert_array_equal(
            numbers, positions(session.state.timeline.spans, model.tokens_per_second)[:, :held], "positions have gaps"
        )
    angles = torch.from_numpy(numbers[0]).double()
    expected = pool.keys[0, slot, 0, :held, 0] * angles.float().cos().double()
    torch.testing.assert_close(pool.rotated_keys[0, slot, 0, :held, 0], expected)
    for kind in (Kind.HISTORY, Kind.COMMENTARY, Kind.VISION):
        order = [serials[i] for i in rows_of_kind(session, kind) if i < held]
        assert order == sorted(order), f"{kind} rows changed their order"
    for row, serial in enumerate(serials):
        known.setdefault(serial, (model.tokens[serial], float(numbers[0, row])))
    return serials


def rows_of_kind(session: Session, kind: Kind) -> list[int]:
    rows, at = [], 0
    for span in session.state.timeline.spans:
        if span.kind is kind:
            rows.extend(range(at, at + len(span)))
        at += len(span)
    return rows


def drive(policy: CachePolicy, seed: int, steps: int, step: float, every: int = 1, budget: int = 0) -> None:
    """Watch ``steps`` random chunks, with a new instruction now and then; with one of ``budget`` ids in each step."""
    model, rng = SerialModel(seed), random.Random(seed)
    known: dict[int, tuple[int, float]] = {}
    engine = Engine(model)
    with engine.open(policy=policy, context="ab", instruction="c", step=step, fps=1 / step) as session:
        for index in range(steps):
            if budget or rng.random() < 0.02:
                session.instruct("d" * (budget or rng.randint(1, 5)))
            event = session.step(small_chunk(index, rng, step))
            assert sum(event.rows.values()) <= event.capacity
            if index % every == 0:
                serials = check(engine, session, model, known)
                append = policy.positions == "append"
                assert not append or all(
                    known[serial][1] == session.state.positions[0, row] for row, serial in enumerate(serials)
                )


windows = st.builds(
    StreamingWindow,
    vision=st.integers(0, 6),
    turns=st.integers(0, 6),
    sink=st.integers(2, 12),
    text=st.integers(0, 12),
    positions=st.sampled_from(["contiguous", "append"]),
)
public_code = st.builds(
    PublicCode,
    vision=st.integers(1, 6),
    turns=st.integers(1, 6),
    sink=st.integers(0, 12),
    text=st.integers(1, 12),
    positions=st.sampled_from(["contiguous", "append"]),
)
resets = st.builds(SlidingReset, seconds=st.floats(0.5, 12), positions=st.sampled_from(["contiguous", "append"]))
recomputed = st.builds(
    SlidingRecompute,
    vision=st.integers(0, 6),
    turns=st.integers(0, 6),
    sink=st.integers(2, 12),
    text=st.integers(0, 12),
)
recent = st.builds(RecentFrames, frames=st.integers(1, 6))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(policy=windows | public_code, seed=st.integers(0, 10**6), step=st.sampled_from([0.5, 1.0, 3.0]))
def test_timeline_and_pool_agree(policy: StreamingWindow, seed: int, step: float) -> None:
    drive(policy, seed, 25, step)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(policy=resets | recomputed | recent, seed=st.integers(0, 10**6), step=st.sampled_from([0.5, 1.0, 3.0]))
def test_the_baselines_agree_too(policy: CachePolicy, seed: int, step: float) -> None:
    drive(policy, seed, 20, step)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(policy=recomputed, seed=st.integers(0, 10**6), step=st.sampled_from([0.5, 1.0, 3.0]))
def test_recomputing_shows_what_streaming_shows(policy: SlidingRecompute, seed: int, step: float) -> None:
    rng, chunks = random.Random(seed), random.Random(seed)
    open_ = {"context": "ab", "instruction": "c", "step": step, "fps": 1 / step}
    pair = [Engine(SerialModel(seed)).open(policy=one, **open_) for one in (policy, policy.layout)]
    for index in range(20):
        item, new = small_chunk(index, chunks, step), "d" * rng.randint(1, 5) if rng.random() < 0.1 else ""
        traces = [Trace(), Trace()]
        for session, trace in zip(pair, traces, strict=True):
            if new:
                session.instruct(new)
            session.step(item, trace=trace)
        assert traces[0].retained == traces[1].retained
        assert pair[0].state.timeline == pair[1].state.timeline
        np.testing.assert_array_equal(traces[0].prefill_positions, traces[1].prefill_positions)
        np.testing.assert_array_equal(pair[0].state.positions, pair[1].state.positions)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), positions=st.sampled_from(["contiguous", "append"]))
def test_full_attention_agrees_too(seed: int, positions: str) -> None:
    drive(KeepAll(seconds=20, positions=positions), seed, 20, 1.0)


@pytest.mark.parametrize("spec", POLICIES)
def test_the_bound_holds_when_every_step_brings_an_instruction(spec: str) -> None:
    small = {"vision": 5, "turns": 5, "sink": 2, "text": 2, "seconds": 12, "frames": 1}
    drive(make_policy(spec, small), 3, 12, 1.0, budget=INSTRUCTION_BUDGET)


@pytest.mark.slow
def test_after_ten_thousand_steps() -> None:
    drive(StreamingWindow(vision=3, turns=4, sink=8, text=10), 5, 10_000, 1.0, every=50)
