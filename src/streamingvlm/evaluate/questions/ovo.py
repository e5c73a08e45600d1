"""OVO-Bench: questions about the past, the present and the future of a video, each asked at a second of it.

Li et al., *OVO-Bench: How Far is Your Video-LLMs from Real-World Online Video Understanding?* (arXiv 2501.05510). The
data is ``ovo_bench_new.json``: 1,640 entries, 3,035 queries, 12 tasks in three categories. An entry of a forward task
(REC, SSR, CRR) is asked several times; each time is an item of its own, ``ID_i`` for the i-th line of ``test_info``.

Times: a query may see its video from the beginning to ``realtime`` seconds, rounded up to a whole second (one query
comes at 0.03 s, before any full second is over), or to the end of the video if that comes first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.errors import SourceError
from ..benchmark import Count, Defect, Video
from . import parsers, reading
from .items import LETTERS, Average, Form, Item, Reply, Score
from .metrics import AverageOf, AverageRule, score_replies
from .parsers import OFFICIAL, STRICT, Mark
from .reading import Malformed
from .replies import Replies, read_replies

FILE = "ovo_bench_new.json"
#: Tasks of each category with the number of their queries, as published.
CATEGORIES: Mapping[str, Mapping[str, int]] = {
    "backward": {"EPM": 297, "ASI": 148, "HLD": 186},
    "realtime": {"OCR": 149, "ACR": 109, "ATR": 116, "STU": 178, "FPD": 101, "OJR": 184},
    "forward": {"REC": 698, "SSR": 629, "CRR": 240},
}
GROUPS = {task: group for group, tasks in CATEGORIES.items() for task in tasks}
PUBLISHED = {task: count for tasks in CATEGORIES.values() for task, count in tasks.items()}

_EACH = [AverageOf(group, AverageRule.TASKS, tuple(tasks), headline=True) for group, tasks in CATEGORIES.items()]
#: The official averages, and one that others report: without the forward tasks.
AVERAGES = (
    *_EACH,
    AverageOf("total", AverageRule.GROUPS, tuple(PUBLISHED), headline=True),
    AverageOf(
        "backward and realtime", AverageRule.GROUPS, tuple(task for one in _EACH[:2] for task in one.tasks or ())
    ),
)

_CHOICE = "{question}\n{options}\nReply with the letter of the right option and nothing else."
_COUNT = (
    "So far in this video, how often did this happen: {activity}? Count only what was completed. "
    "Reply with one whole number and nothing else."
)
_STEP = 'Is this step being carried out at this moment: "{step}"? Reply with Yes or No and nothing else.'
_ENOUGH = (
    "{question}\nDoes the video so far show enough to answer this question? Do not answer the question itself. "
    "Reply with Yes or No and nothing else."
)


@dataclass(frozen=True, slots=True)
class ForwardDelay:
    """When a model says that it can answer (CRR): a measure of this package, not of the benchmark.

    Each entry is polled at five seconds. ``early``: entries whose first Yes comes before the clue (``clue_time``);
    ``never``: those without any Yes; ``in_time``: those whose first Yes is the first poll behind the clue; ``delay``:
    seconds from the clue to the first Yes, mean of the entries that are neither early nor never (None: there is none);
    ``least``: the same if every first Yes came at the first poll behind the clue: polls are seconds apart.
    """

    entries: int
    early: int
    never: int
    in_time: int
    delay: float | None
    least: float | None


@dataclass(frozen=True, slots=True)
class _Record:
    """A reply as a results file has it; ``truth``: the right answer that stands beside it."""

    reply: Reply
    file: Path
    truth: Any = None


class OVOBench:
    """OVO-Bench as it was published, or a part of it.

    ``data``: ``ovo_bench_new.json`` or a folder with it; ``videos``: the folder of the source videos. No options.
    SourceError for data that cannot be read; an entry that cannot be used is a defect.
    """

    name = "ovo"
    averages: Sequence[AverageOf] = AVERAGES

    def __init__(self, data: Path, videos: Path | None = None, **options: str) -> None:
        reading.take_options(self.name, options, {})
        self.file = data / FILE if data.is_dir() else data
        self._defects: list[Defect] = []
        found = self._read(reading.load_list(self.file))
        self.revision = reading.revision([self.file])
        root = videos or self.file.parent
        seconds = reading.lengths(root, (item.video for item in found))
        self.items: Sequence[Item] = [self._capped(item, seconds.get(item.video)) for item in found]
        self._by_id = {item.id: item for item in self.items}
        self._defects += _task_notes(self.items)
        needed: dict[str, float] = {}
        for item in found:
            needed[item.video] = max(needed.get(item.video, 0.0), item.about["realtime"])
        self.videos: Sequence[Video] = reading.videos_of(root, needed)

    @property
    def counts(self) -> Sequence[Count]:
        """Queries of each task."""
        found = Counter(item.task for item in self.items)
        return [Count(task, found[task], expected) for task, expected in PUBLISHED.items()]

    @property
    def defects(self) -> Sequence[Defect]:
        """What is wrong with the data: each is computed from the data itself."""
        return self._defects

    def replies(self, path: Path) -> Replies:
        """Replies of a results file of the repository, of a folder of them, or of lines ``{"id", "reply"}``.

        A results file is ``{"backward": [...], "realtime": [...], "forward": [...]}``, or one list of such entries.
        Some published files give the id of an earlier entry to a later one with the same question: such a reply goes to
        the later entry. SourceError if it is neither, or if an item has two different replies.
        """
        if path.suffix == ".jsonl" and not path.is_dir():
            return read_replies(path)
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise SourceError(f"{path} holds no results (*.json)")
        found, notes = Replies(), Counter[str]()
        again = []
        for file in files:
            for record in _published(file, notes):
                if record.reply.item in found:
                    again.append(record)
                else:
                    found.put(record.reply, str(record.file))
                    self._check_truth(record, notes)
        for record in again:
            self._put_again(record, found, notes)
        found.notes = [f"{count} {note}" for note, count in notes.items()]
        return found

    def _put_again(self, record: _Record, found: Replies, notes: Counter[str]) -> None:
        """A second reply under the same id: that of another entry with the same question, or a repetition."""
        first = self._by_id.get(record.reply.item)
        twins = [
            item.id
            for item in self.items
            if first is not None
            and (item.task, item.video, item.question) == (first.task, first.video, first.question)
            and item.id not in found
        ]
        if twins:
            notes["replies bear the id of another entry with the same question; they were given to theirs"] += 1
            record = replace(record, reply=replace(record.reply, item=twins[0]))
        elif found[record.reply.item] == record.reply:
            notes["replies are there twice, with the same words; they count once"] += 1
            return
        found.put(record.reply, str(record.file))
        self._check_truth(record, notes)

    def _check_truth(self, record: _Record, notes: Counter[str]) -> None:
        item = self._by_id.get(record.reply.item)
        if item is not None and record.truth not in (None, item.answer):
            notes["replies stand beside another truth than the data has; they are scored by the data"] += 1

    def score(self, replies: Mapping[str, Reply], parser: str, *, without_defects: bool = False) -> Score:
        """Tasks pool their queries; a category is the mean of its tasks, the total that of the three categories."""
        rule = parsers.pick(RULES, parser)
        without = {defect.item for defect in self._defects} if without_defects else frozenset()
        found = score_replies(self.items, replies, rule, AVERAGES, parser=parser, expected=PUBLISHED, without=without)
        return replace(found, averages=[*found.averages, *_per_entry(self.items, found)])

    def remarks(self, replies: Mapping[str, Reply]) -> list[str]:
        """When a model first says that it can answer, in a line; none without the replies to whole entries of CRR."""
        found = self.forward_delay(replies)
        if not found.entries:
            return []
        delay = "none" if found.delay is None else f"{found.delay:.1f} s behind the clue (at least {found.least:.1f} s)"
        return [
            f"forward delay (CRR, a measure of this package): of {found.entries} entries {found.in_time} in time, "
            f"{found.early} early, {found.never} never; mean delay {delay}"
        ]

    def forward_delay(self, replies: Mapping[str, Reply], parser: str = STRICT) -> ForwardDelay:
        """When Yes is said first in CRR. ``parser``: what counts as a Yes. Entries without all replies are left out."""
        rule = parsers.pick(RULES, parser)
        entries: dict[str, list[Item]] = {}
        for item in self.items:
            if item.task == "CRR":
                entries.setdefault(item.about["entry"], []).append(item)
        whole = [polls for polls in entries.values() if all(poll.id in replies for poll in polls)]
        return _delay([sorted(polls, key=_second) for polls in whole], lambda item: _says_yes(rule, item, replies))

    def _read(self, entries: Sequence[Any]) -> list[Item]:
        """All items. What cannot be used is told and left out."""
        found: dict[str, Item] = {}
        for place, entry in enumerate(entries):
            name = str(entry["id"]) if isinstance(entry, dict) and "id" in entry else f"entry {place}"
            try:
                for item, what in _items(reading.an_object(entry)):
                    if item.id in found:
                        self._defects.append(Defect(item.id, "this id is there twice: only the first is used"))
                        continue
                    found[item.id] = item
                    self._defects += [Defect(item.id, one) for one in what]
            except Malformed as error:
                self._defects.append(Defect(name, f"cannot be used, it is left out: {error}"))
        if not found:
            raise SourceError(f"{self.file} holds no entry of OVO-Bench")
        return list(found.values())

    def _capped(self, item: Item, seconds: float | None) -> Item:
        """The item at the latest at the end of its video."""
        if seconds is None or item.time <= seconds:
            return item
        if item.about["realtime"] > seconds + reading.BEYOND:
            what = f"asked at {item.about['realtime']:g} s, behind the end of its video ({seconds:.1f} s): moved there"
            self._defects.append(Defect(item.id, what))
        return replace(item, time=seconds)


def official(item: Item, reply: Reply) -> Mark:
    """The rule of the benchmark's own scorer: the right answer is contained in the reply, whatever else is.

    Choices: the letter, anywhere. Counts: all digits of the reply, joined. Yes and No: the word with its capital,
    anywhere, or a bare Y or N. No text is wrong.
    """
    text = reply.text if reply.text is not None else parsers.likeliest(reply.probabilities, item.choices)
    if text is None:
        return Mark(0.0, False)
    if item.form is Form.COUNT:
        digits = "".join(character for character in text if character.isdecimal())
        return Mark(float(digits == item.answer), bool(digits))
    if item.form is Form.YES_NO and text in {"Y", "N"}:
        return Mark(float(item.answer.startswith(text)), True)
    return Mark(float(item.answer in text), any(choice in text for choice in item.choices))


RULES: Mapping[str, parsers.Rule] = {OFFICIAL: official, STRICT: parsers.strict}


def _items(entry: Mapping[str, Any]) -> Iterator[tuple[Item, list[str]]]:
    """The items of an entry, each with what is wrong with it; nothing is given before the whole entry is read."""
    task = reading.a_text(entry, "task")
    if task not in GROUPS:
        raise Malformed(f"{task!r} is none of the tasks")
    name = entry.get("id")
    if isinstance(name, bool) or not isinstance(name, int | str):
        raise Malformed("it has no id")
    reading.relative(reading.a_text(entry, "video"), "data/", "src_videos/")
    make = {"REC": _repetitions, "SSR": _steps, "CRR": _clues}.get(task, _choice)
    yield from list(make(str(name), entry))


def _item(entry: Mapping[str, Any], id: str, told: Mapping[str, Any], **more: Any) -> Item:
    realtime = reading.a_number(told, "realtime")
    task = entry["task"]
    about = {"realtime": realtime, "entry": str(entry["id"]), **more.pop("about", {})}
    video = reading.relative(entry["video"], "data/", "src_videos/")
    return Item(id, video, task, GROUPS[task], max(1.0, math.ceil(realtime)), about=about, **more)


def _choice(name: str, entry: Mapping[str, Any]) -> Iterator[tuple[Item, list[str]]]:
    options = tuple(reading.a_list(entry, "options", str))
    question, right = reading.a_text(entry, "question"), reading.a_whole_number(entry, "gt")
    if not right < len(options) <= len(LETTERS):
        raise Malformed(f"'gt' is {right}, counted from 0, of {len(options)} options")
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    prompt = _CHOICE.format(question=question, options=listed)
    more = {"question": question, "answer": LETTERS[right], "prompt": prompt, "options": options}
    item = _item(entry, name, entry, **more)
    twins = [letter for letter, option in zip(LETTERS, options, strict=False) if option == options[right]]
    what = [f"options {' and '.join(twins)} are the same words, and {LETTERS[right]} is right"] if twins[1:] else []
    yield item, what + _early(item)


def _queries(name: str, entry: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The lines of ``test_info`` with the ids of their items."""
    return [(f"{name}_{place}", told) for place, told in enumerate(reading.a_list(entry, "test_info", dict))]


