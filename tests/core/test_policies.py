"""The baselines of the paper's comparison: what they show the model, and that it is all that the model sees."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from streamingvlm import cli
from streamingvlm.core.errors import CapacityError, PolicyError
from streamingvlm.core.events import Chunk
from streamingvlm.core.policy import KeepAll, RecentFrames, SlidingRecompute, SlidingReset, make_policy
from streamingvlm.core.positions import positions
from streamingvlm.core.spans import Kind
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import Trace
from streamingvlm.engine.session import Session
from streamingvlm.models.hub import BUNDLED
from streamingvlm.models.patches import Patches
from streamingvlm.models.qwen_vl import QwenVL
from support import tiny
from support.streams import chunk, query_text

SIZES = [(56, 84), (84, 56), (28, 28), (97, 201)]


@pytest.fixture(scope="module")
def model() -> QwenVL:
    return tiny.model()


@pytest.fixture(scope="module")
def stock() -> Any:
    return tiny.stock()


def stock_logits(stock: Any, ids: Sequence[int], numbers: np.ndarray, vision: Sequence[torch.Tensor]) -> torch.Tensor:
    """Raw logits (n, vocabulary) of one plain transformers forward over a whole sequence."""
    tokens = torch.tensor(ids)[None]
    embeds = stock.model.language_model.embed_tokens(tokens).clone()
    embeds[tokens == tiny.MARKS.vision_pad] = torch.cat(list(vision))
    hidden = stock.model.language_model(
        inputs_embeds=embeds, position_ids=torch.from_numpy(numbers.copy())[:, None], use_cache=False
    ).last_hidden_state
    return stock.lm_head(hidden)[0]


def check_against_stock(stock: Any, session: Session, trace: Trace, shown: Mapping[int, Patches]) -> None:
    """One plain forward over exactly what the stream holds gives the step's logits; ``shown``: turn -> its video."""
    spans = session.state.timeline.spans
    numbers = positions(spans, session.model.tokens_per_second)
    count = trace.prefill_positions.shape[1]
    np.testing.assert_array_equal(trace.prefill_positions, numbers[:, :count])
    vision = [shown[span.turn] for span in spans if span.kind is Kind.VISION]
    seen = [
        stock.model.visual(patches.pixels, grid_thw=torch.tensor([patches.grid])).pooler_output for patches in vision
    ]
    logits = stock_logits(stock, session.state.timeline.tokens, numbers, seen)
    for offset, ours in enumerate(trace.logits):
        torch.testing.assert_close(ours, logits[count - 1 + offset], rtol=0, atol=1e-4)


def text_of(session: Session) -> str:
    return tiny.CharTokenizer().decode(session.state.timeline.tokens)


# --- sliding-recompute ------------------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize(
    ("policy", "tokens"),
    [
        (SlidingRecompute(vision=3, turns=3, sink=10, text=8), 5),
        (SlidingRecompute(vision=4, turns=2, sink=7, text=0), 1),
        (SlidingRecompute(vision=1, turns=3, sink=7, text=5), 3),
    ],
    ids=["paper", "cut", "little-video"],
)
def test_recomputing_equals_a_stock_forward_over_what_stays(
    model: QwenVL, stock: Any, policy: SlidingRecompute, tokens: int
) -> None:
    with Engine(model).open(policy=policy, context="context", instruction="do", max_new_tokens=tokens) as session:
        shown: dict[int, Patches] = {}
        for i in range(6):
            if i == 2:
                session.instruct("that")
            item, trace = chunk(i, size=SIZES[i % len(SIZES)]), Trace()
            shown[i] = model.patcher(item)
            session.step(item, trace=trace)
            check_against_stock(stock, session, trace, shown)
        assert len(session.state.retained) <= policy.vision
        assert query_text(session) == ["that"]


# --- recent-frames ----------------------------------------------------------------------------------------------


