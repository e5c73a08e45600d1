"""Pairs of texts that are judged, and votes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

#: The order in which the two texts were shown.
Order = Literal["ab", "ba"]
#: What a vote is for: a contestant (whatever place it stood in), or neither.
Choice = Literal["a", "b", "tie"]


@dataclass(frozen=True, slots=True)
class Pair:
    """What two contestants, a and b, said of one window."""

    window: str
    video: str
    group: str
    title: str
    start: float
    end: float
    reference: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Vote:
    """One call of a judge, or what stands in the place of one.

    ``choice``: None where there is none: ``error`` then says why (after the bounded re-asks). ``empty``: the
    contestants whose text is empty ("", "a", "b", "ab"): such a pair is never sent; the other one wins, or it is a tie.
    ``key``: of the cache: of prompt version, judge, parameters, texts and reference. ``call``: the request, the
    parameters really sent, the model returned, its fingerprint and usage, the raw reply, how often it was asked.
    """

    window: str
    video: str
    group: str
    start: float
    end: float
    order: Order
    repeat: int
    choice: Choice | None
    key: str
    empty: str = ""
    error: str = ""
    words_a: int = 0
    words_b: int = 0
    call: Mapping[str, Any] = field(default_factory=dict)