def _repetitions(name: str, entry: Mapping[str, Any]) -> Iterator[tuple[Item, list[str]]]:
    activity, ends = reading.a_text(entry, "activity"), reading.numbers(entry, "end_times")
    for id, told in _queries(name, entry):
        count = reading.a_whole_number(told, "count")
        more = {"question": activity, "answer": str(count), "prompt": _COUNT.format(activity=activity)}
        item = _item(entry, id, told, form=Form.COUNT, **more)
        ended = sum(end <= item.about["realtime"] for end in ends)
        what = [f"counts {count}, but {ended} have ended by {item.about['realtime']:g} s"] if ended != count else []
        yield item, what + _early(item)


def _steps(name: str, entry: Mapping[str, Any]) -> Iterator[tuple[Item, list[str]]]:
    steps = reading.a_list(entry, "all_steps", str)
    starts, ends = (reading.numbers(entry, field) for field in ("start_time", "end_time"))
    spans = dict(zip(steps, zip(starts, ends, strict=False), strict=False))
    for id, told in _queries(name, entry):
        step = reading.a_text(told, "step")
        item = _yes_no(entry, id, told, step, _STEP.format(step=step))
        now = item.about["realtime"]
        start, end = spans.get(step, (0.0, math.inf))
        truth = "Yes" if start <= now <= end else "No"
        wrong = step in spans and steps.count(step) == 1 and truth != item.answer
        what = (
            [f"says {item.answer}, but the step is from {start:g} to {end:g} s, and it is {now:g} s"] if wrong else []
        )
        yield item, what + _early(item)


