"""What is asked, what was answered, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

#: Letters of options.
LETTERS = "ABCDEFGHIJ"


class Form(StrEnum):
    """What a right answer looks like. ``PROACTIVE``: what to say and, within a tolerance, when."""

    CHOICE = "choice"
    YES_NO = "yes/no"
    COUNT = "count"
    PROACTIVE = "proactive"


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one video.

    ``id``: different for every item, also where an entry of the data holds several; ``video``: the key of its video;
    ``task`` and ``group``: what it is counted under (``EPM``, ``backward``); ``time``: seconds on the video's clock:
    nothing behind it may be seen, already rounded and capped as the benchmark cuts its clips; ``start``: where the
    official clip begins. ``question``: as published; ``options``: without letters; ``answer``: a letter, ``Yes``,
    ``No``, a number, or the words to be said. ``prompt``: the whole text that is asked, in our words. ``until``:
    for proactive items the last second at which they are polled; ``truth_time``: when the answer becomes right (None:
    not told). ``after``: ids of items whose questions and true answers stand before this one's in the prompt.
    ``about``: other fields that a metric needs.
    """

    id: str
    video: str
    task: str
    group: str
    time: float
    question: str
    answer: str
    prompt: str
    form: Form = Form.CHOICE
    options: tuple[str, ...] = ()
    start: float = 0.0
    until: float | None = None
    truth_time: float | None = None
    after: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def choices(self) -> tuple[str, ...]:
        """What a reply may be, where that is a closed set: letters, or Yes and No."""
        if self.form is Form.CHOICE:
            return tuple(LETTERS[: len(self.options)])
        return ("Yes", "No") if self.form is Form.YES_NO else ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What was replied to an item, raw. ``time``: when, for proactive items (None: never, or not told).

    ``probabilities``: of each choice, where options were scored by likelihood.
    """

    item: str
    text: str | None
    time: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """A task's score. ``correct`` of ``items``; ``answered``: with a reply; ``unparsed``: replies without an answer.

    ``items`` are those that count: ``missing`` ones have no reply at all, ``left_out`` ones have one that the parser's
    rule leaves out of the count.
    """

    name: str
    group: str
    items: int
    answered: int
    correct: float
    unparsed: int
    missing: int = 0
    left_out: int = 0

    @property
    def accuracy(self) -> float | None:
        """Share of items that are right, percent (None: no items)."""
        return 100 * self.correct / self.items if self.items else None


@dataclass(frozen=True, slots=True)
class Average:
    """One figure over tasks, with the rule that makes it; None where a part is missing.

    ``headline``: whether it is the benchmark's official figure, which is only printed for a complete set.
    """

    name: str
    rule: str
    value: float | None
    headline: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """What replies are worth under one parser.

    ``right``: item id -> 1.0, 0.0 or what the metric gives it, for intervals clustered by video. ``complete``: every
    published item was there and has a reply. ``unknown``: replies to items that the data does not have; ``notes``: how
    the replies were read, where their writer may not expect it.
    """

    parser: str
    parts: Sequence[Part]
    averages: Sequence[Average]
    right: Mapping[str, float]
    expected: int | None
    found: int
    complete: bool
    unknown: int = 0
    notes: Sequence[str] = ()
