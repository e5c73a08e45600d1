"""The command line. The only room that reads the environment; heavy imports wait until a command needs them.

Exit codes: 0 done, 2 something that the user can put right (one line on standard error), 130 interrupted, 143 ended
by the system, 129 its terminal is gone. To add a command, write a function and one line in ``commands.py``.
"""

from .commands import main

__all__ = ["main"]
