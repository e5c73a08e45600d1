"""Scores of a contestant as ``eval score`` prints and writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamingvlm import cli
from streamingvlm.core.errors import OptionError, SourceError
from streamingvlm.evaluate.questions.ovo import OVOBench
from streamingvlm.evaluate.runs import open_contestant
from streamingvlm.evaluate.scoring import score_contestant
from support import benchmark_data, question_data


@pytest.fixture
def ovo(tmp_path: Path) -> Path:
    return question_data.write_ovo(tmp_path / "data").parent


def results(path: Path, wrong: int = 0) -> Path:
    """Replies in the published form, right but for the first ``wrong`` choices."""
    entries = question_data.ovo_entries()

    def reply(asked: question_data.Entry) -> str:
        return "Z" if "gt" in asked and asked["id"] < wrong else question_data.ovo_truth(asked)

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(question_data.ovo_results(entries, reply)))
    return path


def test_all_that_a_person_wants_to_know_stands_in_the_table(ovo: Path, tmp_path: Path) -> None:
    scored = score_contestant(OVOBench(ovo), open_contestant(results(tmp_path / "theirs.json", wrong=1)))
    lines = str(scored).splitlines()
    heads = next(line for line in lines if line.startswith("task")).split()
    epm = next(line for line in lines if line.startswith("backward EPM")).split()
    assert heads[:5] == ["task", "n", "unparsed", "official", "strict"]
    assert epm[2:6] == ["1", "1", "0.00", "0.00"]
    assert next(line for line in lines if line.startswith("forward CRR")).split()[2:6] == ["5", "0", "100.00", "100.00"]
    assert "not complete" in lines[0], "the set is not the published one"
    assert any("forward delay" in note for note in scored.notes)


def test_what_is_written_is_what_a_report_reads(ovo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scores.json"
    arguments = ["eval", "score", "ovo", "--data", ovo, "--predictions", results(tmp_path / "theirs.json")]
    assert cli.main([*map(str, arguments), "--json", str(out)]) == 0
    assert "theirs" in capsys.readouterr().out
    written = json.loads(out.read_text())
    names = {one["name"] for one in written["baselines"]}
    assert {"always Yes", "always A", "majority of each task", "chance"} <= names
    assert cli.main(["eval", "report", "--scores", str(out), "--out", str(tmp_path / "report")]) == 0
    assert "always Yes" in (tmp_path / "report" / "report.json").read_text()


@pytest.mark.parametrize("parser", ["official", "strict"])
def test_one_parser_alone(ovo: Path, tmp_path: Path, parser: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["eval", "score", "ovo", "--data", ovo, "--predictions", results(tmp_path / "theirs.json")]
    assert cli.main([*map(str, arguments), "--parser", parser]) == 0
    heads = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("task"))
    assert (parser in heads, {"official": "strict", "strict": "official"}[parser] in heads) == (True, False)


def test_a_folder_of_published_files_is_a_contestant(tmp_path: Path) -> None:
    results(tmp_path / "Some-Model" / "all.json")
    contestant = open_contestant(tmp_path / "Some-Model")
    assert (contestant.name, contestant.predictions) == ("Some-Model", tmp_path / "Some-Model")
    with pytest.raises(SourceError, match="neither a run"):
        open_contestant(tmp_path)


def test_commentary_is_counted_without_a_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = benchmark_data.write_inf_streams(tmp_path / "data")
    items = [{"response": f"word{second} ...", "end_time": second} for second in range(1, 31)]
    line = {"video": "soccer/a.mp4", "chunk_start": 0, "chunk_end": 30, "items": items}
    file = benchmark_data.write_jsonl(tmp_path / "theirs.jsonl", [line])
    task = "inf-streams?start=0&windows=grid"
    assert cli.main(["eval", "score", task, "--data", str(data), "--predictions", str(file)]) == 0
    assert "words_per_second" in capsys.readouterr().out


WRONG = [
    (["--parser", "fair"], "official, strict or both"),
    (["--predictions", "nowhere"], "neither a run"),
]


@pytest.mark.parametrize(("more", "said"), WRONG)
def test_what_cannot_be_scored_is_one_line(
    ovo: Path, tmp_path: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["eval", "score", "ovo", "--data", ovo, "--predictions", results(tmp_path / "theirs.json"), *more]
    assert cli.main(list(map(str, arguments))) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_run_of_other_data_is_refused(ovo: Path, tmp_path: Path) -> None:
    from streamingvlm.cli.eval_score import check_run

    run = tmp_path / "run"
    run.mkdir()
    (run / "predictions.jsonl").write_text("")
    for about, said in (({"task": "mvbench"}, "a run of mvbench"), ({"task": "ovo", "revision": "x"}, "revision x")):
        (run / "run.json").write_text(json.dumps({"name": "n", **about}))
        with pytest.raises(OptionError, match=said):
            check_run(open_contestant(run), "ovo", OVOBench(ovo).revision)
