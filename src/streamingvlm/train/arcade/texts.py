"""Text-only chunks: made-up games, as dense in points, games and matches as one likes, without a picture.

They teach what words alone tell: names and towns copied from the context by their colour, counts of points and games,
whether a game or a match is over. The announcer is the arcade's own.
"""

from __future__ import annotations

import random
from collections.abc import Container

import numpy as np

from ...arcade.announcer import Announcer
from ...arcade.context import Context
from ...arcade.game import FRAMES_PER_SECOND, Happening, Scores
from ...arcade.games.pong import PONG
from ...arcade.games.pong.rules import COLOURS, POINTS_TO_WIN, ZONES
from .decoder import Example
from .layout import Ids, Laid, Turn, lay_out
from .stories import Events, Scribe, words

#: Kinds that follow from words long before them, and the length of a story that has them at the arcade's own pace.
FOLLOWING = frozenset({"streak", "game", "tally", "match"})
LONG = 400
#: How much more than other words it counts whether a game is told with a name.
RARE = 3.0
#: Kinds that words alone tell (and ``score``, once it is said who scores).
TOLD = frozenset({"rally", "score", "streak", "game_point", "game", "tally", "match"})


class _Telling(Announcer):
    """Restates the tally with the first point of every game.

    Games that begin at any score would otherwise be over before anything has told whether they open a match.
    """

    _fresh = True

    def _restates(self, scores: Scores) -> bool:
        fresh, self._fresh = self._fresh, False
        return fresh or super()._restates(scores)

    def _won(self, second: int, colour: str) -> None:
        self._fresh = True
        super()._won(second, colour)


def story(
    rng: random.Random, about: Context, seconds: int, *, brief: bool = False, pace: float | None = None
) -> list[Events]:
    """What is said in each second of a made-up stream.

    ``pace``: returns of a rally, on average; the arcade has 4, the default is less, for points a few seconds apart.
    ``brief`` games begin at any score, so that most are over after two or three points.
    """
    announcer = _Telling(PONG, about) if brief else Announcer(PONG, about)
    lean = rng.uniform(0.15, 0.85)
    pace = rng.uniform(0.0, 2.5) if pace is None else pace
    scores = {"green": 0, "orange": 0}
    moment = rng.uniform(0.5, 4.0)
    heard: list[Happening] = []
    while moment < seconds:
        moment = _rally(rng, heard, moment, pace)
        winner = "green" if rng.random() < lean else "orange"
        scores[winner] += 1
        now = (scores["green"], scores["orange"])
        heard.append(Happening(_frame(moment), "point", winner, scores=now))
        moment += rng.uniform(1.1, 3.5)
        if max(now) >= POINTS_TO_WIN:
            scores = {side: rng.randrange(POINTS_TO_WIN - 1) if brief else 0 for side in COLOURS}
            moment += rng.uniform(4.0, 7.0)
    for happening in heard:
        announcer.hear(happening)
    return [announcer.take(second) for second in range(seconds)]


def _frame(moment: float) -> int:
    return round(moment * FRAMES_PER_SECOND)


def _rally(rng: random.Random, heard: list[Happening], moment: float, pace: float) -> float:
    """A serve and some returns; when the ball is lost."""
    server = rng.choice(COLOURS)
    heard.append(Happening(_frame(moment), "serve", server))
    hitter = server
    returns = rng.choice((6, 7, 8)) if rng.random() < 0.08 else int(rng.expovariate(1 / (pace + 0.01)))
    for _ in range(returns):
        moment += rng.uniform(1.1, 2.4)
        hitter = "orange" if hitter == "green" else "green"
        heard.append(Happening(_frame(moment), "return", hitter, rng.choice(ZONES)))
    return moment + rng.uniform(0.8, 2.4)


def example(rng: random.Random, scribe: Scribe, sink: int, text: int, seconds: int) -> Example:
    """A chunk of a made-up stream without pictures: dense in points, or at the arcade's pace up to something rare."""
    about, brief = PONG.draw_context(rng), rng.random() < 0.5
    if rng.random() < 0.5:
        before = rng.choice((0, 20, 60, 120, 120, 160))
        told = story(rng, about, before + seconds, brief=brief)
    else:
        told = _up_to(rng, story(rng, about, LONG, brief=brief, pace=rng.uniform(2.5, 4.5)))
        before = max(len(told) - rng.choice((8, 16, 20)), 0)
    replies = [scribe.reply(words(events)) for events in told]
    history = scribe.history(about.text, replies[:before], sink, text)
    # Where a brief game begins is not said.
    known = TOLD - {"score"} if brief else TOLD
    weights = [told_weights(scribe, told, i, known) for i in range(before, len(told))]
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
) -> Example:  # fmt: skip
    """A chunk without pictures of these replies; ``start``: its first second, kept in half of the cases."""
    offset = start if rng.random() < 0.5 else int(10 ** rng.uniform(0, 5.5))
    turns = [
        Turn(float(offset + i), reply, reply, each)
        for i, (reply, each) in enumerate(zip(replies, weights, strict=True))
    ]
    if rng.random() < 0.7:
        return Example(without_pictures(lay_out(scribe.grammar, history, turns)))
    return Example(_no_room(scribe, history, turns))


def _no_room(scribe: Scribe, history: list[int], turns: list[Turn]) -> Laid:
    """The same with no place left for the pictures, as in a stream that keeps no video."""
    bare = [Turn(t.start, t.said, t.true, t.weights, grid=None) for t in turns]
    return lay_out(scribe.grammar, history, bare)


def without_pictures(laid: Laid) -> Laid:
    """The chunk without its pictures' ids; all other ids keep their positions."""
    keep = np.ones(len(laid.ids), bool)
    keep[laid.video] = False
    moved = np.cumsum(keep) - 1
    none = np.zeros(0, np.int64)
    return Laid(laid.ids[keep], laid.positions[:, keep], moved[laid.rows], laid.targets, laid.weights, none, none)


def told_weights(scribe: Scribe, told: list[Events], second: int, known: Container[str]) -> tuple[float, ...]:
    """What counts of a second: the clauses of ``known`` kinds, and that there is no further one."""
    events = PONG.language.in_order(told[second])
    reply = scribe.reply(words(events))
    out = [0.0] * len(reply)
    first, last = len(scribe.grammar.opening), len(reply) - len(scribe.grammar.closing) - 1
    if not events:
        return tuple(out)
    clause = 0
    for at in range(first, last):
        if reply[at] == scribe.joiner:
            clause += 1
        out[at] = 2.0 if events[clause].kind in known else 0.0
        if reply[at - 1] == scribe.game and reply[at] != scribe.point:
            # Whether a game opens its match: one id, which nearly everything before it has no part in.
            out[at] *= RARE
    out[last] = 2.0 if events[-1].kind in known or events[-1].kind in ("return", "score") else 0.0
    return tuple(out)
