"""Games of a benchmark as the runner takes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...core.errors import EndedError
from ...core.events import Chunk, Source
from ...sources.open import open_recording
from ..benchmark import Game
from ..presets import Preset
from ..runs import digest
from ..shards import stable_number
from ..task import TimedQuestion

EPS = 1e-6


@dataclass(frozen=True, slots=True)
class GameExample:
    """A game, watched with a preset's frames. ``revision``: of the data; ``blind``: frames are black."""

    game: Game
    preset: Preset
    revision: str
    blind: bool = False

    @property
    def name(self) -> str:
        """As its files are called."""
        return self.game.name

    @property
    def video(self) -> str:
        """What its frames are called: those of other rates and pixels are others."""
        frames = digest([self.game.start, self.preset.fps, self.preset.step, self.preset.max_pixels, self.blind])
        return f"{self.game.name}-{frames}"

    @property
    def context(self) -> str:
        """Its title."""
        return self.game.title

    @property
    def previous(self) -> Sequence[str]:
        """The human words before the start, by steps, where the preset gives them."""
        if not self.preset.human_words or not self.game.previous:
            return ()
        steps = math.ceil(self.game.start / self.preset.step - EPS)
        if steps <= 0 or not self.game.words.words:
            return (self.game.previous,)
        texts = self.game.words.texts(self.game.start - steps * self.preset.step, steps, self.preset.step)
        # What is known of the words before a clip may have no times.
        return texts if any(texts) else (self.game.previous,)

    @property
    def start(self) -> float:
        """Seconds on the game's clock."""
        return self.game.start

    @property
    def end(self) -> float:
        """Where it is watched to: the last step is whole."""
        steps = math.ceil((self.game.end - self.game.start) / self.preset.step - EPS)
        return self.game.start + steps * self.preset.step

    @property
    def stream(self) -> int:
        """The number that its random numbers follow from: of the video and where it begins."""
        return stable_number(f"{self.game.video.key} {self.game.start:g}")

    @property
    def questions(self) -> Sequence[TimedQuestion]:
        """None."""
        return ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """What tells whether words that were recorded are of this game."""
        return {
            "video": self.game.video.key,
            "start": self.game.start,
            "end": self.game.end,
            "data": self.revision,
            **({"blind": True} if self.blind else {}),
        }

    def source(self, seconds: float, start: float = 0.0) -> Source:
        """The video from ``start`` (at the earliest where the game is evaluated from) to where it ends."""
        path, end = str(self.game.video.path), min(seconds, self.end)
        if start > self.start:
            return go_on(path, self.preset, start, end, self.blind)
        return open_video(path, self.preset, self.start, end, self.blind)


def open_video(locator: str, preset: Preset, start: float, end: float, blind: bool = False) -> Source:
    """A video from ``start`` to ``end`` seconds with a preset's frames; ``blind``: black ones."""
    source = open_recording(locator, fps=preset.fps, step=preset.step, start=start, duration=end - start)
    return BlackFrames(source) if blind else source


def go_on(locator: str, preset: Preset, start: float, end: float, blind: bool = False) -> Source:
    """A video that was watched up to ``start``, as :func:`open_video`; nothing where it ends there."""
    try:
        return open_video(locator, preset, start, end, blind) if end > start + EPS else NoFrames(locator)
    except EndedError:
        return NoFrames(locator)


class NoFrames:
    """The rest of a video that was watched to its end. ``name``: the video's."""

    def __init__(self, name: str) -> None:
        self.name, self.context, self.kind, self.live = name, "", "", False

    def __iter__(self) -> Iterator[Chunk]:
        return iter(())


class BlackFrames:
    """A source whose frames show nothing: what a model says of it, it does not see."""

    def __init__(self, source: Source) -> None:
        self.name, self.context, self.kind, self.live = source.name, source.context, source.kind, source.live
        self._source = source

    def __iter__(self) -> Iterator[Chunk]:
        return (replace(chunk, frames=np.zeros_like(chunk.frames)) for chunk in self._source)
