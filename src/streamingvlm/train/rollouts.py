"""Rollouts: what a model said by itself while it watched the training streams, and chunks with these words as history.

Training shows true words as history, a running stream shows the model its own: an error that it never met makes the
next one likelier. The on-policy stage (beyond the paper) puts the model's own words into the previous text and the
earlier turns, and keeps the true words as the target; a reply is learnt up to the first token that leaves the
truth.

One JSON line per segment of a stream, so that a run can be taken up again and read by people::

    {"line": "games.jsonl, byte 0", "video": "final.mp4", "start": 0.0, "step": 1.0, "said": ["", "kick off", ...],
     "cut": 0, "made": {"model": ..., "seed": ..., "temperature": ..., ...}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from ..core.errors import OptionError
from ..data.report import Reason, Report
from ..data.words import EPS
from .collate import ChunkDataset
from .examples import TrainingExample
from .scan import Place


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """What was said in each step of a segment of a stream, from ``start`` (seconds on the words' clock) on.

    ``line``: the annotation that the stream comes from; ``cut``: replies that had to be cut at their longest; ``made``:
    with which model and settings.
    """

    line: str
    video: str
    start: float
    step: float
    said: tuple[str, ...]
    cut: int
    made: dict[str, Any]

    @property
    def key(self) -> tuple[str, float]:
        """Which segment of which stream it is."""
        return self.line, self.start

    def to_line(self) -> str:
        """One JSON line."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


def read_rollouts(path: Path) -> list[RolloutRecord]:
    """All rollouts of a file and of its parts (``NAME.0-of-8.jsonl``). :class:`OptionError` if there are none.

    A last line that a killed process left half written is not read.
    """
    files = [file for file in (path, *sorted(path.parent.glob(f"{path.stem}.*-of-*{path.suffix}"))) if file.is_file()]
    found = [said for file in files for said in whole_lines(file)]
    if not found:
        raise OptionError(f"{path} holds no rollouts; `streamingvlm rollout CONFIG` makes them")
    return found


def whole_lines(path: Path) -> Iterable[RolloutRecord]:
    """The rollouts of one file. :class:`OptionError` for a line that is none, but for a half written last one."""
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            table = json.loads(line)
            yield RolloutRecord(**{**table, "said": tuple(table["said"])})
        except (ValueError, TypeError, KeyError):
            if number == len(lines) and not line.endswith(b"\n"):
                return
            raise OptionError(f"{path}, line {number}: not a rollout") from None


class OnPolicyDataset(Dataset[TrainingExample]):
    """The chunks of a data set with a model's own words in the text; those that no rollout covers are left out.

    ``report``: the data set's, with them counted.
    """

    def __init__(self, chunks: ChunkDataset, rollouts: Iterable[RolloutRecord]) -> None:
        self.chunks = chunks
        self.report: Report = chunks.report
        self._rollouts: dict[str, list[RolloutRecord]] = {}
        for said in rollouts:
            if abs(said.step - chunks.plan.step) > EPS:
                raise OptionError(f"rollouts have steps of {said.step:g} s, the chunks of {chunks.plan.step:g} s")
            self._rollouts.setdefault(said.line, []).append(said)
        #: Numbers of the chunks that stay, and what was said while they were watched.
        self._kept: list[tuple[int, RolloutRecord]] = []
        for number in range(len(chunks)):
            place = chunks.place(number)
            if (found := self._of(place)) is None:
                self.report.skip(Reason.NO_ROLLOUT, f"{place.line}: chunk at {place.cut.start:g} s")
            else:
                self._kept.append((number, found))
                self.report.notes[f"history: words of {found.made.get('model')}"] += 1
        if not self._kept:
            raise OptionError("no rollout belongs to any of the chunks; were they made from the same annotation files?")
        self.report.chunks = len(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> TrainingExample:
        number, said = self._kept[index]
        place, plan = self.chunks.place(number), self.chunks.plan
        first = round((place.cut.start - said.start) / plan.step)
        transcript = self.chunks.transcript(place.line)
        before = ((transcript.previous,) if transcript.previous else ()) + said.said[:first]
        context = transcript.context if self.chunks.titles else ""
        history = self.chunks.encoding.history(context, before, plan.sink, plan.text)
        return replace(self.chunks[number], said=said.said[first : first + place.cut.steps], history=history)

    def _of(self, place: Place) -> RolloutRecord | None:
        """The rollout that shows the whole chunk; of several the one that began earliest."""
        start, step = place.cut.start, self.chunks.plan.step
        whole = [
            said
            for said in self._rollouts.get(str(place.line), ())
            if said.start <= start + EPS and start + place.cut.steps * step <= said.start + len(said.said) * step + EPS
        ]
        return min(whole, key=lambda said: said.start, default=None)
