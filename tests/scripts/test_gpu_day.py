"""The runner of a day on a GPU: what fails, hangs or comes too late costs itself alone."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "gpu"


@pytest.fixture(scope="module")
def day() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_day", SCRIPTS / "day.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_day"] = module  # dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_steps_fail_hang_and_end_by_themselves(day: ModuleType, tmp_path: Path) -> None:
    def step(name: str, code: str, limit: float = 20.0) -> object:
        return day.Step(name, limit, [sys.executable, "-c", code])

    steps = [
        step("good", "print('said'); open(r'{out}/made.json', 'w').write('1')"),
        step("bad", "raise ValueError('no')"),
        step("hangs", "import time; print('begun', flush=True); time.sleep(60)", limit=1.5),
        step("last", "print('last')"),
    ]
    outcomes = {one.step: one.how for one in day.day(steps, tmp_path, 60)}
    assert outcomes == {"good": "exit 0", "bad": "exit 1", "hangs": "stopped at 2 s", "last": "exit 0"}
    assert [one["step"] for one in json.loads((tmp_path / "summary.json").read_text())] == list(outcomes)
    assert (tmp_path / "made.json").read_text() == "1"
    with tarfile.open(tmp_path / "logs.tgz") as packed:
        logs = {name: packed.extractfile(f"logs/{name}.log") for name in outcomes}
        texts = {name: "" if file is None else file.read().decode() for name, file in logs.items()}
    assert "said" in texts["good"]
    assert "ValueError: no" in texts["bad"]
    assert "begun" in texts["hangs"]


def test_what_has_no_time_left_is_not_begun(day: ModuleType, tmp_path: Path) -> None:
    (outcome,) = day.day([day.Step("late", 100, [sys.executable, "-c", "1"])], tmp_path, 1)
    assert outcome.how == "no time left"


def test_every_step_of_a_call_names_what_there_is(day: ModuleType) -> None:
    for steps in day.CALLS.values():
        for step in steps:
            files = [part for part in step.command if part.endswith(".py") or part.startswith("tests/")]
            assert files
            assert all((day.ROOT / part).exists() for part in files)


@pytest.mark.slow
def test_the_probe_runs_on_a_cpu(tmp_path: Path) -> None:
    target = tmp_path / "probe.jsonl"
    subprocess.run([sys.executable, SCRIPTS / "probe.py", target], check=True, capture_output=True, timeout=120)
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(lines) == 10
    failed = [line["item"] for line in lines if "error" in line["found"]]
    assert failed == ["decode_attention"]  # it needs a GPU, and says so


@pytest.mark.slow
def test_the_stages_are_profiled(tmp_path: Path) -> None:
    target = tmp_path / "stages.txt"
    options = ["--random-weights", "tiny", "--warm-up", "3"]
    subprocess.run(
        [sys.executable, SCRIPTS / "stages.py", target, *options], check=True, capture_output=True, timeout=120
    )
    assert [line for line in target.read_text().splitlines() if line.startswith("#####")] == [
        f"##### {stage}" for stage in ("select", "encode", "prefill", "decode")
    ]
