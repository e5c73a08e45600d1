"""A stream that was put on disk says on what it would have said; a file that is not whole is never believed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file

from streamingvlm.core.errors import CapacityError, OutputError
from streamingvlm.core.events import Chunk, Commentary
from streamingvlm.core.policy import StreamingWindow
from streamingvlm.core.sampling_params import Sampling
from streamingvlm.engine import snapshot
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.session import Session
from streamingvlm.engine.snapshot import (
    FORMAT,
    BrokenError,
    SnapshotError,
    header,
    previous,
    read,
    remove,
    there_is,
    write,
)
from streamingvlm.models.fingerprint import SAMPLES, fingerprint
from streamingvlm.models.hub import BUNDLED
from streamingvlm.models.int8_linear import int8_available
from streamingvlm.models.load import load_model
from streamingvlm.testing import ScriptedModel, ScriptedSource
from support import tiny

WINDOWS = "vision=3,turns=3,sink=10,text=8"
POLICIES = [
    f"streaming:{WINDOWS}",
    f"streaming:{WINDOWS},positions=append",
    f"streaming:{WINDOWS},history_kv=recompute",
    f"sliding-recompute:{WINDOWS}",
    "recent-frames:frames=5",
    "full:seconds=20",
    "public-code",
]
FULL = "full:seconds=20"


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.model(sampling=Sampling(temperature=0.9, max_new_tokens=6))


def chunk(second: int) -> Chunk:
    height, width = tiny.FAMILIES[tiny.GOLDEN].size
    frames = np.random.default_rng(second).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    return Chunk(frames, (second, second + 0.5), second, second + 1.0)


def words(events: list[Commentary]) -> list[tuple[int, ...]]:
    return [event.tokens for event in events]


def saved(model: Any, path: Path, seconds: int = 4, policy: str = FULL, **options: Any) -> Engine:
    """A stream of some seconds, with snapshots after the last two of them; the engine has a slot free."""
    engine = Engine(model, slots=1)
    with engine.open(policy=policy, **options) as session:
        for second in range(seconds):
            session.step(chunk(second))
            if second >= seconds - 2:
                session.save(path)
    return engine


@contextmanager
def untouched(engine: Engine, policy: Any = FULL, **options: Any) -> Iterator[Session]:
    """A fresh session that is as it was afterwards, whatever was tried, and can be used."""
    with engine.open(policy=policy, **options) as session:
        before = {name: value for name, value in vars(session).items() if name != "capacity"}
        yield session
        for name, value in before.items():
            assert getattr(session, name) is value or getattr(session, name) == value, name
        assert engine.pool.length[session.stream.slot] == 0
        assert not session.state.timeline.spans


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES)
def test_it_goes_on_bit_for_bit(model: Any, policy: str, tmp_path: Path) -> None:
    engine = Engine(model, slots=2)
    with engine.open(policy=policy, context="a:b", seed=3) as session:
        for second in range(6):
            session.step(chunk(second))
        session.instruct("less")
        session.instruct("more")
        session.save(tmp_path / "state")
        saved_state = session.state.before_step()
        whole = [session.step(chunk(second)) for second in range(6, 12)]
        rows = session.rows
    other = Engine(model, slots=3)
    with other.open(context="somebody else"), other.open(policy=policy, context="a:b", seed=3) as session:
        assert session.restore(tmp_path / "state") == tmp_path / "state"
        assert session.state == saved_state
        assert session.time == 6.0
        assert [(one.version, one.text) for one in session.state.instructions] == [(1, "less"), (2, "more")]
        assert words([session.step(chunk(second)) for second in range(6, 12)]) == words(whole)
        assert session.rows == rows
    assert list(tmp_path.iterdir()) == [tmp_path / "state"]


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES)
def test_a_stream_moves_between_a_device_and_a_cpu(model: Any, policy: str, tmp_path: Path) -> None:
    """What a video block has shown is kept as frames by a model on a device, as patches by one on a CPU."""
    on_device = copy(model)
    on_device.patcher = replace(model.patcher, cut_on_device=True)
    said = []
    for first, then in ((model, model), (model, on_device), (on_device, model), (on_device, on_device)):
        with Engine(first).open(policy=policy, seed=3) as session:
            events = [session.step(session.prepare(chunk(second))) for second in range(4)]
            kinds = {part.pixels.dtype for part in session.state.retained.values()}
            assert kinds <= {torch.uint8 if first is on_device else torch.float32}
            assert bool(kinds) == session.options.recomputes
            session.save(tmp_path / "state")
        with Engine(then).open(policy=policy, seed=3) as session:
            session.restore(tmp_path / "state")
            said.append(words([*events, *(session.step(chunk(second)) for second in range(4, 7))]))
    assert said[1:] == said[:1] * 3


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES)
def test_a_stream_that_has_not_begun(model: Any, policy: str, tmp_path: Path) -> None:
    engine = Engine(model, slots=1)
    with engine.open(policy=policy) as session:
        session.save(tmp_path / "state")
        first = [session.step(chunk(0)), session.step(chunk(1))]
    with engine.open(policy=policy) as session:
        session.restore(tmp_path / "state")
        assert words([session.step(chunk(0)), session.step(chunk(1))]) == words(first)


# The two halves of saving, and what a program keeps with a stream.


@torch.inference_mode()
@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_taken_does_not_change_with_the_stream(model: Any, policy: str, tmp_path: Path) -> None:
    """The file of a copy that was written three steps later is the file that was written at once, byte by byte."""
    engine = Engine(model, slots=1)
    with engine.open(policy=policy, seed=3) as session:
        for second in range(5):
            session.step(chunk(second))
        session.save(tmp_path / "at once")
        taken = session.take()
        assert taken.nbytes > 1000
        for second in range(5, 8):
            session.step(chunk(second))
        for store in (engine.pool.keys, engine.pool.values, engine.pool.rotated_keys):
            store.fill_(7.0)
    write(tmp_path / "later", taken)
    assert (tmp_path / "later").read_bytes() == (tmp_path / "at once").read_bytes()


def test_rows_that_lie_in_one_piece_are_copied_too(tmp_path: Path) -> None:
    engine = Engine(ScriptedModel(lambda *_: "x"), slots=1)
    with torch.inference_mode(), engine.open() as session:
        session.step(next(iter(ScriptedSource(1))))
        session.save(tmp_path / "at once")
        taken = session.take()
        engine.pool.keys.fill_(7.0)
    write(tmp_path / "later", taken)
    assert (tmp_path / "later").read_bytes() == (tmp_path / "at once").read_bytes()


@torch.inference_mode()
def test_what_a_program_keeps_with_a_stream_comes_back(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    assert read(path).extra == {}
    extra = {"next": 7, "rules": {"goal": [1, 2.5, None, "\N{SOCCER BALL}"]}}
    with engine.open(policy=FULL) as session:
        session.restore(path)
        write(path, session.take(extra))
        for bad in ({"x": float("nan")}, {"x": {1}}, {"x": object()}):
            with pytest.raises((TypeError, ValueError)):
                session.take(bad)
    kept = read(path)
    assert (kept.path, kept.time, kept.extra, kept.problem) == (path, 4.0, extra, "")
    path.write_bytes(path.read_bytes()[:-1])
    kept = read(path)
    assert (kept.path, kept.time, kept.extra) == (previous(path), 4.0, {})
    assert "checksum" in kept.problem
    for file in (path, previous(path)):
        file.unlink()
    with pytest.raises(BrokenError, match="No such file"):
        read(path)


def test_a_file_of_a_released_version_is_read() -> None:
    """Written before there was anything of a program in it, by a scripted stream of four steps with seed 3."""
    golden = Path(__file__).parent / "golden_snapshots" / "format3.snapshot"
    assert read(golden).extra == {}
    said = []
    for restored in (False, True):
        with torch.inference_mode(), Engine(ScriptedModel(lambda start, *_: f"at {start:g}")).open(seed=3) as session:
            steps = list(ScriptedSource(6))
            if restored:
                assert session.restore(golden) == golden
                assert session.time == 4.0
            else:
                words([session.step(one) for one in steps[:4]])
            said.append((words([session.step(one) for one in steps[4:]]), session.rows, session.state.turn))
    assert said[0] == said[1]


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_other_families_and_dtypes(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    height, width = tiny.FAMILIES[family].size
    frames = np.random.default_rng(0).integers(0, 256, (8, height, width, 3), dtype=np.uint8)
    chunks = [Chunk(frames[2 * s : 2 * s + 2], (s, s + 0.5), s, s + 1.0) for s in range(4)]
    model = tiny.model(family=family, dtype=dtype)
    for policy in (POLICIES[0], POLICIES[3]):
        engine = Engine(model, slots=2)
        with engine.open(policy=policy) as session, engine.open(policy=policy) as other:
            for part in chunks[:2]:
                session.step(part)
            session.save(tmp_path / "state")
            other.restore(tmp_path / "state")
            for part in chunks[2:]:
                assert session.step(part).tokens == other.step(part).tokens


# A stream that was opened otherwise.


@torch.inference_mode()
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": 1}, "seed 0, here 1"),
        ({"stream": 5}, "stream 0, here 5"),
        ({"policy": "full:seconds=19", "context": "b"}, r"policy\.seconds 20\.0, here 19\.0; context '', here 'b'"),
        ({"policy": "streaming"}, "policy.class 'KeepAll', here 'StreamingWindow'$"),
        ({"policy": "streaming", "seed": 2}, "policy.class 'KeepAll', here 'StreamingWindow'; seed 0, here 2$"),
        ({"temperature": 0.5}, r"sampling\.temperature 0\.9, here 0\.5"),
        ({"max_new_tokens": 7}, r"sampling\.max_new_tokens 6, here 7"),
        ({"instruction": "Speak.\nLoud."}, r"instruction '', here 'Speak\.\\nLoud\.'"),
        ({"fps": 4.0}, r"fps 2\.0, here 4\.0"),
        ({"step": 2.0}, r"step 1\.0, here 2\.0"),
        ({"max_pixels": 28 * 28 * 5}, r"frames\.max_pixels \d+, here 3920"),
    ],
)
def test_each_option_that_differs_is_named(model: Any, options: dict[str, Any], says: str, tmp_path: Path) -> None:
    engine = saved(model, tmp_path / "state")
    with (
        untouched(engine, **{"policy": FULL, **options}) as session,
        pytest.raises(SnapshotError, match=f"other options: .*{says}") as error,
    ):
        session.restore(tmp_path / "state")
    assert "\n" not in str(error.value)


@torch.inference_mode()
def test_numbers_of_numpy_and_policies_of_others_are_plain_values(model: Any, tmp_path: Path) -> None:
    engine = saved(model, tmp_path / "state", seed=np.int64(3))
    with engine.open(policy=FULL, seed=3) as session:
        session.restore(tmp_path / "state")

    class Own:
        """Not a dataclass; what it has not itself it takes from another policy."""

        def __init__(self, vision: float) -> None:
            self.inner = StreamingWindow(vision=vision, turns=3, sink=10, text=8)

        def __getattr__(self, name: str) -> Any:
            if name == "inner":
                raise AttributeError(name)
            return getattr(self.inner, name)

    with engine.open(policy=Own(3.0)) as session:
        session.step(chunk(0))
        session.save(tmp_path / "own")
    with engine.open(policy=Own(3.0)) as session:
        session.restore(tmp_path / "own")
    with engine.open(policy=Own(4.0)) as session, pytest.raises(SnapshotError, match=r"inner\.vision 3\.0, here 4\.0"):
        session.restore(tmp_path / "own")


def with_record(path: Path, change: Callable[[dict[str, Any]], Any], number: int = FORMAT) -> None:
    """Write a snapshot again with another record, checksum and all, as another version would have written it."""
    content = path.read_bytes()[len(header(b"")) :]
    size = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + size])
    record = json.loads(head["__metadata__"]["stream"])
    change(record)
    head["__metadata__"]["stream"] = json.dumps(record)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    payload = len(text).to_bytes(8, "little") + text + content[8 + size :]
    path.write_bytes(header(payload, number) + payload)


@torch.inference_mode()
def test_an_option_that_came_later_has_its_default_and_an_unknown_one_is_named(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)

    def older(record: dict[str, Any]) -> None:
        options = record["options"]
        del options["sampling"]["forced"], options["fps"], options["stream"], options["policy"]["positions"]

    with_record(path, older)
    with engine.open(policy=FULL) as session:
        session.restore(path)
    with engine.open(policy=FULL, fps=4) as session, pytest.raises(SnapshotError, match=r"fps 2\.0, here 4$"):
        session.restore(path)
    with_record(path, lambda record: record["options"]["sampling"].update(mirostat=5))
    with (
        engine.open(policy=FULL) as session,
        pytest.raises(SnapshotError, match=r"sampling\.mirostat 5, here not known$"),
    ):
        session.restore(path)


# A model with other weights.


@torch.inference_mode()
def test_other_weights_are_refused_whatever_they_are_called(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    saved(model, path)
    same = tiny.model(sampling=model.defaults.sampling)
    same.name = "another folder"
    with Engine(same).open(policy=FULL) as session:
        session.restore(path)
    for change in ("layers.1.mlp.down_proj", "layers.0.input_layernorm", "blocks.0.attn.qkv"):
        other = tiny.model(sampling=model.defaults.sampling)
        (weight,) = (part for name, part in other.hf.named_parameters() if name.endswith(f"{change}.weight"))
        weight.mul_(1.001)
        engine = Engine(other)
        with untouched(engine) as session, pytest.raises(SnapshotError, match="other weights"):
            session.restore(path)
    half = tiny.model(sampling=model.defaults.sampling, dtype=torch.bfloat16)
    engine = Engine(half)
    with untouched(engine) as session, pytest.raises(SnapshotError, match=r"model\.dtype 'float32', here 'bfloat16'"):
        session.restore(path)


def test_a_fingerprint_is_of_the_weights_and_of_what_is_done_with_them(model: Any) -> None:
    own = model.fingerprint
    assert own == fingerprint(tiny.model().hf)
    for part, name, value in (("text_config", "rms_norm_eps", 1e-5), ("vision_config", "window_size", 112)):
        other = tiny.stock()
        setattr(getattr(other.config, part), name, value)
        assert fingerprint(other) != own
    named = tiny.stock()
    named.config._name_or_path = named.config.text_config._name_or_path = "/another/folder"
    named.config.text_config.use_cache = False
    assert fingerprint(named) == own
    assert len({fingerprint(tiny.stock(family)) for family in tiny.FAMILIES}) == 3


def test_the_fingerprint_of_a_huge_tensor_reads_some_of_it() -> None:
    """The published embedding has 544,997,376 numbers: its last index is no float32."""

    class Huge:
        config = tiny.config()
        weight = torch.zeros(1, dtype=torch.float16).expand(152064 * 3584)

        def named_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
            yield "embed_tokens.weight", self.weight

    assert len(fingerprint(Huge())) == 64
    assert SAMPLES < 1 << 20


def test_a_quantized_model_is_another() -> None:
    if not int8_available():
        pytest.skip("no int8 products on this processor")
    if not (BUNDLED / "model.safetensors").is_file():
        pytest.skip("the bundled model is not here")
    plain, small = load_model(), load_model(weights="int8")
    assert small.fingerprint == f"int8 of {plain.fingerprint}"


# Files that are not whole.


def damaged(whole: bytes, seed: int, cuts: int, flips: int) -> Iterator[bytes]:
    """The file cut at every k-th byte and near its ends, with flipped bits (many in the header), swapped, longer."""
    random_ = random.Random(seed)
    yield from (whole[: len(whole) * part // cuts] for part in range(cuts))
    yield from (whole[:size] for size in (1, 7, 8, 12, 20, 51, 52, 53, 60, len(whole) - 1))
    yield from (whole + b"\0", whole + whole, whole[:52], bytes(len(whole)), whole[::-1], whole[1:], b"\0" + whole)
    for turn in range(flips):
        broken = bytearray(whole)
        for _ in range(random_.choice([1, 1, 1, 2, 9])):
            broken[random_.randrange(60 if turn % 3 == 0 else len(whole))] ^= 1 << random_.randrange(8)
        if broken != whole:
            yield bytes(broken)
    for _ in range(20):
        first, last = sorted(random_.sample(range(len(whole)), 2))
        hole = whole[:first] + bytes(last - first) + whole[last:]
        if hole != whole:
            yield hole


@torch.inference_mode()
def test_a_damaged_file_is_refused_and_the_one_before_is_taken(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    with engine.open(policy=FULL) as session:
        session.restore(previous(path))
        expected = [store[:, session.stream.slot].clone() for store in (engine.pool.keys, engine.pool.values)]
        rows, spans = engine.pool.length[session.stream.slot], session.state.timeline.spans
    for content in damaged(path.read_bytes(), seed=0, cuts=150, flips=250):
        path.write_bytes(content)
        with engine.open(policy=FULL) as session:
            with pytest.warns(UserWarning, match="goes on from the one before it") as told:
                assert session.restore(path) == previous(path)
            assert len(told) == 1
            assert "\n" not in str(told[0].message)
            assert session.time == 3.0
            assert session.state.timeline.spans == spans
            assert engine.pool.length[session.stream.slot] == rows
            for store, right in zip((engine.pool.keys, engine.pool.values), expected, strict=True):
                assert torch.equal(store[:, session.stream.slot, :, :rows], right[:, :, :rows])


@torch.inference_mode()
def test_a_damaged_file_without_one_before_changes_nothing(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    whole = path.read_bytes()
    previous(path).unlink()
    with untouched(engine) as session:
        for content in (*damaged(whole, seed=1, cuts=100, flips=200), b"", b"nothing"):
            path.write_bytes(content)
            with pytest.raises(SnapshotError, match=r"is no (whole )?snapshot") as error:
                session.restore(path)
            assert str(path) in str(error.value)
            assert "\n" not in str(error.value)


@torch.inference_mode()
def test_which_file_is_taken(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    whole = path.read_bytes()
    path.unlink()
    assert there_is(path)
    with engine.open(policy=FULL) as session, pytest.warns(UserWarning, match=r"No such file.*state\.prev"):
        assert session.restore(path) == previous(path)
    path.write_bytes(whole[:-1])
    previous(path).write_bytes(whole[:30])
    with (
        untouched(engine) as session,
        pytest.raises(SnapshotError, match=r"checksum.*and the one before: .*begin") as e,
    ):
        session.restore(path)
    assert str(path) in str(e.value)
    assert str(previous(path)) in str(e.value)
    for file in (path, previous(path)):
        file.unlink()
        file.mkdir()
    with untouched(engine) as session, pytest.raises(SnapshotError, match=r"directory.*directory"):
        session.restore(path)
    for file in (path, previous(path)):
        file.rmdir()
    assert not there_is(path)
    with untouched(engine) as session, pytest.raises(SnapshotError, match="No such file"):
        session.restore(path)


@torch.inference_mode()
def test_another_format_is_refused_by_its_number(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    with_record(path, lambda record: record, number=7)
    with untouched(engine) as session, pytest.raises(SnapshotError, match="of format 7; this version reads format 3"):
        session.restore(path)
    torch.save({"format": 1}, path)
    with untouched(engine) as session, pytest.raises(SnapshotError, match="of format 1, which is not read any more"):
        session.restore(path)


CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    *(lambda r, k=key: r.pop(k) for key in ("spans", "cached", "turn", "options", "weights", "retained", "shown")),
    *(
        lambda r, k=key: r.update({k: "?"})
        for key in ("spans", "cached", "turn", "options", "retained", "shown", "time")
    ),
    *(lambda r, k=key: r.update({k: None}) for key in ("spans", "cached", "turn", "options", "retained", "first")),
    *(lambda r, k=key: r.update({k: -1}) for key in ("cached", "turn", "sampled")),
    *(lambda r, k=key: r.update({k: 1.5}) for key in ("cached", "turn", "sampled")),
    *(lambda r, k=key: r.update({k: float("nan")}) for key in ("time", "first", "last_position")),
    lambda r: r.update(cached=r["cached"] - 1),
    lambda r: r.update(cached=10**9),
    lambda r: r["spans"].pop(),
    lambda r: r["spans"].append(["no kind", "user", [1], 0, 0.0, 1.0, None, 1.0, 0]),
    lambda r: r["spans"][0].pop(),
    lambda r: r["spans"][0].__setitem__(2, [10**12] * len(r["spans"][0][2])),
    lambda r: r["spans"][0].__setitem__(2, [-1] * len(r["spans"][0][2])),
    lambda r: r.update(spans=[[*span[:6], [1, 1, 1], *span[7:]] for span in r["spans"]]),
    lambda r: r["options"].pop("policy"),
    lambda r: r.clear(),
]


@torch.inference_mode()
@pytest.mark.parametrize("change", CHANGES)
def test_a_whole_file_whose_contents_do_not_fit_changes_nothing(
    model: Any, change: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    with_record(path, change)
    with untouched(engine) as session, pytest.raises((SnapshotError, CapacityError)) as error:
        session.restore(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@torch.inference_mode()
@pytest.mark.parametrize("policy", [POLICIES[3], POLICIES[4]])
def test_frames_that_are_missing_change_nothing(model: Any, policy: str, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path, policy=policy)

    def cut(record: dict[str, Any]) -> None:
        record["retained"] = dict([*record["retained"].items()][:-1])
        if record["shown"]:
            record["shown"]["times"].pop()

    with_record(path, cut)
    with untouched(engine, policy) as session, pytest.raises(SnapshotError, match="does not hold"):
        session.restore(path)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["keys", "values", "rotated_keys", "positions"])
@pytest.mark.parametrize("how", ["missing", "short", "dtype"])
def test_tensors_that_do_not_fit_change_nothing(model: Any, name: str, how: str, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    payload = path.read_bytes()[len(header(b"")) :]
    tensors = load(payload)
    size = int.from_bytes(payload[:8], "little")
    record = json.loads(json.loads(payload[8 : 8 + size])["__metadata__"]["stream"])
    if how == "missing":
        del tensors[name]
    elif how == "short":
        tensors[name] = tensors[name][..., :-1, :].contiguous()
    else:
        tensors[name] = tensors[name].double()
    save_file(tensors, tmp_path / "payload", {"stream": json.dumps(record)})
    payload = (tmp_path / "payload").read_bytes()
    path.write_bytes(header(payload) + payload)
    with untouched(engine) as session, pytest.raises(SnapshotError, match="does not hold"):
        session.restore(path)


@torch.inference_mode()
def test_more_rows_than_there_is_room_for(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    with untouched(engine) as session:
        session.stream.planner.capacity = 3
        with pytest.raises(CapacityError, match="rows"):
            session.restore(path)


@torch.inference_mode()
def test_within_a_step_and_behind_the_end(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    with engine.open(policy=FULL) as session:
        session.feed(chunk(0))
        with pytest.raises(SnapshotError, match="between two steps"):
            session.save(path)
        with pytest.raises(SnapshotError, match="between two steps"):
            session.restore(path)
    for use in (session.save, session.restore):
        with pytest.raises(SnapshotError, match="closed"):
            use(path)


# Files that cannot be written.


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@torch.inference_mode()
@pytest.mark.parametrize("name", ["fsync", "replace", "open", "write"])
def test_a_full_disk_leaves_what_was_there(
    model: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    before = files(tmp_path)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    def half(part: Path, *pieces: bytes) -> None:
        part.write_bytes(b"".join(pieces)[:1000])
        full()

    with engine.open(policy=FULL) as session:
        session.step(chunk(0))
        with monkeypatch.context() as patch:
            if name == "open":
                patch.setattr(Path, "open", full)
            elif name == "write":
                patch.setattr(snapshot, "_write", half)
            else:
                patch.setattr(os, name, full)
            with pytest.raises(OutputError, match=r"cannot write .*state \(No space left on device\)"):
                session.save(path)
    assert files(tmp_path)["state"] == before["state"]
    assert set(files(tmp_path)) == set(before)
    with engine.open(policy=FULL) as session:
        assert session.restore(path) == path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@torch.inference_mode()
def test_where_nothing_can_be_written_is_one_line(model: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full.part").symlink_to("/dev/full")
    engine = Engine(model)
    with engine.open(policy=FULL) as session:
        session.step(chunk(0))
        for target in (
            tmp_path / "none" / "state",
            tmp_path / "file" / "state",
            Path("/proc/state"),
            tmp_path / "full",
        ):
            with pytest.raises(OutputError, match="cannot write") as error:
                session.save(target)
            assert str(target) in str(error.value)
            assert "\n" not in str(error.value)
        session.step(chunk(1))


@torch.inference_mode()
def test_a_broken_one_never_takes_the_place_of_the_one_before(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    engine = saved(model, path)
    path.write_bytes(path.read_bytes()[:-5])
    with engine.open(policy=FULL) as session:
        with pytest.warns(UserWarning, match="goes on from"):
            session.restore(path)
        session.step(chunk(3))
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
            with pytest.raises(OutputError):
                session.save(path)
        before = previous(path).read_bytes()
        session.save(path)
    assert previous(path).read_bytes() == before
    with engine.open(policy=FULL) as session:
        assert session.restore(path) == path
        assert session.time == 4.0


@torch.inference_mode()
def test_without_second_names_the_one_before_is_kept_too(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    path = tmp_path / "state"
    engine = saved(model, path)
    for file, seconds in ((path, 4.0), (previous(path), 3.0)):
        with engine.open(policy=FULL) as session:
            session.restore(file)
            assert session.time == seconds
    assert set(files(tmp_path)) == {"state", "state.prev"}
    remove(path)
    assert not files(tmp_path)
    remove(path)


#: Saves in a loop, is killed with -9 at random moments and started again; then the snapshot is whole, and one state.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from support import tiny
from engine.test_snapshot import FULL, chunk
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.snapshot import restore, save
torch.set_num_threads(1)
engine, path, rng = Engine(tiny.model(), slots=2), Path({path!r}), random.Random(1)

def saving(session, number):
    while True:
        number += 1
        session.state.sampled, session.state.time = number, float(number)
        for store in (engine.pool.keys, engine.pool.values, engine.pool.rotated_keys):
            store[:, session.stream.slot] = number
        session.save(path)

with torch.inference_mode(), engine.open(policy=FULL) as session, engine.open(policy=FULL) as other:
    session.step(chunk(0))
    session.save(path)
    number = 10
    for _ in range(15):
        before, until = path.stat().st_mtime_ns, time.monotonic() + 20
        child = os.fork()
        if not child:
            saving(session, number)
        while path.stat().st_mtime_ns == before and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        taken = other.restore(path)
        if other.state.sampled > 10:
            rows = engine.pool.length[other.stream.slot]
            kept = torch.stack([s[:, other.stream.slot, :, :rows] for s in (engine.pool.keys, engine.pool.values)])
            assert (kept == other.state.sampled).all() and other.time == other.state.sampled >= number
            number = other.state.sampled
        assert taken == path
    print("last", number)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_is_killed_while_saving_leaves_a_whole_one(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parents[1]), path=str(tmp_path / "state"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= 25, "each process has saved"
