"""What takes time to be seen, from the labels of two frames a second: a lob, a player who stays at the net."""

from __future__ import annotations

from ...game import HALF, FrameLabel
from .court import height_of
from .rules import COLOURS

LOB = 44
"""Height that only a lob reaches."""
NET_FRAMES = 180
"""A player who has been at the net for so long stays there."""


class Watch:
    """Looks on while a point is played."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A new point."""
        self._lobbed, self._hitter, self._frames = False, 0, [0, 0]

    def struck(self, side: int) -> None:
        """A player (0 pink, 1 blue) has hit the ball."""
        self._lobbed, self._hitter = False, side

    def see(self, label: FrameLabel) -> list[tuple[str, int]]:
        """Takes the next frame, half a second after the last; kind and side of what it shows for the first time."""
        told = []
        if not self._lobbed and (height_of(label.places["ball"], label.places["shadow"]) or 0) >= LOB:
            self._lobbed = True
            told.append(("lob", self._hitter))
        for side, colour in enumerate(COLOURS):
            self._frames[side] = self._frames[side] + HALF if label.facts[f"net_{colour}"] else 0
            if self._frames[side] == NET_FRAMES + HALF:
                told.append(("net", side))
        return told
