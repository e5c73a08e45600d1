"""Questions, rules, snapshots, pictures, webhooks and subscribers, all at once: the commentary stays what it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.events import Answered, Commentary, Event, Question, StepInput
from streamingvlm.engine.engine import Engine
from streamingvlm.runtime.clock import Pace
from streamingvlm.runtime.keeper import Keeper, SnapshotWriter
from streamingvlm.runtime.rules import AskedRule, SaysRule
from streamingvlm.runtime.runtime import Runtime, Stream
from streamingvlm.sinks.burned import BurnedOutput
from streamingvlm.sinks.files import FileOutput
from streamingvlm.sinks.webhook import Webhook
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
