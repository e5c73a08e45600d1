"""A producer whose video comes through a pipe, as ``ffmpeg ... | streamingvlm watch -`` has it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import BinaryIO

from .http_media import FPS, Encoder


class PipeWriter:
    """Writes a transport stream or Matroska at its own pace into a pipe whose other end is ``reader``.

    ``after``: bytes behind which it dies, at best in the middle of a packet (None: never). :meth:`stall` leaves the
    pipe open and sends nothing more; :meth:`kill` closes it wherever it is.
    """

    def __init__(self, container: str = "mpegts", *, after: int | None = None, fast: bool = False) -> None:
        self.container, self.after, self.fast = container, after, fast
        read, self._write = os.pipe()
        self.reader: BinaryIO = os.fdopen(read, "rb", buffering=0)
        self.written = 0
        self._dead, self._stalled, self._anew = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="pipe-writer", daemon=True)

    def write(self, data: bytes) -> int:
        """What the muxer writes to."""
        left = len(data) if self.after is None else min(len(data), self.after - self.written)
        view = memoryview(data)[:left]
        while view and not self._dead.is_set():
            view = view[os.write(self._write, view) :]
        self.written += left
        if left < len(data):
            self._dead.set()
        return len(data)

    def stall(self) -> None:
        self._stalled.set()

    def go(self) -> None:
        """Go on after :meth:`stall`, with what was to be sent meanwhile."""
        self._stalled.clear()

    def restart(self) -> None:
        """Go on with another encoder, whose stamps begin anew, as a loop around ``ffmpeg`` does."""
        self._anew.set()

    def kill(self) -> None:
        self._dead.set()
        with contextlib.suppress(OSError):
            self.reader.close()  # a writer that is blocked gets out
        self._thread.join(5)

    def __enter__(self) -> PipeWriter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def end(self) -> None:
        """Close the writing end, as a producer does that dies; what is in the pipe can still be read."""
        self._dead.set()
        self._thread.join(5)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            encoder = Encoder(self, self.container, {"flush_packets": "1"})
            began = time.monotonic()
            while not self._dead.is_set():
                if not self.fast:
                    self._dead.wait(max(began + encoder.count / FPS - time.monotonic(), 0))
                if self._anew.is_set():
                    encoder, began = Encoder(self, self.container, {"flush_packets": "1"}), time.monotonic()
                    self._anew.clear()
                if self._stalled.is_set():
                    self._dead.wait(0.02)
                else:
                    encoder.add()
        os.close(self._write)
