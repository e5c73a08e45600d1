"""What benchmarks of multiple choice have in common: lettered options, the prompt, and how their parts are counted."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.errors import SourceError
from ..benchmark import Count, Defect, Video
from .items import LETTERS, Item, Part, Reply, Score
from .metrics import AverageOf, make_parts, score_replies
from .parsers import OFFICIAL, STRICT, Mark, Rule, likeliest, pick, strict
from .reading import BEYOND, Malformed, a_list, an_object, lengths, load_json
from .replies import Replies, read_replies
from .tables import locate, optional_text

#: ``Item.time`` of a question about a whole video, whose length the data does not tell.
WHOLE = math.inf

#: Phrases that LongVideoBench's rule takes out of a reply before it looks for a letter, in this order.
PHRASES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)

_LETTERED = re.compile(r"\(?([A-J])[.):]\s*")


def prompt(question: str, options: Sequence[str], before: str = "") -> str:
    """The text that is asked: what stands ``before``, the question, a line for each option, what to reply."""
    lines = [before] if before else []
    lines += [question, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))]
    return "\n".join([*lines, "Reply with nothing but the letter of the right option."])


def plain_options(options: Sequence[str]) -> tuple[str, ...]:
    """Options without the letters that stand before them, where each has its own."""
    found = [_LETTERED.match(option) for option in options]
    lettered = all(one is not None and one[1] == letter for one, letter in zip(found, LETTERS, strict=False))
    return tuple(
        option[one.end() :] if lettered and one else option for option, one in zip(options, found, strict=True)
    )


def options_of(entry: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The options in a field: at least two texts, no more than there are letters. :class:`Malformed` otherwise."""
    options = tuple(one.strip() for one in a_list(entry, name, str))
    if not 1 < len(options) <= len(LETTERS):
        raise Malformed(f"{len(options)} options: there have to be 2 to {len(LETTERS)}")
    return options


def first_capital(text: str, phrases: Iterable[str], letters: str) -> str | None:
    """The first of ``letters`` anywhere in a reply, once the phrases are taken out, one after another.

    "Based on ..." is B. None if there is no such letter.
    """
    for phrase in phrases:
        text = text.replace(phrase, "")
    found = re.search(f"[{letters}]", text)
    return found[0] if found else None


def check_answer(answer: str, options: Sequence[str]) -> str:
    """The answer, if it is a letter of the options. :class:`Malformed` otherwise."""
    if len(answer) != 1 or answer not in LETTERS[: len(options)]:
        raise Malformed(f"the answer {answer!r} is none of the {len(options)} options")
    return answer


def find_videos(items: Iterable[Item], roots: Sequence[Path], folders: Sequence[str] = ("", "videos/")) -> list[Video]:
    """The videos of items by their keys, each at least as long as its last question that has a time."""
    longest: dict[str, float] = {}
    for item in items:
        length = item.time if item.time < WHOLE else 0.0
        longest[item.video] = max(length, longest.get(item.video, 0.0))
    return [
        Video(key, locate(roots, [f"{folder}{key}" for folder in folders]), length) for key, length in longest.items()
    ]


