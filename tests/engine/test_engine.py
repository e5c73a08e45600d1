"""The engine against stock transformers, against a slow oracle, and against itself in other company."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from streamingvlm.cache.batch import Batch
from streamingvlm.core.errors import CapacityError, OptionError, PolicyError, SourceError, StreamingVLMError
from streamingvlm.core.events import Arrival, Commentary, StepInput
from streamingvlm.core.policy import (
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
from streamingvlm.core.spans import Kind, Role, Span
from streamingvlm.core.timeline import Timeline
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import Trace
from streamingvlm.engine.session import Session
from streamingvlm.engine.state import StreamState
from streamingvlm.models.base import Deepstack, Vision
from streamingvlm.models.int8_linear import int8_available
from streamingvlm.models.patches import Patches
from streamingvlm.models.quantize import quantize
from streamingvlm.models.qwen_vl import QwenVL
from streamingvlm.train import layout
from support import tiny
from support.streams import chunk, finish, query_text

tiny_model = cache(tiny.model)


@pytest.fixture(scope="module")
def model() -> QwenVL:
    return tiny_model()


def stock_run(family: str, ids: Sequence[int], patches: Sequence[Patches]) -> tuple[np.ndarray, torch.Tensor]:
    """Positions (3, n) and raw logits (n, vocabulary) of one plain transformers forward over a whole sequence.

    transformers finds the positions by itself, and where the pixels and all that comes of them belong.
    """
    stock = tiny.stock(family)
    tokens = torch.tensor(ids)[None]
    video: dict[str, Any] = {
        "video_grid_thw": torch.tensor([p.grid for p in patches]),
        "mm_token_type_ids": (tokens == tiny.MARKS.vision_pad).int() * 2,
    }
    if family == "qwen2_5_vl":
        video["second_per_grid_ts"] = [1.0] * len(patches)
    numbers, _ = stock.model.get_rope_index(tokens, **video)
    pixels = torch.cat([p.pixels for p in patches])
    logits = stock(input_ids=tokens, pixel_values_videos=pixels, use_cache=False, **video).logits
    return numbers[:, 0].numpy(), logits[0]


@torch.inference_mode()
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_without_eviction_equals_one_stock_forward(family: str, step: int) -> None:
    """Steps of one and of two temporal patches, of one second each: transformers 5.17 knows whole seconds only."""
    model = tiny_model(family=family)
    chunks = [chunk(i, step=step, frames=2 * step, size=tiny.FAMILIES[family].size) for i in range(5)]
    window = KeepAll(seconds=5 * step)
    with Engine(model).open(policy=window, context="who plays", instruction="say", fps=2, step=step) as session:
        traces = []
        for item in chunks:
            traces.append(Trace())
            session.step(item, trace=traces[-1])
        spans = session.state.timeline.spans
        ids = session.state.timeline.tokens
    numbers, logits = stock_run(family, ids, [model.patcher(item) for item in chunks])
    np.testing.assert_array_equal(positions(spans, model.tokens_per_second), numbers)
    for trace in traces:
        at = trace.prefill_positions.shape[1] - 1
        for offset, ours in enumerate(trace.logits):
            torch.testing.assert_close(ours, logits[at + offset], rtol=0, atol=1e-4)
            assert int(ours.argmax()) == trace.tokens[offset]


# --- a slow, obvious oracle -------------------------------------------------------------------------------------


@dataclass(eq=False)
class Row:
    """One token of the stream, and what was computed for it when it was fed: per layer, before rotation."""

    token: int
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)
    position: np.ndarray | None = None


def rows_of(ids: Sequence[int]) -> list[Row]:
    return [Row(token) for token in ids]


@dataclass
class Block:
    time: list[Row]
    video: list[Row]


@dataclass
class Turn:
    start: int
    head: list[Row]
    blocks: list[Block]
    foot: list[Row]
    reply: list[Row] = field(default_factory=list)
    words: int = 0
    newline: list[Row] = field(default_factory=list)


class Oracle:
    """The default streaming window in plain lists: one token at a time, every key rotated anew for every token."""

    def __init__(
        self, family: str, window: StreamingWindow, encode: Callable[[str], list[int]], context: str, instruction: str
    ) -> None:
        stock = tiny.stock(family)
        self.layers, self.norm, self.head = (
            stock.model.language_model.layers,
            stock.model.language_model.norm,
            stock.lm_head,
        )
        self.rotary = stock.model.language_model.rotary_emb
        self.embed = stock.model.language_model.embed_tokens
        self.window, self.encode = window, encode
        self.before = rows_of(
            self.message("system", "You are a helpful assistant.") + self.message("previous text", context)[:-2]
        )
        split = len(self.before) - len(encode(context))
        self.before, self.history = self.before[:split], self.before[split:]
        self.after = rows_of([tiny.TURN_END, *encode("\n"), *self.message("user", instruction)])
        self.turns: list[Turn] = []
        self.last = -1.0

    def message(self, role: str, text: str) -> list[int]:
        return [tiny.MARKS.turn_start, *self.encode(f"{role}\n"), *self.encode(text), tiny.TURN_END, *self.encode("\n")]

    def rows(self) -> list[Row]:
        out = [*self.before, *self.history, *self.after]
        for t in self.turns:
            out += t.head
            for block in t.blocks:
                out += [*block.time, *block.video]
            out += [*t.foot, *t.reply, *t.newline]
        return out

    def evict(self, now: int) -> None:
        newest, archived = self.turns[-1:], list[Row]()
        for t in list(self.turns):
            old_words = t.start < now + 1 - self.window.turns and t not in newest
            old_video = t.start < now + 1 - self.window.vision
            for block in t.blocks:
                block.video = [] if old_video else block.video
                block.time = [] if old_words else block.time
            if old_words:
                archived += t.reply[: t.words]
                t.reply, t.newline, t.words = [], [], 0
                t.foot = t.foot[:2]
            if old_words and old_video:
                self.turns.remove(t)
        self.history += archived
        if len(self.history) > self.window.sink + self.window.text:
            self.history = self.history[: self.window.sink] + self.history[len(self.history) - self.window.text :]
        kept = [row for row in self.history if any(row is other for other in archived)]
        if self.window.history_kv == "recompute" and kept:
            for row in (*kept, *self.after[: 1 + len(self.encode("\n"))]):
                row.keys, row.values = [], []

    def begin(self, now: int, stamps: Sequence[str]) -> None:
        """A turn of one block of 1 x 2 x 3 pads behind each stamp."""
        if self.turns:
            self.turns[-1].newline = rows_of(self.encode("\n"))
        video = [tiny.MARKS.vision_start, *[tiny.MARKS.vision_pad] * 6, tiny.MARKS.vision_end]
        foot = [tiny.TURN_END, *self.encode("\n"), tiny.MARKS.turn_start, *self.encode("assistant\n")]
        head = [tiny.MARKS.turn_start, *self.encode("user\n")]
        blocks = [Block(rows_of(self.encode(stamp)), rows_of(video)) for stamp in stamps]
        self.turns.append(Turn(now, rows_of(head), blocks, rows_of(foot)))

    def number(self, rows: Sequence[Row], first: float) -> list[np.ndarray]:
        """Positions counted from ``first``: text goes up by one, a block of 1 x 2 x 3 spans three."""
        out: list[np.ndarray] = []
        here, pad = first, 0
        for row in rows:
            if row.token == tiny.MARKS.vision_pad:
                out.append(np.array([here, here + pad // 3, here + pad % 3], np.float32))
                pad += 1
            else:
                here, pad = here + (3 if pad else 0), 0
                out.append(np.full(3, here, np.float32))
                here += 1
        return out

    def feed(
        self, row: Row, seen: Sequence[torch.Tensor], held: list[Row], turns: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> torch.Tensor:
        """``seen``: what goes into the first layer, and what is added behind the first, the second, ..."""
        held.append(row)
        x, added = seen[0], seen[1:]
        for index, layer in enumerate(self.layers):
            a = layer.self_attn
            y = layer.input_layernorm(x)
            query, key = a.q_proj(y).view(-1, a.head_dim), a.k_proj(y).view(-1, a.head_dim)
            if hasattr(a, "q_norm"):
                query, key = a.q_norm(query), a.k_norm(key)
            row.keys.append(key)
            row.values.append(a.v_proj(y).view(-1, a.head_dim))
            query = self.rotate(query, turns[len(held) - 1])
            keys = torch.stack([self.rotate(r.keys[index], turns[i]) for i, r in enumerate(held)], 1)
            values = torch.stack([r.values[index] for r in held], 1)
            group = len(query) // len(keys)
            heads = [
                torch.softmax(keys[h // group] @ q * a.scaling, 0) @ values[h // group] for h, q in enumerate(query)
            ]
            x = x + a.o_proj(torch.cat(heads))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            if index < len(added):
                x = x + added[index]
        return x

    def rotate(self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        half = torch.cat([-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]], -1)
        return x * turn[0] + half * turn[1]

    def numbers(self) -> list[np.ndarray]:
        """Positions of all rows now; in append mode a row keeps the one it was born with."""
        rows = self.rows()
        if self.window.positions == "contiguous":
            return self.number(rows, 0.0)
        fresh = [row for row in rows if row.position is None]
        for row, number in zip(fresh, self.number(fresh, self.last + 1), strict=True):
            row.position = number
        self.last = max(self.last, *(float(row.position.max()) for row in rows))
        return [row.position for row in rows]

    def feed_new(self, vision: Vision) -> torch.Tensor:
        """PrefillInput every row that has not been fed; the logits behind the last."""
        numbers, held, seen = np.stack(self.numbers(), 1), [], zip(vision.embeds, *vision.deepstack, strict=True)
        cos, sin = self.rotary(vision.embeds, torch.from_numpy(numbers)[:, None])
        turns = list(zip(cos[0], sin[0], strict=True))
        for row in self.rows():
            if row.keys:
                held.append(row)
            else:
                pad = row.token == tiny.MARKS.vision_pad
                x = next(seen) if pad else (self.embed(torch.tensor(row.token)),)
                last = self.feed(row, x, held, turns)
        return self.head(self.norm(last))


WINDOWS = [
    StreamingWindow(vision=3, turns=3, sink=10, text=8),
    StreamingWindow(vision=2, turns=4, sink=7, text=5),
    StreamingWindow(vision=4, turns=2, sink=7, text=0),
    StreamingWindow(vision=0, turns=0, sink=7, text=9),
    StreamingWindow(vision=3, turns=3, sink=10, text=8, positions="append"),
    StreamingWindow(vision=1, turns=3, sink=10, text=3, positions="append"),
    StreamingWindow(vision=2, turns=2, sink=7, text=8, history_kv="recompute"),
    StreamingWindow(vision=3, turns=1, sink=10, text=2, history_kv="recompute"),
    StreamingWindow(vision=1, turns=3, sink=10, text=3, positions="append", history_kv="recompute"),
]


CASES = [
    *(("qwen2_5_vl", window) for window in (WINDOWS[0], WINDOWS[3], WINDOWS[5], WINDOWS[6])),
    ("qwen2_vl", WINDOWS[6]),
    ("qwen3_vl", WINDOWS[5]),
]
MORE_CASES = [
    *(("qwen2_5_vl", window) for window in WINDOWS if ("qwen2_5_vl", window) not in CASES),
    *(("qwen2_vl", window) for window in (WINDOWS[0], WINDOWS[5])),
    *(("qwen3_vl", window) for window in (WINDOWS[1], WINDOWS[2], WINDOWS[7])),
]


def case(family: str, window: StreamingWindow, *marks: pytest.MarkDecorator) -> Any:
    w = window
    name = f"{family}-v{w.vision}-t{w.turns}-s{w.sink}-w{w.text}-{w.positions}-{w.history_kv}"
    return pytest.param(family, window, id=name, marks=marks)


def stamps(family: str, now: int) -> list[str]:
    """Time stamps of one second; every temporal patch (two frames of four a second) has one in Qwen3-VL."""
    if family == "qwen3_vl":
        return [f"<{now + 0.125:.1f} seconds>", f"<{now + 0.625:.1f} seconds>"]
    return [f"Time={now:.1f}-{now + 1:.1f}s"]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("family", "window"),
    [*(case(*one) for one in CASES), *(case(*one, pytest.mark.slow) for one in MORE_CASES)],
)
def test_with_eviction_equals_a_slow_oracle(family: str, window: StreamingWindow) -> None:
    model, frames = tiny_model(family=family), 2 * len(stamps(family, 0))
    oracle = Oracle(family, window, model.grammar.tokenizer.encode, "context", "do")
    options = {"context": "context", "instruction": "do", "max_new_tokens": 4, "fps": frames}
    with Engine(model).open(policy=window, **options) as session:
        for now in range(6):
            trace, item = Trace(), chunk(now, frames=frames, size=tiny.FAMILIES[family].size)
            session.step(item, trace=trace)
            oracle.evict(now)
            if now:
                assert trace.retained == [row.token for row in oracle.rows()]
            (vision,) = model.encode([model.patcher(item)])
            oracle.begin(now, stamps(family, now))
            np.testing.assert_array_equal(trace.prefill_positions, np.stack(oracle.numbers(), 1))
            turn = oracle.turns[-1]
            for ours, token in zip(trace.logits, trace.tokens, strict=True):
                torch.testing.assert_close(ours, oracle.feed_new(vision), rtol=0, atol=2e-4)
                turn.reply.append(Row(token))
            if turn.reply[-1].token != tiny.TURN_END:
                turn.reply.append(Row(tiny.TURN_END))
            ids = [row.token for row in turn.reply[:-1]]
            closing = model.grammar.tokenizer.encode(" ...")
            turn.words = len(ids) - (len(closing) if ids[-len(closing) :] == closing else 0)


# --- sessions in company ----------------------------------------------------------------------------------------


@dataclass
class Plan:
    policy: CachePolicy
    joins: int
    steps: int
    tokens: int
    temperature: float


PLANS = [
    Plan(StreamingWindow(vision=3, turns=3, sink=10, text=8), 0, 6, 6, 0.9),
    Plan(StreamingWindow(vision=1, turns=4, sink=4, text=9), 1, 5, 3, 0.0),
    Plan(KeepAll(seconds=10), 2, 3, 8, 0.9),
    Plan(StreamingWindow(vision=2, turns=2, sink=4, text=4, positions="append"), 0, 4, 5, 1.3),
    Plan(SlidingReset(seconds=2), 1, 5, 4, 0.9),
    Plan(SlidingRecompute(vision=2, turns=3, sink=6, text=5), 0, 5, 6, 0.9),
    Plan(RecentFrames(frames=4), 2, 4, 5, 0.0),
    Plan(StreamingWindow(vision=2, turns=1, sink=9, text=9, history_kv="recompute"), 1, 6, 4, 0.9),
    Plan(StreamingWindow(vision=1, turns=2, sink=9, text=6, history_kv="recompute"), 0, 7, 3, 0.0),
]


def open_plan(engine: Engine, index: int, plan: Plan) -> Session:
    return engine.open(
        policy=plan.policy,
        context="c" * index,
        seed=7,
        stream=index,
        temperature=plan.temperature,
        max_new_tokens=plan.tokens,
    )


def run_alone(model: QwenVL, index: int, plan: Plan, size: tuple[int, int]) -> list[tuple[Commentary, Trace]]:
    out = []
    with open_plan(Engine(model), index, plan) as session:
        for step in range(plan.steps):
            trace = Trace()
            out.append((session.step(chunk(step, seed=index, size=size), trace=trace), trace))
    return out


@pytest.mark.parametrize("weights", ["", "int8"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_in_a_batch_as_alone_bit_for_bit(family: str, weights: str) -> None:
    model, size = tiny_model(family=family), tiny.FAMILIES[family].size
    if weights:
        if not int8_available():
            pytest.skip("no int8 products on this processor")
        model = tiny.model(family=family)
        quantize(model, weights)
    engine = Engine(model, slots=len(PLANS))
    sessions: dict[int, Session] = {}
    together: dict[int, list[tuple[Commentary, Trace]]] = {index: [] for index in range(len(PLANS))}
    for second in range(8):
        jobs = []
        for index, plan in enumerate(PLANS):
            step = second - plan.joins
            if step == 0:
                sessions[index] = open_plan(engine, index, plan)
            if 0 <= step < plan.steps:
                trace = Trace()
                jobs.append(
                    (index, engine.submit(sessions[index], chunk(step, seed=index, size=size), trace=trace), trace)
                )
            elif step == plan.steps:
                sessions[index].close()
        for index, job, trace in jobs:
            together[index].append((finish(engine, job), trace))
    for index, plan in enumerate(PLANS):
        for (ours, trace), (alone, alone_trace) in zip(
            together[index], run_alone(model, index, plan, size), strict=True
        ):
            assert ours.tokens == alone.tokens
            assert ours.rows == alone.rows
            for one, other in zip(trace.logits, alone_trace.logits, strict=True):
                assert torch.equal(one, other)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_own_decoder_says_what_stock_layers_say(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, size = tiny_model(family=family), tiny.FAMILIES[family].size
    for index in (0, 3, 8):
        lean = run_alone(model, index, PLANS[index], size)
        with monkeypatch.context() as patch:
            patch.setattr(model, "use_reference_layers", True)
            stock = run_alone(model, index, PLANS[index], size)
        for (ours, trace), (theirs, stock_trace) in zip(lean, stock, strict=True):
            assert ours.tokens == theirs.tokens
            torch.testing.assert_close(torch.stack(trace.logits), torch.stack(stock_trace.logits), rtol=0, atol=1e-4)


class SeenModel:
    """A model that checks where what the tower saw goes."""

    def __init__(self, model: QwenVL) -> None:
        self._model = model
        self.seen: list[Vision] = []
        self.tokens: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, patches: Sequence[Patches]) -> list[Vision]:
        self.seen = self._model.encode(patches)
        return self.seen

    def forward(self, embeds: torch.Tensor, batch: Batch, deepstack: Deepstack | None = None) -> torch.Tensor:
        if deepstack is not None:
            self.tokens.append(len(embeds))
            assert deepstack.pads.dtype == torch.int64
            assert torch.equal(embeds[deepstack.pads], torch.cat([vision.embeds for vision in self.seen]))
        return self._model.forward(embeds, batch, deepstack)


@torch.inference_mode()
def test_deepstack_features_go_to_the_pads_of_all_streams_of_a_batch() -> None:
    """They are named by number, also where the batch is padded and where text is prefilled once more."""
    family = "qwen3_vl"
    window = StreamingWindow(vision=2, turns=2, sink=12, text=16, history_kv="recompute")
    model = SeenModel(tiny_model(family=family))
    engine = Engine(model, slots=2)
    sessions = [engine.open(policy=window, context="one" * (i + 1)) for i in range(2)]
    for now in range(4):
        for session in sessions:
            engine.submit(session, chunk(now, frames=2, size=tiny.FAMILIES[family].size))
        while engine.busy:
            engine.advance()
    assert len(model.tokens) == 4, "the prefills of both streams are one batch"


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_fixed_shapes_say_the_same(model: QwenVL, temperature: float) -> None:
    def run(capture: str) -> list[Trace]:
        engine = Engine(model, slots=len(PLANS), capture=capture)
        sampling = Sampling(temperature=temperature, top_k=40, top_p=0.95, repetition_penalty=1.1, max_new_tokens=8)
        sessions = [engine.open(sampling=sampling, stream=i, context="c" * i) for i in range(3)]
        assert engine.decoding.capture == capture
        traces = []
        for second in range(3):
            jobs = []
            for index, session in enumerate(sessions):
                traces.append(Trace())
                jobs.append(engine.submit(session, chunk(second, seed=index), trace=traces[-1]))
            for job in jobs:
                finish(engine, job)
        return traces

    for one, other in zip(run("none"), run("static"), strict=True):
        assert one.tokens == other.tokens
        torch.testing.assert_close(torch.stack(one.logits), torch.stack(other.logits), rtol=0, atol=1e-4)


def test_noise_follows_seed_and_stream(model: QwenVL) -> None:
    def words(seed: int, stream: int) -> list[tuple[int, ...]]:
        with Engine(model).open(temperature=2.0, seed=seed, stream=stream, instruction="") as session:
            return [session.step(chunk(i)).tokens for i in range(3)]

    assert words(1, 0) == words(1, 0)
    assert words(1, 0) != words(2, 0)
    assert words(1, 0) != words(1, 1)


# --- the public face --------------------------------------------------------------------------------------------


def test_the_instruction_outlives_the_window_and_can_be_replaced(model: QwenVL) -> None:
    window = StreamingWindow(vision=2, turns=2, sink=4, text=4)
    with Engine(model).open(policy=window, instruction="first") as session:
        for i in range(4):
            session.step(chunk(i))
        assert query_text(session) == ["first"]
        session.instruct("second")
        session.step(chunk(4))
        assert query_text(session) == ["first", "second"]
        for i in range(5, 8):
            session.step(chunk(i))
            assert query_text(session) == ["second"]
        with pytest.raises(CapacityError, match="instruction has 300 tokens; at most 256"):
            session.instruct("x" * 300)


def test_windows_are_in_seconds_whatever_the_step(model: QwenVL) -> None:
    for step in (0.5, 1.0, 2.0):
        window = StreamingWindow(vision=4, turns=4, sink=4, text=4)
        with Engine(model).open(policy=window, step=step, fps=2) as session:
            for i in range(12):
                session.step(chunk(i, step=step, frames=max(int(2 * step), 1)))
            shown = [span for span in session.state.timeline.spans if span.kind is Kind.VISION]
            assert len(shown) == 4 / step
            assert session.state.timeline.spans[-1].end - shown[0].start == 4


def test_frame_size_may_change_and_rows_stay_under_the_capacity(model: QwenVL) -> None:
    sizes = [(56, 84), (84, 56), (28, 28), (480, 640), (97, 201)]
    with Engine(model).open(policy=StreamingWindow(vision=3, turns=3, sink=5, text=5)) as session:
        for i in range(10):
            event = session.step(chunk(i, size=sizes[i % len(sizes)]))
            assert sum(event.rows.values()) <= event.capacity
            assert engine_rows(session) == session.state.timeline.cached <= session.capacity


def test_the_pixel_budget_is_an_argument(model: QwenVL) -> None:
    blocks = {}
    for budget in (56 * 84, 28 * 28):
        with Engine(model).open(max_pixels=budget) as session:
            session.step(chunk(0))
            blocks[budget] = session.rows["vision"]
    assert blocks == {56 * 84: 8, 28 * 28: 3}


def engine_rows(session: Session) -> int:
    return session.state.timeline.cached


def test_a_reply_that_is_cut_loses_no_token(model: QwenVL) -> None:
    window = StreamingWindow(vision=1, turns=2, sink=50, text=50)
    with Engine(model).open(policy=window, max_new_tokens=1) as session:
        events = [session.step(chunk(i)) for i in range(4)]
        words = [t for event in events[:2] if event.finish_reason != "stop" for t in event.tokens]
        history = [t for span in session.state.timeline.spans if span.kind is Kind.HISTORY for t in span.tokens]
    assert words
    assert history == words


@pytest.mark.parametrize(
    "policy", [StreamingWindow(vision=2, turns=2), RecentFrames(frames=4)], ids=["window", "frames"]
)
def test_what_is_prepared_ahead_is_said_alike(model: QwenVL, policy: CachePolicy) -> None:
    def words(ahead: bool) -> list[tuple[int, ...]]:
        with Engine(model).open(policy=policy, instruction="") as session:
            chunks = (session.prepare(chunk(i)) if ahead else chunk(i) for i in range(3))
            return [event.tokens for event in session.run(chunks)]

    assert words(True) == words(False)


def test_words_end_when_the_next_step_is_due(model: QwenVL) -> None:
    with Engine(model).open(instruction="", max_new_tokens=6) as session:
        whole = session.step(StepInput(chunk(0), Arrival(due=time.perf_counter() + 3600)))
        late = session.step(StepInput(chunk(1), Arrival(due=time.perf_counter())))
        after = session.step(chunk(2))
    assert len(late.tokens) == 1
    assert late.finish_reason == ("stop" if late.tokens[0] == tiny.TURN_END else "deadline")
    assert len(whole.tokens) > 1
    assert len(after.tokens) > 1
    # The cut reply has its end of turn, and no id of it is lost.
    spans = [span for span in session.state.timeline.spans if span.kind is Kind.COMMENTARY]
    assert spans[1].tokens == (*late.tokens, *([tiny.TURN_END] if late.finish_reason == "deadline" else []))


def test_words_come_as_they_are_sampled(model: QwenVL) -> None:
    with Engine(model).open() as session:
        parts: list[str] = []
        event = session.step(chunk(0), on_text=parts.append)
    assert "".join(parts).strip() == event.text


def test_bad_calls_are_refused_with_one_line(model: QwenVL) -> None:
    engine = Engine(model)
    with pytest.raises(CapacityError, match="the context has 600 tokens; at most 512"):
        engine.open(context="x" * 600)
    with engine.open() as session:
        with pytest.raises(CapacityError, match="all 1 slots are taken"):
            engine.open()
        with pytest.raises(CapacityError, match="9 frames in one step"):
            session.step(chunk(0, frames=9))
        session.step(chunk(3))
        with pytest.raises(ValueError, match="cannot follow"):
            session.step(chunk(1))
    with pytest.raises(StreamingVLMError, match="closed"):
        session.step(chunk(4))
    with pytest.raises(ValueError, match="fps"):
        engine.open(fps=0)
    with pytest.raises(PolicyError, match="unknown policy 'none'; known: streaming"):
        engine.open(policy="none")
    with pytest.raises(PolicyError, match="no option 'colour'; it has: vision, turns"):
        make_policy("streaming:colour=1")
    with pytest.raises(PolicyError, match="vision must be a number, not 'x'"):
        make_policy("streaming:vision=x")
    for number in ("-1", "inf", "nan"):
        with pytest.raises(PolicyError, match="must be 0 or more, and finite"):
            make_policy(f"streaming:vision={number}")
    with pytest.raises(CapacityError, match="rows; the engine was opened with 100"):
        Engine(model, rows=100).open()


def test_a_policy_can_be_named_with_its_numbers() -> None:
    assert make_policy("streaming:vision=8,text=256") == StreamingWindow(vision=8, text=256)
    assert make_policy("public-code", {"sink": 5, "other": 1}) == PublicCode(sink=5)
    assert make_policy("full:seconds=90", {"sink": 5}) == KeepAll(seconds=90)


def test_full_attention_ends_with_one_line(model: QwenVL) -> None:
    with Engine(model).open(policy="full:seconds=3") as session:
        for i in range(5, 8):
            session.step(chunk(i))
        with pytest.raises(CapacityError, match="full at 8 s"):
            session.step(chunk(8))


def run_first(model: QwenVL) -> tuple[int, ...]:
    with Engine(model).open() as session:
        return session.step(chunk(0)).tokens


def test_bad_frames_are_the_error_of_who_sends_them(model: QwenVL) -> None:
    engine = Engine(model, slots=2)
    with engine.open() as good, engine.open() as bad:
        job = engine.submit(good, chunk(0))
        with pytest.raises(SourceError, match="200 to 1"):
            engine.submit(bad, chunk(0, size=(1, 300)))
        assert finish(engine, job).tokens
        assert bad.step(chunk(0)).tokens == run_first(model)


def test_sampling_numbers_are_checked() -> None:
    for bad in ({"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"max_new_tokens": 0}):
        with pytest.raises(ValueError, match="must be"):
            Sampling(**bad)


def test_positions_by_hand() -> None:
    text = Span(Kind.QUERY, Role.USER, (1, 2))
    block = Span(Kind.VISION, Role.USER, tuple(range(10)), grid=(2, 2, 2), patch_seconds=0.75)
    got = positions([text, block, text], tokens_per_second=2.0)
    t = [0, 1, 2, 3, 3, 3, 3, 4.5, 4.5, 4.5, 4.5, 5.5, 6.5, 7.5]
    h = [0, 1, 2, 3, 3, 4, 4, 3, 3, 4, 4, 5.5, 6.5, 7.5]
    w = [0, 1, 2, 3, 4, 3, 4, 3, 4, 3, 4, 5.5, 6.5, 7.5]
    np.testing.assert_array_equal(got, np.array([t, h, w], np.float32))
    t = [0, 1, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 6, 7]
    h = [0, 1, 2, 3, 3, 4, 4, 3, 3, 4, 4, 5, 6, 7]
    w = [0, 1, 2, 3, 4, 3, 4, 3, 4, 3, 4, 5, 6, 7]
    counted = positions([text, block, text], tokens_per_second=None)
    np.testing.assert_array_equal(counted, np.array([t, h, w], np.float32))


def test_a_stream_and_its_copy_go_on_apart() -> None:
    """Both add tokens behind the positions that they share."""
    many = Span(Kind.HISTORY, Role.HISTORY, (1,) * 1000)
    state = StreamState(Timeline([many]))
    state.mark_cached(np.arange(12, dtype=np.float32).reshape(3, 4))
    copy = state.before_step()
    assert copy == state
    for count in range(5, 700):  # more than there is room for at first
        state.mark_cached(np.full((3, 1), count, np.float32))
        copy.mark_cached(np.full((3, 1), 2 * count, np.float32))
    front = np.arange(12).reshape(3, 4)
    for one, factor in ((state, 1), (copy, 2)):
        added = np.broadcast_to(factor * np.arange(5, 700), (3, 695))
        np.testing.assert_array_equal(one.positions, np.concatenate([front, added], axis=1))
        assert (one.timeline.cached, one.last_position) == (699, factor * 699)
    assert copy != state


def test_an_engine_leaves_the_number_of_threads_as_its_user_sets_it(model: QwenVL) -> None:
    before = torch.get_num_threads()
    engine = Engine(model)
    try:
        torch.set_num_threads(2)
        with engine.open():
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


PREVIOUS = ["the serve is in", "", "a long rally", "point to red " * 30, "two all"]


@pytest.mark.parametrize("policy", ["streaming:sink=40,text=20", "sliding-recompute:sink=40,text=20", "full:seconds=9"])
def test_a_stream_goes_on_behind_what_was_said_before_it_as_training_lays_it_out(policy: str) -> None:
    model = tiny.model()
    grammar, (sink, text) = model.grammar, (10**6, 0) if policy.startswith("full") else (40, 20)
    head = grammar.tokenizer.encode("a match")
    replies = [layout.archived(grammar, grammar.reply(said)) for said in PREVIOUS]
    expected = layout.cut_history(head, replies, lambda reply: reply, sink, text)
    with Engine(model).open(policy=policy, context="a match", previous=PREVIOUS) as session:
        for second in range(3):
            session.step(chunk(second))
            spans = session.state.timeline.spans
            assert [t for span in spans if span.kind is Kind.HISTORY for t in span.tokens][: len(expected)] == expected
        assert sum(map(len, spans)) <= session.capacity


def test_the_newest_frames_alone_see_nothing_of_what_was_said_before() -> None:
    with Engine(tiny.model()).open(policy="recent-frames", previous=PREVIOUS) as session:
        session.step(chunk(0))
        assert "history" not in session.rows


def test_what_was_said_before_must_be_text() -> None:
    with pytest.raises(OptionError, match="previous text is not text"):
        Engine(tiny.model()).open(previous=["\ud800"])
