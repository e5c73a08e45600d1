"""A pipe as a file for FFmpeg, whose reads end when it is closed."""

from __future__ import annotations

import os
import select
import sys
from typing import Any

#: Seconds after which a read that waits looks whether it is still wanted.
LOOK = 0.25
#: How an MP4 file begins, from its fifth byte on.
MP4_MARK = b"ftyp"


class Pipe:
    """The bytes of ``stream``, standard input by default, as far as they have come.

    ``head``: the first bytes, which tell what kind of file it is.
    """

    def __init__(self, stream: Any = None) -> None:
        self._stream = sys.stdin.buffer if stream is None else stream
        self._closed = False
        self.head = b""

    @property
    def interactive(self) -> bool:
        """Whether a person types here: no video comes."""
        return bool(self._stream.isatty())

    @property
    def is_mp4(self) -> bool:
        """Whether it begins as an MP4 file does."""
        return self.head[4:8] == MP4_MARK

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; waits for the first. Empty at the end, or when the pipe was closed."""
        while not self._closed:
            if not self._ready():
                continue
            data = os.read(self._stream.fileno(), size)
            if len(self.head) < 8:
                self.head += data[:8]
            return data
        return b""

    def close(self) -> None:
        """Nothing is wanted any more: a read that waits ends."""
        self._closed = True

    def _ready(self) -> bool:
        if not hasattr(select, "poll"):  # Windows: a read cannot be waited for
            return True
        poll = select.poll()
        poll.register(self._stream.fileno(), select.POLLIN | select.POLLHUP)
        return bool(poll.poll(LOOK * 1000))
