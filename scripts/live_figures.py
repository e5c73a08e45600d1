"""Figures of live streams, each part as a markdown table. Needs Debian's gst-rtsp-server (``.ci/system`` installs it).

    python scripts/live_figures.py --part lag --minutes 10      # four RTSP streams with the bundled model
    python scripts/live_figures.py --part age --seconds 60      # a model that is five times too slow
    python scripts/live_figures.py --part leaks --count 200     # opened and closed

``lag`` watches an arcade match that ``streamingvlm record --serve`` plays, on the same machine; the other parts watch a
camera whose pictures show when they were made, and a model that says at once, or late, what it is told to.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import streamingvlm as sv
from streamingvlm.core.events import Event, Gap
from streamingvlm.models.load import settle_threads
from streamingvlm.runtime.clock import Pace
from streamingvlm.testing import ScriptedModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support import timecode
from support.rtsp_server import RtspServer, lacks

FPS, STEP = 2.0, 1.0
#: Opens and closes before anything is counted: what is loaded once is not a leak.
WARM_UP = 10


class Kept:
    """The events of one stream, each with the moment when it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[float, Event]] = []

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`."""
        self.told.append((time.monotonic(), event))

    def close(self) -> None:
        """See :meth:`Sink.close`."""

    def of(self, kind: type[Any]) -> list[Any]:
        """Events of one kind, in order."""
        return [event for _, event in list(self.told) if isinstance(event, kind)]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print markdown."""
    print(f"| {' | '.join(head)} |")
    print(f"|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(f'{one:.2f}' if isinstance(one, float) else str(one) for one in row)} |")
    print(flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def spread(values: Sequence[float]) -> list[float]:
    """p50, p95, p99 and the largest."""
    return [*(percentile(values, share) for share in (0.5, 0.95, 0.99)), max(values)]


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait; whatever does not come within ``seconds`` ends the program."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"nothing came within {seconds:g} s")
        time.sleep(0.02)


def usage() -> tuple[int, int, float]:
    """Threads, file descriptors, and memory in MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return threading.active_count(), len(os.listdir("/proc/self/fd")), pages * resource.getpagesize() / 1e6


@contextmanager
def served_match(seed: int) -> Iterator[str]:
    """The address of a match of Pong that is served over RTSP by the program itself."""
    command = [sys.executable, "-m", "streamingvlm", "record", "arcade:pong", "--seed", str(seed)]
    process = subprocess.Popen([*command, "--serve", "rtsp://127.0.0.1:0/match"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            sys.exit("the match is not served; see the line above")
        yield line.split()[-1]
    finally:
        process.terminate()
        process.communicate()


def open_camera(url: str, **more: Any) -> Any:
    """An RTSP source as a user opens it."""
    return sv.open_source(url, fps=FPS, step=STEP, **more)


def lag(args: argparse.Namespace) -> None:
    """Streams of one served match with the bundled model: lag from a step's last frame to its last word."""
    model = sv.load_model(device="cpu")
    settle_threads(model)
    sinks = [Kept() for _ in range(args.streams)]
    with served_match(seed=1_000_777) as url, sv.Runtime(sv.Engine(model, slots=args.streams)) as runtime:
        streams = [
            runtime.start(open_camera(url), sinks=[sink], pace=Pace.LIVE, name=f"camera {number}", fps=FPS, step=STEP)
            for number, sink in enumerate(sinks, 1)
        ]
        until(lambda: all(len(sink.of(sv.Commentary)) >= 3 for sink in sinks), 60)
        busy, began, cpu = runtime.load.busy, time.monotonic(), time.process_time()
        first = [len(sink.of(sv.Commentary)) for sink in sinks]
        time.sleep(args.minutes * 60)
        took = time.monotonic() - began
        shares = (runtime.load.busy - busy) / took, (time.process_time() - cpu) / took
        for stream in streams:
            stream.stop()
    rows = []
    for number, (sink, skipped) in enumerate(zip(sinks, first, strict=True), 1):
        said = sink.of(sv.Commentary)[skipped:]
        lags = [one.timing.lag for one in said]
        rows.append([number, len(said), sum(one.dropped for one in said), len(sink.of(Gap)), *spread(lags)])
    every = [
        one.timing.lag for sink, skipped in zip(sinks, first, strict=True) for one in sink.of(sv.Commentary)[skipped:]
    ]
    rows.append(["all", len(every), sum(row[2] for row in rows), sum(row[3] for row in rows), *spread(every)])
    table(["stream", "steps", "dropped", "holes", "lag p50, s", "p95", "p99", "max"], rows)
    print(
        f"{args.streams} RTSP streams at {FPS:g} frames a second, steps of {STEP:g} s, {args.minutes:g} min; the match"
    )
    print(f"is encoded on the same machine. The engine's thread worked {shares[0]:.0%} of the time; this process took")
    print(f"{shares[1]:.2f} cores.\n")


def age(args: argparse.Namespace) -> None:
    """A model that takes five steps' time for each: how old is the newest frame that it is shown?"""
    ages: list[float] = []
    ends: list[float] = []

    def look(_: object, step: Any) -> None:
        ages.append(timecode.age(step.chunk.frames[-1]))
        ends.append(step.chunk.end)

    sink, sizes = Kept(), []
    model = ScriptedModel(lambda start, end, _: f"{start:g}-{end:g}", prefill_seconds=args.slow * STEP)
    with RtspServer() as server, sv.Runtime(sv.Engine(model)) as runtime:
        stream = runtime.start(open_camera(server.url()), sinks=[sink], pace=Pace.LIVE, before_step=look)
        until(lambda: bool(sink.of(sv.Commentary)), 60)
        began = time.monotonic()
        while time.monotonic() - began < args.seconds:
            time.sleep(1)
            sizes.append(usage()[2])
        stream.stop()
    said = sink.of(sv.Commentary)
    seen, dropped = len(said), sum(one.dropped for one in said)
    shown = max(one.end for one in said)
    table(
        ["slower than live", "seconds", "steps shown", "dropped", "shown + dropped, s", "stream time, s"],
        [[f"{args.slow:g}x", args.seconds, seen, dropped, (seen + dropped) * STEP, shown]],
    )
    table(["age of the newest frame shown", "p50, s", "p95", "p99", "max"], [["", *spread(ages)]])
    table(["memory", "first, MB", "last, MB"], [["", sizes[0], sizes[-1]]])


def leaks(args: argparse.Namespace) -> None:
    """A camera is opened and closed again and again."""
    closing: list[float] = []

    def once() -> None:
        source = open_camera(server.url())
        for item in source:
            if isinstance(item, sv.StepInput):
                break
        began = time.monotonic()
        source.close()
        closing.append(time.monotonic() - began)

    with RtspServer() as server:
        for _ in range(WARM_UP):
            once()
        time.sleep(2)
        before = usage()
        closing.clear()
        for _ in range(args.count):
            once()
        time.sleep(2)
        after = usage()
    table(["", "threads", "files", "memory, MB"], [["before", *before], [f"after {args.count}", *after]])
    table(["close", "p50, s", "p95", "p99", "max"], [["", *(f"{one:.4f}" for one in spread(closing))]])


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {"lag": lag, "age": age, "leaks": leaks}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--streams", type=int, default=4, help="of lag")
    parser.add_argument("--minutes", type=float, default=10.0, help="of lag")
    parser.add_argument("--count", type=int, default=200, help="of leaks")
    parser.add_argument("--seconds", type=float, default=60.0, help="of age")
    parser.add_argument("--slow", type=float, default=5.0, help="how many times too slow the model of age is")
    args = parser.parse_args()
    if why := lacks("h264"):
        sys.exit(why)
    print(f"{args.part}: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
