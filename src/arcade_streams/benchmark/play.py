"""The transcript of a game as what is true second by second: what questions are made of and answered from."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from streamingvlm import SourceError
from streamingvlm.data.words import EPS

from ..worlds.context import Context
from ..worlds.game import Game, Scores
from ..worlds.games import GAMES
from ..worlds.language import GameEvent


@dataclass(frozen=True, slots=True)
class State:
    """What has been said before a second. Every fact has the second that said it; None while there is none.

    ``score``: of the game that is going on; ``scorer``: who made the last point, ``row`` of them in a row; ``rival``:
    the last point of the other side; ``run``: the last streak that still goes on; ``tally``: games won in this match
    (the second is that of the match's end where it began anew); ``won`` and ``match``: the last game, the last match.
    """

    score: tuple[int, Scores] | None = None
    scorer: tuple[int, str] | None = None
    row: int = 0
    rival: tuple[int, str] | None = None
    run: tuple[int, GameEvent] | None = None
    tally: tuple[int, Scores] | None = None
    won: tuple[int, GameEvent] | None = None
    match: tuple[int, GameEvent] | None = None

    def after(self, second: int, event: GameEvent) -> State:
        """The state once ``event`` has been said in ``second``."""
        numbers = (event.numbers[0], event.numbers[-1]) if event.numbers else (0, 0)
        match event.kind:
            case "point":
                assert event.colour is not None
                goes_on = self.run if self.run and self.run[1].colour == event.colour else None
                again = self.scorer is not None and self.scorer[1] == event.colour
                row, rival = self.row * again + 1, self.against(event.colour)
                return replace(self, scorer=(second, event.colour), row=row, rival=rival, run=goes_on)
            case "score":
                return replace(self, score=(second, numbers))
            case "streak":
                return replace(self, run=(second, event))
            case "tally":
                return replace(self, tally=(second, numbers))
            case "game":  # the score on the screen is set back some seconds later, at a time that is not told
                return replace(self, won=(second, event), score=None)
            case "match":
                return replace(self, match=(second, event), tally=(second, (0, 0)))
        return self

    def against(self, colour: str) -> tuple[int, str] | None:
        """The last point that was not made by ``colour``."""
        return self.rival if self.scorer and self.scorer[1] == colour else self.scorer


@dataclass(frozen=True)
class Play:
    """A game as it was told. Second k is what was said from k to k + 1 s.

    ``video``: as the data names it; ``said``: the events of each second; ``before``: the state before each second;
    ``words``: how many words were said before each second (and, last, in all); each is one token of the bundled model.
    """

    video: str
    game: Game
    context: Context
    said: tuple[tuple[GameEvent, ...], ...]
    before: tuple[State, ...]
    words: tuple[int, ...]

    @property
    def seconds(self) -> int:
        """Its length."""
        return len(self.said)

    @property
    def silent(self) -> list[int]:
        """Seconds without a word."""
        return [second for second, events in enumerate(self.said) if not events]


def read_plays(data: Path) -> list[Play]:
    """The games of a metadata file, as :mod:`.inf_streams` writes it. SourceError for any other."""
    plays = []
    try:
        text = data.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{data} cannot be read ({error})") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                plays.append(make_play(json.loads(line)))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise SourceError(
                    f"{data}:{number} is no arcade game as arcade-benchmark writes it ({error})"
                ) from None
    if not plays:
        raise SourceError(f"{data} holds no games")
    return plays


def make_play(line: Mapping[str, Any]) -> Play:
    """The game of one line. ValueError, KeyError or TypeError if it is of another form."""
    if line["game"] not in GAMES:
        raise ValueError(f"unknown game {line['game']!r}")
    game = GAMES[line["game"]]
    context = game.parse_context(line["title"])
    if context is None:
        raise ValueError("its title is no context of this game")
    texts = _by_second(line["content"])
    said = tuple(tuple(game.language.parse(text)) for text in texts)
    states, state = [], State()
    for second, events in enumerate(said):
        states.append(state)
        for event in events:
            state = state.after(second, event)
    counts = accumulate((len(text.split()) for text in texts), initial=0)
    return Play(str(line["video"]), game, context, said, tuple(states), tuple(counts))


def _by_second(content: Sequence[Any]) -> list[str]:
    """The words of each second: those that end in it."""
    words: dict[int, list[str]] = defaultdict(list)
    for _, end, word in content:
        words[math.ceil(end - EPS) - 1].append(word)
    return [" ".join(words.get(second, ())) for second in range(max(words, default=-1) + 1)]
