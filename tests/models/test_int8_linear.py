"""Products in int8 on a CPU: near the exact ones, the same for a row whatever is beside it, refused where inexact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from streamingvlm import cli
from streamingvlm.core.errors import OptionError
from streamingvlm.models.int8_linear import LARGE, Int8Linear, Int8Module, int8_available
from streamingvlm.models.load import load_model
from support import tiny

needs_int8 = pytest.mark.skipif(not int8_available(), reason="no int8 products on this processor")

#: (in, out): odd, small and large matrices.
SIZES = [(33, 17), (256, 768), (512, 1536)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint("qwen2_5_vl", tmp_path_factory.mktemp("checkpoint"))


def draw(inner: int, outer: int, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights, bias and rows; rows of very different size, one of them zeros."""
    random = torch.Generator().manual_seed(inner)
    weight, bias = torch.randn(outer, inner, generator=random), torch.randn(outer, generator=random)
    given = torch.randn(rows, inner, generator=random) * torch.logspace(-6, 6, rows)[:, None]
    given[rows // 2] = 0
    return weight, bias, given


@needs_int8
@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize(("inner", "outer"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_near_the_exact_ones(inner: int, outer: int, few: bool, dtype: torch.dtype) -> None:
    weight, bias, rows = draw(inner, outer, 25)
    rows = rows.to(dtype)
    out = Int8Linear(weight, few=few)(rows)
    exact = rows.double() @ weight.double().T
    assert out.dtype == dtype
    error = (out.double() - exact).norm(dim=1) / exact.norm(dim=1).clamp_min(1e-30)
    assert float(error.max()) < 0.02
    assert not out[12].any()
    if dtype == torch.float32:
        assert torch.equal(Int8Linear(weight, bias, few=few)(rows), out + bias)


@needs_int8
@pytest.mark.parametrize(("inner", "outer"), SIZES)
def test_a_row_is_the_same_alone_in_company_and_with_either_kernel(inner: int, outer: int) -> None:
    weight, bias, rows = draw(inner, outer, 300)
    few, many = Int8Linear(weight, bias), Int8Linear(weight, bias, few=False)
    alone = torch.cat([few(row) for row in rows.split(1)])
    threads = torch.get_num_threads()
    try:
        for count in [*range(1, 40), 63, 64, 65, 130, 299, 300]:
            torch.set_num_threads(1 + count % 2)
            for matrix in (few, many):
                assert torch.equal(matrix(rows[:count]), alone[:count])
                assert torch.equal(matrix(rows[300 - count :]), alone[300 - count :])
    finally:
        torch.set_num_threads(threads)


@needs_int8
def test_a_torch_without_quantized_tensors_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias, rows = draw(512, 1536, 9)
    engine, before = torch.backends.quantized.engine, Int8Linear(weight, bias)

    def gone(*_: object) -> None:
        raise RuntimeError("quantized tensors are gone")

    monkeypatch.setattr(torch, "_make_per_channel_quantized_tensor", gone)
    assert torch.equal(Int8Linear(weight, bias)(rows), before(rows))
    assert torch.backends.quantized.engine == engine


@needs_int8
def test_a_row_that_is_no_number_spoils_no_other_one() -> None:
    weight, bias, rows = draw(64, LARGE // 64, 8)
    for few in (True, False):
        matrix = Int8Linear(weight, bias, few=few)
        sound = matrix(rows)
        spoilt = rows.clone()
        spoilt[3, 5], spoilt[6, 5] = torch.nan, torch.inf
        out = matrix(spoilt)
        kept = [0, 1, 2, 4, 5, 7]
        assert torch.equal(out[kept], sound[kept])
        assert not out[[3, 6]].isfinite().any()


@needs_int8
def test_a_module_keeps_the_shape_of_what_it_is_given() -> None:
    linear = torch.nn.Linear(33, 17)
    rows = torch.randn(2, 3, 33)
    module = Int8Module(linear)
    assert torch.equal(module(rows).view(6, 17), module(rows.view(6, 33)))
    torch.testing.assert_close(module(rows), linear(rows), rtol=0.05, atol=0.05)


@needs_int8
def test_torchao_is_not_needed_on_a_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model(folder, device="cpu")  # transformers imports torchao where it is installed
    monkeypatch.setitem(sys.modules, "torchao", None)
    model = load_model(folder, device="cpu", weights="int8")
    assert model.weights == "int8"
    linears = [type(one) for one in model.hf.model.visual.modules() if isinstance(one, torch.nn.Linear | Int8Module)]
    assert set(linears) == {Int8Module}
    assert isinstance(model.decoder.head, Int8Linear)
    with pytest.raises(OptionError, match="torchao"):
        load_model(folder, device="cpu", weights="fp8")


@needs_int8
def test_a_processor_whose_products_are_not_exact_is_refused() -> None:
    """oneDNN is told to leave VNNI alone; without it sums of two products are cut to 16 bits."""
    program = "from streamingvlm.models.int8_linear import int8_available; print(int8_available())"
    narrow = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    found = subprocess.run([sys.executable, "-c", program], env=narrow, capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_without_onednn_int8_is_refused_with_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert cli.main(["info", "--model", str(folder), "--device", "cpu", "--weights", "int8"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "streamingvlm: error: int8 weights need a CPU with VNNI and a torch with oneDNN; leave --weights out"
    ]
    assert cli.main(["info", "--model", str(folder), "--device", "cpu", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["fastest_weights"], facts["int8_speedup"]) == ("unquantized", None)


@needs_int8
def test_info_measures_int8(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--model", str(folder), "--device", "cpu", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fastest_weights"] == ("int8" if facts["int8_speedup"] > 1 else "unquantized")
    assert cli.main(["info", "--model", str(folder), "--device", "cpu", "--weights", "int8"]) == 0
    assert "fastest weights" in capsys.readouterr().out
