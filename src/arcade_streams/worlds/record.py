"""A stream as a clip: frames for a video file and its true commentary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .game import FRAMES_PER_SECOND, Game, World
from .stream import GameStream

CLIP_FPS = 30
"""Frames per second of a recorded clip. Its frame k is the game's frame 2 k."""
SCALE = 2
"""How much larger than the game's 160 x 210 pixels everything is shown."""
SCREEN_SIZE = (320, 420)
"""Width and height of what is shown, pixels."""

Row = tuple[float, float, str]


def enlarge(screens: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(..., 210, 160, 3) uint8 to (..., 420, 320, 3), each pixel as a 2 x 2 square."""
    return screens.repeat(SCALE, axis=-3).repeat(SCALE, axis=-2)


def clip_frame(world: World, index: int) -> NDArray[np.uint8]:
    """Frame ``index`` of a clip, (420, 320, 3) uint8; ``world`` plays on to it and cannot go back."""
    while world.frame < index * (FRAMES_PER_SECOND // CLIP_FPS):
        world.advance()
    return enlarge(world.screen())


def frames_and_truth(stream: GameStream, seconds: int) -> tuple[Iterator[NDArray[np.uint8]], list[Row]]:
    """The first seconds of a stream: (420, 320, 3) uint8 frames at CLIP_FPS, and a (start, end, text) row per second.

    The rows are filled in as the frames are taken: read them after the last frame. The stream's own rate does not
    matter.
    """
    rows: list[Row] = []

    def frames() -> Iterator[NDArray[np.uint8]]:
        for second in islice(GameStream(stream.game, stream.seed, fps=CLIP_FPS), seconds):
            rows.append((second.start, second.end, second.text))
            yield from enlarge(second.frames)

    return frames(), rows


def truth_record(game: Game, video: str, context: str, truth: Sequence[Row]) -> dict[str, Any]:
    """The truth of a clip, one "content" row for each second that has words: what ``score`` compares with."""
    content = [[start, end, text] for start, end, text in truth if text]
    return {"video": video, "game": game.name, "title": context, "content": content}
