"""The benchmarks on a tiny model: what they write, that baselines say the same words, how bad input ends."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamingvlm import cli
from streamingvlm.bench import policies, report, roofline, soak, streams
from streamingvlm.bench.measure import STAGES, Step, live_step, percentile, summarize
from streamingvlm.bench.rotation import PerTokenBatch, PerTokenRotation, PerTokenRotationRunner, with_reference_layers
from streamingvlm.bench.setup import Request, Synthetic
from streamingvlm.bench.shapes import SHAPES, ByteTokenizer, build, shape_named
from streamingvlm.cache.kv_pool import KVPool
from streamingvlm.core.errors import ModelError, OptionError, PolicyError
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import StepRequest, Trace
from streamingvlm.engine.runner import ModelRunner
from streamingvlm.models.base import Model
from streamingvlm.models.load import FAMILIES
from support.streams import finish

TINY = Request(random_weights="tiny", device="cpu", tokens=5)


@pytest.fixture(scope="module")
def model() -> Model:
    return TINY.make_model()


def watch(
    model: Model, runner: type[ModelRunner], pool: type[KVPool], count: int, policy: str = "streaming"
) -> tuple[list[tuple[int, ...]], list[torch.Tensor]]:
    """Two streams side by side, one from the start and one that joins later; ids and logits of all their steps."""
    engine = Engine(model, slots=2, pool=pool, runner=runner)
    frames = Synthetic((84, 56), 2.0, 1.0)
    ids, logits = [], []
    with TINY.open_session(engine, policy) as first, TINY.open_session(engine, policy, stream=1) as second:
        for index in range(count):
            jobs = [(Trace(), session) for session in (first, second)[: 1 + (index > 2)]]
            handles = [engine.submit(s, frames.chunk(index, s.time), trace=trace) for trace, s in jobs]
            ids += [finish(engine, job).tokens for job in handles]
            logits += [score for trace, _ in jobs for score in trace.logits]
    return ids, logits


@torch.inference_mode()
@pytest.mark.parametrize("policy", ["streaming", "streaming:history_kv=recompute"])
def test_per_token_rotation_says_the_same(model: Model, policy: str) -> None:
    ours = watch(model, ModelRunner, KVPool, 12, policy)
    theirs = watch(with_reference_layers(model), PerTokenRotationRunner, PerTokenRotation, 12, policy)
    assert ours[0] == theirs[0]
    assert len(ours[1]) > 12 * 5
    for a, b in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_words_are_forced_whatever_is_sampled(model: Model) -> None:
    everything = frozenset(range(model.vocabulary))
    before, model.end_tokens = model.end_tokens, everything
    try:
        with Engine(model).open(sampling=replace(TINY.sampling(model), max_new_tokens=7)) as session:
            said = session.step(Synthetic((84, 56), 2.0, 1.0).chunk(0))
        free = Request(random_weights="tiny", device="cpu").make_model()
        free.end_tokens = everything
        with Engine(free).open() as session:
            assert len(session.step(Synthetic((84, 56), 2.0, 1.0).chunk(0)).tokens) == 1
    finally:
        model.end_tokens = before
    assert len(said.tokens) == 7
    assert said.finish_reason == "stop", "it ended with an id that ends a turn"


KEYS = {"work_per_second", "lag_p50", "lag_p95", "lag_p99", "lag_max", "rows", "tokens", "stages", "host_memory"}


def test_policies_side_by_side(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[float] = []
    figures, lanes = policies.compare(
        TINY,
        seconds=6,
        warm_up=3,
        specs=["streaming", "full"],
        baselines=["per-token-rotation"],
        on_block=done.append,
        model=model,
    )
    assert set(figures) == {"policies", "device", "versions", "date"}
    assert list(figures["policies"]) == ["streaming", "full", "per-token-rotation"]
    for one in figures["policies"].values():
        assert set(one) >= KEYS
        assert set(one["stages"]) == set(STAGES)
        assert one["steps"] == 6
        assert one["tokens"] == 30
        assert one["warm_up_steps"] == 3
        assert sum(one["stages"].values()) == pytest.approx(one["work_per_second"])
    assert figures["policies"]["full"]["rows"] > figures["policies"]["streaming"]["rows"]
    assert figures["policies"]["streaming"]["rows"] == figures["policies"]["per-token-rotation"]["rows"]
    assert done[-1] == 9
    assert [len(lane.steps) for lane in lanes] == [6, 6, 6]
    report.show(report.policy_table(figures), figures)
    assert "per-token-rotation" in capsys.readouterr().out


def test_at_a_higher_rate_lag_counts_from_the_last_part(model: Model) -> None:
    request = Request(random_weights="tiny", device="cpu", tokens=2, fps=8.0)
    frames = Synthetic((84, 56), 8.0, 1.0)
    _, session = request.open(model)
    with session:
        steps = [live_step(session, frames.chunk(index)) for index in range(4)]
    whole = Request(random_weights="tiny", device="cpu", tokens=2, fps=8.0)
    _, other = whole.open(model)
    with other:
        at_once = [Step.of(other.step(frames.chunk(index))) for index in range(4)]
    assert [step.rows for step in steps] == [step.rows for step in at_once]
    assert all(step.lag < step.work for step in steps[1:])


def test_a_policy_that_runs_out_of_memory_ends_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    normal = PerTokenBatch.attend

    def attend(batch: PerTokenBatch, layer: int, *rest: Any, **more: Any) -> torch.Tensor:
        if batch.pool.length[0] > 250:
            raise torch.OutOfMemoryError("too much")
        return normal(batch, layer, *rest, **more)

    monkeypatch.setattr(PerTokenBatch, "attend", attend)
    figures, _ = policies.compare(
        TINY, seconds=6, warm_up=1, specs=["streaming"], baselines=["per-token-rotation"], model=model
    )
    assert figures["policies"]["streaming"]["ended"] == ""
    assert figures["policies"]["streaming"]["capture"] == "none"
    assert figures["policies"]["streaming"]["kernels"] == model.kernels.name
    assert "out of memory" in figures["policies"]["per-token-rotation"]["ended"]
    report.policy_table(figures)


def test_policies_are_named_with_their_numbers() -> None:
    specs = policies.split_specs("full:seconds=9, streaming:vision=4,text=8,streaming")
    assert specs == ["full:seconds=9", "streaming:vision=4,text=8", "streaming"]
    policies.check(policies.default_specs(), list(policies.BASELINES))
    for names, baselines in ((["magic"], []), (["streaming"], ["magic"]), ([], []), (["full", "full"], [])):
        with pytest.raises(PolicyError):
            policies.check(names, baselines)


def test_figures_of_steps() -> None:
    stages = dict.fromkeys(STAGES, 0.25)
    figures = summarize([Step(stages, lag, rows=10 + i, tokens=3, seconds=0.5) for i, lag in enumerate((1, 2, 3, 4))])
    assert figures["work_per_second"] == pytest.approx(6 * 0.25 / 0.5)
    assert (figures["lag_p50"], figures["lag_p95"], figures["rows"]) == (2, 4, 13)
    assert figures["seconds_per_token"] == pytest.approx(0.25 / 2)
    assert np.isnan(percentile([], 50))


# --- streams ----------------------------------------------------------------------------------------------------


def test_a_copied_stream_goes_on_like_the_first(model: Model) -> None:
    engine = Engine(model, slots=2)
    frames = Synthetic((84, 56), 2.0, 1.0)
    with TINY.open_session(engine, "streaming") as first, TINY.open_session(engine, "streaming") as second:
        for index in range(8):
            first.step(frames.chunk(index))
        second.copy_from(first)
        for index in range(8, 12):
            traces = Trace(), Trace()
            said = [s.step(frames.chunk(index), trace=t) for s, t in zip((first, second), traces, strict=True)]
            assert said[0].tokens == said[1].tokens
            assert torch.equal(torch.stack(traces[0].logits), torch.stack(traces[1].logits))


def rounds(*seconds: float) -> list[streams.Round]:
    return [streams.Round(s, (s / 2, s), {"preprocess": 0.4, **dict.fromkeys(STAGES[2:], 0.0)}) for s in seconds]


def test_lateness_on_the_virtual_clock() -> None:
    assert streams.verdict(rounds(0.9, 0.9, 0.9), 1.0) == {"lag_p95": 0.9, "dropped": 0, "real_time": True}
    late = streams.verdict(rounds(1.2, 0.5, 0.5), 1.0)
    assert late["lag_p95"] == pytest.approx(1.2)
    assert not late["real_time"]
    behind = streams.verdict(rounds(1.6, 1.6, 1.6), 1.0)
    assert behind["dropped"] == 1
    assert behind["lag_p95"] == pytest.approx(3 * 1.6 - 2)
    spared = [one.without("preprocess") for one in rounds(1.2, 1.2)]
    assert streams.verdict(spared, 1.0)["real_time"]


@pytest.mark.parametrize("limit", range(9))
def test_search_finds_the_limit(limit: int) -> None:
    tried: list[int] = []

    def good(count: int) -> bool:
        tried.append(count)
        return count <= limit

    assert streams.search(good, 7) == min(limit, 7)
    assert len(tried) == len(set(tried)) <= 6


def test_streams_and_what_a_batch_costs(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine under load is no reason for a test to fail.
    monkeypatch.setattr(streams, "verdict", lambda *_: {"lag_p95": 0.5, "dropped": 0, "real_time": True})
    tried: list[int] = []
    fleet = streams.open_stream_batch(TINY, model, most=3, rounds=2, on_trial=tried.append)
    first = fleet.sessions[0]
    assert sum(first.rows.values()) <= first.capacity
    full = first.rows["history"]
    figures = streams.count_streams(fleet, batches=(1, 2, 4))
    assert full == 32, "sink and text window are full before anything is measured"
    assert all(session.closed for session in fleet.sessions)
    assert tried == [1, 2, 3]
    assert set(figures["trials"]) == {"1", "2", "3"}
    assert set(figures["batches"]) == {"1", "2"}
    assert figures["batches"]["1"]["ratio"] == 1
    assert figures["slots"] == 3
    assert figures["ended"] == {}
    assert (figures["capture"], figures["capture_reason"]) == ("none", "")
    assert figures["kernels"] == model.kernels.name
    assert figures["kernels_reason"] == model.kernels.reason
    assert "model time" in figures["time"]
    report.stream_table(figures)
    assert "real-time streams of 84x56 at 2 FPS" in report.stream_lines(figures)[0]


def test_a_count_that_runs_out_of_memory_is_not_real_time(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "verdict", lambda *_: {"lag_p95": 0.5, "dropped": 0, "real_time": True})
    normal = ModelRunner.encode

    def encode(runner: ModelRunner, requests: Sequence[StepRequest]) -> list[None]:
        if any(request.stream.options.stream > 1 for request in requests):
            raise torch.OutOfMemoryError("too much")
        return normal(runner, requests)

    monkeypatch.setattr(ModelRunner, "encode", encode)
    fleet = streams.open_stream_batch(TINY, model, most=4, rounds=2, warm_up=1)
    told: list[dict[str, Any]] = []
    fleet.on_trial_end = lambda: told.append(fleet.figures())
    figures = streams.count_streams(fleet)
    assert figures["streams"] == figures["streams_without_preprocess"] == 2
    assert figures["complete"]
    assert figures["ended"] == {"4": "out of memory", "3": "out of memory"}
    assert set(figures["trials"]) == {"1", "2"}
    assert [(set(one["trials"]), set(one["ended"])) for one in told] == [
        ({"1"}, set()),
        ({"1", "2"}, set()),
        ({"1", "2"}, {"4"}),
        ({"1", "2"}, {"3", "4"}),
    ]
    report.stream_table(figures)


def test_another_fault_of_a_trial_is_raised(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = streams.open_stream_batch(TINY, model, most=2, rounds=1, warm_up=1)

    def encode(_runner: ModelRunner, _requests: Sequence[StepRequest]) -> list[None]:
        raise RuntimeError("broken")

    monkeypatch.setattr(ModelRunner, "encode", encode)
    with pytest.raises(RuntimeError, match="broken"):
        streams.count_streams(fleet)
    assert all(session.closed for session in fleet.sessions)


def test_no_count_is_tried_behind_the_deadline(model: Model) -> None:
    fleet = streams.open_stream_batch(TINY, model, most=2, rounds=1, warm_up=1, deadline=0.0)
    figures = streams.count_streams(fleet)
    assert (figures["streams"], figures["complete"], figures["trials"]) == (0, False, {})
    assert "lower bounds" in report.stream_lines(figures)[-1]


# --- soak and roofline ------------------------------------------------------------------------------------------

SOAK_KEYS = {"lag_first", "lag_last", "memory_first", "memory_last", "rows_max", "hours", "lag_slope_per_hour"}


def test_soak(model: Model) -> None:
    run = soak.Soak(TINY, hours=30 / 3600, warm_up=2)
    run.run(model=model)
    figures = run.figures()
    assert set(figures) >= SOAK_KEYS | {"device", "versions", "date", "complete"}
    assert figures["hours"] == pytest.approx(30 / 3600)
    assert figures["memory_first"] > 0
    assert figures["reference_first"] > 0
    assert 0 < figures["rows_max"] < 400
    report.soak_table(figures)


def test_soak_compares_steps_with_equally_many_ids() -> None:
    # A silent step takes 1, one of 9 ids takes 5; at the end more is said, and every step takes a tenth longer.
    quiet, busy = np.repeat([3.0, 9.0], [70, 30]), np.repeat([3.0, 9.0], [30, 70])
    cost = {3.0: 1.0, 9.0: 5.0}
    first = np.array([cost[said] for said in quiet])
    last = np.array([1.1 * cost[said] for said in busy])
    a, b, share = soak.alike((first, quiet), (last, busy))
    assert b / a == pytest.approx(1.1)
    assert share == 1
    assert np.median(last) / np.median(first) == pytest.approx(5.5)
    rare = (np.array([7.0]), np.array([20.0]))
    assert soak.alike(rare, (last, busy))[2] == 0


def test_soak_slope_ignores_one_slow_moment() -> None:
    hours = np.arange(7200) / 3600
    flat = np.full(7200, 0.1)
    flat[5000:5010] = 9.0
    assert abs(soak._slope(hours, flat)) < 1e-9
    assert soak._slope(hours, 0.1 + 0.01 * hours) == pytest.approx(0.01, rel=1e-3)


def test_an_interrupted_soak_keeps_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(Synthetic):
        def __iter__(self) -> Any:
            for index in range(12):
                yield self.chunk(index)
            raise KeyboardInterrupt

    monkeypatch.setattr("streamingvlm.bench.setup.Synthetic", Interrupted)
    target = tmp_path / "soak.json"
    arguments = ["--hours", "1", "--warm-up", "2", "--tokens", "3", "--device", "cpu", "--json", str(target)]
    assert cli.main(["bench", "soak", "--random-weights", "tiny", *arguments]) == 130
    figures = json.loads(target.read_text())
    assert figures["complete"] is False
    assert figures["hours"] == pytest.approx(10 / 3600)
    assert "lag, ms" in capsys.readouterr().out


def test_roofline(model: Model) -> None:
    figures = roofline.compare_with_floor(TINY, model, seconds=2, warm_up=3)
    assert set(figures["stages"]) == set(STAGES)
    for stage in ("vision_encode", "prefill", "decode", "evict"):
        assert figures["stages"][stage]["ratio"] > 1, "nothing runs below its floor"
    assert figures["stages"]["read"]["floor"] is None
    assert figures["bandwidth"] > 0
    assert (figures["capture"], figures["capture_reason"]) == ("none", "")
    assert (figures["kernels"], figures["kernels_reason"]) == (model.kernels.name, model.kernels.reason)
    report.roofline_table(figures)


def test_the_floor_of_the_published_shape_is_the_known_one() -> None:
    big = shape_on_meta("qwen2.5-vl-7b")
    # facts that were computed by hand: 14.14 GB of weights per id in bf16, 57,344 bytes of keys and values per row
    need = roofline.needs(big, grid=(1, 21, 36), new=780, rows=14_000, tokens=2)
    assert need["decode"].bytes == pytest.approx(14.14e9 + 14_000 * 57_344, rel=2e-3)
    device = roofline.Device(3.0e12, 600e12)
    assert need["decode"].seconds(device) == pytest.approx(4.98e-3, rel=0.01)


# --- shapes -----------------------------------------------------------------------------------------------------

#: Billions of parameters that the published checkpoints have, and the shape between them and the bundled one.
PARAMETERS = {
    "qwen2.5-vl-7b": 8.2922,
    "qwen2.5-vl-3b": 3.7546,
    "qwen2-vl-7b": 8.2914,
    "qwen3-vl-8b": 8.7671,
    "qwen3-vl-4b": 4.4378,
    "middle": 0.0816,
}


def shape_on_meta(name: str) -> Model:
    return build(name, device=torch.device("meta"), dtype=torch.bfloat16)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_the_published_numbers(name: str) -> None:
    if shape_named(name).family not in FAMILIES:
        with pytest.raises(ModelError, match=f"{name} is of family"):
            shape_on_meta(name)
        return
    made = shape_on_meta(name)
    if name in PARAMETERS:
        assert made.parameters / 1e9 == pytest.approx(PARAMETERS[name], abs=6e-5)
    width, height = shape_named(name).size
    tokens = np.prod(made.patcher.size(height, width)) / made.patcher.factor**2
    assert tokens == {"tiny": 6, "arcade": 30, "middle": 256}.get(name, 756)


def test_the_arcade_shape_runs() -> None:
    request = Request(random_weights="arcade", device="cpu", tokens=2)
    made = request.make_model()
    _, session = request.open(made)
    with session:
        assert len(session.step(next(iter(request.make_source()))).tokens) == 2


def test_every_weight_is_drawn_from_the_seed() -> None:
    """Nothing is left as the memory happened to be."""
    first, again, other = (
        build("tiny", device=torch.device("cpu"), dtype=torch.float32, seed=seed).hf for seed in (1, 1, 2)
    )
    for (name, a), b in zip(first.state_dict(keep_vars=True).items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
        assert a.abs().max() <= 1, name
    for a, b in zip(first.buffers(), again.buffers(), strict=True):
        assert torch.equal(a, b)
        assert a.max() == 1, "the largest frequency of a rotation"
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_no_more_is_reserved_than_a_frame_needs() -> None:
    made = shape_on_meta("qwen2.5-vl-7b")
    small, large = (Request(random_weights="qwen2.5-vl-7b", size=size) for size in ((448, 448), (1920, 1080)))
    assert small.max_pixels(made) == 448 * 448
    assert large.max_pixels(made) == made.patcher.max_pixels == 768 * 28 * 28
    assert Request(source="arcade:pong", random_weights="tiny").max_pixels(made) is None


def test_the_stand_in_tokenizer() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([1, 300_000, *tokenizer.encode("größer"), 5]) == "größer"


# --- the command line -------------------------------------------------------------------------------------------

COMMON = ["--random-weights", "tiny", "--device", "cpu", "--tokens", "2"]


def test_without_a_command_it_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench"]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_commands_write_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.json"

    def figures(*arguments: str) -> Any:
        assert cli.main(["bench", *arguments, *COMMON, "--json", str(target)]) == 0
        return json.loads(target.read_text())

    assert "streaming" in figures("policies", "--seconds", "2", "--warm-up", "1", "--policies", "streaming")["policies"]
    assert figures("streams", "--most", "1", "--rounds", "1", "--warm-up", "1")["slots"] == 1
    assert figures("roofline", "--seconds", "1", "--warm-up", "1")["stages"]
    assert "on the device" in capsys.readouterr().out


def test_the_arcade_on_the_bundled_model(tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="the arcade extra is not installed")
    target = tmp_path / "out.json"
    arguments = ["--seconds", "2", "--warm-up", "0", "--policies", "streaming", "--json", str(target)]
    assert cli.main(["bench", "policies", *arguments]) == 0
    one = json.loads(target.read_text())["policies"]["streaming"]
    assert one["source"].startswith("arcade:pong")
    assert one["stages"]["read"] > 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["policies", "--policies", "magic"], "unknown policy 'magic'"),
        (["policies", "--baseline", "magic"], "unknown baseline 'magic'"),
        (["policies", "--seconds", "0"], "--seconds"),
        (["policies", "--fps", "0"], "--fps"),
        (["policies", "--size", "big"], "--size must be WIDTHxHEIGHT"),
        (["policies", "--size", "8x8", "arcade:pong"], "--size is for synthetic frames"),
        (["policies", "--tokens", "0"], "--tokens"),
        (["policies", "--random-weights", "gpt-2"], "unknown shape 'gpt-2'"),
        (["policies", "--model", "somewhere"], "exclude each other"),
        (["policies", "nothing.mp4"], "no such file"),
        (["policies", "--json", "/nowhere/out.json"], "cannot write"),
        (["streams", "--most", "0"], "--most"),
        (["soak", "--hours", "-1"], "--hours"),
        (["soak", "--hours", "nan"], "--hours"),
        (["roofline", "--seconds", "-1"], "--seconds"),
        (["everything"], "everything"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *rest = arguments
    common = [] if "--random-weights" in rest or command == "everything" else ["--random-weights", "tiny"]
    assert cli.main(["bench", command, *common, *rest]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert word in err


def test_a_plot_without_matplotlib_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["bench", "policies", *COMMON, "--plot", str(tmp_path / "out.svg")]) == 2
    assert "pip install 'streamingvlm[plot]'" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib (extra plot) is not installed")
def test_plot(tmp_path: Path, model: Model) -> None:
    figures, lanes = policies.compare(TINY, seconds=2, warm_up=0, specs=["streaming"], model=model)
    report.draw_policies(tmp_path / "out.svg", lanes, figures)
    assert "<svg" in (tmp_path / "out.svg").read_text()
    with pytest.raises(OptionError, match="cannot draw"):
        report.draw_policies(tmp_path / "out.words", lanes, figures)
