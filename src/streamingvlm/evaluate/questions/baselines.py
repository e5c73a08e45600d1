"""What is scored without seeing anything: constant answers, the majority of each task, and chance.

The constant answers and the majority are replies like any model's, and go through the same scorer. Chance is a rule:
what an answer drawn evenly from the choices is worth on average. A blind baseline (a model that gets the question and
no video) is a run like any other; nothing here makes one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .items import Form, Item, Reply
from .parsers import Mark, Rule
from .replies import Replies

#: What the majority and chance are called beside the parsers' names.
MAJORITY, CHANCE, AT_ONCE = "majority of each task", "chance", "speaks at once"


def baselines(items: Sequence[Item]) -> dict[str, Replies]:
    """Name -> replies: every answer that some item takes, always given; the majority; proactive items at once.

    A constant answer is given to the items that take it (``always Yes`` not to those with letters); the others have
    no reply, so an average over them has no value.
    """
    answers = dict.fromkeys(answer for item in items for answer in item.choices)
    found = {f"always {answer}": constant(items, answer) for answer in answers}
    counts = sorted({item.answer for item in items if item.form is Form.COUNT}, key=_as_number)
    found |= {f"always {count}": constant(items, count) for count in counts}
    found[MAJORITY] = majority(items)
    if any(item.form is Form.PROACTIVE for item in items):
        found[AT_ONCE] = at_once(items)
    return found


def constant(items: Sequence[Item], answer: str) -> Replies:
    """``answer`` to every item whose choices hold it, and to all counts if it is a number."""
    takers = [item for item in items if answer in item.choices or (item.form is Form.COUNT and answer.isdigit())]
    return Replies({item.id: Reply(item.id, answer) for item in takers})


def majority(items: Sequence[Item]) -> Replies:
    """The most frequent true answer of an item's task, to every item but proactive ones.

    It knows the truth, so it is what the best constant answer for each task is worth; the first of two as frequent.
    """
    found: dict[tuple[str, Form], Counter[str]] = {}
    for item in items:
        found.setdefault((item.task, item.form), Counter())[item.answer] += 1
    best = {key: max(sorted(counts), key=counts.__getitem__) for key, counts in found.items()}
    asked = [item for item in items if item.form is not Form.PROACTIVE]
    return Replies({item.id: Reply(item.id, best[item.task, item.form]) for item in asked})


def at_once(items: Sequence[Item]) -> Replies:
    """The right words at the first second at which a proactive item is polled (``about["first_poll"]``, else its time):
    what a model is worth that says yes to everything."""
    asked = [item for item in items if item.form is Form.PROACTIVE]
    return Replies({item.id: Reply(item.id, item.answer, item.about.get("first_poll", item.time)) for item in asked})


def chance(items: Sequence[Item]) -> Rule:
    """A rule that marks any reply with what an even draw is worth: one over the number of choices.

    Of counts, the choices are the true counts of the item's task; proactive items are left out. Score any replies that
    cover the items with it, :func:`majority` for instance.
    """
    counts: dict[str, set[str]] = {}
    for item in items:
        if item.form is Form.COUNT:
            counts.setdefault(item.task, set()).add(item.answer)

    def rule(item: Item, _: Reply) -> Mark:
        choices = len(counts[item.task]) if item.form is Form.COUNT else len(item.choices)
        return Mark(1 / choices, True) if choices else Mark(None, True)

    return rule


def _as_number(answer: str) -> tuple[int, str]:
    return (int(answer), answer) if answer.isdigit() else (0, answer)
