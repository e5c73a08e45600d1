"""When a live frame was there: the host's clock, with the source's own stamps for the spacing."""

from __future__ import annotations


class ArrivalClock:
    """Turns stamps and arrivals into moments of ``time.perf_counter()`` that never go back.

    A stamp that would lie more than ``off`` seconds behind the arrival is not believed: from there on stamps count from
    that arrival. One that lies ahead of it counts from its arrival at once, or if the source is ``paced``, only beyond
    ``off``: whoever reads is to wait until then (:attr:`ahead`). ``late``: by how much it has been re-anchored so far.
    """

    def __init__(self, off: float, paced: bool = False) -> None:
        self._off, self._paced = off, paced
        self._origin: float | None = None
        self._last: float | None = None
        self.late = 0.0

    def read(self, stamp: float | None, arrival: float) -> float:
        """The moment of the next frame; ``stamp``: seconds by the source's clock (None: it has none)."""
        moment = arrival if stamp is None else self._believed(stamp, arrival)
        self._last = moment if self._last is None else max(moment, self._last)
        return self._last

    def _believed(self, stamp: float, arrival: float) -> float:
        if self._origin is None:
            self._origin = arrival - stamp
        moment = self._origin + stamp
        if moment < arrival - self._off:
            if self._last is not None and moment >= self._last:  # late, and not a clock that was set back
                self.late += arrival - moment
            moment = arrival
        elif moment > arrival + (self._most_ahead if self._paced else 0.0):
            moment = arrival
        self._origin = moment - stamp
        return moment

    @property
    def _most_ahead(self) -> float:
        """A paced source may lie a long frame or a few ahead, since its reader waits; more than this is a jump."""
        return 20 * self._off
