"""The arrows between the rooms, and the names that users may rely on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import streamingvlm

SOURCE = Path(streamingvlm.__file__).parent

VOCABULARY = {"spans", "events", "errors"}
#: Room -> rooms of this package that it may import. A room may always import itself.
MAY_IMPORT = {
    "spans": set(),
    "events": set(),
    "errors": set(),
    "policy": {"spans", "errors"},
    "prompt": {"spans"},
    "rope": {"spans"},
    "kv": {"errors", "rope"},
    "kernels": set(),
    "sampling": {"errors"},
    "models": VOCABULARY | {"kv", "policy", "prompt", "rope", "sampling"},
    "ops": {"kernels", "kv"},
    "graphs": {"kv", "models", "ops"},
    "turn": VOCABULARY | {"rope", "models"},
    "state": VOCABULARY | {"rope", "models", "turn"},
    "jobs": VOCABULARY | {"rope", "models", "session", "turn"},
    "engine": VOCABULARY | {"policy", "rope", "kv", "graphs", "sampling", "models", "session", "jobs", "turn"},
    "session": VOCABULARY | {"policy", "prompt", "rope", "sampling", "engine", "jobs", "kv", "models", "state", "turn"},
    "snapshot": VOCABULARY | {"kv", "models", "session", "state"},
    "video": VOCABULARY,
    "arcade": VOCABULARY,
    "outputs": VOCABULARY,
    "view": VOCABULARY | {"outputs"},
    "reports": VOCABULARY | {"outputs"},
    "sources": VOCABULARY | {"video", "arcade"},
}
PROGRAMS = {"train", "curate", "evaluate", "serve", "bench"}
NO_TORCH = VOCABULARY | {"state", "policy", "prompt", "video", "arcade", "outputs", "view", "sources"}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    """Absolute dotted names of everything that a file imports, also inside functions."""
    package = ["streamingvlm", *path.relative_to(SOURCE).parts[:-1]]
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    room = room_of(path)
    ours = {name.split(".")[1] for name in imports_of(path) if name.startswith("streamingvlm.")} - {room}
    ours &= {room_of(file) for file in FILES}
    if room in MAY_IMPORT:
        assert ours <= MAY_IMPORT[room], f"{room} may not import {sorted(ours - MAY_IMPORT[room])}"
    elif room in PROGRAMS:
        assert not ours & (PROGRAMS | {"cli"}), "no program imports another"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_torch_and_transformers_stay_in_their_rooms(path: Path) -> None:
    room, heavy = room_of(path), {name.split(".")[0] for name in imports_of(path)}
    if room in NO_TORCH:
        assert "torch" not in heavy
    if room != "models" and room not in PROGRAMS:
        assert "transformers" not in heavy


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_command_line_reads_the_environment(path: Path) -> None:
    if room_of(path) not in {"cli", *PROGRAMS}:
        text = path.read_text()
        assert "environ" not in text
        assert "getenv" not in text


def test_exported_names() -> None:
    assert set(streamingvlm.__all__) == {
        "CachePolicy",
        "CapacityError",
        "Chunk",
        "Commentary",
        "Engine",
        "InstructionUpdated",
        "KeepAll",
        "ModelError",
        "OptionError",
        "OutputError",
        "PolicyError",
        "RecentFrames",
        "Sampling",
        "Session",
        "SessionError",
        "SlidingRecompute",
        "SlidingReset",
        "Source",
        "SourceError",
        "StreamingVLMError",
        "StreamingWindow",
        "Timing",
        "load_model",
        "make_policy",
        "open_source",
    }
    for name in streamingvlm.__all__:
        assert getattr(streamingvlm, name).__name__ == name
    assert streamingvlm.__version__