class ChoiceBenchmark:
    """A benchmark whose items have lettered options. A reader fills the fields; replies are scored here."""

    name: str
    revision: str
    items: Sequence[Item]
    videos: Sequence[Video]
    counts: Sequence[Count]
    #: Questions as published, in all or by task.
    expected: int | Mapping[str, int]
    #: The benchmark's figures.
    averages: Sequence[AverageOf] = ()
    #: What the official rule adds to the words of every average.
    remark: str

    def __init__(self) -> None:
        self.defects: list[Defect] = []

    def parse(self, text: str, item: Item) -> str | None:
        """The letter of a reply by the benchmark's own rule; None if it has none."""
        raise NotImplementedError

    def official(self, item: Item, reply: Reply) -> Mark:
        """The benchmark's own rule. Where there is only a likelihood for each option, the likeliest one is meant."""
        letter = likeliest(reply.probabilities, item.choices) if reply.text is None else self.parse(reply.text, item)
        return Mark(float(letter == item.answer), letter is not None)

    def views(self) -> list[list[Item]]:
        """The items under other tasks and groups: a part of the score for each, beside those of the items' own.

        Give one of them to :func:`.metrics.intervals_by_video` for the intervals of these parts.
        """
        return []

    def replies(self, path: Path) -> Mapping[str, Reply]:
        """The replies of a ``.json`` file in the published form, or of any other file of lines ``{"id", "reply"}``.

        SourceError if the file is in neither form.
        """
        return self.published_replies(load_json(path), path) if path.suffix == ".json" else read_replies(path)

    def published_replies(self, value: Any, path: Path) -> Replies:
        """The replies of a file in the published form. SourceError if ``value`` is not in it."""
        raise NotImplementedError

    def score(self, replies: Mapping[str, Reply], parser: str, *, without_defects: bool = False) -> Score:
        """What the replies are worth under ``official`` or ``strict``. Items without a public answer do not count."""
        rule = pick({OFFICIAL: self.official, STRICT: strict}, parser)
        scored = [item for item in self.items if item.answer]
        without = {defect.item for defect in self.defects} if without_defects else set[str]()
        score = score_replies(
            scored, replies, rule, self.averages, parser=parser, expected=self.expected, without=without
        )
        parts = [*score.parts, *(part for view in self.views() for part in _parts(view, replies, rule, without))]
        figures = [replace(one, rule=one.rule + self.remark) for one in score.averages] if parser == OFFICIAL else None
        unknown = len(replies.keys() - {item.id for item in self.items})
        return replace(score, parts=parts, averages=figures or score.averages, unknown=unknown)

    def cap(self, items: Iterable[Item], videos: Iterable[Video]) -> list[Item]:
        """The items at the latest at the end of their videos, as far as these are there and say how long they are.

        An item that comes more than a second behind the end is a defect.
        """
        files = {str(video.path): video.key for video in videos}
        seconds = {files[path]: length for path, length in lengths(Path(), files).items()}
        return [self._capped(item, seconds.get(item.video, item.time)) for item in items]

    def _capped(self, item: Item, end: float) -> Item:
        if item.start >= end:
            what = f"its stretch begins at {item.start:g} s of a video of {end:.1f} s: the whole video is shown"
            self.defects.append(Defect(item.id, what))
            return replace(item, start=0.0, time=end)
        if end + BEYOND < item.time < WHOLE:
            self.defects.append(Defect(item.id, f"asked at {item.time:g} s of a video of {end:.1f} s: moved there"))
        return replace(item, time=min(item.time, end))

    def read_items(self, rows: Iterable[Any], read: Callable[[Mapping[str, Any]], Item], key: str) -> list[Item]:
        """An item for each row that can be used; a defect for each of the others, called by field ``key`` or its row.

        SourceError if no row can be used.
        """
        items: dict[str, Item] = {}
        for number, value in enumerate(rows, 1):
            name = f"row {number}"
            try:
                row = an_object(value)
                name = optional_text(row, key) or name
                item = read(row)
                if item.id in items:
                    raise Malformed("it is there a second time; the first one counts")
                items[item.id] = item
            except Malformed as error:
                self.defects.append(Defect(name, str(error)))
        if not items:
            why = f": {self.defects[0].item}: {self.defects[0].what}" if self.defects else ""
            raise SourceError(f"the data holds no question of {self.name}{why}")
        return list(items.values())


def _parts(view: Iterable[Item], replies: Mapping[str, Reply], rule: Rule, without: set[str]) -> list[Part]:
    items = [item for item in view if item.answer and item.id not in without]
    marks = {item.id: rule(item, replies[item.id]) for item in items if item.id in replies}
    return make_parts(items, replies, marks)
