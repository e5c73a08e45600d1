"""Sinks that a person sees while a stream is watched: a live view in a terminal, plain or JSON lines elsewhere."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..core.events import AnswerDelta, Commentary, Delta, Event, Gap, StepFailed, StreamOpened
from ..core.run_stats import RunStats, memory
from .formats import json_line
from .lines import Beside, Line, Repeats, event_lines, stamp
from .prompt_line import PromptLine
from .text import printable

__all__ = ["Beside", "JsonStdout", "Plain", "Quiet", "Terminal"]

COLOURS = {
    "system": "blue",
    "history": "magenta",
    "query": "yellow",
    "time": "cyan",
    "vision": "green",
    "commentary": "bright_magenta",
    "markup": "bright_black",
}
BAR = 48  # cells of the bar that shows the rows


class Quiet:
    """Shows nothing."""

    def write(self, event: Event) -> None: ...
    def close(self) -> None: ...


class JsonStdout(Quiet):
    """One event a line on standard output, see :mod:`.records`; ``deltas``: those too.

    ``name``: of the stream, in every record ("": none).
    """

    def __init__(self, name: str = "", deltas: bool = False) -> None:
        self.name, self.deltas = name, deltas

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`."""
        if self.deltas or not isinstance(event, Delta | AnswerDelta):
            print(json_line(event, self.name), flush=True)


class Plain(Quiet):
    """A line for every step with something to say, and for what happens to the stream; no control characters.

    ``name``: of the stream, in front of every line ("": none).
    """

    def __init__(self, beside: Beside | None = None, name: str = "") -> None:
        self.beside = beside
        self._prefix = f"{printable(name)} " if name else ""
        self._now = 0.0
        self._repeats = Repeats()

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`."""
        for line in _news(self._repeats, event, self._now, self.beside):
            print(self._prefix + line.text, flush=True)
        self._now = _now(event, self._now)


class Terminal:
    """Lines that scroll away, over a status that stays: the text of this step, lag, cache and memory.

    ``console``: where it is drawn (None: standard output). One that is no terminal gets the lines alone. ``prompt``:
    the line that a person types, drawn beneath.
    """

    def __init__(
        self, beside: Beside | None = None, console: Console | None = None, prompt: PromptLine | None = None
    ) -> None:
        self.beside = beside
        self._prompt = prompt or PromptLine()
        self._name = ""
        self._now = 0.0
        self._text = ""
        self._repeats = Repeats()
        self._stats = RunStats()
        self._status: RenderableType = Text("waiting for the first step", style="dim")
        self._live = Live(self.render(), console=console or Console(), refresh_per_second=10, transient=True)
        self._prompt.refresh = self._live.refresh

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`."""
        match event:
            case StreamOpened(name=name):
                self._name = printable(name)
                self._live.start()
            case Delta(start=start, text=text):
                self._now, self._text = start, self._text + text if start == self._now else text
            case Commentary():
                self._stats.add(event)
                self._text, self._status = "", _status(event, self._stats)
            case StepFailed():  # what was shown of it does not count
                self._stats.add(event)
                self._text = ""
        self._prompt.write(event)
        for line in _news(self._repeats, event, self._now, self.beside):
            self._live.console.print(Text(*line))
        self._now = _now(event, self._now)
        self._live.update(self.render())

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        self._live.stop()

    def render(self) -> RenderableType:
        """The status as it is now."""
        text = Text.assemble((f"{stamp(self._now)} ", "bold"), printable(self._text), ("▌", "blink"))
        return Group(text, Text("─" * BAR, style="dim"), Text(self._name, style="dim"), self._status, self._prompt)


def _news(repeats: Repeats, event: Event, now: float, beside: Beside | None) -> list[Line]:
    """The lines of an event; none if a person was told the same just now."""
    return [] if repeats.again(event) else event_lines(event, now, beside)


def _status(event: Commentary, stats: RunStats) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_row(
        "time",
        f"{event.end:.1f} s, {stats.dropped} steps dropped" + (f", {stats.failed} failed" if stats.failed else ""),
    )
    table.add_row("lag", f"{event.timing.lag:.2f} s, p95 {stats.lag(0.95):.2f} s")
    if event.capacity:
        table.add_row("cache", _bar(event))
        used = f"{sum(event.rows.values())} of {event.capacity} rows: "
        table.add_row("", used + ", ".join(f"{kind} {count}" for kind, count in event.rows.items()))
    table.add_row("memory", f"{memory() / 2**20:.0f} MiB")
    return table


def _bar(event: Commentary) -> Text:
    """Rows by kind against the capacity, one colour a kind."""
    bar, filled, total = Text(), 0, 0
    for kind, count in event.rows.items():
        total += count
        cells = round(BAR * total / max(event.capacity, total, 1)) - filled
        bar.append("█" * cells, style=COLOURS.get(str(kind), "white"))
        filled += cells
    return bar.append("░" * (BAR - filled), style="dim")


def _now(event: Event, before: float) -> float:
    """Seconds of the stream when ``event`` is told, as far as events say so."""
    return event.end if isinstance(event, Commentary | StepFailed | Gap) else before
