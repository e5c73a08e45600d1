"""What a game gives to the arcade: one short protocol, which everything common to the games is written against."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .context import Colours, Context
from .language import EventKind, Language, Style

FRAMES_PER_SECOND = 60
"""Frames of the console in a second."""
HALF = FRAMES_PER_SECOND // 2
"""Frames between two of the two frames a second that the model sees."""

Scores = tuple[int, int]
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Happening:
    """One fact with its frame. ``kind``: one of the game's kinds that its world tells, or "point".

    ``colour``: whose it is, None if it is nobody's; ``zone``: one of the kind's zones; ``scores``: for a point, the
    score with it in the order of the game's colours, as it is counted (how it is said is up to the rules).
    """

    frame: int
    kind: str
    colour: str | None = None
    zone: str | None = None
    scores: Scores = (0, 0)


@dataclass(frozen=True, slots=True)
class FrameLabel:
    """What one frame shows, exactly.

    ``time``: seconds. ``places``: for each of the game's ``places`` the left and top edge in pixels of the 160 x 210
    screen, None when it is not there. ``facts``: for each of the game's ``facts`` a class, -1 for none. ``scores``: as
    drawn, in the order of the game's colours. ``in_play``: a point is being played.
    """

    time: float
    places: Mapping[str, Place | None]
    facts: Mapping[str, int]
    scores: Scores
    in_play: bool


class World(Protocol):
    """One match after another, without end. Everything follows from the random numbers that it was made with."""

    frame: int
    """Frames since the start, 1/60 s each."""

    def advance(self) -> list[Happening]:
        """One frame on; what happened in it. A happening may be told later than it was, by less than its reaction."""

    def label(self) -> FrameLabel:
        """What the frame shows."""

    def screen(self) -> NDArray[np.uint8]:
        """The frame, (210, 160, 3) uint8 RGB."""


class Reader(Protocol):
    """Tells what happened from the labels of two frames a second alone: what can be known at all at that rate."""

    def see(self, label: FrameLabel) -> list[Happening]:
        """Takes the next frame, half a second after the last; what it shows for the first time.

        A happening's frame is the seen frame less the kind's reaction, so that it is said in the second of that frame.
        """


@dataclass(frozen=True, slots=True)
class Counted:
    """A kind that is said with the ``at``-th happening of the kinds ``of`` since one of ``since`` or a point."""

    kind: str
    of: tuple[str, ...]
    since: tuple[str, ...]
    at: int


@dataclass(frozen=True)
class Rules:
    """The numbers of a match. A subclass may change how a score is won, said and restated.

    ``points_to_win`` a game, ``lead`` points ahead of the other; ``lengths``: games to win that a match can have;
    ``games``: what the context calls them; ``streak``: points in a row from which on they are said; ``restate``: sum of
    the score with which the tally of games is said again.
    """

    points_to_win: int
    lead: int = 1
    lengths: tuple[int, ...] = (2, 3)
    games: str = "games"
    streak: int = 3
    restate: int = 3
    counted: tuple[Counted, ...] = ()

    def winner(self, scores: Scores) -> int | None:
        """The side (0 or 1) that has won the game at this score, None while it goes on."""
        side = int(scores[1] > scores[0])
        won = scores[side] >= self.points_to_win and scores[side] - scores[1 - side] >= self.lead
        return side if won else None

    def game_point(self, scores: Scores, scorer: int) -> int | None:
        """The side that wins with its next point; if both would, the one that has just scored."""
        for side in (scorer, 1 - scorer):
            if self.winner((scores[0] + (side == 0), scores[1] + (side == 1))) == side:
                return side
        return None

    def said(self, scores: Scores) -> Scores | None:
        """The numbers that are said of a score, None if nothing is."""
        return scores

    def restates(self, scores: Scores) -> bool:
        """Whether a point that does not end its game restates the tally."""
        return sum(scores) == self.restate


@dataclass(frozen=True)
class Game:
    """A game: what it looks like, what is said of it, and how it is played.

    ``kinds``: in the order in which the events of one second are said; the common kinds and the game's own.
    ``places``: names of the things whose places a label gives. ``facts``: names of a label's facts, with the number of
    their classes. ``most``: the highest score that is drawn.
    """

    name: str
    colours: Colours
    kinds: tuple[EventKind, ...]
    rules: Rules
    places: tuple[str, ...]
    facts: Mapping[str, int]
    most: int
    new_world: Callable[[random.Random], World] = field(repr=False)
    new_reader: Callable[[], Reader] = field(repr=False)

    @cached_property
    def language(self) -> Language:
        """Its words."""
        return Language(self.colours, self.kinds)

    def world(self, seed: int) -> World:
        """The world of a seed's stream."""
        return self.new_world(random.Random(f"{self.name} world {seed}"))

    def context(self, seed: int) -> Context:
        """The context of a seed's stream."""
        return self.draw_context(random.Random(f"{self.name} context {seed}"))

    def draw_context(self, rng: random.Random) -> Context:
        """A context of this game at random."""
        return Context.draw(rng, self.colours, self.rules.lengths, self.rules.games)

    def parse_context(self, text: str) -> Context | None:
        """The context that a text states, or None if any of its facts is missing or unknown."""
        return Context.parse(text, self.colours, self.rules.games)

    def style(self, seed: int) -> Style:
        """The style of a seed's stream."""
        return self.language.draw(random.Random(f"{self.name} style {seed}"))

    def second_of(self, happening: Happening) -> int:
        """The second that says it: the one that holds the first of the frames at 2 a second that shows it."""
        frame = happening.frame + self.language[happening.kind].reaction
        return -(-frame // HALF) // 2
