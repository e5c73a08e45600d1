"""``eval judge`` as a command, with a judge over the real protocol."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from streamingvlm import cli
from streamingvlm.cli.eval_judge import check_alike, judge
from streamingvlm.core.errors import EndpointError, OptionError, SourceError, StreamingVLMError
from streamingvlm.evaluate.runs import Contestant
from support.benchmark_data import event, timed, write_jsonl, write_livesports
from support.chat_server import ChatServer
from support.judges import FewGames, always, fair, part

#: Calls of a calibration on the few games, and of a whole judging.
CALIBRATION, VOTES, PROBES = 40, 40, 4
BENCHMARK = FewGames()


@pytest.fixture(autouse=True)
def benchmark(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr("streamingvlm.evaluate.judging.calibration.PAIRS", 4)
    if "published_benchmarks" not in request.fixturenames:
        monkeypatch.setattr("streamingvlm.evaluate.registry.open_benchmark", lambda *arguments: BENCHMARK)  # noqa: ARG005
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def published_benchmarks() -> None:
    """Benchmarks are those that the package has."""


@pytest.fixture
def at(tmp_path: Path) -> Path:
    for name, share in (("ours", 0.8), ("theirs", 0.3)):
        texts = {window.id: part(share)(window) for window in BENCHMARK.windows}
        (tmp_path / f"{name}.json").write_text(json.dumps(texts))
    return tmp_path


def call(server: ChatServer | str, at: Path, *options: object) -> Result:
    app = typer.Typer()
    app.command()(judge)
    url = server if isinstance(server, str) else server.url
    arguments = ["inf-streams", "--data", at, "--a", at / "ours.json", "--b", at / "theirs.json", "--judge", url]
    arguments += ["--judge-model", "judge-1", "--out", at / "votes" / "votes.jsonl", "--json", at / "figures.json"]
    return CliRunner().invoke(app, [str(one) for one in (*arguments, *options)], standalone_mode=False)


def figures(at: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((at / "figures.json").read_text())
    return found


def test_a_fair_judge_is_calibrated_and_its_figures_are_printed(at: Path) -> None:
    with ChatServer(fair) as server:
        found = call(server, at)
        assert found.return_value == 0, found.output
        assert len(server.requests) == PROBES + CALIBRATION + VOTES
        again = call(server, at)
        assert len(server.requests) == PROBES + CALIBRATION + VOTES
    assert "calibration: passed" in found.output
    assert "win rate of ours against theirs: 100.00 (100.0 - 100.0) %" in found.output
    assert "40 of 40 votes given" in found.output
    assert again.output == found.output
    tree = figures(at)
    assert tree["headline"]["win_rate"]["value"] == 100.0
    assert tree["settings"]["a"]["name"] == "ours"
    assert set(os.listdir(at / "votes")) == {
        "votes.jsonl",
        "verdicts.jsonl",
        "calibration.json",
        tree["calibration"]["votes"],
    }


def test_a_judge_that_fails_its_calibration_judges_nothing(at: Path) -> None:
    with ChatServer(always("A")) as server:
        found = call(server, at)
        assert isinstance(found.exception, SourceError)
        assert "failed its calibration (other, shuffled, doubled, numbers), so nothing was judged" in str(
            found.exception
        )
        assert len(server.requests) == PROBES + CALIBRATION
        assert not (at / "votes" / "votes.jsonl").exists()
        marked = call(server, at, "--without-calibration")
    assert marked.return_value == 0
    assert "calibration: FAILED" in marked.output
    assert "win rate of ours against theirs: 50.00 (50.0 - 50.0) %   (judge not calibrated)" in marked.output
    assert figures(at)["calibrated"] is False


def test_a_dry_run_says_what_is_left_and_calls_and_writes_nothing(at: Path) -> None:
    with ChatServer(fair) as server:
        found = call(server, at, "--dry-run", "--price-in", 2, "--price-out", 8)
        assert (found.return_value, server.requests) == (0, [])
        assert "calibration: 40 calls" in found.output
        assert "votes: 40 calls" in found.output
        assert "4 characters each" in found.output
        assert found.output.count("in the prices' currency") == 2
        assert not (at / "votes").exists()
        call(server, at)
        after = call(server, at, "--dry-run")
    assert "calibration: 0 calls" in after.output
    assert "votes: 0 calls, about 0 prompt tokens and 0 reply tokens; 40 votes are there" in after.output


def test_a_refused_temperature_is_refused_with_its_option(at: Path) -> None:
    with ChatServer(fair, refuses=("temperature",)) as server:
        found = call(server, at)
        assert isinstance(found.exception, OptionError)
        assert "add --no-temperature" in str(found.exception)
        assert call(server, at, "--no-temperature", "--max-tokens", 64).return_value == 0
        assert figures(at)["settings"]["parameters"] == {"seed": 42, "max_tokens": 64, "reply": "json_schema"}
        assert all("temperature" not in request for request in server.requests if len(request["messages"]) > 1)


def test_the_key_is_sent_and_written_nowhere(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(fair, key="sk-very-secret") as server:
        found = call(server, at)
        assert isinstance(found.exception, EndpointError)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
        assert call(server, at).return_value == 0
        assert server.headers[-1]["authorization"] == "Bearer sk-very-secret"
    for path in at.rglob("*"):
        assert path.is_dir() or "sk-very-secret" not in path.read_text()


def test_missing_windows_are_named_or_left_out_and_counted(at: Path) -> None:
    texts = json.loads((at / "theirs.json").read_text())
    del texts["v0-1"], texts["v2-3"]
    (at / "theirs.json").write_text(json.dumps(texts))
    with ChatServer(fair) as server:
        found = call(server, at)
        assert isinstance(found.exception, SourceError)
        assert "nothing for 2 of 20 windows: v0-1, v2-3; --allow-missing leaves them out" in str(found.exception)
        assert server.requests == []
        left_out = call(server, at, "--allow-missing")
        partial = call(server, at, "--allow-missing", "--partial")
    assert (left_out.return_value, partial.return_value) == (0, 0)
    assert "withheld: the headline: 4 of 40 votes are missing" in left_out.output
    assert "win rate of ours against theirs: 100.00" in partial.output
    assert "36 of 40 votes given" in partial.output


def test_votes_that_are_missing_show_in_the_exit_code(at: Path) -> None:
    with ChatServer(fair) as server:
        assert call(server, at).return_value == 0
        server.reply = lambda request: "I cannot judge"  # noqa: ARG005
        other = at / "votes" / "repeated.jsonl"
        found = call(server, at, "--out", other, "--repeats", 2)
    assert found.return_value == 1
    assert "errors: 40 unparsed" in found.output
    assert "withheld: the headline: 40 of 80 votes are missing" in found.output


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (["--prompt", "mine/1"], OptionError, "there is no judge prompt 'mine/1'"),
        (["--a", "nowhere"], SourceError, "nowhere is neither a run"),
        (["--judge", "ftp://judge"], OptionError, "the url of an endpoint is"),
        (["--json", "/nowhere/at/all.json"], StreamingVLMError, "cannot write"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    at: Path, options: list[str], error: type[StreamingVLMError], says: str
) -> None:
    found = call("http://127.0.0.1:1/v1", at, *options)
    assert isinstance(found.exception, error)
    assert says in str(found.exception)
    assert "\n" not in str(found.exception)


def test_a_run_of_another_task_is_refused(at: Path) -> None:
    run = at / "run"
    run.mkdir()
    (run / "predictions.jsonl").write_text((at / "ours.json").read_text())
    for about, says in (({"task": "livesports"}, "of task livesports"), ({"revision": "ffff"}, "of revision ffff")):
        (run / "run.json").write_text(json.dumps({"name": "ours", "task": "inf-streams", **about}))
        found = call("http://127.0.0.1:1/v1", at, "--a", run)
        assert says in str(found.exception)


def test_another_task_needs_a_prompt(at: Path) -> None:
    app = typer.Typer()
    app.command()(judge)
    arguments = ["chess", "--data", at, "--a", at / "ours.json", "--b", at / "theirs.json", "--dry-run"]
    arguments += ["--judge", "http://127.0.0.1:1/v1", "--judge-model", "judge-1", "--out", at / "votes.jsonl"]
    found = CliRunner().invoke(app, list(map(str, arguments)), standalone_mode=False)
    assert "chess has no judge prompt of its own; choose one with --prompt: inf-streams/1" in str(found.exception)
    chosen = CliRunner().invoke(app, [*map(str, arguments), "--prompt", "livesports/1"], standalone_mode=False)
    assert "votes: 40 calls" in chosen.output


def test_questions_are_not_judged(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamingvlm.evaluate.registry.open_benchmark", lambda *arguments: object())  # noqa: ARG005
    found = call("http://127.0.0.1:1/v1", at)
    assert "inf-streams is a benchmark of questions" in str(found.exception)


DRIVER = """
import sys
from streamingvlm.evaluate import registry
from streamingvlm.cli.eval_judge import check_alike
from streamingvlm.core.errors import OptionError
from streamingvlm.evaluate.runs import Contestant
from support.judges import FewGames
registry.open_benchmark = lambda task, data, videos: FewGames()
import typer
from streamingvlm import cli
from streamingvlm.cli.eval_judge import judge
app = typer.Typer()
app.command()(judge)
sys.exit(app(sys.argv[1:], standalone_mode=False))
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_keeps_its_votes(at: Path, sent: signal.Signals, code: int) -> None:
    server = ChatServer(lambda request: time.sleep(0.15) or fair(request))  # type: ignore[func-returns-value]
    with server:
        out = at / "votes" / "votes.jsonl"
        arguments = ["inf-streams", "--data", at, "--a", at / "ours.json", "--b", at / "theirs.json"]
        arguments += ["--judge", server.url, "--judge-model", "judge-1", "--out", out, "--without-calibration"]
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *map(str, arguments)],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") > 10, process)
        process.send_signal(sent)
        _, error = process.communicate(timeout=30)
        assert (process.returncode, error.strip()) == (
            code,
            "votes are kept; the same command goes on from there",
        )
        paid = len(server.requests)
        assert paid < PROBES + VOTES
        assert call(server, at, "--without-calibration").return_value == 0
        assert len(server.requests) == PROBES + VOTES  # the calls under way were waited for


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until, "nothing has happened"
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def livesports(folder: Path) -> Path:
    """Four videos with three events each, and the predictions of two contestants; one of theirs is empty."""
    events = []
    for number in range(12):
        video, begin = f"vid{number % 4}", 20.0 * (number // 4)
        words = timed(begin, begin + 10, word=f"v{number % 4}e")
        text = " ".join(str(word[2]) for word in words)
        events.append(event(number, begin, begin + 10, video, event_asr=json.dumps(words), event_asr_text=text))
    write_livesports(folder, events)
    for name, share in (("ours", 20), ("theirs", 8)):
        rows = []
        for one in events:
            said = " ".join(one["event_asr_text"].split()[:share])
            about = {key: one[key] for key in ("video_id", "event_id", "begin", "end")}
            rows.append({**about, "pred": "" if (name, one["event_id"]) == ("theirs", 5) else said})
        write_jsonl(folder / f"{name}.jsonl", rows)
    return folder


@pytest.mark.usefixtures("published_benchmarks")
def test_published_data_are_judged_with_the_program_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = livesports(tmp_path / "data")
    with ChatServer(fair) as server:
        arguments = ["eval", "judge", "livesports", "--data", data, "--a", data / "ours.jsonl"]
        arguments += ["--b", data / "theirs.jsonl", "--judge", server.url, "--judge-model", "judge-1"]
        arguments += ["--out", tmp_path / "votes.jsonl", "--json", tmp_path / "figures.json"]
        assert cli.main(list(map(str, arguments))) == 0
        printed = capsys.readouterr().out
        with (data / "ours.jsonl").open("a") as file:
            file.write("{}\n")
        assert cli.main(list(map(str, arguments))) == 2
    assert "not tested: the data have no such pair" in printed  # no numbers
    assert "decided by rule, empty text: 2 of b" in printed
    assert "win rate of ours against theirs: 100.00" in printed
    assert figures(tmp_path)["settings"]["prompt"].startswith("livesports/1#")
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"preset": "ours"}, "preset 'paper' and 'ours'"),
        ({"settings": {"human_words": False}}, "human words before the start True and False"),
        ({}, ""),
    ],
)
def test_runs_that_were_not_given_the_same_are_not_compared(more: dict[str, object], said: str) -> None:
    about = {"preset": "paper", "mode": "stream", "settings": {"human_words": True}}
    one, other = (Contestant(name, Path(name), Path(name), {**about, **own}) for name, own in (("a", {}), ("b", more)))
    check_alike(one, Contestant("file", Path("c"), Path("c"), {"name": "c"}))
    if not said:
        check_alike(one, other)
        return
    with pytest.raises(OptionError, match=said):
        check_alike(one, other)
