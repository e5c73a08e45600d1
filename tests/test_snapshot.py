"""A stream that was put on disk says on what it would have said; a file that is not whole is never believed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from streamingvlm.engine import Engine
from streamingvlm.errors import CapacityError, OutputError, SessionError
from streamingvlm.events import Chunk, Commentary, InstructionUpdated
from streamingvlm.sampling import Sampling
from streamingvlm.session import Session
from streamingvlm.snapshot import SnapshotError, previous, restore, save, with_checksum

WINDOWS = "vision=3,turns=3,sink=10,text=8"
POLICIES = [
    f"streaming:{WINDOWS}",
    f"streaming:{WINDOWS},positions=append",
    f"streaming:{WINDOWS},history=renewed",
    f"sliding-recompute:{WINDOWS}",
    "recent-frames:frames=5",
    "full:seconds=20",
    "faithful",
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


def saved(model: Any, path: Path, seconds: int = 4, **options: Any) -> Engine:
    engine = Engine(model, slots=1)
    with engine.open(policy="full:seconds=20", **options) as session:
        for second in range(seconds):
            session.step(chunk(second))
            if second >= seconds - 2:
                save(session, engine.pool, path)
    return engine


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES)
def test_it_goes_on_bit_for_bit(model: Any, policy: str, tmp_path: Path) -> None:
    engine = Engine(model, slots=2)
    with engine.open(policy=policy, context="a:b", seed=3) as session:
        for second in range(6):
            session.step(chunk(second))
        session.instruct("less")
        session.instruct("more")
        save(session, engine.pool, tmp_path / "state")
        whole = [session.step(chunk(second)) for second in range(6, 12)]
        rows = session.rows
    other = Engine(model, slots=3)
    with other.open(context="somebody else"), other.open(policy=policy, context="a:b", seed=3) as session:
        assert restore(session, other.pool, tmp_path / "state") == tmp_path / "state"
        assert session.time == 6.0
        assert session.state.instructions == (InstructionUpdated(1, "less", None), InstructionUpdated(2, "more", None))
        assert words([session.step(chunk(second)) for second in range(6, 12)]) == words(whole)
        assert session.rows == rows
    assert list(tmp_path.iterdir()) == [tmp_path / "state"]


@torch.inference_mode()
def test_what_does_not_fit_is_one_line(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    for options, says in (
        ({"seed": 1}, "seed 0, here 1"),
        ({"policy": "full:seconds=19", "context": "b"}, "policy.seconds 20.0, here 19.0, context '', here 'b'"),
        ({"policy": "streaming"}, "policy 'KeepAll', here 'StreamingWindow'$"),
        ({"temperature": 0.5}, "sampling.temperature 0.9, here 0.5"),
        ({"max_pixels": 28 * 28 * 5}, "max_pixels"),
    ):
        with (
            engine.open(**{"policy": "full:seconds=20", **options}) as session,
            pytest.raises(SnapshotError, match=f"other options: .*{says}"),
        ):
            restore(session, engine.pool, path)
    with engine.open(policy="full:seconds=20") as session:
        session.capacity = 3
        with pytest.raises(CapacityError, match="rows"):
            restore(session, engine.pool, path)
    for content in (b"nothing", b""):
        path.write_bytes(content)
        previous(path).unlink(missing_ok=True)
        with engine.open(policy="full:seconds=20") as session, pytest.raises(SnapshotError, match="no snapshot"):
            restore(session, engine.pool, path)
    with engine.open(policy="full:seconds=20") as session, pytest.raises(SnapshotError, match="no snapshot"):
        restore(session, engine.pool, tmp_path / "missing")
    torch.save({"format": 1}, path)
    with engine.open(policy="full:seconds=20") as session, pytest.raises(SnapshotError, match="format 1"):
        restore(session, engine.pool, path)


@torch.inference_mode()
def test_other_weights_are_refused_whatever_they_are_called(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    saved(model, path)
    same = tiny.model(sampling=model.defaults.sampling)
    same.name = "another folder"
    other = tiny.model(sampling=model.defaults.sampling)
    with torch.no_grad():
        other.hf.model.language_model.layers[1].mlp.down_proj.weight.mul_(1.001)
    with Engine(same).open(policy="full:seconds=20") as session:
        restore(session, session._engine.pool, path)
    with Engine(other).open(policy="full:seconds=20") as session, pytest.raises(SnapshotError, match="other weights"):
        restore(session, session._engine.pool, path)
    half = tiny.model(sampling=model.defaults.sampling, dtype=torch.bfloat16)
    with Engine(half).open(policy="full:seconds=20") as session, pytest.raises(SnapshotError, match="dtype 'float32'"):
        restore(session, session._engine.pool, path)


def with_record(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Write a snapshot again with another record, checksum and all, as another version would have written it."""
    content = path.read_bytes()[len(with_checksum(b"")) :]
    size = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + size])
    record = json.loads(head["__metadata__"]["stream"])
    change(record)
    head["__metadata__"]["stream"] = json.dumps(record)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    rest = len(text).to_bytes(8, "little") + text + content[8 + size :]
    path.write_bytes(with_checksum(rest) + rest)


