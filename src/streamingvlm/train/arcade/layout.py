"""A training chunk as token ids and positions, built by the grammar and the positions that inference uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...prompt import Grammar
from ...rope import positions
from ...spans import Span
from .tower import GRID

#: Steps that one second advances along the time axis.
TOKENS_PER_SECOND = 2.0

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One second of a chunk.

    ``said``: ids of the reply that stands in the text; ``true``: ids that the model should say. They differ where
    the history is corrupted or the model's own. ``weights``: one per id of ``true``, 0 where nothing is to be
    learnt. ``video``: the turn still has its picture.
    """

    start: float
    said: Ids
    true: Ids
    weights: tuple[float, ...]
    end: float | None = None
    video: bool = True


@dataclass(frozen=True, slots=True)
class Laid:
    """A chunk of n ids.

    ``positions``: (3, n) float32. ``rows``: indices of the ids from which something is predicted, with what
    (``targets``) and how much it counts (``weights``). ``video``: indices of the picture's ids, ``ends``: of the id
    behind each picture; both in the order of the turns that have one.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.float32]
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]
    video: NDArray[np.int64]
    ends: NDArray[np.int64]


def archived(grammar: Grammar, reply: Ids) -> Ids:
    """The ids that stay in the history once the turn of ``reply`` has gone: opening and words."""
    return reply[: grammar.commentary(0, 0.0, 1.0, reply).words]


def cut(history: Sequence[int], sink: int, text: int) -> list[int]:
    """First ``sink`` and last ``text`` ids, as the streaming window cuts the history."""
    if len(history) <= sink + text:
        return list(history)
    return [*history[:sink], *(history[-text:] if text else ())]


def spans(grammar: Grammar, history: Sequence[int], turns: Sequence[Turn]) -> tuple[list[Span], list[int]]:
    """The spans of a chunk, and where each turn's commentary stands among them."""
    out = grammar.preamble(history)
    places: list[int] = []
    for number, turn in enumerate(turns):
        end = turn.start + 1.0 if turn.end is None else turn.end
        if number:
            out.append(grammar.separator(number - 1))
        new = grammar.turn(number, turn.start, end, GRID)
        out += new if turn.video else [span for span in new if span.grid is None]
        places.append(len(out))
        out.append(grammar.commentary(number, turn.start, end, turn.said))
    return out, places


def lay_out(grammar: Grammar, history: Sequence[int], turns: Sequence[Turn]) -> Laid:
    """Ids, positions and targets of a chunk. A reply is learnt up to the first id where it leaves the truth."""
    pieces, places = spans(grammar, history, turns)
    starts = np.cumsum([0, *map(len, pieces)])
    rows: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    for turn, place in zip(turns, places, strict=True):
        first = int(starts[place]) - 1
        agreed = next((i for i, (a, b) in enumerate(zip(turn.said, turn.true, strict=False)) if a != b), None)
        count = len(turn.true) if agreed is None else agreed + 1
        for offset in range(count):
            if turn.weights[offset] > 0:
                rows.append(first + offset)
                targets.append(turn.true[offset])
                weights.append(turn.weights[offset])
    blocks = [int(starts[i]) for i, span in enumerate(pieces) if span.grid is not None]
    size = GRID[0] * GRID[1] * GRID[2]
    return Laid(
        ids=np.fromiter((token for span in pieces for token in span.tokens), np.int64),
        positions=positions(pieces, TOKENS_PER_SECOND),
        rows=np.array(rows, np.int64),
        targets=np.array(targets, np.int64),
        weights=np.array(weights, np.float32),
        video=np.array([first + 1 + k for first in blocks for k in range(size)], np.int64),
        ends=np.array([first + 1 + size for first in blocks], np.int64),
    )
