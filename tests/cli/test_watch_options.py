"""Options of ``watch`` that cannot be meant, and what its summary says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from streamingvlm import cli
from streamingvlm.cli.follow import NOTHING, follow, lost, settle
from streamingvlm.cli.plan import Watched, WebhookRequest
from streamingvlm.core.errors import SourceError
from streamingvlm.core.events import Chunk, Gap
from streamingvlm.engine.engine import Engine
from streamingvlm.runtime.runtime import Runtime
from streamingvlm.runtime.state_folder import StateFolder
from streamingvlm.sinks import webhook
from streamingvlm.sinks.terminal import Quiet
from streamingvlm.sinks.webhook import Webhook
from streamingvlm.testing import ScriptedModel, ScriptedSource
from support.receiver import receiver, sleep

URL = "http://127.0.0.1:9/match.ts"
PONG = ("--kind", "arcade:pong")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "a source is empty"),
        ([URL, *PONG, "--pace", "fast"], "--pace fast is for recordings"),
        ([URL, " "], "a source is empty"),
        (["-", URL, "-", *PONG], "- is named twice"),
        ([URL, *PONG, "--webhook-secret", "abc"], "--webhook-secret: only with --webhook URL"),
        ([URL, *PONG, "--webhook-private", "--webhook-kind", "x"], "--webhook-kind, --webhook-private: only with"),
        ([URL, *PONG, "--webhook", "http://10.0.0.1/", "--webhook-secret", "abc"], "--webhook-private"),
    ],
)
def test_one_line_says_what_is_wrong(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["watch", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("streamingvlm: error: ")
    assert message in line
    assert "abc" not in line


class Nothing(ScriptedSource):
    """A camera that is down all the time."""

    def __iter__(self) -> Iterator[Chunk]:
        if self.name == "broken":
            raise SourceError("it is broken")
        return iter(())


def test_a_stream_that_saw_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine(ScriptedModel(lambda *_: "a"))
    assert follow([Watched("door", Nothing(1), {})], engine, "quiet") == 0
    assert capsys.readouterr().err.splitlines() == [NOTHING]


def test_one_that_failed_leaves_that_to_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    source = Nothing(1)
    source.name = "broken"
    with pytest.raises(SourceError, match="it is broken"):
        follow([Watched("door", source, {})], Engine(ScriptedModel(lambda *_: "a")), "quiet")
    assert capsys.readouterr().err == ""


def test_the_summary_counts_events_that_did_not_arrive() -> None:
    hook = Webhook("https://door.example/secret", "whatever")
    assert lost([object(), hook]) == []
    hook.deliveries.delivered, hook.deliveries.failed, hook.deliveries.dropped = 5, 2, 1
    assert lost([hook]) == ["lost     3 of 8 events did not reach https://door.example:443"]


def test_ctrl_c_does_not_wait_for_a_webhook_that_hangs() -> None:
    with receiver(sleep(3)) as server:
        hook = Webhook(server.url, "whatever", allow_private=True, timeout=3.0)
        hook.write(Gap(0, 1, "timeout"))
        server.wait(1)
        hook.close()
        began = time.monotonic()
        settle([object(), hook], 0.1, 0.1)
        assert time.monotonic() - began < 1
        assert lost([hook]) == [f"lost     1 of 1 events did not reach http://127.0.0.1:{server.port}"]


class Cut(ScriptedSource):
    """From second ``at`` on, until it breaks."""

    def __init__(self, count: int, at: float) -> None:
        super().__init__(count, error=SourceError("it is cut"))
        self.at = at

    def __iter__(self) -> Iterator[Chunk]:
        return (chunk for chunk in super().__iter__() if chunk.start >= self.at)


def test_a_receiver_that_was_down_gets_it_from_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "DRAIN", 0.3)
    monkeypatch.setattr(webhook, "DRAIN_RETRY", 0.05)

    def run(status: int, count: int, hooked: bool = True) -> list[str]:
        """The words that arrive."""
        with receiver(status) as server, StateFolder(tmp_path) as state:
            kept = state.stream("film")
            request = WebhookRequest(server.url, "whatever", ("commentary.done",), True)
            outputs = [request.open(kept)] if hooked else []
            source = Cut(count, 0.0)
            one = Watched("film", source, {}, outputs, kept=kept, reopen=lambda at: Cut(count, at or 0.0))
            with Runtime(Engine(ScriptedModel(lambda start, *_: f"{start:g}"))) as runtime:
                stream = one.start(runtime, Quiet())
                assert stream is not None
                with suppress(SourceError):
                    stream.wait()
            settle(outputs, 5.0, 5.0)
        records = [json.loads(request.body) for request in server.requests]
        assert all(record["stream"] == "scripted" for record in records)
        return [record["text"] for record in records]

    assert run(503, 2)[0] == "0", "nothing arrives"
    assert run(200, 4) == ["0", "1", "2", "3"]
    assert run(200, 5) == ["4"], "what has arrived is not sent again"
    assert run(200, 6, hooked=False) == []
    assert run(200, 7) == ["5", "6"]
    (mark,) = tmp_path.glob("*/webhook")
    mark.unlink()
    assert run(200, 8) == ["7"], "what was told before there was a webhook is not sent"
