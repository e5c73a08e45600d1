"""The plan of a day on a GPU: what fails, hangs or comes too late costs itself alone."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch

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


def step(day: ModuleType, name: str, code: str, limit: float = 20.0, needs: Sequence[str] = ()) -> object:
    return day.Step(name, limit, [sys.executable, "-c", code], needs)


def logs(out: Path) -> dict[str, str]:
    """What is in the packed logs, by name."""
    with tarfile.open(out / "logs.tgz") as packed:
        files = {member.name: packed.extractfile(member) for member in packed if member.isfile()}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def alive(number: int) -> bool:
    """Whether a process runs; one that is dead and waits to be collected does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(what: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


def test_steps_fail_hang_and_end_by_themselves(day: ModuleType, tmp_path: Path) -> None:
    steps = [
        step(day, "good", "print('said'); open(r'{out}/made.json', 'w').write('{minutes}')"),
        step(day, "bad", "raise ValueError('no')"),
        step(day, "hangs", "import time; print('begun', flush=True); time.sleep(60)", limit=1.5),
        step(day, "needy", "print('never')", needs=["sys", "no_such_module"]),
        step(day, "last", "print('last')"),
    ]
    outcomes = {one.step: one.how for one in day.day(steps, tmp_path, 60)}
    assert outcomes == {
        "good": "exit 0",
        "bad": "exit 1",
        "hangs": "stopped at 2 s",
        "needy": "skipped: no module no_such_module",
        "last": "exit 0",
    }
    assert {one["step"]: one["how"] for one in json.loads((tmp_path / "summary.json").read_text())} == outcomes
    assert (tmp_path / "made.json").read_text() == "0.17"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs.tgz", "made.json", "summary.json"]
    said = logs(tmp_path)
    assert "said" in said["logs/good.log"]
    assert "ValueError: no" in said["logs/bad.log"]
    assert "begun" in said["logs/hangs.log"]
    assert "KeyboardInterrupt" in said["logs/hangs.log"], "it was interrupted before it was killed"
    assert "logs/needy.log" not in said


def test_nothing_is_left_of_a_step(day: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day, "GRACE", 0.2)
    deaf = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    child = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {deaf!r}]).pid)"
    steps = [step(day, "deaf", deaf, limit=2.0), step(day, "leaves", child)]
    outcomes = day.day(steps, tmp_path, 60)
    assert [one.how for one in outcomes] == ["stopped at 2 s", "exit 0"]
    assert outcomes[0].seconds < 10
    number = int(logs(tmp_path)["logs/leaves.log"].split()[0])
    assert until(lambda: not alive(number))


def test_what_has_no_time_left_is_not_begun(day: ModuleType, tmp_path: Path) -> None:
    outcomes = day.day([step(day, "late", "1", limit=100), step(day, "later", "1", limit=100)], tmp_path, 1)
    assert [one.how for one in outcomes] == ["no time left"] * 2
    assert len(json.loads((tmp_path / "summary.json").read_text())) == 2


def test_a_step_is_cut_to_the_time_that_is_left(day: ModuleType, tmp_path: Path) -> None:
    day.day([step(day, "cut", "import time; time.sleep(60)", limit=2)], tmp_path, 2.2)
    (outcome,) = json.loads((tmp_path / "summary.json").read_text())
    assert outcome["how"] == "stopped at 2 s"


def test_few_files_are_left(day: ModuleType, tmp_path: Path) -> None:
    code = "import os; [open(rf'{out}/{i}.json', 'w') for i in range(9)]; os.mkdir(r'{out}/more'); "
    day.day([step(day, "many", code + "open(r'{out}/more/x', 'w')")], tmp_path, 60)
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert len(files) == 8
    assert files > {"summary.json", "logs.tgz", "0.json"}
    assert set(logs(tmp_path)) == {"logs/many.log", "6.json", "7.json", "8.json", "more/x"}


def test_whoever_ends_the_day_ends_its_step(tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys, pathlib, signal\n"
        f"spec = importlib.util.spec_from_file_location('gpu_day', {str(SCRIPTS / 'day.py')!r})\n"
        "day = sys.modules['gpu_day'] = importlib.util.module_from_spec(spec); spec.loader.exec_module(day)\n"
        "slow = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
        "signal.signal(signal.SIGTERM, day.interrupt)\n"
        f"out = pathlib.Path({str(tmp_path)!r})\n"
        "first, second = (day.Step(name, 50, [sys.executable, '-c', one]) for name, one in (('a', '1'), ('b', slow)))\n"
        "day.day([first, second], out, 60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "logs" / "b.log"
    assert until(lambda: log.exists() and log.read_text().endswith("\n"))
    number = int(log.read_text())
    process.terminate()
    assert process.wait(20) != 0
    assert until(lambda: not alive(number))
    assert set(logs(tmp_path)) == {"logs/a.log", "logs/b.log"}
    assert [one["step"] for one in json.loads((tmp_path / "summary.json").read_text())] == ["a"]


def test_every_step_of_a_call_names_what_there_is(day: ModuleType) -> None:
    for steps in day.calls(["--capture", "auto"], ["--capture", "none"]).values():
        assert len({one.name for one in steps}) == len(steps)
        for one in steps:
            files = [part for part in one.command if part.endswith(".py") or part.startswith("tests/")]
            assert files
            assert all((day.ROOT / part).exists() for part in files)


def test_the_third_call_takes_turns(day: ModuleType) -> None:
    steps = day.calls(["--capture", "auto"], ["--capture", "none"])["3"]
    ways = [one.command[-1] for one in steps if "--capture" in one.command]
    assert ways == ["auto", "none", "auto", "none"]


def test_the_probe_runs_on_a_cpu(tmp_path: Path) -> None:
    target = tmp_path / "probe.jsonl"
    subprocess.run([sys.executable, SCRIPTS / "probe.py", target], check=True, capture_output=True, timeout=120)
    found = {line["item"]: line["found"] for line in map(json.loads, target.read_text().splitlines())}
    assert not [item for item, one in found.items() if "error" in one]
    skipped = {item for item, one in found.items() if "skipped" in one}
    assert skipped == (
        set() if torch.cuda.is_available() else {"kernels_are_right", "decode_is_right", "decode_attention"}
    )
    assert list(found)[:2] == ["environment", "chosen"]
    assert found["launches"]["launch_us"] > 0
    assert found["products"]["down, 3063 rows"]["us"] > 0
    assert found["prefill_is_right"]["37 of 300, sdpa, no cudnn"] < 1e-2
    assert found["layer_kernels"]["rotate_store, 18 rows, plain"]["us"] > 0


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
