"""Typing under a running commentary: at a real pseudo terminal, and line by line with a stand-in for the stream."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from streamingvlm.cli.line_editor import MAX_LINE
from streamingvlm.cli.typing_line import TYPED_LINES, Doer, Typist, can_type
from streamingvlm.core.errors import CapacityError, OptionError
from streamingvlm.sinks.prompt_line import PromptLine
from support.command import command
from support.terminal import TerminalRun

#: A program that lets a person type to a stream that only notes what is asked, and ends as its first argument says.
PROGRAM = """
import sys, threading, time
from streamingvlm.cli.follow import stoppable
from streamingvlm.cli.typing_line import can_type, typing
from streamingvlm.sinks.prompt_line import PromptLine

class Noted:
    ended = False
    def __init__(self): self.done = threading.Event()
    def ask(self, text):
        print("asked", ascii(text), flush=True)
        if text == "fail": self.error = RuntimeError("failed"); self.done.set()
    def stop(self): self.done.set()

stream, prompt = Noted(), PromptLine()
assert can_type(["a.mp4"])
with stoppable(), typing(stream, prompt):
    print("ready", flush=True)
    stream.done.wait()
    if hasattr(stream, "error"): raise stream.error
print("whole", flush=True)
"""
#: A shell with job control, for one program: it says when that was stopped and how the terminal is then.
SHELL = """
import os, signal, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = os.fork()
if not child:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
while True:
    _, status = os.waitpid(child, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        break
    os.tcsetpgrp(0, os.getpgrp())
    print("stopped, echo", bool(termios.tcgetattr(0)[3] & termios.ECHO), flush=True)
    if sys.stdin.readline().strip() == "bg":
        os.kill(child, signal.SIGCONT)
        print("in the background", flush=True)
        sys.stdin.readline()
    os.tcsetpgrp(0, child)
    os.kill(child, signal.SIGCONT)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def program() -> TerminalRun:
    return TerminalRun([sys.executable, "-c", PROGRAM])


def raw(run: TerminalRun) -> bool:
    """Whether keys come one by one and are not echoed."""
    flags = run.mode[3]
    assert isinstance(flags, int)
    return not flags & (termios.ECHO | termios.ICANON)


@pytest.mark.slow
def test_a_person_talks_to_a_running_stream() -> None:
    """The real command, from a cold start: a question, its answer, errors and commands under the commentary."""
    with TerminalRun(command("watch", "arcade:pong?seed=7", "--pace", "live"), FAKE_SECONDS="0.01") as run:
        run.expect("a question, or /help", 60)
        assert raw(run)
        run.type("what h\u00e9\x7fe")
        run.expect("> what he")
        run.type(b"\x1b[200~ is\ndoing\x1b[201~\r")
        run.expect("question 1: what he is doing")
        run.expect("answer 1: forty-two")
        run.type("/nothing\r")
        run.expect("there is no command /nothing")
        run.type("/rule goal: says: step\r")
        run.expect("rule goal: ")
        run.expect("!! goal begins")
        run.type("/unrule goal\r")
        run.expect("rule goal is removed")
        run.type("/instruct be brief\r")
        run.expect("instruction 1: be brief")
        run.type("/rebase\r")
        run.expect("the model is told 600.0 s for")
        run.type("/cancel\r")
        run.expect("no question is open")
        run.type(b"\x1b[A\x1b[A\x01\x0b/quit\r")
        assert run.wait() == 0
        assert run.mode == run.before
        assert "Traceback" not in run.text
        # The summary is behind the view, which is gone.
        assert "steps" in run.text.rpartition("a question, or /help")[2]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda run: run.type("/quit\r"), 0),
        (lambda run: run.type("fail\r"), 1),
        (lambda run: run.type(b"\x03"), 1),  # a KeyboardInterrupt that nobody takes
        (lambda run: os.kill(run.pid, signal.SIGTERM), 1),
    ],
)
def test_the_terminal_is_as_before_however_it_ends(end: Callable[[TerminalRun], None], code: int) -> None:
    with program() as run:
        run.expect("ready")
        assert raw(run)
        assert b"\x1b[?2004h" in run.raw
        run.type("one\rtwo\r")
        run.expect("asked 'two'")
        assert "one\r" not in run.text.replace("asked", "")  # no echo
        end(run)
        assert run.wait() in (code, -signal.SIGINT)
        assert run.mode == run.before
        assert run.raw.rindex(b"\x1b[?2004l") > run.raw.rindex(b"\x1b[?2004h")
        assert ("whole" in run.text) == (code == 0)


def test_while_it_is_suspended_the_terminal_is_the_shells() -> None:
    with TerminalRun([sys.executable, "-c", SHELL, PROGRAM]) as run:
        run.expect("ready")
        run.type(b"half")
        time.sleep(0.3)  # a key that suspends throws away what was not read
        run.type(b"\x1a")
        run.expect("stopped, echo True\r\n")
        assert run.raw.endswith(b"\x1b[?2004l\x1b[?25hstopped, echo True\r\n")
        run.type("fg\n")
        wait_for(lambda: raw(run))
        run.type(" a line\r")
        run.expect("asked 'half a line'")
        run.type(b"\x1a")
        run.expect("stopped")
        run.type("bg\n")
        run.expect("in the background")
        time.sleep(0.1)
        assert not raw(run)
        run.type("fg\n")
        wait_for(lambda: raw(run))
        run.type("again\r")
        run.expect("asked 'again'")
        run.type("/quit\r")
        assert run.wait() == 0
        assert run.mode == run.before


