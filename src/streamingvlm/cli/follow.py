"""Following streams to their ends: a runtime with its sinks, and the summaries behind them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .ending import Stopped, stoppable
from .memory import return_large_blocks
from .plan import Watched
from .streams import mute_stdout
from .typing_line import can_type, typing

if TYPE_CHECKING:
    from ..core.events import Sink
    from ..core.run_stats import RunStats
    from ..runtime.backend import Backend
    from ..runtime.clock import Pace
    from ..runtime.runtime import Stream
    from ..sinks.prompt_line import PromptLine
    from ..sinks.terminal import Beside


#: Seconds in which what waits for a webhook is still sent when a person has pressed Ctrl-C.
IMPATIENCE = 0.5


#: The summary of a stream that saw nothing: a camera that was down all the time.
NOTHING = "watched  nothing: no step of video has been finished"


def follow(
    streams: Sequence[Watched],
    engine: Backend,
    style: str,
    pace: Pace | None = None,
    truth: Beside | None = None,
    questions: bool = False,
    types: bool = False,
) -> int:
    """Watch all to their ends, or to an interrupt; returns the exit code.

    ``style``: see :func:`make_screen`; ``questions``: the engine has a slot more, for them; ``types``: a person types
    under the view of the one stream (:func:`can_talk`), which needs that slot. However it ends, the outputs are whole
    and the summaries are printed. A stream that fails ends alone; its error is raised when all have ended.
    """
    from ..runtime.clock import Pace
    from ..runtime.runtime import LONG_PATIENCE, Runtime
    from ..sinks.files import printable
    from ..sinks.prompt_line import PromptLine

    return_large_blocks()
    patience = LONG_PATIENCE
    prompt = PromptLine() if types else None
    started: list[tuple[Watched, Stream]] = []
    alone = len(streams) == 1
    runtime = Runtime(engine, patience=LONG_PATIENCE, questions=questions)
    try:
        with stoppable(), ExitStack() as end:
            for one in streams:
                screen = make_screen(style, truth, "" if alone else one.name, prompt)
                own = Pace.LIVE if one.video.live else pace or Pace.FAST
                stream = one.start(runtime, screen, pace=own, encode_ahead=alone)
                if stream is None:
                    print(f"{printable(one.name)} was watched to its end by an earlier run", file=sys.stderr)
                else:
                    started.append((one, stream))
            if prompt is not None and started:
                end.enter_context(typing(started[0][1], prompt))
            runtime.wait()
    except KeyboardInterrupt:
        patience = IMPATIENCE
        return 130
    except Stopped as end:
        return end.code
    except BrokenPipeError:
        mute_stdout()  # whoever read our lines has enough
    finally:
        runtime.close()
        try:
            settle([sink for one, _ in started for sink in one.outputs], LONG_PATIENCE, patience)
        finally:
            for one, stream in started:
                if not alone:
                    print(f"stream   {printable(one.name)}", file=sys.stderr)
                if stream.error is None and not stream.stats.summary():  # an error is a line of its own
                    print(NOTHING, file=sys.stderr)
                report(stream.stats, getattr(one.video, "broken", 0), getattr(one.video, "breaks", 0))
                for line in lost(one.outputs):
                    print(line, file=sys.stderr)
    return 0


def settle(sinks: Sequence[object], seconds: float, webhook_seconds: float) -> None:
    """Behind the end of their streams, wait for files and webhooks; what does not reach these is given up."""
    from ..sinks.outputs import wait_for
    from ..sinks.webhook import Webhook

    hooks = [sink for sink in sinks if isinstance(sink, Webhook)]
    for late in wait_for([sink for sink in sinks if sink not in hooks], seconds):
        print(f"{getattr(late, 'path', 'an output')} was not ready in time", file=sys.stderr)
    wait_for(hooks, webhook_seconds)
    for hook in hooks:
        hook.give_up()


def has_view(style: str, alone: bool) -> bool:
    """Whether a live view is drawn: for a person at a terminal who watches one stream."""
    return style == "auto" and alone and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def can_talk(style: str, sources: Sequence[str]) -> bool:
    """Whether a person can type under the view of these sources: it is drawn, and keys can be read."""
    return has_view(style, len(sources) == 1) and can_type(sources)


def make_screen(style: str, truth: Beside | None = None, name: str = "", prompt: PromptLine | None = None) -> Sink:
    """``style``: quiet, json, or auto: a live view if a person watches, else lines.

    ``name``: of one of several streams ("": there is one alone); their lines are marked with it. ``prompt``: what is
    typed, for a live view.
    """
    from ..sinks import terminal

    if style == "quiet":
        return terminal.Quiet()
    if style == "json":
        return terminal.JsonStdout(name)
    if has_view(style, not name):
        return terminal.Terminal(truth, prompt=prompt)
    return terminal.Plain(truth, name)


def report(stats: RunStats, broken: int, breaks: int = 0) -> None:
    """The summary, on standard error: standard output is data."""
    for line in stats.summary():
        print(line, file=sys.stderr)
    if broken:
        print(f"broken   {broken} packets of the video could not be decoded", file=sys.stderr)
    if breaks:
        print(f"breaks   {breaks} times the video's clock jumped; time goes on as if it had not", file=sys.stderr)


def lost(sinks: Sequence[object]) -> list[str]:
    """A line for every sink whose events did not all arrive."""
    return [f"lost     {loss}" for sink in sinks if (loss := getattr(sink, "loss", ""))]


def kept(end: BaseException) -> int:
    """Says that nothing is lost; the exit code of a run that was ended."""
    print("what was said is kept; the same command goes on from there", file=sys.stderr)
    return end.code if isinstance(end, Stopped) else 130
