"""Frames of a playlist that have been shown over an earlier connection.

A playlist is begun at its last segment. If nothing was added since the connection broke, all of that is old.
"""

from __future__ import annotations

import zlib
from typing import Any


class Repeats:
    """Remembers the last ``most`` frames of a source, by their stamps and the bytes that they were decoded from.

    Stamps alone do not tell: an encoder that starts anew may count from the same number. For one thread at a time.
    """

    def __init__(self, most: int) -> None:
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
        """Whether a frame has been shown before this connection; if not, it is taken to be shown now."""
        mark = self._marks.pop(frame.pts, None)
        if mark is None:
            return False
        if (frame.pts, mark) in self._old:
            return True
        self._shown[frame.pts, mark] = None
        if len(self._shown) > self._most:
            del self._shown[next(iter(self._shown))]
        return False
