"""From a benchmark and what two contestants said of it to the pairs that are judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.errors import SourceError
from ..benchmark import CommentaryBenchmark, Window
from ..runs import Contestant, digest
from .votes import Pair
from .votes_file import Place

#: How many missing windows an error names.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Match:
    """Two contestants on one benchmark.

    ``pairs``: what is judged; ``places``: all windows of the data, also those that a contestant says nothing of;
    ``about``: ``task``, ``revision``, ``a`` and ``b``, as votes keep them.
    """

    pairs: Sequence[Pair]
    places: Sequence[Place]
    about: Mapping[str, Any]


def make_match(benchmark: CommentaryBenchmark, a: Contestant, b: Contestant, *, allow_missing: bool = False) -> Match:
    """The pairs of two contestants.

    SourceError for a contestant that is of another task or of other data, and for one that says nothing of a window
    (not even that there are no words), unless ``allow_missing``: the window is then left out, and counts as not judged.
    """
    windows = benchmark.windows
    if not windows:
        raise SourceError(f"{benchmark.name}: the data have no window to be judged")
    texts: dict[str, Mapping[str, str]] = {}
    for letter, one in (("a", a), ("b", b)):
        _check_same_data(benchmark, letter, one)
        texts[letter] = benchmark.texts(one.predictions)
        if not allow_missing:
            _check_whole(windows, letter, one, texts[letter])
    shared = [window for window in windows if window.id in texts["a"] and window.id in texts["b"]]
    if not shared:
        raise SourceError(f"{a.path} and {b.path} have no window in common")
    about: dict[str, Any] = {"task": benchmark.name, "revision": benchmark.revision}
    for letter, one in (("a", a), ("b", b)):
        said = {window.id: texts[letter].get(window.id) for window in windows}
        about[letter] = {"name": one.name, "digest": digest(said, 16)}
    pairs = [_pair(window, texts["a"][window.id], texts["b"][window.id]) for window in shared]
    return Match(pairs, places_of(windows), about)


def places_of(windows: Sequence[Window]) -> list[Place]:
    """Where windows lie."""
    return [Place(one.id, one.video, one.group, one.start, one.end) for one in windows]


def _check_same_data(benchmark: CommentaryBenchmark, letter: str, one: Contestant) -> None:
    for name, here in (("task", benchmark.name), ("revision", benchmark.revision)):
        there = one.about.get(name)
        if there is not None and there != here:
            raise SourceError(f"{letter} ({one.path}) is a run of {name} {there}, not of {here}")


def _check_whole(windows: Sequence[Window], letter: str, one: Contestant, texts: Mapping[str, str]) -> None:
    missing = [window.id for window in windows if window.id not in texts]
    if missing:
        more = ", ..." if len(missing) > NAMED else ""
        raise SourceError(
            f"{letter} ({one.path}) has nothing for {len(missing)} of {len(windows)} windows: "
            f"{', '.join(missing[:NAMED])}{more}; --allow-missing leaves them out, and counts them as not judged"
        )


def _pair(window: Window, a: str, b: str) -> Pair:
    place = (window.id, window.video, window.group, window.title, window.start, window.end)
    return Pair(*place, window.reference, a, b)
