"""The figures of a GPU, on a CPU and a tiny shape: what is written when, and that faults stay in their setting."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "gpu"
TINY = ["--random-weights", "tiny", "--device", "cpu", "--quick", "--tokens", "6"]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    spec = importlib.util.spec_from_file_location("gpu_figures", SCRIPTS / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_figures", module)  # dataclasses look for it
    spec.loader.exec_module(module)
    return module


def run(figures: ModuleType, monkeypatch: pytest.MonkeyPatch, target: Path, *settings: str) -> dict[str, Any]:
    arguments = [*TINY, "--settings", ",".join(settings), "--json", str(target)]
    monkeypatch.setattr(sys, "argv", ["figures.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        figures.main()
    found: dict[str, Any] = json.loads(target.read_text())
    return found | {"exit": ended.value.code}


def test_every_setting_says_how_it_ran(
    figures: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = "2 FPS", "2 FPS with varied replies", "448x448 at 2 FPS"
    found = run(figures, monkeypatch, tmp_path / "gpu.json", *settings)
    assert found["exit"] == 0
    assert set(found) >= {"table", "results", "seconds", "device", "versions", "date"}
    assert list(found["results"]) == list(settings)
    for result in found["results"].values():
        assert (result["capture"], result["capture_reason"]) == ("none", "")
        assert result["kernels"] == result["many"]["kernels"]
        assert set(result["many"]["trials"]) == {"1", "2"}
    tokens = [result["one"]["tokens"] for result in found["results"].values()]
    assert tokens[0] == 12
    assert tokens[1] < 12, "replies end by themselves"
    assert tokens[2] == 12, "what ends a reply is put back"
    out = capsys.readouterr().out
    assert out.startswith("| setting | figure | bound | predicted | goal | measured |")
    assert "| 448x448 at 2 FPS | streams |" in out


def test_a_setting_that_fails_costs_the_others_nothing(
    figures: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normal = figures.count_streams

    def count(batch: Any) -> Any:
        found = normal(batch)
        if batch.request.fps == 8:
            raise RuntimeError("out of order")
        return found

    monkeypatch.setattr(figures, "count_streams", count)
    found = run(figures, monkeypatch, tmp_path / "gpu.json", "8 FPS", "2 FPS")
    assert found["exit"] == "failed: 8 FPS"
    broken, whole = found["results"]["8 FPS"], found["results"]["2 FPS"]
    assert "RuntimeError: out of order" in broken["error"]
    assert set(broken["trials"]) == {"1", "2"}, "trials before it are kept"
    assert broken["one"]["tokens"] > 0
    assert "many" in whole
    lines = {(line["setting"], line["figure"]) for line in found["table"]}
    assert {("8 FPS", "ms per token"), ("2 FPS", "streams")} <= lines
    assert ("8 FPS", "streams") not in lines
    assert "RuntimeError: out of order" in capsys.readouterr().err


def test_kernels_can_be_left_out(figures: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules[__name__], "TINY", [*TINY, "--kernels", "plain"])
    found = run(figures, monkeypatch, tmp_path / "gpu.json", "2 FPS")
    assert (found["results"]["2 FPS"]["kernels"], found["results"]["2 FPS"]["kernels_reason"]) == ("plain", "")


def test_bounds_predictions_and_goals_stand_beside_what_was_measured(figures: ModuleType) -> None:
    one = {"seconds_per_token": 0.006, "tokens_per_second": 20.0, "lag_p95": 0.2}
    one["stages"] = dict.fromkeys((*figures.ON_GPU, "preprocess"), 0.04)
    lines = figures.table({"2 FPS": {"one": one}}, figures.SHAPE)
    (line,) = (line for line in lines if line["figure"] == "ms per token")
    assert (line["bound"], line["predicted"], line["goal"], line["measured"]) == (4.98, 6.0, 6.0, "6.00")
    (line,) = (line for line in lines if line["figure"].startswith("GPU ms"))
    assert (line["predicted"], line["measured"]) == (164, "160")
    other = figures.table({"2 FPS": {"one": one}}, "tiny")
    assert all(line["bound"] is line["predicted"] is line["goal"] is None for line in other)


@pytest.mark.slow
def test_the_bundled_model_says_the_same_on_every_device(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    target = tmp_path / "bundled.json"
    options = ["--device", "cpu", "--seconds", "10", "--streams", "1"]
    subprocess.run([sys.executable, SCRIPTS / "bundled.py", target, *options], check=True, timeout=200)
    runs = json.loads(target.read_text())["runs"]
    assert list(runs) == ["cpu fp32", "cpu bf16"]
    assert runs["cpu fp32"]["same_as_cpu"] == 1
    assert all(one["micro_f1"] > 0.3 for one in runs.values())
