"""What a typed line asks for: a question, or a command behind a slash."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..core.errors import OptionError
from ..runtime.rule_files import parse_rule
from ..runtime.rules import RuleSpec


@dataclass(frozen=True, slots=True)
class AskLine:
    """A question."""

    text: str


@dataclass(frozen=True, slots=True)
class InstructLine:
    """Another standing instruction."""

    text: str


@dataclass(frozen=True, slots=True)
class RuleLine:
    """A rule, or another one by the same name."""

    spec: RuleSpec


@dataclass(frozen=True, slots=True)
class UnruleLine:
    """A rule less."""

    name: str


@dataclass(frozen=True, slots=True)
class CancelLine:
    """Give up question ``number`` (None: the newest that is open)."""

    number: int | None = None


@dataclass(frozen=True, slots=True)
class RebaseLine:
    """Let time stamps start anew at ``shown`` seconds (None: where that is best)."""

    shown: float | None = None


@dataclass(frozen=True, slots=True)
class HelpLine:
    """What can be typed."""


@dataclass(frozen=True, slots=True)
class QuitLine:
    """End the stream."""


TypedLine = AskLine | InstructLine | RuleLine | UnruleLine | CancelLine | RebaseLine | HelpLine | QuitLine

#: What can be typed, a line each.
HELP = (
    "TEXT                 ask the model; the commentary goes on",
    "/instruct TEXT       another standing instruction, from the next step on",
    "/rule NAME: WHAT     watch for it; NAME: says: REGEX reads words alone",
    "/unrule NAME         watch for it no more",
    "/cancel [NUMBER]     give up a question, the newest if no number is given",
    "/rebase [SECONDS]    let the time that the model is told start anew",
    "/help                this",
    "/quit                end the stream",
)
_NAMES = tuple(re.findall(r"^/\w+", "\n".join(HELP), re.MULTILINE))


def parse_line(text: str) -> TypedLine | None:
    """What ``text`` asks for; None for a line without anything. :class:`OptionError`, in one line, for no command."""
    text = text.strip()
    if not text.startswith("/"):
        return AskLine(text) if text else None
    name, _, rest = text.partition(" ")
    rest = rest.strip()
    match name:
        case "/instruct":
            return InstructLine(_wanted(rest, "/instruct TEXT"))
        case "/rule":
            return RuleLine(parse_rule(_wanted(rest, "/rule NAME: WHAT")))
        case "/unrule":
            return UnruleLine(_wanted(rest, "/unrule NAME"))
        case "/cancel":
            return CancelLine(_number(rest))
        case "/rebase":
            return RebaseLine(_seconds(rest))
        case "/help" | "/quit" if rest:
            raise OptionError(f"{name} stands alone")
        case "/help":
            return HelpLine()
        case "/quit":
            return QuitLine()
    raise OptionError(f"there is no command {name[:80]} (there are {', '.join(_NAMES)})")


def _wanted(rest: str, form: str) -> str:
    if not rest:
        raise OptionError(f"it is {form}")
    return rest


def _number(rest: str) -> int | None:
    if not rest:
        return None
    if not (rest.isascii() and rest.isdigit() and len(rest) < 10):
        raise OptionError(f"/cancel takes the number of a question, not {rest[:80]!r}")
    return int(rest)


def _seconds(rest: str) -> float | None:
    try:
        shown = float(rest) if rest else None
    except ValueError:
        shown = math.nan
    if shown is not None and not math.isfinite(shown):
        raise OptionError(f"/rebase takes a number of seconds, not {rest[:80]!r}")
    return shown
