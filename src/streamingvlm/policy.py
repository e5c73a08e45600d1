"""Which pieces of a stream's timeline stay in the cache. Pure functions over spans; no tensors.

A policy is asked once per step, before the new turn is appended. To add one, write a class with the four members
of :class:`CachePolicy` and one line in :data:`POLICIES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import ceil
from typing import Any, Literal, Protocol

from .errors import PolicyError
from .spans import PREAMBLE, Kind, Piece, Role, Span

Positions = Literal["contiguous", "append"]

#: Slack for comparing times that were added up as floats, seconds.
_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Sizes:
    """Upper bounds of one stream's parts, in ids; what a policy computes its capacity from.

    ``step`` is the length of one step in seconds, ``preamble`` the system prompt and all markup before the first
    turn, ``history`` the words that are in the history block when the stream opens, ``instruction`` the budget of
    the standing instruction (and of a question), ``turn`` a turn's markup and time stamp, ``vision`` the largest
    video block of a step, ``reply`` the longest reply with its end of turn.
    """

    step: float
    preamble: int
    history: int
    instruction: int
    turn: int
    vision: int
    reply: int


class CachePolicy(Protocol):
    """What the engine needs of a policy."""

    @property
    def positions(self) -> Positions:
        """``contiguous``: survivors are numbered anew at every step; ``append``: a row keeps its first position."""
        ...

    @property
    def faithful(self) -> bool:
        """Whether the stream follows the public code bit by bit (see docs/differences.md)."""
        ...

    def plan(self, spans: Sequence[Span], now: float, step: float) -> list[Piece]:
        """What stays, in order. ``now``: when the step about to come ends; ``step``: a step's length. Seconds."""
        ...

    def capacity(self, sizes: Sizes) -> int:
        """Most rows a stream can ever hold."""
        ...

    def context_budget(self) -> int | None:
        """Most ids that a caller's context may have (None: no bound)."""
        ...

    def seconds_left(self, watched: float) -> float | None:
        """Seconds of video that still fit when ``watched`` seconds have been seen (None: there is no end)."""
        ...


