"""A chunk as training sees it: which words, which second of which video, and what it costs; nothing is decoded yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from ..core.errors import OptionError, SourceError
from ..core.events import Chunk
from ..core.grammar import Grammar
from ..data.videos import Clip, media_errors
from ..models.base import Frontend, Model
from ..models.patches import Patcher
from ..sources.file import FileSource
from .layout import Grid, Ids, Laid, TrainingTurn, archived, cut_history, lay_out, spans


@dataclass(frozen=True, slots=True)
class Encoding:
    """How streams become tokens for one checkpoint; everything that training must have in common with inference.

    ``fps``: frames a second, ``step``: seconds of a turn; ``instruction``: the standing one ("" for none);
    ``lead`` stands before the words of a step: a space for the public code's checkpoints, nothing for others.
    ``clip_pixels``: most pixels of a whole chunk after the resize, those of a temporal patch counted once (None: only
    frames are bounded).
    """

    grammar: Grammar
    patcher: Patcher
    tokens_per_second: float | None
    fps: float = 2.0
    step: float = 1.0
    instruction: str = ""
    lead: str = " "
    clip_pixels: int | None = None

    def __post_init__(self) -> None:
        if not (self.fps > 0 and self.step * self.fps >= 1 - 1e-9):
            raise OptionError(f"a step needs at least one frame: fps {self.fps:g}, step {self.step:g} s")

    @classmethod
    def of(
        cls,
        model: Model | Frontend,
        *,
        fps: float = 2.0,
        step: float = 1.0,
        instruction: str | None = None,
        max_pixels: int | None = None,
        lead: str = " ",
        clip_pixels: int | None = None,
    ) -> Self:
        """The encoding of a model, loaded or not. ``instruction`` and ``max_pixels`` (of a frame after the resize):
        None takes the checkpoint's, as :meth:`streamingvlm.Engine.open` does."""
        wish = model.defaults.instruction if instruction is None else instruction
        patcher = model.patcher.with_budget(max_pixels)
        return cls(model.grammar, patcher, model.tokens_per_second, fps, step, wish, lead, clip_pixels)

    @property
    def patch_seconds(self) -> float:
        """Seconds that one temporal patch covers."""
        return self.patcher.temporal / self.fps

    def patches(self, steps: int) -> int:
        """Temporal patches of a chunk of so many steps."""
        return sum(self.patcher.patches(len(self.samples(number))) for number in range(steps))

    def patcher_of(self, steps: int) -> Patcher:
        """What makes patches of a chunk of so many steps: with ``clip_pixels`` its frames share them evenly.

        A frame keeps at least one token, so only a chunk of more temporal patches than tokens can exceed the bound.
        """
        if self.clip_pixels is None:
            return self.patcher
        share = max(self.clip_pixels // max(self.patches(steps), 1), self.patcher.factor**2)
        return self.patcher.with_budget(min(share, self.patcher.max_pixels))

    def reply(self, text: str) -> Ids:
        """Tokens of what is said in a step; "" is silence."""
        return self.grammar.reply(self.lead + text if text else "")

    def history(self, context: str, texts: Sequence[str], sink: int, text: int) -> Ids:
        """The previous text after these replies, as a session with this context holds it."""
        head = self.grammar.tokenizer.encode(context) if context else []
        return tuple(cut_history(head, texts, self._archived, sink, text))

    def samples(self, number: int) -> range:
        """The frames of step ``number`` of a chunk, counted from its first: sample k stands at k / fps."""
        per_step = self.step * self.fps
        first, last = (int(np.ceil(n * per_step - 1e-9 * per_step)) for n in (number, number + 1))
        return range(first, last)

    def _archived(self, text: str) -> Ids:
        return archived(self.grammar, self.reply(text))


@dataclass(frozen=True)
class TrainingExample:
    """One chunk.

    ``start``: seconds on the words' clock; ``true``: what is to be said in each step; ``said``: what stands in the
    text there, the same unless the history is the model's own; ``history``: tokens of the previous text, cut.
    ``where``: the line it comes from.
    """

    encoding: Encoding
    clip: Clip
    start: float
    true: tuple[str, ...]
    said: tuple[str, ...]
    history: Ids
    instruction: str
    where: str = ""

    @property
    def seconds(self) -> float:
        """Seconds of video."""
        return len(self.true) * self.encoding.step

    @cached_property
    def patcher(self) -> Patcher:
        """What makes patches of its frames."""
        return self.encoding.patcher_of(len(self.true))

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Height and width of its frames in tokens, from the size that the video's header tells."""
        height, width = self.patcher.size(self.clip.header.height, self.clip.header.width)
        return height // self.patcher.factor, width // self.patcher.factor

    @property
    def words(self) -> int:
        """Words to be said."""
        return sum(len(text.split()) for text in self.true)

    @property
    def video_tokens(self) -> int:
        """Tokens of its pictures, by the header."""
        return self.encoding.patches(len(self.true)) * self.grid[0] * self.grid[1]

    @property
    def predicted(self) -> int:
        """Tokens that are learnt where its words are the true ones, those of silent steps included."""
        return sum(len(self.encoding.reply(text)) for text in self.true)

    @cached_property
    def length(self) -> int:
        """Tokens of the whole chunk, from the size that the video's header tells: nothing is decoded.

        A video that changes its size on the way or ends within the chunk's last step may give another number.
        """
        turns = []
        for number in range(len(self.true)):
            samples = self.encoding.samples(number)
            times = self.encoding.patcher.times([self.start + k / self.encoding.fps for k in samples])
            turns.append(self._turn(number, (len(times), *self.grid), times, 1.0))
        grammar, seconds = self.encoding.grammar, self.encoding.patch_seconds
        pieces, _ = spans(grammar, self.history, turns, instruction=self.instruction, patch_seconds=seconds)
        return sum(map(len, pieces))

    def chunks(self) -> Iterator[Chunk]:
        """The frames of every step, as a session is given them: only this part of the file is read.

        Raises SourceError if the file cannot be read or has no picture for one of the steps.
        """
        offset, step = self.clip.offset, self.encoding.step
        first = self.start - offset
        count = 0
        with media_errors(self.clip.path):
            # One thread: a run has several workers for each device.
            source = FileSource(
                self.clip.path, fps=self.encoding.fps, step=step, start=first, duration=self.seconds, threads=1
            )
            for count, chunk in enumerate(source, 1):
                start = self.start + (count - 1) * step
                times = tuple(time + offset for time in chunk.times)
                yield replace(chunk, start=start, end=start + step, times=times)
        if count < len(self.true):
            raise SourceError(f"{self.clip.path} ends at {first + count * step:g} s; {self.where} tells more of it")

    def blank(self) -> Iterator[Chunk]:
        """Black frames in the place of those that cannot be read."""
        header, fps = self.clip.header, self.encoding.fps
        for number in range(len(self.true)):
            start = self.start + number * self.encoding.step
            times = tuple(self.start + k / fps for k in self.encoding.samples(number))
            frames = np.zeros((len(times), header.height, header.width, 3), np.uint8)
            yield Chunk(frames, times, start, start + self.encoding.step)

    def lay_out(self, grids: Sequence[Grid], stamps: Sequence[tuple[float, ...]], silence_weight: float = 1.0) -> Laid:
        """Tokens, positions and targets, given each step's grid and the times of its temporal patches."""
        assert len(grids) == len(stamps) == len(self.true), "one picture per step"
        turns = [
            self._turn(number, grid, times, silence_weight)
            for number, (grid, times) in enumerate(zip(grids, stamps, strict=True))
        ]
        return lay_out(
            self.encoding.grammar,
            self.history,
            turns,
            self.encoding.tokens_per_second,
            instruction=self.instruction,
            patch_seconds=self.encoding.patch_seconds,
        )

    def _turn(self, number: int, grid: Grid, times: tuple[float, ...], silence_weight: float) -> TrainingTurn:
        true = self.encoding.reply(self.true[number])
        said = true if self.said[number] == self.true[number] else self.encoding.reply(self.said[number])
        weights = (1.0 if self.true[number] else silence_weight,) * len(true)
        start = self.start + number * self.encoding.step
        return TrainingTurn(start, said, true, weights, start + self.encoding.step, grid, times)
