"""What lies in a pipe when one begins to read it: old pictures of a producer that goes on, or a file.

A program that writes live video into a pipe has begun before this one was ready (a model is loaded meanwhile). Whoever
then shows what is there at its own pace stays that far behind for ever. A file has no live end: all of it is shown.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

#: Stamps that come no faster than this, over so many seconds, are those of a producer that is live.
LIVE_RATE, WINDOW = 1.25, 0.3
#: With so much (seconds, bytes) that came faster, it is a file.
MOST_SECONDS, MOST_BYTES = 60.0, 32 << 20


def read_backlog(
    packets: Iterator[Any], now: Callable[[], float] = time.perf_counter
) -> tuple[list[Any], float | None]:
    """Read ahead until it is clear what comes through the pipe.

    Returns the packets that are still to be decoded, and for a live producer the stamp, in seconds, of what lies before
    its live end: all of that is old (None: of a file, or one that has ended; nothing is old).
    """
    held: list[Any] = []
    arrivals: deque[tuple[float, float]] = deque()  # moments, each with the newest stamp until then
    first, newest, size = math.inf, -math.inf, 0
    for packet in packets:
        held.append(packet)
        size += packet.size
        if packet.pts is None or not packet.time_base:
            continue
        stamp, moment = float(packet.pts * packet.time_base), now()
        first, old, newest = min(first, stamp), newest, max(newest, stamp)
        arrivals.append((moment, newest))
        while len(arrivals) > 1 and arrivals[1][0] <= moment - WINDOW:
            arrivals.popleft()
        since, then = arrivals[0]
        if moment - since >= WINDOW and newest - then <= LIVE_RATE * (moment - since):
            return _from_key_frame(held), old
        if newest - first > MOST_SECONDS or size > MOST_BYTES:
            break
    return held, None


def _from_key_frame(held: list[Any]) -> list[Any]:
    """What is needed to decode the last of them."""
    last = max((index for index, packet in enumerate(held) if packet.is_keyframe), default=0)
    return held[last:]
