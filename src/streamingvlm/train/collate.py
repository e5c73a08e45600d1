"""Examples to batches: what a data loader gives to the trainer."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..core.errors import OptionError, SourceError
from ..core.events import Chunk
from ..data.annotations import Line
from ..data.report import DataError, Unusable
from ..data.videos import Videos
from ..data.words import EPS, Transcript
from ..models.patches import normalize
from .chunks import ChunkPlan, earlier
from .config import DataFile
from .examples import Encoding, TrainingExample
from .layout import Laid
from .scan import Place, Scan, scan

log = logging.getLogger(__name__)

#: The label of a token that nothing is learnt from, as PyTorch's and transformers' losses have it.
IGNORED = -100


class ChunkDataset(Dataset[TrainingExample]):
    """The chunks that an epoch sees, in the order of the files. Map-style; nothing is decoded.

    ``files``: JSONL files in any form of :mod:`streamingvlm.data.annotations`, or folders of them, perhaps with how
    often they are seen (:class:`DataFile`; ``seed`` chooses the chunks of those that are seen in part); ``root``: the
    folder that the names of videos start from (else that of the file). ``titles``: a title stands in the previous text
    as the stream's context, as at inference; ``queries``: a clip's own query is its instruction where it has one.
    ``cache``: see :class:`Videos`. ``found``: what an earlier scan of the same files gave: nothing is read again.
    What is left out is in ``report``. Raises SourceError if there is no such file or folder.
    """

    def __init__(
        self,
        encoding: Encoding,
        plan: ChunkPlan,
        files: Sequence[Path | DataFile],
        root: Path | None = None,
        *,
        titles: bool = True,
        queries: bool = False,
        cache: Path | Sequence[Path] | None = None,
        seed: int = 0,
        found: Scan | None = None,
    ) -> None:
        if abs(encoding.step - plan.step) > EPS:
            raise OptionError(f"chunks are cut in steps of {plan.step:g} s and encoded in {encoding.step:g} s")
        self.encoding, self.plan = encoding, plan
        self.titles, self.queries = titles, queries
        self._last: tuple[Line, Transcript] | None = None
        if found is None:
            found = scan(files, Videos(root, cache), plan, encoding.patcher, seed=seed)
        self.report = found.report
        #: Every chunk once, and the chunks of an epoch as numbers of them.
        self.places, self.numbers = found.places, found.numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def place(self, index: int) -> Place:
        """Where a chunk of the epoch lies."""
        return self.places[int(self.numbers[index])]

    def __getitem__(self, index: int) -> TrainingExample:
        place = self.place(index)
        transcript = self.transcript(place.line)
        start, steps = place.cut.start, place.cut.steps
        true = tuple(transcript.texts(start, steps, self.plan.step))
        context = transcript.context if self.titles else ""
        before = earlier(transcript, start, self.plan.step)
        history = self.encoding.history(context, before, self.plan.sink, self.plan.text)
        asked = transcript.query if self.queries else ""
        instruction = asked or self.encoding.instruction
        return TrainingExample(self.encoding, place.clip, start, true, true, history, instruction, f"{place.line}")

    def forget(self) -> None:
        """Read the next transcript from its file, also the one that was read last."""
        self._last = None

    def transcript(self, line: Line) -> Transcript:
        """The transcript of a line; neighbouring chunks share it."""
        if self._last is None or self._last[0] != line:
            try:
                self._last = line, line.transcript()
            except Unusable as error:
                raise DataError(f"{line}: the annotations have changed since they were read ({error})") from None
            except SourceError as error:
                raise DataError(str(error)) from error
        return self._last[1]


def unpack(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch of :meth:`Collator.pack` as :class:`Collator` makes it, on whatever device it is; others as they are."""
    out = dict(batch)
    if "patches" in out:
        out["pixel_values_videos"] = normalize(out.pop("patches"), out.pop("pixel_scale"))
    return out


class Collator:
    """Examples to one batch; decodes their frames.

    ``pad``: the token behind shorter chunks (default: the end of a turn; never the pad of a video). ``silence_weight``:
    how much the tokens of a silent step count beside 1 of all others. ``unreadable``: what to do with an example whose
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

    def __call__(self, examples: Sequence[TrainingExample]) -> dict[str, Tensor]:
        """A batch of B examples, the longest of n tokens.

        ``input_ids`` (B, n) int64, padded behind; ``attention_mask`` (B, n) int64; ``position_ids`` (3, B, n) float32;
        ``labels`` (B, n) int64, -100 where there is no loss; ``loss_weights`` (B, n) float32; ``pixel_values_videos``
        (all patches, patch dim) float32; ``video_grid_thw`` (blocks, 3) int64, in patches.
        """
        return unpack(self.pack(examples))

    def pack(self, examples: Sequence[TrainingExample]) -> dict[str, Tensor]:
        """The same batch with a fourth of the bytes of its pictures, for :func:`unpack` on the device: what a worker
        hands over.

        In the place of ``pixel_values_videos``: ``patches`` (all patches, patch dim) uint8 and ``pixel_scale`` (2, 3)
        float32, :attr:`streamingvlm.models.patches.Patcher.scale`.
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
            # A label stands at the token itself: losses shift by one.
            labels[i, one.rows + 1] = one.targets
            weights[i, one.rows + 1] = one.weights
        merge = examples[0].encoding.patcher.merge
        grids = np.concatenate([one.grids for one in laid]) * np.array([1, merge, merge])
        arrays = {"input_ids": ids, "attention_mask": mask, "position_ids": places, "labels": labels}
        arrays |= {"loss_weights": weights, "video_grid_thw": grids}
        return {
            **{name: torch.from_numpy(array) for name, array in arrays.items()},
            "patches": torch.cat(pixels),
            "pixel_scale": examples[0].encoding.patcher.scale,
        }

    def _example(self, example: TrainingExample) -> tuple[Laid, Tensor]:
        """A laid-out chunk and its patches (k, patch dim) uint8."""
        try:
            return self._lay_out(example, example.chunks())
        except SourceError as error:
            if self.unreadable == "raise":
                raise DataError(str(error)) from error.__cause__ or error
            log.warning("black frames and no loss: %s", error)
        laid, pixels = self._lay_out(example, example.blank())
        none = np.zeros(0, np.int64)
        return replace(laid, rows=none, targets=none, weights=none.astype(np.float32)), pixels

    def _lay_out(self, example: TrainingExample, chunks: Iterable[Chunk]) -> tuple[Laid, Tensor]:
        patcher = example.patcher
        # Chunk by chunk: the frames of a minute of 720p are 330 MB.
        seen = [(patcher.unnormalized(chunk), patcher.times(chunk.times)) for chunk in chunks]
        laid = example.lay_out(
            [patches.merged for patches, _ in seen], [times for _, times in seen], self.silence_weight
        )
        return laid, torch.cat([patches.pixels for patches, _ in seen])
