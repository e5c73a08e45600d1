"""What a person reads of the events of a stream."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from streamingvlm.core.events import (
    Alert,
    Answer,
    AnswerDelta,
    Answered,
    Asked,
    Closed,
    Commentary,
    Delta,
    Dropped,
    Event,
    Gap,
    InstructionUpdated,
    Question,
    Rebased,
    Resumed,
    RuleChanged,
    SourceFormat,
    SourceStatus,
    StepFailed,
    StreamOpened,
)
from streamingvlm.sinks.lines import REASONS, Repeats, event_lines
from streamingvlm.sinks.terminal import JsonStdout, Plain, Terminal

STOP = "\x1b[2J"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            SourceStatus("reconnecting", "timeout", tries=1, retry_in=5.0),
            "[  12.0s] -- no video: the camera does not answer (timeout), next try in 5 s",
        ),
        (SourceStatus("stalled", "stalled", "no frame for 10 s"), "[  12.0s] -- no video: no frame for 10 s (stalled)"),
        (
            SourceStatus("connecting", "refused", retry_in=1.0),
            "[  12.0s] -- no video: the connection is refused, next try in 1 s",
        ),
        (SourceStatus("connecting"), "[  12.0s] -- connecting"),
        (SourceStatus("running"), "[  12.0s] -- the video runs"),
        (SourceStatus("ended"), "[  12.0s] -- the video has ended"),
        (SourceFormat(1280, 720, "hevc", 25.0), "[  12.0s] -- 1280x720 hevc, 25 frames a second"),
        (Gap(9, 30.5, "timeout"), "[   9.0s] -- no video from 9.0 s to 30.5 s: timeout"),
        (Asked(2, f"who\n{STOP}?", 14.0), "[  14.0s] question 2: who \ufffd[2J?"),
        (Answered(2, Answer(Question("who?"), 14, "Ada")), "[  12.0s] answer 2: Ada"),
        (Answered(3, None, "cancelled"), "[  12.0s] no answer 3: cancelled"),
        (RuleChanged("fall", "somebody falls"), "[  12.0s] -- rule fall: somebody falls"),
        (RuleChanged("fall", ""), "[  12.0s] -- rule fall is removed"),
        (
            Alert("fall", "raised", 1, 10.0, 12.0, "yes", 0.93, "he lies"),
            "[  12.0s] !! fall begins, since 10.0 s (yes, 93%): he lies",
        ),
        (Alert("fall", "cleared", 1, 20.0, 20.0), "[  20.0s] !! fall ends"),
        (Resumed(30.0, 12.5), "[  12.0s] -- resumed at 30.0 s; 12.5 s were not watched"),
        (Rebased(30.0, 1.0), "[  12.0s] -- the model is told 1.0 s for 30.0 s from now on"),
        (InstructionUpdated(1, "be brief", None), "[  12.0s] -- instruction 1: be brief"),
        (Dropped(3), "[  12.0s] -- 3 events were lost"),
        (Commentary(3, 4, "a\tb", finish_reason="length"), "[   3.0s] a b [length]"),
        (Commentary(3, 4, ""), None),
        (
            StepFailed(3, 4, "rate_limit", f"too many\n{STOP}", dropped=1, retry_in=2.0),
            "[   3.0s] -- no words: too many \ufffd[2J (rate_limit), 1 steps dropped before, next try in 2 s",
        ),
        (StepFailed(3, 4, "no_text", "it declines"), "[   3.0s] -- no words: it declines (no_text)"),
        (Delta(3, 4, "a"), None),
        (AnswerDelta(1, "a"), None),
        (StreamOpened("a", ""), None),
        (Closed("it broke"), None),  # the program ends with that line
    ],
)
def test_lines(event: Event, line: str | None) -> None:
    assert [one.text for one in event_lines(event, 12.0)] == ([line] if line else [])


def told_at(*events: Event) -> list[float]:
    """When a person is told, by the wall clock of the events."""
    repeats = Repeats()
    return [event.wall for event in events if not repeats.again(event)]


def test_a_camera_that_is_down_is_told_once_a_minute() -> None:
    tries = [SourceStatus("connecting", "refused", "no", 1 + n, 5.0, wall=1e9 + 5 * n) for n in range(720)]
    walls = told_at(*tries)
    assert walls == [1e9 + 60 * n for n in range(60)]
    (line,) = event_lines(tries[719], 0.0)
    assert line.text == "[   0.0s] -- no video: no (refused), 720 tries, next try in 5 s"


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (SourceStatus("connecting", "refused", "no", wall=1.0), False),
        (SourceStatus("connecting", "dns", "no", wall=1.0), True),
        (SourceStatus("connecting", "refused", "other", wall=1.0), True),
        (StepFailed(0, 1, "timeout", "no", wall=1.0), True),
    ],
)
def test_another_trouble_is_told_at_once(second: Event, told: bool) -> None:
    first = SourceStatus("connecting", "refused", "no", wall=0.5)
    assert told_at(first, second) == [0.5, *[1.0] * told]
    assert told_at(first, second, replace(first, wall=2.0)) == [0.5, *[1.0] * told]


def test_what_was_over_is_told_again() -> None:
    down, failed = SourceStatus("reconnecting", "ended", wall=1.0), StepFailed(0, 1, "timeout", "late", wall=2.0)
    assert told_at(down, failed, SourceStatus("running", wall=3.0), failed, down) == [1.0, 2.0, 3.0, 1.0]
    assert told_at(down, failed, Commentary(1, 2, "a", wall=3.0), down, failed) == [1.0, 2.0, 3.0, 2.0]


def test_every_code_has_words() -> None:
    for code in REASONS:
        (line,) = event_lines(SourceStatus("reconnecting", code), 0.0)
        assert code in line.text
        assert line.style == "yellow"


EVENTS: list[Event] = [
    StreamOpened("door", ""),
    Delta(0, 1, "a"),
    Commentary(0, 1, "a"),
    AnswerDelta(1, "b"),
    SourceStatus("stalled", "stalled"),
    SourceStatus("stalled", "stalled", tries=2),
    Gap(1, 9, "stalled"),
    SourceStatus("running"),
    Alert("fall", "raised", 1, 9.0, 9.0),
]
LINES = [
    "[   0.0s] a",
    "[   1.0s] -- no video: no frame comes (stalled)",
    "[   1.0s] -- no video from 1.0 s to 9.0 s: stalled",
    "[   9.0s] -- the video runs",
    "[   9.0s] !! fall begins",
]


def shown(screen: Plain | JsonStdout) -> list[str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for event in EVENTS:
            screen.write(event)
    return out.getvalue().splitlines()


def test_plain_lines_know_the_time() -> None:
    assert shown(Plain()) == LINES


def test_the_live_view_shows_the_same_lines() -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    screen = Terminal(console=console)
    for event in EVENTS:
        screen.write(event)
    screen.close()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert [line for line in LINES if line not in text] == []


@pytest.mark.parametrize("deltas", [False, True])
def test_json_has_all_events_and_deltas_on_request(deltas: bool) -> None:
    kinds = [json.loads(line)["type"] for line in shown(JsonStdout(deltas=deltas))]
    assert kinds[-2:] == ["source.status", "rule.alert"]
    assert [kind for kind in kinds if kind.endswith("delta")] == ["commentary.delta", "answer.delta"] * deltas
    assert len(kinds) == len(EVENTS) - 2 * (not deltas)
