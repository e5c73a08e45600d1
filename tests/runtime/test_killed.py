"""A program that is killed at random moments loses nothing and says nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_figures.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_four_streams_that_are_killed_ten_times(tmp_path: Path) -> None:
    options = ["--kills", "10", "--seconds", "80", "--json", str(tmp_path / "kills.json")]
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "kills.json").read_text())
    assert figures["streams"] == 4
    assert figures["steps"] == 4 * 80
    assert figures["kills"] >= 5, "it was killed while it worked"
    assert figures["instructions accepted"] > 20
    assert figures["changes of rules accepted"] > 10
    assert figures["times a stream went on"] >= 8
    for name in (
        "ids twice",
        "holes in the numbers",
        "steps twice",
        "steps missing",
        "streams with other words",
        "told twice to another sink",
        "streams without an end",
        "instructions lost",
        "rules lost",
        "streams whose versions go back",
    ):
        assert figures[name] == 0, name
    assert figures["not told to another sink"] <= 4 * figures["kills"], "at most the event under way"
