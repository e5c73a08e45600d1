"""The standard streams of the command line: where they are closed, or lead to what cannot take any more."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

from ..core.errors import OutputError


class _Stdout(io.FileIO):
    """Standard output whose failure is one line, whoever prints; a reader that leaves is no failure."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write standard output ({error.strerror or error})") from None


def set_up_streams() -> None:
    """Let streams that are closed lead nowhere, and standard output fail with an OutputError.

    Else the next files that are opened have the numbers of the closed ones, and get all that is said to these; and what
    is printed on a missing standard error goes to standard output. Words that a narrow encoding cannot say are no
    reason to end.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    old: TextIO | None = sys.stdout
    if old is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    elif isinstance(old, io.TextIOWrapper) and old is sys.__stdout__ and old.fileno() == 1:
        raw = _Stdout(1, "wb", closefd=False)
        bytes_out: Any = raw if old.write_through else io.BufferedWriter(raw)
        sys.stdout = io.TextIOWrapper(
            bytes_out, old.encoding, "replace", line_buffering=old.line_buffering, write_through=old.write_through
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def settle_stdout() -> None:
    """Let out what was printed before an error, if that can be; at exit nothing may complain about it once more."""
    try:
        sys.stdout.flush()
    except (OutputError, OSError):
        mute_stdout()


def mute_stdout() -> None:
    """Standard output is gone: let nothing complain about that when the interpreter flushes it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