def _clues(name: str, entry: Mapping[str, Any]) -> Iterator[tuple[Item, list[str]]]:
    question, clue = reading.a_text(entry, "question"), reading.a_number(entry, "clue_time")
    asked = reading.a_number(entry, "ask_time")
    for id, told in _queries(name, entry):
        about = {"ask_time": asked, "clue_time": clue}
        item = _yes_no(entry, id, told, question, _ENOUGH.format(question=question), about)
        now = item.about["realtime"]
        wrong = (now >= clue) != (item.answer == "Yes")
        what = [f"says {item.answer}, but the clue comes at {clue:g} s, and it is {now:g} s"] if wrong else []
        yield item, what + _early(item)


def _yes_no(
    entry: Mapping[str, Any],
    id: str,
    told: Mapping[str, Any],
    question: str,
    prompt: str,
    about: Mapping[str, Any] | None = None,
) -> Item:
    truth = reading.a_whole_number(told, "type")
    if truth > 1:
        raise Malformed(f"'type' has to be 0 (No) or 1 (Yes), not {truth}")
    answer = "Yes" if truth else "No"
    more = {"question": question, "answer": answer, "prompt": prompt, "about": about or {}}
    return _item(entry, id, told, form=Form.YES_NO, **more)


def _early(item: Item) -> list[str]:
    now = item.about["realtime"]
    return [f"asked at {now:g} s, before a full second of the video is over: moved to 1 s"] if now < 1 else []


