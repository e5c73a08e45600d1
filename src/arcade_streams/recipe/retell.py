"""The same film with other words: what only words tell is drawn anew, what is seen stays.

A stream of ten minutes has five games and two names. A model that sees it again and again learns by heart which name
comes with which picture, and neither to read the context nor to count. So each use of a film has players, towns, a
length of match and a tally of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..worlds.announcer import Announcer
from ..worlds.game import FRAMES_PER_SECOND, Game, Happening
from .habits import Events, happening
from .record import Recording


def happenings(game: Game, seconds: Sequence[Events]) -> Iterator[Happening]:
    """What happened, from what was said of it in each second of a stream that begins with a game."""
    heard, scores = happening(game), (0, 0)
    for second, events in enumerate(seconds):
        for event in events:
            if event.kind not in heard:
                continue
            if event.kind == "point":
                side = game.colours.index(str(event.colour))
                scores = (scores[0] + (side == 0), scores[1] + (side == 1))
            frame = second * FRAMES_PER_SECOND - game.language[event.kind].reaction
            yield Happening(frame, event.kind, event.colour, event.zone, scores)
            if game.rules.winner(scores) is not None:
                scores = (0, 0)


def retold(rng: random.Random, recording: Recording, first: int) -> Recording:
    """The recording with another context and what follows from it.

    Where a tally has been said before second ``first``, the stream may begin at any tally: words up to ``first`` tell.
    """
    game, about = recording.game, recording.game.draw_context(rng)
    known = any(event.kind == "tally" for events in recording.events[:first] for event in events)
    games = (rng.randrange(about.games_to_win), rng.randrange(about.games_to_win)) if known else (0, 0)
    announcer = Announcer(game, about, games)
    for what in happenings(game, recording.events):
        announcer.hear(what)
    events = tuple(announcer.take(second) for second in range(len(recording)))
    return replace(recording, context=about, events=events)
