"""Tasks, averages, baselines and intervals on items that can be counted by hand."""

from __future__ import annotations

import pytest

from streamingvlm.evaluate.questions import baselines
from streamingvlm.evaluate.questions.items import Form, Item, Reply, Score
from streamingvlm.evaluate.questions.metrics import AverageOf, AverageRule, intervals_by_video, score_replies
from streamingvlm.evaluate.questions.parsers import Mark, strict
from streamingvlm.evaluate.questions.replies import Replies

POOLED = AverageOf("all", AverageRule.POOLED, headline=True)
TASKS = AverageOf("tasks", AverageRule.TASKS)
GROUPS = AverageOf("total", AverageRule.GROUPS)
ALL = (POOLED, TASKS, GROUPS)


def item(id: str, task: str, group: str, answer: str, form: Form = Form.CHOICE, video: str = "v") -> Item:
    options = ("one", "two", "three", "four") if form is Form.CHOICE else ()
    return Item(id, video, task, group, 5.0, "?", answer, "?", form, options, truth_time=9.0)


#: Task P of group G: 4 items; Q of G: 1 item; R of H: 1 item.
ITEMS = [
    *[item(str(n), "P", "G", "A", video=f"v{n}") for n in range(4)],
    item("4", "Q", "G", "B"),
    item("5", "R", "H", "C"),
]
#: P: 1 of 4 right; Q right; R wrong.
GIVEN = {"0": "A", "1": "B", "2": "", "3": None, "4": "B", "5": "D"}


def replies(**changed: str | None) -> Replies:
    return Replies({id: Reply(id, text) for id, text in {**GIVEN, **changed}.items()})


def score(given: Replies | None = None, **more: object) -> Score:
    given = replies() if given is None else given
    return score_replies(ITEMS, given, strict, ALL, parser="strict", **{"expected": 6, **more})  # type: ignore[arg-type]


def test_parts_and_averages_by_their_rules() -> None:
    got = score()
    p = got.parts[0]
    assert [part.name for part in got.parts] == ["P", "Q", "R"]
    assert (p.items, p.answered, p.correct, p.unparsed, p.missing, p.left_out) == (4, 3, 1.0, 1, 0, 0)
    assert [part.accuracy for part in got.parts] == [25.0, 100.0, 0.0]
    assert [one.value for one in got.averages] == [pytest.approx(100 * 2 / 6), pytest.approx(125 / 3), 31.25]
    assert [one.headline for one in got.averages] == [True, False, False]
    assert got.averages[2].rule == "mean of the categories, each the mean of its tasks' accuracies"
    assert (got.complete, got.found, got.expected, got.unknown) == (True, 6, 6, 0)
    assert got.right == {"0": 1.0, "1": 0.0, "2": 0.0, "3": 0.0, "4": 1.0, "5": 0.0}


def test_a_partial_set_has_no_headline() -> None:
    given = replies()
    del given["1"]
    for got in (score(given), score(expected=7)):
        assert not got.complete
        assert not any(one.headline for one in got.averages)
        assert got.averages[0].name == "all of a partial set"
    got = score(given)
    assert (got.parts[0].items, got.parts[0].missing, got.found) == (3, 1, 5)
    assert got.averages[0].value == pytest.approx(40.0)


def test_an_average_over_complete_tasks_is_a_headline_beside_a_partial_one() -> None:
    given = replies()
    del given["5"]
    averages = (POOLED, AverageOf("G", AverageRule.TASKS, ("P", "Q"), headline=True))
    published = {"P": 4, "Q": 1, "R": 1}
    got = score_replies(ITEMS, given, strict, averages, parser="strict", expected=published)
    assert (got.complete, got.found, got.expected) == (False, 5, 6)
    assert [(one.name, one.headline) for one in got.averages] == [("all of a partial set", False), ("G", True)]
    for published in ({"P": 4, "Q": 2, "R": 1}, {"P": 4, "R": 1}):
        got = score_replies(ITEMS, given, strict, averages, parser="strict", expected=published)
        assert not got.averages[1].headline, "more or less of a task than was published"


def test_a_task_without_replies_leaves_no_average_over_it() -> None:
    given = replies()
    del given["4"]
    got = score(given)
    assert got.parts[1].accuracy is None
    assert [one.value for one in got.averages] == [None, None, None]
    only = score_replies(ITEMS, given, strict, [AverageOf("x", AverageRule.TASKS, ("P", "R"))], parser="strict")
    assert only.averages[0].value == 12.5
    absent = score_replies(ITEMS, given, strict, [AverageOf("x", AverageRule.TASKS, ("P", "none"))], parser="strict")
    assert absent.averages[0].value is None
    assert score_replies([], given, strict, ALL, parser="strict").averages[0].value is None


