"""The arcade as a source of chunks, frame for frame what a recorded clip of the same seed shows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import islice
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from streamingvlm import Chunk, SourceError

from .game import Game
from .games import GAMES, find_game
from .record import CLIP_FPS, clip_frame
from .stream import GameStream


def parse_locator(locator: str) -> tuple[Game, int]:
    """``arcade:pong?seed=7`` to (Pong, 7); the seed is 0 if there is none. Raises SourceError."""
    scheme, _, rest = locator.partition(":")
    game, _, query = rest.partition("?")
    if scheme != "arcade" or game not in GAMES:
        raise SourceError(f"unknown arcade game in {locator!r} (known: {', '.join('arcade:' + g for g in GAMES)})")
    options = dict(parse_qsl(query, keep_blank_values=True))
    seed = options.pop("seed", "0")
    if options:
        raise SourceError(f"{locator!r} has an unknown option (known: seed, as in arcade:pong?seed=7)")
    if not (seed.isascii() and seed.isdigit() and len(seed) <= 18):
        raise SourceError(f"the seed in {locator!r} must be a whole number of at most 18 digits, not {seed!r}")
    return find_game(game), int(seed)


def kind_of(game: Game) -> str:
    """What streams of a game are called where a checkpoint's config says which ones it knows."""
    return f"arcade:{game.name}"


def open_arcade(
    locator: str, *, fps: float, step: float, start: float, duration: float | None, video_stream: int | None
) -> ArcadeSource:
    """Open ``arcade:GAME?seed=N``: the entry point of the scheme. SourceError if that cannot be."""
    if video_stream is not None:
        raise SourceError(f"{locator} is a game, which has no video streams to choose from")
    game, seed = parse_locator(locator)
    return ArcadeSource(game, seed, fps=fps, step=step, start=start, duration=duration)


class ArcadeSource:
    """An endless game as chunks of ``step`` seconds with ``fps`` frames a second of 420 x 320 pixels.

    Sample k is taken at ``start + k / fps`` and shows the last frame of a 30 fps clip that is there by then. ``start``
    and ``duration`` are seconds of the stream; without a duration it never ends. Each iteration plays it anew.
    """

    live = False

    def __init__(
        self,
        game: Game,
        seed: int,
        fps: float = 2.0,
        step: float = 1.0,
        start: float = 0.0,
        duration: float | None = None,
    ) -> None:
        if not (fps > 0 and step * fps >= 1 - 1e-9 and start >= 0 and (duration is None or duration > 0)):
            raise ValueError(f"a step needs at least one frame: fps={fps}, step={step}, {start=}, {duration=}")
        self.fps, self.step, self.start = fps, step, start
        self.stop = math.inf if duration is None else start + duration
        self.stream = GameStream(game, seed, render=False)
        self.name = f"arcade:{game.name}?seed={seed}"
        self.kind = kind_of(game)
        self.context = self.stream.context.text
        self._texts: list[str] = []
        self._rest = iter(self.stream)

    def __iter__(self) -> Iterator[Chunk]:
        world = self.stream.game.world(self.stream.seed)
        index = sample = 0
        while self.start + index * self.step < self.stop - 1e-9:
            began = time.perf_counter()
            frames: list[NDArray[np.uint8]] = []
            times: list[float] = []
            while int(sample / self.fps / self.step + 1e-9) == index:
                at = self.start + sample / self.fps
                if at >= self.stop - 1e-9:
                    break
                frames.append(clip_frame(world, int(at * CLIP_FPS + 1e-6)))
                times.append(at)
                sample += 1
            if frames:
                end = self.start + (index + 1) * self.step
                seconds = time.perf_counter() - began
                yield Chunk(np.stack(frames), tuple(times), end - self.step, end, read_seconds=seconds)
            index += 1

    def truth(self, start: float, end: float) -> str:
        """What is truly said in the seconds that begin at ``start <= t < end``."""
        first, last = math.ceil(start - 1e-9), math.ceil(end - 1e-9)
        missing = max(0, last - len(self._texts))
        self._texts += [second.text for second in islice(self._rest, missing)]
        return " ; ".join(text for text in self._texts[max(0, first) : last] if text)
