"""A training chunk as tokens and positions, built by the grammar and the positions that inference uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.grammar import Grammar
from ..core.positions import positions
from ..core.spans import Span

T = TypeVar("T")
Ids = tuple[int, ...]
#: Temporal patches, height and width of a video block, in tokens of the language model.
Grid = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class TrainingTurn:
    """One step of a chunk.

    ``said``: tokens of the reply that stands in the text; ``true``: tokens that the model should say. They differ where
    the history is corrupted or the model's own. ``weights``: one per token of ``true``, 0 where nothing is to be
    learnt. ``end``: seconds (None: one after ``start``). ``grid``: of the picture; None: the turn has lost it.
    ``times``: when its temporal patches stand, for the families that write it.
    """

    start: float
    said: Ids
    true: Ids
    weights: tuple[float, ...]
    end: float | None = None
    grid: Grid | None = None
    times: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Laid:
    """A chunk of n tokens.

    ``positions``: (3, n) float32. ``rows``: indices of the tokens from which something is predicted, with what
    (``targets``) and how much it counts (``weights``). ``video``: indices of the pictures' tokens, ``ends``: of the
    token behind each picture, ``grids``: (blocks, 3) int64, each block's grid; all in the order of the blocks.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.float32]
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]
    video: NDArray[np.int64]
    ends: NDArray[np.int64]
    grids: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 3), np.int64))


def archived(grammar: Grammar, reply: Ids) -> Ids:
    """The tokens that stay in the history once the turn of ``reply`` has gone: opening and words."""
    return reply[: grammar.commentary(0, 0.0, 1.0, reply).words]


def cut(history: Sequence[int], sink: int, text: int) -> list[int]:
    """First ``sink`` and last ``text`` tokens, as the streaming window cuts the history."""
    if len(history) <= sink + text:
        return list(history)
    return [*history[:sink], *(history[-text:] if text else ())]


def cut_history(
    head: Sequence[int], parts: Sequence[T], ids: Callable[[T], Iterable[int]], sink: int, text: int
) -> list[int]:
    """``head`` and the tokens of all ``parts``, cut to the first ``sink`` and the last ``text``.

    Only the parts that can stay are turned into tokens: two hours of words cost no more than two minutes.
    """
    first = list(head)
    for part in parts:
        if len(first) > sink + text:
            break
        first += ids(part)
    if len(first) <= sink + text:
        return first
    last: list[int] = []
    for part in reversed(parts):
        if len(last) >= text:
            break
        last[:0] = ids(part)
    if len(last) < text:
        last[:0] = head
    return cut([*first[:sink], *last], sink, text)


def spans(
    grammar: Grammar,
    history: Sequence[int],
    turns: Sequence[TrainingTurn],
    *,
    instruction: str = "",
    patch_seconds: float = 1.0,
) -> tuple[list[Span], list[int]]:
    """The spans of a chunk, and where each turn's commentary stands among them."""
    out = grammar.preamble(history, instruction)
    places: list[int] = []
    for number, turn in enumerate(turns):
        end = turn.start + 1.0 if turn.end is None else turn.end
        if number:
            out.append(grammar.separator(number - 1))
        grid = turn.grid or (1, 1, 1)
        times = turn.times if turn.grid else (turn.start,)
        new = grammar.turn(number, turn.start, end, grid, patch_seconds=patch_seconds, times=times)
        out += [span for span in new if turn.grid or span.grid is None]
        places.append(len(out))
        out.append(grammar.commentary(number, turn.start, end, turn.said))
    return out, places


def lay_out(
    grammar: Grammar,
    history: Sequence[int],
    turns: Sequence[TrainingTurn],
    tokens_per_second: float | None,
    *,
    instruction: str = "",
    patch_seconds: float = 1.0,
) -> Laid:
    """Tokens, positions and targets of a chunk. A reply is learnt up to the first token where it leaves the truth.

    ``history``: tokens of the previous text; ``tokens_per_second`` and ``patch_seconds`` are those of
    :func:`streamingvlm.core.positions.positions`.
    """
    pieces, places = spans(grammar, history, turns, instruction=instruction, patch_seconds=patch_seconds)
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
    blocks = [(int(starts[i]) + 1, len(span) - 2) for i, span in enumerate(pieces) if span.grid is not None]
    return Laid(
        ids=np.fromiter((token for span in pieces for token in span.tokens), np.int64),
        positions=positions(pieces, tokens_per_second),
        rows=np.array(rows, np.int64),
        targets=np.array(targets, np.int64),
        weights=np.array(weights, np.float32),
        video=np.array([first + k for first, size in blocks for k in range(size)], np.int64),
        ends=np.array([first + size for first, size in blocks], np.int64),
        grids=np.array([span.grid for span in pieces if span.grid is not None], np.int64).reshape(-1, 3),
    )
