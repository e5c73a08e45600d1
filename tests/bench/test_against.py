"""The scripts that race this checkout against stock transformers and against another checkout, on a tiny model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.bench.measure import STAGES

ROOT = Path(__file__).parents[2]
TINY = ("--random-weights", "tiny", "--tokens", "3", "--turns", "2", "--steps", "2")

UNKNOWN = ("--random-weights", "gpt-2")


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def figures(name: str, target: Path, *arguments: object) -> tuple[Any, str]:
    done = script(name, *arguments, *TINY, "--json", target)
    assert done.returncode == 0, done.stderr
    return json.loads(target.read_text()), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, "int8"])
def test_the_race_against_stock_transformers(tmp_path: Path, weights: str | None) -> None:
    if weights:
        pytest.importorskip("torchao", reason="the quantize extra is not installed")
    found, printed = figures("against_stock.py", tmp_path / "out.json", *(["--weights", weights] if weights else []))
    assert set(found) >= {"device", "versions", "date", "model", "rows"}
    assert found["weights"] == (weights or "as loaded")
    assert found["tokens_per_reply"] == 3
    assert len(found["turns"]) == 2
    assert set(found["ms_per_token"]) == {"ours", "stock", "stock_generate"}
    assert all(spent["cpu"] > 0 and spent["wall"] > 0 for spent in found["ms_per_token"].values())
    ours, stock = (found["ms_per_token"][lane]["cpu"] for lane in ("ours", "stock"))
    assert found["ours_over_stock"] == pytest.approx(ours / stock)
    assert set(found["cpu_ms_per_second"]) == {*STAGES, "total"}
    assert "| stock_generate |" in printed


def without_the_shape(folder: Path) -> Path:
    """A checkout as it was before the shape ``tiny`` was there."""
    package = folder / "src" / "streamingvlm"
    package.mkdir(parents=True)
    for entry in (ROOT / "src" / "streamingvlm").iterdir():
        if entry.name != "bench":
            (package / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "src" / "streamingvlm" / "bench", package / "bench")
    shapes = package / "bench" / "shapes.py"
    text = shapes.read_text()
    line = '    "tiny": _tiny,\n'
    assert line in text
    shapes.write_text(text.replace(line, ""))
    return folder


@pytest.mark.slow
def test_the_race_against_another_checkout(tmp_path: Path) -> None:
    other = without_the_shape(tmp_path / "other")
    found, printed = figures("against_commit.py", tmp_path / "out.json", other)
    assert set(found) >= {"device", "versions", "date", "model", "rows"}
    assert (found["same_tokens"], found["steps"]) == (4, 4)
    assert found["commits"]["other"] == ""
    for side in ("here", "other"):
        assert set(found["cpu_ms_per_second"][side]) >= {"evict", "vision_encode", "prefill", "decode", "total"}
        assert found["cpu_ms_per_token"][side] > 0
    assert set(found["ratio"]) == set(found["cpu_ms_per_second"]["here"])
    assert "4 of 4 steps said the same tokens" in printed


@pytest.mark.parametrize(
    ("name", "arguments", "word"),
    [
        ("against_commit.py", ["/nowhere"], "/nowhere is no checkout"),
        ("against_commit.py", [ROOT, "--steps", "0"], "--steps"),
        ("against_commit.py", [ROOT, "--json", "/nowhere/out.json"], "cannot write"),
        pytest.param("against_commit.py", [ROOT, *UNKNOWN], "unknown shape 'gpt-2'", marks=pytest.mark.slow),
        pytest.param("against_stock.py", ["--tokens", "1"], "--tokens", marks=pytest.mark.slow),
        pytest.param("against_stock.py", UNKNOWN, "unknown shape 'gpt-2'", marks=pytest.mark.slow),
        pytest.param("against_stock.py", ["--json", "/nowhere/out.json"], "cannot write", marks=pytest.mark.slow),
    ],
)
def test_bad_input_ends_with_one_line(name: str, arguments: Sequence[object], word: str) -> None:
    done = script(name, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert word in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
