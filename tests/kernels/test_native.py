"""Native kernels for CPUs: right to float32's precision, the same bits in any company, absent where they cannot be."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from streamingvlm.kernels import native_build
from streamingvlm.kernels.native import Native, Unavailable, open_native
from streamingvlm.kernels.native_build import COMPILERS, build
from streamingvlm.kernels.plain import rotate
from streamingvlm.models.int8_linear import Int8Linear

HERE = any(shutil.which(name) for name in COMPILERS)
compiled = pytest.mark.skipif(not HERE, reason="no C++ compiler here")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    if not HERE:
        pytest.skip("no C++ compiler here")
    found = open_native(tmp_path_factory.mktemp("native"))
    assert isinstance(found, Native), found.reason
    return found


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(mine: Tensor, right: Tensor, tolerance: float = 2e-6) -> bool:
    """Whether ``mine`` is ``right`` (float64) to float32's precision, by the size of the largest element."""
    return bool((mine.double() - right).abs().max() <= tolerance * right.abs().max().clamp(min=1))


# Products.


@pytest.mark.parametrize(("size", "outs"), [(1, 1), (16, 5), (20, 33), (320, 70), (864, 320), (1536, 64)])
@pytest.mark.parametrize("biased", [False, True])
def test_linear_rows(native: Native, size: int, outs: int, biased: bool) -> None:
    rows, weight, bias = draw(9, size), draw(outs, size, seed=1), draw(outs, seed=2) if biased else None
    out = native.linear_rows(rows, weight, bias)
    assert close(out, F.linear(rows.double(), weight.double(), None if bias is None else bias.double()))
    for n in range(1, 9):
        for first in (0, 9 - n):
            assert torch.equal(native.linear_rows(rows[first : first + n], weight, bias), out[first : first + n])


@pytest.mark.parametrize("size", [16, 48, 64, 320, 1536])
def test_linear_int8_has_the_bits_of_torchs_integers(native: Native, size: int) -> None:
    weight, bias, rows = draw(37, size), draw(37, seed=1), draw(5, size, seed=2)
    rows[3] = 0.0
    rows[4, :] = torch.linspace(-127, 127, size)  # many halves: they are rounded to even
    theirs = Int8Linear(weight, bias)
    ours = Int8Linear(weight, bias, native=native)
    for count in (1, 2, 4):
        assert torch.equal(ours(rows[:count], few=True), theirs(rows[:count]))
        assert torch.equal(ours(rows[-count:], few=True), theirs(rows)[-count:])
    assert torch.equal(ours(rows), theirs(rows))


def test_torchs_default_dtype_does_not_matter(native: Native) -> None:
    rows, weight, wide = draw(3, 48), draw(7, 48, seed=1), draw(3, 32, seed=2)
    expected = native.linear_rows(rows, weight), native.silu_mul(wide)
    torch.set_default_dtype(torch.float64)
    try:
        found = native.linear_rows(rows, weight), native.silu_mul(wide)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_linear_rows_on_two_threads(native: Native) -> None:
    rows, weight = draw(3, 320), draw(1001, 320, seed=1)
    alone = native.linear_rows(rows, weight)
    for _ in range(20):
        assert torch.equal(native.linear_rows(rows, weight, threads=2), alone)


# Attention.


