"""A stream that was put on disk says on what it would have said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from streamingvlm.engine import Engine
from streamingvlm.errors import CapacityError
from streamingvlm.events import Chunk, Commentary
from streamingvlm.sampling import Sampling
from streamingvlm.snapshot import SnapshotError, restore, save

WINDOWS = "vision=3,turns=3,sink=10,text=8"
POLICIES = [
    f"streaming:{WINDOWS}",
    f"streaming:{WINDOWS},positions=append",
    f"sliding-recompute:{WINDOWS}",
    "recent-frames:frames=5",
    "full:seconds=20",
]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.model(sampling=Sampling(temperature=0.9, max_new_tokens=6))


def chunk(second: int) -> Chunk:
    height, width = tiny.FAMILIES[tiny.GOLDEN].size
    frames = np.random.default_rng(second).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    return Chunk(frames, (second, second + 0.5), second, second + 1.0)


def words(events: list[Commentary]) -> list[tuple[int, ...]]:
    return [event.tokens for event in events]


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES)
def test_it_goes_on_bit_for_bit(model: Any, policy: str, tmp_path: Path) -> None:
    engine = Engine(model, slots=2)
    with engine.open(policy=policy, context="a:b", seed=3) as session:
        for second in range(6):
            session.step(chunk(second))
        session.instruct("more")
        save(session, engine.pool, tmp_path / "state")
        whole = [session.step(chunk(second)) for second in range(6, 12)]
        rows = session.rows
    other = Engine(model, slots=3)
    with other.open(context="somebody else"), other.open(policy=policy, context="a:b", seed=3) as session:
        restore(session, other.pool, tmp_path / "state")
        assert session.time == 6.0
        assert words([session.step(chunk(second)) for second in range(6, 12)]) == words(whole)
        assert session.rows == rows
    assert list(tmp_path.iterdir()) == [tmp_path / "state"]


@torch.inference_mode()
def test_what_does_not_fit_is_one_line(model: Any, tmp_path: Path) -> None:
    engine, path = Engine(model, slots=1), tmp_path / "state"
    with engine.open(policy="full:seconds=20") as session:
        for second in range(4):
            session.step(chunk(second))
        save(session, engine.pool, path)
    with engine.open(policy="full:seconds=20", seed=1) as session, pytest.raises(SnapshotError, match="other options"):
        restore(session, engine.pool, path)
    with engine.open(policy="full:seconds=20") as session:
        session.capacity = 3
        with pytest.raises(CapacityError, match="rows"):
            restore(session, engine.pool, path)
        path.write_bytes(b"nothing")
        with pytest.raises(SnapshotError, match="no snapshot"):
            restore(session, engine.pool, path)
        with pytest.raises(SnapshotError, match="no snapshot"):
            restore(session, engine.pool, tmp_path / "missing")
