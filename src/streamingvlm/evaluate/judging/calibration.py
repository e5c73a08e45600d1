"""Whether a judge can be trusted: pairs whose answer is known, made of the reference texts themselves.

In every pair, a is a reference text as it is. A judge that fails here says nothing about commentary; one that passes
may still be wrong about finer differences: the pairs are easy on purpose. Texts are changed by fixed rules, so that the
same data give the same pairs and a judge that was calibrated once is not paid again.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import SourceError
from ...sinks.files import write_whole
from ..benchmark import CommentaryBenchmark, Window
from ..runs import digest
from .judge import Judge, Plan
from .prompts import CUT, shown
from .votes import Pair, Vote
from .votes_file import Place

#: Raised whenever pairs or thresholds change: a judge that passed another version has to pass again.
VERSION = 1
#: The file that verdicts on judges are kept in, beside the votes.
STORED = "calibration.json"
#: Pairs of each kind.
PAIRS = 20
#: Words of a piece when a text is shuffled: each piece still reads well, the course of events is lost.
PIECE = 6
#: Words of a line when a text is set in lines.
LINE = 10
#: Share of calls that may end without a vote.
MOST_ERRORS = 0.05


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of pairs. ``least``: the smallest share of them, percent, that a judge has to get right, and ``why``.

    ``even``: right is a tie in both orders, or one vote for either; otherwise what counts is votes for a, ties half.
    """

    name: str
    what: str
    least: float
    why: str
    even: bool = False


#: What has to be passed. A judge that always names the first text gets 50 in every kind that is not even.
KINDS = (
    Kind("other", "reference of another game", 95.0, "nothing of it is right: whoever errs here does not read"),
    Kind("shuffled", "itself, pieces of 6 words shuffled", 80.0, "same words and length, only the order tells"),
    Kind("doubled", "itself, said twice", 80.0, "nothing is added: whoever likes length alone takes it"),
    Kind("numbers", "itself with other numbers", 80.0, "in sport these are the scores; one wrong word of many"),
    Kind("empty", "an empty text", 100.0, "never sent: decided by rule"),
    Kind("same", "itself, set in lines", 80.0, "no difference: neither may win both times", even=True),
)

_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    *("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
)
#: "one" is more often a pronoun; "second" and "2nd" are ordinals: they stay.
_WORDS = "|".join(sorted(set(_NUMBERS) - {"one"}, key=len, reverse=True))
_NUMBER = re.compile(rf"(?<!\w)(?:\d+|{_WORDS})(?!\w)", re.IGNORECASE)


def calibration_pairs(windows: Sequence[Window], pairs: int = PAIRS) -> list[Pair]:
    """Up to ``pairs`` pairs of each kind, of windows spread evenly over the data; the kind is the pair's group."""
    usable = [window for window in windows if len(shown(window.reference).split()) >= 2 * PIECE]
    found = []
    for kind in KINDS:
        made = []
        for place, window in enumerate(usable):
            if (other := _changed(kind.name, window, place, usable)) is not None:
                made.append(_pair(kind.name, window, other))
        step = max(1.0, len(made) / pairs)
        found += [made[int(number * step)] for number in range(min(pairs, len(made)))]
    return found


def assess(votes: Sequence[Vote]) -> dict[str, Any]:
    """What a judge made of :func:`calibration_pairs`: ``passed``, ``kinds`` and what the failures are, in ``failed``.

    A kind without any pair (texts without numbers, data of one game) is not tested, and says so.
    """
    by_kind: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_kind[vote.group].append(vote)
    kinds = {kind.name: _assess_kind(kind, by_kind[kind.name]) for kind in KINDS}
    failed = [name for name, found in kinds.items() if found["tested"] and not found["passed"]]
    asked = [vote for vote in votes if not vote.empty]
    errors = sum(vote.choice is None for vote in asked) / len(asked) if asked else 1.0
    if errors > MOST_ERRORS:
        failed.append("errors")
    return {
        "version": VERSION,
        "passed": bool(asked) and not failed,
        "failed": failed,
        "errors": 100 * errors,
        "most_errors": 100 * MOST_ERRORS,
        "kinds": kinds,
    }


def table(found: Mapping[str, Any]) -> str:
    """What :func:`assess` found, for people."""
    lines = [f"{'a reference against':36} {'right':>6} {'least':>6} {'n':>5}"]
    for kind in KINDS:
        row = found["kinds"][kind.name]
        right = "-" if row["right"] is None else f"{row['right']:.1f}"
        verdict = "" if row["passed"] else "  FAILED" if row["tested"] else "  not tested: the data have no such pair"
        lines.append(f"{kind.what:36} {right:>6} {kind.least:6.1f} {row['n']:5}{verdict}")
    if "errors" in found["failed"]:
        lines.append(f"{found['errors']:.1f} % of calls gave no vote, at most {found['most_errors']:.1f} %  FAILED")
    return "\n".join(lines)


