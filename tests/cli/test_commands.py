"""Commands of other packages stand beside the built-in ones; a broken one harms none of them."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Annotated

import pytest
import typer

from streamingvlm import cli
from streamingvlm.core import plugins


def greet(name: str, loud: Annotated[bool, typer.Option("--loud")] = False) -> int:
    """Say hello."""
    print(f"hello {name.upper() if loud else name}")
    return 3


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "streamingvlm.commands"
    names = ("greet", "eval.greet", "watch", "bench.greet", "eval")
    entries = [EntryPoint(name, f"{__name__}:greet", group) for name in names]
    entries.append(EntryPoint("broken", "no.such.module:command", group))
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: entries if group == "streamingvlm.commands" else [])


@pytest.mark.parametrize("group", [[], ["eval"]])
def test_a_registered_command_runs(group: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*group, "greet", "Ada", "--loud"]) == 3
    assert capsys.readouterr().out == "hello ADA\n"
    assert cli.main([*group, "greet"]) == 2
    assert "name" in capsys.readouterr().err.lower()


def test_the_help_names_all_and_a_broken_one_says_why_when_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "Say hello." in out
    assert "Cannot be loaded; call it to see why." in out
    for arguments in ([], ["x", "--option", "1"], ["--help"]):
        assert cli.main(["broken", *arguments]) == 2
        (*_, line) = capsys.readouterr().err.splitlines()
        assert line.startswith("streamingvlm: error: 'broken' (no.such.module:command, ")


def test_a_name_that_is_taken_stays_what_it_was(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert cli.main(["watch", "none.mp4"]) == 2
    assert "no such file" in capsys.readouterr().err
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(" of ")[0] for line in told] == [
        "the command 'bench.greet'",
        "the command 'eval'",
        "the command 'watch'",
    ]
    assert "there is no group bench" in told[0]
    assert "there is one already" in told[1]


@pytest.mark.parametrize("arguments", [["--help"], ["record", "--help"], ["eval", "--help"], ["eval", "claims", "-h"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from streamingvlm import cli; cli.main({arguments!r}); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    for name in ("torch", "numpy", "transformers", "av"):
        assert f"'{name}'" not in done.stdout
