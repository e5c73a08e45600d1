"""A source that goes on by itself: a camera, a stream of the network, a screen, a pipe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ..core.errors import OptionError, SourceError
from ..core.events import Notice, Source, StepInput, StepSource
from .hub import Hub
from .inputs import input_of
from .live_options import DEFAULTS, LiveOptions
from .slots import Assembler


class LiveSource:
    """Steps of ``step`` seconds with up to ``fps`` frames a second, as they come, and what is told between them.

    A :class:`~streamingvlm.core.events.StepSource`. It is opened when it is iterated, and opened again for ever when
    it breaks; what becomes of it comes as notices. Second 0 is the first frame, and the host's clock goes on from
    there, whether there are frames or not. ``duration``: seconds to watch from then on (None: without end).

    Iterating raises SourceError only where trying again is of no use. Each iteration opens the source anew; behind
    :meth:`close` there is nothing more.
    """

    live = True
    context = ""

    def __init__(self, hub: LiveHub, *, fps: float = 2.0, step: float = 1.0, duration: float | None = None) -> None:
        if not (math.isfinite(fps) and fps > 0 and math.isfinite(step) and step * fps >= 1 - 1e-9) or not (
            duration is None or duration > 0
        ):
            raise OptionError(f"a step needs at least one frame: {fps=:g}, {step=:g}, {duration=}")
        self.hub, self.name, self.kind = hub, hub.name, hub.source.kind
        self.fps, self.step, self.duration = fps, step, duration
        self._running: list[Assembler] = []
        self._closed = False

    def __iter__(self) -> Iterator[StepInput | Notice]:
        if self._closed:
            return
        steps = Assembler(self.fps, self.step, self.duration, self.hub.options)
        self._running.append(steps)
        try:
            self.hub.join(steps)
            while not self._closed and (item := steps.take()) is not None:
                yield item
        finally:
            self._running.remove(steps)
            steps.close()
            self.hub.leave(steps)

    def close(self) -> None:
        """Nothing is wanted any more: whoever iterates is let go. Returns at once, whatever FFmpeg is doing."""
        self._closed = True
        for steps in list(self._running):
            steps.close()
            self.hub.leave(steps)


class LiveHub(Hub):
    """A live source that is decoded once for all who subscribe.

    ``locator``: ``rtsp://``, ``http://`` and so on, ``camera:0``, ``screen:``, ``lavfi:GRAPH`` or ``-``. ``options``:
    FFmpeg's, ``transport`` (tcp, udp, auto) for RTSP, and ``kind``: what is shown, for a checkpoint that knows only
    some kinds of video. ``user`` and ``password``: plain, where they do not stand in the URL. ``live``: how patient it
    is. ``name``: the locator without any password.

    Raises SourceError if the locator cannot be understood, never because the source is down.
    """

    def __init__(
        self,
        locator: str,
        *,
        options: Mapping[str, str] | None = None,
        user: str | None = None,
        password: str | None = None,
        video_stream: int | None = None,
        live: LiveOptions = DEFAULTS,
    ) -> None:
        source = input_of(locator, options=options, user=user, password=password, live=live)
        super().__init__(source, video_stream=video_stream, options=live)
        self.name = source.name

    def subscribe(self, *, fps: float = 2.0, step: float = 1.0, duration: float | None = None) -> LiveSource:
        """The same video for one more stream, whose second 0 is the first frame that it gets."""
        return LiveSource(self, fps=fps, step=step, duration=duration)


def open_live(
    locator: str,
    *,
    fps: float,
    step: float,
    start: float,
    duration: float | None,
    video_stream: int | None,
    options: Mapping[str, str] | None = None,
    user: str | None = None,
    password: str | None = None,
) -> LiveSource:
    """A live source with a hub of its own; see :func:`streamingvlm.sources.open.open_source`."""
    hub = LiveHub(locator, options=options, user=user, password=password, video_stream=video_stream)
    if start:
        raise SourceError(f"{hub.name} is live: it can only be watched from now on, not from {start:g} s on")
    return hub.subscribe(fps=fps, step=step, duration=duration)


def share(source: Source | StepSource, count: int) -> list[LiveSource]:
    """``count`` sources, the first of which is ``source``, that are decoded once. SourceError if it is not live."""
    if not isinstance(source, LiveSource):
        raise SourceError(f"{source.name} is not a live source; open it once for each stream")
    if count < 1:
        raise OptionError(f"a source is shared by at least one stream, not {count}")
    rest = [source.hub.subscribe(fps=source.fps, step=source.step, duration=source.duration) for _ in range(count - 1)]
    return [source, *rest]
