"""The README's Python prints what stands there, and its commands are commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from streamingvlm.cli.commands import app
from streamingvlm.models import BUNDLED

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (BUNDLED / "model.safetensors").is_file(), reason="the bundled model is not here")
def test_the_lines_print_what_the_readme_shows() -> None:
    pytest.importorskip("ale_py", reason="the arcade extra is not installed")
    found = re.search(r"```python\n(.*?)```\s*```\n(.*?)```", README, re.DOTALL)
    assert found, "the README has a block of Python and then what it prints"
    code, shown = found.groups()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.stderr == ""
    assert run.stdout == shown


def commands() -> list[str]:
    block = re.search(r"## On the command line\s*```\n(.*?)```", README, re.DOTALL)
    assert block
    return [line.partition("   #")[0].strip() for line in block[1].splitlines() if line.strip()]


@pytest.mark.parametrize("line", commands())
def test_its_commands_are_commands(line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "streamingvlm"
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    assert command.make_context(line, words).params
