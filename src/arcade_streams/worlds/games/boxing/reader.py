"""Boxing from two frames a second: which punch an arm that is out belongs to, and what came of it."""

from __future__ import annotations

from ...game import HALF, FrameLabel, Happening
from .ring import LANDS_DX
from .rules import ARMS, COLOURS
from .watch import Sight, Watch

FULL = 2
"""Label of an arm that is fully out."""


class Reader:
    """Tells what happened between the frames that it sees."""

    def __init__(self) -> None:
        self._last: FrameLabel | None = None
        self._watch = Watch()

    def see(self, label: FrameLabel) -> list[Happening]:
        """Takes the next frame, half a second after the last; what it shows for the first time."""
        told = [*self._punches(label), *self._watch.see(label)] if self._last is not None else []
        if self._last is not None and label.in_play and not self._last.in_play:
            told.append(Sight("bell"))
        self._last = label
        at = round(label.time * 2) * HALF
        return [Happening(at, sight.kind, sight.colour, sight.zone, label.scores) for sight in told]

    def _punches(self, label: FrameLabel) -> list[Sight]:
        assert self._last is not None
        told = []
        for side, colour in enumerate(COLOURS):
            if label.scores[side] > self._last.scores[side]:
                told.append(Sight("point", colour))
                continue
            for arm in ARMS:
                out, before = (seen.facts[f"{colour}_{arm}"] for seen in (label, self._last))
                # A punch is fully out for less than half a second.
                if out and (out == FULL or not before):
                    told.append(self._vain(label, side, arm))
        return told

    def _vain(self, label: FrameLabel, side: int, arm: str) -> Sight:
        """A punch that did not land: short of the other, or against its gloves."""
        (x, _), (other_x, _) = (place or (0, 0) for place in label.places.values())
        if abs(x - other_x) < LANDS_DX:
            return Sight("block", COLOURS[1 - side])
        return Sight("miss", COLOURS[side], arm)
