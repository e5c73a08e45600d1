"""``eval report``: its options, what it prints, and one line for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from streamingvlm.cli.eval_report import report
from streamingvlm.core.errors import OptionError, SourceError
from support.report_data import commentary, scores


def call(*arguments: object) -> int:
    app = typer.Typer()
    app.command()(report)
    code: int = app([str(argument) for argument in arguments], standalone_mode=False)
    return code


def test_a_report_is_made_of_runs_votes_and_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, votes = commentary(tmp_path / "in", 2, 2)
    asked = scores(tmp_path / "in")
    options = [option for path in votes for option in ("--votes", path)]
    options += [option for path in asked for option in ("--scores", path)]
    assert call(*runs, *options, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / "report.html")]
    tree = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(tree["commentary"]["pairs"]) == 2
    assert "| streamingvlm-7b | livecc-7b |" in (tmp_path / "out" / "tables.md").read_text()


def test_the_data_tell_titles_and_figures_that_need_no_judge(tmp_path: Path) -> None:
    runs, votes = commentary(tmp_path / "in", 2, 2)
    call(*runs[:2], "--votes", votes[0], "--data", tmp_path / "in" / "data", "--out", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Round 2: Reds against Blues" in page
    assert "What was said, without a judge" in page
    tree = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(tree["commentary"]["without_judge"]) == {"streamingvlm-7b", "livecc-7b"}
    assert "| Contestant | words per second |" in (tmp_path / "out" / "tables.md").read_text()


def test_what_is_partial_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, votes = commentary(tmp_path / "in", 4, 2, whole=False)
    (tmp_path / "in" / "calibration.json").unlink()
    call(*runs, "--votes", votes[0], "--out", tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "partial: streamingvlm-7b vs livecc-7b: 15 of 16 votes, 1 call failed"
    assert lines[1] == "not calibrated: streamingvlm-7b vs livecc-7b: judge-large was not calibrated"


def test_presets_that_differ_need_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, votes = commentary(tmp_path / "in", 2, 2)
    about = json.loads((runs[1] / "run.json").read_text())
    (runs[1] / "run.json").write_text(json.dumps(about | {"preset": "ours"}))
    given = [*runs[:2], "--votes", votes[0], "--out", tmp_path / "out"]
    with pytest.raises(SourceError, match="presets differ"):
        call(*given)
    assert not (tmp_path / "out").exists(), "nothing is written before everything fits"
    call(*given, "--allow-different")
    assert "different: presets differ (paper: streamingvlm-7b; ours: livecc-7b)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ([], SourceError, "needs runs or scores"),
        (["none"], SourceError, "neither a run"),
        (["said.jsonl", "--videos", "none"], OptionError, "not a folder"),
        (["said.jsonl", "--votes", "none"], SourceError, "cannot read none"),
        (["--scores", "none"], SourceError, "no such file"),
        (["said.jsonl", "--data", "."], OptionError, "neither runs nor votes tell"),
        (["said.jsonl"], SourceError, "nothing to report"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], error: type[Exception], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("said.jsonl").write_text('{"of": "another form"}\n')
    with pytest.raises(error, match=says):
        call(*arguments, "--out", "out")
    assert not Path("out").exists()
