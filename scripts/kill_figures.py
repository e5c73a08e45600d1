"""Kills a program that watches four streams, again and again, and looks whether anything is lost or said twice.

    python scripts/kill_figures.py --kills 100 --json kills.json

Two recordings and two games are watched by the bundled model with a state folder, by a process that is killed with
SIGKILL at random moments and started again. Meanwhile it is given instructions and rules. At the end each stream must
have told every step once, with ids that count without holes, in the words of a run that nobody has killed and that was
instructed before the same steps; no instruction and no rule that was accepted may be lost. Needs fork, and the extra of
the arcade.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import torch

from streamingvlm.core.errors import SessionError
from streamingvlm.core.events import (
    Closed,
    Commentary,
    Event,
    Instructed,
    InstructionUpdated,
    Resumed,
    RuleChanged,
    Source,
    StepInput,
)
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.snapshot import read
from streamingvlm.models.hub import find_checkpoint
from streamingvlm.models.load import load_model
from streamingvlm.runtime.journal import Journal, number_of
from streamingvlm.runtime.rule_files import rule_of
from streamingvlm.runtime.rules import SaysRule
from streamingvlm.runtime.runtime import Runtime, Stream
from streamingvlm.runtime.state_folder import StateFolder
from streamingvlm.sources.open import open_source

GAMES = ("pong", "boxing")
#: Of each stream, by number, what it is instructed before the step from which second.
Instructions = dict[int, list[tuple[float, str]]]


class Lines:
    """What somebody beside the journal is told: the ids, one a line, in a file that is only appended to."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, event: Event) -> None:
        """Append the id of an event."""
        if event.id:
            os.write(self._handle, f"{event.id}\n".encode())

    def close(self) -> None:
        """Nothing follows."""
        os.close(self._handle)