def test_a_rule_may_leave_items_out_of_the_count() -> None:
    def lenient(item: Item, reply: Reply) -> Mark:
        return Mark(None, False) if not reply.text else strict(item, reply)

    got = score_replies(ITEMS, replies(), lenient, ALL, parser="official", expected=6)
    assert (got.parts[0].items, got.parts[0].left_out, got.parts[0].accuracy) == (2, 2, 50.0)
    assert got.complete, "each item has a reply; the official rule does not count them"
    assert "2" not in got.right


def test_without_items_that_are_known_to_be_wrong() -> None:
    got = score(without={"0"})
    assert got.parts[0].items == 3
    assert got.complete
    assert got.averages[0].name == "all without items that are known to be wrong"
    assert not got.averages[0].headline
    assert score(without={"none"}).averages[0].headline


def test_a_task_may_weigh_as_another_number_of_items() -> None:
    of = AverageOf("all", AverageRule.POOLED, counts_as={"P": 1})
    got = score_replies(ITEMS, replies(), strict, [of], parser="strict")
    assert got.averages[0].value == pytest.approx((25 + 100 + 0) / 3)
    assert got.averages[0].rule.endswith("; P counts as 1 items")


def test_unknown_ids_and_notes_are_told() -> None:
    given = Replies({**replies(), "77": Reply("77", "A")}, notes=["lists were joined"])
    got = score(given)
    assert (got.unknown, got.notes) == (1, ("lists were joined",))


def test_intervals_are_clustered_by_video() -> None:
    items = [item(f"{v}-{n}", "P", "G", "A", video=f"v{v}") for v in range(20) for n in range(10)]
    alike = Replies({one.id: Reply(one.id, "A" if int(one.video[1:]) % 2 else "B") for one in items})
    spread = Replies({one.id: Reply(one.id, "A" if int(one.id[-1]) % 2 else "B") for one in items})
    found = []
    for given in (alike, spread):
        got = score_replies(items, given, strict, [POOLED], parser="strict", expected=200)
        found.append(intervals_by_video(items, got, [POOLED]))
        assert found[-1]["all"].value == found[-1]["P"].value == 50.0
    assert found[0]["all"].low == pytest.approx(28, abs=6), "20 videos, each all right or all wrong"
    assert (found[1]["all"].low, found[1]["all"].high) == (50.0, 50.0), "every video is alike"
    assert intervals_by_video(items, score_replies(items, {}, strict, [], parser="strict"), []) == {}


def test_an_average_over_a_task_of_one_video_is_not_sure() -> None:
    found = intervals_by_video(ITEMS, score(), ALL)
    assert found["total"].value == 31.25
    assert set(found) == {"P", "Q", "R", "all", "tasks", "total"}


def test_constant_answers_and_the_majority_are_replies() -> None:
    items = [
        *[item(str(n), "P", "G", "AAB"[n]) for n in range(3)],
        *[item(f"y{n}", "S", "F", "Yes" if n else "No", Form.YES_NO) for n in range(4)],
        *[item(f"c{n}", "N", "F", answer, Form.COUNT) for n, answer in enumerate(["2", "10", "2"])],
        item("p", "PO", "F", "goal", Form.PROACTIVE),
    ]
    found = baselines.baselines(items)
    numbers = ["always 2", "always 10"]
    letters = [f"always {letter}" for letter in "ABCD"]
    assert list(found) == [*letters, "always Yes", "always No", *numbers, "majority of each task", "speaks at once"]
    assert set(found["always Yes"]) == {"y0", "y1", "y2", "y3"}

    def accuracy(name: str) -> dict[str, float | None]:
        got = score_replies(items, found[name], strict, ALL, parser="strict")
        return {part.name: part.accuracy for part in got.parts}

    third = pytest.approx(200 / 3)
    assert accuracy("always Yes") == {"P": None, "S": 75.0, "N": None, "PO": None}
    assert accuracy("always 2") == {"P": None, "S": None, "N": third, "PO": None}
    assert accuracy("majority of each task") == {"P": third, "S": 75.0, "N": third, "PO": None}
    assert found["speaks at once"] == {"p": Reply("p", "goal", 5.0)}
    assert accuracy("speaks at once")["PO"] == 0.0, "4 s too early"
    chance = score_replies(items, found["majority of each task"], baselines.chance(items), ALL, parser="chance")
    assert {part.name: part.accuracy for part in chance.parts} == {"P": 25.0, "S": 50.0, "N": 50.0, "PO": None}
