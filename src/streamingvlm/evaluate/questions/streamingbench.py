"""StreamingBench: questions at a time stamp of a video, questions that build on each other, and outputs in time.

Lin et al., *StreamingBench: Assessing the Gap for MLLMs to Achieve Streaming Video Understanding* (arXiv 2411.03628).
The data are ``questions_real.json`` (2,500 questions), ``questions_omni.json`` (1,500, with sound),
``questions_sqa.json`` (250) and ``questions_proactive.json`` (250) or ``questions_proactive_50.json`` (51), or the
``questions_*_stream.json`` that hold the same grouped by video.

A question may see its video up to its time stamp, a whole second; the option ``context`` says from when on. An item is
named by its place (``real_12_0``: entry 12, question 0): video, stamp and question together are not unique.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.errors import OptionError, SourceError
from ..benchmark import Count, Defect, Video
from . import parsers, reading
from .items import LETTERS, Average, Form, Item, Reply, Score
from .metrics import AverageOf, AverageRule, score_replies
from .parsers import OFFICIAL, STRICT, Mark
from .reading import Malformed
from .replies import Replies, is_number, read_replies

#: Questions of each task, as published, by subset.
REAL = {
    "Object Recognition": 367,
    "Action Recognition": 353,
    "Text-Rich Understanding": 321,
    "Clips Summarize": 317,
    "Attribute Recognition": 306,
    "Spatial Understanding": 246,
    "Counting": 193,
    "Event Understanding": 161,
    "Causal Reasoning": 128,
    "Prospective Reasoning": 108,
}
OMNI = dict.fromkeys(
    ("Emotion Recognition", "Scene Understanding", "Source Discrimination", "Multimodal Alignment"), 250
)
MISLEADING = dict.fromkeys(("Misleading Context Understanding", "Anomaly Context Understanding"), 250)
SEQUENTIAL, PROACTIVE = "Sequential Question Answering", "Proactive Output"
#: What the paper's table groups the tasks under.
GROUPS = {
    **dict.fromkeys(REAL, "real-time"),
    **dict.fromkeys(OMNI, "omni-source"),
    **dict.fromkeys((*MISLEADING, SEQUENTIAL, PROACTIVE), "contextual"),
}
SUBSETS = ("real", "omni", "sqa", "proactive")
#: The paper asked 50 proactive questions; the data now holds 250 (and 51 in the other file).
PROACTIVE_WEIGHT = {PROACTIVE: 50.0}
#: Seconds: between two polls, behind the truth at which polling ends, and around it in which an output is in time.
POLL, BEHIND, TOLERANCE = 1.0, 4.0, 2.0


def _pooled(name: str, group: str | None) -> AverageOf:
    tasks = tuple(task for task, one in GROUPS.items() if group in (None, one))
    weights = PROACTIVE_WEIGHT if PROACTIVE in tasks else {}
    return AverageOf(name, AverageRule.POOLED, tasks, headline=True, counts_as=weights)


AVERAGES = (
    _pooled("real-time, all", "real-time"),
    _pooled("omni-source, all", "omni-source"),
    _pooled("contextual, all", "contextual"),
    _pooled("overall", None),
)

_OPTIONS: Mapping[str, Sequence[str]] = {
    "context": ("-1",),
    "layout": ("entries", "stream"),
    "proactive": ("250", "50"),
    "subset": ("all", *SUBSETS),
}
_CHOICE = "{before}{question}\n{options}\nReply with the letter of the right option and nothing else."
_BEFORE = (
    "These questions about the video were asked earlier, and these are the right answers:\n{earlier}\nNow this one:\n"
)
_EARLIER = "[{stamp}] {question} ({options}) Answer: {answer}"
_POLL = '{question}\nIs this the moment to output "{output}"? Reply with Yes or No and nothing else.'
_OUTPUT = "{question}\nWhat is asked for has just happened. Output it now, and nothing else."

#: Fields of a question in the data; another one holds a model's replies.
_FIELDS = {
    "task_type",
    "question",
    "time_stamp",
    "answer",
    "options",
    "required_ability",
    "cause",
    "effect",
    "captions",
}
_FIELDS |= {"audio_path", "time", "ground_truth_time_stamp", "ground_truth_output"}
_STAMP = re.compile(r"\d{1,2}:[0-5]\d:[0-5]\d")
_CLOCK = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})")
#: The folder of the videos, which the benchmark's own preparation writes into the data as an absolute path.
_BEFORE_VIDEO = re.compile(r"^.*\bvideos/")
_LABEL = re.compile(rf"\s*([{LETTERS}])[.):]\s*")
#: A stamp whose form is right and that lies this far behind its window is doubted, seconds.
_FAR = 3600.0


class StreamingBench:
    """StreamingBench as it was published, or some of its subsets.

    ``data``: a folder with the question files (or one of them); ``videos``: the folder of the videos. Options:
    ``context``: seconds before the question that are shown (-1: all; the paper's main table: 60); ``layout``:
    ``entries`` or ``stream``, which files are read; ``proactive``: ``250`` or ``50``; ``subset``: ``real``, ``omni``,
    ``sqa`` or ``proactive`` (``all``: those that are there).

    Sequential questions have the earlier ones of their video with the *true* answers in their prompt (``after`` names
    them), whatever was replied. A proactive item is polled every second from ``about["first_poll"]`` to ``until`` with
    ``prompt``; at the first yes ``about["then"]`` is asked: that reply and its second are the item's reply.
    """

    name = "streamingbench"
    averages: Sequence[AverageOf] = AVERAGES

    def __init__(self, data: Path, videos: Path | None = None, **options: str) -> None:
        self.context, chosen = _context(options)
        self._defects: list[Defect] = []
        self._files = _files(data, chosen)
        self._expected: dict[str, int] = {}
        found = [item for subset, file in self._files.items() for item in self._read(subset, file)]
        if not found:
            raise SourceError(f"{data} holds no question of StreamingBench")
        self.revision = reading.revision(self._files.values())
        root = videos or (data if data.is_dir() else data.parent)
        seconds = reading.lengths(root, (item.video for item in found))
        self.items: Sequence[Item] = [self._capped(item, seconds.get(item.video)) for item in found]
        self._by_id = {item.id: item for item in self.items}
        needed: dict[str, float] = {}
        for item in found:
            needed[item.video] = max(needed.get(item.video, 0.0), item.time, item.truth_time or 0.0)
        self.videos: Sequence[Video] = reading.videos_of(root, needed)

    @property
    def counts(self) -> Sequence[Count]:
        """Questions of each task."""
        found = Counter(item.task for item in self.items)
        return [Count(task, found[task], expected) for task, expected in self._expected.items()]

    @property
    def defects(self) -> Sequence[Defect]:
        """What is wrong with the data: each is computed from the data itself."""
        return self._defects

    def replies(self, path: Path, model: str | None = None) -> Replies:
        """Replies of output files of the benchmark's repository, of a folder of them, or of lines ``{"id", "reply"}``.

        An output file is a question file with one more field in each question: the model's. ``model``: which one, if
        there are several. SourceError if it is none, or its questions are not those of the data.
        """
        if path.suffix == ".jsonl" and not path.is_dir():
            return read_replies(path)
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise SourceError(f"{path} holds no output file (*.json)")
        found = Replies()
        for file in files:
            places = list(_places(reading.load_list(file), str(file)))
            subset = _subset_of(places, file)
            field = model or _model_field(places, file)
            for place in places:
                id = f"{subset}_{place.name}"
                if (item := self._by_id.get(id)) is not None and item.question != place.question.get("question"):
                    raise SourceError(f"{file}: question {place.name} is not that of the data; are the files in order?")
                if field in place.question:
                    found.put(_reply(id, place.question[field], str(file)), str(file))
        return found

    def score(self, replies: Mapping[str, Reply], parser: str, *, without_defects: bool = False) -> Score:
        """Averages pool the questions; proactive ones count as the 50 of the paper. Their timing alone is told too."""
        rule = parsers.pick(RULES, parser)
        without = {defect.item for defect in self._defects} if without_defects else frozenset()
        found = score_replies(
            self.items, replies, rule, AVERAGES, parser=parser, expected=self._expected, without=without
        )
        timing = [self._timing(replies, without)] if PROACTIVE in self._expected else []
        return replace(found, averages=[*found.averages, *timing])

    def _timing(self, replies: Mapping[str, Reply], without: Collection[str]) -> Average:
        asked = [item for item in self.items if item.form is Form.PROACTIVE and item.id not in without]
        marks = [parsers.in_time(item, replies[item.id]) for item in asked if item.id in replies]
        value = 100 * sum(marks) / len(marks) if marks else None
        return Average(f"{PROACTIVE}, timing alone", f"output within {TOLERANCE:g} s, whatever it is", value)

    def _read(self, subset: str, file: Path) -> Iterator[Item]:
        """The items of a file. What cannot be used is told and left out."""
        self._expected |= _expected(file)
        earlier: list[Item] = []
        for place in _places(reading.load_list(file), str(file)):
            id = f"{subset}_{place.name}"
            if place.first:
                earlier = []
            try:
                item, what = self._item(subset, id, place, earlier)
            except Malformed as error:
                self._defects.append(Defect(id, f"cannot be used, it is left out: {error}"))
                continue
            self._defects += [Defect(id, one) for one in what]
            if subset == "sqa":
                earlier.append(item)
            yield item

    def _item(self, subset: str, id: str, place: _Place, earlier: Sequence[Item]) -> tuple[Item, list[str]]:
        question, entry = place.question, place.entry
        task = reading.a_text(question, "task_type")
        if (task == PROACTIVE) != (subset == "proactive") or task not in GROUPS:
            raise Malformed(f"{task!r} is no task of this file")
        video = reading.relative(_BEFORE_VIDEO.sub("", reading.a_text(entry, "video_path")))
        asked = reading.a_text(question, "question")
        window = question.get("time", entry.get("time"))
        time, mended = read_stamp(reading.a_text(question, "time_stamp"), window)
        start = 0.0 if self.context < 0 else max(0.0, time - self.context)
        item = Item(id, video, task, GROUPS[task], time, asked, "", "", start=start, about={"context": self.context})
        if subset == "proactive":
            return _proactive(item, question, window, mended)
        options, what = read_options(reading.a_list(question, "options", str))
        answer = reading.a_text(question, "answer").strip()
        if answer not in LETTERS[: len(options)]:
            raise Malformed(f"the answer {answer!r} is the letter of none of {len(options)} options")
        return _with_prompt(replace(item, options=options, answer=answer), earlier), mended + what

    def _capped(self, item: Item, seconds: float | None) -> Item:
        """The item at the latest at the end of its video."""
        if seconds is None or item.time <= seconds:
            return item
        if item.time > seconds + reading.BEYOND:
            what = f"asked at {item.time:g} s, behind the end of its video ({seconds:.1f} s): moved there"
            self._defects.append(Defect(item.id, what))
        return replace(item, time=seconds, start=min(item.start, seconds))


def official(item: Item, reply: Reply) -> Mark:
    """The rule of the benchmark's own count: the first character is the answer; no reply is left out of the count.

    (Its code stops at an empty reply; here that is no reply either.) Proactive: within 2 s, and the words to be said
    are contained as they are written.
    """
    text = reply.text if reply.text is not None else parsers.likeliest(reply.probabilities, item.choices)
    if item.form is Form.PROACTIVE:
        if text is None:
            return Mark(None, False)
        return Mark(float(parsers.in_time(item, reply) and item.answer in text), True)
    if not text:
        return Mark(None, False)
    return Mark(float(text[0] == item.answer), text[0] in item.choices)


RULES: Mapping[str, parsers.Rule] = {OFFICIAL: official, STRICT: parsers.strict}


def read_stamp(stamp: str, window: Any = None) -> tuple[float, list[str]]:
    """The second that a time stamp means, and what was mended in it.

    ``window``: the stretch of video beside it (``[0:12:00 - 0:13:00]``). It often does not contain the stamp, so it is
    only asked where the stamp cannot be meant as it is written: where its form is none, or more than an hour behind the
    window. The first reading that lies in the window is then taken: as hours, minutes, seconds; as minutes, seconds; as
    minutes, seconds and a rest; as its digits two by two. :class:`Malformed` if none does.
    """
    stamp = stamp.strip()
    span = _window(window)
    whole = _seconds(stamp) if _STAMP.fullmatch(stamp) else None
    if whole is not None and (span is None or whole <= span[1] + _FAR):
        return whole, []
    for reading_ in _readings(stamp):
        if span is not None and span[0] <= reading_ <= span[1]:
            what = f"time stamp {stamp!r} is read as {_clock(reading_)}, which lies in its window ({_told(window)})"
            return reading_, [what]
    raise Malformed(f"the time stamp {stamp!r} cannot be read, and no reading of it lies in its window")


def _readings(stamp: str) -> Iterator[float]:
    """What a time stamp may mean, the most literal first."""
    groups = stamp.split(":")
    if all(re.fullmatch(r"\d{1,6}", group) for group in groups) and len(groups) <= 3:
        yield float(sum(int(group) * 60**power for power, group in enumerate(reversed(groups))))
        if len(groups) == 3:
            yield float(int(groups[0]) * 60 + int(groups[1]))
    digits = "".join(character for character in stamp if character.isdecimal())
    if len(digits) >= 6:
        hours, minutes, seconds = (int(digits[at : at + 2]) for at in (0, 2, 4))
        yield float(hours * 3600 + minutes * 60 + seconds)


def _window(text: Any) -> tuple[float, float] | None:
    times = [_seconds(":".join(groups)) for groups in _CLOCK.findall(text)] if isinstance(text, str) else []
    return (times[0], times[1]) if len(times) == 2 else None


def _seconds(clock: str) -> float:
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return float(hours * 3600 + minutes * 60 + seconds)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


def _told(window: Any) -> str:
    return str(window).strip("[]【】 ")


def read_options(published: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The four options without their letters, in the order of their letters, and what was mended.

    Some were split at their commas: where options have letters, a piece without one belongs to the option before it. Of
    more than four, the first four are used, which are those that the benchmark's own prompt prints. Where only one
    seems to have a letter, it is a name ("A. Lebrun").
    """
    labels = [_LABEL.match(option) for option in published]
    if sum(label is not None for label in labels) < 2:
        labels = [None] * len(published)
    pieces: list[tuple[str, str]] = []
    for option, label in zip(published, labels, strict=True):
        text = option[label.end() :].strip() if label else option.strip()
        if label is None and any(labels) and pieces:
            letter, before = pieces[-1]
            pieces[-1] = letter, f"{before}, {text}" if text else before
        else:
            pieces.append((label[1] if label else "", text))
    if len(pieces) < 2:
        raise Malformed(f"it has {len(pieces)} option")
    what = []
    if len(published) > 4:
        joined, left = len(published) - len(pieces), max(0, len(pieces) - 4)
        what = [f"has {len(published)} options: {joined} joined to the one before, {left} left out"]
    pieces = pieces[:4]
    letters = "".join(letter for letter, _ in pieces)
    if letters and letters != LETTERS[: len(pieces)]:
        in_order = sorted(letters) == list(LETTERS[: len(pieces)])
        pieces = sorted(pieces) if in_order else pieces
        taken = "sorted by them" if in_order else "taken in the order in which they stand"
        what.append(f"the letters of its options are {', '.join(letters)}: {taken}")
    return tuple(text for _, text in pieces), what


def _with_prompt(item: Item, earlier: Sequence[Item]) -> Item:
    before = ""
    if earlier:
        lines = [
            _EARLIER.format(
                stamp=_clock(one.time), question=one.question, options=_listed(one.options, "; "), answer=one.answer
            )
            for one in earlier
        ]
        before = _BEFORE.format(earlier="\n".join(lines))
    prompt = _CHOICE.format(before=before, question=item.question, options=_listed(item.options, "\n"))
    return replace(item, prompt=prompt, after=tuple(one.id for one in earlier))


def _listed(options: Sequence[str], between: str) -> str:
    return between.join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def _proactive(item: Item, question: Mapping[str, Any], window: Any, mended: list[str]) -> tuple[Item, list[str]]:
    output = reading.a_text(question, "ground_truth_output")
    truth, also = read_stamp(reading.a_text(question, "ground_truth_time_stamp"), window)
    if truth < item.time:
        raise Malformed(f"the output is right at {truth:g} s, before it is asked for at {item.time:g} s")
    first = item.time + POLL
    about = {**item.about, "tolerance": TOLERANCE, "poll": POLL, "first_poll": first}
    about["then"] = _OUTPUT.format(question=item.question)
    made = replace(
        item,
        form=Form.PROACTIVE,
        answer=output,
        prompt=_POLL.format(question=item.question, output=output),
        start=item.time,  # the official clip begins at the stamp, whatever the context
        until=truth + BEHIND,
        truth_time=truth,
        about=about,
    )
    return made, mended + also


@dataclass(frozen=True, slots=True)
class _Place:
    """A question in its file. ``name``: its place; ``first``: whether it is the first of its video's list."""

    name: str
    first: bool
    entry: Mapping[str, Any]
    question: Mapping[str, Any]


def _places(entries: Sequence[Any], file: str) -> Iterator[_Place]:
    """The questions of a file in either layout. SourceError where an entry is none."""
    for number, entry in enumerate(entries):
        members = entry if isinstance(entry, list) else [entry]
        count = 0
        for member in members:
            questions = member.get("questions") if isinstance(member, dict) else None
            if not isinstance(questions, list):
                raise SourceError(f"{file}: entry {number} has no list of questions")
            for question in questions:
                asked = question if isinstance(question, dict) else {}
                yield _Place(f"{number}_{count}", count == 0, member, asked)
                count += 1


def _context(options: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    """The option ``context`` as a number, and the others. OptionError for what cannot be meant."""
    context = options.get("context", "-1")
    if not re.fullmatch(r"-1|[1-9]\d*", context):
        raise OptionError(
            f"{StreamingBench.name}: context={context} has to be whole seconds, or -1 for all of the video"
        )
    chosen = {name: value for name, value in options.items() if name != "context"}
    return int(context), reading.take_options(StreamingBench.name, chosen, _OPTIONS)


def _files(data: Path, options: Mapping[str, str]) -> dict[str, Path]:
    """Subset -> its file. SourceError if there is none."""
    if data.is_file():
        subset = next((one for one in SUBSETS if f"_{one}" in data.stem), None)
        if subset is None:
            raise SourceError(f"{data.name} does not say what it holds: questions_{'|'.join(SUBSETS)}.json")
        return {subset: data}
    found = {}
    for subset in SUBSETS if options["subset"] == "all" else (options["subset"],):
        name = f"questions_{subset}"
        if subset == "proactive":
            name += "_50" if options["proactive"] == "50" else ""
        elif options["layout"] == "stream":
            name += "_stream"
        if (data / f"{name}.json").is_file():
            found[subset] = data / f"{name}.json"
        elif options["subset"] != "all":
            raise SourceError(f"{data} has no {name}.json")
    if not found:
        raise SourceError(f"{data} holds no question file (questions_real.json and others)")
    return found


def _expected(file: Path) -> dict[str, int]:
    """Published questions by task of a file with that name."""
    if "_real" in file.stem:
        return REAL
    if "_omni" in file.stem:
        return {**OMNI, **MISLEADING}
    if "_sqa" in file.stem:
        return {SEQUENTIAL: 250}
    return {PROACTIVE: 51 if "_50" in file.stem else 250}


def _subset_of(places: Sequence[_Place], file: Path) -> str:
    """Which subset an output file is of, by the task of its first question."""
    task = str(places[0].question.get("task_type")) if places else ""
    if task in REAL:
        return "real"
    if task in OMNI or task in MISLEADING:
        return "omni"
    if task in (SEQUENTIAL, PROACTIVE):
        return "sqa" if task == SEQUENTIAL else "proactive"
    raise SourceError(f"{file} is no output file of StreamingBench: its first question has no known task")


def _model_field(places: Sequence[_Place], file: Path) -> str:
    """The one field that a question file does not have."""
    fields = sorted({field for place in places for field in place.question} - _FIELDS)
    if len(fields) != 1:
        told = f"fields of several models: {', '.join(fields)}" if fields else "no field with a model's replies"
        raise SourceError(f"{file} has {told}")
    return fields[0]


def _reply(id: str, told: Any, where: str) -> Reply:
    """A model's reply, or what it said when it was polled: the last thing that it said, and when."""
    if told is None or isinstance(told, str):
        return Reply(id, told)
    history = told.get("dialog_history") if isinstance(told, dict) else None
    if not isinstance(history, list) or not history or not isinstance(history[-1], dict):
        raise SourceError(f"{where}: the reply to {id} has to be a text, null, or a dialog_history")
    answered: Any = told.get("answered")
    text = history[-1].get("content")
    if text is not None and not isinstance(text, str):
        raise SourceError(f"{where}: the reply to {id} has to be a text, null, or a dialog_history")
    return Reply(id, text, float(answered) if is_number(answered) else None)
