"""Everything at once for an hour: four RTSP streams that are cut, asked, instructed, alerted, recorded and killed.

    python scripts/live_hour.py --minutes 60 --cuts 50 --kills 4 --json hour.json

Two arcade matches are served over RTSP by ``streamingvlm record --serve``; the bundled model watches each twice, in a
process that does what ``streamingvlm watch --state`` does: rules of both kinds, a question every 5 s, one instruction a
minute, .vtt, .srt, .jsonl and .mp4 of each stream, and a webhook. Meanwhile the matches are killed and started again,
and in the last third of the time the process itself. Needs Debian's gst-rtsp-server (``.ci/system`` installs it).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

import streamingvlm as sv
from streamingvlm.cli.follow import settle
from streamingvlm.cli.memory import return_large_blocks
from streamingvlm.cli.plan import SourceRequest, WebhookRequest, plan, read_rules
from streamingvlm.core.errors import CapacityError
from streamingvlm.core.events import (
    Alert,
    Answered,
    Asked,
    Commentary,
    Event,
    Gap,
    InstructionUpdated,
    Resumed,
    SourceStatus,
)
from streamingvlm.models.load import settle_threads
from streamingvlm.runtime.clock import Pace
from streamingvlm.runtime.journal import Journal, number_of
from streamingvlm.runtime.state_folder import StateFolder
from streamingvlm.sinks.records import record_of
from streamingvlm.sinks.terminal import Quiet
from streamingvlm.sinks.webhook import DEFAULT_KINDS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.receiver import receiver
from support.rtsp_server import lacks

GAMES = ("pong", "boxing")
#: Connections to each match: the host's two names make two locators.
HOSTS = ("127.0.0.1", "localhost")
SUFFIXES = (".vtt", ".srt", ".jsonl", ".mp4")
RULES = ("point: says: \\b(scores?|point)\\b; cooldown=0", "ahead: the left player is ahead; every=5; threshold=0.6")
QUESTION_SECONDS, INSTRUCT_SECONDS, USAGE_SECONDS = 5.0, 60.0, 5.0
#: Seconds that a match is down, at most.
DOWN = 15.0
#: Seconds that the outputs have at the end.
PATIENCE = 30.0
#: Seconds that the program takes to start, at most.
LOADING = 20.0
#: Seconds at both ends without a cut or a kill.
CALM = 30.0


# The process that watches.


def watch(folder: Path, urls: Sequence[str], hook: str) -> None:
    """Watch until the process is interrupted or killed."""
    return_large_blocks()
    model = sv.load_model(device="cpu")
    settle_threads(model)
    outputs = [folder / "out" / f"{{stream}}{suffix}" for suffix in SUFFIXES]
    slots = len(urls) + 1
    with (
        StateFolder(folder / "state") as state,
        sv.Runtime(sv.Engine(model, slots=slots), questions=True) as runtime,
    ):
        planned = plan(
            urls,
            [],
            SourceRequest(fps=2.0, step=1.0),
            output=outputs,
            rules=read_rules(RULES, []),
            webhook=WebhookRequest(hook, "secret", private=True),
            state=state,
            options=lambda number: {"fps": 2.0, "step": 1.0, "seed": 7, "stream": number},
        )
        streams = [one.start(runtime, Quiet(), pace=Pace.LIVE) for one in planned]
        try:
            talk(folder, [stream for stream in streams if stream is not None])
        except KeyboardInterrupt:
            runtime.close()
            settle([sink for one in planned for sink in one.outputs], PATIENCE, PATIENCE)


def talk(folder: Path, streams: Sequence[sv.Stream]) -> None:
    """Ask and instruct for ever, and write down what the process takes."""
    due = {ask: QUESTION_SECONDS, instruct: INSTRUCT_SECONDS, measure: 0.0}
    every = {ask: QUESTION_SECONDS, instruct: INSTRUCT_SECONDS, measure: USAGE_SECONDS}
    began, turn = time.monotonic(), itertools.count()
    while True:
        now = time.monotonic() - began
        for act in [act for act, moment in due.items() if moment <= now]:
            due[act] += every[act]
            act(folder, streams[next(turn) % len(streams)])
        time.sleep(max(began + min(due.values()) - time.monotonic(), 0.0))


def ask(folder: Path, stream: sv.Stream) -> None:
    """One question; nobody waits for it here."""
    try:
        stream.ask("Who is ahead?")
    except CapacityError:
        note(folder / "refused", time.time())


def instruct(_: Path, stream: sv.Stream) -> None:
    """One instruction."""
    stream.instruct(f"Say what happens; it is {time.time():.0f}.")


def measure(folder: Path, _: sv.Stream) -> None:
    """Threads, files, and memory in MB, one line each time."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    memory = pages * resource.getpagesize() / 1e6
    note(folder / "usage", time.time(), threading.active_count(), len(os.listdir("/proc/self/fd")), memory)


