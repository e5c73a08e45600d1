"""From counts to figures. Counts of clips are added before any ratio is taken, so counts are what is kept of a clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from streamingvlm import StreamingVLMError

from ..worlds.game import Game
from ..worlds.language import COMMON

Key = tuple[str, ...]

VISION_WINDOW = 16
"""Seconds. A tally restated after a longer gap cannot be read off anything but earlier words."""
RARE = 240
"""Seconds. A name or town last said longer ago than this is in no text window, only in the context."""
PARTS = ("minutes_0_2", "minutes_8_10", "minutes_0_10", "last_30_minutes")
"""Parts of a clip that are scored by themselves, where it is long enough to have them."""


class ScoreError(StreamingVLMError):
    """A file to be scored is neither a clip's truth nor a commentary."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted of some clips of one game: of the words, and of the truth shifted in time (``chance``)."""

    game: Game
    words: Counter[Key]
    chance: Counter[Key]
    longest_repeat: int
    clips: int


def pool(parts: Sequence[Counts]) -> Counts | None:
    """The counts of several clips together, None of none. ScoreError for clips of different games."""
    if not parts:
        return None
    games = list(dict.fromkeys(part.game.name for part in parts))
    if len(games) > 1:
        raise ScoreError(f"clips of {' and '.join(games)} have different kinds: score them apart")
    words: Counter[Key] = Counter()
    chance: Counter[Key] = Counter()
    for part in parts:
        words.update(part.words)
        chance.update(part.chance)
    longest = max(part.longest_repeat for part in parts)
    return Counts(parts[0].game, words, chance, longest, sum(part.clips for part in parts))


def figures(counts: Counts | None) -> dict[str, Any]:
    """All figures, as docs/arcade_streams/evaluation.md defines them. A ratio without cases is None."""
    words, chance = (counts.words, counts.chance) if counts else (Counter[Key](), Counter[Key]())
    kinds = counts.game.language.kinds if counts else ()
    return {
        **_ratios(words, kinds),
        "longest_repeat": counts.longest_repeat if counts else 0,
        "chance": _f1s(chance, kinds),
        "clips": counts.clips if counts else 0,
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _f1(counts: Counter[Key], kinds: Sequence[str], what: str, prefix: Key = ("kind",)) -> float | None:
    def total(name: str) -> int:
        return sum(counts[(*prefix, kind, name)] for kind in kinds)

    return _ratio(2 * total(what), total("n_true") + total("n_said"))


def _f1s(counts: Counter[Key], kinds: Sequence[str]) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for suffix, what in (("_strict", "strict"), ("", "near")):
        figures["micro_f1" + suffix] = _f1(counts, kinds, what)
        figures["macro_f1" + suffix] = _macro(counts, kinds, what)
    return figures


def _macro(counts: Counter[Key], kinds: Sequence[str], what: str) -> float | None:
    """The mean of the F1 of the kinds that were true or said."""
    each = [f1 for kind in kinds if (f1 := _f1(counts, [kind], what)) is not None]
    return sum(each) / len(each) if each else None


def _ratios(counts: Counter[Key], kinds: Sequence[str]) -> dict[str, Any]:
    def fact(what: str) -> float | None:
        return _ratio(counts["fact", what, "right"], counts["fact", what, "n"])

    def tally(source: str, gap: str) -> float | None:
        return _ratio(counts["tally", source, gap, "right"], counts["tally", source, gap, "n"])

    def part(name: str) -> dict[str, float | None]:
        return {
            label: _f1(counts, kinds, what, ("part", name))
            for label, what in (("micro_f1_strict", "strict"), ("micro_f1", "near"))
        }

    figures: dict[str, Any] = dict(_f1s(counts, kinds))
    figures["play"] = _macro(counts, [kind for kind in kinds if kind not in COMMON], "strict")
    figures["by_kind"] = {kind: _kind(counts, kind) for kind in kinds if _seen(counts, kind)}
    figures |= {what: fact(what) for what in ("colours", "zones", "score", "names", "tally", "streak")}
    figures["names_said"] = fact("names said")
    figures["names_by_gap"] = {f"<={RARE}s": fact("names near"), f">{RARE}s": fact("names far")}
    window = f"{VISION_WINDOW}s"
    figures["tally_steps"] = {
        "<=" + window: tally("true", "short"), ">" + window: tally("true", "long"), "all": tally("true", "all"),
    }  # fmt: skip
    figures["tally_self_consistent"] = tally("self", "all")
    figures["repetition"] = _ratio(counts["repeat", "again"], counts["repeat", "n"])
    figures["silence_precision"] = _ratio(counts["silence", "right"], counts["silence", "n"])
    figures["fifths"] = [part(f"fifth {i}") for i in range(5)]
    figures |= {name: part(name) for name in PARTS}
    figures["counts"] = {
        "seconds": counts["seconds",],
        "events_true": sum(counts["kind", kind, "n_true"] for kind in kinds),
        "events_said": sum(counts["kind", kind, "n_said"] for kind in kinds),
        "names": counts["fact", "names", "n"],
        "names_said": counts["fact", "names said", "n"],
        "tally_steps": counts["tally", "true", "all", "n"],
    }
    return figures


def _seen(counts: Counter[Key], kind: str) -> bool:
    return bool(counts["kind", kind, "n_true"] or counts["kind", kind, "n_said"])


def _kind(counts: Counter[Key], kind: str) -> dict[str, float | int | None]:
    n_true, n_said, near = (counts["kind", kind, what] for what in ("n_true", "n_said", "near"))
    return {
        "strict": _f1(counts, [kind], "strict"),
        "within_1s": _f1(counts, [kind], "near"),
        "n_true": n_true,
        "n_said": n_said,
        "precision": _ratio(near, n_said),
        "recall": _ratio(near, n_true),
    }