def _task_notes(items: Sequence[Item]) -> list[Defect]:
    """Tasks whose right answer is always the same words."""
    found = []
    for task in dict.fromkeys(item.task for item in items if item.options):
        right = [item.options[LETTERS.index(item.answer)] for item in items if item.task == task]
        if len(right) > 1 and len(set(right)) == 1:
            what = f'the right answer of all {len(right)} items is "{right[0]}": a model that always abstains gets 100'
            found.append(Defect(f"task {task}", what))
    return found


def _published(file: Path, notes: Counter[str]) -> Iterator[_Record]:
    """The replies of a results file."""
    told = reading.load_json(file)
    groups = [told[group] for group in CATEGORIES if told.get(group) is not None] if isinstance(told, dict) else []
    if groups and all(isinstance(group, list) for group in groups):
        entries = [entry for group in groups for entry in group]
    elif isinstance(told, list):
        entries = told
    else:
        raise SourceError(f"{file} is no results file: it has to be a list, or lists under {', '.join(CATEGORIES)}")
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int | str):
            raise SourceError(f"{file}: entry {place} has no id")
        name, queries = str(entry["id"]), entry.get("test_info")
        if isinstance(queries, list):
            for at, query in enumerate(queries):
                if isinstance(query, dict) and "response" in query:
                    yield _Record(_reply(f"{name}_{at}", query["response"], file, notes), file)
        elif "response" in entry:
            yield _Record(_reply(name, entry["response"], file, notes), file, entry.get("ground_truth"))


