"""Time stamps that start anew: the model is told other times, and nothing else about the stream changes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamingvlm.core.errors import CapacityError, OptionError, SessionError
from streamingvlm.core.events import Chunk, Question, Rebased
from streamingvlm.core.grammar import LONGEST_STREAM
from streamingvlm.core.sampling_params import Sampling
from streamingvlm.core.spans import Kind
from streamingvlm.engine import snapshot
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.session import Session
from support import tiny
from support.streams import chunk

WINDOWS = "vision=3,turns=3,sink=10,text=40"
POLICIES = [
    f"streaming:{WINDOWS}",
    f"streaming:{WINDOWS},positions=append",
    f"streaming:{WINDOWS},history_kv=recompute",
    f"sliding-recompute:{WINDOWS}",
    "sliding-reset:seconds=4",
    "recent-frames:frames=5",
    "full:seconds=20",
    "public-code",
]
DAYS = 864_000.0


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.model(sampling=Sampling(temperature=0.9, max_new_tokens=6))


def later(one: Chunk, seconds: float) -> Chunk:
    times = tuple(time + seconds for time in one.times)
    return replace(one, times=times, start=one.start + seconds, end=one.end + seconds)


def stamps(session: Session) -> list[str]:
    decode = tiny.CharTokenizer().decode
    return [decode(span.tokens) for span in session.state.timeline.spans if span.kind is Kind.TIME]


def turns_shown(session: Session) -> list[int]:
    return sorted({span.turn for span in session.state.timeline.spans if span.kind is Kind.VISION})


def remembered(session: Session) -> list[int]:
    """Old words, and those of the turns that stand in place behind them."""
    out: list[int] = []
    for span in session.state.timeline.spans:
        out += span.tokens if span.kind is Kind.HISTORY else span.tokens[: span.words]
    return out


def words(session: Session, chunks: Iterable[Chunk]) -> list[tuple[int, ...]]:
    return [session.step(one).tokens for one in chunks]


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES)
def test_ten_days_late_and_rebased_is_the_same_stream_bit_for_bit(model: Any, policy: str) -> None:
    with Engine(model).open(policy=policy) as session:
        said, numbers, stamped = words(session, map(chunk, range(8))), session.state.positions, stamps(session)
    with Engine(model).open(policy=policy) as session:
        assert session.rebase(0.0, DAYS) == Rebased(DAYS, 0.0)
        assert words(session, (later(chunk(index), DAYS) for index in range(8))) == said
        assert np.array_equal(session.state.positions, numbers)
        assert stamps(session) == stamped
        assert session.time == DAYS + 8
    with Engine(model).open(policy=policy) as session:
        words(session, (later(chunk(index), DAYS) for index in range(8)))
        assert stamps(session) != stamped


@torch.inference_mode()
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_stamp_of_a_family_is_rebased(family: str) -> None:
    model = tiny.model(family=family)
    frames = {"size": tiny.FAMILIES[family].size, "frames": 4}
    with Engine(model).open(policy=f"streaming:{WINDOWS}", fps=4) as session:
        said, stamped = words(session, (chunk(index, **frames) for index in range(3))), stamps(session)
    with Engine(model).open(policy=f"streaming:{WINDOWS}", fps=4) as session:
        session.rebase(0.0, DAYS)
        assert words(session, (later(chunk(index, **frames), DAYS) for index in range(3))) == said
        assert stamps(session) == stamped
        shown = [span for span in session.state.timeline.spans if span.kind in (Kind.TIME, Kind.VISION)]
        assert {(span.start, span.end) for span in shown} == {(DAYS + one, DAYS + one + 1) for one in range(3)}


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES)
def test_in_mid_stream_a_policy_keeps_what_it_would_have_kept(model: Any, policy: str) -> None:
    engine = Engine(model, slots=2)
    with engine.open(policy=policy) as plain, engine.open(policy=policy) as session:
        for index in range(5):
            assert session.step(chunk(index)).tokens == plain.step(chunk(index)).tokens
        before = session.state.before_step()
        assert session.rebase(100.0) == Rebased(5.0, 100.0)
        before.time_offset = -95.0
        assert session.state == before
        for index in range(5, 10):
            plain.step(chunk(index))
            session.step(chunk(index))
            assert turns_shown(session) == turns_shown(plain)
            assert sum(session.rows.values()) <= session.capacity
        if not policy.startswith("recent"):
            assert stamps(session)[-1] == "Time=104.0-105.0s"
        assert session.time == plain.time == 10.0


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES[:4])
def test_behind_a_hole_of_hours_words_stay_and_the_stamp_shows_it(model: Any, policy: str) -> None:
    hours = 5 * 3600.0
    with Engine(model).open(policy=policy, context="a match") as session:
        words(session, map(chunk, range(6)))
        before = remembered(session)
        session.step(later(chunk(6), hours))
        assert tiny.CharTokenizer().decode(before).startswith("a match")
        assert len(before) > len("a match") + 6
        assert remembered(session)[: len(before)] == before
        assert turns_shown(session) == [6]
        assert stamps(session)[-1] == f"Time={hours + 6:.1f}-{hours + 7:.1f}s"


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES[2:6:2] + POLICIES[3:4])
def test_a_snapshot_keeps_where_stamps_began(model: Any, policy: str, tmp_path: Path) -> None:
    with Engine(model).open(policy=policy) as session:
        session.rebase(30.0, DAYS)
        words(session, (later(chunk(index), DAYS) for index in range(4)))
        session.save(tmp_path / "state")
        said = words(session, (later(chunk(index), DAYS) for index in range(4, 8)))
    with Engine(model).open(policy=policy) as session:
        session.restore(tmp_path / "state")
        assert session.state.time_offset == DAYS - 30
        assert words(session, (later(chunk(index), DAYS) for index in range(4, 8))) == said


@torch.inference_mode()
def test_a_snapshot_of_a_version_without_rebases_is_one_without_a_rebase(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    with Engine(model).open() as session:
        session.step(chunk(0))
        session.save(path)
    payload = snapshot._read(path)
    size = int.from_bytes(payload[:8], "little")
    meta = json.loads(payload[8 : 8 + size])
    record = json.loads(meta["__metadata__"]["stream"])
    assert record.pop("time_offset") == 0.0
    meta["__metadata__"]["stream"] = json.dumps(record)
    head = json.dumps(meta).encode()
    payload = len(head).to_bytes(8, "little") + head + payload[8 + size :]
    path.write_bytes(snapshot.header(payload) + payload)
    with Engine(model).open() as session:
        session.restore(path)
        assert session.state.time_offset == 0.0
        session.step(chunk(1))


@torch.inference_mode()
def test_questions_and_copies_are_told_the_same_time(model: Any) -> None:
    engine = Engine(model, slots=3)
    with engine.open() as session, engine.open() as other:
        session.rebase(7.0, DAYS)
        session.step(later(chunk(0), DAYS))
        with engine.fork(session) as fork:
            fork.take(session)
            answer = fork.ask(Question("what?"), later(chunk(1), DAYS))
            assert answer.time == DAYS + 2
            assert fork._stream.state.time_offset == DAYS - 7
        other.copy_from(session)
        other.step(later(chunk(1), DAYS))
        assert stamps(other) == ["Time=7.0-8.0s", "Time=8.0-9.0s"]


@torch.inference_mode()
def test_a_step_that_is_given_up_leaves_the_rebase(model: Any) -> None:
    engine = Engine(model)
    with engine.open() as session:
        session.rebase(7.0, DAYS)
        engine.submit(session, later(chunk(0), DAYS))
        engine.advance()
        with pytest.raises(ValueError, match="still under way"):
            session.rebase(0.0)
        session.abandon()
        session.step(later(chunk(0), DAYS))
        assert stamps(session) == ["Time=7.0-8.0s"]


@torch.inference_mode()
def test_a_stream_that_is_rebased_has_no_end(model: Any) -> None:
    with Engine(model).open() as session:
        with pytest.raises(CapacityError, match=r"^a stream has at most 1e\+07 s without a rebase"):
            session.step(later(chunk(0), LONGEST_STREAM))
        session.rebase(0.0, LONGEST_STREAM)
        session.step(later(chunk(0), LONGEST_STREAM))
        assert stamps(session) == ["Time=0.0-1.0s"]


@torch.inference_mode()
def test_what_cannot_be_meant_is_refused(model: Any) -> None:
    engine = Engine(model)
    session = engine.open(policy=POLICIES[0])
    session.step(chunk(0))
    for shown in (-1.0, float("nan"), float("inf"), LONGEST_STREAM + 1):
        with pytest.raises(OptionError, match=r"^time stamps start anew from 0 to"):
            session.rebase(shown)
    for moment in (0.5, float("nan"), float("inf")):
        with pytest.raises(OptionError, match=r"^the stream stands at 1 s; it cannot be rebased at"):
            session.rebase(0.0, moment)
    part = chunk(1, frames=4)
    session.feed(replace(part, frames=part.frames[:2], times=part.times[:2]))
    with pytest.raises(SessionError, match=r"^a stream is rebased between two steps"):
        session.rebase(0.0)
    session.abandon()
    assert session.state.time_offset == 0.0
    session.close()
    with pytest.raises(SessionError, match="closed"):
        session.rebase(0.0)
