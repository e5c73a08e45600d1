"""Dense exercises for what words alone tell: a few hundred ids that hold dozens of cases.

Copying a name by its colour is learnt suddenly or not at all. In ordinary chunks a name comes once in a thousand ids
and nothing happens; in lines that hold little else it is learnt within minutes, and carries over.
"""

from __future__ import annotations

import random

import numpy as np

from streamingvlm.core.positions import positions

from ..worlds.context import NAMES, TOWNS, Context
from ..worlds.game import Game
from ..worlds.language import GameEvent
from .decoder import StoryExample
from .habits import Events, Habits
from .layout import TOKENS_PER_SECOND, Laid
from .stories import FOLLOWING, Scribe, words
from .texts import bare, story, told_kinds, told_weights


def names(scribe: Scribe) -> frozenset[int]:
    """Ids of all names and towns."""
    return frozenset(token for word in (*NAMES, *TOWNS) for token in scribe.grammar.tokenizer.encode(f" {word}"))


def _call(rng: random.Random, game: Game, about: Context, share: float = 0.7, names: float = 0.5) -> list[GameEvent]:
    """A game with its name (that share of the cases) or a match with its town; or nothing, ``share`` being the rest."""
    player = about.player(rng.choice(game.colours))
    if rng.random() >= share:
        return []
    if rng.random() < names:
        return [GameEvent("game", player.colour, name=player.name)]
    return [GameEvent("match", player.colour, town=player.town)]


def roll_call(rng: random.Random, scribe: Scribe, habits: Habits, sink: int, text: int, seconds: int) -> StoryExample:
    """A chunk in which names and towns are said again and again; they alone are learnt."""
    game, about = habits.game, habits.game.draw_context(rng)
    before = rng.choice((0, 60, 120, 160))
    told: list[Events] = [*story(rng, habits, about, before)]
    told += [_call(rng, game, about) for _ in range(seconds)]
    replies = [scribe.reply(words(game, events)) for events in told]
    history = scribe.history(about.text, replies[:before], sink, text)
    proper = names(scribe)
    weights = [tuple(2.0 * (token in proper) for token in reply) for reply in replies[before:]]
    return bare(rng, scribe, history, replies[before:], weights, before)


def verdict(rng: random.Random, scribe: Scribe, habits: Habits, sink: int, text: int) -> StoryExample:
    """A second that ends a game behind words that tell nothing of matches; whether its match is over is alone learnt.

    That is one id behind the tally. The tally decides it together with the length of a match, which stands at the very
    beginning: an earlier match, or a tally that only long ones have, would tell the length as well.
    """
    game, about = habits.game, habits.game.draw_context(rng)
    before = rng.choice((0, 20, 60, 120))
    told = [[e for e in events if e.kind not in FOLLOWING] for events in story(rng, habits, about, before)]
    colour = rng.choice(game.colours)
    shortest = min(game.rules.lengths)
    player, won, lost = about.player(colour), shortest - (rng.random() < 0.2), rng.randrange(shortest)
    numbers = (won, lost) if colour == game.colours[0] else (lost, won)
    events = [
        GameEvent("point", colour),
        GameEvent("game", colour, name=player.name if won + lost == 1 else None),
        GameEvent("tally", numbers=numbers),
    ]
    events += [GameEvent("match", colour, town=player.town)] * (won == about.games_to_win)
    reply = scribe.reply(words(game, events))
    weights = [0.0] * len(reply)
    weights[len(scribe.grammar.opening) + sum(len(clause.ids) for clause in scribe.clauses(game, events)[:3])] = 2.0
    history = scribe.history(about.text, [scribe.reply(words(game, each)) for each in told], sink, text)
    return bare(rng, scribe, history, [reply], [tuple(weights)], before)


def lines(rng: random.Random, scribe: Scribe, game: Game) -> StoryExample:
    """A history block of games and matches; every name that has stood before is learnt."""
    about = game.draw_context(rng)
    # With names only, or towns only, nothing but the colour decides.
    share = rng.choice((0.0, 0.5, 1.0))
    told = [_call(rng, game, about, 0.9, share) for _ in range(rng.choice((4, 8, 20)))]
    ids = [*scribe.grammar.tokenizer.encode(about.text)]
    known, proper = set(ids), names(scribe)
    weights = [0.0] * len(ids)
    for events in told:
        reply = scribe.archived(scribe.reply(words(game, events)))
        ids += reply
        weights += [float(token in proper and token in known) for token in reply]
    return _block(scribe, ids, weights)


def ledger(rng: random.Random, scribe: Scribe, habits: Habits, seconds: int = 150) -> StoryExample:
    """A history block of a made-up game; the clauses that follow from earlier ones are learnt."""
    game, about = habits.game, habits.game.draw_context(rng)
    brief, named = rng.random() < 0.6, rng.random() < 0.4
    told = story(rng, habits, about, seconds, brief=brief, keep=rng.choice((None, None, 3.0, 4.0)))
    if named:
        told = [[_named(event, about) for event in events] for events in told]
    known = told_kinds(game) - ({"score"} if brief else set()) - ({"game"} if named else set())
    ids, proper = [*scribe.grammar.tokenizer.encode(about.text)], names(scribe)
    weights = [0.0] * len(ids)
    for events in told:
        reply = scribe.archived(scribe.reply(words(game, events)))
        ids += reply
        each = told_weights(scribe, game, events, known)[: len(reply)] if events else (0.0,) * len(reply)
        weights += [2.0 if token in proper else weight for token, weight in zip(reply, each, strict=True)]
    return _block(scribe, ids, weights)


def _named(event: GameEvent, about: Context) -> GameEvent:
    if event.kind != "game" or event.colour is None:
        return event
    return GameEvent("game", event.colour, name=about.player(event.colour).name)


def _block(scribe: Scribe, words: list[int], weights: list[float]) -> StoryExample:
    """A history block alone, with a weight for each of its ids."""
    spans = scribe.grammar.preamble(words)
    ids = np.array([token for span in spans for token in span.tokens])
    header = len(spans[0])
    rows = np.array([header + i - 1 for i, weight in enumerate(weights) if weight > 0], np.int64)
    none = np.zeros(0, np.int64)
    counted = np.array([weight for weight in weights if weight > 0], np.float32)
    return StoryExample(Laid(ids, positions(spans, TOKENS_PER_SECOND), rows, ids[rows + 1], counted, none, none))
