"""A real RTMP server: FFmpeg's own, which listens and sends to one player at a time, in a process of its own.

::

    with RtmpServer() as server:
        open_source(server.url())
        server.kill()      # as a broadcaster that loses power
        server.start()     # on the same port
        server.freeze()    # connected, but nothing comes

Each picture shows when it was made: :func:`support.timecode.age`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


class RtmpServer:
    """Listens on a port of 127.0.0.1 that was free, while it is a context."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, *, login: str = "") -> str:
        """``login``: ``user:password`` as it is to stand in the URL."""
        return f"rtmp://{login + '@' if login else ''}127.0.0.1:{self.port}/live/match"

    def start(self) -> None:
        """Run; it listens as soon as it has imported FFmpeg."""
        command = [sys.executable, "-m", "support.rtmp_server", self.url()]
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop the process: connections stay, nobody sends."""
        assert self._process is not None, "the server does not run"
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after :meth:`freeze`."""
        assert self._process is not None, "the server does not run"
        os.kill(self._process.pid, signal.SIGCONT)

    def __enter__(self) -> RtmpServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def serve(url: str) -> None:
    """Send to one player after the other."""
    import time

    from .http_media import FPS, Encoder

    while True:
        # Only the muxer "tee" hands an option on to the protocol, which then waits for a player.
        encoder = Encoder(f"[f=flv:listen=1]{url}", "tee", headers=True)
        began = time.monotonic()
        try:
            while True:
                encoder.add()
                time.sleep(max(began + encoder.count / FPS - time.monotonic(), 0))
        except OSError:  # the player has gone
            continue


if __name__ == "__main__":
    serve(sys.argv[1])
