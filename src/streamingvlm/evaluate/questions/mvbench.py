"""MVBench: twenty tasks of 200 questions about short clips."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import SourceError
from ...sources.decode import VideoFile
from ..benchmark import Count, Defect
from .choices import WHOLE, ChoiceBenchmark, check_answer, find_videos, options_of, prompt
from .items import LETTERS, Item, Reply
from .metrics import AverageOf, AverageRule
from .reading import Malformed, a_number, a_text, relative, revision, take_options
from .replies import Replies
from .tables import locate, read_rows

#: Questions of every task, as published.
QUESTIONS = 200
#: Rate of the JPEGs of a clip that is a folder, and the number of the first.
STILLS_FPS, FIRST_STILL = 3.0, 1


@dataclass(frozen=True, slots=True)
class Task:
    """``folder``: of its videos; ``bounded``: questions have a start and an end; ``cut``: the folder where the hub's
    branch ``video`` has them, of clips that are cut already ("": the same)."""

    folder: str
    bounded: bool = False
    cut: str = ""


#: In the order of the published code.
TASKS = {
    "action_sequence": Task("star/Charades_v1_480", True, "star/Charades_segment"),
    "action_prediction": Task("star/Charades_v1_480", True, "star/Charades_segment"),
    "action_antonym": Task("ssv2_video", cut="ssv2_video_mp4"),
    "fine_grained_action": Task("Moments_in_Time_Raw/videos"),
    "unexpected_action": Task("FunQA_test/test"),
    "object_existence": Task("clevrer/video_validation"),
    "object_interaction": Task("star/Charades_v1_480", True, "star/Charades_segment"),
    "object_shuffle": Task("perception/videos"),
    "moving_direction": Task("clevrer/video_validation"),
    "action_localization": Task("sta/sta_video", True, "sta/sta_video_segment"),
    "scene_transition": Task("scene_qa/video"),
    "action_count": Task("perception/videos"),
    "moving_count": Task("clevrer/video_validation"),
    "moving_attribute": Task("clevrer/video_validation"),
    "state_change": Task("perception/videos"),
    "fine_grained_pose": Task("nturgbd", cut="nturgbd_convert"),
    "character_order": Task("perception/videos"),
    "egocentric_navigation": Task("vlnqa"),
    "episodic_reasoning": Task("tvqa/frames_fps3_hq", True, "tvqa/video_fps3_hq_segment"),
    "counterfactual_inference": Task("clevrer/video_validation"),
}


class MVBench(ChoiceBenchmark):
    """MVBench (arXiv 2311.17005).

    ``data``: the folder with a JSON file for each task (``action_count.json``), itself or in ``json/``; ``videos``: the
    folder of the sources (``star``, ``clevrer``, ...; None: ``video/`` beside, or the data's). No options.

    Five tasks ask about a stretch of their video: ``Item.start`` and ``Item.time``. Of the other tasks the time is the
    clip's end, infinite where that is not known. The hub's branch ``video`` holds such stretches as clips of their own;
    where a video is found only there, it is shown whole. A video of episodic reasoning is a folder of JPEGs, see
    :mod:`streamingvlm.sources.images`.

    A video that is missing stays in :attr:`videos` and its questions in :attr:`items`: nothing is dropped, so two
    people have the same denominator. Questions that stand twice in a task are kept, and are defects.

    ``official`` is the rule of the benchmark's own notebook: the first word of the reply, without dots and no matter
    what case, is the option's letter with or without its brackets, or begins like "(b)". A reply **without a letter in
    its first word is wrong**; as published, the rule takes an empty reply (and "(") for the right one.

    SourceError for data that cannot be read; a row that cannot be used is a defect.
    """

    name = "mvbench"
    expected = dict.fromkeys(TASKS, QUESTIONS)
    averages = (
        AverageOf("overall", AverageRule.POOLED, headline=True),
        AverageOf("mean of tasks", AverageRule.TASKS),
    )
    remark = "; an empty reply is wrong (the published rule takes it for right)"

    def __init__(self, data: Path, videos: Path | None = None, **options: str) -> None:
        super().__init__()
        take_options(self.name, options, {})
        files = _task_files(data)
        folder = data if data.is_dir() else data.parent
        self.roots = [videos] if videos is not None else [folder / "video", folder, folder.parent / "video"]
        self.revision = revision(files.values())
        rows = [_named(row, task, number) for task, file in files.items() for number, row in enumerate(read_rows(file))]
        read = self.read_items(rows, self._item, "id")
        self.videos = find_videos(read, self.roots, ("", "data0613/"))
        self.items = self.cap(read, self.videos)
        found = Counter(item.task for item in self.items)
        self.counts = [Count(task, found[task], QUESTIONS) for task in TASKS]
        self._find_repeated()

    def _item(self, row: Mapping[str, Any]) -> Item:
        task = row["task"]
        options, question = options_of(row, "candidates"), a_text(row, "question")
        video, start, end = self._stretch(relative(a_text(row, "video")), TASKS[task], row)
        about = {"stills_fps": STILLS_FPS, "first_still": FIRST_STILL} if task == "episodic_reasoning" else {}
        return Item(
            id=row["id"],
            video=video,
            task=task,
            group="",
            time=end,
            start=start,
            question=question,
            answer=check_answer(_letter(a_text(row, "answer"), options), options),
            prompt=prompt(question, options),
            options=options,
            about=about,
        )

    def _stretch(self, video: str, task: Task, row: Mapping[str, Any]) -> tuple[str, float, float]:
        """Key of the video, and what of it is shown."""
        whole, cut = f"{task.folder}/{video}", f"{task.cut}/{video}"
        names = [f"{folder}{whole}" for folder in ("", "data0613/")]
        if task.cut and not locate(self.roots, names).exists() and locate(self.roots, [cut]).exists():
            return cut, 0.0, WHOLE
        if not task.bounded:
            return whole, 0.0, WHOLE
        start, end = a_number(row, "start"), a_number(row, "end")
        if end <= start:
            raise Malformed(f"the stretch ends at {end:g} s, not behind its start at {start:g} s")
        return whole, start, end

    def _find_repeated(self) -> None:
        first: dict[tuple[object, ...], str] = {}
        for item in self.items:
            key = (item.task, item.video, item.start, item.time, item.question, item.options)
            known = first.setdefault(key, item.id)
            if known != item.id:
                self.defects.append(Defect(item.id, f"the same question of the same video as {known}"))

    def parse(self, text: str, item: Item) -> str | None:
        """The option that the first word stands for; the right one first, should it stand for several."""
        lines = text.strip().split("\n")
        word = lines[0].split(" ")[0].lower()
        if not re.search("[a-g]", word):
            return None
        letters = [item.answer, *item.choices] if item.answer else item.choices
        return next((one for one in letters if _stands_for(word, f"({one.lower()})")), None)

    def published_replies(self, value: Any, path: Path) -> Replies:
        """Of the notebook's result: ``res_list`` of ``{"pred", "gt"}`` for all items, in the published order."""
        rows = value.get("res_list") if isinstance(value, dict) else None
        if not isinstance(rows, list) or len(rows) != len(self.items):
            raise SourceError(f"{path} is no result of MVBench: that has a 'res_list' of {len(self.items)} replies")
        found = Replies()
        for number, (item, row) in enumerate(zip(self.items, rows, strict=True), 1):
            where = f"{path}, reply {number}"
            if not isinstance(row, dict) or not isinstance(row.get("pred"), str | None):
                raise SourceError(f'{where}: it has to be {{"pred": "REPLY", "gt": "(A) ANSWER"}}')
            # Only the place tells which question is meant, so the answer has to be that question's.
            if row.get("gt") != f"({item.answer}) {item.options[LETTERS.index(item.answer)]}":
                raise SourceError(f"{where}: its answer is {row.get('gt')!r}, not that of {item.id} in the data")
            found.put(Reply(item.id, row.get("pred")), where)
        return found


def read_picture(path: Path) -> NDArray[np.uint8]:
    """(height, width, 3) RGB of a file that holds one picture. SourceError if it cannot be read."""
    video = VideoFile(path)
    picture = next((video.picture(shown.frame) for shown in video.frames()), None)
    if picture is None:
        raise video.refuse("its picture cannot be shown")
    return picture


def _stands_for(word: str, bracketed: str) -> bool:
    return word.replace(".", "") in bracketed or bracketed in word


def _task_files(data: Path) -> dict[str, Path]:
    if data.is_file():
        if data.stem not in TASKS:
            raise SourceError(f"{data.name} is no task of MVBench; they are called {', '.join(TASKS)}")
        return {data.stem: data}
    found = {task: locate([data], [f"json/{task}.json", f"{task}.json"]) for task in TASKS}
    there = {task: path for task, path in found.items() if path.is_file()}
    if not there:
        raise SourceError(
            f"{data} holds no task of MVBench; wanted are action_sequence.json and others, or json/ with them"
        )
    return there


def _named(row: Any, task: str, number: int) -> Any:
    return {**row, "task": task, "id": f"{task}-{number}"} if isinstance(row, dict) else f"{task}: a row is no object"


def _letter(answer: str, options: tuple[str, ...]) -> str:
    """The letter of the candidate whose text is the answer; of two the last, as the published code has it."""
    exact = [place for place, option in enumerate(options) if option == answer]
    alike = [place for place, option in enumerate(options) if option.casefold() == answer.casefold()]
    if places := exact or alike:
        return LETTERS[places[-1]] if places[-1] < len(LETTERS) else ""
    raise Malformed(f"the answer {answer!r} is none of the candidates")
