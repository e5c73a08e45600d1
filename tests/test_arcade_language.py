"""Words to facts and back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.arcade.context import COLOURS, EVALUATION_SEEDS, NAMES, TOWNS, Context, training_seed
from streamingvlm.arcade.language import KINDS, WORDINGS, ZONES, Event, parse, say, style

colours = st.sampled_from(COLOURS)
count = st.integers(0, 12)
pair = st.tuples(count, count)
EVENTS = st.one_of(
    st.builds(Event, st.sampled_from(("serve", "hold", "point", "game_point", "game")), colours),
    st.builds(Event, st.just("return"), colours, st.sampled_from(ZONES)),
    st.builds(Event, st.just("rally")),
    st.builds(Event, st.sampled_from(("score", "tally")), numbers=pair),
    st.builds(Event, st.just("streak"), colours, numbers=st.tuples(count)),
    st.builds(Event, st.just("game"), colours, name=st.sampled_from(NAMES)),
    st.builds(Event, st.just("match"), colours, town=st.sampled_from(TOWNS)),
)
ANY_TEXT = st.text(st.sampled_from("greno aptscwi;,0123 \n"), max_size=60)


def in_order(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda event: KINDS.index(event.kind))


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=5), st.integers(0, 10_000))
def test_what_is_said_is_understood(events: list[Event], seed: int) -> None:
    text = say(events, style(seed))
    assert parse(text) == in_order(events)
    assert text.isascii()


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT)
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert all(event.kind in KINDS for event in parse(text))


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=4), st.integers(0, 999), st.data())
def test_a_cut_text_keeps_its_whole_clauses(events: list[Event], seed: int, data: st.DataObject) -> None:
    words = say(events, style(seed)).split()
    keep = data.draw(st.integers(0, len(words)))
    whole = " ".join(words[:keep]).count(" ; ")
    assert parse(" ".join(words[:keep]))[:whole] == in_order(events)[:whole]


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
    assert [event.kind for event in parse(text)] == kinds


def test_every_wording_of_a_kind_says_the_same() -> None:
    facts = {"colour": "green", "zone": "top", "a": 3, "b": 2, "town": "Oslo", "who": "player green Mina"}
    for kind, wordings in WORDINGS.items():
        read = [parse(wording.format(**facts)) for wording in wordings]
        assert [event.kind for event in read[0]] == [kind]
        assert all(events == read[0] for events in read), kind


def test_a_colour_stands_before_what_belongs_to_it() -> None:
    for wordings in WORDINGS.values():
        for wording in wordings:
            for place in ("{town}", "{zone}"):
                if place in wording:
                    before = wording.split()[wording.split().index(place) - 1]
                    assert before == "{colour}" or place == "{zone}"
            assert not wording.startswith(("{town}", "{name}"))


def test_context_round_trip() -> None:
    for seed in range(50):
        context = Context.draw(seed)
        assert Context.parse(context.text) == context
        assert Context.parse(f"A clip: {context.text} .") == context
    assert Context.parse("first to 3 games ; player green Mina") is None
    assert {Context.draw(seed).games_to_win for seed in range(50)} == {2, 3}


def test_names_and_towns_are_plain_and_distinct() -> None:
    words = NAMES + TOWNS
    assert len(set(words)) == len(words) == 80
    assert all(word.isascii() and word.isalpha() for word in words)


def test_training_refuses_evaluation_seeds() -> None:
    assert training_seed(EVALUATION_SEEDS - 1) == 8_999_999
    for seed in (EVALUATION_SEEDS, EVALUATION_SEEDS + 5, -1):
        with pytest.raises(ValueError, match="training seed"):
            training_seed(seed)