def attend_right(query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """Queries (H, D) over rows (K, n, D) in float64."""
    heads, _, dim = keys.shape
    grouped = query.double().view(heads, -1, dim)
    return ((grouped @ keys.double().mT * scaling).softmax(-1) @ values.double()).view(query.shape)


@pytest.mark.parametrize("dim", [16, 32, 48, 64, 80, 96, 128])
@pytest.mark.parametrize(("heads", "key_heads"), [(2, 2), (4, 2), (8, 2), (7, 1), (16, 2)])
def test_attend_rows(native: Native, dim: int, heads: int, key_heads: int) -> None:
    keys, values = draw(3, key_heads, 2200, dim), draw(3, key_heads, 2200, dim, seed=1)
    slot, count = torch.tensor([2, 0, 1, 0]), torch.tensor([2151, 1, 77, 128])
    queries = draw(4, heads, dim, seed=2) * 3
    out = native.attend_rows(queries, keys, values, slot, count, dim**-0.5)
    for row, (place, rows) in enumerate(zip(slot.tolist(), count.tolist(), strict=True)):
        right = attend_right(queries[row], keys[place, :, :rows], values[place, :, :rows], dim**-0.5)
        assert close(out[row], right, 5e-6)
        one = slice(row, row + 1)
        alone = native.attend_rows(queries[one], keys, values, slot[one], count[one], dim**-0.5)
        assert torch.equal(alone[0], out[row])


def test_rows_behind_a_streams_own_are_not_read(native: Native) -> None:
    keys, values, queries = draw(1, 2, 64, 64), draw(1, 2, 64, 64, seed=1), draw(1, 4, 64, seed=2)
    slot, count = torch.tensor([0]), torch.tensor([37])
    before = native.attend_rows(queries, keys, values, slot, count, 0.125)
    keys[:, :, 37:] = values[:, :, 37:] = torch.nan
    assert torch.equal(native.attend_rows(queries, keys, values, slot, count, 0.125), before)


def test_scores_of_any_size(native: Native) -> None:
    keys, values, queries = draw(1, 1, 300, 64), draw(1, 1, 300, 64, seed=1), draw(1, 2, 64, seed=2)
    slot, count = torch.tensor([0]), torch.tensor([300])
    for scaling in (1e-4, 1.0, 40.0):
        right = attend_right(queries[0], keys[0], values[0], scaling)
        # Of a score of 1,000 float32 keeps four digits behind the point.
        assert close(native.attend_rows(queries, keys, values, slot, count, scaling)[0], right, 2e-6 + 2e-5 * scaling)
    keys[0, 0, 5, 5] = torch.nan
    assert native.attend_rows(queries, keys, values, slot, count, 1.0).isnan().all()


def test_a_layer_of_a_pool_with_spare_rows(native: Native) -> None:
    pool = draw(3, 2, 2, 50, 32)
    queries, slot, count = draw(1, 4, 32, seed=2), torch.tensor([1]), torch.tensor([33])
    spread = native.attend_rows(queries, pool[1, :, :, :40], pool[2, :, :, :40], slot, count, 0.2)
    packed = native.attend_rows(
        queries, pool[1, :, :, :40].contiguous(), pool[2, :, :, :40].contiguous(), slot, count, 0.2
    )
    assert torch.equal(spread, packed)


def test_attend_rows_on_two_threads(native: Native) -> None:
    keys, values, queries = draw(1, 2, 5000, 64), draw(1, 2, 5000, 64, seed=1), draw(1, 8, 64, seed=2)
    slot, count = torch.tensor([0]), torch.tensor([4999])
    alone = native.attend_rows(queries, keys, values, slot, count, 0.125)
    for _ in range(20):
        assert torch.equal(native.attend_rows(queries, keys, values, slot, count, 0.125, threads=2), alone)


# Rows that move.


@pytest.mark.parametrize("dim", [16, 64, 80, 128])
@pytest.mark.parametrize("threads", [1, 2])
def test_move_rows(native: Native, dim: int, threads: int) -> None:
    keys, rotated, values = (draw(3, 2, 2, 900, dim, seed=seed) for seed in range(3))
    before = [store.clone() for store in (keys, rotated, values)]
    rows = torch.cat([torch.arange(40, 45), torch.arange(60, 700, 2), torch.arange(700, 900)])
    angles = draw(len(rows), dim, seed=4)
    native.move_rows(keys, rotated, values, 1, rows, 40, angles.cos(), angles.sin(), threads=threads)
    new = slice(40, 40 + len(rows))
    assert torch.equal(keys[:, 1, :, new], before[0][:, 1][:, :, rows])
    assert torch.equal(values[:, 1, :, new], before[2][:, 1][:, :, rows])
    # Bit for bit what torch makes of it.
    assert torch.equal(rotated[:, 1, :, new], rotate(before[0][:, 1][:, :, rows], angles.cos(), angles.sin()))
    for store, old in zip((keys, rotated, values), before, strict=True):
        assert torch.equal(store[:, 0], old[:, 0])
        assert torch.equal(store[:, 1, :, :40], old[:, 1, :, :40])
        assert torch.equal(store[:, 1, :, new.stop :], old[:, 1, :, new.stop :])


@pytest.mark.parametrize("dim", [16, 64, 80, 128])
@pytest.mark.parametrize("normed", [False, True])
def test_rotate_store(native: Native, dim: int, normed: bool) -> None:
    stores = [draw(3, 2, 20, dim, seed=seed) for seed in range(3)]
    before = [store.clone() for store in stores]
    qkv, angles = draw(2, 8 * dim, seed=5), draw(2, dim, seed=6)
    norms = [draw(dim, seed=7), draw(dim, seed=8)] if normed else [None, None]
    slot, length = torch.tensor([2, 0]), torch.tensor([19, 3])
    queries = native.rotate_store(
        qkv, angles.cos(), angles.sin(), *stores, slot, length, query_norm=norms[0], key_norm=norms[1], eps=1e-5
    )
    query, key, value = qkv.view(2, 8, dim).split([4, 2, 2], dim=1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    if norms[0] is None or norms[1] is None:
        assert torch.equal(queries, rotate(query, cos, sin))
        assert torch.equal(stores[0][slot, :, length], key)
    else:
        query, key = (
            F.rms_norm(part.double(), (dim,), norm.double(), 1e-5)
            for part, norm in zip((query, key), norms, strict=True)
        )
        assert close(queries, rotate(query, cos.double(), sin.double()))
        assert close(stores[0][slot, :, length], key)
    assert torch.equal(stores[1][slot, :, length], rotate(stores[0][slot, :, length], cos, sin))
    assert torch.equal(stores[2][slot, :, length], value)
    for store, old in zip(stores, before, strict=True):
        old[slot, :, length] = store[slot, :, length]
        assert torch.equal(store, old)


# Small operations.


@pytest.mark.parametrize("size", [16, 50, 320, 512, 1537])
def test_add_norm(native: Native, size: int) -> None:
    x, delta, weight = draw(5, size), draw(5, size, seed=1), draw(size, seed=2)
    total, normed = native.add_norm(x, delta, weight, 1e-6)
    assert torch.equal(total, x + delta)
    assert close(normed, F.rms_norm((x + delta).double(), (size,), weight.double(), 1e-6))
    same, plain = native.add_norm(x, None, weight, 1e-6)
    assert same is x
    assert close(plain, F.rms_norm(x.double(), (size,), weight.double(), 1e-6))
    for row in range(5):
        alone = native.add_norm(x[row : row + 1], delta[row : row + 1], weight, 1e-6)
        assert torch.equal(alone[1][0], normed[row])


@pytest.mark.parametrize("size", [16, 50, 864, 1536])
def test_silu_mul(native: Native, size: int) -> None:
    gate_up = draw(3, 2 * size) * 8
    gate_up[0, :8] = torch.tensor([0.0, -0.0, 100.0, -100.0, 87.0, -87.0, -88.5, 30.0])
    gate, up = gate_up.double().chunk(2, -1)
    right = F.silu(gate) * up
    out = native.silu_mul(gate_up)
    assert ((out.double() - right).abs() <= 1e-6 * right.abs() + 1e-30).all()
    assert torch.equal(native.silu_mul(gate_up[1:2])[0], out[1])


def test_small_operations_on_two_threads(native: Native) -> None:
    x, weight = draw(64, 4096), draw(4096, seed=1)
    assert torch.equal(native.silu_mul(x, threads=2), native.silu_mul(x))
    assert all(map(torch.equal, native.add_norm(x, x, weight, 1e-6, threads=2), native.add_norm(x, x, weight, 1e-6)))


# Misuse.


def test_misuse_is_refused(native: Native) -> None:
    rows, weight, place = draw(2, 16), draw(4, 16), torch.tensor([0, 0])
    stores = [draw(1, 2, 1, 8, 16) for _ in range(3)]
    layer = [store[0] for store in stores]
    turn = (draw(2, 16), draw(2, 16))
    queries = draw(2, 2, 16)
    for call in (
        lambda: native.linear_rows(rows.double(), weight),
        lambda: native.linear_rows(rows[:, ::2], weight[:, :8]),
        lambda: native.linear_rows(rows, weight[:, :8]),
        lambda: native.linear_rows(rows, weight, draw(5)),
        lambda: native.attend_rows(queries, layer[0], layer[1], place, torch.tensor([1, 9]), 1.0),
        lambda: native.attend_rows(queries, layer[0], layer[1], place, torch.tensor([1, 0]), 1.0),
        lambda: native.attend_rows(queries, layer[0], layer[1], torch.tensor([0, 2]), place + 1, 1.0),
        lambda: native.attend_rows(queries, layer[0], layer[1], place.int(), place + 1, 1.0),
        lambda: native.attend_rows(queries, layer[0], layer[1][:, :, :7], place, place + 1, 1.0),
        lambda: native.attend_rows(queries, layer[0].mT, layer[1].mT, place, place + 1, 1.0),
        lambda: native.move_rows(*stores, 0, torch.tensor([3, 0]), 0, *turn),
        lambda: native.move_rows(*stores, 0, torch.tensor([3, 8]), 0, *turn),
        lambda: native.move_rows(*stores, 0, torch.tensor([3, 4]), 4, *turn),
        lambda: native.move_rows(*stores, 2, torch.tensor([3, 4]), 0, *turn),
        lambda: native.move_rows(*stores, 0, torch.tensor([3]), 0, *turn),
        lambda: native.rotate_store(draw(2, 48), *turn, *layer, place, torch.tensor([0, 8])),
        lambda: native.rotate_store(draw(2, 32), *turn, *layer, place, place),
        lambda: native.rotate_store(draw(2, 48), *turn, *layer, place, place, query_norm=draw(8)),
        lambda: native.add_norm(rows, weight, draw(16), 1e-6),
        lambda: native.add_norm(rows, None, draw(15), 1e-6),
        lambda: native.silu_mul(draw(2, 15)),
    ):
        with pytest.raises(ValueError, match="native kernels want"):
            call()


# The library.


def test_without_a_compiler_the_reason_is_told(tmp_path: Path) -> None:
    assert open_native(tmp_path, ("no-such-compiler",)) == Unavailable("no C++ compiler (no-such-compiler) was found")


def fake(folder: Path, script: str) -> str:
    path = folder / "fake-compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_that_fails_is_told(tmp_path: Path) -> None:
    found = open_native(tmp_path / "kept", (fake(tmp_path, "echo 'native.cpp:1: error: no such thing' >&2; exit 3"),))
    assert isinstance(found, Unavailable)
    assert found.reason.endswith("failed with 3 and said: native.cpp:1: error: no such thing")


def test_what_is_no_library_is_told(tmp_path: Path) -> None:
    script = 'while [ "$1" != -o ] && [ $# -gt 0 ]; do shift; done; [ $# -gt 0 ] && echo nothing > "$2"; exit 0'
    found = open_native(tmp_path / "kept", (fake(tmp_path, script),))
    assert isinstance(found, Unavailable)
    assert found.reason.startswith("the compiled kernels cannot be loaded: ")


def test_a_compiler_that_hangs_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_build, "PATIENCE", 1)
    runs = tmp_path / "runs"
    script = f'if [ "$1" != --version ]; then echo run >> {runs}; exec sleep 20; fi'
    found = open_native(tmp_path / "kept", (fake(tmp_path, script),))
    assert isinstance(found, Unavailable)
    assert found.reason.endswith("did not end within 1 s")
    assert runs.read_text() == "run\n"


@compiled
def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path) -> None:
    old, new = tmp_path / "build-old", tmp_path / "build-new"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    assert isinstance(open_native(tmp_path), Native)
    assert not old.exists()
    assert new.exists()  # somebody may be at work in it


