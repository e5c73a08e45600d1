"""From findings to alerts: one raised and one cleared for what happens once, however much the findings flicker.

No clock and no thread: all times come with the findings, so the same findings always make the same alerts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ..core.errors import OptionError
from ..core.events import Alert, AlertKind, Verdict
from .limits import EVIDENCE
from .rules import RAISED, RuleSpec

#: Slack for comparing times that were added up as floats, seconds.
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at ``time``, seconds of the stream. ``start``: where what was looked at begins (None: there)."""

    time: float
    verdict: Verdict
    probability: float | None = None
    start: float | None = None


@dataclass(slots=True)
class RuleState:
    """Where a rule stands; JSON by :func:`dataclasses.asdict`.

    ``number``: of the last event; ``active``: it was raised and not cleared. ``yes_row``, ``no_row``: findings in a
    row; ``since``: the first yes of the row, or of the event; ``last``: the last yes; ``raised_at``: of the last event.
    ``words``: said since ``since``; ``heard``: since the last finding. Counted: ``findings``, ``unknown`` ones,
    ``failed`` ones (unknown as well), and ``suppressed`` events that were over before the cooldown was.
    """

    armed: bool = True
    number: int = 0
    active: bool = False
    yes_row: int = 0
    no_row: int = 0
    since: float = 0.0
    last: float = 0.0
    raised_at: float | None = None
    words: str = ""
    heard: str = ""
    findings: int = 0
    unknown: int = 0
    failed: int = 0
    suppressed: int = 0


class Rule:
    """The state machine of one rule. Findings come in order of time.

    Of an unknown finding nothing follows: it neither raises nor clears, and a row of others goes on behind it.
    """

    def __init__(self, spec: RuleSpec, state: RuleState | None = None) -> None:
        self.spec = spec
        self.state = state or RuleState()

    def hear(self, text: str) -> None:
        """Words that were said: evidence, if something is found next."""
        if text and self.state.armed:
            self.state.heard = _joined(self.state.heard, text)

    def find(self, finding: Finding) -> list[Alert]:
        """Take a finding; what follows from it."""
        state, spec = self.state, self.spec
        if not state.armed:
            return []
        if isinstance(spec.until, int | float) and finding.time >= spec.until - EPS:
            return self.disarm(finding.time)
        state.findings += 1
        if finding.verdict == "yes" or state.active or state.yes_row:
            state.words = _joined(state.words, state.heard)
        state.heard = ""
        if finding.verdict == "unknown":
            state.unknown += 1
            return []
        return self._go_on(finding) if state.active else self._wait(finding)

    def interrupt(self) -> None:
        """Nothing was seen for a while: findings before and behind it are not in a row."""
        if not self.state.active:
            self._forget()
        self.state.no_row = 0

    def disarm(self, time: float) -> list[Alert]:
        """Nothing is found any more; what goes on is cleared."""
        alerts = self._clear(Finding(time, "unknown")) if self.state.active else []
        self.state.armed = False
        return alerts

    def replay(self, alert: Alert) -> None:
        """Take over an alert of this rule that was told by an earlier run behind the state that was saved."""
        state = self.state
        state.number, state.active = alert.number, alert.kind != "cleared"
        state.since, state.last = alert.since, alert.time if alert.last is None else alert.last
        state.yes_row = state.no_row = 0
        state.words = alert.evidence if state.active else ""
        if alert.kind == "raised":
            state.raised_at = alert.time
        elif alert.kind == "cleared" and self.spec.until == RAISED:
            state.armed = False

    def _wait(self, finding: Finding) -> list[Alert]:
        """A finding while nothing is raised."""
        state, spec = self.state, self.spec
        if finding.verdict == "no":
            state.suppressed += state.yes_row >= spec.on_after
            self._forget()
            return []
        if not state.yes_row:
            state.since = finding.time if finding.start is None else finding.start
        state.yes_row, state.last = state.yes_row + 1, finding.time
        cool = state.raised_at is None or finding.time - state.raised_at >= spec.cooldown - EPS
        if state.yes_row < spec.on_after or not cool:
            return []
        state.number, state.active, state.no_row, state.raised_at = state.number + 1, True, 0, finding.time
        return [self._alert("raised", finding)]

    def _go_on(self, finding: Finding) -> list[Alert]:
        """A finding while an event goes on."""
        state, spec = self.state, self.spec
        if finding.verdict == "yes":
            paused, state.no_row, state.last = state.no_row >= spec.off_after, 0, finding.time
        else:
            paused, state.no_row = False, state.no_row + 1
        over = state.no_row >= spec.off_after and finding.time - state.last >= spec.merge_gap - EPS
        if over or (spec.max_event and finding.time - state.since >= spec.max_event - EPS):
            return self._clear(finding)
        return [self._alert("updated", finding)] if paused else []

    def _clear(self, finding: Finding) -> list[Alert]:
        alert = self._alert("cleared", finding)
        self.state.active = False
        self._forget()
        self.state.armed = self.spec.until != RAISED
        return [alert]

    def _forget(self) -> None:
        self.state.yes_row = self.state.no_row = 0
        self.state.words = ""

    def _alert(self, kind: AlertKind, finding: Finding) -> Alert:
        state = self.state
        return Alert(
            self.spec.name,
            kind,
            state.number,
            state.since,
            finding.time,
            finding.verdict,
            finding.probability,
            state.words,
            state.last,
        )


def save_state(state: RuleState) -> dict[str, Any]:
    """``state`` as a JSON object."""
    return asdict(state)


def load_state(record: object) -> RuleState:
    """What :func:`save_state` made; OptionError for anything else. Fields that are missing have their defaults."""
    known = {one.name: one.default for one in fields(RuleState)}
    if not isinstance(record, dict) or not record.keys() <= known.keys():
        raise OptionError(f"the state of a rule has {', '.join(known)}, and nothing else")
    for name, value in record.items():
        kinds: tuple[type, ...] = (float, int, type(None)) if name == "raised_at" else (type(known[name]),)
        kinds = (float, int) if kinds == (float,) else kinds
        if not isinstance(value, kinds) or isinstance(value, bool) != (bool in kinds):
            raise OptionError(f"{name} of a rule's state cannot be {value!r}")
    return RuleState(**record)


def _joined(one: str, other: str) -> str:
    """Both texts, of too much the end."""
    text = f"{one} {other}".strip()
    return text if len(text) <= EVIDENCE else "…" + text[len(text) - EVIDENCE + 1 :]
