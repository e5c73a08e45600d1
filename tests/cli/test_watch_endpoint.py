"""``watch --endpoint`` as a real process, with a real server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamingvlm.cli import main
from support.chat_server import ChatServer, images, slow

CLI = "import sys; from streamingvlm.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(lambda _: "A rally.", models={"tiny"}) as server:
        yield server


def arguments(server: ChatServer, *more: object, model: str = "tiny") -> list[str]:
    return [
        "watch",
        "arcade:pong?seed=1",
        "--endpoint",
        server.url,
        "--remote-model",
        model,
        *map(str, more),
        "--quiet",
    ]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_a_run_with_a_rule(server: ChatServer, tmp_path: Path) -> None:
    server.likely = lambda _: [("A", {"A": 0.9, "B": 0.1})]
    out = tmp_path / "x.jsonl"
    rule = "ball: the ball is in play; every=1; on_after=1"
    assert main(arguments(server, "--duration", 4, "--rule", rule, "-o", out)) == 0
    events = [json.loads(line) for line in out.read_text().splitlines()]
    said = [event["text"] for event in events if event["type"] == "commentary.done"]
    assert said == ["A rally."] * 4
    (alert,) = [event for event in events if event["type"] == "rule.alert"]
    assert alert["probability"] == pytest.approx(0.9)
    assert all(url.startswith("data:image/jpeg;base64,") for request in server.requests for url in images(request))


def test_no_such_model_is_one_line(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(server, "--duration", 2, model="llava")) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines[-1].endswith("The model `llava` does not exist.; its models: tiny")


def test_ctrl_c_does_not_wait_for_a_call(server: ChatServer) -> None:
    server.faults += [slow(60)]
    command = [sys.executable, "-c", CLI, *arguments(server, "--pace", "live")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.perf_counter() + 60
    while not server.requests:
        assert process.poll() is None, process.communicate()
        assert time.perf_counter() < until
        time.sleep(0.01)
    began = time.perf_counter()
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    first = process.stderr.readline()  # the summary: all is over but the interpreter
    assert time.perf_counter() - began < 1
    assert first.startswith("watched  nothing")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert not err
