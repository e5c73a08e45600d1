"""Figures of commentary that need no judge: pace, silence, lag, repetition, and names and numbers from nowhere.

Two views. That of **windows** is made of their texts, so every contestant has it; the human reference stands beside it.
That of **streams** is made of the records of single steps (:mod:`streamingvlm.evaluate.record`), where there are any:
it has silence and lag too. Both are also told by fifths of a game: of windows by where their middle lies, of steps
likewise. Where each game has a single window, windows have no fifths.

- ``words_per_second``: words between spaces, of all seconds together.
- ``silent_share``: share of the seconds whose step has no words.
- ``lag_p50``, ``lag_p95``: seconds, of all steps.
- ``repeated_lines``: share of lines that were said before in the same game, of a fifth in the same fifth (windows: of
  sentences, in the same window), by their words in lower case.
- ``distinct_1`` to ``distinct_4``: different n-grams as a share of all, the mean over games (windows: over windows). It
  falls with the length of a text: compare texts of the same length.
- ``longest_repeat``: words of the longest sequence that a game (window) has twice.

Names and numbers are those of :mod:`.mentions`; they stand apart, since they tell of truth and not of pace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...sinks.files import printable
from ..benchmark import CommentaryBenchmark, Game, Window
from ..record import Record, Row
from .mentions import Mentions, mentions, unsupported
from .repetition import distinct, longest_repeat, repeated_lines, sentences_of, words_of

FIFTHS = 5
N_GRAMS = range(1, 5)
#: Unsupported names and numbers that are listed, most frequent first.
LISTED = 10


@dataclass(frozen=True, slots=True)
class Stretch:
    """What was counted of a window, or of a game or a fifth of it.

    ``repeats``: repeated lines, and all; ``distinct``: by n, in the order of :data:`N_GRAMS`; ``longest``: repeat;
    ``work``: seconds that a local model worked for it (None: not told).
    """

    seconds: float
    words: int
    repeats: tuple[int, int]
    distinct: tuple[float | None, ...]
    longest: int
    silent: float = 0.0
    lags: Sequence[float] = ()
    work: float | None = None

    @staticmethod
    def of(
        seconds: float,
        lines: Sequence[str],
        silent: float = 0.0,
        lags: Sequence[float] = (),
        work: float | None = None,
    ) -> Stretch:
        """Count what was said in so many seconds. ``lines``: what was said at one time each."""
        words = words_of(" ".join(lines))
        return Stretch(
            seconds,
            sum(len(line.split()) for line in lines),
            repeated_lines(lines),
            tuple(distinct(words, n) for n in N_GRAMS),
            longest_repeat(words),
            silent,
            lags,
            work,
        )


def figures(benchmark: CommentaryBenchmark, texts: Mapping[str, str], streams: Path | None = None) -> dict[str, Any]:
    """All figures of one contestant, as a tree that is JSON.

    ``texts``: window id -> text, as the benchmark reads them; ``streams``: the folder of records by game (None: there
    are none); a game without a record is not found. A figure without a case is None.
    """
    known = [window for window in benchmark.windows if window.id in texts]
    said = [(window, texts[window.id]) for window in known]
    return {
        "windows": {
            "expected": len(benchmark.windows),
            "found": len(known),
            "empty": sum(not text.strip() for _, text in said),
            **_of_windows(benchmark.games, said),
        },
        "reference": _of_windows(benchmark.games, [(window, window.reference) for window in known]),
        "streams": None if streams is None else _of_streams(benchmark.games, streams),
        "mentions": _of_mentions([(window, text) for window, text in said if text.strip()]),
    }


def report(tree: Mapping[str, Any]) -> str:
    """The figures as a person reads them."""
    windows, streams = tree["windows"], tree["streams"]
    lines = [
        f"windows: {windows['found']} of {windows['expected']}, {windows['empty']} without words",
        *_table("windows", windows),
        *_table("human words", tree["reference"]),
    ]
    if streams is not None:
        lines += [f"streams: {streams['found']} of {streams['expected']}", *_table("streams", streams)]
    lines.append("said in a window and neither in its human words nor in its title:")
    for kind, one in tree["mentions"].items():
        share, where = _shown(one["share"]), _shown(one["share_of_windows"])
        lines.append(f"  {kind}: {one['unsupported']} of {one['said']} ({share}), in {where} of the windows")
        if one["most_frequent"]:
            listed = ", ".join(f"{name} {count}" for name, count in one["most_frequent"])
            lines.append(f"    {printable(listed)}")
    return "\n".join(lines)


def _of_windows(games: Sequence[Game], said: Sequence[tuple[Window, str]]) -> dict[str, Any]:
    spans = {game.name: (game.start, game.end) for game in games}
    many = max(Counter(window.game for window, _ in said).values(), default=0) > 1

    fifths: list[list[Stretch]] = [[] for _ in range(FIFTHS)]
    for window, text in said:
        start, end = spans[window.game]
        place = _fifth((window.start + window.end) / 2 - start, end - start)
        fifths[place].append(Stretch.of(window.end - window.start, sentences_of(text)))
    whole = _measure([one for part in fifths for one in part])
    return {"all": whole, "fifths": [_measure(part) for part in fifths] if many else None}


def _of_streams(games: Sequence[Game], streams: Path) -> dict[str, Any]:
    """Steps of all games. The clock of a record may be its stream's or its video's: its first step is the start."""
    whole: list[Stretch] = []
    fifths: list[list[Stretch]] = [[] for _ in range(FIFTHS)]
    for game in games:
        record = Record.read(streams / f"{game.name}.jsonl")
        if record is None or not (rows := record.rows):
            continue
        whole.append(_stretch(rows))
        begin, length = float(rows[0]["start"]), game.end - game.start

        parts: list[list[Row]] = [[] for _ in range(FIFTHS)]
        for row in rows:
            parts[_fifth((row["start"] + row["end"]) / 2 - begin, length)].append(row)
        for fifth, part in zip(fifths, parts, strict=True):
            fifth += [_stretch(part)] if part else []
    about = {"expected": len(games), "found": len(whole)}
    return {**about, "all": _measure(whole, steps=True), "fifths": [_measure(part, steps=True) for part in fifths]}


def _stretch(rows: Sequence[Row]) -> Stretch:
    silent = sum(float(row["end"] - row["start"]) for row in rows if not row["text"].strip())
    lags = [float(row["lag"]) for row in rows if "lag" in row]
    seconds = sum(float(row["end"] - row["start"]) for row in rows)
    told = [float(row["work"]) for row in rows if "work" in row]
    work = sum(told) if len(told) == len(rows) else None
    return Stretch.of(seconds, [row["text"] for row in rows if row["text"].strip()], silent, lags, work)


def _measure(stretches: Sequence[Stretch], *, steps: bool = False) -> dict[str, Any]:
    """Figures of some texts; ``steps``: with those that only single steps have."""
    seconds = sum(one.seconds for one in stretches)
    count = sum(one.words for one in stretches)
    out: dict[str, Any] = {"seconds": round(seconds, 3), "words": count, "words_per_second": _ratio(count, seconds)}
    if steps:
        lags = [lag for one in stretches for lag in one.lags]
        out["silent_share"] = _ratio(sum(one.silent for one in stretches), seconds)
        works = [one.work for one in stretches if one.work is not None]
        out["work_per_second"] = _ratio(sum(works), seconds) if works and len(works) == len(stretches) else None
        for percent in (50, 95):
            out[f"lag_p{percent}"] = float(np.percentile(lags, percent)) if lags else None
    again, lines = (sum(one.repeats[which] for one in stretches) for which in (0, 1))
    out["repeated_lines"] = _ratio(again, lines)
    for place, n in enumerate(N_GRAMS):
        shares = [share for one in stretches if (share := one.distinct[place]) is not None]
        out[f"distinct_{n}"] = _ratio(sum(shares), len(shares))
    out["longest_repeat"] = max((one.longest for one in stretches), default=None)
    return out


def _of_mentions(said: Sequence[tuple[Window, str]]) -> dict[str, Any]:
    found = [mentions(text) for _, text in said]
    bare = [unsupported(one, window.reference, window.title) for (window, _), one in zip(said, found, strict=True)]
    return {
        "names": _supported(found, bare, lambda one: one.names),
        "numbers": _supported(found, bare, lambda one: one.numbers),
    }


def _supported(
    found: Sequence[Mentions], bare: Sequence[Mentions], kind: Callable[[Mentions], Sequence[str]]
) -> dict[str, Any]:
    total = sum(len(kind(one)) for one in found)
    counts = Counter(name for one in bare for name in kind(one))
    windows = sum(bool(kind(one)) for one in bare)
    return {
        "said": total,
        "unsupported": counts.total(),
        "share": _ratio(counts.total(), total),
        "windows": len(found),
        "windows_with_unsupported": windows,
        "share_of_windows": _ratio(windows, len(found)),
        "most_frequent": [
            [name, counts[name]] for name in sorted(counts, key=lambda one: (-counts[one], one))[:LISTED]
        ],
    }


def _fifth(at: float, length: float) -> int:
    """In which fifth of ``length`` seconds a moment lies, from 0; what lies outside is of the first or the last."""
    return min(max(int(FIFTHS * at / length), 0), FIFTHS - 1) if length > 0 else 0


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _table(title: str, view: Mapping[str, Any]) -> list[str]:
    columns = [view["all"], *(view["fifths"] or ())]
    heads = ["all", *(f"fifth {number}" for number in range(1, len(columns)))]
    rows = [[key, *(_shown(column[key]) for column in columns)] for key in view["all"]]
    return [
        "  ".join([f"  {cells[0]:16}", *(f"{cell:>8}" for cell in cells[1:])]) for cells in [[title, *heads], *rows]
    ]


def _shown(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