def note(path: Path, *values: float) -> None:
    """Append a line of numbers."""
    with path.open("a", encoding="ascii") as handle:
        handle.write(" ".join(map(str, values)) + "\n")


# What is done to it.


@dataclass
class Match:
    """A match that is served, at one port for ever; ``cuts``: when it was killed, and when it listened again."""

    game: str
    port: int = 0
    cuts: list[tuple[float, float]] = field(default_factory=list)
    _process: Any = None

    def start(self) -> None:
        """Serve it; returns when it listens."""
        command = [sys.executable, "-m", "streamingvlm", "record", f"arcade:{self.game}", "--seed", "1000777"]
        command += ["--serve", f"rtsp://127.0.0.1:{self.port}/match"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if not (line := self._process.stdout.readline()):
            sys.exit("the match is not served; see the line above")
        self.port = int(line.split()[-1].rpartition(":")[2].partition("/")[0])

    def kill(self) -> None:
        """End it as a power cut does."""
        self._process.kill()
        self._process.communicate()

    def cut(self, seconds: float) -> None:
        """Kill it, and start it again so much later."""
        self.kill()
        down = time.time()
        time.sleep(seconds)
        self.start()
        self.cuts.append((down, time.time()))


@dataclass
class Program:
    """The process that watches. ``kills``: when it was killed, seconds since 1970."""

    command: Sequence[str]
    kills: list[float] = field(default_factory=list)
    _process: Any = None

    def start(self) -> None:
        """Start it."""
        self._process = subprocess.Popen(self.command)

    def kill(self) -> None:
        """Kill it, and start it again."""
        self._process.kill()
        self._process.wait()
        self.kills.append(time.time())
        self.start()

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        self._process.send_signal(signal.SIGINT)
        return int(self._process.wait(60))

    @property
    def ended(self) -> bool:
        """Whether it is not there any more."""
        return self._process.poll() is not None


def spread_over(count: int, first: float, last: float, dice: random.Random) -> list[float]:
    """``count`` moments, one at random within each of as many equal parts of a time."""
    part = (last - first) / max(count, 1)
    return [first + (number + dice.uniform(0.0, 0.5)) * part for number in range(count)]


def disturb(args: argparse.Namespace, matches: Sequence[Match], program: Program) -> None:
    """Cut matches in turn, and kill the program in the last third, until the time is over."""
    dice, seconds = random.Random(0), args.minutes * 60
    turns = itertools.cycle(matches)
    acts: list[tuple[float, Callable[[], None]]] = [
        (moment, lambda: next(turns).cut(dice.uniform(0.2, DOWN)))
        for moment in spread_over(args.cuts, CALM, seconds - CALM, dice)
    ]
    acts += [(moment, program.kill) for moment in spread_over(args.kills, seconds * 2 / 3, seconds - CALM, dice)]
    began = time.monotonic()
    for moment, act in sorted([*acts, (seconds, lambda: None)], key=lambda one: one[0]):
        while (left := began + moment - time.monotonic()) > 0:
            if program.ended:
                sys.exit("the program has ended by itself")
            time.sleep(min(left, 1.0))
        act()


# What has come of it.


@dataclass
class Told:
    """The events of one stream, and the files that it has left."""

    match: Match
    events: list[Event]
    files: dict[str, list[Path]]

    def of(self, kind: type[Any]) -> list[Any]:
        """Events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


def read(folder: Path, matches: Sequence[Match]) -> list[Told]:
    """The streams, by their journals."""
    out = []
    for one in sorted(path for path in (folder / "state").iterdir() if path.is_dir()):
        with Journal(one) as journal:
            events = list(journal.read())
            if journal.damaged:
                sys.exit(f"{one}: {journal.damaged} lines are damaged")
        match = next(match for match in matches if str(match.port) in one.name)
        name = next(host for host in HOSTS if host in one.name)
        files = [path for path in (folder / "out").iterdir() if name in path.name and str(match.port) in path.name]
        out.append(Told(match, events, {suffix: sorted(p for p in files if p.suffix == suffix) for suffix in SUFFIXES}))
    return out


def spread(values: Sequence[float]) -> list[float]:
    """p50, p95, p99 and the largest."""
    ordered = sorted(values) or [float("nan")]
    return [round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3) for share in (0.5, 0.95, 0.99, 1.0)]


def backs(streams: Sequence[Told], kills: Sequence[float]) -> dict[str, Any]:
    """Seconds to the next words behind a cut, and how many of them are behind the last try that was announced.

    Not counted (``others``): cuts while the program was down itself, or loaded its model.
    """
    whole, behind, others = [], [], 0
    for one in streams:
        said, statuses = one.of(Commentary), one.of(SourceStatus)
        for down, up in one.match.cuts:
            new = [event for event in said if event.wall > up and (event.wall_start or 0.0) > up - 1.0]
            if not new or any(down - LOADING < kill < new[0].wall for kill in kills):
                others += 1
                continue
            told = [event for event in statuses if event.retry_in and down < event.wall <= new[0].wall]
            tries = [event.wall + event.retry_in for event in told]
            whole.append(new[0].wall - up)
            behind.append(new[0].wall - max([up, *tries[-1:]]))
    return {"back": spread(whole), "behind the next try": spread(behind), "counted": len(whole), "others": others}


def losses(streams: Sequence[Told]) -> dict[str, Any]:
    """What was lost or told twice by the journals and by the .jsonl files."""
    out: Counter[str] = Counter()
    for one in streams:
        numbers = [number_of(event.id)[1] for event in one.events]
        starts = [event.start for event in one.of(Commentary)]
        lines = [json.loads(line) for path in one.files[".jsonl"] for line in path.read_text().splitlines()]
        ids = [line["id"] for line in lines if line.get("id")]
        out["events"] += len(numbers)
        out["holes in the numbers"] += numbers != list(range(1, len(numbers) + 1))
        out["events twice"] += len(numbers) - len(set(numbers))
        out["steps twice"] += len(starts) - len(set(starts))
        out["twice in .jsonl"] += len(ids) - len(set(ids))
        out["not in .jsonl"] += len({event.id for event in one.events} - set(ids))
    return dict(out)


def files(streams: Sequence[Told]) -> dict[str, Any]:
    """What FFmpeg reads of the captions and the recordings."""
    out: Counter[str] = Counter()
    for one in streams:
        out["steps with words"] += sum(bool(event.text) for event in one.of(Commentary))
        for suffix in (".vtt", ".srt"):
            with av.open(str(one.files[suffix][0])) as container:
                out[f"cues of {suffix}"] += sum(packet.size > 0 for packet in container.demux())
        for path in one.files[".mp4"]:
            with av.open(str(path)) as container:
                out["frames of .mp4"] += sum(1 for _ in container.decode(video=0))
            out["files of .mp4"] += 1
    return dict(out)


def questions(streams: Sequence[Told]) -> dict[str, Any]:
    """What became of the questions."""
    taken, failed = [], Counter[str]()
    asked = 0
    for one in streams:
        begun = {event.number: event.wall for event in one.of(Asked)}
        asked += len(begun)
        for event in one.of(Answered):
            if event.answer is not None:
                taken.append(event.wall - begun[event.number])
            else:
                failed[event.error] += 1
    return {"asked": asked, "answered": len(taken), "seconds": spread(taken), "failed": dict(failed)}


def figures(streams: Sequence[Told], program: Program, folder: Path, delivered: Sequence[str]) -> dict[str, Any]:
    """All of it."""
    said = [event for one in streams for event in one.of(Commentary)]
    usage = [tuple(map(float, line.split())) for line in (folder / "usage").read_text().splitlines()]
    until = min(program.kills, default=float("inf"))
    first = [line for line in usage if line[0] < until]
    settled = first[len(first) // 10]
    sent = {event.id for one in streams for event in one.events if record_of(event)["type"] in DEFAULT_KINDS}
    count = {kind.__name__: sum(len(one.of(kind)) for one in streams) for kind in (Gap, Alert, Resumed)}
    return {
        "steps": len(said),
        "dropped": sum(event.dropped for event in said),
        "lag": spread([event.timing.lag for event in said]),
        "cuts": sum(len(match.cuts) for match in {id(one.match): one.match for one in streams}.values()),
        **backs(streams, program.kills),
        "kills": len(program.kills),
        "instructions": sum(len(one.of(InstructionUpdated)) for one in streams),
        "questions": questions(streams),
        "told": count,
        "losses": losses(streams),
        "files": files(streams),
        "webhook": {"sent": len(sent), "missing": len(sent - set(delivered)), "twice": _twice(delivered)},
        "usage (threads, files, MB)": {"settled": settled[1:], "before the first kill": first[-1][1:]},
        "minutes between": round((first[-1][0] - settled[0]) / 60, 1),
    }


def _twice(ids: Sequence[str]) -> int:
    return len(ids) - len(set(ids))


def run(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The hour."""
    (folder / "out").mkdir()
    matches = [Match(game) for game in GAMES]
    with receiver() as hook:
        for match in matches:
            match.start()
        urls = [f"rtsp://{host}:{match.port}/match" for match in matches for host in HOSTS]
        program = Program([sys.executable, __file__, "--watch", str(folder), hook.url, *urls])
        program.start()
        try:
            disturb(args, matches, program)
            code = program.stop()
        finally:
            for match in matches:
                match.kill()
        delivered = [request.headers["Webhook-Id"] for request in hook.requests]
    return {**figures(read(folder, matches), program, folder, delivered), "exit code": code}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where all is kept [default: nowhere]")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--watch", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.watch:
        watch(Path(args.watch[0]), args.watch[2:], args.watch[1])
        return
    if why := lacks("h264"):
        sys.exit(why)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = args.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        out = run(args, folder)
    text = json.dumps(out, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
