"""A training chunk has the ids and positions that a running stream has."""

from __future__ import annotations

import random

import numpy as np
import pytest

from arcade_streams.recipe import drills, probes, stories, texts
from arcade_streams.recipe.layout import TOKENS_PER_SECOND, ArcadeTurn, archived, cut, lay_out
from arcade_streams.recipe.tower import GRID
from arcade_streams.worlds.game import Game
from arcade_streams.worlds.games.boxing import BOXING
from arcade_streams.worlds.games.pong import PONG
from arcade_streams.worlds.language import COMMON, GameEvent
from streamingvlm.core.grammar import Grammar
from streamingvlm.core.policy import StreamingWindow
from streamingvlm.core.positions import positions
from streamingvlm.core.spans import Kind
from streamingvlm.core.timeline import Timeline
from support.train_tools import ALL, arcade_grammar, habits_of, recorded

SINK, TEXT, WINDOW = 24, 40, 5


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return arcade_grammar()


@pytest.fixture(params=ALL, ids=lambda game: game.name)
def game(request: pytest.FixtureRequest) -> Game:
    found: Game = request.param
    return found


def _told(seconds: int) -> tuple[str, list[str]]:
    rng = random.Random(1)
    about = PONG.draw_context(rng)
    told = texts.story(rng, habits_of("pong"), about, seconds)
    return about.text, [stories.words(PONG, events) for events in told]


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
    turns = [ArcadeTurn(float(i), replies[i], replies[i], (1.0,) * len(replies[i])) for i in range(first, seconds)]
    laid = lay_out(grammar, history, turns)
    assert laid.ids.tolist() == timeline.tokens
    np.testing.assert_array_equal(laid.positions, positions(timeline.spans, TOKENS_PER_SECOND))


def test_every_target_follows_its_row(grammar: Grammar) -> None:
    reply = grammar.reply("green serves")
    laid = lay_out(grammar, [], [ArcadeTurn(float(i), reply, reply, (1.0,) * len(reply)) for i in range(3)])
    assert laid.ids[laid.rows + 1].tolist() == laid.targets.tolist() == list(reply) * 3
    assert (laid.ids[laid.video] == grammar.marks.vision_pad).all()
    assert (laid.ids[laid.ends] == grammar.marks.vision_end).all()


def test_a_wrong_reply_is_learnt_up_to_where_it_leaves_the_truth(grammar: Grammar) -> None:
    said, true = grammar.reply("green returns top"), grammar.reply("green serves")
    laid = lay_out(grammar, [], [ArcadeTurn(0.0, said, true, (1.0,) * len(true))])
    # Opening and colour agree; the third id is where they part, and what comes after is not learnt.
    assert laid.targets.tolist() == list(true[:3])
    assert laid.ids[laid.rows + 1].tolist() == list(said[:3])


def test_text_only_chunks_keep_positions(grammar: Grammar) -> None:
    reply = grammar.reply("green serves")
    laid = lay_out(grammar, [], [ArcadeTurn(float(i), reply, reply, (1.0,) * len(reply)) for i in range(3)])
    bare = texts.without_pictures(laid)
    assert len(bare.ids) == len(laid.ids) - len(laid.video)
    assert bare.ids[bare.rows + 1].tolist() == bare.targets.tolist()
    np.testing.assert_array_equal(bare.positions[:, -1], laid.positions[:, -1])


def test_made_up_games_add_up(game: Game) -> None:
    """Points, streaks, games and tallies of a made-up stream follow from each other, as in a real one."""
    for seed, dense in enumerate((True, False)):
        rng = random.Random(seed)
        about = game.draw_context(rng)
        told = texts.story(rng, habits_of(game.name), about, 400, dense=dense)
        said = [stories.words(game, events) for events in told]
        assert stories.contradicted(game, told, said) == set()
        kinds = {event.kind for events in told for event in events}
        assert kinds >= {"point", "score", "game", "tally"}
        assert not any(event.kind == "match" and event.town is None for events in told for event in events)


def test_dense_games_have_more_points(game: Game) -> None:
    def points(*, dense: bool) -> int:
        rng = random.Random(3)
        told = texts.story(rng, habits_of(game.name), game.draw_context(rng), 400, dense=dense)
        return sum(event.kind == "point" for events in told for event in events)

    assert points(dense=True) > 1.5 * points(dense=False)


def test_brief_games_begin_where_nobody_can_win_at_once(game: Game) -> None:
    starts = texts._starts(game)
    assert (0, 0) in starts
    for scores in starts:
        for side in (0, 1):
            assert game.rules.winner((scores[0] + (side == 0), scores[1] + (side == 1))) is None


def test_spoiling_leaves_points_and_what_follows_from_them(game: Game) -> None:
    rng = random.Random(2)
    told = texts.story(rng, habits_of(game.name), game.draw_context(rng), 200)
    spoiled = stories.spoil(rng, habits_of(game.name), told, stories.Spoil(digits=0.0))
    assert spoiled != told
    for kind in COMMON:
        assert [[e for e in s if e.kind == kind] for s in spoiled] == [[e for e in s if e.kind == kind] for s in told]
    assert all(game.language.parse(stories.words(game, events)) for events in spoiled if events)


