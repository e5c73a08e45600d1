"""Video-MME: three questions about each of 900 videos of up to an hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.errors import SourceError
from ..benchmark import Count
from .choices import WHOLE, ChoiceBenchmark, check_answer, find_videos, first_capital, options_of, plain_options, prompt
from .items import Average, Item, Reply, Score
from .metrics import AverageOf, AverageRule
from .parsers import OFFICIAL, Mark
from .reading import Malformed, a_text, revision, take_options
from .replies import Replies
from .subtitles import as_prompt, read_srt
from .tables import find_tables, locate, optional_text, read_rows

#: Videos of each duration, questions of each video, and videos with subtitles, as published.
DURATIONS = ("short", "medium", "long")
VIDEOS, QUESTIONS, SUBTITLED = 300, 3, 744
TABLES = ("**/test*.parquet", "**/*.parquet", "*.jsonl", "*.json")
SUBTITLE_FOLDERS = ("subtitle", "subtitles")

#: Phrases that the published scorer takes out of a reply. Its list lacks two commas: "The best option is", "The correct
#: option is", "Best answer:" and "Best option:" are joined in pairs that no reply holds. They are not here either, so
#: "Best option: A" is read as B, from its first word.
PHRASES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "Answer:",
    "Option:",
    "The correct answer",
    "The correct option",
)


class VideoMME(ChoiceBenchmark):
    """Video-MME (arXiv 2405.21075).

    ``data``: the Parquet file of the hub, the JSON template of the result file (a list of videos with their
    ``questions``), or a folder with one; ``videos``: the folder of ``ID.mp4`` (None: that of the data). Option:
    ``subtitles`` (``no``, ``yes``): the lines of ``subtitle/ID.srt``, each with the second of its middle, stand before
    the question; 744 videos have them, the others are asked without.

    A question is about the whole video: the time of an item is the video's end, infinite where that is not known.

    ``official`` takes some phrases out of a reply (see :data:`PHRASES`) and then the first capital A to D, wherever it
    stands. A reply without one is **left out of the denominator**; the second overall figure counts it as wrong. The
    published scorer refuses a result that has not 300 videos of each duration, so there is no headline without them.

    SourceError for data that cannot be read; a row that cannot be used is a defect.
    """

    name = "videomme"
    expected = dict.fromkeys(DURATIONS, VIDEOS * QUESTIONS)
    averages = (
        AverageOf("overall", AverageRule.POOLED, DURATIONS, headline=True),
        *(AverageOf(duration, AverageRule.POOLED, (duration,)) for duration in DURATIONS),
    )
    remark = "; replies without a letter are left out"

    def __init__(self, data: Path, videos: Path | None = None, **options: str) -> None:
        super().__init__()
        self.with_subtitles = take_options(self.name, options, {"subtitles": ("no", "yes")})["subtitles"] == "yes"
        files = find_tables(data, TABLES, "Video-MME")
        if len(files) > 1 and files[0].suffix != ".parquet":
            raise SourceError(
                f"{data} holds several files that may be Video-MME; name one, for instance {files[0].name}"
            )
        folder = data if data.is_dir() else data.parent
        self.roots = [folder] if videos is None else [videos, folder]
        self.revision = revision(files)
        self.subtitled: dict[str, str] = {}
        rows = (question for file in files for row in read_rows(file) for question in flat(row))
        found = self.read_items(rows, self._item, "question_id")
        self.videos = find_videos(found, self.roots[:1], ("", "data/", "videos/"))
        self.items = self.cap(found, self.videos)
        self.counts = self._counts()

    def _item(self, row: Mapping[str, Any]) -> Item:
        options = plain_options(options_of(row, "options"))
        question, duration = a_text(row, "question"), a_text(row, "duration")
        if duration not in DURATIONS:
            raise Malformed(f"'duration' {duration!r} is none of {', '.join(DURATIONS)}")
        clip = optional_text(row, "videoID") or a_text(row, "video_id")
        return Item(
            id=a_text(row, "question_id"),
            video=f"{clip}.mp4",
            task=duration,
            group="duration",
            time=WHOLE,
            question=question,
            answer=check_answer(a_text(row, "answer"), options),
            prompt=prompt(question, options, self._before(clip)),
            options=options,
            about={key: optional_text(row, key) for key in ("task_type", "domain", "sub_category")},
        )

    def _before(self, clip: str) -> str:
        if not self.with_subtitles:
            return ""
        if clip not in self.subtitled:
            path = locate(self.roots[::-1], [f"{folder}/{clip}.srt" for folder in SUBTITLE_FOLDERS])
            self.subtitled[clip] = as_prompt(read_srt(path)) if path.is_file() else ""
        lines = self.subtitled[clip]
        return f"Subtitles of the video:\n{lines}" if lines else ""

    def _counts(self) -> list[Count]:
        found = Counter(item.task for item in self.items)
        counts = [Count(duration, found[duration], VIDEOS * QUESTIONS) for duration in DURATIONS]
        if self.with_subtitles:
            there = sum(map(bool, self.subtitled.values()))
            if not there:
                raise SourceError(f"subtitles=yes: there is no subtitle/ID.srt under {self.roots[-1]}")
            counts.append(Count("videos with subtitles", there, SUBTITLED))
        return counts

    def views(self) -> list[list[Item]]:
        """The items by task type, by domain, and by sub-category."""
        kinds = {"task_type": "task type", "domain": "domain", "sub_category": "sub-category"}
        return [
            [replace(item, task=item.about[key] or "unknown", group=kind) for item in self.items]
            for key, kind in kinds.items()
        ]

    def parse(self, text: str, item: Item) -> str | None:  # noqa: ARG002 - the rule does not look at the options
        """The first capital A to D once the phrases are taken out."""
        return first_capital(text.strip(), PHRASES, "ABCD")

    def official(self, item: Item, reply: Reply) -> Mark:
        """As the published scorer: a reply without a letter does not count."""
        mark = super().official(item, reply)
        return mark if mark.parsed else Mark(None, False)

    def score(self, replies: Mapping[str, Reply], parser: str, *, without_defects: bool = False) -> Score:
        """As :meth:`ChoiceBenchmark.score`; under ``official`` also over all questions that have a reply."""
        score = super().score(replies, parser, without_defects=without_defects)
        averages = list(score.averages)
        if parser == OFFICIAL:
            averages.append(_over_all(score))
        if not all(self._whole(duration) for duration in DURATIONS):
            averages = [replace(one, headline=False) for one in averages]
        return replace(score, averages=averages)

    def _whole(self, duration: str) -> bool:
        return len({item.video for item in self.items if item.task == duration}) == VIDEOS

    def published_replies(self, value: Any, path: Path) -> Replies:
        """Of a result file: ``response`` of every question. A note counts the answers that differ from the data's."""
        if not isinstance(value, list):
            raise SourceError(f"{path} is no result of Video-MME: that is a list of videos with their questions")
        answers = {item.id: item.answer for item in self.items}
        found, differ = Replies(), 0
        for number, row in enumerate((question for video in value for question in flat(video)), 1):
            where = f"{path}, question {number}"
            if not isinstance(row, Mapping) or "question_id" not in row:
                raise SourceError(f"{where}: it has no question_id")
            if "response" not in row:
                continue
            name, response = str(row["question_id"]), row["response"]
            if not isinstance(response, str | None):
                raise SourceError(f"{where}: the response has to be a text or null, not {type(response).__name__}")
            found.put(Reply(name, response), where)
            differ += "answer" in row and name in answers and row["answer"] != answers[name]
        if differ:
            found.notes.append(f"{differ} questions have another answer in the result file; the data's is taken")
        return found


def flat(row: Any) -> Iterator[Any]:
    """The questions of a row: itself, or where it is a video with ``questions`` those, with the video's fields."""
    if not isinstance(row, Mapping) or "questions" not in row:
        yield row
        return
    questions = row["questions"]
    if not isinstance(questions, list):
        yield f"'questions' of video {row.get('video_id')} is no list"
        return
    video = {key: value for key, value in row.items() if key != "questions"}
    for question in questions:
        yield {**video, **question} if isinstance(question, Mapping) else question


def _over_all(score: Score) -> Average:
    """The overall figure in which replies without a letter are wrong."""
    parts = [part for part in score.parts if part.group == "duration"]
    items = sum(part.items + part.left_out for part in parts)
    value = 100 * sum(part.correct for part in parts) / items if items else None
    name = score.averages[0].name.replace("overall", "overall, every reply counts", 1)
    return Average(name, f"{AverageRule.POOLED}; replies without a letter are wrong", value)
