"""Following one stream to its end: a runtime with its sinks, and the summary behind them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .streams import mute_stdout

if TYPE_CHECKING:
    from ..core.events import Sink, Source
    from ..core.run_stats import RunStats
    from ..engine.engine import Engine
    from ..runtime.clock import Pace
    from ..sinks.terminal import Beside


class Stopped(BaseException):
    """The system asked the process to end (SIGTERM), or its terminal is gone (SIGHUP). ``code``: to exit with."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.code = 128 + number


def follow(
    video: Source,
    engine: Engine,
    options: Mapping[str, Any],
    outputs: Sequence[Sink],
    style: str,
    pace: Pace,
    truth: Beside | None = None,
) -> int:
    """Watch to the end, or to an interrupt; returns the exit code.

    ``options``: as :meth:`Engine.open` takes them; ``style``: see :func:`make_screen`. However it ends, the outputs are
    whole and the summary is printed.
    """
    from ..runtime.runtime import LONG_PATIENCE, Runtime

    stream = None
    runtime = Runtime(engine, patience=LONG_PATIENCE)
    try:
        with stoppable():
            # Files first: what a person has seen is on the disk.
            sinks = [*outputs, make_screen(style, truth)]
            stream = runtime.start(video, sinks=sinks, pace=pace, encode_ahead=True, **options)
            stream.wait()
    except KeyboardInterrupt:
        return 130
    except Stopped as end:
        return end.code
    except BrokenPipeError:
        mute_stdout()  # whoever read our lines has enough
    finally:
        runtime.close()
        if stream is not None:
            report(stream.stats, getattr(video, "broken", 0), getattr(video, "breaks", 0))
    return 0


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the run as Ctrl-C does: with whole files and a summary.

    A SIGHUP that is ignored, as ``nohup`` has it, stays so.
    """

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    numbers = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def make_screen(style: str, truth: Beside | None) -> Sink:
    """``style``: quiet, json, or auto: a live view if a person watches, else lines."""
    from ..sinks import terminal

    if style == "quiet":
        return terminal.Quiet()
    if style == "json":
        return terminal.JsonStdout()
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return terminal.Terminal(truth)
    return terminal.Plain(truth)


def report(stats: RunStats, broken: int, breaks: int = 0) -> None:
    """The summary, on standard error: standard output is data."""
    for line in stats.summary():
        print(line, file=sys.stderr)
    if broken:
        print(f"broken   {broken} packets of the video could not be decoded", file=sys.stderr)
    if breaks:
        print(f"breaks   {breaks} times the video's clock jumped; time goes on as if it had not", file=sys.stderr)


def kept(end: BaseException) -> int:
    """Says that nothing is lost; the exit code of a run that was ended."""
    print("what was said is kept; the same command goes on from there", file=sys.stderr)
    return end.code if isinstance(end, Stopped) else 130
