"""One connection to a live source, in a thread of its own: opens it, decodes all of it, hands over what has come.

The thread owns its container: FFmpeg can hang in a read, nobody can interrupt that, and no other thread may close it.
Then the thread is left behind, and ends when the read does.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, Literal

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from .backlog import read_backlog
from .certificates import distrust
from .container import ESCAPED, MAX_RATE, TEXT_FORMATS
from .decode import NAMED_PROFILES, frame_stamp, to_rgb, without_profile
from .inputs import Input
from .live_options import LiveOptions
from .playlists import forbidden, is_playlist
from .progress import Progress
from .stamps import ArrivalClock
from .status import Trouble, TroubleError, trouble_of

#: So many packets in a row that cannot be read, or frames that cannot be converted, are the end of a connection.
READ_FAILURES = 16
#: FFmpeg's mark of a format without stamps of its own: it counts frames.
NO_STAMPS = 0x80
#: Formats whose length is told by their playlist, not by the bytes of it, and which come in pieces.
PLAYLISTS = frozenset({"hls", "dash"})
#: A playlist of which FFmpeg can open nothing is read again and again; this share of the time for the first frame is
#: enough for that, and the rest for finding out why.
PLAYLIST_SHARE = 0.75
#: What begins with such a format is live, whatever length the server tells.
ENDLESS = frozenset({"mpjpeg"})
#: Frames a second of a file that tells neither that nor any stamps.
UNTOLD_RATE = 25.0
#: Seconds over which the share of decoding in the time is taken.
BUSY_WINDOW = 5.0
#: A file that closes so many seconds before its end has been seen whole: what it says of its length is no promise.
NEAR_END = 1.0
#: A seek may land behind its target, so it goes so many seconds further back; what is seen again is not shown.
SEEK_MARGIN = 10.0
#: A file of which less was read has broken off, whatever its stamps say: behind the video there may be some sound.
WHOLE = 0.9
#: Skips the frames that no other frame needs.
SKIP = "NONREF"
#: What is told of an MP4 file that is piped in and cannot be read without going back in it.
MP4_ADVICE = "an MP4 file cannot be read from a pipe; pipe in MPEG-TS, Matroska or fragmented MP4"

Stage = Literal["lookup", "opening", "reading"]


class Reader(threading.Thread):
    """See the module. ``deliver`` is told every frame, ``changed`` of a new stage and of the end, in this thread.

    ``stage``: what it does, and since when (``since``, ``perf_counter``; of reading: since the last frame).
    ``trouble``: why it has ended. ``progress``: how far the source has been seen; ``finish``: where a file says that it
    ends, in seconds by its own clock (0: it does not).
    """

    def __init__(
        self,
        source: Input,
        options: LiveOptions,
        deliver: Callable[[Reader, Shot], None],
        changed: Callable[[], None],
        *,
        video_stream: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(name="streamingvlm-reader", daemon=True)
        self.source, self.options = source, options
        self._deliver, self._on_change = deliver, changed
        self._number = video_stream
        self.progress, self.finish = progress or Progress(), 0.0
        self._sought = False
        self._size = self._reached = 0
        self.stage: Stage = "lookup"
        self.since = self.began = time.perf_counter()
        self.frames = 0
        self.broken = self._unshown = 0
        self.trouble: Trouble | None = None
        self.fault: BaseException | None = None
        self.finite = source.ends == "always"
        self.playlist = False
        self.codec, self.rate, self.spent = "", 0.0, 0.0
        self._left = threading.Event()
        self._reformatter = VideoReformatter()

    @property
    def left(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._left.is_set()

    @property
    def at_end(self) -> bool:
        """Whether a file has come to its end: what breaks before is opened again, until that brings nothing new."""
        position = self.progress.position
        if position is None or not self.frames:
            return position is not None and not self._sought
        read = not self._reached or self._reached >= WHOLE * self._size
        return read and position >= self.finish - NEAR_END

    @property
    def done(self) -> bool:
        """Whether it has come to its end, well or not."""
        return self.trouble is not None or self.fault is not None

    def leave(self) -> None:
        """Nothing is wanted of it any more; never waits. It ends as soon as FFmpeg comes back."""
        self._left.set()
        if self.source.pipe is not None:
            self.source.pipe.close()

    def run(self) -> None:
        """The thread."""
        container = None
        try:
            self._look_up()
            self._enter("opening")
            container, stream = self._open()
            self._enter("reading")
            self.trouble = self._advised(Trouble("ended") if self.left else self._read(container, stream))
        except TroubleError as error:
            self.trouble = self._advised(error.trouble)
        except BaseException as error:  # a bug, which is no reason to try again
            self.fault = error
        if self._sought:  # and nothing has come of it
            self.progress.seeks = False
        self._left.set()
        self._on_change()
        if container is not None:  # saying goodbye to a camera that is gone takes as long as any time-out
            with suppress(Exception):
                container.close()

    def _advised(self, trouble: Trouble) -> Trouble:
        """The same, or what can be done about it."""
        pipe = self.source.pipe
        return Trouble("format", MP4_ADVICE) if trouble.code == "format" and pipe and pipe.is_mp4 else trouble

    def _enter(self, stage: Stage) -> None:
        self.stage, self.since = stage, time.perf_counter()
        self._on_change()

    def _look_up(self) -> None:
        if not self.source.host or "http_proxy" in self.source.options:
            return
        try:
            socket.getaddrinfo(self.source.host, self.source.port or 0, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise TroubleError(Trouble("dns", f"{self.source.host} is unknown")) from error

    def _open(self) -> tuple[Any, Any]:
        container, stream = self._open_with(self.source)
        if stream.codec_context.width == 0 and self.source.pipe is None and not self.left:
            container.close()
            container, stream = self._open_with(self.source.at_leisure)
        return container, stream

    def _open_with(self, source: Input) -> tuple[Any, Any]:
        container = self._opened(source)
        try:
            if container.format.name in TEXT_FORMATS:
                raise TroubleError(Trouble("format", "it is a text"))
            self.playlist = container.format.name in PLAYLISTS
            # A playlist has a size, whatever it lists; and a server may tell the one and not the other.
            size = container.size or 0  # before av 19 a stream without an end has a size below 0
            self._size = 0 if self.playlist else max(size, 0)
            known = container.format.name not in ENDLESS and (container.duration is not None or self._size > 0)
            self.finite = source.ends == "always" or (source.ends == "file" and known)
            if container.duration is not None:
                self.finish = ((container.start_time or 0) + container.duration) / av.time_base
            return container, self._choose(container)
        except BaseException:
            container.close()
            raise

    def _opened(self, source: Input) -> Any:
        began = time.perf_counter()
        share = PLAYLIST_SHARE if is_playlist(source.url) else 1.0
        patience = (share * self.options.first_frame, self.options.no_frame)
        try:
            return av.open(
                source.url if source.pipe is None else source.pipe,
                format=source.format,
                container_options=dict(source.options),
                timeout=None if source.pipe is not None else patience,
                **ESCAPED,
            )
        except Exception as error:  # the library has no list of what it raises; its text may hold the password
            network = bool(source.host)
            least = min(self.options.io_timeout, self.options.first_frame)
            waited = network and time.perf_counter() - began >= least
            trouble = trouble_of(error, source.secrets, opening=True, network=network, tls=source.tls, waited=waited)
        raise TroubleError(self._explained(trouble, source))

    def _explained(self, trouble: Trouble, source: Input) -> Trouble:
        """The same, or what FFmpeg does not tell: it is asked for once more, without FFmpeg."""
        patience = self.options.io_timeout
        if trouble.code == "tls" and source.port:
            why = distrust(source.host, source.port, source.options, patience)
            return Trouble("tls", why) if why else trouble
        if trouble.code == "timeout" and is_playlist(source.url):
            scheme = forbidden(source.url, source.options, patience)
            return Trouble("format", f"its playlist leads to {scheme}:, which is not followed") if scheme else trouble
        return trouble

    def _choose(self, container: Any) -> Any:
        streams = list(container.streams.video)
        if not streams:
            raise TroubleError(Trouble("no_video"))
        number = self._number
        if number is not None and not 0 <= number < len(streams):
            raise TroubleError(Trouble("no_video", f"it has no video stream {number}, but {len(streams)}", True))
        stream = (container.streams.best("video") or streams[0]) if number is None else streams[number]
        if stream.codec_context is None:
            raise TroubleError(Trouble("codec"))
        for other in container.streams:
            if other.index != stream.index:
                with suppress(Exception):  # what cannot be told so is read and thrown away
                    other.discard = type(other.discard).all
        # Frame threads would keep as many frames back.
        stream.codec_context.thread_type = "SLICE"
        stream.codec_context.thread_count = self.options.threads
        self.codec = stream.codec_context.name
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        self.rate = rate if rate <= MAX_RATE else 0.0
        return stream

    def _read(self, container: Any, stream: Any) -> Trouble:
        stamped = not container.format.flags & NO_STAMPS
        file = self.finite and self.source.ends == "file"
        paced = file or (stamped and (self.source.paced or self.finite or self.playlist))
        clock = ArrivalClock(self.options.off, paced, self.options.room if self.playlist and not self.finite else 0.0)
        resume = self._move(container) if self.finite else None
        packets, count = self._packets(container, stream), 0
        if self.source.pipe is not None and stamped:
            held, resume = read_backlog(packets)
            packets = chain(held, packets)
        for frame in self._frames(packets, stream):
            stamp = frame_stamp(frame) if stamped else None
            if file and (self.progress.counted or (stamp is None and not count)):
                self.progress.counted, stamp = True, count / (self.rate or UNTOLD_RATE)
            count += 1
            if self._sought and count == 1 and (stamp is None or stamp > (resume or 0.0)):
                return Trouble("ended", "it cannot be sought")
            self._sought = False
            seen = resume is not None and stamp is not None and stamp <= resume
            if seen or (self.playlist and self.progress.repeats.is_old(frame)):
                continue
            resume = resume if stamp is None else None  # a source that starts anew has these stamps again
            if not self._show(frame, stamp, clock):
                return Trouble("ended")
            if paced and not self.finite and clock.late > self.options.behind:
                return Trouble("stalled", f"it has come to be {clock.late:.0f} s late")
        return self._end

    def _frames(self, packets: Iterable[Any], stream: Any) -> Iterator[Any]:
        """The frames of packets, but for those that are damaged."""
        load = _Load(self.options.busy)
        for packet in packets:
            if self.playlist:
                self.progress.repeats.note(packet)
            began = time.perf_counter()
            try:
                frames = packet.decode()
            except Exception:  # whatever a damaged packet makes the library raise
                self.broken += 1
                continue
            self.spent += (work := time.perf_counter() - began)
            if load.too_busy(work):
                stream.codec_context.skip_frame = SKIP
            yield from frames

    def _move(self, container: Any) -> float | None:
        """Go on in a file where the connection before has broken; the stamp behind which frames are new."""
        progress = self.progress
        if progress.position is None or self.source.pipe is not None or self.source.format is not None:
            return None
        if self.playlist and progress.position > self.finish + NEAR_END:  # another recording, whose clock starts anew
            progress.position = None
            return None
        target = progress.position - SEEK_MARGIN
        # What cannot be sought, or is not worth it, is read from its beginning, up to there.
        if progress.seeks and not progress.counted and target > (container.start_time or 0) / av.time_base:
            self._sought = True
            with suppress(Exception):  # then no frame comes, or a wrong one
                container.seek(int(target * av.time_base))
        return progress.position

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        """All packets; why there are no more is left in ``_end``."""
        self._end = Trouble("ended")
        packets, failures = container.demux(stream), 0
        while not self.left:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except Exception as error:
                failures += 1
                self._end = trouble_of(error, self.source.secrets)
                if not isinstance(error, av.error.InvalidDataError) or failures >= READ_FAILURES:
                    return
                packets = container.demux(stream)
                continue
            failures = 0
            if packet.pos is not None:
                self._reached = max(self._reached, packet.pos + packet.size)
            yield packet

    def _show(self, frame: Any, stamp: float | None, clock: ArrivalClock) -> bool:
        """Hand a frame over when its time has come; false if nobody wants it any more."""
        arrival = time.perf_counter()
        moment = clock.read(stamp, arrival)
        if moment is None:
            return not self.left
        if moment > arrival:
            self.since = moment
            if self._left.wait(moment - arrival):
                return False
            arrival = time.perf_counter()
        if self.left:  # somebody else goes on from the frame before
            return False
        self.since = arrival
        self.frames += 1
        if self.playlist:
            self.progress.repeats.show(frame)
        if stamp is not None and (self.finite or self.playlist):
            self.progress.position = stamp
        self._deliver(self, Shot(self, frame, moment, arrival))
        return not self.left

    def convert(self, frame: Any, size: tuple[int, int] | None) -> NDArray[np.uint8] | None:
        """See :func:`streamingvlm.sources.decode.to_rgb`; None if it cannot be converted.

        TroubleError if too many in a row cannot be.
        """
        try:
            plain = without_profile(frame) if self.codec in NAMED_PROFILES else frame
            pixels = to_rgb(plain, size, self._reformatter)
        except Exception as error:  # whatever a damaged frame makes the library raise
            self.broken += 1
            self._unshown += 1
            if self._unshown >= READ_FAILURES:
                what = f"its frames cannot be converted: {type(error).__name__}"
                raise TroubleError(Trouble("format", what)) from error
            return None
        self._unshown = 0
        return pixels


class Shot:
    """A frame that has come: a :class:`~streamingvlm.sources.slots.Picture`, converted when that is asked for."""

    def __init__(self, reader: Reader, frame: Any, moment: float, arrival: float) -> None:
        self._reader, self._frame = reader, frame
        self.moment, self.arrival, self.wall = moment, arrival, time.time()
        self.spent = reader.spent
        self._rgb: NDArray[np.uint8] | None = None

    def rgb(self, size: tuple[int, int] | None = None) -> NDArray[np.uint8] | None:
        """See :meth:`Picture.rgb`; in its own size it is made once for all who ask."""
        if self._rgb is None:
            began = time.perf_counter()
            self._rgb = self._reader.convert(self._frame, None)
            self._reader.spent += time.perf_counter() - began
            self.spent = self._reader.spent
        if self._rgb is None or size in (None, self._rgb.shape[:2]):
            return self._rgb
        return self._reader.convert(self._frame, size)


class _Load:
    """How much of the time goes into decoding."""

    def __init__(self, most: float) -> None:
        self._most, self._began, self._work = most, time.perf_counter(), 0.0

    def too_busy(self, work: float) -> bool:
        """Add seconds of work; whether it was too much in the last window."""
        self._work += work
        past = time.perf_counter() - self._began
        if past < BUSY_WINDOW:
            return False
        share, self._began, self._work = self._work / past, time.perf_counter(), 0.0
        return share > self._most


def left_behind() -> int:
    """Readers that hang in a read of FFmpeg and that nobody waits for any more. They end when the read does."""
    return sum(isinstance(thread, Reader) and thread.left for thread in threading.enumerate())
