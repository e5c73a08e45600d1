"""Rules as they are written, and what alerts follow from findings."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamingvlm.core.errors import OptionError
from streamingvlm.core.events import Alert, Answer, Question, Verdict
from streamingvlm.runtime.limits import EVIDENCE, RULE_FILE, RULES
from streamingvlm.runtime.rule_files import check_rules, parse_rule, read_rules, rule_of
from streamingvlm.runtime.rule_state import Finding, Rule, load_state, save_state
from streamingvlm.runtime.rules import AskedRule, RuleSpec, SaysRule, read_verdict

LETTERS: dict[str, Verdict] = {"y": "yes", "n": "no", "u": "unknown"}


def alerts_of(rule: Rule, findings: str, *, every: float = 1.0, first: float = 1.0) -> list[Alert]:
    """What follows from findings, a letter each."""
    found: list[Alert] = []
    for index, letter in enumerate(findings):
        found += rule.find(Finding(first + index * every, LETTERS[letter], 0.9 if letter == "y" else 0.1))
    return found


def told(alerts: Sequence[Alert]) -> list[tuple[str, int, float, float]]:
    return [(alert.kind, alert.number, alert.since, alert.time) for alert in alerts]


def asked(**options: Any) -> Rule:
    return Rule(AskedRule(name="fall", text="a person is lying on the floor", **options))


@pytest.mark.parametrize(
    ("line", "spec"),
    [
        ("fall: a person lies there", AskedRule(name="fall", text="a person lies there")),
        (
            " fall : a person lies; on_after=3;off_after = 4 ; cooldown=5; merge_gap=6.5; until=raised; every=7; "
            "threshold=0.8; max_event=0",
            AskedRule(
                name="fall",
                text="a person lies",
                on_after=3,
                off_after=4,
                cooldown=5.0,
                merge_gap=6.5,
                until="raised",
                every=7.0,
                threshold=0.8,
                max_event=0.0,
            ),
        ),
        ("goal: says: \\bgoal\\b; until=90", SaysRule(name="goal", text="\\bgoal\\b", until=90.0)),
        ("goal:says:a ; b", SaysRule(name="goal", text="a ; b")),
        ("door: it is 12:30; or later", AskedRule(name="door", text="it is 12:30; or later")),
        ("x: he says: hello", AskedRule(name="x", text="he says: hello")),
    ],
)
def test_a_rule_is_a_line(line: str, spec: RuleSpec) -> None:
    assert parse_rule(line) == spec
    assert rule_of(json.loads(json.dumps(spec.record))) == spec


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a person lies there", "a rule is 'NAME: WHAT' or 'NAME: says: REGEX'"),
        (": a person", "the name of a rule"),
        ("my fall: a person", "the name of a rule"),
        ("fall:", "needs 1 to 1000 characters"),
        ("fall: says:", "needs 1 to 1000 characters"),
        (f"fall: {'x' * 1001}", "needs 1 to 1000 characters"),
        ("fall: \udc80", "needs 1 to 1000 characters"),
        ("fall: x; on=2", "unknown key 'on' .known: on_after, off_after"),
        ("fall: says: x; every=2", "unknown key 'every'"),
        ("fall: x; every=2; every=3", "every is set twice"),
        ("fall: x; on_after=2.5", "on_after must be a whole number, not '2.5'"),
        ("fall: x; on_after=0", "on_after must be a whole number from 1 to 1000000, not 0"),
        ("fall: x; cooldown=nan", "cooldown must be a number from 0 up, not nan"),
        ("fall: x; cooldown=-1", "cooldown must be a number from 0 up, not -1.0"),
        ("fall: x; threshold=2", "threshold must be a number from 0 to 1, not 2.0"),
        ("fall: x; until=later", "until must be a number or 'raised', not 'later'"),
        ("fall: says: (", "'.' is no regular expression: missing"),
    ],
)
def test_a_bad_rule_is_one_line(line: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as error:
        parse_rule(line)
    assert "\n" not in str(error.value)


TOML = """
[[rules]]
name = "goal"
says = "goal"

[[rules]]
name = "ahead"
ask = "green is ahead"
question = "-"
as_commentary = true
every = 5
options = { yes = ["green leads", "green is up"], no = "orange leads" }

