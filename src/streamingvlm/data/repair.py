"""Repair of the times of words: published transcripts have words whose times cannot be right.

Speech recognition in batches makes ends that jump back, aligners leave numbers without times, and some published words
start after they end. Such a word is repaired and counted. A transcript is refused only if the repairs lose more than
:data:`MAX_LOST_SHARE` of its words.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from ..core.grammar import LONGEST_STREAM
from .report import Reason, Unusable
from .words import EPS, LOSSES, Repair, Repairs, Word, spread

#: An end that goes back by at most this many seconds is moved up: speech recognition overlaps a little.
SLACK = 1.0
#: A transcript is refused if the repairs lose more than this share of its words: 2 %.
MAX_LOST_SHARE = 0.02


class TimedText(NamedTuple):
    """A word or a segment of several words, as it was read; ``start`` and ``end`` in seconds, None where missing."""

    start: float | None
    end: float | None
    text: str


class _Row(NamedTuple):
    """A text with one end or none (``end`` is None), what was repaired so far, and what was read."""

    start: float
    end: float | None
    read: TimedText
    repair: Repair | None

    @property
    def words(self) -> int:
        return len(self.read.text.split())


def repair(texts: Iterable[TimedText]) -> tuple[tuple[Word, ...], Repairs]:
    """Words in the order of ``texts``, with times that can be used, and what was repaired.

    Ends never go back and no start is after its end. Texts of several words are spread evenly over their time, empty
    texts are left out. A time that is not finite, below 0 or above :data:`LONGEST_STREAM` is none.

    - Start after the end: the start becomes the end.
    - One of two times missing: the word stands at the other.
    - Both missing: the words share the time from the end of the word before to the start of the word after; at the
      edges of the transcript they stand at the end or the start of their one neighbour.
    - An end at most :data:`SLACK` seconds before an earlier one is moved up to it.
    - An end further back: the word is dropped. If a few words with later ends contradict more words behind them, the
      few are dropped instead: a single end that is far too late does not cost the rest of a transcript.
    """
    texts = list(texts)
    if (good := _as_they_are(texts)) is not None:
        return good, Repairs(len(good))
    rows = [_with_times(text) for text in texts if text.text.split()]
    dropped = _out_of_order([row.end for row in rows])
    kept = [row for number, row in enumerate(rows) if number not in dropped]
    lost, why = [rows[number] for number in sorted(dropped)], Repair.OUT_OF_ORDER
    if all(row.end is None for row in kept):
        # Without a word that has a time nothing was out of order.
        kept, lost, why = [], kept, Repair.UNPLACED
    counts: Counter[Repair] = Counter()
    for row in kept:
        if row.repair is not None:
            counts[row.repair] += row.words
    words = _in_order(_placed(kept), counts)
    if lost:
        counts[why] = sum(row.words for row in lost)
    read = sum(row.words for row in rows)
    return words, Repairs(read, dict(counts), _show(lost[0].read) if lost else "")


def check_losses(repairs: Repairs) -> None:
    """:class:`Unusable`, with how many words of how many and why, if more than :data:`MAX_LOST_SHARE` are lost."""
    if repairs.lost and repairs.lost / repairs.read > MAX_LOST_SHARE:
        why = "; ".join(str(kind) for kind in repairs.counts if kind in LOSSES)
        share = f"{repairs.lost} of {repairs.read} words lost, more than {MAX_LOST_SHARE:.0%}"
        raise Unusable(Reason.TIMES, f"{share} ({why}); the first is {repairs.first_lost}")


def _as_they_are(texts: Sequence[TimedText]) -> tuple[Word, ...] | None:
    """The words, if none needs a repair: nearly all transcripts, in half the time."""
    words: list[Word] = []
    latest = 0.0
    for start, end, text in texts:
        if start is None or end is None or not 0 <= start <= end <= LONGEST_STREAM:
            return None
        for word in spread(start, end, text):
            if not word.start <= word.end >= latest:
                return None
            words.append(word)
            latest = word.end
    return tuple(words)


def _with_times(read: TimedText) -> _Row:
    start, end = (_possible(value) for value in read[:2])
    if start is None or end is None:
        one = start if end is None else end
        return _Row(0.0 if one is None else one, one, read, Repair.UNTIMED)
    return _Row(min(start, end), end, read, Repair.REVERSED if start > end + EPS else None)


def _possible(value: float | None) -> float | None:
    """A time of a stream, or None; NaN fails both comparisons."""
    return float(value) if value is not None and 0 <= value <= LONGEST_STREAM else None


def _out_of_order(ends: Sequence[float | None]) -> set[int]:
    """Numbers of the words to drop, so that no end is more than SLACK before an earlier one; None is a word without.

    Where words contradict each other, the smaller group is dropped; the later one if they are equal.
    """
    timed = [(number, end) for number, end in enumerate(ends) if end is not None]
    kept: list[int] = []
    latest: list[float] = []  # the latest end so far, for each word kept
    dropped: set[int] = set()
    at = 0
    while at < len(timed):
        number, end = timed[at]
        ahead = len(latest) - bisect_right(latest, end + SLACK + EPS)
        # The words from here on that the latest end contradicts; of more than there are ahead, the number is of no use.
        behind = 0
        while behind <= ahead and at + behind < len(timed):
            if not ahead or latest[-1] <= timed[at + behind][1] + SLACK + EPS:
                break
            behind += 1
        if behind > ahead:
            dropped.update(kept[-ahead:])
            del kept[-ahead:], latest[-ahead:]
        elif ahead:
            dropped.update(number for number, _ in timed[at : at + behind])
            at += behind
            continue
        kept.append(number)
        latest.append(max(end, latest[-1]) if latest else end)
        at += 1
    return dropped


def _placed(rows: Sequence[_Row]) -> Iterator[Word]:
    """The words of all rows; those without times between their neighbours."""
    left: float | None = None
    waiting: list[str] = []
    for timed, group in groupby(rows, key=lambda row: row.end is not None):
        if not timed:
            waiting = [row.read.text for row in group]
            continue
        for row in group:
            assert row.end is not None
            if waiting:
                first = row.start if left is None else left
                yield from spread(first, max(first, row.start), " ".join(waiting))
                waiting = []
            yield from spread(row.start, row.end, row.read.text)
            left = row.end if left is None else max(left, row.end)
    if waiting and left is not None:
        yield from spread(left, left, " ".join(waiting))


def _in_order(words: Iterable[Word], counts: Counter[Repair]) -> tuple[Word, ...]:
    """The words with ends that never go back; those that are moved up by more than rounding are counted."""
    ordered: list[Word] = []
    latest = 0.0
    for word in words:
        if word.end < latest - EPS:
            counts[Repair.CLAMPED] += 1
        latest = max(latest, word.end)
        # Evenly spread starts are sums of floats: the last bit may lie behind the end.
        ordered.append(word if word.end == latest >= word.start else Word(min(word.start, latest), latest, word.text))
    return tuple(ordered)


def _show(read: TimedText) -> str:
    times = "-".join("none" if value is None else f"{value:g}" for value in read[:2])
    return f"{read.text[:40]!r} at {times} s"
