"""Claims: rows on the same streams, the gate in front of them, what holds, and the page that says so."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcade_streams.cli.evaluations import choose_claims
from arcade_streams.evaluate import compare, plot, proof
from arcade_streams.evaluate.claims import CHECKPOINTS, CLAIMS, REFERENCE, Claim, Expectation, Row
from arcade_streams.evaluate.compare import Comparison, GateError
from arcade_streams.evaluate.gate import STREAMS
from arcade_streams.evaluate.run import EvalConfig
from arcade_streams.worlds.context import EVALUATION_SEEDS
from streamingvlm import cli
from streamingvlm.core.errors import OptionError
from streamingvlm.core.policy import make_policy
from streamingvlm.evaluate.checkpoint import Checkpoint
from support import tiny

pytest.importorskip("ale_py", reason="the arcade extra is not installed")

PAGE = f"# Proof\n\nbefore\n\n{proof.BEGIN}\nXYZZY\n{proof.END}\n\nafter\n"
WINDOWS = {"vision": 3, "turns": 3, "sink": 160, "text": 8}


@contextlib.contextmanager
def no_bar(what: str, total: float) -> Iterator[Callable[[float], None]]:  # noqa: ARG001
    yield lambda _: None


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    model = tiny.model()
    model.defaults = replace(model.defaults, policy=WINDOWS)
    return Checkpoint("tiny", "tiny", model, "0123456789abcdef")


@pytest.fixture(scope="module")
def comparison(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    seeds = range(EVALUATION_SEEDS, EVALUATION_SEEDS + 1)
    setting = EvalConfig(("pong",), seeds, 3, tmp_path_factory.mktemp("words"), command="test")
    return Comparison([checkpoint], {}, setting, no_bar, ungated=True, resamples=5)


TWO = Claim(
    "positions",
    "?",
    (Row(REFERENCE), Row("same", "streaming:vision=3"), Row("reset", "sliding-reset:seconds=2", paper="23.54")),
    (
        Expectation("falls", "reset", ("micro_f1_strict",)),
        Expectation("is dear", "reset", ("work_per_second",), 0.1, "times"),
    ),
)


@pytest.fixture(scope="module")
def found(comparison: Comparison) -> dict[str, Any]:
    tested: dict[str, Any] = json.loads(json.dumps(comparison.test(TWO), allow_nan=False))
    return tested


def test_rows_are_what_the_paper_compares() -> None:
    for claim in CLAIMS.values():
        names = [row.name for row in claim.rows]
        assert names[0] == REFERENCE
        assert len(set(names)) == len(names)
        assert {expectation.row for expectation in claim.expectations} <= set(names)
        for row in claim.rows:
            make_policy(row.policy)
    assert [row.name for row in CLAIMS["vision-window"].rows[1:-1]] == [f"vision {s} s" for s in (0, 1, 4, 8, 16, 32)]
    assert CHECKPOINTS == ("non-overlapping", "no-corruption", "no-on-policy")


def test_a_claim_is_tested_on_the_same_streams(found: dict[str, Any]) -> None:
    assert list(found["rows"]) == [REFERENCE, "same", "reset"]
    for row in found["rows"].values():
        assert set(row["micro_f1_strict"]) == {"value", "low", "high"}
        assert row["games"]["pong"]["seeds"] == [EVALUATION_SEEDS]
    assert found["rows"]["same"]["micro_f1_strict"] == found["rows"][REFERENCE]["micro_f1_strict"]
    first, second = found["expectations"]
    assert first["verdict"] == "does not hold", "a random model is right with no policy"
    assert second["verdict"].startswith("holds")
    assert (found["gate"]["passed"], found["gate"]["ungated"]) == (False, True)
    assert {"device", "versions", "date", "command", "policy", "checkpoints"} <= set(found)


def test_a_row_of_two_claims_is_run_once(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison.test(TWO)
    monkeypatch.setattr(compare, "run", None)
    comparison.test(TWO)
    with pytest.raises(TypeError):
        comparison.evaluation(Row("other", "streaming:vision=2"), comparison.setting)


def test_without_the_gate_nothing_is_compared(comparison: Comparison) -> None:
    gated = replace(comparison, ungated=False)
    with pytest.raises(GateError, match=r"1 training seed.*--ungated"):
        gated.test(TWO)


def test_the_gate_has_streams_enough_of_its_own(comparison: Comparison, found: dict[str, Any]) -> None:
    assert len(comparison.setting.seeds) < STREAMS
    assert found["gate"]["games"]["pong"]["streams"] == STREAMS
    assert not any("streams" in reason for reason in found["gate"]["reasons"])
    long = replace(comparison, setting=EvalConfig(("pong",), range(9_000_000, 9_000_008), 1200))
    assert (long.setting_of_gate.seconds, len(long.setting_of_gate.seeds)) == (360, STREAMS)


def test_verdicts_are_told_by_game(found: dict[str, Any]) -> None:
    for one in found["expectations"]:
        assert one["games"]["pong"] == {key: one[key] for key in ("value", "low", "high", "verdict")}
    assert not found["gate"]["games"]["pong"]["passed"]
    passing = {**found, "gate": {**found["gate"], "games": {"pong": {"passed": True}}}}
    assert "  - pong (passes the gate): does not hold, 0.000" in proof._verdicts(TWO, passing)
    assert "  - pong: does not hold, 0.000" in proof._verdicts(TWO, found)


def test_verdicts_are_told_by_training_seed(comparison: Comparison, checkpoint: Checkpoint) -> None:
    again = replace(checkpoint, name="again")
    found = replace(comparison, seeds=[checkpoint, again], _done={}).test(TWO)
    for one in found["expectations"]:
        # The same checkpoint twice: the mean is what each of them has.
        assert list(one["training_seeds"]) == ["tiny", "again"]
        assert {seen["value"] for seen in one["training_seeds"].values()} == {one["value"]}
    lines = proof._verdicts(TWO, found)
    assert "  - tiny: does not hold, 0.000; again: does not hold, 0.000" in lines
    assert "Streams: 1 of pong, " in proof._origin(found)
    # Of a row with a checkpoint of its own there is one.
    other = replace(TWO, rows=(Row(REFERENCE), Row("reset", checkpoint="no-corruption")))
    bare = replace(comparison, seeds=[checkpoint, again], others={"no-corruption": checkpoint}, _done={})
    assert not any(one["training_seeds"] for one in bare.test(other)["expectations"])


def test_a_claim_over_hours_has_few_streams(comparison: Comparison) -> None:
    long = replace(comparison, setting=EvalConfig(("pong",), range(9_000_000, 9_000_008), 1200))
    setting = long.setting_of(CLAIMS["endurance"])
    assert (len(setting.seeds), setting.seconds) == (3, 9000)
    assert long.setting_of(CLAIMS["positions"]) == long.setting


@pytest.mark.parametrize(
    ("how", "least", "row", "reference", "verdict"),
    [
        ("fall", 0.0, 0.2, 0.9, "holds"),
        ("fall", 0.0, 0.9, 0.9, "does not hold"),
        ("fall", 0.5, 0.5, 0.9, "does not hold"),
        ("fall", -0.01, 0.905, 0.9, "holds"),
        ("times", 5.0, 6.0, 1.0, "holds"),
        ("times", 5.0, 4.0, 1.0, "does not hold"),
        ("value", -0.02, -0.01, 0.0, "holds"),
        ("value", -0.02, None, 0.0, "not measured"),
    ],
)
def test_verdicts(how: str, least: float, row: float | None, reference: float, verdict: str) -> None:
    def figures(value: float | None) -> Any:
        return {("x",): (value, np.full(9, np.nan if value is None else value))}

    means = {REFERENCE: figures(reference), "row": figures(row)}
    one = compare._verdict(Expectation("", "row", ("x",), least, how), means)
    assert one["verdict"] == verdict


def test_an_interval_that_reaches_below_is_said() -> None:
    drawn = np.array([0.1, 0.5, 0.6, 0.7] * 10)
    means = {REFERENCE: {("x",): (0.6, drawn)}, "row": {("x",): (0.0, np.zeros(40))}}
    one = compare._verdict(Expectation("", "row", ("x",), 0.5), means)
    assert one["verdict"] == "holds, but the interval reaches below"


def test_without_an_interval_a_verdict_is_of_the_value_alone() -> None:
    def figures(value: float) -> Any:
        return {("x",): (value, np.full(9, np.nan))}

    for row, verdict in ((0.1, "holds, without an interval"), (0.9, "does not hold")):
        means = {REFERENCE: figures(0.9), "row": figures(row)}
        assert compare._verdict(Expectation("", "row", ("x",), 0.5), means)["verdict"] == verdict


def test_the_page_is_written_from_the_results_alone(found: dict[str, Any]) -> None:
    rows = {name: found["rows"][key] for name, key in ((REFERENCE, REFERENCE), ("append", "reset"))}
    text = proof.page(PAGE, {"positions": {**found, "rows": rows}})
    assert text.startswith("# Proof\n\nbefore\n")
    assert text.endswith("\n\nafter\n")
    assert "XYZZY" not in text
    assert "**Gate not passed, compared all the same**" in text
    assert "not measured yet" in text
    assert "| append | " in text
    assert proof.page(text, {"positions": {**found, "rows": rows}}) == text
    for claim in CLAIMS.values():
        assert f"### {claim.name}\n" in text
    with pytest.raises(OptionError, match="no place"):
        proof.page("# Proof", {})


def test_targets_of_the_bundled_model() -> None:
    def figure(value: float) -> dict[str, float]:
        return {"value": value, "low": value, "high": value}

    own = {"names": figure(0.98), "longest_repeat": figure(6), "command": "c", "device": "d", "date": "e"}
    lines = proof.targets(own).splitlines()
    assert any(line.startswith("| names and other roster facts") and line.endswith("| reached |") for line in lines)
    assert any("longest repeat" in line and line.endswith("| missed |") for line in lines)


def test_the_committed_page_is_what_the_results_say() -> None:
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "arcade_streams" / "proof.md").read_text()
    assert proof.page(text, proof.load(docs / "results")) == text


def test_plots(found: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot.draw(tmp_path / "x.png", {**found, "figures": [["micro_f1_strict"], ["tally_steps", ">16s"]]})
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_some_claims_or_all_that_can_be(capsys: pytest.CaptureFixture[str]) -> None:
    chosen, tested, others = choose_claims(["positions", "history", "positions"], [])
    assert [claim.name for claim in chosen] == ["positions", "history"]
    assert (tested, others) == ([None], {})
    chosen, tested, others = choose_claims(["all"], ["one", "two", "no-corruption=three"])
    assert [claim.name for claim in chosen] == [
        name for name in CLAIMS if name not in ("overlapping-training", "on-policy")
    ]
    assert (tested, others) == (["one", "two"], {"no-corruption": "three"})
    assert capsys.readouterr().err.count("not tested, needs --model") == 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["claims", "magic"], "vision-window"),
        (["claims", "corruption"], "no-corruption=FOLDER"),
        (["claims", "positions", "--model", "other=x"], "no training is called 'other'"),
        (["claims", "positions", "--hours", "-1"], "--hours"),
        (["claims", "positions", "--model", "OUT/none"], "none"),
        (["claims", "positions", "--out", "/proc/none"], "/proc/none"),
        (["proof", "--page", "OUT/none.md"], "none.md"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part.replace("OUT", str(tmp_path)) for part in arguments]
    place = [] if "--out" in given or given[0] == "proof" else ["--out", str(tmp_path / "results")]
    assert cli.main(["eval", *given, *place]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert word in captured.err.splitlines()[-1]
    assert captured.err.splitlines()[-1].startswith("streamingvlm: error: ")


def test_results_and_page_on_the_command_line(
    found: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, results = tmp_path / "proof.md", tmp_path / "results"
    page.write_text(PAGE)
    results.mkdir()
    (results / "positions.json").write_text(json.dumps(found))
    assert cli.main(["eval", "proof", "--results", str(results), "--page", str(page)]) == 0
    assert "1 results" in capsys.readouterr().out
    assert "### vision-window" in page.read_text()
    (results / "positions.json").write_text("{")
    assert cli.main(["eval", "proof", "--results", str(results), "--page", str(page)]) == 2
