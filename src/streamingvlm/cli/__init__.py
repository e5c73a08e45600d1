"""The command line. The only room that reads the environment; heavy imports wait until a command needs them.

Exit codes: 0 done, 2 something that the user can put right (one line on standard error), 130 interrupted, 143 ended
by the system, 129 its terminal is gone. To add a command, write a function and one line in ``commands.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from .ending import Stopped, ended, leave, leave_to_system, own_process, stoppable

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code. ``args``: None: those of the process, which is to end behind it."""
    code = _run(args)
    return leave(code) if args is None else code


def _run(args: Sequence[str] | None) -> int:
    try:
        try:
            with stoppable():
                if args is None:
                    own_process()
                from . import commands  # typer alone takes longer than a finger on Ctrl-C

                return commands.main(args)
        finally:
            if args is None:
                leave_to_system()
    except (KeyboardInterrupt, Stopped) as end:
        return ended(end)
