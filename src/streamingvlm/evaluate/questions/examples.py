"""The questions of one video as the runner takes them: watched once, asked in forks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.errors import SourceError
from ...core.events import Source
from ..benchmark import QuestionBenchmark, Video
from ..commentary.examples import go_on, open_video
from ..presets import Answers, Preset
from ..record import Record
from ..runs import digest, file_name
from ..shards import stable_number
from ..task import TimedQuestion
from .items import Form, Item, Reply

#: What a reply begins with where its choices are weighed; each choice follows behind a space.
PREFIX = "The answer is:"
#: Most tokens of a reply that is generated.
REPLY_TOKENS = 64


@dataclass(frozen=True, slots=True)
class VideoQuestions:
    """A video and what is asked about it. ``answers``: how replies are had; ``revision``: of the data."""

    at: Video
    items: Sequence[Item]
    preset: Preset
    answers: Answers
    revision: str

    @property
    def name(self) -> str:
        """As its files are called."""
        return file_name(self.at.key)

    @property
    def video(self) -> str:
        """What its frames are called: those of other rates and pixels are others."""
        return f"{self.name}-{digest([self.preset.fps, self.preset.step, self.preset.max_pixels])}"

    @property
    def context(self) -> str:
        """Nothing is known beforehand, but what the source itself says where the items count on it."""
        return str(self.items[0].about.get("context", "")) if self.items else ""

    @property
    def previous(self) -> Sequence[str]:
        """Nothing was said."""
        return ()

    @property
    def start(self) -> float:
        """Seconds."""
        return 0.0

    @property
    def end(self) -> float:
        """Where it is watched to: behind the last question."""
        last = max((item.time if item.until is None else item.until for item in self.items), default=0.0)
        if not math.isfinite(last):
            raise SourceError(
                f"{self.at.path} is not there or does not tell how long it is: nothing can be asked at its end"
            )
        return math.ceil(last / self.preset.step - 1e-6) * self.preset.step

    @property
    def stream(self) -> int:
        """The number that its random numbers follow from."""
        return stable_number(self.at.key)

    @property
    def questions(self) -> Sequence[TimedQuestion]:
        """What is asked, in the order of time."""
        return sorted((question_of(item, self.answers) for item in self.items), key=lambda one: one.time)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What tells whether words that were recorded are of this video."""
        return {"video": self.at.key, "end": self.end, "data": self.revision}

    def source(self, seconds: float, start: float = 0.0) -> Source:
        """The video from ``start`` to where nothing is asked any more."""
        read = go_on if start > 0 else open_video
        return read(str(self.at.path), self.preset, start, min(seconds, self.end))


def question_of(item: Item, answers: Answers) -> TimedQuestion:
    """An item as a stream is asked it: in a turn of its own, or as a continuation of the commentary."""
    if item.about.get("as") == "continuation":
        return TimedQuestion(item.time, item.prompt, id=item.id, options=item.options, as_commentary=True)
    if item.form is Form.PROACTIVE:
        first = float(item.about.get("first_poll", item.time))
        then = str(item.about.get("then", item.question))
        return TimedQuestion(
            first, then, item.id, own_turn=True, poll=item.prompt, until=item.until, max_new_tokens=REPLY_TOKENS
        )
    weighed = answers == "likelihood" and item.choices
    return TimedQuestion(
        item.time,
        item.prompt,
        id=item.id,
        own_turn=True,
        options=tuple(f" {choice}" for choice in item.choices) if weighed else (),
        prefix=PREFIX if weighed else "",
        max_new_tokens=REPLY_TOKENS,
    )


def reply_of(item: Item, answer: str, logprobs: Sequence[float] = (), time: float | None = None) -> Reply:
    """What was answered to an item; ``logprobs``: of its choices, in their order; ``time``: when it was asked."""
    when = time if item.form is Form.PROACTIVE else None
    if not logprobs:
        return Reply(item.id, answer, when)
    most = max(logprobs)
    weights = [math.exp(value - most) for value in logprobs]
    shares = {choice: weight / sum(weights) for choice, weight in zip(item.choices, weights, strict=True)}
    return Reply(item.id, max(shares, key=lambda choice: shares[choice]), when, shares)


def videos_with_questions(benchmark: QuestionBenchmark) -> Iterator[tuple[Video, list[Item]]]:
    """Every video with its items, in the order of the data."""
    by_video: dict[str, list[Item]] = {}
    for item in benchmark.items:
        by_video.setdefault(item.video, []).append(item)
    known = {video.key: video for video in benchmark.videos}
    return ((known[key], items) for key, items in by_video.items())


def _polled(record: Record, item: Item) -> bool:
    """Whether an item was polled as long as it is to be, or as there was a video."""
    return record.ended or (item.until is not None and record.seconds >= item.until - 1e-6)


def replies_of(record: Record, items: Sequence[Item]) -> dict[str, Reply]:
    """The replies that stand in the record of a video. A proactive item that was never answered replied nothing."""
    rows = {row["id"]: row for row in record.answers if "id" in row}
    found = {}
    for item in items:
        if (row := rows.get(item.id)) is not None:
            found[item.id] = reply_of(item, row["answer"], row.get("logprobs", ()), row["asked"])
        elif item.form is Form.PROACTIVE and _polled(record, item):
            found[item.id] = Reply(item.id, "")
    return found
