"""``watch --endpoint`` against a model server that is not ours: ``transformers serve``, with random weights.

What such a model says means nothing; that the two understand each other does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.served import END, serving, write_served_checkpoint

for name in ("fastapi", "uvicorn"):
    pytest.importorskip(name, reason=f"{name} is not installed: pip install 'transformers[serving]'")
pytestmark = pytest.mark.slow
CLI = "import sys; from streamingvlm.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("served")
    model = write_served_checkpoint(folder / "model")
    with serving(model, folder / "log") as url:
        yield url, model


def watch(url: str, model: object, *more: object) -> subprocess.CompletedProcess[str]:
    arguments = ["watch", "arcade:pong?seed=1", "--endpoint", url, "--remote-model", str(model), *map(str, more)]
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    return subprocess.run(
        [sys.executable, "-c", CLI, *arguments], capture_output=True, text=True, timeout=60, env=environment
    )


def test_a_live_stream_with_a_rule(served: tuple[str, Path], tmp_path: Path) -> None:
    url, model = served
    out = tmp_path / "x.jsonl"
    rule = "ball: the ball is in play; every=2"
    done = watch(url, model, "--pace", "live", "--duration", 10, "--rule", rule, "-o", out, "--quiet")
    assert done.returncode == 0, done.stderr
    events: list[dict[str, Any]] = [json.loads(line) for line in out.read_text().splitlines()]
    said = [event for event in events if event["type"] == "commentary.done"]
    assert not [event for event in events if event["type"] == "commentary.failed"]
    assert len(said) >= 3
    assert all(event["text"] and END not in event["text"] for event in said), "random weights are never silent"
    assert len(said) + sum(event["dropped"] for event in said) == 10
    assert events[-1]["type"] == "stream.closed"
    assert not events[-1].get("error")
    # This server takes logprobs and tells none.
    assert done.stderr.count("tells no logprobs (it leaves them out)") == 1


def test_another_model_is_refused_in_its_words(served: tuple[str, Path]) -> None:
    url, _ = served
    done = watch(url, "no/such-model", "--duration", 1, "--json")
    (failed,) = [
        event for line in done.stdout.splitlines() if (event := json.loads(line))["type"] == "commentary.failed"
    ]
    assert "no/such-model" in failed["reason"]
    assert "Traceback" not in done.stderr


def test_an_address_without_its_version(served: tuple[str, Path]) -> None:
    url, model = served
    done = watch(url.removesuffix("/v1"), model, "--duration", 1, "--quiet")
    assert done.returncode == 2
    assert "the url ends with the version" in done.stderr.splitlines()[-1]
