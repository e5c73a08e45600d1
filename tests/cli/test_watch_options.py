"""Options of ``watch`` that cannot be meant, and what its summary says."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from streamingvlm import cli
from streamingvlm.cli.follow import NOTHING, follow, lost, settle
from streamingvlm.cli.plan import Watched
from streamingvlm.core.errors import SourceError
from streamingvlm.core.events import Chunk, Gap
from streamingvlm.engine.engine import Engine
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
