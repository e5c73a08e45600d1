"""Before policies are compared: does the model do what is measured at all?

What a weak model says under two policies differs by its weaknesses. So no comparison before it says nearly what can be
seen, takes names from its context (with the two sides' names exchanged there, it must say the exchanged ones), and
there are streams and training seeds enough to tell a difference from luck. Of the names only those that it says are
asked: whether one was due, and whose, follows from the tally, and counts in the F1.
"""

from __future__ import annotations

from typing import Any

from streamingvlm.evaluate.bootstrap import Interval, interval

from .figures import Evaluation

#: Strict micro F1 of a game must be above this share of the ceiling.
OF_CEILING = 0.85
#: Share of the said names and towns that must be right when they are exchanged in the context.
NAMES_FLIPPED = 0.90
#: Fewest streams of a game, seconds of each that claims look at, and fewest training seeds for claims.
STREAMS, SECONDS, TRAINING_SEEDS = 6, 360, 2


def gate(own: Evaluation, flipped: Evaluation, training_seeds: int | None = None) -> dict[str, Any]:
    """``{"passed", "reasons", "names_flipped", ...}`` of a model on its own contexts and on flipped ones.

    ``training_seeds``: how many checkpoints there are of the same training (None: it does not matter here).
    """
    of_games = {game: _reasons(game, own, flipped) for game in own.games}
    reasons = [f"{game}: {reason}" for game, found in of_games.items() for reason in found]
    if training_seeds is not None and training_seeds < TRAINING_SEEDS:
        reasons.append(f"{_count(training_seeds, 'training seed')}, {TRAINING_SEEDS} are needed")
    return {
        "passed": not reasons,
        "reasons": reasons,
        "names_flipped": interval(*flipped.mean["names_said",]).json(),
        "games": {
            game: {
                "passed": not of_games[game],
                "names_flipped": _figure(flipped, game, "names_said").json(),
                "micro_f1_strict_of_ceiling": _figure(own, game, "of_ceiling", "micro_f1_strict").json(),
                "streams": len(own.streams(game)),
            }
            for game in own.games
        },
        "needed": {
            "micro_f1_strict_of_ceiling": OF_CEILING,
            "names_flipped": NAMES_FLIPPED,
            "streams": STREAMS,
            "training_seeds": TRAINING_SEEDS,
        },
    }


def _reasons(game: str, own: Evaluation, flipped: Evaluation) -> list[str]:
    reasons = []
    share, names = _figure(own, game, "of_ceiling", "micro_f1_strict"), _figure(flipped, game, "names_said")
    if share.value is None or share.value <= OF_CEILING:
        reasons.append(f"strict F1 is {_show(share)} of the ceiling, more than {OF_CEILING} is needed")
    if names.value is None or names.value < NAMES_FLIPPED:
        reasons.append(f"{_show(names)} of the flipped names are right, {NAMES_FLIPPED} are needed")
    seeds = {stream.match.seed for stream in own.streams(game)}
    if len(seeds) < STREAMS:
        reasons.append(f"{_count(len(seeds), 'stream')}, {STREAMS} are needed")
    return reasons


def _figure(evaluation: Evaluation, game: str, *path: str) -> Interval:
    return interval(*evaluation.game(game)[path])


def _show(figure: Interval) -> str:
    return "nothing" if figure.value is None else f"{figure.value:.2f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