def newest(chunks: Sequence[Chunk], count: int) -> np.ndarray:
    return np.concatenate([item.frames for item in chunks])[-count:]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("frames", "fps", "step", "stamps"),
    [
        (4, 2, 1, ["0.0-1.0", "0.0-2.0", "1.0-3.0", "2.0-4.0"]),
        (4, 8, 1, ["0.5-1.0", "1.5-2.0", "2.5-3.0", "3.5-4.0"]),
        (3, 2, 0.5, ["0.0-0.5", "0.0-1.0", "0.0-1.5", "0.5-2.0"]),
        (1, 2, 2, ["1.5-2.0", "3.5-4.0", "5.5-6.0", "7.5-8.0"]),
    ],
)
def test_recent_frames_equals_a_forward_over_its_short_prompt(
    model: QwenVL, stock: Any, frames: int, fps: float, step: float, stamps: list[str]
) -> None:
    policy = RecentFrames(frames)
    with Engine(model).open(policy=policy, context="c", instruction="do", fps=fps, step=step) as session:
        chunks: list[Chunk] = []
        for i, stamp in enumerate(stamps):
            chunks.append(chunk(i, step=step, frames=int(fps * step)))
            pixels = newest(chunks, frames)
            trace = Trace()
            event = session.step(chunks[-1], trace=trace)
            assert (event.start, event.end) == (i * step, (i + 1) * step)
            merged = model.patcher(Chunk(pixels, (0.0,) * len(pixels), 0, 1))
            check_against_stock(stock, session, trace, {i: merged})
            start = "system\nYou are a helpful assistant.\nprevious text\nc\nuser\ndo\n"
            assert text_of(session).startswith(f"{start}user\nTime={stamp}s\nassistant\n")


def test_recent_frames_of_another_size_are_stretched(model: QwenVL) -> None:
    with Engine(model).open(policy="recent-frames:frames=6") as session:
        for i in range(8):
            event = session.step(chunk(i, size=SIZES[i % len(SIZES)]))
            (block,) = [span for span in session.state.timeline.spans if span.kind is Kind.VISION]
            assert block.grid is not None
            assert block.grid[0] == min(i + 1, 3)
            assert block.grid[1:] == model.patcher(chunk(0, size=SIZES[i % len(SIZES)])).merged[1:]
            assert sum(event.rows.values()) <= event.capacity


# --- sliding-reset ----------------------------------------------------------------------------------------------


