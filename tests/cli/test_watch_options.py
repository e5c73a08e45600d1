"""Options of ``watch`` that cannot be meant, and what its summary says."""

from __future__ import annotations

import time

import pytest

from streamingvlm import cli
from streamingvlm.cli.follow import lost, settle
from streamingvlm.core.events import Gap
from streamingvlm.core.run_stats import RunStats
from streamingvlm.sinks.webhook import Webhook
from support.receiver import receiver, sleep

URL = "http://127.0.0.1:9/match.ts"
PONG = ("--kind", "arcade:pong")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "a source is empty"),
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


def test_a_stream_that_saw_nothing_says_so() -> None:
    assert RunStats().summary() == ["watched  nothing: no step of video has come"]


def test_the_summary_counts_events_that_did_not_arrive() -> None:
    hook = Webhook("https://door.example/secret", "whatever")
    assert lost([object(), hook]) == []
    hook.deliveries.delivered, hook.deliveries.failed, hook.deliveries.dropped = 5, 2, 1
    assert lost([hook]) == ["webhook  3 of 8 events did not reach https://door.example:443"]


def test_ctrl_c_does_not_wait_for_a_webhook_that_hangs() -> None:
    with receiver(sleep(3)) as server:
        hook = Webhook(server.url, "whatever", allow_private=True, timeout=3.0)
        hook.write(Gap(0, 1, "timeout"))
        server.wait(1)
        hook.close()
        began = time.monotonic()
        settle([object(), hook], 0.1, 0.1)
        assert time.monotonic() - began < 1
        assert lost([hook]) == [f"webhook  1 of 1 events did not reach http://127.0.0.1:{server.port}"]
