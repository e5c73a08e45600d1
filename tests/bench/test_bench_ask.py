"""Lag with and without questions, in turns within one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamingvlm import cli
from streamingvlm.bench import ask, report
from streamingvlm.bench.setup import Request
from streamingvlm.core.errors import OptionError

TINY = Request(random_weights="tiny", fps=10.0, step=0.2, tokens=2)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of less than a second."""
    monkeypatch.setattr(ask, "TURN", 0.6)


def test_lag_is_told_with_and_without_questions() -> None:
    plan = ask.Plan(streams=2, seconds=1.3, every=0.3, warm_up=0.5)
    seconds: list[float] = []
    figures = ask.measure_questions(TINY, plan, seconds.append)
    lag = figures["lag"]
    assert lag["ratio"]["p50"] == lag["with"]["p50"] / lag["without"]["p50"]
    assert lag["ratio_low"]["p99"] <= lag["ratio"]["p99"] <= lag["ratio_high"]["p99"]
    assert min(figures["steps"].values()) >= 2
    assert figures["questions"] == figures["answered"] == 2
    assert 0 < figures["first_text"]["p50"] <= figures["answer"]["p50"] < 10
    assert figures["answer_tokens"] > 0
    assert seconds == sorted(seconds)
    assert json.loads(json.dumps(figures)) == figures
    assert report.ask_table(figures).row_count == 5
    assert "2 of 2 questions answered" in report.ask_line(figures)


def test_the_command_prints_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seconds", "1.2", "--every", "0.3", "--warm-up", "0.3", "--fps", "10", "--step", "0.2"]
    path = tmp_path / "ask.json"
    assert cli.main(["bench", "ask", "--random-weights", "tiny", *arguments, "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "Lag of 1 live streams, ms; a question every 0.3 s" in out
    assert "first text" in out
    assert json.loads(path.read_text())["model"] == "tiny (random weights)"


WRONG = [({"streams": 0}, "--streams"), ({"every": 0.0}, "--every"), ({"seconds": 1.0}, "--seconds")]


@pytest.mark.parametrize(("options", "name"), WRONG)
def test_numbers_that_cannot_be_meant(options: dict[str, float], name: str) -> None:
    with pytest.raises(OptionError, match=name):
        ask.Plan(**options)  # type: ignore[arg-type]


def test_a_source_that_ends_before_the_warm_up_does() -> None:
    plan = ask.Plan(seconds=1.3, every=0.3, warm_up=0.0)
    with pytest.raises(OptionError, match="nothing was measured"):
        ask.measure_questions(Request(random_weights="tiny", fps=0.5, step=4.0, tokens=2), plan)
