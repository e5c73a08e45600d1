"""One stream that is evaluated: which game, which seed, and whether the names in its context are flipped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from streamingvlm import OptionError
from streamingvlm.evaluate.task import TimedQuestion

from ..score.ceiling import read
from ..worlds.context import EVALUATION_SEEDS
from ..worlds.games import find_game
from ..worlds.source import ArcadeSource

#: Seconds of a stream whose truth identifies it.
HEAD = 60
_KEYED = re.compile(r"\b(player|home) (\w+) (\w+)")


@dataclass(frozen=True, slots=True)
class Match:
    """A stream of a game. ``flipped``: each side has the other's name and town in the context, and so in the truth."""

    game: str
    seed: int
    flipped: bool = False

    @property
    def name(self) -> str:
        """As a file is called."""
        return f"{self.game}-{self.seed}{'-flipped' if self.flipped else ''}"

    def source(self, seconds: float, start: float = 0.0) -> ArcadeSource:
        """The video from ``start`` to ``seconds``."""
        return ArcadeSource(find_game(self.game), self.seed, start=start, duration=seconds - start)

    @property
    def video(self) -> str:
        """What tells its frames from those of other streams; flipped names change none."""
        return f"{self.game}-{self.seed}-{self.fingerprint()}"

    @property
    def previous(self) -> Sequence[str]:
        """Nothing: a match is watched from its beginning."""
        return ()

    @property
    def start(self) -> float:
        """Where it begins, in seconds."""
        return 0.0

    @property
    def stream(self) -> int:
        """The number that its random numbers follow from."""
        return self.seed

    @property
    def settings(self) -> dict[str, Any]:
        """What tells whether words that were recorded earlier are of this stream with these names."""
        return {"game": self.game, "seed": self.seed, "flipped": self.flipped, "stream": self.fingerprint()}

    @property
    def questions(self) -> Sequence[TimedQuestion]:
        """None: all is in the commentary."""
        return ()

    @property
    def context(self) -> str:
        """What the model is told before the video starts."""
        own = self.source(1.0).context
        return exchange(own, own) if self.flipped else own

    def fingerprint(self) -> str:
        """What tells whether words that were recorded earlier are of this very stream."""
        return _fingerprint(self.game, self.seed)

    def truth(self, seconds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The truth of the first seconds and what the oracle reader says of them, as the score takes them."""
        right, said = _read(self.game, self.seed, seconds)
        if not self.flipped:
            return right, said
        own = right["title"]
        content = [[start, end, exchange(text, own)] for start, end, text in right["content"]]
        rows = [{**row, "text": exchange(row["text"], own)} for row in said]
        return {**right, "title": self.context, "content": content}, rows


@lru_cache(maxsize=1024)
def _fingerprint(game: str, seed: int) -> str:
    source = Match(game, seed).source(HEAD)
    text = "\n".join([source.context, *(source.truth(second, second + 1) for second in range(HEAD))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=128)
def _read(game: str, seed: int, seconds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return read(find_game(game), seed, seconds)


def exchange(text: str, context: str) -> str:
    """``text`` with the names of the two sides of ``context`` exchanged, and their towns."""
    values: dict[str, list[str]] = {}
    for key, _, value in _KEYED.findall(context):
        values.setdefault(key, []).append(value)
    swap: dict[str, str] = {}
    for key, pair in values.items():
        assert len(pair) == 2, f"a context says {key!r} of both sides"
        swap |= {pair[0]: pair[1], pair[1]: pair[0]}
    return re.sub(r"\w+", lambda word: swap.get(word[0], word[0]), text)


def matches(games: list[str], seeds: range) -> list[Match]:
    """The streams of some games on some evaluation seeds. OptionError for what cannot be meant."""
    if not len(seeds):
        raise OptionError("at least one stream is needed")
    if seeds.start < EVALUATION_SEEDS:
        raise OptionError(
            f"seeds below {EVALUATION_SEEDS} are for training, evaluation starts there: not {seeds.start}"
        )
    if len(set(games)) < len(games):
        raise OptionError("every game once, please")
    return [Match(find_game(game).name, seed) for game in games for seed in seeds]