def test_clauses_are_the_words_of_the_reply(grammar: Grammar, game: Game) -> None:
    scribe, rng = stories.Scribe(grammar), random.Random(4)
    told = texts.story(rng, habits_of(game.name), game.draw_context(rng), 300)
    for events in told:
        reply, clauses = scribe.reply(stories.words(game, events)), scribe.clauses(game, events)
        words = [token for clause in clauses for token in clause.ids]
        assert list(reply) == [*grammar.opening, *words, *grammar.closing, grammar.marks.turn_end]
        assert len(scribe.weigh(game, events)) == len(reply)
        assert len(texts.told_weights(scribe, game, events, texts.told_kinds(game))) == len(reply)


def test_the_id_that_decides_on_a_name_counts_more(grammar: Grammar, game: Game) -> None:
    scribe, colour = stories.Scribe(grammar), game.colours[0]
    for name in (None, "Mina"):
        events = [GameEvent("point", colour), GameEvent("game", colour, name=name)]
        weights, reply = scribe.weigh(game, events), scribe.reply(stories.words(game, events))
        (at,) = [i for i, weight in enumerate(weights) if weight == scribe.weights.named]
        assert grammar.tokenizer.decode([reply[at]]).strip() == ("player" if name else colour)


def test_drills_hold_what_they_teach(grammar: Grammar, game: Game) -> None:
    scribe, rng = stories.Scribe(grammar), random.Random(5)
    proper = drills.names(scribe)
    lines = [drills.lines(rng, scribe, game).laid for _ in range(20)]
    assert {token for laid in lines for token in laid.targets.tolist()} <= proper
    call = drills.roll_call(rng, scribe, habits_of(game.name), SINK, TEXT, 20).laid
    assert set(call.targets[call.weights > 0].tolist()) <= proper
    ledger = drills.ledger(rng, scribe, habits_of(game.name)).laid
    assert ledger.ids[ledger.rows + 1].tolist() == ledger.targets.tolist()


def test_a_verdict_follows_from_the_tally_and_the_length_of_a_match(grammar: Grammar, game: Game) -> None:
    scribe, rng, seen = stories.Scribe(grammar), random.Random(5), set()
    for _ in range(60):
        laid = drills.verdict(rng, scribe, habits_of(game.name), 96, TEXT).laid
        (asked,) = laid.targets[laid.weights > 0].tolist()
        (row,) = laid.rows[laid.weights > 0].tolist()
        text = grammar.tokenizer.decode(laid.ids[: row + 1].tolist())
        about = game.parse_context(text)
        assert about is not None
        assert text.count(f"{about.games} ") == 2, "one tally, and the length of the match"
        won = max(int(number) for number in text.rsplit(f"{about.games} ", 1)[1].split(" to "))
        assert asked == (scribe.joiner if won == about.games_to_win else grammar.closing[0])
        seen.add((about.games_to_win, won))
    assert seen == {(length, won) for length in game.rules.lengths for won in (1, 2)}


def test_probes_are_labelled_from_words_and_memory(game: Game) -> None:
    recording, sizes = recorded(game.name), probes.probes(game)
    labels = probes.probe_labels(recording)
    assert labels.shape == (len(recording), len(sizes))
    assert all(labels[:, i].min() >= -1 and labels[:, i].max() < n for i, n in enumerate(sizes.values()))
    column = dict(zip(sizes, labels.T, strict=True))
    for kind in (*probes.plays(game), "point"):
        told = [any(event.kind == kind for event in events) for events in recording.events]
        assert (column[kind] > 0).tolist() == told
        if kind != "point":
            near = [second for second in range(len(told) - 1) if told[second + 1]]
            assert not column[f"{kind} ahead"][near].any()


def test_probes_of_several_games_stand_side_by_side() -> None:
    board = probes.Board(ALL)
    for each in ALL:
        labels = probes.probe_labels(recorded(each.name))
        spread = board.spread(each, labels)
        assert spread.shape == (len(labels), len(board.sizes))
        assert (spread[:, board.parts[each.name]] == labels).all()
        assert (spread >= 0).sum() == (labels >= 0).sum()


def test_what_contradicts_the_models_own_words_is_left_out() -> None:
    truth = [
        PONG.language.parse(text)
        for text in ("green scores ; score 1 to 0", "", "green scores ; score 2 to 0 ; green 3 in a row")
    ]
    game = PONG.language.parse("green scores ; score 5 to 1 ; game player green Mina ; games 1 to 0")
    assert stories.contradicted(PONG, [*truth, game], ["green scores", "", "green scores", "green scores"]) == {2}
    assert (
        stories.contradicted(PONG, [*truth, game], ["green scores ; green 2 in a row", "green scores", "", ""]) == set()
    )
    assert stories.contradicted(PONG, [*truth, game], ["green scores ; games 1 to 0", "green scores", "", ""]) == {3}


def test_every_game_is_counted_in_its_own_colours() -> None:
    truth = [BOXING.language.parse("black lands ; score 2 to 6 ; round black ; rounds 1 to 1")]
    assert stories.contradicted(BOXING, [[], *truth], ["white lands ; round player white Mina", ""]) == set()
    assert stories.contradicted(BOXING, [[], *truth], ["black lands ; round player black Mina", ""]) == {1}
