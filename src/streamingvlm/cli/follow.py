"""Following a stream to its end: source, session, outputs and view together, and the summary behind them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ..core.errors import OutputError
from .streams import mute_stdout

if TYPE_CHECKING:
    from ..core.events import Chunk, Commentary, Source
    from ..core.run_stats import RunStats
    from ..sinks.files import Output
    from ..sinks.terminal import Beside, View


class Pace(StrEnum):
    """``live`` keeps the clock and drops what is late; ``fast`` takes every step as fast as it can."""

    LIVE = "live"
    FAST = "fast"


class Stopped(BaseException):
    """The system asked the process to end (SIGTERM)."""


class Stream(Protocol):
    """What is needed of a session."""

    @property
    def part(self) -> int: ...
    def feed(self, part: Chunk) -> None: ...
    def step(self, chunk: Chunk, *, on_text: Callable[[str], None] | None = None) -> Commentary: ...
    def prepare(self, chunk: Chunk, *, encode: bool = False) -> Chunk: ...
    def close(self) -> None: ...


def follow(
    video: Source, session: Stream, outputs: Sequence[Output], style: str, pace: Pace, truth: Beside | None = None
) -> int:
    """Watch to the end, or to an interrupt; returns the exit code.

    ``style``: see :func:`make_view`. However it ends, the outputs are whole and the summary is printed.
    """
    from ..core.run_stats import RunStats
    from ..runtime import clock as paces

    stats = RunStats()
    ahead = partial(session.prepare, encode=True)
    paced = paces.live(video, ahead, session.part) if pace is Pace.LIVE else paces.fast(video, ahead)
    try:
        with ExitStack() as stack:
            stack.enter_context(stoppable())
            stack.callback(lambda: report(stats, getattr(video, "broken", 0), getattr(video, "breaks", 0)))
            for output in outputs:
                stack.callback(output.close)
            stack.callback(session.close)
            view = stack.enter_context(closing(make_view(style, video.name, truth)))
            for output in outputs:
                output.start()
            _steps(stack.enter_context(closing(iter(paced))), session, outputs, view, stats)
    except KeyboardInterrupt:
        return 130
    except Stopped:
        return 143
    except BrokenPipeError:
        mute_stdout()  # whoever read our lines has enough
    return 0


def _steps(chunks: Iterable[Chunk], session: Stream, outputs: Sequence[Output], view: View, stats: RunStats) -> None:
    for chunk in chunks:
        if not chunk.last:
            session.feed(chunk)
            continue
        view.begin(chunk)
        event = session.step(chunk, on_text=view.words)
        stats.add(event)
        _write(outputs, event)
        view.show(event, stats)


def _write(outputs: Sequence[Output], event: Commentary) -> None:
    """Write an event to all outputs; one that fails takes it from none of the others."""
    errors = []
    for output in outputs:
        try:
            output.write(event)
        except OutputError as error:
            errors.append(error)
    if errors:
        raise errors[0]


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does: with whole files and a summary."""

    def stop(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def make_view(style: str, name: str, truth: Beside | None) -> View:
    """``style``: quiet, json, or auto: a live view if a person watches, else lines."""
    from ..sinks import terminal as view

    if style == "quiet":
        return view.Quiet()
    if style == "json":
        return view.JsonLines()
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return view.Terminal(name, truth)
    return view.Plain(truth)


def report(stats: RunStats, broken: int, breaks: int = 0) -> None:
    """The summary, on standard error: standard output is data."""
    for line in stats.summary():
        print(line, file=sys.stderr)
    if broken:
        print(f"broken   {broken} packets of the video could not be decoded", file=sys.stderr)
    if breaks:
        print(f"breaks   {breaks} times the video's clock jumped; time goes on as if it had not", file=sys.stderr)