@dataclass(frozen=True, slots=True)
class StreamingWindow:
    """The paper's cache: recent video, recent turns, and old words cut to a sink and a window (section 2.1).

    ``vision``: seconds of video that stay, the coming step included; ``turns``: seconds whose turns (time stamp and
    words) stay in place; ``sink`` and ``text``: how many of the first and of the last ids of the history block stay.

    With ``faithful`` the public code's rules hold bit by bit: windows count steps, the instruction goes with the
    first turn, two ids are cut from every reply that moves into the history, and the text window is one id short.
    """

    vision: float = 16.0
    turns: float = 16.0
    sink: int = 512
    text: int = 512
    positions: Positions = "contiguous"
    faithful: bool = False

    def __post_init__(self) -> None:
        if self.vision < 0 or self.turns < 0 or self.sink < 0 or self.text < 0:
            raise PolicyError("a streaming window's numbers (vision, turns, sink, text) must be 0 or more")
        if self.positions not in ("contiguous", "append"):
            raise PolicyError(f"positions must be contiguous or append, not {self.positions!r}")
        if self.faithful and (self.turns < 1 or self.vision < 1 or self.text < 1):
            raise PolicyError("the faithful rules need vision, turns and text of at least 1")

    def plan(self, spans: Sequence[Span], now: float, step: float) -> list[Piece]:
        """See :meth:`CachePolicy.plan`."""
        text_turns, vision_turns = self._kept_turns(spans, now, step)
        preamble: list[Piece] = []
        standing: list[Piece] = []
        turns: list[Piece] = []
        history: list[Piece] = []
        asked: dict[int, list[Piece]] = {}
        for index, span in enumerate(spans):
            piece = Piece.whole(index, span)
            if span.turn == PREAMBLE:
                block = history if span.kind is Kind.HISTORY else preamble
                (standing if span.role is Role.USER else block).append(piece)
            elif span.turn in text_turns:
                if span.kind is not Kind.VISION or span.turn in vision_turns:
                    turns.append(piece)
            elif span.role is Role.ASSISTANT:
                if span.kind is Kind.COMMENTARY:
                    history.append(Piece(index, 0, self._archived(span), Kind.HISTORY, Role.HISTORY))
            elif span.turn in vision_turns:
                if span.kind is not Kind.TIME:
                    turns.append(piece)
            elif span.kind in (Kind.MARKUP, Kind.QUERY):
                asked.setdefault(span.turn, []).append(Piece(index, 0, len(span), span.kind, span.role))
        if not self.faithful:
            standing = _newest_instruction(standing, asked)
        # The history's footer is the last piece of the preamble; old words go in front of it.
        return [*preamble[:-1], *self._cut(history), *preamble[-1:], *standing, *turns]

    def capacity(self, sizes: Sizes) -> int:
        """See :meth:`CachePolicy.capacity`."""
        text_turns, vision_turns = self._most_turns(sizes.step)
        history = max(self.sink + self.text, sizes.history)
        return (
            sizes.preamble
            + history
            + 2 * sizes.instruction
            + max(text_turns, vision_turns) * sizes.turn
            + text_turns * sizes.reply
            + vision_turns * sizes.vision
        )

    def context_budget(self) -> int | None:
        """See :meth:`CachePolicy.context_budget`: the context lives in the sink."""
        return None if self.faithful else self.sink

    def seconds_left(self, watched: float) -> float | None:  # noqa: ARG002
        """See :meth:`CachePolicy.seconds_left`: a stream may go on for ever."""
        return None

    def _most_turns(self, step: float) -> tuple[int, int]:
        """Most turns with words and most turns with video, the coming one included."""
        length = 1.0 if self.faithful else step
        # The newest turn always stays: its last ids may not be in the cache yet.
        least = 1 if self.faithful else 2
        return (
            max(ceil(self.turns / length - _EPS), least),
            max(ceil(self.vision / length - _EPS), 1),
        )

    def _kept_turns(self, spans: Sequence[Span], now: float, step: float) -> tuple[set[int], set[int]]:
        """Turns whose words stay, and turns whose video stays."""
        starts = {span.turn: span.start for span in spans if span.kind is Kind.TIME}
        starts |= {span.turn: span.start for span in spans if span.kind is Kind.VISION}
        order = sorted(starts)
        if self.faithful:
            return set(_last(order, int(self.turns) - 1)), set(_last(order, int(self.vision) - 1))
        text_most, vision_most = self._most_turns(step)
        text = [turn for turn in order if starts[turn] >= now - self.turns - _EPS]
        vision = [turn for turn in order if starts[turn] >= now - self.vision - _EPS]
        return {*_last(text, text_most - 1), *order[-1:]}, set(_last(vision, vision_most - 1))

    def _archived(self, span: Span) -> int:
        """How many ids of a reply move into the history."""
        return max(len(span) - 2, 0) if self.faithful else span.words

    def _cut(self, history: Sequence[Piece]) -> list[Piece]:
        recent = self.text - 1 if self.faithful else self.text
        total = sum(piece.hi - piece.lo for piece in history)
        if total <= self.sink + recent:
            return list(history)
        return [*_slice(history, 0, self.sink), *_slice(history, total - recent, total)]


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Full attention: nothing is ever evicted, so the stream ends after ``seconds``."""

    seconds: float = 600.0
    positions: Positions = "contiguous"
    faithful: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise PolicyError("full attention needs to know for how many seconds: seconds must be above 0")

    def plan(self, spans: Sequence[Span], now: float, step: float) -> list[Piece]:  # noqa: ARG002
        """See :meth:`CachePolicy.plan`."""
        return [Piece.whole(index, span) for index, span in enumerate(spans)]

    def capacity(self, sizes: Sizes) -> int:
        """See :meth:`CachePolicy.capacity`."""
        steps = ceil(self.seconds / sizes.step - _EPS)
        start = sizes.preamble + sizes.history + 2 * sizes.instruction
        return start + steps * (sizes.turn + sizes.vision + sizes.reply)

    def context_budget(self) -> int | None:
        """See :meth:`CachePolicy.context_budget`."""
        return None

    def seconds_left(self, watched: float) -> float | None:
        """See :meth:`CachePolicy.seconds_left`."""
        return self.seconds - watched


#: Name on the command line -> class and the fields that the name fixes.
POLICIES: dict[str, tuple[type[StreamingWindow | KeepAll], dict[str, Any]]] = {
    "streaming": (StreamingWindow, {}),
    "faithful": (StreamingWindow, {"faithful": True}),
    "full": (KeepAll, {}),
}


def make_policy(spec: str, defaults: Mapping[str, Any] | None = None) -> CachePolicy:
    """The policy that ``spec`` names, such as ``streaming``, ``full:seconds=1200`` or ``streaming:vision=8,text=256``.

    ``defaults``: a checkpoint's own numbers; those that the policy has no field for are passed over. Raises
    :class:`PolicyError` for an unknown name or option, and for a number that cannot be meant.
    """
    name, _, rest = spec.partition(":")
    if name not in POLICIES:
        raise PolicyError(f"unknown policy {name!r}; known: {', '.join(POLICIES)}")
    kind, fixed = POLICIES[name]
    types: dict[str, type[Any]] = {field.name: type(field.default) for field in fields(kind) if field.name not in fixed}
    options = {key: value for key, value in (defaults or {}).items() if key in types}
    for part in filter(None, rest.split(",")):
        key, _, value = (text.strip() for text in part.partition("="))
        if key not in types or types[key] is bool:
            known = ", ".join(key for key, kind_of in types.items() if kind_of is not bool)
            raise PolicyError(f"policy {name!r} has no option {key!r}; it has: {known}")
        try:
            options[key] = types[key](value)
        except ValueError:
            raise PolicyError(f"policy option {key} must be a number, not {value!r}") from None
    return kind(**options, **fixed)


def _last(items: Sequence[int], count: int) -> Sequence[int]:
    return items[max(len(items) - count, 0) :] if count > 0 else []


def _slice(pieces: Sequence[Piece], lo: int, hi: int) -> list[Piece]:
    """The ids ``lo:hi`` of the run that ``pieces`` make up."""
    out, offset = [], 0
    for piece in pieces:
        length = piece.hi - piece.lo
        first, last = max(lo - offset, 0), min(hi - offset, length)
        if first < last:
            out.append(Piece(piece.span, piece.lo + first, piece.lo + last, piece.kind, piece.role, piece.turn))
        offset += length
    return out


def _newest_instruction(standing: list[Piece], asked: dict[int, list[Piece]]) -> list[Piece]:
    """The instruction that stands from now on: the newest of those whose turn goes, else the one that stood."""
    for turn in sorted(asked, reverse=True):
        if any(piece.kind is Kind.QUERY for piece in asked[turn]):
            return asked[turn]
    return standing
