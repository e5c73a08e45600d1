"""Watches a stream by its rules: hears its commentary, asks it between two steps, and tells alerts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..core.errors import CapacityError, OptionError, StreamingVLMError
from ..core.events import Alert, Answer, Commentary, Event, Gap, Question, Resumed, RuleChanged
from ..sinks.files import printable
from ..sinks.records import event_of
from .backend import StreamSession
from .limits import ANSWER_TOKENS
from .pipeline import Pipeline
from .rule_files import check_rules, rule_of
from .rule_state import EPS, Finding, Rule, load_state, save_state
from .rules import AskedRule, RuleSpec, SaysRule
from .talk import Asker, Replies


@dataclass(slots=True)
class _Watched:
    """A rule of the stream.

    ``due``: when it is asked next; ``added``: while the stream ran; ``told``: whether the sinks know of it;
    ``tokens``: that the model reads each time.
    """

    rule: Rule
    added: bool = False
    due: float = 0.0
    told: bool = False
    tokens: int = 0

    @property
    def spec(self) -> RuleSpec:
        return self.rule.spec

    @property
    def every(self) -> float:
        return self.spec.every if isinstance(self.spec, AskedRule) else 0.0

    def is_due(self, now: float) -> bool:
        """Whether it is asked at ``now`` seconds; also where the stream began anew before the time that was saved."""
        return now >= self.due - EPS or self.due > now + self.every + EPS


class Watcher:
    """A sink and a companion of one stream. All is called on the engine's thread.

    ``asker``: asks the stream (None: only rules on words can be watched, OptionError for others). ``state``: what
    :meth:`state` of an earlier run gave: a rule that is the same goes on as it stood. What was set and removed while
    the stream ran holds again, unless the caller now gives another rule of that name. Its ``told``, if any, are alerts
    and changes of rules that were told behind it, as events or as records of a journal. ``skipped``: times that rules
    were due while the questions before were still under way.
    """

    def __init__(
        self, rules: Sequence[RuleSpec] = (), asker: Asker | None = None, state: Mapping[str, Any] | None = None
    ) -> None:
        self._asker = asker
        self._watched = {spec.name: self._new(spec, False) for spec in check_rules(rules)}
        self._given = [spec.record for spec in rules]
        #: Rules of an earlier run that are not watched any more, or not so.
        self._gone: list[Rule] = []
        self._heard: list[Commentary] = []
        self._asking = False
        self._closed = False
        self.skipped = 0
        if state is not None:
            self._restore(state)

    @property
    def rules(self) -> tuple[RuleSpec, ...]:
        """The rules that are set, those that are disarmed too."""
        return tuple(one.spec for one in list(self._watched.values()))  # any thread may look

    @property
    def counts(self) -> dict[str, dict[str, Any]]:
        """Of each rule whether it is armed and active, how many findings there were, of what kind, and ``tokens``.

        These are what the model reads each time that the rule is asked (0: of a rule on words, or at an endpoint).
        """
        keys = ("armed", "active", "number", "findings", "unknown", "failed", "suppressed")
        return {
            name: {key: getattr(one.rule.state, key) for key in keys} | {"tokens": one.tokens}
            for name, one in list(self._watched.items())
        }

    # What happens to the rules.

    def check(self, session: StreamSession) -> None:
        """Whether the questions of all rules fit into the stream; CapacityError if not."""
        for one in self._watched.values():
            one.tokens = check_fits(one.spec, session)

    def begin(self, pipeline: Pipeline) -> None:
        """Tell which rules there are, but for those that go on, and clear what others have raised."""
        for rule in self._gone:
            pipeline.tell(*rule.disarm(pipeline.session.time))
            if rule.spec.name not in self._watched:
                pipeline.tell(RuleChanged(rule.spec.name, ""))
        for one in self._watched.values():
            if not one.told:
                pipeline.tell(RuleChanged(one.spec.name, one.spec.summary))
            one.told = True

    def set(self, pipeline: Pipeline, spec: RuleSpec) -> None:
        """Set a rule, in place of the one of its name. OptionError for one too many, CapacityError if it does not fit.

        The same rule again changes nothing, unless it was disarmed. What the one before has raised is cleared.
        """
        before = self._watched.get(spec.name)
        if before is not None and before.spec == spec and before.rule.state.armed:
            return
        check_rules([*(one for one in self.rules if one.name != spec.name), spec])
        watched = self._new(spec, True)
        watched.told, watched.tokens = True, check_fits(spec, pipeline.session)
        alerts = []
        if before is not None:
            alerts = before.rule.disarm(pipeline.session.time)
            watched.rule.state.number = before.rule.state.number
        self._watched[spec.name] = watched
        pipeline.tell(*alerts, RuleChanged(spec.name, spec.summary, spec.record))

    def remove(self, pipeline: Pipeline, name: str) -> None:
        """Take a rule away; what it has raised is cleared. OptionError if there is none of that name."""
        watched = self._watched.pop(name, None)
        if watched is None:
            known = ", ".join(self._watched) or "none"
            raise OptionError(f"there is no rule {name!r} (rules: {known})")
        pipeline.tell(*watched.rule.disarm(pipeline.session.time), RuleChanged(name, ""))

    # What the stream tells.

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`."""
        if isinstance(event, Commentary):
            self._heard.append(event)
        elif isinstance(event, Gap | Resumed):
            for one in self._watched.values():
                one.rule.interrupt()

    def between(self, pipeline: Pipeline) -> None:
        """See :meth:`Companion.between`. Steps that were told by an earlier run are nothing new."""
        heard, self._heard = self._heard, []
        for event in heard:
            pipeline.tell(*self._hear(event))
        if heard:
            self._ask(pipeline)

    def close(self) -> None:
        """The stream has ended; replies that come now are for nobody. Safe to call twice."""
        self._closed = True

    def state(self) -> dict[str, Any]:
        """Where all rules stand, as a JSON value for snapshots."""
        rules = [
            {"rule": one.spec.record, "added": one.added, "due": one.due, "state": save_state(one.rule.state)}
            for one in self._watched.values()
        ]
        return {"rules": rules, "skipped": self.skipped, "given": self._given}

    def _hear(self, event: Commentary) -> list[Alert]:
        said, alerts = printable(event.text), []
        for one in self._watched.values():
            one.rule.hear(said)
            if isinstance(one.spec, SaysRule):
                alerts += one.rule.find(Finding(event.end, one.spec.verdict(said), start=event.start))
        return alerts

    def _ask(self, pipeline: Pipeline) -> None:
        """Ask all rules that are due, in one go, so that they share one copy of the stream."""
        now = pipeline.session.time
        asked = [one for one in self._watched.values() if isinstance(one.spec, AskedRule) and one.rule.state.armed]
        due = [one for one in asked if one.is_due(now)]
        if not due or self._asker is None:
            return
        for one in due:
            one.due = now + one.every
        if self._asking:
            self.skipped += 1
            return
        self._asking = True
        done = partial(self._take, pipeline, due, now)
        try:
            self._asker.weigh(pipeline, [_question(one.spec) for one in due], done)
        except StreamingVLMError as error:
            done([error] * len(due))

    def _take(self, pipeline: Pipeline, asked: Sequence[_Watched], now: float, replies: Replies) -> None:
        """What became of the questions. None of it is for rules that were replaced meanwhile."""
        self._asking = False
        alerts: list[Alert] = []
        for one, reply in zip(asked, replies, strict=True):
            if self._closed or pipeline.ended or self._watched.get(one.spec.name) is not one:
                continue
            one.rule.state.failed += not isinstance(reply, Answer)
            alerts += one.rule.find(_finding(one.spec, reply, now))
        pipeline.tell(*alerts)

    def _new(self, spec: RuleSpec, added: bool) -> _Watched:
        if isinstance(spec, AskedRule) and self._asker is None:
            raise OptionError(
                f"rule {spec.name!r} is asked, which needs a spare slot: Runtime(engine, questions=True); "
                "or write it on the words, as 'says: REGEX'"
            )
        return _Watched(Rule(spec), added)

    def _restore(self, state: Mapping[str, Any]) -> None:
        try:
            saved = {
                row["rule"]["name"]: _Watched(
                    Rule(rule_of(row["rule"]), load_state(row["state"])), row["added"], float(row["due"]), True
                )
                for row in state["rules"]
            }
            given = {record["name"]: record for record in state.get("given", ())}
            for record in state.get("told", ()):
                self._replay(_event_of(record), saved, given)
            self.skipped = int(state["skipped"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OptionError(f"this is no state of rules: {error!r}") from None
        unchanged = {name for name, one in self._watched.items() if given.get(name) == one.spec.record}
        for name, before in saved.items():
            self._take_up(before, name in unchanged)
        for name in unchanged - saved.keys():  # somebody has removed it while the stream ran
            del self._watched[name]

    def _replay(self, event: Alert | RuleChanged, saved: dict[str, _Watched], given: dict[str, Any]) -> None:
        """Bring what was saved, and what the caller had given, to where it was when ``event`` was told."""
        if isinstance(event, Alert):
            if event.rule in saved:
                saved[event.rule].rule.replay(event)
            return
        before, one = saved.pop(event.rule, None), self._watched.get(event.rule)
        if event.spec is not None:
            after = _Watched(Rule(rule_of(event.spec)), True, told=True)
        elif one is not None and one.spec.summary == event.text:  # it was there from the start of that run
            after = _Watched(Rule(one.spec), told=True)
            given[event.rule] = one.spec.record
        else:
            return
        after.rule.state.number = 0 if before is None else before.rule.state.number
        saved[event.rule] = after

    def _take_up(self, before: _Watched, unchanged: bool) -> None:
        """Go on with a rule of an earlier run, if it is still wanted. ``unchanged``: the caller gives what it gave."""
        name, one = before.spec.name, self._watched.get(before.spec.name)
        same = one is not None and one.spec == before.spec
        if same or (before.added is True and (one is None or unchanged)):
            self._new(before.spec, True)  # whether it can be asked
            check_rules([*(rule for rule in self.rules if rule.name != name), before.spec])
            self._watched[name] = before
            return
        self._gone.append(before.rule)
        if one is not None:
            one.rule.state.number = before.rule.state.number


def check_fits(spec: RuleSpec, session: StreamSession) -> int:
    """Tokens that the model reads each time a rule is asked; 0 of a rule on words.

    CapacityError or OptionError if it cannot be asked.
    """
    if not isinstance(spec, AskedRule):
        return 0
    try:
        return session.check_question(spec.asked, ANSWER_TOKENS)
    except (CapacityError, OptionError) as error:
        raise type(error)(f"rule {spec.name!r}: {error}") from None


def _question(spec: RuleSpec) -> Question:
    assert isinstance(spec, AskedRule)
    return spec.asked


def _finding(spec: RuleSpec, reply: Answer | StreamingVLMError, now: float) -> Finding:
    assert isinstance(spec, AskedRule)
    if not isinstance(reply, Answer):
        return Finding(now, "unknown")
    return Finding(reply.time, *spec.verdict(reply))


def _event_of(record: Alert | RuleChanged | Mapping[str, Any]) -> Alert | RuleChanged:
    """What a record tells, as far as the state of a rule follows from it."""
    event = record if isinstance(record, Alert | RuleChanged) else event_of(record)
    if not isinstance(event, Alert | RuleChanged) or (
        isinstance(event, Alert) and event.kind not in ("raised", "updated", "cleared")
    ):
        raise ValueError(f"{record!r} is neither an alert nor a change of a rule")
    return event
