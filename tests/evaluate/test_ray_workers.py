"""Parts of a run in Ray workers: a worker that is killed costs nothing but time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamingvlm.core.errors import OptionError
from streamingvlm.evaluate.jobs import Job
from streamingvlm.evaluate.ray_workers import anywhere, run_on_ray, share
from streamingvlm.evaluate.shards import Shard
from support import tiny
from support.generate_tools import NAMES, comment, predictions, say, write_games


@pytest.mark.parametrize(("gpus", "workers", "each"), [(0, 2, 0), (8, 3, 2), (8, 8, 1), (2, 4, 0.5)])
def test_gpus_are_shared_as_ray_takes_them(gpus: float, workers: int, each: float) -> None:
    assert share(gpus, workers) == each


def test_a_job_means_the_same_files_wherever_a_worker_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    job = anywhere(Job("t", Path("data"), Path("videos"), Path("out"), model="model", features=Path("seen")))
    assert (job.data, job.videos, job.out) == (tmp_path / "data", tmp_path / "videos", tmp_path / "out")
    assert (job.model, job.features) == (str(tmp_path / "model"), tmp_path / "seen")
    hub = anywhere(Job("t", Path("data"), None, Path("out"), model="someone/model"))
    assert (hub.model, hub.videos) == ("someone/model", None)


def test_without_ray_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"--ray needs Ray: pip install 'streamingvlm\[ray\]'"):
        run_on_ray(Job("t", tmp_path, None, tmp_path), 2, pytest.fail)


#: The command line with a snapshot behind every step.
DRIVER = """
import sys
from streamingvlm import cli
from streamingvlm.evaluate import runner
runner.SNAPSHOT_EVERY = 0.0
sys.exit(cli.main(sys.argv[1:]))
"""


def workers_of(pid: int) -> list[int]:
    """The workers of a run that are at a part."""
    import psutil

    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if "_run_part" in " ".join(child.cmdline()):
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'streamingvlm[ray]'")
    data = write_games(tmp_path / "data", [*NAMES, *(f"more/{number}.mp4" for number in range(3))])
    model = str(tiny.write_checkpoint("qwen2_5_vl", tmp_path / "model"))
    job = comment(data, tmp_path / "one", model=model, policy="streaming:vision=3,turns=3,sink=1024,text=8")
    assert len({number for number in range(1, 5) for key in NAMES if Shard(number, 4).has(key)}) > 1
    say(job)
    command = [sys.executable, "-c", DRIVER, "eval", "generate", job.task, "--data", data, "--out", tmp_path / "ray"]
    command += ["--model", model, "--policy", job.policy, "--ray", "2"]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    killed: list[int] = []
    while process.poll() is None and not killed:
        time.sleep(0.05)
        if list((tmp_path / "ray" / "streams").glob("*.jsonl")):
            for pid in workers_of(process.pid)[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    assert killed, out
    assert "6 of 6 games" in out
    assert predictions(tmp_path / "ray") == predictions(tmp_path / "one")
    assert json.loads((tmp_path / "ray" / "run.json").read_text())["found"] == 6
