"""The standard streams of the command line: where they are closed, or lead to what cannot take any more."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO, TypeGuard

from ..core.errors import OutputError


class _Stderr(io.FileIO):
    """Standard error: what cannot be said, as the terminal was closed or the disk is full, is not said."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


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
    """Let streams that are closed lead nowhere, standard output fail with an OutputError, and standard error never.

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
    elif _is_own(sys.stderr, sys.__stderr__, 2):
        errors_out = io.BufferedWriter(_Stderr(2, "wb", closefd=False))
        sys.stderr = io.TextIOWrapper(errors_out, sys.stderr.encoding, line_buffering=True)
    old: TextIO | None = sys.stdout
    if old is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    elif _is_own(old, sys.__stdout__, 1):
        raw = _Stdout(1, "wb", closefd=False)
        bytes_out: Any = raw if old.write_through else io.BufferedWriter(raw)
        sys.stdout = io.TextIOWrapper(
            bytes_out, old.encoding, "replace", line_buffering=old.line_buffering, write_through=old.write_through
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _is_own(stream: TextIO, original: TextIO | None, number: int) -> TypeGuard[io.TextIOWrapper]:
    """Whether ``stream`` is the process's own one, and not what a test or a notebook has put in its place."""
    return isinstance(stream, io.TextIOWrapper) and stream is original and stream.fileno() == number


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
