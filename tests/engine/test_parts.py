"""A step that is shown in parts, as its frames come, is the step that is shown at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from streamingvlm.core.errors import CapacityError
from streamingvlm.core.events import Chunk
from streamingvlm.core.policy import CachePolicy, KeepAll, RecentFrames, SlidingRecompute, SlidingReset, StreamingWindow
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import Trace
from streamingvlm.engine.session import Session
from streamingvlm.models.qwen_vl import QwenVL
from streamingvlm.runtime import clock as pace
from support import tiny
from support.streams import finish

tiny_model = cache(tiny.model)
FPS, STEPS = 8.0, 6
POLICIES: dict[str, CachePolicy] = {
    "window": StreamingWindow(vision=2, turns=3, sink=6, text=6),
    "append": StreamingWindow(vision=2, turns=2, sink=4, text=4, positions="append"),
    "rearchive": StreamingWindow(vision=2, turns=2, sink=6, text=9, history_kv="recompute"),
    "full": KeepAll(seconds=STEPS),
    "reset": SlidingReset(seconds=3),
    "sliding-recompute": SlidingRecompute(vision=2, turns=3, sink=6, text=5),
    "frames": RecentFrames(frames=6),
}


def chunk(index: int, size: tuple[int, int], frames: int = 8) -> Chunk:
    pixels = np.random.default_rng(index).integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    return Chunk(pixels, tuple(index + i / frames for i in range(frames)), index, index + 1)


def watch(family: str, policy: CachePolicy, part: int | None, *, ahead: bool = False) -> list[tuple[Trace, int]]:
    """Traces and rows of some steps, each shown in parts of ``part`` frames."""
    seen: list[tuple[Trace, int]] = []
    with Engine(tiny_model(family=family)).open(policy=policy, fps=FPS, instruction="watch") as session:
        for index in range(STEPS):
            if index == 3:
                session.instruct("look")
            *early, rest = pace.split(chunk(index, tiny.FAMILIES[family].size), part)
            for one in early:
                session.feed(session.prepare(one, encode=True) if ahead else one)
            seen.append((Trace(), 0))
            event = session.step(session.prepare(rest, encode=True) if ahead else rest, trace=seen[-1][0])
            seen[-1] = (seen[-1][0], sum(event.rows.values()))
            assert (event.start, event.end) == (index, index + 1)
    return seen


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "family", [one if one == tiny.GOLDEN else pytest.param(one, marks=pytest.mark.slow) for one in tiny.FAMILIES]
)
def test_in_parts_as_at_once(family: str, policy: str) -> None:
    whole = watch(family, POLICIES[policy], None)
    for part, ahead in ((2, False), (4, True)):
        for (one, rows), (other, others) in zip(whole, watch(family, POLICIES[policy], part, ahead=ahead), strict=True):
            assert one.tokens == other.tokens
            assert rows == others
            np.testing.assert_array_equal(one.prefill_positions, other.prefill_positions)
            torch.testing.assert_close(torch.stack(one.logits), torch.stack(other.logits), rtol=0, atol=1e-4)


@pytest.fixture
def session() -> Iterator[Session]:
    model: QwenVL = tiny_model()
    with Engine(model).open(fps=FPS, instruction="") as session:
        yield session


def test_only_the_rest_is_left_to_do(session: Session) -> None:
    size = tiny.FAMILIES[tiny.GOLDEN].size
    *early, rest = pace.split(chunk(0, size), 2)
    held = []
    for part in early:
        session.feed(part)
        held.append(session.state.timeline.cached)
    assert len(held) == 3
    assert held == sorted(set(held))
    pads = 8 // 2 * size[0] * size[1] // 28**2
    assert held[-1] >= pads * 3 // 4
    event = session.step(rest)
    # The work of all parts is the step's, its lag only what came behind the last frame.
    assert event.timing.vision_encode > 0
    assert event.timing.work > event.timing.lag


def test_what_cannot_be_a_part(session: Session) -> None:
    size = tiny.FAMILIES[tiny.GOLDEN].size
    whole = chunk(0, size)
    with pytest.raises(ValueError, match="multiple of 2 frames"):
        session.feed(replace(whole, frames=whole.frames[:3], times=whole.times[:3]))
    first, *_, rest = pace.split(whole, 4)
    session.feed(first)
    with pytest.raises(ValueError, match=r"step from 0\.000 s has begun"):
        session.step(chunk(1, size))
    with pytest.raises(CapacityError, match="12 frames in one step"):
        session.step(whole)
    with pytest.raises(ValueError, match="one size"):
        session.step(replace(rest.chunk, frames=np.zeros((4, 28, 28, 3), np.uint8)))
    assert session.step(rest).end == 1


@pytest.mark.parametrize("policy", ["sliding-recompute", "frames"])
def test_parts_that_are_only_kept_are_bounded_too(policy: str) -> None:
    size = tiny.FAMILIES[tiny.GOLDEN].size
    with Engine(tiny_model()).open(policy=POLICIES[policy], fps=FPS, instruction="") as session:
        first, rest = pace.split(chunk(0, size), 4)
        session.feed(first)
        assert not session.state.between_steps
        with pytest.raises(CapacityError, match="12 frames in one step"):
            session.step(chunk(0, size))
        assert session.step(rest).end == 1
        assert session.state.between_steps


def test_streams_in_parts_and_whole_share_a_batch() -> None:
    model, size = tiny_model(), tiny.FAMILIES[tiny.GOLDEN].size

    def alone(part: int | None) -> list[tuple[int, ...]]:
        with Engine(model).open(fps=FPS, instruction="") as session:
            said = []
            for index in range(3):
                *early, rest = pace.split(chunk(index, size), part)
                for one in early:
                    session.feed(one)
                said.append(session.step(rest).tokens)
            return said

    engine = Engine(model, slots=2)
    with engine.open(fps=FPS, instruction="") as one, engine.open(fps=FPS, instruction="") as other:
        together: list[list[tuple[int, ...]]] = [[], []]
        for index in range(3):
            job = engine.submit(one, chunk(index, size))
            *early, rest = pace.split(chunk(index, size), 2)
            for part in early:
                other.feed(part)  # runs the first stream's words along
            last = engine.submit(other, rest)
            together[0].append(finish(engine, job).tokens)
            together[1].append(finish(engine, last).tokens)
    assert together == [alone(None), alone(2)]


class Ticks:
    """Steps of 0.1 s with four frames each."""

    name, context, kind, live = "ticks", "", "", False

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Chunk]:
        for index in range(self.count):
            start = index * 0.1
            times = tuple(start + 0.1 * i / 4 for i in range(4))
            yield Chunk(np.zeros((4, 2, 2, 3), np.uint8), times, start, start + 0.1)


def test_live_hands_out_parts_as_their_frames_come() -> None:
    began = time.perf_counter()
    for part in pace.live(Ticks(3), part=2):
        now = time.perf_counter()
        chunk = part.chunk
        assert part.arrival.ready_at is not None
        assert len(chunk.frames) == 2
        assert part.last == (chunk.times[-1] - chunk.start > 0.06)
        assert now - began >= chunk.times[-1] - 1e-3


def test_live_drops_whole_steps_only() -> None:
    parts = []
    for part in pace.live(Ticks(8), part=2):
        parts.append(part)
        time.sleep(0.33 if len(parts) == 1 else 0)
    steps = {part.chunk.start for part in parts}
    # The step that was begun is handed out to its end, every other one whole or not at all.
    assert [part.last for part in parts] == [False, True] * len(steps)
    assert parts[0].chunk.start == parts[1].chunk.start
    assert sum(part.arrival.dropped for part in parts) + len(steps) == 8
    assert all(part.arrival.dropped == 0 for part in parts if not part.last)
    assert len(steps) < 8
