"""Cues: what subtitles show, and when. In order, never overlapping, short enough to read."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..core.events import Alert, Commentary, Event, Gap
from .text import printable

#: What stays readable: two lines of 42 columns (a Han letter has two), at most six seconds, a new cue after a second of
#: silence.
LINE, LINES, LONGEST, SILENCE = 42, 2, 6.0, 1.0
#: A sentence ends a cue only if the cue has been there for this long (seconds), else it would flicker.
SHORTEST = 1.0
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
#: Seconds that an alert is shown when nothing follows.
ALERT_SECONDS = 2.0
#: Two times closer than this (seconds) are the same: they were added up as floats.
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Cue:
    """Words shown from ``start`` to ``end`` seconds, at most two lines (joined by a line feed)."""

    start: float
    end: float
    text: str


class CueMerger:
    """Joins the words of consecutive steps into cues.

    A hole in the video is one cue over its whole time. An alert stands in brackets before the words of the step that
    follows, since cues do not overlap. ``last``: seconds; nothing begins before.
    """

    def __init__(self, last: float = 0.0) -> None:
        self._words: list[str] = []
        self._alerts: list[str] = []
        self._start = self._end = self._last = last

    def add(self, event: Event) -> Iterator[Cue]:
        """The cues that are complete now that ``event`` is known."""
        match event:
            case Commentary():
                yield from self._say(event)
            case Gap():
                yield from self._close()
                yield from self._hole(event)
            case Alert(rule=rule, kind="raised" | "cleared" as kind):
                self._alerts += f"[{printable(rule)}: {'begins' if kind == 'raised' else 'ends'}]".split()

    def close(self) -> Iterator[Cue]:
        """What is still open at the end."""
        yield from self._close()
        words, self._alerts = self._alerts, []
        yield from self._pages(words, self._last, self._last + ALERT_SECONDS)

    def _say(self, event: Commentary) -> Iterator[Cue]:
        words = [*self._alerts, *printable(event.text).split()]
        self._alerts = []
        begin = event.start if words else event.end
        fits = len(wrap([*self._words, *words])) <= LINES and event.end - self._start <= LONGEST + EPS
        if self._words and (begin - self._end > SILENCE + EPS or (words and not fits)):
            yield from self._close()
        if not words:
            return
        if self._words:
            self._words += words
        else:
            self._words, self._start = words, max(event.start, self._last)
        self._end = event.end
        if words[-1].rstrip("\"')»”").endswith(SENTENCE_ENDS) and self._end - self._start >= SHORTEST - EPS:
            yield from self._close()

    def _hole(self, gap: Gap) -> Iterator[Cue]:
        start = max(gap.start, self._last)
        if gap.end > start:
            words = [*self._alerts, *hole_text(gap.reason).split()]
            self._alerts = []
            yield from self._pages(words, start, gap.end)

    def _close(self) -> Iterator[Cue]:
        """The open cue, if any; as several, each with its share of the time, if its words are too many for one."""
        words, self._words = self._words, []
        pages = -(-len(wrap(words)) // LINES)
        yield from self._pages(words, self._start, min(self._end, self._start + LONGEST * pages))

    def _pages(self, words: list[str], start: float, end: float) -> Iterator[Cue]:
        lines = wrap(words)
        pages = ["\n".join(lines[index : index + LINES]) for index in range(0, len(lines), LINES)]
        left = sum(map(len, pages))
        if pages:
            self._last = max(end, self._last)
        for page in pages:
            stop = start + (end - start) * len(page) / left
            left -= len(page)
            if stop > start:
                yield Cue(start, stop, page)
            start = stop


def hole_text(reason: str) -> str:
    """What is shown where nothing was seen: ``[no video: timeout]``."""
    why = printable(reason)
    return f"[no video: {why}]" if why else "[no video]"


def columns(text: str) -> int:
    """How wide ``text`` is where all letters are of one width, or of two, as Han letters are."""
    return sum(_COLUMNS.get(unicodedata.east_asian_width(one), 1) for one in text if not _is_mark(one))


def wrap(
    words: Sequence[str],
    limit: float = LINE,
    width: Callable[[str], float] = columns,
    lines: Sequence[str] = (),
) -> list[str]:
    """The lines of words, none wider than ``limit``; they go on behind ``lines``.

    A word that is wider, or of a script that is written without spaces, is broken anywhere.
    """
    *done, line = lines or [""]
    for word in words:
        longer = f"{line} {word}" if line else word
        if width(longer) <= limit:
            line = longer
            continue
        parts = _letters(word) if width(word) > limit or any(map(_is_wide, word)) else [word]
        gap = " " if line else ""
        for part in parts:
            if line and width(line + gap + part) > limit:
                done, line, gap = [*done, line], part, ""
            else:
                line, gap = line + gap + part, ""
    return [*done, line] if line else done


_COLUMNS = {"W": 2, "F": 2}


def _is_wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in _COLUMNS


def _is_mark(letter: str) -> bool:
    """Whether it stands over or under the one before, or cannot be seen."""
    return unicodedata.category(letter) in ("Mn", "Me", "Cf")


def _letters(word: str) -> list[str]:
    """Letters, each with its marks."""
    parts: list[str] = []
    for one in word:
        if parts and unicodedata.category(one).startswith("M"):
            parts[-1] += one
        else:
            parts.append(one)
    return parts
