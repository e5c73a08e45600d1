"""Items that ask about a whole video get their time from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ...core.errors import SourceError
from ...data.report import Unusable
from ...data.videos import Videos
from ...sources.images import ImagesSource
from ...sources.open import open_recording
from ..benchmark import Video
from .items import Item


def timed(video: Video, items: Sequence[Item]) -> Sequence[Item]:
    """Items of a video with a time each: whoever asks about all of it asks at its end. SourceError as of reading it."""
    if all(math.isfinite(item.time) for item in items):
        return items
    end = seconds_of(video)
    return [item if math.isfinite(item.time) else replace(item, time=end) for item in items]


def seconds_of(video: Video) -> float:
    """How long a video is; one that does not tell is read to its end. SourceError for one that cannot be read."""
    if video.path.is_dir():
        return ImagesSource(video.path).seconds
    try:
        told = None if video.made else Videos().header(video.path).seconds
    except Unusable as error:
        raise SourceError(str(error)) from None
    if told:
        return told
    if video.made:
        raise SourceError(f"{video.key} has no end; a question about all of it cannot be asked")
    *_, last = open_recording(str(video.path), fps=1.0)
    return last.end
