"""What a GPU would do, counted without one: kernels of a token, waits, bytes."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import streamingvlm.kernels
from streamingvlm import cli
from streamingvlm.bench import counter as rules
from streamingvlm.bench.count import META, count_operations
from streamingvlm.bench.counter import (
    LAUNCHES,
    CountedFunctions,
    CountedKernels,
    OperationCounter,
    Tally,
    UnknownValueError,
    topk_kernels,
)
from streamingvlm.bench.setup import Request
from streamingvlm.bench.shapes import build
from streamingvlm.cache.kv_pool import KVPool
from streamingvlm.core.errors import OptionError
from streamingvlm.engine.decode_graph import DecodeStep, StepOutputs
from streamingvlm.models.base import Model
from streamingvlm.runtime.reports import Metrics

TRITON = ast.parse((Path(str(streamingvlm.kernels.__file__)).parent / "triton_kernels.py").read_text())
FUNCTIONS = {node.name: node for node in TRITON.body if isinstance(node, ast.FunctionDef)}


def model_of(name: str, counter: OperationCounter, dtype: torch.dtype = torch.bfloat16) -> Model:
    return build(name, device=META, dtype=dtype, kernels=CountedKernels(counter))


def step_of(model: Model, counter: OperationCounter, step: type[DecodeStep] = DecodeStep, size: int = 1) -> DecodeStep:
    pool = KVPool(model.kv_shape, size, 400, model.kernels)
    made = step(model, pool, torch.zeros(size, model.vocabulary, dtype=torch.bool, device=META), size)
    made.capture(counter.captured)
    return made


def token(model: Model, counter: OperationCounter, step: type[DecodeStep] = DecodeStep) -> Tally:
    one = step_of(model, counter, step)
    with counter.counting(Tally()) as tally:
        one.read_back(one.run([]).tokens)
    return tally


@pytest.fixture(scope="module")
def tiny() -> Metrics:
    return count_operations(Request(random_weights="tiny", tokens=4))


# --- rules ---------------------------------------------------------------------------------------------------------


def test_bytes_of_a_product_are_weights_and_activations() -> None:
    counter = OperationCounter()
    rows, weight, bias = (
        torch.empty(*shape, dtype=torch.bfloat16, device=META) for shape in ((3, 64), (32, 64), (32,))
    )
    with counter.counting(Tally()) as tally:
        F.linear(rows, weight, bias)
        F.linear(rows[:, None].expand(3, 5, 64).reshape(15, 64), weight)
    products = [one for one in tally.work if one.kind == "products"]
    assert [one.bytes for one in products] == [
        2 * (3 * 64 + 32 * 64 + 32 + 3 * 32),
        2 * (15 * 64 + 32 * 64 + 15 * 32),
    ]
    # The expanded rows are copied, which reads each of them once.
    assert [one.bytes for one in tally.work if one.kind == "other"] == [2 * (3 * 64 + 15 * 64)]


def test_views_and_allocations_are_free_and_lookups_read_what_they_take() -> None:
    counter = OperationCounter()
    table, places = torch.empty(1000, 8, device=META), torch.empty(5, dtype=torch.long, device=META)
    with counter.counting(Tally()) as tally, torch.inference_mode():
        table[2:7].view(-1).unflatten(0, (5, 8)).T.detach()
        table.new_empty(4)
        assert not tally.work
        F.embedding(places, table)
        table.index_select(0, places)
        table[places] = table.new_empty(5, 8)
    assert [one.bytes for one in tally.work] == [5 * 8 + 2 * 4 * 40] * 3
    assert tally.launches == tally.kernels == 3


def test_what_waits_is_found_and_what_does_not_is_not() -> None:
    counter = OperationCounter()
    numbers, mask = torch.empty(6, device=META), torch.empty(6, dtype=torch.bool, device=META)
    host = torch.tensor([True, False, True, False, False, False])
    with counter.counting(Tally()) as calm, torch.inference_mode():
        numbers.copy_(torch.zeros(6), non_blocking=True)
        numbers[mask] = 0.0  # one value: a fill by a mask
        torch.where(mask, numbers, numbers + 1)
    assert calm.waits == []
    assert calm.copies_in == 1
    with counter.counting(Tally(), zeros=True) as busy, torch.inference_mode():
        assert numbers.sum().item() == 0
        assert numbers.tolist() == [0.0] * 6
        assert torch.tensor([1, 2], device=META).tolist() == [1, 2], "what came from the host is known"
        assert numbers[host.to(META)].shape == (2,)
        assert not bool(numbers.any())
    reasons = [what for what, _ in busy.waits]
    pageable = "copy from pageable memory"
    assert reasons == [
        "a value read by the host", "read-back", pageable, "read-back", pageable, "a mask counted",
        "a value read by the host",
    ]  # fmt: skip
    with counter.counting(Tally()), pytest.raises(UnknownValueError, match="the host reads a value"):
        numbers.tolist()


@pytest.mark.parametrize(
    ("rows", "width", "kernels"), [(1, 152_064, 22), (18, 152_064, 22), (1, 384, 2), (20, 19_999, 2), (21, 19_999, 22)]
)
def test_topk_of_torch(rows: int, width: int, kernels: int) -> None:
    assert topk_kernels(rows, width) == kernels
    counter = OperationCounter()
    with counter.counting(Tally()) as tally:
        torch.empty(rows, width, device=META).topk(64)
    assert tally.of("choice") == kernels


@pytest.mark.parametrize("name", LAUNCHES)
def test_counted_functions_are_those_of_triton(name: str) -> None:
    """The file is read, not imported: Triton need not be there."""
    own, theirs = inspect.signature(getattr(CountedFunctions, name)), FUNCTIONS[name].args
    positional = [p.name for p in own.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    assert positional == [one.arg for one in theirs.args]
    keywords = [p.name for p in own.parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert keywords == [one.arg for one in theirs.kwonlyargs][: len(keywords)]
    launches = [
        node for node in ast.walk(FUNCTIONS[name])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)
    ]  # fmt: skip
    assert len(launches) == LAUNCHES[name]


def test_constants_are_those_of_triton() -> None:
    theirs = {
        node.targets[0].id: node.value.value
        for node in TRITON.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    assert (theirs["PIECE"], theirs["COLUMNS"]) == (rules.PIECE, rules.COLUMNS)


# --- a token -------------------------------------------------------------------------------------------------------


def test_kernels_of_a_token() -> None:
    counter = OperationCounter()
    tally = token(model_of("tiny", counter), counter)
    layers = 2
    assert tally.of("products") == 4 * layers + 1
    # two sums with norm, silu and two of attention a layer, and the first norm
    assert tally.of("own") == 5 * layers + 1
    assert tally.of("choice") == 3  # penalty, the best, the choice
    assert tally.of("attention") == 0
    # five of the rotation, embedding, logits in float32
    assert tally.of("other") == 7, tally.places()
    assert (tally.launches, tally.copies_in, tally.read_backs) == (3, 1, 1)
    assert tally.waits == [("read-back", "engine/decode_graph.py:read_back")]


class Waiting(DecodeStep):
    """Looks at its tokens on the way."""

    def body(self) -> StepOutputs:
        out = super().body()
        self.inputs.slots[self.inputs.slots >= 0] = out.tokens
        return out


class Reading(DecodeStep):
    def body(self) -> StepOutputs:
        out = super().body()
        assert int(out.tokens[0]) >= 0
        return out


def test_a_wait_inside_a_token_is_found() -> None:
    counter = OperationCounter()
    model = model_of("tiny", counter)
    with pytest.raises(UnknownValueError):
        token(model, counter, Reading)
    one = KVPool(model.kv_shape, 2, 400, model.kernels)
    step = Waiting(model, one, torch.zeros(2, model.vocabulary, dtype=torch.bool, device=META), 2)
    with counter.counting(Tally()) as tally:
        step.body()
    assert [what for what, _ in tally.waits] == ["a mask counted"]


def test_tokens_of_the_published_shape() -> None:
    """A vocabulary of 152,064 takes three rounds to its 64 best."""
    counter = OperationCounter()
    tally = token(model_of("qwen2.5-vl-7b", counter), counter)
    assert tally.kernels == 28 * 9 + 1 + 1 + 7 + 5 <= 280
    assert tally.bytes == pytest.approx(14.14e9, rel=5e-3)


# --- a second ------------------------------------------------------------------------------------------------------


def test_a_second_of_video(tiny: Metrics) -> None:
    assert set(tiny["token"]) == {"1", "18"}
    one, plain = tiny["token"]["1"], tiny["token_uncaptured"]
    assert one["kernels"] < plain["kernels"] < plain["launches"]
    assert one["launches"] == 3
    assert plain["waits"] >= one["waits"] == 1
    second = tiny["second"]
    assert second["decode"]["launches"] == 3 * (tiny["tokens"] - 1)
    assert second["decode"]["waits"] == tiny["tokens"] - 1
    assert second["prefill"]["bytes"] > second["prefill"]["floor_bytes"]
    assert second["evict"]["kernels"] > 0
    assert second["evict"]["waits"] == 0
    assert [goal["reached"] for goal in tiny["goals"][1:]] == [True, True]
    # The stream is full: its windows, the new turn and the reply.
    assert tiny["rows"] > tiny["new_tokens"] > tiny["vision_tokens"]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "count.json"
    arguments = ["--random-weights", "tiny", "--tokens", "2", "--json", str(file)]
    assert cli.main(["bench", "roofline", "--count", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "Counted, not measured" in printed
    assert "reached: no wait in a token but for its read-back" in printed
    assert json.loads(file.read_text())["goals"][1]["reached"] is True
    assert cli.main(["bench", "roofline", "--count"]) == 2
    assert "--random-weights" in capsys.readouterr().err


def test_a_checkpoint_is_refused() -> None:
    with pytest.raises(OptionError, match="--random-weights"):
        count_operations(Request())
