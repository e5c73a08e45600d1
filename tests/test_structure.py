"""The floors of the house, and the names that users may rely on."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import arcade_streams
import streamingvlm

ROOTS = {package.__name__: Path(str(package.__file__)).parent for package in (streamingvlm, arcade_streams)}
#: Rooms of streamingvlm by floor: each may import itself and rooms of floors below its own.
FLOORS = (
    {"core"},
    {"kernels"},
    {"cache", "sources", "sinks"},
    {"data"},
    {"models"},
    {"engine"},
    {"runtime", "testing"},
    {"bench", "evaluate", "train"},
    {"cli"},
)
#: Modules beside the rooms: the public names, and how the package is run.
TOP = {"__init__", "__main__"}
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
NO_TORCH = {"core", "sources", "sinks"}
FILES = [(name, path) for name, root in ROOTS.items() for path in sorted(root.rglob("*.py"))]
OURS = [path for name, path in FILES if name == "streamingvlm"]


def module_of(package: str, path: Path) -> str:
    parts = path.relative_to(ROOTS[package]).with_suffix("").parts
    return ".".join([package, *(part for part in parts if part != "__init__")])


MODULES = {module_of(package, path): path for package, path in FILES}


def imports_of(module: str) -> Iterator[str]:
    """Absolute dotted names of everything that a module imports, in functions and for type checkers too."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def arrows(module: str) -> set[str]:
    """Our modules that a module imports."""
    found = set()
    for name in imports_of(module):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {"", module}


def room_of(path: Path) -> str:
    return path.relative_to(ROOTS["streamingvlm"]).parts[0].removesuffix(".py")


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOTS["streamingvlm"])) for path in paths]


@pytest.mark.parametrize("path", OURS, ids=names(OURS))
def test_no_import_climbs(path: Path) -> None:
    room = room_of(path)
    if room in TOP:
        return
    for name in arrows(module_of("streamingvlm", path)):
        package, _, rest = name.partition(".")
        assert package == "streamingvlm", f"{name} is built on this package"
        other = rest.partition(".")[0]
        assert other == room or FLOOR_OF[other] < FLOOR_OF[room], f"{room} is not above {other}"


def test_nothing_names_what_is_built_on_it() -> None:
    texts = {str(path): path.read_text() for path in OURS}
    assert not [path for path, text in texts.items() if "arcade_streams" in text]
    # The bundled checkpoint's folder is called so; all else about it is read from its own files.
    assert [Path(path).name for path, text in texts.items() if "arcade" in text.lower()] == ["hub.py"]


def test_what_is_built_on_it_uses_public_names() -> None:
    for module, path in MODULES.items():
        if module.startswith("arcade_streams"):
            used = {name for name in imports_of(module) if name.startswith("streamingvlm.")}
            private = [name for name in used if any(part.startswith("_") for part in name.split("."))]
            assert not private, f"{path} reaches into {private}"
            kept = {name.rpartition(".")[2]: name for name in used}
            top = [name for name in kept if name in streamingvlm.__all__ and kept[name] != f"streamingvlm.{name}"]
            assert not top, f"{path}: {top} are names of streamingvlm itself"


def test_there_are_no_circles() -> None:
    graph = {module: arrows(module) for module in MODULES}
    while leaves := [module for module, found in graph.items() if not found & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert not graph, "these modules import each other in a circle, or stand above one"


@pytest.mark.parametrize("path", OURS, ids=names(OURS))
def test_torch_and_transformers_stay_in_their_rooms(path: Path) -> None:
    room = room_of(path)
    heavy = {name.split(".")[0] for name in imports_of(module_of("streamingvlm", path))}
    if room in NO_TORCH or path.name in {"state.py", "scheduler.py"}:
        assert "torch" not in heavy
    if room not in {"models", "train", "evaluate", "bench"}:
        assert "transformers" not in heavy


def mutable_globals(path: Path) -> Iterator[str]:
    """Names of a module that hold a list, a dictionary or a set and are no constants, and those that functions bind."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        for target in targets:
            name = target.id if isinstance(target, ast.Name) else ""
            if isinstance(value, ast.List | ast.Dict | ast.Set) and name.strip("_") != name.strip("_").upper():
                yield name
    yield from (name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names)


@pytest.mark.parametrize(("package", "path"), FILES, ids=[module_of(*one) for one in FILES])
def test_no_module_holds_state(package: str, path: Path) -> None:  # noqa: ARG001
    assert not [name for name in mutable_globals(path) if name != "__all__"]


def test_entry_points_lead_somewhere() -> None:
    for group in ("sources", "tasks", "commands"):
        found = [point for point in entry_points(group=f"streamingvlm.{group}") if point.value.startswith("arcade_")]
        assert found
        assert all(callable(point.load()) for point in found)


@pytest.mark.parametrize("path", OURS, ids=names(OURS))
def test_only_the_command_line_reads_the_environment(path: Path) -> None:
    if room_of(path) not in {"cli", "train", "evaluate", "bench"}:
        text = path.read_text()
        assert "environ" not in text
        assert "getenv" not in text


def test_exported_names() -> None:
    assert set(streamingvlm.__all__) == {
        "Alert",
        "Answer",
        "Answered",
        "Arrival",
        "Ask",
        "Asked",
        "CachePolicy",
        "CapacityError",
        "Chunk",
        "Closed",
        "Commentary",
        "Delta",
        "Dropped",
        "Endpoint",
        "EndpointError",
        "Engine",
        "Fork",
        "Gap",
        "Instructed",
        "InstructionUpdated",
        "KeepAll",
        "ModelError",
        "OptionError",
        "OutputError",
        "PolicyError",
        "PublicCode",
        "Question",
        "RecentFrames",
        "RemoteEngine",
        "RemoteSession",
        "Runtime",
        "Sampling",
        "Session",
        "SessionError",
        "Sink",
        "SlidingRecompute",
        "SlidingReset",
        "Source",
        "SourceError",
        "SourceStatus",
        "StepInput",
        "Stream",
        "StreamOpened",
        "StreamingVLMError",
        "StreamingWindow",
        "Timing",
        "load_model",
        "make_policy",
        "open_source",
        "parse_rule",
    }
    for name in streamingvlm.__all__:
        assert getattr(streamingvlm, name).__name__ == name
    assert streamingvlm.__version__


def test_a_model_behind_an_endpoint_needs_no_torch() -> None:
    modules = "streamingvlm.runtime.runtime, streamingvlm.engine.remote_engine, streamingvlm.cli.follow"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
