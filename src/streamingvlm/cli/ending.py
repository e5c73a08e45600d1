"""How a run ends before its time: by Ctrl-C, by the system, or because its terminal is gone.

It imports nothing slow: from the first moments on an interrupt is one line and an exit code.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Seconds after which an interrupt that went nowhere comes again.
AGAIN = 0.05
#: Seconds in which a second signal is the same wish: ``timeout`` sends its to the process and to its group.
TWICE = 0.5
#: Its terminal is gone (None: not on this system).
_HANGUP = getattr(signal, "SIGHUP", None)
#: How the names of this package's threads begin.
OURS = "streamingvlm-"


class Stopped(BaseException):
    """The system asked the process to end (SIGTERM), or its terminal is gone (SIGHUP). ``code``: to exit with."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number, self.code = number, 128 + number


class _Stop:
    """Hears signals: raises for one, not for another right behind it, nor for a second SIGHUP at any time."""

    def __init__(self) -> None:
        self.last = -math.inf  # seconds of the monotonic clock
        self._gone = False  # the terminal

    def __call__(self, number: int, _: object) -> None:
        if (now := time.monotonic()) - self.last < TWICE or self.ignores(number):
            return
        self.last, self._gone = now, self._gone or number == _HANGUP
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)

    def ignores(self, number: int) -> bool:
        """Whether this signal says nothing new, now and later."""
        return self._gone and number == _HANGUP


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end what is done within as Ctrl-C does: with :class:`Stopped`.

    A second signal right behind the first one does not disturb the end, and no further SIGHUP does: a terminal that
    goes may send it more than once. A SIGHUP that is ignored, as ``nohup`` has it, stays so. In another thread than the
    main one nothing changes.
    """
    numbers = _numbers() if threading.current_thread() is threading.main_thread() else []
    if numbers and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    outer = signal.getsignal(signal.SIGTERM)
    stop = outer if isinstance(outer, _Stop) else _Stop()
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, signal.SIG_IGN if stop.ignores(number) and stop is not outer else handler)


def ended(end: BaseException) -> int:
    """Say in one line that the run was ended; the exit code."""
    how = f"ended by {signal.Signals(end.number).name}" if isinstance(end, Stopped) else "interrupted"
    with suppress(OSError, AttributeError):  # standard error may be gone
        print(f"streamingvlm: {how}", file=sys.stderr)
    return end.code if isinstance(end, Stopped) else 130


def own_process() -> None:
    """Let an interrupt that Python cannot raise come again; without this it is printed, with a traceback, and lost.

    It may come within a destructor, or in the callback of a weak reference, as importing a module has them.
    """
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt | Stopped):
            before(lost)
            return
        if isinstance(stop := signal.getsignal(signal.SIGTERM), _Stop):
            stop.last = -math.inf
        number = getattr(lost.exc_value, "number", signal.SIGINT)
        again = threading.Timer(AGAIN, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook


def leave_to_system() -> None:
    """The run is over: who cannot wait for the interpreter to end, ends it at once and without a word.

    It ends sooner: the objects of torch and its like are no longer searched for cycles, which took a second.
    """
    gc.freeze()
    for number in (signal.SIGINT, *_numbers()):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def leave(code: int) -> int:
    """``code``, for the interpreter to end with; if a thread of ours is still at work, the process ends right here.

    Such a thread may be within torch or FFmpeg, which cannot be interrupted. An interpreter that ends throws it out of
    there, and the process is aborted.
    """
    if any(thread.name.startswith(OURS) and thread.daemon for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)
    return code


def _numbers() -> list[signal.Signals]:
    numbers = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers
