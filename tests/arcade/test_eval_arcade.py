"""Free running on unseen streams: what is watched, how it is taken up again, what the figures are."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arcade_streams.evaluate import run as arcade
from arcade_streams.evaluate.figures import Evaluation, Watched, measure
from arcade_streams.evaluate.gate import gate
from arcade_streams.evaluate.match import Match, exchange, matches
from arcade_streams.evaluate.run import EvalConfig
from arcade_streams.score.score import count
from arcade_streams.worlds.context import EVALUATION_SEEDS
from arcade_streams.worlds.games import GAMES, find_game
from streamingvlm import cli
from streamingvlm.core.errors import OptionError
from streamingvlm.core.sampling_params import Sampling
from streamingvlm.evaluate import runner
from streamingvlm.evaluate.checkpoint import Checkpoint
from streamingvlm.evaluate.record import Record
from streamingvlm.models.hub import BUNDLED
from support import tiny

pytest.importorskip("ale_py", reason="the arcade extra is not installed")

POLICY = "streaming:vision=3,turns=3,sink=160,text=8"
SEEDS = range(EVALUATION_SEEDS, EVALUATION_SEEDS + 2)


@contextlib.contextmanager
def no_bar(what: str, total: float) -> Iterator[Callable[[float], None]]:  # noqa: ARG001
    yield lambda _: None


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.model(sampling=Sampling(temperature=0.9, max_new_tokens=5))


@pytest.fixture(scope="module")
def checkpoint(model: Any) -> Checkpoint:
    return Checkpoint("tiny", "tiny", model, "0123456789abcdef")


@pytest.fixture
def setting(tmp_path: Path) -> EvalConfig:
    return EvalConfig(("pong",), SEEDS, 6, tmp_path / "words")


def test_what_is_watched() -> None:
    both = matches(["pong"], SEEDS)
    assert [match.name for match in both] == ["pong-9000000", "pong-9000001"]
    with pytest.raises(OptionError, match="for training"):
        matches(["pong"], range(5, 9))
    with pytest.raises(OptionError, match="at least one"):
        matches(["pong"], range(0))


def test_flipped_names_are_exchanged_in_context_and_truth() -> None:
    context = "first to 2 games ; player green Mina ; player orange Felix ; home green Oslo ; home orange Turin"
    turned = exchange(context, context)
    assert turned == "first to 2 games ; player green Felix ; player orange Mina ; home green Turin ; home orange Oslo"
    assert exchange("game player green Mina ; games 1 to 0", context) == "game player green Felix ; games 1 to 0"
    own = Match("pong", EVALUATION_SEEDS)
    other = replace(own, flipped=True)
    assert exchange(own.context, own.context) == other.context != own.context
    (right, _), (flipped, said) = own.truth(240), other.truth(240)
    named = [(a[2], b[2]) for a, b in zip(right["content"], flipped["content"], strict=True) if a != b]
    assert named
    assert all("player" in text or "home" in text for text, _ in named)
    assert len(said) == 240
    assert own.fingerprint() == other.fingerprint()


@pytest.mark.parametrize("game", GAMES)
def test_names_of_every_game_can_be_flipped(game: str) -> None:
    own = Match(game, EVALUATION_SEEDS)
    one, other = (find_game(game).parse_context(m.context) for m in (own, replace(own, flipped=True)))
    assert one is not None
    assert other is not None
    assert [(p.name, p.town) for p in one.players] == [(p.name, p.town) for p in other.players[::-1]]
    assert [p.colour for p in one.players] == [p.colour for p in other.players]


def perfect(match: Match, seconds: int, wrong: int = 0) -> Watched:
    """A stream whose words are the truth, the last ``wrong`` of them left out."""
    truth, _ = match.truth(seconds)
    content = truth["content"][: len(truth["content"]) - wrong]
    words = {int(start): text for start, _, text in content}
    record = Record(Path("none"), {})
    record.rows = [
        {"start": at, "end": at + 1, "text": words.get(at, ""), "work": 0.5, "lag": 0.1, "rows": 100 + at}
        for at in range(seconds)
    ]
    return measure(match, record)


def test_the_truth_has_perfect_figures_with_intervals() -> None:
    watched = [perfect(match, 150) for match in matches(["pong"], SEEDS)]
    found = Evaluation.of([("m", stream) for stream in watched], resamples=20).json()
    wanted = ["micro_f1", "micro_f1_strict", "macro_f1", "macro_f1_strict", "score", "play", "silence_precision"]
    for name in wanted:
        assert found[name] == {"value": 1.0, "low": 1.0, "high": 1.0}
    for name in ("names", "tally", "longest_repeat", "work_per_second", "rows", "repetition"):
        assert set(found[name]) == {"value", "low", "high"}
    assert found["tally_steps"]["all"]["value"] == 1.0
    assert set(found["tally_steps"]) == {"<=16s", ">16s", "all"}
    assert found["ceiling"]["micro_f1_strict"]["value"] > 0.9
    assert found["of_ceiling"]["micro_f1_strict"]["value"] >= 1.0
    assert found["chance"]["micro_f1_strict"]["high"] < 0.3
    assert [part["micro_f1_strict"]["value"] for part in found["fifths"]] == [1.0] * 5
    assert (found["work_per_second"]["value"], found["rows"]["value"]) == (0.5, 249)
    assert found["drift"]["value"] is None, "too short for a last half hour"
    assert (found["streams"], found["games"]["pong"]["seeds"]) == (2, list(SEEDS))
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
def test_the_gate() -> None:
    seeds = range(EVALUATION_SEEDS, EVALUATION_SEEDS + 6)
    own = [perfect(match, 240) for match in matches(["pong"], seeds)]
    turned = [perfect(replace(match, flipped=True), 240) for match in matches(["pong"], seeds)]

    def judge(own: list[Watched], turned: list[Watched], training_seeds: int | None = 2) -> dict[str, Any]:
        one, other = (Evaluation.of([("m", stream) for stream in part], 3) for part in (own, turned))
        return gate(one, other, training_seeds)

    verdict = judge(own, turned)
    assert (verdict["passed"], verdict["reasons"], verdict["names_flipped"]["value"]) == (True, [], 1.0)
    # A model that says the names that it would have said anyway.
    stubborn = [replace(stream, said=other.said) for stream, other in zip(turned, mixed(own, turned), strict=True)]
    (reason,) = judge(own, stubborn)["reasons"]
    assert "0.00 of the flipped names" in reason
    assert "5 streams, 6" in judge(own[:5], turned)["reasons"][0]
    assert "1 training seed, 2" in judge(own, turned, 1)["reasons"][0]
    assert judge(own, turned, None)["passed"]
    weak = [perfect(stream.match, 240, wrong=60) for stream in own]
    assert "of the ceiling" in judge(weak, turned)["reasons"][0]


def mixed(own: list[Watched], turned: list[Watched]) -> list[Watched]:
    """What was said with the own names, measured against the flipped truth."""
    out = []
    for one, other in zip(own, turned, strict=True):
        truth, _ = other.match.truth(240)
        words, _ = one.match.truth(240)
        out.append(replace(other, said=count(truth, words)))
    return out


def test_full_attention_is_opened_for_what_memory_holds(
    model: Any, checkpoint: Checkpoint, setting: EvalConfig
) -> None:
    assert arcade.fitting("streaming", model, setting) == "streaming"
    assert arcade.fitting("full:seconds=9", model, setting) == "full:seconds=9"
    assert arcade.fitting("full", model, setting) == "full:seconds=6"
    assert arcade.fitting("full:positions=append", model, setting) == "full:seconds=6,positions=append"
    with pytest.raises(OptionError, match="hold no second"):
        arcade.fitting("full", model, replace(setting, memory=1e5))
    per_second = model.kv_shape.bytes_per_row
    memory = 2 * per_second * 2_000
    small = replace(setting, memory=memory, seconds=1000)
    policy = arcade.fitting("full", model, small)
    assert 5 < int(policy.partition("=")[2]) < 200
    (one, other) = arcade.run(checkpoint, "full:seconds=4", setting, no_bar)
    assert one.stopped == other.stopped == "the cache is full at 4 s"
    assert one.seconds == 4.0
    found = Evaluation.of([("m", one), ("m", other)], 5).json()
    assert found["games"]["pong"]["stopped"] == {"pong-9000000": one.stopped, "pong-9000001": one.stopped}


def test_a_growing_cache_stops_when_it_is_slower_than_real_time(
    checkpoint: Checkpoint, setting: EvalConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "REAL_TIME", 0.0)
    monkeypatch.setattr(runner, "OVER", 3)
    stopped = arcade.run(checkpoint, "full:seconds=6", setting, no_bar)
    assert [stream.stopped for stream in stopped] == ["slower than real time at 3 s"] * 2
    assert {stream.stopped for stream in arcade.run(checkpoint, POLICY, setting, no_bar)} == {""}


@pytest.mark.skipif(not (BUNDLED / "model.safetensors").is_file(), reason="the bundled model is not here")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.json"
    words = tmp_path / "words"
    arguments = ["eval", "arcade", "--game", "pong", "--streams", "2", "--hours", "0.003", "--gate"]
    assert cli.main([*arguments, "--words", str(words), "--json", str(target)]) == 0
    out = capsys.readouterr().out
    assert "| micro F1, same second |" in out
    assert "gate: not passed: " in out
    found = json.loads(target.read_text())
    assert found["games"]["pong"]["seconds"] == 22
    assert found["micro_f1"]["value"] > 0.3
    assert {"device", "versions", "date", "command", "policy", "checkpoints", "lag", "gate"} <= set(found)
    assert len(list(words.rglob("*.jsonl"))) == 4


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--policy", "magic"], "magic"),
        (["--game", "chess"], "chess"),
        (["--game", "pong", "--game", "pong"], "every game once"),
        (["--hours", "0"], "--hours"),
        (["--streams", "0"], "--streams"),
        (["--seeds", "1:2"], "for training"),
        (["--seeds", "9000000"], "--seeds"),
        (["--seeds", "9000001:9000001"], "at least one stream"),
        (["--seeds", "9000000:9000001", "--streams", "3"], "exclude"),
        (["--quick", "--hours", "1"], "--quick"),
        (["--memory", "0"], "memory"),
        (["--model", "OUT/none"], "none"),
        (["--json", "OUT/none/x.json"], "cannot write"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part.replace("OUT", str(tmp_path)) for part in arguments]
    assert cli.main(["eval", "arcade", "--words", str(tmp_path / "words"), *given]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert word in captured.err.splitlines()[-1]
    assert captured.err.splitlines()[-1].startswith("streamingvlm: error: ")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_says_that_nothing_is_lost(
    setting: EvalConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "load", stop)
    assert cli.main(["eval", "arcade", "--words", str(setting.folder), "--streams", "1"]) == 130
    assert capsys.readouterr().err == "what was said is kept; the same command goes on from there\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from streamingvlm import cli; cli.main(['eval', 'arcade', '--help']); print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--quick" in done.stdout
    assert "'torch'" not in done.stdout
