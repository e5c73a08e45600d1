"""Questions, rules, snapshots, pictures, webhooks and subscribers, all at once: the commentary stays what it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.events import Answered, Asked, Closed, Commentary, Event, Question, StepInput
from streamingvlm.engine.engine import Engine
from streamingvlm.runtime.clock import Pace
from streamingvlm.runtime.keeper import Keeper, SnapshotWriter
from streamingvlm.runtime.rules import AskedRule, SaysRule
from streamingvlm.runtime.runtime import Runtime, Stream
from streamingvlm.runtime.state_folder import StateFolder
from streamingvlm.sinks.burned import BurnedOutput
from streamingvlm.sinks.files import FileOutput
from streamingvlm.sinks.webhook import Webhook
from streamingvlm.sources.live import LiveHub
from streamingvlm.testing import ScriptedModel
from support import tiny
from support.receiver import receiver
from support.streams import chunk

COUNT = 6
POLICIES = ["streaming:vision=3,sink=20,text=20", "public-code", "recent-frames", "sliding-recompute:vision=4"]
RULES = [SaysRule(name="word", text="."), AskedRule(name="people", text="somebody is there", every=1.0)]


class Film:
    """Pictures of noise. It waits before each step until ``go`` says that the one before has been dealt with."""

    context, kind, live = "", "", False

    def __init__(self, number: int, go: Callable[[], object] = lambda: None) -> None:
        self.name, self.number, self.go = f"film {number}", number, go

    def __iter__(self) -> Iterator[StepInput]:
        for index in range(COUNT):
            self.go()
            yield StepInput(chunk(index, seed=self.number))


class Kept:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None: ...

    def of(self, *kinds: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def said(self) -> list[tuple[Any, ...]]:
        return [(one.start, one.end, one.text, one.tokens, one.rows) for one in self.of(Commentary)]


def plainly(checkpoint: Any, policy: str) -> list[Kept]:
    sinks = [Kept(), Kept()]
    with Runtime(Engine(checkpoint, slots=2)) as runtime:
        for number, sink in enumerate(sinks):
            runtime.start(Film(number), sinks=[sink], pace=Pace.FAST, policy=policy, seed=number)
        runtime.wait()
    return sinks


def with_everything(checkpoint: Any, policy: str, folder: Path) -> tuple[list[Kept], list[Any]]:
    sinks, read, streams = [Kept(), Kept()], list[list[Event]](), list[Stream]()
    threads: list[threading.Thread] = []
    started = threading.Event()
    with ExitStack() as stack:
        server = stack.enter_context(receiver())
        hooks = [Webhook(server.url, "secret", kinds=["commentary.done"], allow_private=True) for _ in sinks]
        films = [BurnedOutput(folder / f"{number}.mp4", patient=True) for number in range(2)]
        files = [FileOutput(folder / f"{number}.vtt") for number in range(2)]
        writer = SnapshotWriter()
        keepers = [Keeper(folder / f"{number}.snapshot", writer, every=0.0) for number in range(2)]
        runtime = stack.enter_context(Runtime(Engine(checkpoint, slots=3), questions=True))

        def subscribe(stream: Stream) -> None:
            subscription, events = stream.subscribe(), list[Event]()
            read.append(events)
            threads.append(threading.Thread(target=events.extend, args=(subscription,), daemon=True))
            threads[-1].start()

        def ask(number: int) -> None:
            started.wait(30)
            stream = streams[number]
            one = stream.ask(Question("who is ahead?", max_new_tokens=6))
            if one.number % 3 == 2:
                one.cancel()
            else:
                one.result(30)
            stream.subscribe()  # nobody reads it

        for number, sink in enumerate(sinks):
            stream = runtime.start(
                Film(number, partial(ask, number)),
                sinks=[sink, keepers[number], hooks[number], films[number], files[number]],
                companions=[keepers[number]],
                rules=RULES,
                pace=Pace.FAST,
                policy=policy,
                seed=number,
            )
            streams.append(stream)
            subscribe(stream)
        started.set()
        runtime.wait()
        for one in (*threads, *hooks, *films):
            one.join(30) if isinstance(one, threading.Thread) else one.wait(30)
        assert writer.close(30)
        assert len(server.requests) == 2 * COUNT
    assert all(one.written for one in keepers)
    assert all(one.path.stat().st_size for one in (*films, *files))
    return sinks, read


@pytest.mark.parametrize("policy", POLICIES)
def test_the_commentary_is_the_same_with_everything_around_it(policy: str, tmp_path: Path) -> None:
    checkpoint = tiny.model()
    plain = plainly(checkpoint, policy)
    full, read = with_everything(checkpoint, policy, tmp_path)
    for one, other, heard in zip(full, plain, read, strict=True):
        assert one.said == other.said
        assert len(one.said) == COUNT
        assert sum(not answered.error for answered in one.of(Answered)) >= 2
        assert [event for event in heard if isinstance(event, Commentary)] == one.of(Commentary)


def test_closing_takes_less_than_a_second_with_everything_on(tmp_path: Path) -> None:
    model = ScriptedModel(lambda start, *_: f"word {start:g}", answer=lambda _: "yes " * 20, decode_seconds=0.002)
    before = set(threading.enumerate())
    hub = LiveHub("lavfi:testsrc2=size=64x48:rate=30")
    with StateFolder(tmp_path / "state", every=0.1) as state:
        runtime, kept = Runtime(Engine(model, slots=3), questions=True), [Kept(), Kept()]
        for number, sink in enumerate(kept):
            source = hub.subscribe(fps=10, step=0.2)
            hook = Webhook("http://127.0.0.1:9/x", "s", kinds=["commentary.done"], allow_private=True)
            sinks = [sink, hook, BurnedOutput(tmp_path / f"{number}.mp4"), FileOutput(tmp_path / f"{number}.vtt")]
            options: dict[str, Any] = {"pace": Pace.LIVE, "fps": 10.0, "step": 0.2, "rules": RULES}
            stream = state.start(runtime, "camera", lambda _, own=source: own, name=str(number), sinks=sinks, **options)  # type: ignore[misc]
            assert stream is not None
            threading.Thread(target=list, args=(stream.subscribe(),), daemon=True).start()
            for _ in range(4):
                stream.ask("who?")
        until = time.monotonic() + 30
        while not all(len(one.of(Commentary)) > 2 for one in kept) and time.monotonic() < until:
            time.sleep(0.01)
        began = time.monotonic()
        runtime.close()
        assert time.monotonic() - began < 1.5
        assert all(thread.daemon for thread in set(threading.enumerate()) - before), "none keeps the process"
    for one in kept:
        assert isinstance(one.events[-1], Closed)
        asked, answered = len(one.of(Asked)), len(one.of(Answered))
        assert asked == answered == 4
