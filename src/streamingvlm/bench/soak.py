"""One stream for hours, as fast as it goes: does a second of video cost the same at the end, in time and in memory?

The machine may not be the same all the time, so every minute of the stream a fixed piece of work is timed beside it
(:func:`reference_work`), and all figures are medians. A match has quiet and busy minutes: lag and work of the two ends
are compared between steps with equally many tokens, or else they would tell how much there was to say.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..core.errors import OptionError
from ..core.events import Commentary, Event
from ..models.base import Model
from ..runtime.clock import Pace
from ..runtime.reports import Metrics, how_it_ran, provenance
from ..runtime.runtime import Runtime
from .measure import Step, device_memory, memory, percentile, reference_work
from .setup import Request

#: Seconds of video that the first and the last figure are over.
EDGE = 600.0
#: Steps between two looks at the reference work.
EVERY = 60

_COLUMNS = ("lag", "work", "rows", "host", "device", "reference", "tokens")
#: Steps with a number of tokens that both ends must have for these to be compared.
ENOUGH = 5
Series = NDArray[np.float64]


class Soak:
    """The record of a soak, with room for all its steps from the start: its own growth must not look like a leak."""

    def __init__(self, request: Request, hours: float, warm_up: int = 20) -> None:
        if not (0 < hours <= 1000 and warm_up >= 0):
            raise OptionError(f"--hours must be above 0 and at most 1000, --warm-up 0 or more, not {hours}, {warm_up}")
        self.request, self.hours, self.warm_up = request, hours, warm_up
        self.seconds = hours * 3600
        self.count = 0
        self.dropped = 0
        self.series: Series = np.full((int(self.seconds / request.step) + 2, len(_COLUMNS)), np.nan)
        self.source = ""
        self.model: Model | None = None
        #: See :func:`how_it_ran`.
        self.ran: Metrics = {}

    def run(self, on_step: Callable[[float], None] = lambda _: None, model: Model | None = None) -> None:
        """Watch; ``on_step`` is told the seconds of video done. An interrupt leaves what was measured so far."""
        source = self.request.make_source(self.seconds + self.warm_up * self.request.step)
        self.source = source.name
        self.model = model or self.request.make_model()
        with Runtime(self.request.make_engine(self.model)) as runtime:
            session = runtime.call(
                lambda: self.request.open_session(runtime.engine, "streaming", context=source.context)
            )
            self.ran = how_it_ran(runtime.engine)
            sink = _Recorder(self, on_step)
            runtime.start(source, sinks=[sink], pace=Pace.INLINE, parts=True, session=session).wait()

    def record(self, step: Step) -> None:
        """One measured step."""
        assert self.model is not None
        device = self.model.kv_shape.device
        look = reference_work(device) if self.count % EVERY == 0 else np.nan
        self.series[self.count] = (
            step.lag, step.work, step.rows, memory(), device_memory(device), look, step.tokens,
        )  # fmt: skip
        self.count += 1

    def figures(self, complete: bool = True) -> Metrics:
        """What was measured so far; ``complete``: whether it came to its end by itself."""
        assert self.model is not None
        device = self.model.kv_shape.device
        series = self.series[: self.count]
        edge = max(min(int(EDGE / self.request.step), self.count // 2), 1)
        column = {name: series[:, index] for index, name in enumerate(_COLUMNS)}
        hours = np.arange(self.count) * self.request.step / 3600
        ends = {
            f"{name}_{end}": _median(part)
            for name, key in (("memory", "host"), ("device_memory", "device"))
            for end, part in (("first", column[key][:edge]), ("last", column[key][-edge:]))
        }
        for name in ("lag", "work"):
            first, last, compared = alike(*((column[name][end], column["tokens"][end]) for end in _ends(edge)))
            ends |= {f"{name}_first": first, f"{name}_last": last, "steps_compared": compared}
        reference = column["reference"][~np.isnan(column["reference"])]
        looks = max(edge // EVERY, 1)
        return {
            **ends,
            "tokens_first": float(column["tokens"][:edge].mean()) if self.count else float("nan"),
            "tokens_last": float(column["tokens"][-edge:].mean()) if self.count else float("nan"),
            "lag_p95_first": percentile(column["lag"][:edge].tolist(), 95),
            "lag_p95_last": percentile(column["lag"][-edge:].tolist(), 95),
            "reference_first": _median(reference[:looks]),
            "reference_last": _median(reference[-looks:]),
            "lag_slope_per_hour": _slope(hours, column["lag"]),
            "work_slope_per_hour": _slope(hours, column["work"]),
            "memory_slope_per_hour": _slope(hours, column["host"]),
            "device_memory_slope_per_hour": _slope(hours, column["device"]),
            "rows_max": int(series[:, 2].max()) if self.count else 0,
            "hours": self.count * self.request.step / 3600,
            "edge_seconds": edge * self.request.step,
            "minutes": _minutes(column, self.request.step),
            "warm_up_steps": self.warm_up,
            "complete": complete,
            "model": self.request.model_name,
            "source": self.source,
            **self.ran,
            **provenance(device),
        }


class _Recorder:
    """A sink that records the steps behind the warm-up."""

    def __init__(self, soak: Soak, on_step: Callable[[float], None]) -> None:
        self._soak, self._on_step, self._seen = soak, on_step, 0

    def write(self, event: Event) -> None:
        if not isinstance(event, Commentary):
            return
        self._seen += 1
        if self._seen > self._soak.warm_up and self._soak.count < len(self._soak.series):
            self._soak.record(Step.of(event))
            self._on_step(self._soak.count * self._soak.request.step)

    def close(self) -> None: ...


def _ends(edge: int) -> tuple[slice, slice]:
    return slice(None, edge), slice(-edge, None)


def alike(first: tuple[Series, Series], last: tuple[Series, Series]) -> tuple[float, float, float]:
    """Two stretches of a stream as if as much had been said in both: figures of first and last, share compared.

    Each is (values, tokens said) of its steps. For every number of tokens that :data:`ENOUGH` steps of both have, the
    median of its steps; the mean of these, weighted with how many steps of both there are. Where the two have nothing
    in common it is their plain medians, and the share is 0.
    """
    sums, weight = np.zeros(2), 0
    for count in np.unique(np.concatenate([first[1], last[1]])):
        parts = [values[said == count] for values, said in (first, last)]
        if min(map(len, parts)) >= ENOUGH:
            steps = sum(map(len, parts))
            sums += [steps * np.median(part) for part in parts]
            weight += steps
    if not weight:
        return _median(first[0]), _median(last[0]), 0.0
    return float(sums[0] / weight), float(sums[1] / weight), weight / (len(first[0]) + len(last[0]))


def _median(values: Series) -> float:
    return statistics.median(values.tolist()) if len(values) else float("nan")


def _slope(hours: Series, values: Series) -> float:
    """Change per hour, by least squares over the medians of minutes-long pieces: one slow moment is no trend."""
    pieces = max(min(len(values) // 60, 480), min(len(values), 2))
    if pieces < 2:
        return float("nan")
    x, y = (np.array([np.median(part) for part in np.array_split(line, pieces)]) for line in (hours, values))
    return float(np.polyfit(x, y, 1)[0])


def _minutes(column: dict[str, Series], step: float) -> Metrics:
    """Medians of every minute of the stream (of every tenth from 1000 minutes on)."""
    size = max(round(60 / step), 1) * (10 if len(column["lag"]) * step > 60_000 else 1)
    starts = range(0, len(column["lag"]), size)
    return {name: [_median(column[name][at : at + size]) for at in starts] for name in ("lag", "work", "host")} | {
        "seconds": size * step
    }
