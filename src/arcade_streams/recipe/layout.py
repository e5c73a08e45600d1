"""A training chunk of the arcade: the general layout with the bundled model's grid and time axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamingvlm.core.grammar import Grammar
from streamingvlm.train import layout
from streamingvlm.train.layout import Grid, Ids, Laid, archived, cut

from .tower import GRID

__all__ = ["TOKENS_PER_SECOND", "ArcadeTurn", "Ids", "Laid", "archived", "cut", "lay_out"]

#: Steps that one second advances along the time axis.
TOKENS_PER_SECOND = 2.0


@dataclass(frozen=True, slots=True)
class ArcadeTurn(layout.TrainingTurn):
    """One second of a chunk; unless it has lost its picture, that has the arcade's grid."""

    grid: Grid | None = GRID


def lay_out(grammar: Grammar, history: Sequence[int], turns: Sequence[ArcadeTurn]) -> Laid:
    """See :func:`streamingvlm.train.layout.lay_out`."""
    return layout.lay_out(grammar, history, turns, TOKENS_PER_SECOND)