def record(path: Path, game: str, seconds: int) -> str:
    """Write a recording of a game; its path."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 420, 320, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "10", "threads": "1"}
        for chunk in open_source(f"arcade:{game}?seed=1", duration=float(seconds)):
            for picture, moment in zip(chunk.frames, chunk.times, strict=True):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = round(moment * 2), Fraction(1, 2)
                output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return str(path)


def open_at(locator: str, seconds: int, at: float | None) -> Source:
    """A source from second ``at`` on."""
    start = at or 0.0
    return open_source(locator, start=start, duration=max(seconds - start, 0.5))


def watch(
    folder: Path, locators: list[str], seconds: int, model: Any, every: float, instructed: Instructions | None
) -> None:
    """The program: watch all streams to their ends, and go on where an earlier run was ended.

    ``instructed``: what the streams are instructed before which steps (None: at any moment, and rules are set too).
    """
    with StateFolder(folder, every=every) as state, Runtime(Engine(model, slots=len(locators))) as runtime:
        streams = []
        for number, locator in enumerate(locators):
            options: dict[str, Any] = {"sinks": [Lines(folder / f"told-{number}")], "stream": number, "seed": 7}
            if instructed is not None:
                options["before_step"] = Obeys(instructed[number])
            stream = state.start(runtime, locator, partial(open_at, locator, seconds), **options)
            if stream is not None:
                streams.append((number, stream))
        if instructed is None and streams:
            threading.Thread(target=disturb, args=(folder, streams), daemon=True).start()
        runtime.wait()


class Obeys:
    """Instructs a stream before the steps before which another run was instructed."""

    def __init__(self, instructions: list[tuple[float, str]]) -> None:
        self._left = list(instructions)

    def __call__(self, session: Any, step: StepInput) -> None:
        """See :meth:`Runtime.start`."""
        while self._left and self._left[0][0] < step.chunk.start + 0.5:
            session.instruct(self._left.pop(0)[1])


def disturb(folder: Path, streams: list[tuple[int, Stream]]) -> None:
    """Instruct the streams and change their rules at random moments; what was accepted is appended to a file."""
    rng = random.Random()
    handle = os.open(folder / "accepted", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for count in range(1_000_000):
        time.sleep(rng.choice([0.0, 0.02, 0.2]))
        number, stream = rng.choice(streams)
        name = f"rule{rng.randrange(4)}"
        try:
            match rng.randrange(4):
                case 0 if name in [rule.name for rule in stream.rules]:
                    stream.remove_rule(name)
                    accepted: list[Any] = [number, name, ""]
                case 1:
                    rule = SaysRule(name=name, text=f"word {os.getpid()} {count}", off_after=1 + count % 3)
                    stream.add_rule(rule)
                    accepted = [number, name, rule.summary]
                case _:
                    text = f"Watch closely, {os.getpid()} {count}."
                    accepted = [number, stream.instruct(text), text]
        except SessionError:  # it has ended
            continue
        os.write(handle, (json.dumps(accepted) + "\n").encode())


def started(*what: Any) -> int:
    """Run the program in a process of its own; its number."""
    if child := os.fork():
        return child
    code = 1
    try:
        watch(*what)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def told(folder: Path) -> dict[str, list[Event]]:
    """The events of every stream, by the names of their folders."""
    out = {}
    for one in sorted(folder.iterdir()):
        if one.is_dir():
            with Journal(one) as journal:
                out[one.name] = list(journal.read())
                if journal.damaged:
                    raise SystemExit(f"{one}: {journal.damaged} lines are damaged")
    return out


def words(events: list[Event]) -> list[tuple[float, str]]:
    """Start and text of every step."""
    return [(event.start, event.text) for event in events if isinstance(event, Commentary)]


def watched_again(events: list[Event]) -> list[float]:
    """Each time that a stream went on, the seconds that had been told and were behind its snapshot."""
    out, told = [], 0.0
    for event in events:
        if isinstance(event, Commentary):
            told = event.end
        elif isinstance(event, Resumed):
            out.append(told - event.time)
    return out


def killing(folder: Path, kills: int, longest: float, rng: random.Random, *what: Any) -> tuple[int, int]:
    """Start and kill the program; how often it was killed, and how often it was started."""
    done = starts = 0
    while True:
        child, starts = started(folder, *what), starts + 1
        if done < kills:
            time.sleep(rng.uniform(0.0, longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            done += 1
        elif os.waitstatus_to_exitcode(status):
            raise SystemExit(f"start {starts} ended with exit code {os.waitstatus_to_exitcode(status)}")
        else:
            return done, starts


def figures(folder: Path, broken: dict[str, list[Event]], whole: dict[str, list[Event]]) -> dict[str, Any]:
    """What was lost or told twice."""
    numbers = {name: [number_of(event.id)[1] for event in events] for name, events in broken.items()}
    ids = [(name, event.id) for name, events in broken.items() for event in events]
    again = [count for events in broken.values() for count in watched_again(events)]
    beside = [path.read_text().split() for path in sorted(folder.glob("told-*"))]
    return {
        "streams": len(broken),
        "steps": sum(len(words(events)) for events in broken.values()),
        "events": len(ids),
        "ids twice": len(ids) - len(set(ids)),
        "holes in the numbers": sum(own != list(range(1, len(own) + 1)) for own in numbers.values()),
        "steps twice": sum(len(words(e)) - len({start for start, _ in words(e)}) for e in broken.values()),
        "steps missing": sum(len(set(words(whole[n])) - set(words(e))) for n, e in broken.items()),
        "streams with other words": sum(words(events) != words(whole[name]) for name, events in broken.items()),
        "times a stream went on": len(again),
        "most steps watched again": round(max(again, default=0.0)),
        "told twice to another sink": sum(len(own) - len(set(own)) for own in beside),
        "not told to another sink": len(ids) - sum(len(set(own)) for own in beside),
        "streams without an end": sum(not isinstance(events[-1], Closed) for events in broken.values()),
    }


def folder_of(number: int, folder: Path, broken: dict[str, list[Event]]) -> str:
    """The name of the folder of stream ``number``: what it told another sink has its ids."""
    first = (folder / f"told-{number}").read_text().split()[0]
    return next(name for name, events in broken.items() if first in {event.id for event in events})


def instructions(events: list[Event]) -> list[tuple[float, str]]:
    """What the model was told, with the start of the first step with it; what was replaced before, with its last."""
    out: list[tuple[float, str]] = []
    over: list[str] = []
    for event in events:
        if isinstance(event, InstructionUpdated):
            over.append(event.text)
            if event.start is not None:
                out += [(event.start, text) for text in over]
                over = []
    return out


def accepted_figures(folder: Path, names: list[str], broken: dict[str, list[Event]]) -> dict[str, Any]:
    """What of the instructions and changes of rules that were accepted was lost."""
    lines = [json.loads(line) for line in (folder / "accepted").read_text().splitlines()]
    lost_instructions = lost_rules = 0
    for number, name in enumerate(names):
        events = broken[name]
        told = {(event.version, event.text) for event in events if isinstance(event, Instructed)}
        seen = {(event.version, event.text) for event in events if isinstance(event, InstructionUpdated)}
        last = max((version for version, _ in seen), default=0)
        own = [(key, text) for stream, key, text in lines if stream == number]
        wanted = {(key, text) for key, text in own if isinstance(key, int)}
        # The very last ones may have come behind the last step.
        lost_instructions += len(wanted - told) + sum(one not in seen for one in wanted if one[0] <= last)
        changed = [(event.rule, event.text) for event in events if isinstance(event, RuleChanged)]
        lost_rules += sum((key, text) not in changed for key, text in own if isinstance(key, str))
    versions = [[event.version for event in events if isinstance(event, Instructed)] for events in broken.values()]
    return {
        "instructions accepted": sum(isinstance(key, int) for _, key, _ in lines),
        "changes of rules accepted": sum(isinstance(key, str) for _, key, _ in lines),
        "instructions lost": lost_instructions,
        "rules lost": lost_rules + sum(map(other_rules, (folder / name for name in names), map(broken.get, names))),
        "streams whose versions go back": sum(own != list(range(1, len(own) + 1)) for own in versions),
    }


def other_rules(folder: Path, events: list[Event] | None) -> int:
    """How many rules of the last snapshot are not as the events say."""
    rules: dict[str, str] = {}
    for event in events or []:
        if isinstance(event, RuleChanged):
            rules[event.rule] = event.text
    wanted = {(name, text) for name, text in rules.items() if text}
    own = read(folder / "snapshot").extra["own"]["rules"] or {"rules": []}
    kept = {(rule.name, rule.summary) for rule in (rule_of(row["rule"]) for row in own["rules"])}
    return len(wanted ^ kept)


def main() -> int:
    """Print the figures; 1 if anything was lost or told twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=int, help="of video. [default: 8 for each kill]")
    parser.add_argument("--every", type=float, default=0.3, help="seconds between two snapshots")
    parser.add_argument("--longest", type=float, default=1.5, help="seconds until a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    seconds = given.seconds or 8 * given.kills
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        locators = [record(folder / f"{game}.mp4", game, seconds) for game in GAMES]
        locators += [f"arcade:{game}?seed=2" for game in GAMES]
        what = (locators, seconds, load_model(find_checkpoint(None)), given.every)
        killed = folder / "killed"
        kills, starts = killing(killed, given.kills, given.longest, random.Random(given.seed), *what, None)
        broken = told(killed)
        names = [folder_of(number, killed, broken) for number in range(len(locators))]
        given_again = {number: instructions(broken[name]) for number, name in enumerate(names)}
        killing(folder / "whole", 0, 0.0, random.Random(0), *what, given_again)
        out = {"kills": kills, "starts": starts, "seconds of video": seconds, "snapshot every": given.every}
        out |= figures(killed, broken, told(folder / "whole"))
        out |= accepted_figures(killed, names, broken)
    out["seconds"] = round(time.monotonic() - began, 1)
    for key, value in out.items():
        print(f"{key:28} {value}")
    if given.json:
        given.json.write_text(json.dumps(out, indent=1) + "\n")
    bad = ["ids twice", "holes in the numbers", "steps twice", "steps missing", "streams with other words"]
    bad += ["told twice to another sink", "streams without an end"]
    bad += ["instructions lost", "rules lost", "streams whose versions go back"]
    return int(any(out[key] for key in bad))


if __name__ == "__main__":
    sys.exit(main())