@torch.inference_mode()
def test_an_option_that_came_later_has_its_default_and_an_unknown_one_is_named(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    with_record(path, lambda record: [record["options"].pop(key) for key in ("sampling.forced", "fps", "stream")])
    with engine.open(policy="full:seconds=20") as session:
        restore(session, engine.pool, path)
    with (
        engine.open(policy="full:seconds=20", fps=4) as session,
        pytest.raises(SnapshotError, match=r"fps 2\.0, here 4"),
    ):
        restore(session, engine.pool, path)
    with_record(path, lambda record: record["options"].update({"sampling.mirostat": 5}))
    with engine.open(policy="full:seconds=20") as session, pytest.raises(SnapshotError, match="mirostat 5, here None"):
        restore(session, engine.pool, path)


@torch.inference_mode()
@pytest.mark.parametrize("key", ["spans", "cached", "turn", "options", "weights", "retained", "shown", "instructions"])
def test_a_record_that_lacks_something_changes_nothing(model: Any, key: str, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda record: record.pop(key),
        lambda record: record.update({key: "?"}),
    ]
    for change in changes:
        with_record(path, change)
        with engine.open(policy="full:seconds=20") as session:
            with pytest.raises(SnapshotError):
                restore(session, engine.pool, path)
            assert session.state.turn == 0
            assert engine.pool.length[session.slot] == 0


@torch.inference_mode()
def test_a_damaged_file_is_refused_and_the_one_before_is_taken(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    whole, rng = path.read_bytes(), random.Random(0)
    damaged = [whole[: len(whole) * part // 40] for part in range(40)] + [whole + b"\0"]
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole)) if rng.random() < 0.5 else rng.randrange(60)] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with engine.open(policy="full:seconds=20") as session:
            with pytest.warns(UserWarning, match="goes on from the one before"):
                assert restore(session, engine.pool, path) == previous(path)
            assert session.time == 3.0
    path.unlink()
    with engine.open(policy="full:seconds=20") as session, pytest.warns(UserWarning, match="No such file"):
        restore(session, engine.pool, path)
    path.write_bytes(whole[:-1])
    previous(path).write_bytes(whole[:100])
    with engine.open(policy="full:seconds=20") as session:
        with pytest.raises(SnapshotError, match="and the one before"):
            restore(session, engine.pool, path)
        assert words([session.step(chunk(0))])


@torch.inference_mode()
def test_a_stream_is_saved_and_restored_between_steps_only(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    forced = Sampling(max_new_tokens=6, forced=True)
    with engine.open(policy="full:seconds=20", sampling=forced) as session:
        half = chunk(0)
        session.feed(Chunk(half.frames, half.times, half.start, half.end, last=False))
        with pytest.raises(SessionError, match="between two steps"):
            save(session, engine.pool, path)
        with pytest.raises(SessionError, match="just been opened"):
            restore(session, engine.pool, path)
        session.abandon()
        job = engine.submit(session, chunk(0))
        engine.advance()
        assert not job.done
        with pytest.raises(SessionError, match="between two steps"):
            save(session, engine.pool, path)


@torch.inference_mode()
def test_a_full_disk_leaves_what_was_there(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with engine.open(policy="full:seconds=20") as session:
        session.step(chunk(0))
        with pytest.raises(OutputError, match="No space left"):
            save(session, engine.pool, path)
        with pytest.raises(OutputError, match="cannot write"):
            save(session, engine.pool, tmp_path / "no folder" / "state")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


SAVER = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
import tiny
from streamingvlm.engine import Engine
from streamingvlm.sampling import Sampling
from streamingvlm.snapshot import save
from test_snapshot import chunk
torch.set_num_threads(1)
model = tiny.model(sampling=Sampling(temperature=0.9, max_new_tokens=6))
engine = Engine(model)
with torch.inference_mode(), engine.open(policy="full:seconds=20") as session:
    session.step(chunk(0))
    while True:
        save(session, engine.pool, Path({path!r}))
        print("saved", flush=True)
"""


@torch.inference_mode()
def test_a_process_that_is_killed_while_saving_leaves_a_whole_one(model: Any, tmp_path: Path) -> None:
    path, rng = tmp_path / "state", random.Random(1)
    code = SAVER.format(tests=str(Path(__file__).parent), path=str(path))
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "saved\n"
        time.sleep(rng.random() / 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with Engine(model).open(policy="full:seconds=20") as session:
            taken(session, path)
            assert session.time == 1.0


def taken(session: Session, path: Path) -> None:
    """Whichever is whole; between the two renames there is only the one before."""
    if path.exists():
        assert restore(session, session._engine.pool, path) == path
    else:
        with pytest.warns(UserWarning, match="goes on from"):
            restore(session, session._engine.pool, path)
