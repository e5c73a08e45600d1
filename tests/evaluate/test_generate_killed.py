"""``eval generate`` as real processes: killed without warning, and several at once in one folder."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.chat_server import ChatServer
from support.generate_tools import POLICY, START, predictions, write_games

TESTS = Path(__file__).parents[1]
#: The command line with the tiny model, a snapshot behind every step, and time between two steps to be killed in.
DRIVER = """
import sys, time
import pytest
sys.path.insert(0, sys.argv[1])
from support import generate_tools
from streamingvlm import cli
from streamingvlm.evaluate.record import Record

normal = Record.put

def put(self, row):
    time.sleep(0.05)
    normal(self, row)

Record.put = put
generate_tools.use_tiny(pytest.MonkeyPatch(), generate_tools.tiny_model())
sys.exit(cli.main(sys.argv[2:]))
"""


def begin(out: Path, data: Path, *arguments: object) -> subprocess.Popen[str]:
    base = ["eval", "generate", f"inf-streams?start={START}", "--data", data, "--out", out]
    command = [sys.executable, "-c", DRIVER, TESTS, *base, *arguments]
    return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    return out


def lines(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (out / "streams").glob("*.jsonl"))


def kill_and_go_on(out: Path, data: Path, arguments: Sequence[object], moments: Sequence[int]) -> str:
    """Begin again and again, killed when so many more lines are there; then to the end."""
    for moment in moments:
        before, process = lines(out), begin(out, data, *arguments)
        until = time.monotonic() + 60
        while lines(out) < before + moment and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        process.kill()
        process.communicate(timeout=30)
    return end(begin(out, data, *arguments))


LOCAL = ("--policy", POLICY)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_is_an_unbroken_one(tmp_path: Path) -> None:
    data = write_games(tmp_path / "data")
    assert "3 of 3 games" in end(begin(tmp_path / "whole", data, *LOCAL))
    chance = random.Random(time.time_ns())
    moments = [chance.randint(2, 8) for _ in range(3)]
    assert "3 of 3 games" in kill_and_go_on(tmp_path / "run", data, LOCAL, moments), moments
    assert predictions(tmp_path / "run") == predictions(tmp_path / "whole"), moments


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "ours"])
def test_an_endpoint_is_asked_nothing_twice_by_those_that_were_killed(preset: str, tmp_path: Path) -> None:
    data = write_games(tmp_path / "data")
    with ChatServer(lambda request: f"reply {len(str(request))}") as server:
        remote = ("--endpoint", server.url, "--remote-model", "m", "--preset", preset)
        end(begin(tmp_path / "whole", data, *remote))
        whole = [str(request) for request in server.requests]
        kill_and_go_on(tmp_path / "run", data, remote, [3, 2])
        asked = [str(request) for request in server.requests[len(whole) :]]
    assert predictions(tmp_path / "run") == predictions(tmp_path / "whole")
    # What was under way when a process was killed, one call of each game at most, is asked again.
    assert len(whole) <= len(asked) <= len(whole) + 2 * 3
    assert set(asked) == set(whole)


@pytest.mark.slow
def test_parts_that_run_at_once_are_one_run(tmp_path: Path) -> None:
    data = write_games(tmp_path / "data")
    end(begin(tmp_path / "whole", data, *LOCAL))
    parts = [begin(tmp_path / "run", data, *LOCAL, "--part", f"{number}/3") for number in (1, 2, 3)]
    said = [end(part) for part in parts]
    assert any("3 of 3 games" in one for one in said), said
    assert predictions(tmp_path / "run") == predictions(tmp_path / "whole")


@pytest.mark.slow
def test_the_same_command_twice_at_once_is_refused(tmp_path: Path) -> None:
    data = write_games(tmp_path / "data")
    first = begin(tmp_path / "run", data, *LOCAL)
    while lines(tmp_path / "run") < 4 and first.poll() is None:
        time.sleep(0.01)
    os.kill(first.pid, 19)  # it stands still, and holds its files
    try:
        second = begin(tmp_path / "run", data, *LOCAL)
        out, _ = second.communicate(timeout=60)
    finally:
        os.kill(first.pid, 18)
    assert second.returncode == 2, out
    assert "is being written by another process" in out
    assert "3 of 3 games" in end(first)
