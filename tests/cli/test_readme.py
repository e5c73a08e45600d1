"""The README's Python prints what the README shows, and its commands are such as there are."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import streamingvlm
from streamingvlm.cli.commands import make_app
from streamingvlm.core.policy import make_policy
from streamingvlm.models.hub import BUNDLED
from streamingvlm.models.quantize import quiet_torchao

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = re.compile(r"```python\n(.*?)```\n\n```\n(.*?)```", re.DOTALL)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:streamingvlm|python) [^`]+)`")


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python as a user would: in a fresh process, in a folder that has nothing to do with this checkout."""
    source = str(Path(streamingvlm.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    script = folder / "example.py"
    script.write_text(code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=240, cwd=folder, env=environment
    )


@pytest.mark.skipif(not (BUNDLED / "model.safetensors").is_file(), reason="the bundled model is not here")
def test_the_example_prints_what_is_shown(tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="the arcade extra is not installed")
    blocks = SHOWN.findall(TEXT)
    assert len(blocks) == 1, "every piece of Python is followed by what it prints"
    done = run(blocks[0][0], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == blocks[0][1]


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_only_what_torchao_reports_while_it_is_imported_is_hidden(tmp_path: Path) -> None:
    code = """
import logging, warnings
import streamingvlm as sv
model = sv.load_model()
import torchao
logging.getLogger("torchao").warning("said later")
logging.getLogger("torch.utils._pytree").warning("said later")
warnings.warn("told later")
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("said later") == 2
    assert "told later" in done.stderr
    assert "Failed to load" not in done.stderr
    assert "register_constant" not in done.stderr


def test_warnings_of_others_are_heard_while_torchao_is_imported(caplog: pytest.LogCaptureFixture) -> None:
    ours, pytree = logging.getLogger("torchao"), logging.getLogger("torch.utils._pytree")
    before = [list(logger.filters) for logger in (ours, pytree)]
    levels = [caplog.at_level(logging.WARNING, name) for name in (None, "torchao", "torch.utils._pytree")]
    with levels[0], levels[1], levels[2], quiet_torchao():
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)
        ours.warning("Failed to load %s: %s", "_C.so", "no such symbol")
        ours.error("something is broken")
        pytree.warning("%s is an Enum subclass and is now natively supported by torch.compile", "<enum 'X'>")
        pytree.warning("another warning")
        logging.getLogger("transformers").warning("a third")
    heard = [record.getMessage() for record in caplog.records]
    assert [text for text in heard if text != "a third"] == ["something is broken", "another warning"]
    assert before == [logger.filters for logger in (ours, pytree)]


def commands() -> list[str]:
    """Every command that the README names, in blocks and in running text, without its comment."""
    plain = [block for language, block in FENCED.findall(TEXT) if not language]
    fenced = [line.partition(" #")[0].strip() for block in plain for line in block.splitlines()]
    found = [line for line in fenced if line.startswith(("streamingvlm ", "make "))]
    return [*dict.fromkeys([*found, *INLINE.findall(TEXT)])]


def test_the_commands_are_found() -> None:
    assert len([line for line in commands() if line.startswith("streamingvlm ")]) >= 15
    assert any(line.startswith("make ") for line in commands())


@pytest.mark.parametrize("line", commands())
def test_a_command_is_one_that_there_is(line: str) -> None:
    program, *arguments = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "python":
        assert (ROOT / arguments[0]).is_file()
    else:
        parameters = parse(arguments, named=any(f"`{line}`" in part for part in TEXT.splitlines()))
        if parameters.get("policy"):
            make_policy(parameters["policy"])
        for value in parameters.values():
            if str(value).startswith("configs/"):
                assert (ROOT / str(value)).is_file()


def parse(arguments: list[str], named: bool = False) -> dict[str, Any]:
    """The parameters of a command line as the program would take them; usage errors are raised, nothing is run.

    ``named``: running text may name a command without its arguments.
    """
    command: Any = get_command(make_app())
    context = None
    while hasattr(command, "commands"):
        name, *arguments = arguments
        assert name in command.commands, f"no command {name}"
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
        command = command.commands[name]
    bare = named and not arguments
    context = command.make_context(command.name, list(arguments), parent=context, resilient_parsing=bare)
    parameters: dict[str, Any] = context.params
    return parameters


@pytest.mark.parametrize("wrong", ["watch", "watch a --wrong", "wach a", "bench soak --hours many", "eval arcade x"])
def test_a_wrong_command_would_be_noticed(wrong: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - typer brings its own copy of click in newer releases
        parse(wrong.split())


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target
