"""Rules on a stream that runs: when it is asked, what becomes of the replies, and what the sinks are told."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from streamingvlm.core.errors import CapacityError, OptionError, SessionError, StreamingVLMError
from streamingvlm.core.events import Alert, Answer, Closed, Commentary, Delta, Event, Gap, Question, RuleChanged
from streamingvlm.engine.endpoint import Endpoint
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.options import QUESTION_TOKENS
from streamingvlm.engine.remote import RemoteOptions, RemoteSession
from streamingvlm.runtime import talk
from streamingvlm.runtime.clock import Pace
from streamingvlm.runtime.pipeline import Pipeline
from streamingvlm.runtime.rules import AskedRule, RuleSpec, SaysRule
from streamingvlm.runtime.runtime import Runtime, Stream
from streamingvlm.runtime.talk import Replies
from streamingvlm.runtime.watcher import check_fits
from streamingvlm.sinks.records import record_of
from streamingvlm.testing import ScriptedModel, ScriptedSource
from support.chat_server import ChatServer, texts

GOAL = SaysRule(name="goal", text="goal", off_after=2)
FALL = AskedRule(name="fall", text="someone lies on the floor", on_after=1, off_after=1, merge_gap=0.0, cooldown=0.0)
Verdicts = Callable[[float], float | str | StreamingVLMError]


def answer(question: Question, time: float, yes: float | str | StreamingVLMError) -> Answer | StreamingVLMError:
    """Yes with a probability, a reply in words, or a failure."""
    if isinstance(yes, StreamingVLMError):
        return yes
    if isinstance(yes, str):
        return Answer(question, time, yes)
    count = len(question.options) - 1
    logprobs = (math.log(max(yes, 1e-9)), *[math.log(max((1 - yes) / count, 1e-9))] * count)
    return Answer(question, time, "", logprobs=logprobs)


class FakeAsker:
    """Replies at once, or ``late`` steps later, what ``verdicts`` gives for the seconds of the stream."""

    def __init__(self, verdicts: Verdicts, late: int = 0, error: StreamingVLMError | None = None) -> None:
        self.verdicts, self.late, self.error = verdicts, late, error
        self.asked: list[tuple[float, list[str]]] = []
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def weigh(self, pipeline: Pipeline, questions: Sequence[Question], done: Callable[[Replies], None]) -> None:
        if self.error is not None:
            raise self.error
        time = pipeline.session.time
        self.asked.append((time, [question.text for question in questions]))
        replies = [answer(question, time, self.verdicts(time)) for question in questions]
        self.waiting.append((time + self.late, lambda: done(replies)))
        if not self.late:
            self.between(pipeline)

    def between(self, pipeline: Pipeline) -> None:
        due = [one for one in self.waiting if one[0] <= pipeline.session.time]
        self.waiting = [one for one in self.waiting if one not in due]
        for _, reply in due:
            reply()

    def close(self) -> None: ...


class Kept:
    def __init__(self, then: Callable[[Event], None] = lambda _: None) -> None:
        self.events: list[Event] = []
        self.then = then

    def write(self, event: Event) -> None:
        self.events.append(event)
        self.then(event)

    def close(self) -> None: ...

    def of(self, *kinds: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def alerts(self) -> list[tuple[str, str, float, float]]:
        return [(one.rule, one.kind, one.since, one.time) for one in self.of(Alert)]


def run(
    rules: Sequence[RuleSpec],
    asker: FakeAsker | None = None,
    words: Callable[[float], str] = lambda _: "",
    count: int = 8,
    then: Callable[[Stream, Event], None] = lambda *_: None,
    **options: Any,
) -> tuple[Kept, Stream]:
    """A stream of ``count`` seconds whose step at ``start`` says ``words(start)``."""
    streams: list[Stream] = []
    kept = Kept(lambda event: then(streams[0], event) if streams else None)
    with Runtime(Engine(ScriptedModel(lambda start, *_: words(start)), slots=2)) as runtime:
        runtime.asker = asker
        companions = [] if asker is None else [asker]
        source = options.pop("source", ScriptedSource(count))

        def start() -> None:
            streams.append(runtime.start(source, sinks=[kept], rules=rules, companions=companions, **options))

        runtime.call(start)
        runtime.wait()
    return kept, streams[0]


def test_words_raise_and_clear_in_their_place() -> None:
    said = {2.0: "a goal\x1b!", 4.0: "more"}
    kept, stream = run([GOAL], words=lambda start: said.get(start, ""))
    order = [type(event) for event in kept.events if not isinstance(event, Delta)]
    assert order[1:7] == [RuleChanged, Commentary, Commentary, Commentary, Alert, Commentary]
    raised, cleared = kept.of(Alert)
    assert raised == Alert("goal", "raised", 1, 2.0, 3.0, "yes", None, "a goal�!", 3.0)
    assert (cleared.kind, cleared.time, cleared.evidence) == ("cleared", 5.0, "a goal�! more")
    assert raised.id
    assert kept.of(RuleChanged) == [RuleChanged("goal", "says: goal; off_after=2")]
    assert stream.rules == (GOAL,)


def test_all_rules_that_are_due_are_asked_in_one_go() -> None:
    asker = FakeAsker(lambda time: 0.9 if 3 <= time < 6 else 0.1)
    rules = [AskedRule(name=f"r{number}", text=f"it is {number}", every=2.0 + number % 2) for number in range(8)]
    kept, _ = run([*rules, GOAL], asker)
    assert [(time, len(texts)) for time, texts in asker.asked] == [(1, 8), (3, 4), (4, 4), (5, 4), (7, 8)]
    raised = kept.of(Alert)
    assert [alert.rule for alert in raised] == ["r0", "r2", "r4", "r6"]  # the others: found once, at 4 s
    assert {(alert.since, alert.time) for alert in raised} == {(3.0, 5.0)}
    assert raised[0].probability == pytest.approx(0.9)
    assert "it is 3" in asker.asked[0][1][3]


def test_one_question_is_under_way_at_a_time() -> None:
    asker = FakeAsker(lambda _: 0.9, late=3)
    kept, stream = run([AskedRule(name="a", text="x", every=1.0, on_after=2)], asker)
    assert [time for time, _ in asker.asked] == [1, 5]  # the replies come at 4 and 8, behind the rules' turn
    assert stream.watcher is not None
    assert stream.watcher.skipped == 6
    assert kept.alerts == [("a", "raised", 1.0, 5.0)]


@pytest.mark.parametrize(
    ("reply", "kinds"),
    [
        (0.9, ["raised"]),
        ("yes", ["raised"]),
        ("Yes.", ["raised"]),
        ("yes, nothing happens", []),
        ("perhaps", []),
        (CapacityError("too long"), []),
    ],
)
def test_only_a_verdict_raises(reply: float | str | StreamingVLMError, kinds: list[str]) -> None:
    kept, stream = run([FALL], FakeAsker(lambda _: reply), count=4)
    assert [alert.kind for alert in kept.of(Alert)] == kinds
    assert stream.watcher is not None
    counts = stream.watcher.counts["fall"]
    assert counts["findings"] == 2
    assert counts["unknown"] == (0 if kinds else 2)
    assert counts["failed"] == (2 if isinstance(reply, StreamingVLMError) else 0)


def test_what_cannot_be_asked_is_unknown_and_clears_nothing() -> None:
    verdicts = {1.0: 0.9, 3.0: SessionError("no slot"), 5.0: "who knows", 7.0: 0.1}
    kept, _ = run([FALL], FakeAsker(lambda time: verdicts[time]))
    assert kept.alerts == [("fall", "raised", 1.0, 1.0), ("fall", "cleared", 1.0, 7.0)]
    kept, stream = run([FALL], FakeAsker(lambda _: 0.9, error=SessionError("no slot")))
    assert kept.alerts == []
    assert stream.complete
    assert stream.watcher is not None
    assert stream.watcher.counts["fall"]["failed"] == 4


def test_a_reply_behind_the_end_is_for_nobody() -> None:
    asker = FakeAsker(lambda _: 0.9, late=100)
    kept, _ = run([FALL], asker)
    asker.waiting[0][1]()
    assert isinstance(kept.events[-1], Closed)
    assert kept.alerts == []


def test_rules_change_while_the_stream_runs() -> None:
    other = AskedRule(name="fall", text="someone sits", on_after=1)

    def change(stream: Stream, event: Event) -> None:
        if isinstance(event, Commentary) and event.end == 4.0:
            stream.add_rule(FALL)  # the same: nothing changes
            stream.add_rule(other)
            stream.add_rule(GOAL)
            with pytest.raises(OptionError, match=r"there is no rule 'door' .rules: fall, goal"):
                stream.remove_rule("door")
        if isinstance(event, Commentary) and event.end == 6.0:
            stream.remove_rule("goal")

    kept, stream = run([FALL], FakeAsker(lambda _: 0.9), lambda _: "goal", then=change)
    assert kept.alerts == [
        ("fall", "raised", 1.0, 1.0),
        ("fall", "cleared", 1.0, 4.0),
        ("goal", "raised", 3.0, 4.0),
        ("fall", "raised", 4.0, 4.0),
        ("goal", "cleared", 3.0, 6.0),
    ]
    assert [(one.rule, one.text) for one in kept.of(RuleChanged)] == [
        ("fall", FALL.summary),
        ("fall", "someone sits; on_after=1"),
        ("goal", "says: goal; off_after=2"),
        ("goal", ""),
    ]
    assert stream.rules == (other,)
    with pytest.raises(SessionError):
        stream.add_rule(GOAL)


def test_a_rule_comes_to_a_stream_without_any() -> None:
    def add(stream: Stream, event: Event) -> None:
        if isinstance(event, Commentary) and not stream.rules:
            stream.add_rule(GOAL)

    kept, _ = run([], words=lambda start: "goal" if start == 3 else "", then=add)
    assert [kind for _, kind, _, _ in kept.alerts] == ["raised", "cleared"]


def test_a_reply_to_a_rule_that_was_replaced_is_dropped() -> None:
    def replace(stream: Stream, event: Event) -> None:
        if isinstance(event, Commentary) and event.end == 2.0:
            stream.add_rule(AskedRule(name="fall", text="someone sits", on_after=1, every=9.0))

    kept, _ = run([FALL], FakeAsker(lambda time: 0.9 if time == 1 else 0.1, late=2), then=replace)
    assert kept.alerts == []


def test_what_does_not_fit_is_refused_before_the_stream_begins() -> None:
    long = AskedRule(name="long", text="x", question="y" * (QUESTION_TOKENS + 1))
    option = AskedRule(name="long", text="x", yes=("y" * 129,))
    many = [AskedRule(name=f"r{number}", text="x") for number in range(17)]
    for rules, asker, error, message in (
        ([long], FakeAsker(lambda _: 0.1), CapacityError, "rule 'long': the question has [0-9]+ tokens; at most 512"),
        ([option], FakeAsker(lambda _: 0.1), CapacityError, "rule 'long': an option of 129 tokens; at most 128"),
        (many, FakeAsker(lambda _: 0.1), OptionError, "at most 16 rules, not 17"),
        ([FALL], None, OptionError, "rule 'fall' is asked, which needs a spare slot"),
    ):
        with pytest.raises(error, match=message):
            run(rules, asker)

    def add(stream: Stream, event: Event) -> None:
        if isinstance(event, Commentary):
            with pytest.raises(CapacityError, match="rule 'long': the question"):
                stream.add_rule(long)

    _, stream = run([FALL], FakeAsker(lambda _: 0.1), then=add)
    assert stream.rules == (FALL,)


def test_the_cost_of_a_rule_is_known() -> None:
    engine = Engine(ScriptedModel(lambda *_: ""))
    with engine.open() as session:
        plain = check_fits(FALL, session)
        longer = AskedRule(name="fall", text=FALL.text + " now", yes=("yes, indeed",))
        assert plain > len(FALL.text) + len("yesnounknown")
        assert check_fits(longer, session) == plain + len(" now") + len(", indeed")
        assert check_fits(GOAL, session) == 0
    _, stream = run([FALL, GOAL], FakeAsker(lambda _: 0.1), count=1)
    assert stream.watcher is not None
    assert {name: one["tokens"] for name, one in stream.watcher.counts.items()} == {"fall": plain, "goal": 0}


def saved_at(end: float, rules: Sequence[RuleSpec], added: Sequence[RuleSpec] = ()) -> dict[str, Any]:
    """The state of rules of a stream in which all is found, as a snapshot holds it that is taken at ``end`` seconds."""
    saved: list[dict[str, Any]] = []

    def save(stream: Stream, event: Event) -> None:
        if isinstance(event, Commentary) and event.end == 2.0:
            for spec in added:
                stream.add_rule(spec)
        if isinstance(event, Commentary) and event.end == end:
            assert stream.watcher is not None
            saved.append(json.loads(json.dumps(stream.watcher.state())))

    run(rules, FakeAsker(lambda _: 0.9), lambda _: "goal", count=8, then=save)
    return saved[0]


def test_rules_go_on_where_an_earlier_run_stood() -> None:
    state = saved_at(5.0, [FALL, GOAL], [AskedRule(name="more", text="x", every=4.0)])
    asker = FakeAsker(lambda time: 0.9 if time < 9 else 0.1)
    kept, stream = run([FALL], asker, count=12, rule_state=state, said_until=5.0)
    assert kept.alerts == [
        ("goal", "cleared", 0.0, 0.0),  # nobody watches for it any more
        ("more", "raised", 2.0, 6.0),
        ("fall", "cleared", 1.0, 10.0),
    ]
    assert kept.of(RuleChanged) == [RuleChanged("goal", "")]
    assert [rule.name for rule in stream.rules] == ["fall", "more"]


def test_a_stream_that_begins_anew_is_asked_at_once() -> None:
    state = saved_at(7.0, [FALL])
    asker = FakeAsker(lambda _: 0.1)
    run([FALL], asker, rule_state=state)
    assert [time for time, _ in asker.asked] == [1, 3, 5, 7]


def test_a_rule_that_was_disarmed_is_armed_by_setting_it_again() -> None:
    once = SaysRule(name="goal", text="goal", off_after=1, cooldown=0.0, until="raised")

    def again(stream: Stream, event: Event) -> None:
        if isinstance(event, Commentary) and event.end == 5.0:
            stream.add_rule(once)

    kept, _ = run([once], words=lambda start: "" if start % 2 else "goal", then=again)
    kinds = [(one.kind, one.number, one.time) for one in kept.of(Alert)]
    assert kinds == [("raised", 1, 1.0), ("cleared", 1, 2.0), ("raised", 2, 5.0), ("cleared", 2, 6.0)]


def test_a_rule_that_was_changed_meanwhile_begins_anew() -> None:
    other = AskedRule(name="fall", text="someone sits", on_after=1)
    kept, _ = run([other], FakeAsker(lambda _: 0.9), rule_state=saved_at(5.0, [FALL]), said_until=5.0)
    assert [(one.kind, one.number) for one in kept.of(Alert)] == [("cleared", 1), ("raised", 2)]
    assert kept.of(RuleChanged) == [RuleChanged("fall", other.summary)]


@pytest.mark.parametrize(
    ("told", "verdict", "expected"),
    [
        ([Alert("fall", "cleared", 1, 1.0, 5.0, last=3.0)], 0.9, [("raised", 2)]),
        ([Alert("fall", "cleared", 1, 1.0, 5.0), Alert("fall", "raised", 2, 7.0, 7.0)], 0.9, []),
        ([Alert("fall", "cleared", 1, 1.0, 5.0), Alert("fall", "raised", 2, 7.0, 7.0)], 0.1, [("cleared", 2)]),
        ([Alert("gone", "raised", 1, 1.0, 5.0)], 0.9, []),
    ],
)
def test_alerts_behind_the_snapshot_are_not_told_again(
    told: list[Alert], verdict: float, expected: list[tuple[str, int]]
) -> None:
    state = saved_at(4.0, [FALL])
    for behind in (told, [json.loads(json.dumps(record_of(alert))) for alert in told]):
        kept, _ = run([FALL], FakeAsker(lambda _: verdict), rule_state=state | {"told": behind}, said_until=5.0)
        assert [(one.kind, one.number) for one in kept.of(Alert)] == expected


@pytest.mark.parametrize(
    "state", [{}, {"rules": 3}, {"rules": [{}]}, {"rules": [], "skipped": 0, "told": [{"kind": "x"}]}, [1]]
)
def test_what_is_no_state_of_rules_is_one_line(state: Any) -> None:
    with pytest.raises(OptionError, match="this is no state of rules"):
        run([FALL], FakeAsker(lambda _: 0.1), rule_state=state)


def test_a_hole_breaks_a_row() -> None:
    def hole(stream: Stream, event: Event) -> None:
        if isinstance(event, Commentary) and event.end == 2.0:
            stream.pipeline.tell(Gap(2.0, 3.0, "timeout"))

    rule = AskedRule(name="a", text="x", every=1.0, on_after=3)
    kept, _ = run([rule], FakeAsker(lambda _: 0.9), count=5, then=hole)
    # The finding at 2 s is made behind the hole.
    assert kept.alerts == [("a", "raised", 2.0, 4.0)]


def test_nothing_is_asked_of_steps_that_were_told_before() -> None:
    asker = FakeAsker(lambda _: 0.1)
    run([FALL], asker, said_until=5.0)
    assert [time for time, _ in asker.asked] == [6, 8]


def test_eight_rules_are_asked_for_real_and_the_commentary_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "ANSWER_SECONDS", 600.0)  # a busy machine may take its time
    rules = [
        AskedRule(name=f"r{number}", text="so", question=f"Are there {number} people?", max_event=0.0)
        for number in range(8)
    ]

    def verdict(shown: str) -> str:
        return "yes" if " 3 people" in shown else "unknown" if " 5 people" in shown else "no"

    def watch(*rules: RuleSpec) -> tuple[Kept, Stream]:
        """Until every rule was asked three times; how many steps that takes is a matter of the machine."""

        def stop(event: Event) -> None:
            watcher = streams[0].watcher if streams else None
            if isinstance(event, Commentary) and watcher is not None:
                if min(one["findings"] for one in watcher.counts.values()) >= 3:
                    streams[0].stop()
            elif isinstance(event, Commentary) and event.end >= 40.0 and watcher is None:
                streams[0].stop()

        kept, streams = Kept(stop), list[Stream]()
        engine = Engine(ScriptedModel(lambda start, *_: f"at {start:g}", answer=verdict), slots=2)
        with Runtime(engine, questions=True) as runtime:
            start = partial(runtime.start, ScriptedSource(4000), sinks=[kept], rules=rules, pace=Pace.INLINE)
            runtime.call(lambda: streams.append(start()))
            streams[0].wait()
        return kept, streams[0]

    (plain, _), (kept, stream) = watch(), watch(*rules)
    both = min(len(plain.of(Commentary)), len(kept.of(Commentary)))
    assert both > 3
    said = [[event.tokens for event in one.of(Commentary)[:both]] for one in (kept, plain)]
    assert said[0] == said[1]
    assert [(alert.rule, alert.kind, alert.number) for alert in kept.of(Alert)] == [("r3", "raised", 1)]
    assert kept.of(Alert)[0].probability > 0.9
    assert stream.watcher is not None
    counts = stream.watcher.counts
    assert [name for name, one in counts.items() if one["unknown"]] == ["r5"]
    assert not any(one["failed"] for one in counts.values())


def test_a_model_behind_an_endpoint_is_asked_in_words() -> None:
    replies = iter(["Yes.", "yes, nothing happens", '{"verdict": "no"}', "I cannot tell"])
    with ChatServer(lambda _: next(replies)) as server:
        endpoint = Endpoint(server.url, "m", key=None, sleep=lambda _: None)
        with RemoteSession(endpoint, RemoteOptions(fps=2, seconds=4)) as session:
            session.see(next(iter(ScriptedSource(1))))
            kept, stream = run([FALL], FakeAsker(lambda _: session.ask(FALL.asked.text)))
        prompts = {texts(request)[-1] for request in server.requests}
    assert kept.alerts == [("fall", "raised", 1.0, 1.0), ("fall", "cleared", 1.0, 5.0)]
    assert [alert.probability for alert in kept.of(Alert)] == [None, None]
    assert stream.watcher is not None
    assert stream.watcher.counts["fall"]["unknown"] == 2
    (prompt,) = prompts
    assert FALL.text in prompt
    assert "one word alone: yes, no or unknown" in prompt


def test_what_keeps_a_stream_sees_the_rules_behind_each_step() -> None:
    """Whoever takes snapshots is a companion too: the rules have taken all that was told before it is called."""

    class Keeper:
        def __init__(self) -> None:
            self.numbers: list[int] = []

        def between(self, pipeline: Pipeline) -> None:  # noqa: ARG002
            watcher = streams[0].watcher
            self.numbers.append(0 if watcher is None else watcher.state()["rules"][0]["state"]["number"])

        def close(self) -> None: ...

    def add(event: Event) -> None:
        if isinstance(event, Commentary) and event.end == 2.0 and not streams[0].rules:
            streams[0].add_rule(GOAL)

    for rules, expected in (([GOAL], [0, 0, 1]), ([], [0, 0, 1])):
        keeper, streams = Keeper(), list[Stream]()
        with Runtime(Engine(ScriptedModel(lambda start, *_: "goal" if start == 2 else ""))) as runtime:
            start = partial(runtime.start, ScriptedSource(3), sinks=[Kept(add)], companions=[keeper], rules=rules)
            runtime.call(lambda start=start, streams=streams: streams.append(start()))  # type: ignore[misc]
            runtime.wait()
        assert keeper.numbers == expected
