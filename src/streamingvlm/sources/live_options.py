"""How patient a live source is: every time-out, every wait between two tries, every bound, in one place."""

from __future__ import annotations

from dataclasses import dataclass

#: Rungs of ``(seconds, how often)``; the last one for ever.
LADDER = ((1.0, 5), (5.0, 5), (10.0, 10), (60.0, 1))


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """The defaults fit a network camera; tests make them short. All times in seconds.

    ``no_frame``: a connected source without a frame for so long is stalled, ``first_frame``: one that was just opened;
    ``name_lookup``: to find a host's address; ``io_timeout``: FFmpeg's, of one read or write (it takes up to twice as
    long). ``ladder``: waits between two tries, ``(seconds, how often)``, the last one for ever, each up to ``jitter``
    longer or shorter; ``refused_wait``: the least wait behind a wrong password or path, since cameras lock accounts;
    ``healthy``: behind so long of frames the ladder starts anew. ``gap_steps``: so many steps without a frame are no
    hole yet. ``off``: a stamp that is so far from the clock is not believed; ``behind``: a source that has come to be
    so late, in all, is opened anew at its live end. ``notices``: so many wait for a subscriber, then the oldest is
    lost. ``room``: a live playlist is shown so much later, since its pieces come late at times. ``left_behind``:
    readers that hang in a read and were given up; with so many no further one is started. ``threads``: of the decoder.
    ``busy``: above this share of a core decoding skips frames that no other needs.
    """

    no_frame: float = 10.0
    first_frame: float = 20.0
    name_lookup: float = 5.0
    io_timeout: float = 5.0
    ladder: tuple[tuple[float, int], ...] = LADDER
    jitter: float = 0.2
    refused_wait: float = 10.0
    healthy: float = 30.0
    gap_steps: float = 2.0
    off: float = 0.5
    behind: float = 10.0
    notices: int = 64
    room: float = 0.5
    left_behind: int = 4
    threads: int = 2
    busy: float = 0.5


DEFAULTS = LiveOptions()