[[rules]]
name = "fall"
ask = "someone lies"
prefix = "It is:"
options = [" yes", " no", " unknown"]
"""


def test_files_hold_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(TOML)
    rules = read_rules(tmp_path / "rules.toml")
    ahead, fall = rules[1:]
    assert rules[0] == SaysRule(name="goal", text="goal")
    assert isinstance(ahead, AskedRule)
    assert isinstance(fall, AskedRule)
    assert ahead.asked == Question("", ("green leads", "green is up", "orange leads"), as_commentary=True)
    assert (fall.yes, fall.no, fall.unknown, fall.prefix) == ((" yes",), (" no",), (" unknown",), "It is:")
    records = [rule.record for rule in rules]
    for value in (records, {"rules": records}, ["goal: says: goal", *records[1:]]):
        (tmp_path / "rules.json").write_text(json.dumps(value))
        assert read_rules(tmp_path / "rules.json") == rules


FALL = {"name": "fall", "ask": "x"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 5000, "is no JSON"),
        ("3", "must hold a list of rules"),
        ('{"rule": []}', "must hold a list of rules"),
        ("[3]", "a rule is a table or a line of text, not 3"),
        ('[{"name": "a"}]', "either 'ask' or 'says'"),
        ('[{"name": "a", "ask": "x", "says": "y"}]', "either 'ask' or 'says'"),
        ('[{"name": "a", "ask": 3}]', "is a text, not 3"),
        ('[{"name": "a", "says": "x", "question": "?"}]', "unknown key 'question'"),
        (json.dumps([FALL | {"on_after": "2"}]), "on_after must be a whole number from 1"),
        (json.dumps([FALL | {"on_after": True}]), "on_after must be a whole number from 1"),
        (json.dumps([FALL | {"until": [1]}]), "until must be a number from 0 up"),
        (json.dumps([FALL | {"as_commentary": 1}]), "as_commentary must be true or false"),
        (json.dumps([FALL | {"prefix": 1}]), "prefix must be a text"),
        (json.dumps([FALL | {"options": ["a"]}]), "options is a table with yes, no and unknown"),
        (json.dumps([FALL | {"options": {"yes": "a"}}]), "options is a table with yes, no and unknown"),
        (json.dumps([FALL | {"options": {"yes": "a", "no": 3}}]), "no must be a text or a list of texts"),
        (json.dumps([FALL | {"options": {"yes": "a", "no": "a"}}]), "different texts, none of them empty"),
        (json.dumps([FALL | {"options": {"yes": "a", "no": []}}]), "needs an option that means yes"),
        (json.dumps([FALL, FALL]), "two rules are called 'fall'"),
        (json.dumps([FALL | {"name": f"r{number}"} for number in range(RULES + 1)]), "at most 16 rules"),
        (" " * (RULE_FILE + 1), "too many for a file of rules"),
        (None, "cannot read the rules in"),
    ],
)
def test_a_bad_file_is_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OptionError, match=message) as error:
        read_rules(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@given(st.text(max_size=60))
def test_any_text_is_a_rule_or_one_line(text: str) -> None:
    try:
        spec = parse_rule(text)
    except OptionError:
        return
    assert rule_of(spec.record) == spec


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("yes", "yes"),
        (" Yes. ", "yes"),
        ('"no"', "no"),
        ("**No**", "no"),
        ("unknown", "unknown"),
        ('{"verdict": "yes"}', "yes"),
        ('{"verdict": "No", "why": "yes, it is empty"}', "no"),
        ("yes, nothing happens", "unknown"),
        ("Yes and no", "unknown"),
        ("yesterday", "unknown"),
        ("no, I see yes", "unknown"),
        ("the answer is yes", "unknown"),
        ("true", "unknown"),
        ('{"verdict": true}', "unknown"),
        ('{"yes": 1}', "unknown"),
        ("{yes", "unknown"),
        ('["yes"]', "unknown"),
        ("", "unknown"),
    ],
)
def test_a_reply_in_words_is_read_strictly(reply: str, verdict: Verdict) -> None:
    assert read_verdict(reply) == verdict
    rule = AskedRule(name="a", text="x")
    assert rule.verdict(Answer(rule.asked, 1.0, reply)) == (verdict, None)


def test_a_reply_in_words_may_be_an_option_of_the_rule() -> None:
    rule = AskedRule(name="a", text="x", yes=("green leads", "green is up"), no=("orange leads",))
    replies = ["Green is up.", "orange leads", "yes", "green leads by far"]
    assert [rule.verdict(Answer(rule.asked, 1.0, one))[0] for one in replies] == ["yes", "no", "unknown", "unknown"]


@pytest.mark.parametrize(
    ("yes", "no", "unknown", "threshold", "expected"),
    [
        (0.6, 0.3, 0.1, 0.5, "yes"),
        (0.6, 0.3, 0.1, 0.8, "no"),
        (0.3, 0.6, 0.1, 0.5, "no"),
        (0.3, 0.3, 0.4, 0.5, "unknown"),
        (0.3, 0.3, 0.4, 0.25, "yes"),
        (math.nan, 0.3, 0.4, 0.3, "unknown"),
    ],
)
def test_a_weighed_reply_is_a_verdict(yes: float, no: float, unknown: float, threshold: float, expected: str) -> None:
    rule = AskedRule(name="a", text="x", threshold=threshold, no=("no", "never"))
    weights = (yes, no / 2, no / 2, unknown)
    answer = Answer(rule.asked, 1.0, "yes", logprobs=tuple(math.log(one) for one in weights))
    verdict, probability = rule.verdict(answer)
    assert verdict == expected
    assert probability == (None if math.isnan(yes) else pytest.approx(yes))


@pytest.mark.parametrize(
    ("options", "findings", "expected"),
    [
        ({}, "ny", []),
        ({}, "nyny", []),
        ({}, "nyynn", [("raised", 1, 2, 3)]),
        ({"on_after": 1, "merge_gap": 0}, "ynnn", [("raised", 1, 1, 1), ("cleared", 1, 1, 4)]),
        ({"merge_gap": 0}, "yynnynnn", [("raised", 1, 1, 2), ("cleared", 1, 1, 8)]),
        ({"merge_gap": 5}, "yynnnnnnn", [("raised", 1, 1, 2), ("cleared", 1, 1, 7)]),
        ({"merge_gap": 5}, "yynnnyynnnnnn", [("raised", 1, 1, 2), ("updated", 1, 1, 6), ("cleared", 1, 1, 12)]),
        ({}, "uuuuu", []),
        ({}, "yuuy", [("raised", 1, 1, 4)]),
        ({"merge_gap": 0}, "yynunuuuun", [("raised", 1, 1, 2), ("cleared", 1, 1, 10)]),
        ({"merge_gap": 0, "max_event": 4}, "yyuuuuuuuu", [("raised", 1, 1, 2)]),
        (
            {"merge_gap": 0, "off_after": 1, "cooldown": 8},
            "yynyynyyyy",
            [("raised", 1, 1, 2), ("cleared", 1, 1, 3), ("raised", 2, 7, 10)],
        ),
        (
            {"cooldown": 0, "max_event": 4},
            "yyyyyyyy",
            [("raised", 1, 1, 2), ("cleared", 1, 1, 5), ("raised", 2, 6, 7)],
        ),
        ({"max_event": 4}, "yynnnn", [("raised", 1, 1, 2), ("cleared", 1, 1, 5)]),
        (
            {"max_event": 0, "merge_gap": 0, "cooldown": 0},
            "y" * 999 + "nnn",
            [("raised", 1, 1, 2), ("cleared", 1, 1, 1002)],
        ),
        (
            {"until": "raised", "merge_gap": 0, "cooldown": 0},
            "yynnnyyyy",
            [("raised", 1, 1, 2), ("cleared", 1, 1, 5)],
        ),
        ({"until": 6.0}, "yyyyyyyyy", [("raised", 1, 1, 2), ("cleared", 1, 1, 6)]),
        ({"until": 2.0}, "yyyyyyyyy", []),
    ],
)
def test_findings_make_alerts(
    options: dict[str, Any], findings: str, expected: list[tuple[str, int, float, float]]
) -> None:
    assert told(alerts_of(asked(**options), findings)) == expected


@pytest.mark.parametrize("seed", range(20))
def test_an_event_of_90_s_that_flickers_is_raised_and_cleared_once(seed: int) -> None:
    flicker = random.Random(seed)
    during = "yy" + "".join(flicker.choice("yyynnu") for _ in range(43))
    alerts = alerts_of(asked(), "nnunn" + during + "n" * 60, every=2.0)
    kinds = [alert.kind for alert in alerts]
    assert (kinds.count("raised"), kinds.count("cleared")) == (1, 1)
    assert (kinds[0], kinds[-1]) == ("raised", "cleared")
    assert alerts[0].since == 11.0
    assert alerts[-1].last == 11.0 + 2 * during.rindex("y")


def test_a_match_raises_a_rule_on_words() -> None:
    rule = Rule(SaysRule(name="goal", text=r"\bgoal\b"))
    assert isinstance(rule.spec, SaysRule)
    alerts: list[Alert] = []
    for second, said in enumerate(["a pass", "GOAL by Ada", "", "no goals", "she smiles", "again"]):
        rule.hear(said)
        alerts += rule.find(Finding(second + 1.0, rule.spec.verdict(said), start=float(second)))
    assert told(alerts) == [("raised", 1, 1.0, 2.0), ("cleared", 1, 1.0, 5.0)]
    assert alerts[0] == Alert("goal", "raised", 1, 1.0, 2.0, "yes", None, "GOAL by Ada", 2.0)
    assert alerts[1].evidence == "GOAL by Ada no goals she smiles"


def test_evidence_is_what_was_said_since_it_began_and_bounded() -> None:
    rule = asked(on_after=1, merge_gap=0, off_after=1)
    rule.hear("long ago")
    rule.find(Finding(1.0, "no"))
    rule.hear("he falls")
    (raised,) = rule.find(Finding(2.0, "yes", 0.7))
    assert (raised.evidence, raised.probability) == ("he falls", 0.7)
    for number in range(300):
        rule.hear(f"word {number}")
        assert rule.find(Finding(3.0, "unknown")) == []
        assert len(rule.state.words) <= EVIDENCE
    (cleared,) = rule.find(Finding(4.0, "no", 0.2))
    assert cleared.evidence.startswith("…")
    assert cleared.evidence.endswith("word 299")
    assert (rule.state.findings, rule.state.unknown, rule.state.words) == (303, 300, "")


def test_what_is_over_before_the_cooldown_is_counted() -> None:
    rule = asked(merge_gap=0, off_after=1)
    alerts_of(rule, "yynyynyyn")
    assert (rule.state.number, rule.state.suppressed) == (1, 2)


def test_findings_around_a_hole_are_not_in_a_row() -> None:
    rule = asked()
    alerts_of(rule, "y")
    rule.interrupt()
    assert alerts_of(rule, "y", first=3600.0) == []
    (raised,) = alerts_of(rule, "y", first=3602.0)
    assert raised.since == 3600.0
    rule.interrupt()  # what was raised goes on
    assert rule.state.active


@given(st.text("yyyynnnu", max_size=60), st.integers(0, 60), st.booleans())
def test_a_rule_goes_on_from_its_state(findings: str, cut: int, once: bool) -> None:
    options: dict[str, Any] = {"merge_gap": 4, "cooldown": 7, "max_event": 15, "until": "raised" if once else ""}
    whole, first = asked(**options), asked(**options)
    expected = alerts_of(whole, findings)
    found = alerts_of(first, findings[:cut])
    second = Rule(first.spec, load_state(json.loads(json.dumps(save_state(first.state)))))
    found += alerts_of(second, findings[cut:], first=1.0 + len(findings[:cut]))
    assert found == expected
    # Raised and cleared take turns, and numbers count from 1.
    ends = [(alert.kind, alert.number) for alert in found if alert.kind != "updated"]
    assert ends == [(kind, 1 + place // 2) for place, kind in enumerate(["raised", "cleared"] * 30)][: len(ends)]


@given(st.text("yyyynnn", max_size=40))
def test_alerts_that_were_told_are_taken_over(findings: str) -> None:
    rule, other = asked(merge_gap=4, cooldown=7), asked(merge_gap=4, cooldown=7)
    for alert in alerts_of(rule, findings):
        other.replay(alert)
    keys = ("armed", "number", "active", "raised_at")
    assert [getattr(other.state, key) for key in keys] == [getattr(rule.state, key) for key in keys]


@pytest.mark.parametrize("record", [3, {"more": 1}, {"active": 1}, {"number": True}, {"raised_at": "x"}])
def test_what_is_no_state_is_one_line(record: object) -> None:
    with pytest.raises(OptionError, match="rule"):
        load_state(record)


def test_names_of_rules_are_different() -> None:
    spec = AskedRule(name="a", text="x")
    with pytest.raises(OptionError, match="two rules are called 'a'"):
        check_rules([spec, replace(spec, text="y")])


def test_an_expression_that_takes_too_long_is_unknown() -> None:
    rule = SaysRule(name="slow", text="(a|a)+$")
    began = time.perf_counter()
    assert rule.verdict("a" * 40 + "b") == "unknown"
    assert time.perf_counter() - began < 5  # the bound is 0.05 s; without it, longer than anybody waits
    assert rule.verdict("b") == "no"