@compiled
def test_a_library_that_computes_something_else_is_not_used(tmp_path: Path) -> None:
    names = ("linear_rows", "linear_int8", "attend_rows", "move_rows", "rotate_store", "add_norm", "silu_mul")
    lines = [f'extern "C" int svlm_{name}(const void*) {{ return 0; }}' for name in names]
    (tmp_path / "empty.cpp").write_text("\n".join(lines))
    real = next(found for name in COMPILERS if (found := shutil.which(name)))
    script = f"""
        [ "$1" = --version ] && exec {real} --version
        while [ "$1" != -o ]; do shift; done
        exec {real} -shared -fPIC -o "$2" {tmp_path / "empty.cpp"}"""
    found = open_native(tmp_path / "kept", (fake(tmp_path, script),))
    assert isinstance(found, Unavailable)
    assert found.reason.startswith("the compiled kernels compute something else than torch: ")
    assert "move_rows" in found.reason


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    found = open_native(tmp_path, (fake(tmp_path, "exit 0"),))
    assert isinstance(found, Unavailable)
    assert "other users may write" in found.reason


@compiled
def test_two_processes_build_at_once_and_damage_is_repaired(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as processes:
        paths = set(processes.map(build, [tmp_path, tmp_path]))
    assert all(path.is_file() for path in paths)
    assert set(tmp_path.iterdir()) == paths
    path = build(tmp_path)
    whole = path.read_bytes()
    assert path in paths
    for other in paths:
        other.write_bytes(other.read_bytes()[:5000])
    again = build(tmp_path)
    assert len(again.read_bytes()) == len(whole)
    assert isinstance(open_native(tmp_path), Native)


# Threads and processes.


def test_a_fork_has_threads_of_its_own(native: Native) -> None:
    rows, weight = draw(1, 512), draw(2000, 512, seed=1)
    right = native.linear_rows(rows, weight, threads=2)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as processes:
        assert processes.submit(_same_in_a_child, native.path, rows, weight, right).result(timeout=60)
    assert torch.equal(native.linear_rows(rows, weight, threads=2), right)


def _same_in_a_child(path: Path, rows: Tensor, weight: Tensor, right: Tensor) -> bool:
    # The library of this path is the one that the parent has loaded.
    return all(torch.equal(Native(path).linear_rows(rows, weight, threads=2), right) for _ in range(5))


def test_a_process_ends_while_threads_wait(native: Native) -> None:
    program = f"""if True:
        import ctypes, struct
        size = 1 << 16
        given, made = (ctypes.c_float * (8 * size))(), (ctypes.c_float * (4 * size))()
        library = ctypes.CDLL({str(native.path)!r})
        packed = struct.pack("5q", ctypes.addressof(given), ctypes.addressof(made), 4, size, 2)
        assert library.svlm_silu_mul(ctypes.c_char_p(packed)) == 0
        print("done")
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("done\n", 0)
