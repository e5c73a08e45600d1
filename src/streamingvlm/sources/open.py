"""Where video comes from: one table from a locator's scheme to what opens it.

To add a source, write an iterable of :class:`~streamingvlm.core.events.Chunk` (see
:class:`~streamingvlm.core.events.Source`) and one line in :data:`SCHEMES`.
"""

from __future__ import annotations

from typing import Protocol
from urllib.parse import unquote, urlsplit

from ..core.errors import SourceError
from ..core.events import Source


class Opener(Protocol):
    """Opens a locator at a rate: ``fps`` frames a second in chunks of ``step`` seconds, from ``start`` on.

    ``video_stream``: which of several video streams of a file, from 0 (None: the source's own choice).
    """

    def __call__(
        self,
        locator: str,
        *,
        fps: float,
        step: float,
        start: float,
        duration: float | None,
        video_stream: int | None,
    ) -> Source: ...


def _arcade(
    locator: str, *, fps: float, step: float, start: float, duration: float | None, video_stream: int | None
) -> Source:
    from arcade_streams.worlds.source import ArcadeSource, parse_locator

    if video_stream is not None:
        raise SourceError(f"{locator} is a game, which has no video streams to choose from")
    game, seed = parse_locator(locator)
    return ArcadeSource(game, seed, fps=fps, step=step, start=start, duration=duration)


def _file(
    locator: str, *, fps: float, step: float, start: float, duration: float | None, video_stream: int | None
) -> Source:
    from .file import FileSource

    path = unquote(urlsplit(locator).path) if locator.startswith("file://") else locator
    return FileSource(path, fps=fps, step=step, start=start, duration=duration, video_stream=video_stream)


#: Scheme -> what opens it. A locator without a scheme is a path.
SCHEMES: dict[str, Opener] = {"arcade": _arcade, "file": _file}


def open_source(
    locator: str,
    *,
    fps: float = 2.0,
    step: float = 1.0,
    start: float = 0.0,
    duration: float | None = None,
    video_stream: int | None = None,
) -> Source:
    """Open ``arcade:GAME?seed=N`` or a video file. Times in seconds.

    ``video_stream``: which of a file's video streams, from 0 (None: the film, not a cover or thumbnail beside it).
    Raises SourceError.
    """
    scheme, colon, rest = locator.partition(":")
    opener = SCHEMES.get(scheme) if colon else None
    if opener is None:
        if rest.startswith("//"):
            raise SourceError(f"unknown kind of source {scheme}: (known: {', '.join(SCHEMES)}, or a path)")
        opener = _file
    return opener(locator, fps=fps, step=step, start=start, duration=duration, video_stream=video_stream)
