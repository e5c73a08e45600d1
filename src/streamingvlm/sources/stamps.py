"""When a live frame was there: the host's clock, with the source's own stamps for the spacing."""

from __future__ import annotations


class ArrivalClock:
    """Turns stamps and arrivals into moments of ``time.perf_counter()`` that never go back.

    A frame whose stamp lies more than ``off`` seconds behind its arrival is left out: it is the last one before a
    break, which FFmpeg gives away only then. If the next one is as late, stamps are not believed any more: they count
    from that arrival. One that lies ahead of it counts from its arrival at once, or if the source is ``paced``, only
    far ahead: whoever reads is to wait until then. Then an anchor lies ``room`` seconds behind the arrival: frames that
    come later than they should are still in time. ``late``: by how much it has been re-anchored so far.
    """

    def __init__(self, off: float, paced: bool = False, room: float = 0.0) -> None:
        self._off, self._paced, self._room = off, paced, room
        self._origin: float | None = None
        self._last: float | None = None
        self._doubted = False
        self.late = 0.0

    def read(self, stamp: float | None, arrival: float) -> float | None:
        """The moment of the next frame (None: leave it out); ``stamp``: seconds by the source's clock."""
        moment = arrival if stamp is None else self._believed(stamp, arrival)
        if moment is None:
            return None
        self._last = moment if self._last is None else max(moment, self._last)
        return self._last

    def _believed(self, stamp: float, arrival: float) -> float | None:
        if self._origin is None:
            self._origin = arrival + self._room - stamp
        moment = self._origin + stamp
        doubted, self._doubted = self._doubted, False
        if moment < arrival - self._off:
            if not doubted:
                self._doubted = True
                return None
            if self._last is not None and moment >= self._last:  # late, and not a clock that was set back
                self.late += arrival + self._room - moment
            moment = arrival + self._room
        elif moment > arrival + (self._most_ahead if self._paced else 0.0):
            moment = arrival
        self._origin = moment - stamp
        return moment

    @property
    def _most_ahead(self) -> float:
        """A paced source may lie a long frame or a few ahead, since its reader waits; more than this is a jump."""
        return 20 * self._off