def test_reset_is_full_attention_and_then_a_fresh_stream(model: QwenVL) -> None:
    chunks = [chunk(i, size=SIZES[i % len(SIZES)]) for i in range(7)]

    def watch(policy: SlidingReset | KeepAll, items: Sequence[Chunk]) -> list[tuple[list[int], Trace]]:
        out = []
        with Engine(model).open(policy=policy, context="context", instruction="do", max_new_tokens=3) as session:
            for item in items:
                trace = Trace()
                session.step(item, trace=trace)
                out.append((session.state.timeline.tokens, trace))
        return out

    ours = watch(SlidingReset(seconds=3), chunks)
    parts = [watch(KeepAll(seconds=9), chunks[at : at + 3]) for at in (0, 3, 6)]
    for index, (tokens, trace) in enumerate(ours):
        wanted_tokens, wanted = parts[index // 3][index % 3]
        assert tokens == wanted_tokens
        assert trace.tokens == wanted.tokens
        np.testing.assert_array_equal(trace.prefill_positions, wanted.prefill_positions)
        for one, other in zip(trace.logits, wanted.logits, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0 if index < 3 else 1e-4)
    for tokens, trace in (ours[3], ours[6]):
        assert trace.retained == tokens[: len(trace.retained)]
        assert tiny.CharTokenizer().decode(trace.retained).endswith("context\nuser\ndo\n")


@pytest.mark.parametrize(("step", "shown"), [(0.5, 6), (1.0, 3), (0.7, 4), (2.0, 1), (5.0, 1)])
def test_reset_counts_seconds_whatever_the_step(model: QwenVL, step: float, shown: int) -> None:
    with Engine(model).open(policy=SlidingReset(seconds=3), step=step, fps=2, max_new_tokens=1) as session:
        counts = []
        for i in range(2 * shown + 1):
            session.step(chunk(i, step=step, frames=max(int(2 * step), 1)))
            counts.append(sum(span.kind is Kind.VISION for span in session.state.timeline.spans))
    assert counts == [*range(1, shown + 1), *range(1, shown + 1), 1]


def test_positions_go_on_counting_over_a_reset_if_asked(model: QwenVL) -> None:
    with Engine(model).open(policy="sliding-reset:seconds=2,positions=append") as session:
        last = []
        for i in range(5):
            session.step(chunk(i))
            last.append(session.state.last_position)
    assert last == sorted(last)


# --- all of them ------------------------------------------------------------------------------------------------


def test_without_a_sink_the_context_goes_like_any_old_text(model: QwenVL) -> None:
    policy = make_policy("streaming:vision=1,turns=1,sink=0,text=6")
    with Engine(model).open(policy=policy, context="abcdefghij") as session:
        session.step(chunk(0))
        history = [span for span in session.state.timeline.spans if span.kind is Kind.HISTORY]
        assert sum(map(len, history)) == 10, "there until something has to go"
        for second in range(1, 6):
            session.step(chunk(second))
        history = [span for span in session.state.timeline.spans if span.kind is Kind.HISTORY]
        assert sum(map(len, history)) <= 6
    with pytest.raises(CapacityError, match="context"):
        Engine(model).open(policy="streaming:sink=4", context="abcdefghij")


SMALL = ["sliding-reset:seconds=2", "sliding-recompute:vision=2,turns=2,sink=4,text=4", "recent-frames"]


@pytest.mark.parametrize("spec", SMALL)
def test_the_instruction_stands_and_can_be_replaced(model: QwenVL, spec: str) -> None:
    with Engine(model).open(policy=spec, context="cont", instruction="first", max_new_tokens=3) as session:
        for i in range(5):
            session.step(chunk(i))
            assert query_text(session) == ["first"]
        session.instruct("second")
        session.step(chunk(5))
        assert query_text(session) == ["first", "second"]
        for i in range(6, 10):
            session.step(chunk(i))
            assert query_text(session) == ["second"]
        assert "previous text\ncont" in text_of(session)
        assert text_of(session).count("user\nsecond\n") == 1


def test_a_context_is_bounded_where_it_could_be_cut(model: QwenVL) -> None:
    engine = Engine(model)
    with pytest.raises(CapacityError, match="the context has 600 tokens; at most 512"):
        engine.open(policy="sliding-recompute", context="x" * 600)
    for spec in ("sliding-reset:seconds=3", "recent-frames"):
        with engine.open(policy=spec, context="x" * 600) as session:
            for i in range(5):
                session.step(chunk(i))
            assert session.rows["history"] == 600


def test_a_policy_can_be_named_with_its_numbers() -> None:
    assert make_policy("sliding-reset:seconds=60") == SlidingReset(seconds=60)
    assert make_policy("sliding-recompute:text=9", {"sink": 5, "vision": 8}) == SlidingRecompute(8, sink=5, text=9)
    assert make_policy("recent-frames:frames=8", {"sink": 5}) == RecentFrames(8)
    # Words are recorded by the policy's repr: a checkpoint's own 16 (JSON) and a given 16 are one policy.
    assert repr(make_policy("streaming:vision=16", {"vision": 16})) == repr(make_policy("streaming", {"vision": 16}))
    with pytest.raises(PolicyError, match="vision must be a number"):
        make_policy("streaming", {"vision": "wide"})
    with pytest.raises(PolicyError, match="text must be a whole number"):
        make_policy("streaming", {"text": 16.5})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sliding-reset:seconds=0", "above 0, not 0"),
        ("sliding-reset:seconds=inf", "above 0, not inf"),
        ("sliding-reset:seconds=nan", "above 0, not nan"),
        ("sliding-reset:positions=odd", "contiguous or append, not 'odd'"),
        ("streaming:history_kv=odd", "reuse or recompute, not 'odd'"),
        ("public-code:history_kv=recompute", "no option 'history_kv'"),
        ("sliding-reset:frames=4", "no option 'frames'; it has: seconds, positions"),
        ("sliding-recompute:sink=-1", "must be 0 or more"),
        ("sliding-recompute:positions=append", "no option 'positions'; it has: vision, turns, sink, text"),
        ("recent-frames:frames=0", "at least 1, not 0"),
        ("recent-frames:frames=2.5", "frames must be a whole number, not '2.5'"),
        ("recent-frames:seconds=4", "no option 'seconds'; it has: frames"),
    ],
)
def test_options_that_cannot_be_meant(spec: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        make_policy(spec)


@pytest.mark.skipif(not (BUNDLED / "model.safetensors").is_file(), reason="the bundled model is not here")
@pytest.mark.parametrize("spec", ["sliding-reset:seconds=2", "sliding-recompute:vision=2,turns=2", "recent-frames"])
def test_on_the_command_line(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ale_py", reason="the arcade extra is not installed")
    assert cli.main(["watch", "arcade:pong?seed=9000007", "--duration", "4", "--policy", spec, "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    events = [record for record in records if record["type"] == "commentary.done"]
    assert [event["start"] for event in events] == [0, 1, 2, 3]
    video = [event["rows"]["vision"] for event in events]
    assert video[0] < video[1] == video[3]
