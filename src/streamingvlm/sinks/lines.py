"""What a person reads of an event: one line or more, or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..core.events import (
    Alert,
    Answered,
    Asked,
    Commentary,
    Dropped,
    Event,
    Gap,
    InstructionUpdated,
    Rebased,
    Resumed,
    RuleChanged,
    SourceCode,
    SourceFormat,
    SourceStatus,
    StepFailed,
)
from .text import printable

#: What to print beside the words from ``start`` to ``end`` seconds (the truth of a recorded match).
Beside = Callable[[float, float], str]
#: What a person is told where a source does not say more.
REASONS: dict[SourceCode, str] = {
    "refused": "the connection is refused",
    "timeout": "the camera does not answer",
    "dns": "its name is not known",
    "auth": "it wants another user or password",
    "not_found": "there is nothing of this name",
    "tls": "its certificate is refused",
    "no_video": "it sends no video",
    "codec": "its video cannot be decoded",
    "stalled": "no frame comes",
    "ended": "it has ended the connection",
    "format": "what it sends is no video",
}


#: Seconds in which the same trouble is told once, however often the source or the endpoint is tried.
QUIET = 60.0


class Line(NamedTuple):
    """``style``: of rich, where there are colours."""

    text: str
    style: str = ""


class Repeats:
    """Which events a person has just been told: a camera that is down for an hour is no news at every try.

    A trouble is told when it begins, when it is another one, and once in ``QUIET`` seconds with the number of tries.
    Two that alternate are both known. It is over when frames (words, for steps that failed) come again.
    """

    def __init__(self) -> None:
        self._told: dict[tuple[type[Event], str, str], float] = {}

    def again(self, event: Event) -> bool:
        """Whether ``event`` need not be told, since the same was told a short while ago."""
        match event:
            case SourceStatus(state="running" | "ended"):
                self._forget(SourceStatus)
            case Commentary():
                self._forget(StepFailed)
            case SourceStatus(code=code) | StepFailed(code=code) if code:
                key = (type(event), code, event.reason)
                if event.wall < self._told.get(key, -QUIET) + QUIET:
                    return True
                self._told = {told: wall for told, wall in self._told.items() if event.wall < wall + QUIET}
                self._told[key] = event.wall
        return False

    def _forget(self, kind: type[Event]) -> None:
        self._told = {key: wall for key, wall in self._told.items() if key[0] is not kind}


def event_lines(event: Event, now: float, beside: Beside | None = None) -> list[Line]:
    """What to print of ``event``; ``now``: seconds of the stream, where the event does not say."""
    match event:
        case Commentary():
            return commentary_lines(event, beside)
        case Alert():
            return [_alert(event)]
        case Answered(number=number):
            reply = f"answer {number}: {event.answer.text}" if event.answer else f"no answer {number}: {event.error}"
            return [_line(now, reply, "bold green" if event.answer else "yellow")]
        case Asked(number=number, text=text, time=time):
            return [_line(time, f"question {number}: {text}", "green")]
        case StepFailed():
            return [_line(event.start, f"-- no words: {_failure(event)}", "yellow")]
        case SourceStatus(code=code):
            return [_line(now, f"-- {_status(event)}", "yellow" if code else "dim")]
        case Gap(start=start):
            now = start
    text = _told(event)
    return [_line(now, f"-- {text}", "dim")] if text else []


def commentary_lines(event: Commentary, beside: Beside | None = None) -> list[Line]:
    """What to print for a step: that steps were dropped before it, and its words (nothing for a silent step)."""
    lines = []
    if event.dropped:
        steps = "step" if event.dropped == 1 else "steps"
        lines.append(_line(event.start, f"({event.dropped} {steps} dropped to keep up)", "dim"))
    text = printable(event.text) + ("" if event.finish_reason == "stop" else f" [{event.finish_reason}]")
    truth = printable(beside(event.start, event.end)) if beside else ""
    if truth or (beside and text):
        lines.append(Line(f"{stamp(event.start)} {text or '-':40} | {truth or '-'}"))
    elif text:
        lines.append(Line(f"{stamp(event.start)} {text}"))
    return lines


def stamp(seconds: float) -> str:
    """``[  12.0s]``"""
    return f"[{seconds:6.1f}s]"


def _line(seconds: float, text: str, style: str) -> Line:
    return Line(f"{stamp(seconds)} {printable(text)}", style)


def _status(event: SourceStatus) -> str:
    why = event.reason or REASONS.get(event.code, "")
    if event.code and event.code not in why:
        why += f" ({event.code})"
    state = {"connecting": "connecting", "running": "the video runs", "ended": "the video has ended"}
    broken = event.code and event.state == "connecting"
    text = "no video" if broken else state.get(event.state, "no video")
    text += f": {why}" if why else ""
    return text + _tries(event)


def _tries(event: SourceStatus | StepFailed) -> str:
    """How often it was tried, and when it is next."""
    tries = f", {event.tries} tries" if event.tries > 1 else ""
    return f"{tries}, next try in {event.retry_in:.0f} s" if event.retry_in else tries


def _failure(event: StepFailed) -> str:
    text = f"{event.reason} ({event.code})"
    text += f", {event.dropped} steps dropped before" if event.dropped else ""
    return text + _tries(event)


def _alert(event: Alert) -> Line:
    what = {"raised": "begins", "updated": "goes on", "cleared": "ends"}[event.kind]
    sure = "" if event.probability is None else f" ({event.verdict}, {event.probability:.0%})"
    since = f", since {event.since:.1f} s" if event.since < event.time else ""
    said = f": {event.evidence}" if event.evidence else ""
    return _line(
        event.time, f"!! {event.rule} {what}{since}{sure}{said}", "bold red" if event.kind == "raised" else "red"
    )


def _told(event: Event) -> str:
    """Of an event that changes nothing in what is seen or said ("": nothing)."""
    match event:
        case Gap(start=start, end=end, reason=reason):
            return f"no video from {start:.1f} s to {end:.1f} s: {reason}"
        case SourceFormat(width=width, height=height, codec=codec, rate=rate):
            return f"{width}x{height} {codec}" + (f", {rate:g} frames a second" if rate else "")
        case Resumed(time=time, lost_seconds=lost):
            return f"resumed at {time:.1f} s; {lost:.1f} s were not watched"
        case Rebased(time=time, shown=shown):
            return f"the model is told {shown:.1f} s for {time:.1f} s from now on"
        case InstructionUpdated(version=version, text=text):
            return f"instruction {version}: {text}"
        case RuleChanged(rule=rule, text=text):
            return f"rule {rule}: {text}" if text else f"rule {rule} is removed"
        case Dropped(count=count):
            return f"{count} events were lost"
    return ""
