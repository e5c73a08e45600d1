"""Examples to batches: what a data loader gives to the trainer."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import OptionError, SourceError
from ..events import Chunk
from .chunks import EPS, ChunkPlan, Cut, Stream, earlier
from .datasets import Line, annotation_files, lines
from .examples import Encoding, Example
from .layout import Laid
from .report import Reason, Report, Unusable
from .videos import Clip, Videos

log = logging.getLogger(__name__)

#: The label of an id that nothing is learnt from, as PyTorch's and transformers' losses have it.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk is found again: its line, its video, its cut."""

    line: Line
    clip: Clip
    cut: Cut


class ChunkDataset(Dataset[Example]):
    """All chunks that annotation files hold, in the order of the files. Map-style; nothing is decoded.

    ``files``: JSONL files in any form of :mod:`streamingvlm.train.datasets`, or folders of them; ``root``: the folder
    that the names of videos start from (else that of the file). ``titles``: a title stands in the previous text as
    the stream's context, as at inference; ``queries``: a clip's own query is its instruction where it has one.
    ``cache``: see :class:`Videos`. What is left out is in ``report``. Raises SourceError if there is no such file or
    folder.
    """

    def __init__(
        self,
        encoding: Encoding,
        plan: ChunkPlan,
        files: Sequence[Path],
        root: Path | None = None,
        *,
        titles: bool = True,
        queries: bool = False,
        cache: Path | None = None,
    ) -> None:
        if abs(encoding.step - plan.step) > EPS:
            raise OptionError(f"chunks are cut in steps of {plan.step:g} s and encoded in {encoding.step:g} s")
        self.encoding, self.plan = encoding, plan
        self.titles, self.queries = titles, queries
        self.report = Report()
        self.places: list[Place] = []
        self._seen: set[bytes] = set()
        self._last: tuple[Line, Stream] | None = None
        videos = Videos(root, cache)
        try:
            for line in _watched(annotation_files(files), self.report):
                self._scan(line, videos)
        finally:
            videos.save()
        self._seen.clear()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        place = self.places[index]
        stream = self.stream(place.line)
        start, steps = place.cut.start, place.cut.steps
        true = tuple(stream.texts(start, steps, self.plan.step))
        context = stream.context if self.titles else ""
        before = earlier(stream, start, self.plan.step)
        history = self.encoding.history(context, before, self.plan.sink, self.plan.text)
        asked = stream.query if self.queries else ""
        instruction = asked or self.encoding.instruction
        return Example(self.encoding, place.clip, start, true, true, history, instruction, f"{place.line}")

    def stream(self, line: Line) -> Stream:
        """The stream of a line; neighbouring chunks share it."""
        if self._last is None or self._last[0] != line:
            try:
                self._last = line, line.stream()
            except Unusable as error:
                raise SourceError(f"{line}: the annotations have changed since they were read ({error})") from None
        return self._last[1]

    def _scan(self, line: Line, videos: Videos) -> None:
        """The chunks of one line into ``places``, and what is wrong with it into the report."""
        self.report.lines += 1
        try:
            stream = line.stream()
            if self.plan.is_whole(stream) and stream.end is not None:
                self._check_length(stream, stream.end - stream.start)
            clip = videos.clip(stream.video, line.path.parent, stream.start, stream.end)
            self._check_new(stream, clip)
            until, beyond = self._until(stream, clip)
        except Unusable as error:
            self.report.skip(error.reason, f"{line}: {error}")
            return
        self._note(stream)
        before = len(self.places)
        cuts = list(self.plan.cuts(stream, until))
        if not cuts:
            self.report.skip(Reason.TOO_SHORT, f"{line}: {until - stream.start:g} s of {stream.video}")
        if stream.end is None and stream.words and stream.words[-1].end > beyond + self.plan.step:
            told = f"{line}: words to {stream.words[-1].end:g} s of {stream.video}, which ends at {beyond:g} s"
            self.report.skip(Reason.BEYOND, told)
        for cut in cuts:
            self._keep(Place(line, clip, cut), stream, beyond)
        self.report.streams += len(self.places) > before

    def _keep(self, place: Place, stream: Stream, beyond: float) -> None:
        cut, step = place.cut, self.plan.step
        what = f"{place.line}: {cut.start:g}-{cut.start + cut.steps * step:g} s of {stream.video}"
        if cut.start + (cut.steps - 1) * step >= beyond:
            self.report.skip(Reason.BEYOND, f"{what}, which ends at {beyond:g} s")
        elif not self.plan.enough(stream, cut):
            self.report.skip(Reason.FEW_WORDS, f"{what}: {cut.words} words")
        else:
            self.places.append(place)
            self.report.chunks += 1
            self.report.seconds += cut.steps * step

    def _note(self, stream: Stream) -> None:
        """What a line holds that is not used."""
        if stream.questions:
            self.report.notes["questions and answers, which are not used"] += stream.questions
        if stream.end is not None:
            outside = len(stream.words) - stream.count(stream.start, stream.end)
            if outside:
                self.report.notes["words outside the times of their clip, which are not used"] += outside

    def _check_length(self, stream: Stream, seconds: float) -> None:
        if self.plan.longest is not None and seconds > self.plan.longest + EPS:
            raise Unusable(Reason.TOO_LONG, f"{seconds:g} s of {stream.video}")

    def _check_new(self, stream: Stream, clip: Clip) -> None:
        told = repr((str(clip.path), stream.start, stream.end, stream.words)).encode()
        key = blake2b(told, digest_size=12).digest()
        if key in self._seen:
            raise Unusable(Reason.DUPLICATE, f"{stream.video} from {stream.start:g} s again")
        self._seen.add(key)

    def _until(self, stream: Stream, clip: Clip) -> tuple[float, float]:
        """Where the stream ends, and where its video does (both on the words' clock; infinite where unknown)."""
        seconds = clip.header.seconds
        beyond = math.inf if seconds is None else seconds + clip.offset
        told = stream.words[-1].end if stream.words else stream.start
        if stream.end is not None:
            return stream.end, beyond
        if self.plan.is_whole(stream):
            until = min(told, beyond)
            self._check_length(stream, until - stream.start)
            return until, beyond
        # A stream without an end is told as long as its video lasts.
        return (told if beyond == math.inf else beyond), beyond


