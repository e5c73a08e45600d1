"""Rollouts: what the model says by itself, and chunks that have it as their history."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from streamingvlm import cli
from streamingvlm.core.errors import OptionError
from streamingvlm.data.report import Reason
from streamingvlm.engine.engine import Engine
from streamingvlm.models.load import load_model
from streamingvlm.runtime.runtime import Stream
from streamingvlm.train.onpolicy import RolloutRunner, segments
from streamingvlm.train.rollouts import OnPolicyDataset, RolloutRecord, read_rollouts
from support.training import make_stage, opened

KEYS = ["rollout_seconds=8", "rollout_streams=3", "temperature=1.2", "max_new_tokens=6", "vision=3", "turns=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rollouts")


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return make_stage(folder, rollouts=str(folder / "rollouts.jsonl"))


@pytest.fixture(scope="module")
def lines(file: Path, folder: Path) -> list[str]:
    assert cli.main(["rollout", str(file), *KEYS]) == 0
    return (folder / "rollouts.jsonl").read_text().splitlines()


def test_every_chunk_is_whole_in_a_piece(file: Path) -> None:
    _, chunks, _ = opened(file, "rollouts=")
    found = list(segments(chunks, 8))
    assert [segment.example.start for segment in found] == [0, 8, 16, 24]
    for place in chunks.places:
        end = place.cut.start + place.cut.steps
        around = [p for p in found if p.example.start <= place.cut.start and end <= p.example.start + p.example.seconds]
        assert around
    (whole,) = segments(chunks, 0)
    assert (whole.example.start, whole.example.seconds, whole.context) == (0, 29, "a clip")


def test_a_stream_says_what_it_says_alone(file: Path, lines: list[str]) -> None:
    stage, chunks, _ = opened(file, "rollouts=", *KEYS)
    said = {row["start"]: row["said"] for row in map(json.loads, lines)}
    assert sorted(said) == [0, 8, 16, 24]
    assert any(text for text in said[16])
    segment = list(segments(chunks, 8))[2]
    model = load_model(stage.model)
    before = model.defaults
    sampling = RolloutRunner(stage, model, chunks, file.parent / "none.jsonl").sampling
    assert model.defaults is before
    # OpenTurn with the stage's numbers by hand.
    policy = "streaming:vision=3,turns=3,sink=16,text=16"
    session = Engine(model).open(
        policy=policy,
        sampling=sampling,
        context="a clip",
        instruction="Watch.",
        seed=0,
        stream=2,
        fps=3,
        max_pixels=6 * 28 * 28,
    )
    with session:
        assert [words.text for words in session.run(segment)] == said[16]


def test_stopped_and_taken_up_again(file: Path, folder: Path, lines: list[str]) -> None:
    again = folder / "again.jsonl"
    again.write_text(lines[1] + "\n" + lines[0][:40])
    assert cli.main(["rollout", str(file), *KEYS, f"rollouts={again}"]) == 0
    assert sorted(again.read_text().splitlines()) == sorted(lines)


def test_ctrl_c_writes_no_segment_that_is_not_whole(
    file: Path, folder: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, chunks, _ = opened(file, "rollouts=", *KEYS, "rollout_streams=8")
    begun = threading.Event()

    def slow(done: int) -> None:
        if done >= 8:
            begun.set()
            time.sleep(0.3)

    def interrupted(_: Stream) -> None:
        assert begun.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(Stream, "wait_ended", interrupted)
    again = folder / "interrupted.jsonl"
    with pytest.raises(KeyboardInterrupt):
        RolloutRunner(stage, load_model(stage.model), chunks, again).run(slow)
    assert set(again.read_text().splitlines() if again.exists() else []) <= set(lines)


def test_parts_are_the_whole(file: Path, folder: Path, lines: list[str]) -> None:
    name = folder / "parts.jsonl"
    for part in ("0/2", "1/2"):
        assert cli.main(["rollout", str(file), *KEYS, f"rollouts={name}", "--part", part]) == 0
    assert sorted(said.to_line().strip() for said in read_rollouts(name)) == sorted(lines)


def test_the_models_words_are_the_history_and_the_truth_is_the_target(file: Path, lines: list[str]) -> None:
    stage, chunks, collate = opened(file, *KEYS)
    _, true, _ = opened(file, "rollouts=", *KEYS)
    assert isinstance(chunks, OnPolicyDataset)
    assert len(chunks) == len(true)
    said = next(row for row in map(json.loads, lines) if row["start"] == 8)["said"]
    number = next(i for i in range(len(true)) if true[i].start == 12)
    example, encoding = chunks[number], true.encoding
    assert example.said == tuple(said[4:7])
    assert example.true == true[number].true != example.said
    assert example.history == encoding.history("a clip", said[:4], stage.sink, stage.text)
    batch = collate([example])
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    learnt = labels[labels != -100].tolist()
    wanted: list[int] = []
    for own, right in zip(map(encoding.reply, example.said), map(encoding.reply, example.true), strict=True):
        agreed = next((i for i, (a, b) in enumerate(zip(own, right, strict=False)) if a != b), len(right) - 1)
        wanted += right[: agreed + 1]
    assert learnt == wanted
    # Where the model left the truth, its own id stands in the text and the true one is the label.
    assert (ids[labels != -100] != labels[labels != -100]).any()


def test_chunks_without_a_rollout_are_counted(file: Path, lines: list[str]) -> None:
    _, chunks, _ = opened(file, "rollouts=")
    first = next(said for said in read_rollouts(Path(file.parent / "rollouts.jsonl")) if said.start == 0)
    mine = OnPolicyDataset(chunks, [first])
    assert len(lines) == 4
    assert 0 < len(mine) < len(chunks)
    assert mine.report.skipped[Reason.NO_ROLLOUT] == len(chunks) - len(mine)
    with pytest.raises(OptionError, match="no rollout belongs to any of the chunks"):
        OnPolicyDataset(chunks, [RolloutRecord("other.jsonl, byte 0", "a", 0.0, 1.0, ("",) * 30, 0, {})])
    with pytest.raises(OptionError, match="steps of 2 s, the chunks of 1 s"):
        OnPolicyDataset(chunks, [RolloutRecord("other.jsonl, byte 0", "a", 0.0, 2.0, ("",) * 30, 0, {})])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["seed=1"], "was made with another model or other settings"),
        (["rollouts="], "rollouts names no file"),
        (["--part", "2/2"], "--part must be K/N"),
        (["data=none.jsonl"], "no annotations there"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    file: Path, lines: list[str], arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines
    assert cli.main(["rollout", str(file), *KEYS, *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert says in error[-1]


def test_a_stage_trains_on_rollouts(
    file: Path, folder: Path, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines
    assert cli.main(["train", str(file), *KEYS, f"output={folder / 'out'}", "max_steps=1"]) == 0
    assert (folder / "out" / "model" / "model.safetensors").is_file()
    assert cli.main(["train", str(file), *KEYS, f"rollouts={folder / 'no.jsonl'}", "--dry-run"]) == 2
    assert "holds no rollouts; `streamingvlm rollout CONFIG` makes them" in capsys.readouterr().err
