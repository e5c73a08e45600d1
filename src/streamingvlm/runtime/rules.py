"""What a stream is watched for: a rule is asked of the model, or found in the words that are said anyway.

A rule on words costs nothing and is blind to what is not said. A rule that is asked sees what the model sees and costs
a question each time. Both lead to findings, and :class:`~.rule_state.Rule` makes alerts of them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import regex

from ..core.errors import OptionError
from ..core.events import Answer, Question, Verdict
from .limits import RULE_SECONDS, RULE_TEXT

#: How rules are called.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
#: Most characters of what a rule watches for.
MOST_TEXT = 1000
#: The verdicts in the order in which options are listed.
VERDICTS: tuple[Verdict, ...] = ("yes", "no", "unknown")
#: ``until``: the rule is disarmed behind its first alert.
RAISED = "raised"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSpec:
    """A rule; see :class:`AskedRule` and :class:`SaysRule`. Times are seconds of the stream.

    ``on_after``: findings of yes in a row after which it is raised; ``off_after``: findings of no in a row after which
    it may be cleared; ``merge_gap``: it is cleared only when it was not found for so long: what is found before that
    belongs to the same event; ``cooldown``: least time from one ``raised`` to the next; ``max_event``: an event is
    cleared after so long, and may be raised anew (0: no bound); ``until``: "" for ever, ``raised``: the rule is
    disarmed when its first event is cleared, or a number: the second of the stream at which it is disarmed.
    OptionError for what cannot be meant.
    """

    name: str
    text: str
    on_after: int = 2
    off_after: int = 3
    cooldown: float = 60.0
    merge_gap: float = 60.0
    until: str | float = ""
    max_event: float = 300.0

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise OptionError(
                "the name of a rule is up to 64 letters, digits, '.', '_' and '-', with a letter or a digit first, "
                f"not {self.name[:80]!r}"
            )
        if not self.text.strip() or len(self.text) > MOST_TEXT or not _is_text(self.text):
            raise self.error(f"needs 1 to {MOST_TEXT} characters that say what it watches for")
        for name in ("on_after", "off_after"):
            self._check(name, getattr(self, name), 1, 1_000_000, whole=True)
        for name in ("cooldown", "merge_gap", "max_event"):
            self._check(name, getattr(self, name), 0, math.inf)
        if not isinstance(self.until, str):
            self._check("until", self.until, 0, math.inf)
        elif self.until not in ("", RAISED):
            raise self.error(f"until is '{RAISED}' or a number of seconds, not {self.until!r}")

    def error(self, what: str) -> OptionError:
        """What is wrong with this rule."""
        return OptionError(f"rule {self.name!r} {what}" if what.startswith("needs") else f"rule {self.name!r}: {what}")

    def _check(self, name: str, value: float, least: float, most: float, whole: bool = False) -> None:
        kind = int if whole else (int, float)
        bad = isinstance(value, bool) or not isinstance(value, kind)
        if bad or not (math.isfinite(value) and least <= value <= most):
            what = "whole number" if whole else "number"
            above = f"from {least:.12g}" + (f" to {most:.12g}" if math.isfinite(most) else " up")
            raise self.error(f"{name} must be a {what} {above}, not {value!r}")

    @property
    def record(self) -> dict[str, Any]:
        """The rule as a JSON object: what a file of rules may hold; only what differs from the defaults."""
        record: dict[str, Any] = {"name": self.name, self.kind: self.text}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name not in ("name", "text") and value != one.default:
                record[one.name] = list(value) if isinstance(value, tuple) else value
        return record

    @property
    def kind(self) -> str:
        """``ask`` or ``says``."""
        raise NotImplementedError

    @property
    def summary(self) -> str:
        """The rule in one line, without its name."""
        parts = [f"{key}={value}" for key, value in self.record.items() if key not in ("name", self.kind)]
        return "; ".join([self.text if self.kind == "ask" else f"says: {self.text}", *parts])


@dataclass(frozen=True, slots=True, kw_only=True)
class SaysRule(RuleSpec):
    """A rule on the words: a step in whose commentary the regular expression ``text`` is found is a finding of yes.

    Capitals do not matter, unless ``(?-i:...)`` says so. As a rule one match is enough, and it is cleared as soon as
    ``off_after`` steps have passed without.
    """

    on_after: int = 1
    merge_gap: float = 0.0

    def __post_init__(self) -> None:
        RuleSpec.__post_init__(self)
        try:
            regex.compile(self.text, regex.IGNORECASE)
        except (regex.error, OverflowError, RecursionError) as error:
            raise self.error(f"{self.text!r} is no regular expression: {error}") from None

    @property
    def kind(self) -> str:
        """See :class:`RuleSpec`."""
        return "says"

    def verdict(self, said: str) -> Verdict:
        """What the words of one step are found to be; only the first ``RULE_TEXT`` characters are read.

        ``unknown`` if that takes longer than ``RULE_SECONDS``: all streams of the engine wait meanwhile.
        """
        try:
            found = regex.search(self.text, said[:RULE_TEXT], regex.IGNORECASE, timeout=RULE_SECONDS)
        except TimeoutError:
            return "unknown"
        return "yes" if found else "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRule(RuleSpec):
    """A rule that the model is asked: every ``every`` seconds the options are weighed as what would be replied.

    ``threshold``: least probability of yes. ``question``: what is asked ("": a question made of ``text``); ``yes``,
    ``no``, ``unknown``: replies that mean so; ``prefix`` and ``as_commentary``: see :class:`Question`. A model that
    was trained on commentary alone is asked by its own sentences: ``question`` "-" for none, and as ``yes`` and ``no``
    what it would say.
    """

    every: float = 2.0
    threshold: float = 0.5
    question: str = ""
    yes: tuple[str, ...] = ("yes",)
    no: tuple[str, ...] = ("no",)
    unknown: tuple[str, ...] = ("unknown",)
    prefix: str = ""
    as_commentary: bool = False

    def __post_init__(self) -> None:
        RuleSpec.__post_init__(self)
        self._check("every", self.every, 0, math.inf)
        self._check("threshold", self.threshold, 0, 1)
        options = (*self.yes, *self.no, *self.unknown)
        if not self.yes or not self.no:
            raise self.error("needs an option that means yes and one that means no")
        if len(set(options)) != len(options) or not all(options):
            raise self.error("the options are different texts, none of them empty")
        if not all(map(_is_text, (*options, self.prefix, self.question))):
            raise self.error("question, prefix and options must be text in Unicode")

    @property
    def kind(self) -> str:
        """See :class:`RuleSpec`."""
        return "ask"

    @property
    def asked(self) -> Question:
        """What the stream is asked."""
        text = self.question or (
            f"Look at the video as it is now. Is this so: {self.text}? "
            "Answer with one word alone: yes, no or unknown (if it cannot be seen)."
        )
        options = (*self.yes, *self.no, *self.unknown)
        return Question("" if text == "-" else text, options, self.prefix, self.as_commentary)

    def verdict(self, answer: Answer) -> tuple[Verdict, float | None]:
        """What an answer means, and how probable yes is (None: the options were not weighed).

        Weighed: yes if it is as probable as ``threshold``, else unknown if that is the most probable, else no. A reply
        in words is read by :func:`read_verdict`.
        """
        weights = answer.probabilities
        if len(weights) != len(self.yes) + len(self.no) + len(self.unknown):
            return read_verdict(answer.text, self.yes, self.no), None
        yes, no = sum(weights[: len(self.yes)]), sum(weights[len(self.yes) :][: len(self.no)])
        unknown = sum(weights[len(self.yes) + len(self.no) :])
        if not math.isfinite(yes):
            return "unknown", None
        if yes >= self.threshold:
            return "yes", yes
        return ("unknown" if unknown > max(yes, no) else "no"), yes


def read_verdict(reply: str, yes: Sequence[str] = ("yes",), no: Sequence[str] = ("no",)) -> Verdict:
    """The verdict of a reply in words, which is an option of ``yes`` or ``no`` alone, or JSON ``{"verdict": "yes"}``.

    Capitals, quotes and a full stop around it do not matter. Anything else is unknown: "yes, nothing happens" may mean
    either, so nothing is ever searched for within a reply.
    """
    text = reply.strip()
    if text.startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return "unknown"
        found = value.get("verdict")
        text = found if isinstance(found, str) else ""
    word = _word(text)
    if word in map(_word, yes):
        return "yes"
    return "no" if word in map(_word, no) else "unknown"


def _word(text: str) -> str:
    return text.strip().strip("\"'*`.!").strip().lower()


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
