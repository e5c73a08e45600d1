"""Copying published replies out of a clone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch_golden.py"


@pytest.fixture(scope="module")
def fetch_golden() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_golden", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fetch_golden"] = module  # dataclasses look for it
    spec.loader.exec_module(module)
    return module


def clone(path: Path) -> Path:
    for name in ("LICENSE", "data/ovo_bench_new.json", "results/A/a.json", "results/B/b.json", "images/large.png"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    return path


def test_only_what_the_tests_read_is_copied(fetch_golden: ModuleType, tmp_path: Path) -> None:
    assert fetch_golden.copy("ovo-bench", clone(tmp_path / "clone"), tmp_path / "golden") == 4
    copied = sorted(
        str(file.relative_to(tmp_path / "golden")) for file in tmp_path.glob("golden/**/*") if file.is_file()
    )
    results = ["ovo-bench/results/A/a.json", "ovo-bench/results/B/b.json"]
    assert copied == ["ovo-bench/LICENSE", "ovo-bench/data/ovo_bench_new.json", *results]


def test_a_folder_that_is_no_clone(
    fetch_golden: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch_golden.main(["ovo-bench", str(tmp_path)]) == 2
    assert "is no clone of https://github.com/JoeLeelyf/OVO-Bench" in capsys.readouterr().err


def test_without_arguments_it_says_what_to_clone(fetch_golden: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch_golden.main([]) == 0
    told = capsys.readouterr().out
    assert "git clone https://github.com/JoeLeelyf/OVO-Bench" in told
    assert "checkout c34093f" in told
