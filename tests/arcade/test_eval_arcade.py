"""Free running on unseen streams: what is watched, how it is taken up again, what the figures are."""

from __future__ import annotations

import contextlib
import json
import os
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
from arcade_streams.evaluate.run import Checkpoint, EvalConfig
from arcade_streams.score.score import count
from arcade_streams.worlds.context import EVALUATION_SEEDS
from arcade_streams.worlds.games import GAMES, find_game
from streamingvlm import cli
from streamingvlm.core.errors import OptionError, OutputError
from streamingvlm.core.events import Commentary
from streamingvlm.core.sampling_params import Sampling
from streamingvlm.evaluate import runner as watch
from streamingvlm.evaluate.record import Record
from streamingvlm.evaluate.runner import Watcher
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


def texts(records: list[Record]) -> list[list[str]]:
    return [[row["text"] for row in record.rows] for record in records]


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


def test_an_interrupted_run_goes_on_where_it_was(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SNAPSHOT_EVERY", 0.0)
    monkeypatch.setattr(watch, "SNAPSHOT_SHARE", 1e9)
    both = matches(["pong"], SEEDS)
    whole = Watcher(model, POLICY, tmp_path / "whole", "f").watch(both, 9)
    assert [len(rows) for rows in texts(whole)] == [9, 9]
    assert not list((tmp_path / "whole").glob("*.state"))

    def stop(done: float) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    watcher = Watcher(model, POLICY, tmp_path / "parts", "f")
    with pytest.raises(KeyboardInterrupt):
        watcher.watch(both, 9, stop)
    assert len(list((tmp_path / "parts").glob("*.state"))) == 2
    seen: list[float] = []
    again = watcher.watch(both, 9, seen.append)
    assert seen[0] == 10.0, "four seconds had snapshots, the fifth is said anew"
    assert texts(again) == texts(whole)
    assert any(text for rows in texts(whole) for text in rows)
    assert not list((tmp_path / "parts").glob("*.state"))
    # What is done is taken up without a step.
    monkeypatch.setattr(Watcher, "_run", None)
    assert texts(watcher.watch(both, 9)) == texts(whole)
    assert texts(watcher.watch(both, 4)) == [rows[:4] for rows in texts(whole)]


@pytest.mark.parametrize("broken", ["cut", "flipped", "missing", "killed"])
def test_a_run_goes_on_from_whichever_snapshot_is_whole(
    model: Any, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SNAPSHOT_EVERY", 0.0)
    monkeypatch.setattr(watch, "SNAPSHOT_SHARE", 1e9)
    match = matches(["pong"], SEEDS)[:1]
    (whole,) = texts(Watcher(model, POLICY, tmp_path / "whole", "f").watch(match, 7))

    def stop(done: float) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    watcher = Watcher(model, POLICY, tmp_path / "parts", "f")
    with pytest.raises(KeyboardInterrupt):
        watcher.watch(match, 7, stop)
    (state,) = (tmp_path / "parts").glob("*.state")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    if broken == "missing":
        state.unlink()
    elif broken == "killed":
        (tmp_path / "parts" / f"{state.name}.part").write_bytes(content[:100])
    else:
        state.write_bytes(content if broken == "flipped" else content[:-1])
    seen: list[float] = []
    with contextlib.nullcontext() if broken == "killed" else pytest.warns(UserWarning, match="goes on from the one"):
        (again,) = texts(watcher.watch(match, 7, seen.append))
    assert again == whole
    assert seen[0] == (5.0 if broken == "killed" else 4.0)
    assert [path.suffix for path in (tmp_path / "parts").iterdir()] == [".jsonl"]


def test_a_record_is_whole_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    record = Record(path, {"policy": "p"})
    record.begin(0.0)
    for second in range(5):
        record.add(Commentary(second, second + 1, f"caf\xe9 {second}\u2028\x85\ud800"))
    record.sync()
    record.close(done=False)
    before = path.read_bytes()
    assert before.count(b"\n") == 6
    for cut in range(len(before)):
        path.write_bytes(before[:cut])
        again = Record(path, {"policy": "p"})
        again.load()
        lines = before[:cut].count(b"\n")
        assert len(again.rows) in (max(lines - 1, 0), lines), "a line that is whole but for its end counts"
    path.write_bytes(before)
    again = Record(path, {"policy": "p"})
    again.load()
    assert [row["text"] for row in again.rows][3] == "caf\xe9 3\u2028\x85\ud800"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OutputError, match=r"cannot write .*x\.jsonl \(No space left on device\)"):
                again.begin(5.0)
        assert path.read_bytes() == before, "the words are not given up for others that cannot be written"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_record_on_a_full_disk_is_one_line(tmp_path: Path) -> None:
    record = Record(tmp_path / "x.jsonl", {"policy": "p"})
    record.begin(0.0)
    record._file = Path("/dev/full").open("w", encoding="utf-8", buffering=1)  # noqa: SIM115
    with pytest.raises(OutputError, match="No space left"):
        record.add(Commentary(0.0, 1.0, "a"))
    with contextlib.suppress(OutputError):
        record.close(done=False)


def test_words_do_not_depend_on_company(model: Any, tmp_path: Path) -> None:
    both = matches(["pong"], SEEDS)
    together = Watcher(model, POLICY, tmp_path / "a", "f").watch(both, 5)
    alone = Watcher(model, POLICY, tmp_path / "b", "f").watch(both[1:], 5)
    assert texts(together)[1] == texts(alone)[0]


def test_only_words_of_the_same_settings_are_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    row = json.dumps({"start": 0.0, "end": 1.0, "text": "a"})
    path.write_text(json.dumps({"policy": "p"}) + "\n" + row + "\n" + row[:9])
    record = Record(path, {"policy": "p"})
    record.load()
    assert record.seconds == 1.0
    other = Record(path, {"policy": "q"})
    other.load()
    assert other.rows == []
    path.write_text("")
    record.load()
    assert record.rows == []


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
    monkeypatch.setattr(watch, "REAL_TIME", 0.0)
    monkeypatch.setattr(watch, "OVER", 3)
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

    monkeypatch.setattr(arcade.Checkpoint, "load", stop)
    assert cli.main(["eval", "arcade", "--words", str(setting.folder), "--streams", "1"]) == 130
    assert capsys.readouterr().err == "what was said is kept; the same command goes on from there\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from streamingvlm import cli; cli.main(['eval', 'arcade', '--help']); print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--quick" in done.stdout
    assert "'torch'" not in done.stdout


def test_words_stay_those_of_a_checkpoint_whose_story_is_told_anew(tmp_path: Path) -> None:
    for name, text in (("config.json", "{}"), ("training.json", '{"notes": "a"}'), ("model.safetensors", "w")):
        (tmp_path / name).write_text(text)
    before = arcade._fingerprint(tmp_path)
    (tmp_path / "training.json").write_text('{"notes": "b"}')
    assert arcade._fingerprint(tmp_path) == before
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert arcade._fingerprint(tmp_path) != before
