"""How far a source has been seen when a connection breaks, so that the next one shows nothing twice.

A file goes on behind the last frame. A playlist is begun at its last segment: if nothing was added, all of that is old.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from typing import Any

#: Frames of a playlist that are known again.
REMEMBERED = 1024


class Repeats:
    """Remembers the last ``most`` frames of a source, by their stamps and the bytes that they were decoded from.

    Stamps alone do not tell: an encoder that starts anew may count from the same number. For one thread at a time.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._shown: dict[tuple[int, int], None] = {}
        self._old: frozenset[tuple[int, int]] = frozenset()
        self._marks: dict[int, int] = {}

    def begin(self) -> Repeats:
        """For the next connection: what was shown until now is old."""
        following = Repeats(self._most)
        following._shown = self._shown.copy()
        following._old = frozenset(following._shown)
        return following

    def note(self, packet: Any) -> None:
        """A packet has come, whose frame will follow."""
        if packet.pts is not None and packet.size:
            self._marks[packet.pts] = zlib.crc32(packet)
            if len(self._marks) > self._most:
                del self._marks[next(iter(self._marks))]

    def is_old(self, frame: Any) -> bool:
        """Whether a frame has been shown before this connection."""
        return (frame.pts, self._marks.get(frame.pts)) in self._old

    def show(self, frame: Any) -> None:
        """A frame is shown."""
        mark = self._marks.pop(frame.pts, None)
        if mark is not None:
            self._shown[frame.pts, mark] = None
            if len(self._shown) > self._most:
                del self._shown[next(iter(self._shown))]


@dataclass(slots=True)
class Progress:
    """What the next connection must know.

    ``position``: seconds by the source's clock, of the last frame that was shown (None: of none); ``counted``: by the
    number of frames, since they have no stamps. ``seeks``: whether one can go to a place in the file. ``repeats``: what
    was shown of a playlist.
    """

    position: float | None = None
    counted: bool = False
    seeks: bool = True
    repeats: Repeats = field(default_factory=Repeats)

    def following(self) -> Progress:
        """For the next connection."""
        return replace(self, repeats=self.repeats.begin())
