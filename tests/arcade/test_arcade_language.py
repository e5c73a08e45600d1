"""Words to facts and back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcade_streams.worlds.context import EVALUATION_SEEDS, NAMES, TOWNS, training_seed
from arcade_streams.worlds.game import Game
from arcade_streams.worlds.games import GAMES
from arcade_streams.worlds.games.pong import PONG
from arcade_streams.worlds.language import EventKind, GameEvent

every_game = st.sampled_from(list(GAMES.values()))
FACTS = ("{colour}", "{zone}", "{a}", "{b}", "{town}", "{who}")


def event_of(draw: st.DrawFn, game: Game, kind: EventKind) -> GameEvent:
    """An event of a kind with the facts that its wordings have a place for."""
    wanted = {fact for fact in FACTS if fact in kind.wordings[0]}
    whose = wanted & {"{colour}", "{who}"}
    return GameEvent(
        kind.name,
        draw(st.sampled_from(game.colours)) if whose else None,
        draw(st.sampled_from(kind.zones)) if "{zone}" in wanted else None,
        tuple(draw(st.integers(0, 120)) for fact in ("{a}", "{b}") if fact in wanted),
        draw(st.none() | st.sampled_from(NAMES)) if "{who}" in wanted else None,
        draw(st.sampled_from(TOWNS)) if "{town}" in wanted else None,
    )


@st.composite
def told(draw: st.DrawFn, least: int = 0) -> tuple[Game, list[GameEvent], str]:
    """A game, some of its events in the order in which they are said, and the words of a stream for them."""
    game = draw(every_game)
    kinds = draw(st.lists(st.sampled_from(game.kinds), min_size=least, max_size=5))
    events = game.language.in_order(event_of(draw, game, kind) for kind in kinds)
    return game, events, game.language.say(events, game.style(draw(st.integers(0, 10_000))))


@settings(max_examples=300, deadline=None)
@given(told())
def test_what_is_said_is_understood(told: tuple[Game, list[GameEvent], str]) -> None:
    game, events, text = told
    assert game.language.parse(text) == events
    assert text.isascii()


@settings(max_examples=200, deadline=None)
@given(every_game, st.data())
def test_any_text_is_read_without_an_error(game: Game, data: st.DataObject) -> None:
    letters = sorted(set("".join(wording for kind in game.kinds for wording in kind.wordings)) | set(";, 0123\n"))
    text = data.draw(st.text(st.sampled_from(letters), max_size=60))
    assert all(event.kind in game.language.kinds for event in game.language.parse(text))


@settings(max_examples=200, deadline=None)
@given(told(least=1), st.data())
def test_a_cut_text_keeps_its_whole_clauses(told: tuple[Game, list[GameEvent], str], data: st.DataObject) -> None:
    game, events, text = told
    words = text.split()
    keep = data.draw(st.integers(0, len(words)))
    whole = " ".join(words[:keep]).count(" ; ")
    assert game.language.parse(" ".join(words[:keep]))[:whole] == events[:whole]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("green returns top; score 3 to 2", ["return", "score"]),
        ("well , green scores green scores !", ["point", "point"]),
        ("serve serve green ; returns top", ["serve"]),
        ("green returns sideways", []),
        ("orange to ; serve green", ["serve"]),
        ("game player green Nobody", []),
        ("score 3 to", []),
        ("games 1 to 0", ["tally"]),
        ("game point green", ["game_point"]),
    ],
)
def test_broken_text(text: str, kinds: list[str]) -> None:
    assert [event.kind for event in PONG.language.parse(text)] == kinds


@pytest.mark.parametrize("game", GAMES.values(), ids=lambda game: game.name)
def test_every_wording_of_a_kind_says_the_same(game: Game) -> None:
    colour = game.colours[0]
    for kind in game.kinds:
        zone = kind.zones[0] if kind.zones else None
        facts = {"colour": colour, "zone": zone, "a": 3, "b": 2, "town": "Oslo", "who": f"player {colour} Mina"}
        read = [game.language.parse(wording.format(**facts)) for wording in kind.wordings]
        assert [event.kind for event in read[0]] == [kind.name]
        assert all(events == read[0] for events in read), kind


@pytest.mark.parametrize("game", GAMES.values(), ids=lambda game: game.name)
def test_a_colour_stands_before_what_belongs_to_it(game: Game) -> None:
    for kind in game.kinds:
        for wording in kind.wordings:
            words = wording.split()
            if "{town}" in words:
                assert words[words.index("{town}") - 1] == "{colour}"
            assert not wording.startswith(("{town}", "{zone}"))


@pytest.mark.parametrize("game", GAMES.values(), ids=lambda game: game.name)
def test_context_round_trip(game: Game) -> None:
    contexts = [game.context(seed) for seed in range(50)]
    for context in contexts:
        assert game.parse_context(context.text) == context
        assert game.parse_context(f"A clip: {context.text} .") == context
    one = game.colours[0]
    assert game.parse_context(f"first to 3 {game.rules.games} ; player {one} Mina") is None
    assert {context.games_to_win for context in contexts} == set(game.rules.lengths)
    assert {context.first for context in contexts} == set(game.colours)


def test_names_and_towns_are_plain_and_distinct() -> None:
    words = NAMES + TOWNS
    assert len(set(words)) == len(words) == 80
    assert all(word.isascii() and word.isalpha() for word in words)


def test_training_refuses_evaluation_seeds() -> None:
    assert training_seed(EVALUATION_SEEDS - 1) == 8_999_999
    for seed in (EVALUATION_SEEDS, EVALUATION_SEEDS + 5, -1):
        with pytest.raises(ValueError, match="training seed"):
            training_seed(seed)
