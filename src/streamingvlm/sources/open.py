"""Where video comes from: one table from a locator's scheme to what opens it.

To add a source, write an iterable of :class:`~streamingvlm.core.events.Chunk` (see
:class:`~streamingvlm.core.events.Source`) and one line in :data:`BUILT_IN`; a live one is a line in a table of
:mod:`streamingvlm.sources.inputs`. Another package names its :class:`Opener` in an entry point of the group
``streamingvlm.sources``, whose name is the scheme.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import unquote, urlsplit

from ..core.errors import SourceError
from ..core.events import Source, StepSource
from ..core.plugins import load, registered
from .inputs import DEVICES, URLS, scheme_of
from .redact import hide_login

if TYPE_CHECKING:
    from .live import LiveSource


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


def _file(
    locator: str, *, fps: float, step: float, start: float, duration: float | None, video_stream: int | None
) -> Source:
    from .file import FileSource

    path = unquote(urlsplit(locator).path) if locator.startswith("file://") else locator
    if Path(path).is_dir():
        from .images import ImagesSource

        if video_stream is not None:
            raise SourceError(f"{path} is a folder of pictures; it has no video streams to choose from")
        return ImagesSource(path, fps=fps, step=step, start=start, duration=duration)
    return FileSource(path, fps=fps, step=step, start=start, duration=duration, video_stream=video_stream)


#: Scheme -> what opens it, of this package's own sources. A locator without a scheme is a path.
BUILT_IN: dict[str, Opener] = {"file": _file}
#: What the name of a scheme looks like (a single letter is a drive).
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+")


def open_source(
    locator: str,
    *,
    fps: float = 2.0,
    step: float = 1.0,
    start: float = 0.0,
    duration: float | None = None,
    video_stream: int | None = None,
    options: Mapping[str, str] | None = None,
    user: str | None = None,
    password: str | None = None,
) -> Source | StepSource:
    """Open a video file, a folder of pictures, a live source, or ``SCHEME:...`` of another package. Times in seconds.

    Live are ``rtsp://``, ``rtsps://``, ``http://``, ``https://``, ``rtmp://``, ``camera:0``, ``/dev/video0``,
    ``screen:``, ``lavfi:GRAPH`` and ``-`` (standard input). They take ``options``, ``user`` and ``password``: see
    :class:`~streamingvlm.sources.live.LiveHub`. ``duration`` is then how long to watch.

    ``video_stream``: which of its video streams, from 0 (None: the film, not a cover or thumbnail beside it).
    Raises SourceError.
    """
    if scheme_of(locator):
        from .live import open_live  # with FFmpeg, which sources of other packages do without

        return open_live(
            locator,
            fps=fps,
            step=step,
            start=start,
            duration=duration,
            video_stream=video_stream,
            options=options,
            user=user,
            password=password,
        )
    opener = _find_opener(locator)
    if options or user is not None or password is not None:
        given = [name for name, value in (("options", options), ("user", user), ("password", password)) if value]
        raise SourceError(f"{hide_login(locator)} takes no {' and no '.join(given or ['user'])}; live sources do")
    return opener(locator, fps=fps, step=step, start=start, duration=duration, video_stream=video_stream)


def open_recording(
    locator: str,
    *,
    fps: float = 2.0,
    step: float = 1.0,
    start: float = 0.0,
    duration: float | None = None,
    video_stream: int | None = None,
) -> Source:
    """:func:`open_source` for programs that read a video from end to end. SourceError if it is live."""
    source = open_source(locator, fps=fps, step=step, start=start, duration=duration, video_stream=video_stream)
    if scheme_of(locator):
        cast("LiveSource", source).close()
        raise SourceError(f"{source.name} is live; only a recording can be used here")
    return cast(Source, source)


def is_locator(text: str) -> bool:
    """Whether ``text`` names a kind of source that needs no file."""
    scheme, colon, _ = text.partition(":")
    if scheme_of(text):
        return True
    return bool(colon) and scheme != "file" and (scheme in BUILT_IN or scheme in registered("sources"))


def _find_opener(locator: str) -> Opener:
    scheme, colon, rest = locator.partition(":")
    if not colon or not _SCHEME.fullmatch(scheme):
        return _file
    if scheme in BUILT_IN:
        return BUILT_IN[scheme]
    others = registered("sources")
    if scheme in others:
        return load(others[scheme], SourceError)
    known = f"known: {', '.join(dict.fromkeys([*BUILT_IN, *URLS, *DEVICES, *others]))}, or a path"
    if rest.startswith("//"):
        raise SourceError(f"unknown kind of source {scheme}: ({known})")
    if not Path(locator).exists():
        raise SourceError(f"{hide_login(locator)}: no such file, and {scheme}: is no kind of source ({known})")
    return _file
