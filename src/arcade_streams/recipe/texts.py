"""Text-only chunks: made-up games, as dense in points, games and matches as one likes, without a picture.

They teach what words alone tell: names and towns copied from the context by their colour, counts of points and games,
whether a game or a match is over. The announcer is the arcade's own, what happens between the points is taken from the
game's own streams.
"""

from __future__ import annotations

import random
from collections.abc import Container
from itertools import product

import numpy as np

from ..worlds.announcer import Announcer
from ..worlds.context import Context
from ..worlds.game import FRAMES_PER_SECOND, Game, Happening, Scores
from ..worlds.language import COMMON
from .decoder import StoryExample
from .habits import Events, Habits, counted
from .layout import ArcadeTurn, Ids, Laid, lay_out
from .stories import FOLLOWING, Scribe, words

#: The length of a story that has what follows from words at the arcade's own pace.
LONG = 400
#: How much more than other words it counts whether a game is told with a name.
RARE = 3.0


def told_kinds(game: Game) -> frozenset[str]:
    """Kinds that words alone tell (a score, once it is said who scores)."""
    return frozenset(COMMON) - {"point"} | counted(game)


class _Telling(Announcer):
    """Restates the tally with the first point of every game.

    Games that begin at any score would otherwise be over before anything has told whether they open a match.
    """

    _fresh = True

    def restates(self, scores: Scores) -> bool:
        fresh, self._fresh = self._fresh, False
        return fresh or super().restates(scores)

    def win(self, second: int, colour: str) -> None:
        self._fresh = True
        super().win(second, colour)


def story(
    rng: random.Random,
    habits: Habits,
    about: Context,
    seconds: int,
    *,
    brief: bool = False,
    dense: bool = True,
    keep: float | None = None,
) -> list[Events]:
    """What is said in each second of a made-up stream.

    ``dense``: only the first plays between two points are told, ``keep`` on average (None: a number between 0 and 2.5),
    so that points are a few seconds apart; otherwise all are, at the game's own pace. ``brief`` games begin at any
    score, so that most are over after two or three points.
    """
    game = habits.game
    announcer = _Telling(game, about) if brief else Announcer(game, about)
    lean, keep = rng.uniform(0.15, 0.85), rng.uniform(0.0, 2.5) if keep is None else keep
    scores, second, opens = (0, 0), 0, True
    while second < seconds:
        side = int(rng.random() >= lean)
        count = int(rng.expovariate(1 / (keep + 0.01))) if dense else None
        scores = (scores[0] + (side == 0), scores[1] + (side == 1))
        for gap, group in habits.passage(rng, game.colours[side], opens=opens, keep=count):
            # A point that stands alone still takes its time.
            second += max(1, gap)
            for event in group:
                frame = second * FRAMES_PER_SECOND - game.language[event.kind].reaction
                announcer.hear(Happening(frame, event.kind, event.colour, event.zone, scores))
        opens = game.rules.winner(scores) is not None
        if opens:
            scores = rng.choice(_starts(game)) if brief else (0, 0)
    return [announcer.take(second) for second in range(seconds)]


def _starts(game: Game) -> list[Scores]:
    """Scores from which nobody can win a game with the next point."""
    rules, each = game.rules, range(game.most + 1)
    return [
        pair
        for pair in product(each, each)
        if rules.winner(pair) is None and all(rules.game_point(pair, side) is None for side in (0, 1))
    ]


def example(rng: random.Random, scribe: Scribe, habits: Habits, sink: int, text: int, seconds: int) -> StoryExample:
    """A chunk of a made-up stream without pictures: dense in points, or at the arcade's pace up to something rare."""
    game, brief = habits.game, rng.random() < 0.5
    about = game.draw_context(rng)
    if rng.random() < 0.5:
        before = rng.choice((0, 20, 60, 120, 120, 160))
        told = story(rng, habits, about, before + seconds, brief=brief)
    else:
        told = _up_to(rng, story(rng, habits, about, LONG, brief=brief, dense=False))
        before = max(len(told) - rng.choice((8, 16, 20)), 0)
    replies = [scribe.reply(words(game, events)) for events in told]
    history = scribe.history(about.text, replies[:before], sink, text)
    # Where a brief game begins is not said.
    known = told_kinds(game) - ({"score"} if brief else set())
    weights = [told_weights(scribe, game, events, known) for events in told[before:]]
    return bare(rng, scribe, history, replies[before:], weights, before)


def _up_to(rng: random.Random, told: list[Events]) -> list[Events]:
    """A stream up to a little after one of its rare events, of a kind at random."""
    places: dict[str, list[int]] = {}
    for second, events in enumerate(told):
        for event in events:
            if event.kind in FOLLOWING:
                places.setdefault(event.kind, []).append(second)
    if not places:
        return told
    second = rng.choice(places[rng.choice(sorted(places))])
    return told[: second + rng.randint(1, 4)]


def bare(
    rng: random.Random, scribe: Scribe, history: list[int], replies: list[Ids], weights: list[tuple[float, ...]],
    start: int,
) -> StoryExample:  # fmt: skip
    """A chunk without pictures of these replies; ``start``: its first second, kept in half of the cases."""
    offset = start if rng.random() < 0.5 else int(10 ** rng.uniform(0, 5.5))
    turns = [
        ArcadeTurn(float(offset + i), reply, reply, each)
        for i, (reply, each) in enumerate(zip(replies, weights, strict=True))
    ]
    if rng.random() < 0.7:
        return StoryExample(without_pictures(lay_out(scribe.grammar, history, turns)))
    return StoryExample(_no_room(scribe, history, turns))


def _no_room(scribe: Scribe, history: list[int], turns: list[ArcadeTurn]) -> Laid:
    """The same with no place left for the pictures, as in a stream that keeps no video."""
    bare = [ArcadeTurn(t.start, t.said, t.true, t.weights, grid=None) for t in turns]
    return lay_out(scribe.grammar, history, bare)


def without_pictures(laid: Laid) -> Laid:
    """The chunk without its pictures' ids; all other ids keep their positions."""
    keep = np.ones(len(laid.ids), bool)
    keep[laid.video] = False
    moved = np.cumsum(keep) - 1
    none = np.zeros(0, np.int64)
    return Laid(laid.ids[keep], laid.positions[:, keep], moved[laid.rows], laid.targets, laid.weights, none, none)


def told_weights(scribe: Scribe, game: Game, events: Events, known: Container[str]) -> tuple[float, ...]:
    """What counts of a second: the clauses of ``known`` kinds, and that there is no further one."""
    clauses = scribe.clauses(game, events)
    opening, closing = len(scribe.grammar.opening), len(scribe.grammar.closing)
    if not clauses:
        return (0.0,) * (opening + closing + 1)
    out = [0.0] * opening
    for clause in clauses:
        each = [2.0 * (clause.event.kind in known)] * len(clause.ids)
        if clause.fork is not None:
            # Whether a game opens its match: one id, which nearly everything before it has no part in.
            each[clause.fork] *= RARE
        out += each
    last = clauses[-1].event.kind
    # A point, a score and what is counted can have something behind them that words alone tell.
    ends = last in known or last in ("point", "score") or any(last in counted.of for counted in game.rules.counted)
    return (*out, 2.0 * ends, *[0.0] * closing)
