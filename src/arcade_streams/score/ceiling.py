"""What is visible at all at 2 frames a second: the commentary of a rule that reads only those frames.

The reader gets positions and scores in the sampled frames, as exact as pixels, the context and its own past words. It
knows how the game moves. What it gets wrong, no model that watches the same frames can know.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from ..worlds.announcer import Announcer
from ..worlds.game import Game
from ..worlds.record import truth_record
from ..worlds.stream import GameStream
from .score import score_many


def ceiling(game: Game, seeds: Iterable[int], seconds: int) -> dict[str, Any]:
    """The figures of ``score`` for the reader's commentary, pooled over the streams of some seeds."""
    return score_many(read(game, seed, seconds) for seed in seeds)


def read(game: Game, seed: int, seconds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The truth of the first seconds of a stream, and the reader's commentary of them: what ``score`` compares."""
    stream = GameStream(game, seed, fps=2.0, render=False)
    reader, announcer, said, true = game.new_reader(), Announcer(game, stream.context), [], []
    for second in islice(stream, seconds):
        for label in second.labels:
            for happening in reader.see(label):
                announcer.hear(happening)
        text = game.language.say(announcer.take(second.index), stream.style)
        said.append({"start": second.start, "end": second.end, "text": text})
        true.append((second.start, second.end, second.text))
    return truth_record(game, "", stream.context.text, true), said
