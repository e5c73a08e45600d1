"""LongVideoBench: questions that refer to a moment of a video of up to an hour, with subtitles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.errors import SourceError
from ..benchmark import Count
from .choices import PHRASES, ChoiceBenchmark, check_answer, find_videos, first_capital, options_of, prompt
from .items import LETTERS, Item, Reply, Score
from .metrics import AverageOf, AverageRule
from .reading import Malformed, a_number, a_text, relative, revision, take_options
from .replies import Replies
from .subtitles import as_prompt, read_longvideobench, shown
from .tables import find_tables, locate, optional_text, read_rows

#: Questions of the published splits.
PUBLISHED = {"val": 1337, "test": 5341}
#: What the files are called on the hub, the preferred first.
TABLES = {
    "val": ("lvb_val.json", "**/lvb_val.json", "**/validation*.parquet", "**/val*.parquet"),
    "test": ("lvb_test_wo_gt.json", "**/lvb_test_wo_gt.json", "**/test*.parquet"),
}
#: An option that is not there, in the Parquet form.
ABSENT = "N/A"


class LongVideoBench(ChoiceBenchmark):
    """LongVideoBench (arXiv 2407.15754) as its authors publish it.

    ``data``: the folder with ``lvb_val.json`` and ``subtitles/``, or a single file; ``videos``: the folder of the
    videos (None: ``data``). Options: ``split`` (``val``, ``test``) and ``subtitles`` (``no``, ``yes``).

    Only the first ``duration`` seconds of a video count: that is the time of every item. With ``subtitles=yes`` the
    lines in which a frame of one per second lies stand before the question, each with the second of its middle; the
    video's starting timestamp is subtracted.

    The test split has no public answers: its items can be asked, and are not scored.

    ``official`` takes phrases like "The answer is" out of a reply and then the first capital A to E, wherever it
    stands. The published scorer answers a reply without one by a random letter; here such a reply is **wrong**, so a
    model that often fails to answer scores lower than there (by a fifth to a quarter of the failed share).

    SourceError for data that cannot be read; a row that cannot be used is a defect.
    """

    name = "longvideobench"
    averages = (AverageOf("overall", AverageRule.POOLED, headline=True),)
    remark = "; a reply without a letter is wrong (the published scorer draws a random one)"

    def __init__(self, data: Path, videos: Path | None = None, **options: str) -> None:
        super().__init__()
        known = take_options(self.name, options, {"split": ("val", "test"), "subtitles": ("no", "yes")})
        self.split, self.with_subtitles = known["split"], known["subtitles"] == "yes"
        self.expected = published = PUBLISHED[self.split]
        files = find_tables(data, TABLES[self.split], f"LongVideoBench ({self.split})")
        folder = data if data.is_dir() else data.parent
        self.roots = [folder] if videos is None else [videos, folder]
        self.revision = revision(files)
        found = self.read_items((row for file in files for row in read_rows(file)), self._item, "id")
        self.videos = find_videos(found, self.roots[:1])
        self.items = found if videos is None else self.cap(found, self.videos)
        self.counts = self._counts(published)

    def _item(self, row: Mapping[str, Any]) -> Item:
        question, options = a_text(row, "question"), _options(row)
        duration, answer = a_number(row, "duration"), _answer(row, options)
        if duration == 0:
            raise Malformed("'duration' is 0: no second of the video counts")
        name = a_text(row, "id")
        return Item(
            id=name,
            video=relative(a_text(row, "video_path")),
            task=optional_text(row, "question_category") or "unknown",
            group="question category",
            time=duration,
            question=question,
            answer=answer,
            prompt=prompt(question, options, self._before(name, row, duration)),
            options=options,
            about={key: row[key] for key in ("duration_group", "topic_category", "level") if key in row},
        )

    def _before(self, name: str, row: Mapping[str, Any], duration: float) -> str:
        if not self.with_subtitles:
            return ""
        file = optional_text(row, "subtitle_path")
        offset = row.get("starting_timestamp_for_subtitles", 0)
        if not file or isinstance(offset, bool) or not isinstance(offset, int | float):
            raise Malformed("'subtitle_path' or 'starting_timestamp_for_subtitles' is missing")
        path = locate(self.roots[::-1], [f"subtitles/{file}", file])
        try:
            lines = shown(read_longvideobench(path, offset, duration), duration)
        except SourceError as error:
            # Asked without its subtitles it would be another question.
            raise SourceError(f"subtitles=yes: {error} (question {name})") from None
        return f"Subtitles of the video:\n{as_prompt(lines)}" if lines else ""

    def _counts(self, published: int) -> list[Count]:
        counts = [Count(self.split, len(self.items), published)]
        groups = Counter(_duration_group(item) for item in self.items)
        names = sorted(groups, key=lambda group: (len(group), group))
        return counts + [Count(group, groups[group]) for group in names]

    def views(self) -> list[list[Item]]:
        """The items by duration group."""
        return [[replace(item, task=_duration_group(item), group="duration group") for item in self.items]]

    def parse(self, text: str, item: Item) -> str | None:  # noqa: ARG002 - the rule does not look at the options
        """The first capital A to E once the phrases are taken out."""
        return first_capital(text, PHRASES, "ABCDE")

    def published_replies(self, value: Any, path: Path) -> Replies:
        """Of a submission: an object of replies by question id."""
        if not isinstance(value, dict) or not all(isinstance(reply, str | None) for reply in value.values()):
            raise SourceError(
                f'{path} is no submission to LongVideoBench: that is one object {{"QUESTION ID": "REPLY"}}'
            )
        return Replies({name: Reply(name, reply) for name, reply in value.items()})

    def score(self, replies: Mapping[str, Reply], parser: str, *, without_defects: bool = False) -> Score:
        """As :meth:`ChoiceBenchmark.score`; of the test split nothing is scored, which a note says."""
        score = super().score(replies, parser, without_defects=without_defects)
        hidden = sum(not item.answer for item in self.items)
        note = f"{hidden} questions have no public answer and are not scored"
        return replace(score, notes=(*score.notes, note)) if hidden else score


def _duration_group(item: Item) -> str:
    return f"{item.about.get('duration_group', 'unknown')} s"


def _options(row: Mapping[str, Any]) -> tuple[str, ...]:
    if "candidates" in row:
        return options_of(row, "candidates")
    found = [row.get(f"option{number}") for number in range(5)]
    present = [None if option in (None, ABSENT) else option for option in found]
    while present and present[-1] is None:
        present.pop()
    # An option that is missing in the middle would move the letters behind it.
    return options_of({"option0 to option4": present}, "option0 to option4")


def _answer(row: Mapping[str, Any], options: tuple[str, ...]) -> str:
    """The letter of ``correct_choice``, which counts from zero; "" where the split does not tell it."""
    choice = row.get("correct_choice")
    if choice is None or choice == -1:
        return ""
    if isinstance(choice, bool) or not isinstance(choice, int) or not 0 <= choice < len(options):
        raise Malformed(f"'correct_choice' {choice!r} is none of the {len(options)} options (from 0)")
    return check_answer(LETTERS[choice], options)
