"""What the tower sees of a stream is kept: the words are the same, and nothing is played or encoded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from streamingvlm.core.errors import OutputError
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import StepRequest
from streamingvlm.evaluate import features
from streamingvlm.evaluate.features import Features
from streamingvlm.evaluate.record import Record
from streamingvlm.evaluate.runner import TaskRunner
from support import tiny
from support.streams import finish
from support.tasks import NoiseExample

POLICY = "streaming:vision=3,turns=3,sink=160,text=8"


@pytest.fixture(params=tiny.FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny.model(family=request.param)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BLOCK", 4)


@pytest.fixture
def played() -> list[tuple[int, int]]:
    """Which streams are played, and from which second on."""
    return []


def watch(
    model: Any,
    folder: Path,
    seconds: int,
    kept: Path | None,
    policy: str = POLICY,
    played: list[tuple[int, int]] | None = None,
) -> list[Record]:
    own = None if kept is None else Features.of(model, kept)
    both = [NoiseExample(stream, played=[] if played is None else played) for stream in (1, 2)]
    return TaskRunner(model, policy, folder, "f", own).run(both, seconds)


def texts(records: list[Record]) -> list[list[str]]:
    return [[row["text"] for row in record.rows] for record in records]


@pytest.mark.slow
def test_words_are_the_same_and_nothing_is_played_twice(
    model: Any, tmp_path: Path, played: list[tuple[int, int]]
) -> None:
    plain = texts(watch(model, tmp_path / "plain", 10, None))
    assert any(text for rows in plain for text in rows)
    assert texts(watch(model, tmp_path / "first", 10, tmp_path / "kept", played=played)) == plain
    assert len(played) == 2
    played.clear()
    again = watch(model, tmp_path / "second", 10, tmp_path / "kept", played=played)
    assert texts(again) == plain
    assert not played
    assert all(row["work"] > 0 for record in again for row in record.rows)


def test_only_what_was_not_seen_is_played(tmp_path: Path, played: list[tuple[int, int]]) -> None:
    model = tiny.model()
    watch(model, tmp_path / "short", 6, tmp_path / "kept")
    longer = watch(model, tmp_path / "longer", 10, tmp_path / "kept", played=played)
    assert sorted(played) == [(1, 6), (2, 6)]
    assert texts(longer) == texts(watch(model, tmp_path / "plain", 10, None))
    # The minute that was short is whole only when it is seen from its beginning.
    assert sorted(path.name for path in (tmp_path / "kept").rglob("*.safetensors")) == [
        f"{block:05d}.safetensors" for block in (0, 0, 1, 1, 2, 2)
    ]


def test_a_policy_that_needs_the_frames_has_them(tmp_path: Path, played: list[tuple[int, int]]) -> None:
    model = tiny.model()
    for policy in ("recent-frames", "sliding-recompute:vision=3,turns=3,sink=160,text=8"):
        watch(model, tmp_path / policy[:6], 2, tmp_path / "kept", policy, played)
    assert len(played) == 4
    assert not list(tmp_path.rglob("*.safetensors"))


def test_another_tower_sees_for_itself(tmp_path: Path) -> None:
    one, same, other = tiny.model(), tiny.model(), tiny.model()
    with torch.no_grad():
        next(other.hf.model.visual.parameters()).add_(0.01)
    assert Features.of(one, tmp_path) == Features.of(same, tmp_path) != Features.of(other, tmp_path)


def test_a_file_that_is_cut_is_named(tmp_path: Path) -> None:
    model = tiny.model()
    watch(model, tmp_path / "a", 4, tmp_path / "kept")
    file = next((tmp_path / "kept").rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:99])
    with pytest.raises(OutputError, match="remove it"):
        watch(model, tmp_path / "b", 4, tmp_path / "kept")


def test_what_is_read_is_what_was_seen(model: Any, tmp_path: Path) -> None:
    example = NoiseExample(1)
    rounds: list[list[StepRequest]] = []
    for _ in range(2):
        engine = Engine(model)
        with engine.open(policy=POLICY, context=example.context) as session:
            seen = Features.of(model, tmp_path).seen(example, session, 6)
            rounds.append([])
            for step in seen:
                rounds[-1].append(engine.submit(session, step))
                finish(engine, rounds[-1][-1])
                seen.keep(rounds[-1][-1])
                assert all(one.chunk.frames.nbytes < 10 for one in seen.pending), "frames are not kept"
    assert len(rounds[0]) == len(rounds[1]) == 6
    for played, read in zip(*rounds, strict=True):
        one, other = played.step.chunk, read.step.chunk
        assert (one.start, one.end, one.times, len(one.frames)) == (
            other.start,
            other.end,
            other.times,
            len(other.frames),
        )
        assert played.ahead.patches.grid == read.ahead.patches.grid
        assert played.ahead.vision is not None
        assert read.ahead.vision is not None
        assert torch.equal(played.ahead.vision.embeds, read.ahead.vision.embeds)
        for layer, same in zip(played.ahead.vision.deepstack, read.ahead.vision.deepstack, strict=True):
            assert torch.equal(layer, same)
        # The work that it was counts again.
        for stage in ("read", "preprocess", "vision_encode"):
            assert getattr(played.timing, stage) == getattr(read.timing, stage) > 0
        assert played.tokens == read.tokens
