"""A run that is ended before it watches anything: one line, an exit code, no traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamingvlm import cli
from streamingvlm.cli import ending
from streamingvlm.cli.ending import Stopped, stoppable
from support.command import DRIVER, command

#: Says that our code has begun to run, and loads a real model, which takes seconds; then there is a match without end.
REAL = """
import os, sys
from streamingvlm import cli

def begun():
    own_process()
    os.write(1, b"ready\\n")

own_process, cli.own_process = cli.own_process, begun
sys.exit(cli.main())
"""
#: The same, with a model that takes for ever to load.
SLOW = DRIVER.replace(
    "return ScriptedModel", "print('loading', flush=True); import time; time.sleep(60); return ScriptedModel"
)


def _hear() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def begin(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A program of a person's own, who may press Ctrl-C: behind its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hear,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() in ("ready", "loading")
    return process


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "streamingvlm: interrupted"),
        (signal.SIGTERM, 143, "streamingvlm: ended by SIGTERM"),
        (signal.SIGHUP, 129, "streamingvlm: ended by SIGHUP"),
    ],
)
def test_ended_while_the_model_loads(number: int, code: int, line: str, tmp_path: Path) -> None:
    output = tmp_path / "a.vtt"
    process = begin(SLOW, "watch", "arcade:pong", "--state", tmp_path / "state", "-o", output)
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == code
    assert errors.split("\n") in ([line, ""], ["", line, ""]), "typer begins a new line behind ^C"


def test_a_terminal_that_goes_may_say_so_more_than_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    process = subprocess.Popen(
        command("watch", "arcade:pong?seed=7", "--pace", "live", "--json", "--state", state),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hear,
    )
    assert process.stdout is not None
    while '"commentary"' not in process.stdout.readline():
        assert process.poll() is None
    for _ in range(20):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.005)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 129
    assert "watched" in errors, "the summary is told"
    (lock,) = state.glob("*/lock")
    assert json.loads(lock.read_text())["clean"], "all is on the disk"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_at_any_moment(number: int) -> None:
    """From 0 to 2 s behind the first line of our code: imports, a model, steps."""
    for moment in range(20):
        process = begin(REAL, "watch", "arcade:pong", "--quiet")
        time.sleep(moment / 10)
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
        assert process.returncode == 128 + number, (moment, out, errors)
        assert "Traceback" not in errors, (moment, errors)
        assert "Exception" not in errors, (moment, errors)
        lines = errors.strip().splitlines()
        assert lines == ["streamingvlm: " + ("interrupted" if number == signal.SIGINT else "ended by SIGTERM")] or any(
            line.startswith("watched") for line in lines
        ), (moment, errors)


def test_an_interrupt_that_python_cannot_raise_comes_again() -> None:
    code = """
import os, signal, sys, time
from streamingvlm import cli
from streamingvlm.cli import commands

class Dies:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

def run(args):
    print("ready", flush=True)
    Dies()
    time.sleep(20)

commands.main = run
sys.exit(cli.main())
"""
    process = begin(code)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (130, "streamingvlm: interrupted\n")


def test_in_a_thread_signals_stay_as_they_are() -> None:
    from threading import Thread

    before, found = signal.getsignal(signal.SIGTERM), []

    def look() -> None:
        with stoppable():
            found.append(signal.getsignal(signal.SIGTERM))
        found.append(cli.main(["--version"]))

    thread = Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before, 0]
    with stoppable(), pytest.raises(Stopped) as stop:
        signal.raise_signal(signal.SIGTERM)
    assert stop.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_twice_does_not_disturb_the_end(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """``timeout`` sends its signal to the program and to the group that this is in."""
    before = signal.getsignal(number)
    for _ in range(2):  # each run hears its first one
        monkeypatch.setattr(ending, "TWICE", 60.0)
        with stoppable():
            with pytest.raises((Stopped, KeyboardInterrupt)), stoppable():
                signal.raise_signal(number)
            signal.raise_signal(number)
            monkeypatch.setattr(ending, "TWICE", 0.0)
            if number == signal.SIGHUP:  # a terminal goes once
                signal.raise_signal(number)
            else:
                with pytest.raises((Stopped, KeyboardInterrupt)):
                    signal.raise_signal(number)
        assert signal.getsignal(number) == (signal.SIG_IGN if number == signal.SIGHUP else before)
        signal.signal(number, before)


def test_a_standard_error_that_is_gone_changes_no_exit_code() -> None:
    """As a terminal is that was closed: what cannot be said there is not said."""
    for arguments, code in ((["watch", "nothing.mp4"], 2), (["watch", "arcade:pong", "--duration", "2"], 0)):
        with Path("/dev/full").open("w") as full:
            process = subprocess.run([sys.executable, "-c", DRIVER, *arguments], stdout=subprocess.PIPE, stderr=full)
        assert process.returncode == code


def test_a_thread_within_torch_does_not_abort_the_end() -> None:
    """As the vision tower of a slow model is, in the source's thread."""
    code = """
import sys, threading, torch
from streamingvlm import cli
from streamingvlm.cli import commands

def work():
    rows = torch.zeros(1, 1, 64, 64)
    while True:
        torch.nn.functional.scaled_dot_product_attention(rows, rows, rows)
        working.set()

def run(args):
    threading.Thread(target=work, name="streamingvlm-source", daemon=True).start()
    working.wait()
    print("said")
    return 3

working, commands.main = threading.Event(), run
sys.exit(cli.main())
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (3, "said\n", "")
