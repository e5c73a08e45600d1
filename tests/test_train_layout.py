"""A training chunk has the ids and positions that a running stream has."""

from __future__ import annotations

import random

import numpy as np
import pytest

from streamingvlm.arcade.games.pong import PONG
from streamingvlm.policy import StreamingWindow
from streamingvlm.prompt import Grammar
from streamingvlm.rope import positions
from streamingvlm.spans import Kind, Timeline
from streamingvlm.train.arcade import films, stories, texts
from streamingvlm.train.arcade.layout import TOKENS_PER_SECOND, Turn, archived, cut, lay_out
from streamingvlm.train.arcade.tower import GRID
from train_tools import arcade_grammar

SINK, TEXT, WINDOW = 24, 40, 5


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return arcade_grammar()


def _told(seconds: int) -> tuple[str, list[str]]:
    rng = random.Random(1)
    about = PONG.draw_context(rng)
    return about.text, [stories.words(events) for events in texts.story(rng, about, seconds)]


def _stream(grammar: Grammar, context: str, told: list[str]) -> Timeline:
    """What the cache of a stream holds when the last second's turn has been said."""
    policy = StreamingWindow(vision=WINDOW, turns=WINDOW, sink=SINK, text=TEXT)
    timeline = Timeline()
    for second, text in enumerate(told):
        timeline.rearrange(policy.plan(timeline.spans, second + 1.0, 1.0))
        spans = grammar.preamble(context) if not second else []
        if timeline.spans and timeline.spans[-1].kind is Kind.COMMENTARY:
            spans.append(grammar.separator(second - 1))
        timeline.append(*spans, *grammar.turn(second, second, second + 1.0, GRID))
        timeline.append(grammar.commentary(second, second, second + 1.0, grammar.reply(text)))
        timeline.commit(len(timeline.pending) - 1)
    return timeline


@pytest.mark.parametrize("seconds", [3, 5, 9, 40])
def test_a_chunk_is_a_running_stream(grammar: Grammar, seconds: int) -> None:
    context, told = _told(seconds)
    timeline = _stream(grammar, context, told)
    replies = [grammar.reply(text) for text in told]
    first = max(seconds - WINDOW, 0)
    words = [token for reply in replies[:first] for token in archived(grammar, reply)]
    history = cut([*grammar.tokenizer.encode(context), *words], SINK, TEXT)
    turns = [Turn(float(i), replies[i], replies[i], (1.0,) * len(replies[i])) for i in range(first, seconds)]
    laid = lay_out(grammar, history, turns)
    assert laid.ids.tolist() == timeline.tokens
    np.testing.assert_array_equal(laid.positions, positions(timeline.spans, TOKENS_PER_SECOND))


def test_every_target_follows_its_row(grammar: Grammar) -> None:
    reply = grammar.reply("green serves")
    laid = lay_out(grammar, [], [Turn(float(i), reply, reply, (1.0,) * len(reply)) for i in range(3)])
    assert laid.ids[laid.rows + 1].tolist() == laid.targets.tolist() == list(reply) * 3
    assert (laid.ids[laid.video] == grammar.marks.vision_pad).all()
    assert (laid.ids[laid.ends] == grammar.marks.vision_end).all()


def test_a_wrong_reply_is_learnt_up_to_where_it_leaves_the_truth(grammar: Grammar) -> None:
    said, true = grammar.reply("green returns top"), grammar.reply("green serves")
    laid = lay_out(grammar, [], [Turn(0.0, said, true, (1.0,) * len(true))])
    # Opening and colour agree; the third id is where they part, and what comes after is not learnt.
    assert laid.targets.tolist() == list(true[:3])
    assert laid.ids[laid.rows + 1].tolist() == list(said[:3])


def test_text_only_chunks_keep_positions(grammar: Grammar) -> None:
    reply = grammar.reply("green serves")
    laid = lay_out(grammar, [], [Turn(float(i), reply, reply, (1.0,) * len(reply)) for i in range(3)])
    bare = texts.without_pictures(laid)
    assert len(bare.ids) == len(laid.ids) - len(laid.video)
    assert bare.ids[bare.rows + 1].tolist() == bare.targets.tolist()
    np.testing.assert_array_equal(bare.positions[:, -1], laid.positions[:, -1])


def test_spoiling_leaves_points_and_what_follows_from_them() -> None:
    rng = random.Random(2)
    told = texts.story(rng, PONG.draw_context(rng), 200)
    spoiled = stories.spoil(rng, told, stories.Spoil(digits=0.0))
    assert spoiled != told
    for kind in (*stories.DERIVED, "point", "score"):
        assert [[e for e in s if e.kind == kind] for s in spoiled] == [[e for e in s if e.kind == kind] for s in told]


def test_probes_are_labelled_from_words_and_memory() -> None:
    from streamingvlm.train.arcade.record import record

    labels = films.probe_labels(record(3, 30, render=False))
    assert labels.shape == (30, len(films.PROBES))
    assert all(labels[:, i].max() < size for i, size in enumerate(films.PROBES))


def test_what_contradicts_the_models_own_words_is_left_out() -> None:
    truth = [
        PONG.language.parse(text)
        for text in ("green scores ; score 1 to 0", "", "green scores ; score 2 to 0 ; green 3 in a row")
    ]
    game = PONG.language.parse("green scores ; score 5 to 1 ; game player green Mina ; games 1 to 0")
    assert stories.contradicted([*truth, game], ["green scores", "", "green scores", "green scores"]) == {2}
    assert stories.contradicted([*truth, game], ["green scores ; green 2 in a row", "green scores", "", ""]) == set()
    assert stories.contradicted([*truth, game], ["green scores ; games 1 to 0", "green scores", "", ""]) == {3}
