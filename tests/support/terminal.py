"""A program at a terminal of its own, as a person has it: keys go in, what is drawn comes out."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Sequence
from types import TracebackType

#: What moves the cursor, colours, and asks the terminal for modes.
ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[^\[])")
ROWS, COLUMNS = 40, 100


class TerminalRun:
    """Runs ``command`` at a new pseudo terminal; ``with`` kills what is left of it."""

    def __init__(self, command: Sequence[str], **environment: str) -> None:
        # Of the terminal itself, which stays open when the program has ended.
        self.screen, self._keep = pty.openpty()
        fcntl.ioctl(self._keep, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(self._keep)
        self.raw = b""
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTSTP):  # a job of a script may be deaf to them
                signal.signal(number, signal.SIG_DFL)
            fcntl.ioctl(self._keep, termios.TIOCSCTTY, 0)
            for number in range(3):
                os.dup2(self._keep, number)
            os.execve(command[0], command, {**os.environ, "TERM": "xterm-256color", **environment})

    @property
    def mode(self) -> list[object]:
        """How the terminal gives keys and echoes them."""
        return termios.tcgetattr(self._keep)

    @property
    def text(self) -> str:
        """All that was drawn so far, without escape sequences."""
        return ESCAPES.sub("", self.raw.decode(errors="replace"))

    def type(self, text: str | bytes) -> None:
        """Press keys."""
        os.write(self.screen, text.encode() if isinstance(text, str) else text)

    def read(self, seconds: float) -> bool:
        """Take what is drawn within so many seconds; whether there was something."""
        if not select.select([self.screen], [], [], seconds)[0]:
            return False
        self.raw += os.read(self.screen, 65536)
        return True

    def expect(self, text: str, seconds: float = 20.0) -> None:
        """Wait until ``text`` has been drawn behind this call's beginning."""
        begin, until = len(self.raw), time.monotonic() + seconds
        while text not in ESCAPES.sub("", self.raw[begin:].decode(errors="replace")):
            assert time.monotonic() < until, f"{text!r} was never drawn: {self.text[-3000:]}"
            self.read(0.1)

    def wait(self, seconds: float = 20.0) -> int:
        """The exit code, negative for a signal."""
        until = time.monotonic() + seconds
        while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            assert time.monotonic() < until, f"it does not end: {self.text[-3000:]}"
            self.read(0.05)
        self.pid = 0
        while self.read(0.0):
            pass
        return os.waitstatus_to_exitcode(ended[1])

    def __enter__(self) -> TerminalRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.screen)
        os.close(self._keep)