def _reply(id: str, text: Any, file: Path, notes: Counter[str]) -> Reply:
    if isinstance(text, list) and all(isinstance(one, str) for one in text):
        notes["replies are lists of texts; their texts were joined"] += 1
        text = " ".join(text)
    if text is not None and not isinstance(text, str):
        raise SourceError(f"{file}: the reply to item {id} has to be a text or null, not {reading.kind(text)}")
    return Reply(id, text)


def _per_entry(items: Sequence[Item], score: Score) -> list[Average]:
    """The forward tasks by entry instead of by query: an entry that is asked 33 times weighs as one asked twice."""
    shares: dict[str, dict[str, list[float]]] = {task: {} for task in CATEGORIES["forward"]}
    for item in items:
        if item.task in shares and item.id in score.right:
            shares[item.task].setdefault(item.about["entry"], []).append(score.right[item.id])
    rule = "mean of the entries, each the share of its queries that are right"
    means = {task: _mean([100 * sum(one) / len(one) for one in entries.values()]) for task, entries in shares.items()}
    found = [Average(f"{task} per entry", rule, mean) for task, mean in means.items()]
    known = [mean for mean in means.values() if mean is not None]
    whole = _mean(known) if len(known) == len(means) else None
    return [*found, Average("forward per entry", f"mean of the tasks, each the {rule}", whole)]


def _delay(entries: Sequence[Sequence[Item]], says_yes: Callable[[Item], bool]) -> ForwardDelay:
    early = never = in_time = 0
    delays, least = [], []
    for polls in entries:
        clue = polls[0].about["clue_time"]
        first = next((_second(poll) for poll in polls if says_yes(poll)), None)
        soonest = next((_second(poll) for poll in polls if _second(poll) >= clue), None)
        if first is None:
            never += 1
        elif first < clue:
            early += 1
        else:
            delays.append(first - clue)
            least.append((first if soonest is None else soonest) - clue)
            in_time += first == soonest
    return ForwardDelay(len(entries), early, never, in_time, _mean(delays), _mean(least))


def _says_yes(rule: parsers.Rule, item: Item, replies: Mapping[str, Reply]) -> bool:
    """Whether the reply would be right if Yes were."""
    return rule(replace(item, answer="Yes"), replies[item.id]).value == 1.0


def _second(item: Item) -> float:
    return float(item.about["realtime"])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
