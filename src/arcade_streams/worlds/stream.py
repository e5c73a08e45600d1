"""A seed's endless stream of a game, second by second: frames, what is said, and exact truth about each frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .announcer import Announcer
from .context import Context
from .game import FRAMES_PER_SECOND, HALF, FrameLabel, Game
from .language import GameEvent, Style


@dataclass(frozen=True, slots=True)
class Second:
    """One second. ``frames`` is (fps, 210, 160, 3) uint8 RGB; ``times`` and ``labels`` have one entry per frame."""

    index: int
    start: float
    end: float
    frames: NDArray[np.uint8]
    times: tuple[float, ...]
    events: tuple[GameEvent, ...]
    text: str
    labels: tuple[FrameLabel, ...]


class GameStream:
    """A game of a seed, without end. The play and its commentary do not depend on ``fps`` (a divisor of 60).

    Each ``iter`` starts the stream again at 0 s. ``render=False`` leaves the frames black, for those who want only
    the truth.
    """

    def __init__(self, game: Game, seed: int, fps: float = 2.0, render: bool = True) -> None:
        if seed < 0:
            raise ValueError(f"a seed must not be negative, not {seed}")
        if fps < 1 or FRAMES_PER_SECOND % fps:
            raise ValueError(f"fps must divide {FRAMES_PER_SECOND} into whole frames, not {fps:g}")
        self.game, self.seed, self.fps, self.render = game, seed, fps, render
        self.context: Context = game.context(seed)
        self.style: Style = game.style(seed)

    def __iter__(self) -> Iterator[Second]:
        world = self.game.world(self.seed)
        announcer = Announcer(self.game, self.context)
        stride, index = int(FRAMES_PER_SECOND // self.fps), 0
        last = FRAMES_PER_SECOND - min(HALF, stride)
        while True:
            frames: list[NDArray[np.uint8]] = []
            labels: list[FrameLabel] = []
            begin = index * FRAMES_PER_SECOND
            for offset in range(last + 1):
                while world.frame < begin + offset:
                    for happening in world.advance():
                        announcer.hear(happening)
                if offset % stride == 0:
                    labels.append(world.label())
                    frames.append(world.screen() if self.render else _BLACK)
            yield self._second(index, frames, labels, announcer.take(index))
            index += 1

    def _second(
        self, index: int, frames: list[NDArray[np.uint8]], labels: list[FrameLabel], events: tuple[GameEvent, ...]
    ) -> Second:
        times = tuple(label.time for label in labels)
        text = self.game.language.say(events, self.style)
        return Second(index, float(index), index + 1.0, np.stack(frames), times, events, text, tuple(labels))


_BLACK = np.zeros((210, 160, 3), np.uint8)