def _watched(files: Sequence[Path], report: Report) -> Iterator[Line]:
    """The lines of all files, with a bar where a person sees it."""
    sizes = [file.stat().st_size for file in files]
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("reading annotations", total=sum(sizes))
        for file, before in zip(files, accumulate(sizes, initial=0), strict=False):
            try:
                for line in lines(file, report):
                    yield line
                    progress.update(task, completed=before + line.offset)
            except OSError as error:
                raise SourceError(f"cannot read {file} ({error.strerror or error})") from error


class Collator:
    """Examples to one batch; decodes their frames.

    ``pad``: the id behind shorter chunks (default: the end of a turn; never the pad of a video). ``silence_weight``:
    how much the ids of a silent step count beside 1 of all others. ``unreadable``: what to do with an example whose
    frames cannot be read: ``raise``, or ``blank``, which keeps its place with black frames and no loss, so that every
    process of a run still does the same work; each is named in the log.
    """

    def __init__(
        self, *, pad: int | None = None, silence_weight: float = 1.0, unreadable: Literal["raise", "blank"] = "raise"
    ) -> None:
        if not 0 <= silence_weight < math.inf:
            raise OptionError(f"silence_weight must be 0 or more, not {silence_weight}")
        if unreadable not in ("raise", "blank"):
            raise OptionError(f"unreadable must be raise or blank, not {unreadable!r}")
        self.pad, self.silence_weight, self.unreadable = pad, silence_weight, unreadable

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """A batch of B examples, the longest of n ids.

        ``input_ids`` (B, n) int64, padded behind; ``attention_mask`` (B, n) int64; ``position_ids`` (3, B, n) float32;
        ``labels`` (B, n) int64, -100 where there is no loss; ``loss_weights`` (B, n) float32; ``pixel_values_videos``
        (all patches, patch dim) float32; ``video_grid_thw`` (blocks, 3) int64, in patches.
        """
        laid, pixels = zip(*(self._example(example) for example in examples), strict=True)
        count, longest = len(laid), max(len(one.ids) for one in laid)
        pad = examples[0].encoding.grammar.marks.turn_end if self.pad is None else self.pad
        ids = np.full((count, longest), pad, np.int64)
        mask = np.zeros((count, longest), np.int64)
        places = np.zeros((3, count, longest), np.float32)
        labels = np.full((count, longest), IGNORED, np.int64)
        weights = np.zeros((count, longest), np.float32)
        for i, one in enumerate(laid):
            ids[i, : len(one.ids)] = one.ids
            mask[i, : len(one.ids)] = 1
            places[:, i, : len(one.ids)] = one.positions
            # A label stands at the id itself: losses shift by one.
            labels[i, one.rows + 1] = one.targets
            weights[i, one.rows + 1] = one.weights
        merge = examples[0].encoding.patcher.merge
        grids = np.concatenate([one.grids for one in laid]) * np.array([1, merge, merge])
        arrays = {"input_ids": ids, "attention_mask": mask, "position_ids": places, "labels": labels}
        arrays |= {"loss_weights": weights, "video_grid_thw": grids}
        return {
            **{name: torch.from_numpy(array) for name, array in arrays.items()},
            "pixel_values_videos": torch.cat(pixels),
        }

    def _example(self, example: Example) -> tuple[Laid, Tensor]:
        """A laid-out chunk and its patches (k, patch dim) float32."""
        try:
            return self._lay_out(example, example.chunks())
        except SourceError as error:
            if self.unreadable == "raise":
                raise
            log.warning("black frames and no loss: %s", error)
        laid, pixels = self._lay_out(example, example.blank())
        none = np.zeros(0, np.int64)
        return replace(laid, rows=none, targets=none, weights=none.astype(np.float32)), pixels

    def _lay_out(self, example: Example, chunks: Iterable[Chunk]) -> tuple[Laid, Tensor]:
        patcher = example.encoding.patcher
        # Chunk by chunk: the frames of a minute of 720p are 330 MB.
        seen = [(patcher(chunk), patcher.times(chunk.times)) for chunk in chunks]
        laid = example.lay_out(
            [patches.merged for patches, _ in seen], [times for _, times in seen], self.silence_weight
        )
        return laid, torch.cat([patches.pixels for patches, _ in seen])