def _assess_kind(kind: Kind, votes: Sequence[Vote]) -> dict[str, Any]:
    rights = _evenness(votes) if kind.even else [
        {"a": 1.0, "tie": 0.5, "b": 0.0}[vote.choice] for vote in votes if vote.choice is not None
    ]  # fmt: skip
    right = 100 * sum(rights) / len(rights) if rights else None
    passed = right is not None and right >= kind.least
    return {"right": right, "least": kind.least, "n": len(rights), "tested": bool(votes), "passed": passed}


def _evenness(votes: Sequence[Vote]) -> list[float]:
    pairs: dict[tuple[str, int], list[str]] = defaultdict(list)
    for vote in votes:
        if vote.choice is not None:
            pairs[vote.window, vote.repeat].append(vote.choice)
    return [float(sorted(pair) in (["a", "b"], ["tie", "tie"])) for pair in pairs.values() if len(pair) == 2]


def _pair(kind: str, window: Window, other: str) -> Pair:
    name = f"{kind}:{window.id}"
    text = shown(window.reference)
    return Pair(name, window.video, kind, window.title, window.start, window.end, text, text, other)


def _changed(kind: str, window: Window, place: int, windows: Sequence[Window]) -> str | None:
    """What stands against a reference; None where this window gives no such pair."""
    text = shown(window.reference)
    words = text.split()
    match kind:
        case "other":
            turned = [*windows[place + 1 :], *windows[:place]]
            return next((shown(one.reference) for one in turned if one.game != window.game), None)
        case "shuffled":
            return _shuffled(words, window.id)
        case "doubled":
            twice = f"{text}\n{text}"
            return twice if len(twice) <= CUT else None  # a judge would not see all of it
        case "numbers":
            changed = _NUMBER.sub(_other_number, text)
            return changed if changed != text else None
        case "empty":
            return ""
        case "same":
            lines = [" ".join(words[at : at + LINE]) for at in range(0, len(words), LINE)]
            return "\n".join(lines) if "\n".join(lines) != text else " ".join(words)
    raise AssertionError(kind)


def _shuffled(words: Sequence[str], seed: str) -> str | None:
    pieces = [" ".join(words[at : at + PIECE]) for at in range(0, len(words), PIECE)]
    if len(set(pieces)) < 2:
        return None
    mixed, draw = list(pieces), random.Random(seed)
    while mixed == pieces:
        draw.shuffle(mixed)
    return " ".join(mixed)


def _other_number(found: re.Match[str]) -> str:
    """A number that is certainly another one, of the same kind of word."""
    word = found[0]
    if word.isdecimal():
        return str(int(word) + 3)
    place = _NUMBERS.index(word.lower())
    other = _NUMBERS[(place + 3) % len(_NUMBERS)]
    return other.capitalize() if word[0].isupper() else other


class Calibration:
    """The calibration of a judge with the texts of a benchmark.

    The verdict is kept in :data:`STORED` of ``folder``, where the votes are; the same judge, prompt and parameters are
    not calibrated twice there.
    """

    def __init__(self, judge: Judge, benchmark: CommentaryBenchmark, folder: Path) -> None:
        # Once, whatever the repeats of the votes.
        self.judge = Judge(
            judge.chat, judge.prompt, judge.parameters, judge.cache, workers=judge.workers, reasks=judge.reasks
        )
        self.folder = folder
        self.pairs = calibration_pairs(benchmark.windows, PAIRS)
        self.about = {
            "task": f"calibration/{VERSION} of {benchmark.name}",
            "revision": benchmark.revision,
            "a": {"name": "reference"},
            "b": {"name": "changed reference"},
        }

    @property
    def votes_path(self) -> Path:
        """Where the votes on the pairs are kept."""
        names = [pair.window for pair in self.pairs]
        return self.folder / f"calibration-{digest([self.judge.identity, self.about, names])}.jsonl"

    @property
    def stored(self) -> dict[str, Any] | None:
        """The verdict that is kept (None: there is none of this judge and version)."""
        found = _stored(self.folder).get(digest(self.judge.identity))
        return found if isinstance(found, dict) and found.get("version") == VERSION else None

    def plan(self) -> Plan:
        """What it would cost."""
        return self.judge.plan([] if self.stored else self.pairs, self.votes_path)

    def run(self, done: Callable[[float], None] | None = None) -> dict[str, Any]:
        """The verdict: as :func:`assess`, with what it is of. That of a judge whose calls failed is not kept."""
        if (known := self.stored) is not None:
            return known
        if not self.pairs:
            raise SourceError(
                f"the data have no window of {2 * PIECE} words or more: no judge can be calibrated on them"
            )
        places = [Place(pair.window, pair.video, pair.group, pair.start, pair.end) for pair in self.pairs]
        judged = self.judge.run(self.votes_path, self.pairs, places, self.about, done)
        verdict = {**assess(judged.votes), **self.about, "judge": self.judge.identity, "votes": self.votes_path.name}
        if verdict["passed"] or judged.judged == judged.expected:
            whole = {**_stored(self.folder), digest(self.judge.identity): verdict}
            write_whole(self.folder / STORED, json.dumps(whole, indent=2) + "\n")
        return verdict


def _stored(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / STORED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder / STORED} cannot be read ({error}); remove it to calibrate anew") from None
    return found if isinstance(found, dict) else {}
