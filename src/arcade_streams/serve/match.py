"""A match at its own pace, encoded once for everybody who watches."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count

import av

from ..worlds.game import Game
from ..worlds.record import CLIP_FPS, SCREEN_SIZE, Row, clip_frame
from ..worlds.stream import GameStream

#: x264: small things that move must survive, and no frame may wait for a later one.
ENCODER = {"crf": "20", "preset": "veryfast", "tune": "zerolatency", "threads": "1"}
#: Frames from one key frame to the next. Whoever comes starts at one.
KEY_EVERY = CLIP_FPS
#: Seconds behind its time from which on a frame is left out.
LATE = 0.5


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One frame. ``time``: seconds of the match; ``h264``: Annex B; ``transport``: whole MPEG-TS packets, with the
    program tables first where it is a key frame."""

    key: bool
    time: float
    h264: bytes
    transport: bytes


class Encoder:
    """Turns pictures into :class:`EncodedFrame` objects. ``title`` is told as the name of the service."""

    def __init__(self, title: str) -> None:
        self._buffer = _Collected()
        self._container = av.open(self._buffer, "w", format="mpegts", options={"flush_packets": "1"})
        self._container.metadata.update({"service_name": title[:80], "service_provider": "streamingvlm"})
        self._stream = self._container.add_stream("libx264", rate=CLIP_FPS)
        self._stream.width, self._stream.height = SCREEN_SIZE
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {**ENCODER, "g": str(KEY_EVERY), "keyint_min": str(KEY_EVERY), "sc_threshold": "0"}

    def encode(self, picture: object, index: int) -> list[EncodedFrame]:
        """Frame ``index`` of the match, ``(420, 320, 3)`` uint8 RGB; there is one for each picture."""
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, CLIP_FPS)
        made = []
        for packet in self._stream.encode(frame):
            key, data = packet.is_keyframe, bytes(packet)
            self._container.mux(packet)
            made.append(EncodedFrame(key, index / CLIP_FPS, data, self._buffer.take()))
        return made


class LiveMatch:
    """The match of ``game`` and ``seed``: 30 frames a second, second 0 at the moment of :meth:`run`.

    ``wall``: that moment, seconds since 1970 in UTC; ``seconds``: how much of it was played; ``late``: frames that were
    left out since the machine did not keep up.
    """

    def __init__(self, game: Game, seed: int) -> None:
        self.game, self.seed = game, seed
        self.context = game.context(seed).text
        self.wall = self.seconds = 0.0
        self.late = 0
        self._truth: list[Row] = []
        self._rest = iter(GameStream(game, seed, render=False))

    def run(
        self,
        publish: Callable[[EncodedFrame], None],
        seconds: float = math.inf,
        stopped: threading.Event | None = None,
    ) -> None:
        """Play for ``seconds``, or until ``stopped``; each frame is published when it is due."""
        world, encoder = self.game.world(self.seed), Encoder(self.context)
        stopped = stopped or threading.Event()
        began, self.wall = time.monotonic(), time.time()
        for index in count():
            due = index / CLIP_FPS
            if due >= seconds or stopped.wait(max(began + due - time.monotonic(), 0.0)):
                return
            self.seconds = due
            if time.monotonic() - began - due > LATE:
                self.late += 1
                continue
            for frame in encoder.encode(clip_frame(world, index), index):
                publish(frame)

    def truth(self) -> Iterator[Row]:
        """What is truly said in each second that was played to its end."""
        while len(self._truth) < int(self.seconds):
            second = next(self._rest)
            self._truth.append((second.start, second.end, second.text))
        return iter(self._truth)


class _Collected(io.RawIOBase):
    """A file that only grows; :meth:`take` empties it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self._parts.append(bytes(data))  # type: ignore[call-overload]
        return len(self._parts[-1])

    def take(self) -> bytes:
        """Everything since it was last asked."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
