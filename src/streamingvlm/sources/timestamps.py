"""Time in a video: seconds that never go back, made of the stamps that containers carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: A step back of more than this is a new clock: the stream was joined of several, or began anew.
CLOCK_BACK = 0.25
#: A step forward of more than this is a new clock too, where a container's stamps are meant to run on.
CLOCK_GAP = 3600.0
#: The same where they are not (broadcast and stream formats; FFmpeg has the same bound), and how far back a stamp may
#: lie if it is one of presentation, out of order.
CLOCK_BREAK = 10.0


@dataclass(slots=True)
class Clock:
    """Turns stamps into seconds from the first one that never go back.

    ``spacing`` is the time between frames where a stamp is missing. ``origin`` is the stamp of the first frame, if
    it is known. A stamp that goes back a little is held. One that goes back by more than ``back``, or that comes more
    than ``gap`` after the moment when it was expected, starts a new clock, which goes on from here: a break, counted in
    ``breaks``. Stamps that start again at 0 after ``wrap`` seconds (0: they do not) are no break.
    """

    spacing: float
    origin: float | None = None
    last: float | None = None
    gap: float = CLOCK_GAP
    back: float = CLOCK_BACK
    wrap: float = 0.0
    breaks: int = 0

    def read(self, stamp: float | None) -> float:
        """Seconds from the first frame for the next frame in order."""
        expected = 0.0 if self.last is None else self.last + self.spacing
        if stamp is None:
            time = expected
        else:
            if self.origin is None:
                self.origin = stamp - expected
            time = stamp - self.origin
            if self.last is not None and not self._goes_on(time, self.last):
                time = self._restart(stamp, expected, self.last)
            if self.last is not None:
                time = max(time, self.last)
        self.last = time
        return time

    def _goes_on(self, time: float, last: float) -> bool:
        return last - self.back <= time <= last + self.spacing + self.gap

    def _restart(self, stamp: float, expected: float, last: float) -> float:
        for turn in (self.wrap, -self.wrap) if self.wrap else ():
            if self.origin is not None and self._goes_on(stamp + turn - self.origin, last):
                self.origin -= turn
                return stamp - self.origin
        self.origin = stamp - expected
        self.breaks += 1
        return expected


class PacketClock:
    """Carries the stamps of packets over the breaks of their stream, in the order of decoding.

    That is where a break shows: stamps of decoding do not go back in a sound stream, those of presentation do. Packets
    that have only the latter go by a clock of their own.
    """

    def __init__(self, spacing: float, gap: float, wrap: float) -> None:
        self._clocks = {
            "dts": Clock(spacing, gap=gap, wrap=wrap),
            "pts": Clock(spacing, gap=gap, wrap=wrap, back=CLOCK_BREAK),
        }
        self._first = {"dts": 0.0, "pts": 0.0}

    @property
    def breaks(self) -> int:
        """Breaks so far; both clocks may have met the same."""
        return max(clock.breaks for clock in self._clocks.values())

    def mend(self, packet: Any) -> float | None:
        """Move both stamps by what the breaks so far amount to; returns the packet's time (None: it has no stamp)."""
        kind = "pts" if packet.dts is None else "dts"
        ticks, clock = getattr(packet, kind), self._clocks[kind]
        if ticks is None or not packet.time_base:
            return None
        stamp = float(ticks * packet.time_base)
        if clock.origin is None:
            self._first[kind] = stamp
        time = clock.read(stamp)
        moved = round((self._first[kind] - (clock.origin or 0.0)) / packet.time_base)
        if moved:
            packet.pts = None if packet.pts is None else packet.pts + moved
            packet.dts = None if packet.dts is None else packet.dts + moved
        return time

    def forget(self) -> None:
        """The file was moved to another place: what comes next follows nothing."""
        for clock in self._clocks.values():
            clock.last = None


class FrameStamps:
    """The stamp of each frame: of presentation, or of decoding where the container means only that one.

    Like FFmpeg's own guess: whichever of the two has gone back less often so far. A frame comes out of the decoder with
    the stamp of decoding of the packet that pushed it out, so these are in order and have the right distances; what
    both were at the first frame brings them on one scale. The last frames come out without one.
    """

    def __init__(self) -> None:
        self._last: dict[str, float | None] = {"shown": None, "decoded": None}
        self._faults = {"shown": 0, "decoded": 0}
        self._lead: float | None = None

    def read(self, shown: float | None, decoded: float | None) -> float | None:
        """Seconds on the file's own clock; None if the frame has no stamp. To be called once a frame, in order."""
        if shown is None and decoded is None:
            return None
        if shown is not None and decoded is not None and self._lead is None:
            self._lead = decoded - shown
        self._note("decoded", decoded, shown)
        self._note("shown", shown, decoded)
        if shown is not None and self._faults["shown"] <= self._faults["decoded"]:
            return shown
        return None if decoded is None else decoded - (self._lead or 0.0)

    def _note(self, kind: str, stamp: float | None, other: float | None) -> None:
        last = self._last[kind]
        if stamp is not None and last is not None:
            self._faults[kind] += stamp <= last
        self._last[kind] = other if stamp is None else stamp

    def forget(self) -> None:
        """The file was moved to another place: a step back there is no fault."""
        self._last = {"shown": None, "decoded": None}