def test_where_nothing_could_wake_it_it_is_not_suspended() -> None:
    with program() as run:
        run.expect("ready")
        run.type(b"\x1a")
        while not run.raw.endswith(b"\x1b[?25l\x1b[?2004h"):
            assert run.read(10.0)
        assert raw(run)
        run.type("still\r")
        run.expect("asked 'still'")
        run.type("/quit\r")
        assert run.wait() == 0


def test_no_keys_are_read_from_what_is_no_terminal_or_the_video() -> None:
    code = "from streamingvlm.cli.typing_line import can_type; print(can_type(['a.mp4']))"
    for stdin in (subprocess.DEVNULL, subprocess.PIPE):
        done = subprocess.run([sys.executable, "-c", code], stdin=stdin, capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"
    code = code.replace("can_type(['a.mp4'])", "[can_type([one]) for one in ('a', '-', '/dev/stdin')]")
    with TerminalRun([sys.executable, "-c", code]) as run:
        assert run.wait() == 0
        assert "[True, False, False]" in run.text
    assert not can_type(["a.mp4"])  # here standard input is pytest's


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.01)


# Without a terminal.


class FakeAsk:
    def __init__(self, number: int) -> None:
        self.number, self.done = number, False

    def cancel(self) -> None:
        self.done = True


class FakeStream:
    """Notes what is asked; ``wait`` keeps a question waiting, as an engine in a long round does."""

    def __init__(self) -> None:
        self.ended, self.calls, self.asked = False, list[Any](), list[FakeAsk]()
        self.go = threading.Event()
        self.go.set()

    def ask(self, text: str) -> FakeAsk:
        self.go.wait(10)
        self.calls.append(text)
        if text == "full":
            raise CapacityError("8 questions wait\x1b[31m")
        if text == "bug":
            raise ZeroDivisionError("by zero")
        self.asked.append(FakeAsk(len(self.asked) + 1))
        return self.asked[-1]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> int:
            if name == "rebase" and arguments == (-1.0,):
                raise OptionError("a rebase goes to 0 s or more")
            self.calls.append((name, *arguments))
            return 7

        return call


class FakePrompt(PromptLine):
    def __init__(self) -> None:
        super().__init__()
        self.lines, self.said = list[str](), list[str]()

    def show(self, text: str, cursor: int) -> None:
        self.lines.append(text[:cursor] + "|" + text[cursor:])

    def say(self, lines: Any, style: str = "dim") -> None:
        self.said += [f"{style}: {line}" for line in lines]


def done(*lines: str) -> tuple[FakeStream, FakePrompt]:
    stream, prompt = FakeStream(), FakePrompt()
    doer: Any = Doer(stream, prompt)  # type: ignore[arg-type]
    for line in lines:
        doer.put(line)
    doer.stop()
    return stream, prompt


@pytest.mark.parametrize(
    ("line", "calls", "said"),
    [
        ("", [], []),
        ("what?", ["what?"], []),
        ("/instruct less", [("instruct", "less")], ["dim: instruction 7 holds from the next step on"]),
        ("/unrule goal", [("remove_rule", "goal")], []),
        ("/rebase 5", [("rebase", 5.0)], []),
        ("/rebase -1", [], ["yellow: a rebase goes to 0 s or more"]),
        ("/quit", [("stop",)], []),
        ("/cancel", [], ["yellow: no question is open"]),
        ("/cancel 4", [], ["yellow: no question 4 is open"]),
        ("full", ["full"], ["yellow: 8 questions wait\ufffd[31m"]),
        ("bug", ["bug"], ["yellow: ZeroDivisionError: by zero"]),
    ],
)
def test_a_line_is_done_or_its_error_is_shown(line: str, calls: list[Any], said: list[str]) -> None:
    stream, prompt = done(line)
    assert (stream.calls, prompt.said) == (calls, said)


def test_help_and_rules() -> None:
    stream, prompt = done("/help", "/rule goal: says: goal")
    assert "dim: /quit                end the stream" in prompt.said
    ((name, spec),) = stream.calls
    assert (name, spec.name, spec.text) == ("add_rule", "goal", "goal")


@pytest.mark.parametrize(("wish", "open"), [("/cancel", [True, True, False]), ("/cancel 1", [False, True, True])])
def test_the_newest_question_is_cancelled_or_the_one_that_is_named(wish: str, open: list[bool]) -> None:
    stream, _ = done("a", "b", "c", wish)
    assert [not one.done for one in stream.asked] == open
    stream, _ = done("a", "b", "/cancel", "/cancel")
    assert [one.done for one in stream.asked] == [True, True]


def test_typing_never_waits_for_the_engine() -> None:
    stream, prompt = FakeStream(), FakePrompt()
    stream.go.clear()
    doer: Any = Doer(stream, prompt)  # type: ignore[arg-type]
    typist = Typist(prompt, doer.put)
    began = time.monotonic()
    typist.feed(b"q\r")
    wait_for(lambda: doer._lines.empty())
    typist.feed(b"q\r" * TYPED_LINES + b"more\r")
    assert time.monotonic() - began < 5
    assert prompt.said == [f"yellow: {TYPED_LINES} lines wait already; type it again in a moment"]
    stream.go.set()
    wait_for(lambda: len(stream.calls) == TYPED_LINES + 1)
    doer.stop()


def test_a_line_is_shown_as_it_grows() -> None:
    prompt, entered = FakePrompt(), list[str]()
    typist = Typist(prompt, entered.append)
    typist.feed(b"ab\x1b[")
    assert typist.patience is not None
    typist.feed(b"D")
    typist.feed(b"x" * MAX_LINE)
    typist.feed(b"\r")
    assert prompt.lines[:2] == ["ab|", "a|b"]
    assert prompt.lines[-1] == "|"
    assert prompt.said == [f"yellow: a line has at most {MAX_LINE} characters"]
    assert entered == ["a" + "x" * (MAX_LINE - 2) + "b"]
