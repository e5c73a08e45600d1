"""What every game of the arcade keeps: determinism, its labels' form, silence, no drift, the ceiling."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import pytest

pytest.importorskip("ale_py")

from arcade_streams.score.ceiling import ceiling
from arcade_streams.score.survey import survey
from arcade_streams.worlds.game import Game
from arcade_streams.worlds.games import GAMES, find_game
from arcade_streams.worlds.language import COMMON, GameEvent
from arcade_streams.worlds.stream import GameStream, Second
from streamingvlm.core.errors import SourceError

SECONDS = 1200


@pytest.fixture(scope="module", params=GAMES.values(), ids=lambda game: game.name)
def game(request: pytest.FixtureRequest) -> Game:
    found: Game = request.param
    return found


@pytest.fixture(scope="module")
def long(game: Game) -> list[Second]:
    """Twenty minutes."""
    return list(islice(GameStream(game, 21, render=False), SECONDS))


def test_the_same_seed_gives_the_same_stream(game: Game) -> None:
    one, two = (list(islice(GameStream(game, 5), 12)) for _ in range(2))
    assert [s.text for s in one] == [s.text for s in two]
    assert all((a.frames == b.frames).all() for a, b in zip(one, two, strict=True))
    assert [s.labels for s in one] == [s.labels for s in two]
    other = list(islice(GameStream(game, 6), 12))
    assert any((a.frames != b.frames).any() for a, b in zip(one, other, strict=True))


def test_the_rate_changes_only_how_often_frames_are_taken(game: Game) -> None:
    slow, fast = (list(islice(GameStream(game, 5, fps=fps), 10)) for fps in (2, 30))
    assert [s.text for s in slow] == [s.text for s in fast]
    for a, b in zip(slow, fast, strict=True):
        assert a.frames.shape == (2, 210, 160, 3)
        assert b.frames.shape == (30, 210, 160, 3)
        assert a.times == (a.start, a.start + 0.5)
        assert (a.frames == b.frames[::15]).all()
        assert a.labels == b.labels[::15]


@pytest.mark.slow
def test_labels_have_the_form_that_the_game_tells(game: Game, long: list[Second]) -> None:
    for second in long:
        for label in second.labels:
            assert tuple(label.places) == game.places
            assert tuple(label.facts) == tuple(game.facts)
            assert all(-1 <= label.facts[name] < classes for name, classes in game.facts.items())
            assert 0 <= min(label.scores) <= max(label.scores) <= game.most
            for x, y in filter(None, label.places.values()):
                assert 0 <= x < 160
                assert 0 <= y < 210


@pytest.mark.slow
def test_what_is_said_is_understood(game: Game, long: list[Second]) -> None:
    assert all(game.language.parse(second.text) == game.language.in_order(second.events) for second in long)
    assert max(len(second.text.split()) for second in long) <= 31


@pytest.mark.slow
def test_about_half_of_the_seconds_are_silent(long: list[Second]) -> None:
    assert 0.35 < sum(not second.text for second in long) / SECONDS < 0.65


@pytest.mark.slow
def test_every_kind_is_said_and_none_fades(game: Game, long: list[Second]) -> None:
    halves = [long[: SECONDS // 2], long[SECONDS // 2 :]]
    early, late = (Counter(event.kind for second in half for event in second.events) for half in halves)
    assert set(early) | set(late) == set(game.language.kinds)
    assert 0.8 < early.total() / late.total() < 1.25
    assert all(early[kind] and late[kind] for kind in game.language.kinds if kind != "match")


def events(stream: list[Second], kind: str) -> list[tuple[int, GameEvent]]:
    return [(second.index, event) for second in stream for event in second.events if event.kind == kind]


@pytest.mark.slow
def test_the_counts_add_up(game: Game, long: list[Second]) -> None:
    run, games = ("", 0), [0, 0]
    for second in long:
        for event in second.events:
            if event.kind == "point":
                run = (str(event.colour), run[1] + 1 if run[0] == event.colour else 1)
            elif event.kind == "streak":
                assert (event.colour, event.numbers) == (run[0], (run[1],))
            elif event.kind == "game":
                assert (event.name is not None) == (games == [0, 0])
                games[game.colours.index(str(event.colour))] += 1
            elif event.kind == "tally":
                assert event.numbers == tuple(games)
            elif event.kind == "match":
                assert max(games) == game.context(21).games_to_win
                games = [0, 0]


@pytest.mark.slow
def test_the_score_is_counted(game: Game, long: list[Second]) -> None:
    score = [0, 0]
    for event in (event for second in long for event in second.events):
        now = score[0], score[1]
        if event.kind == "point":
            score = [0, 0] if game.rules.winner(now) is not None else score
            score[game.colours.index(str(event.colour))] += 1
        elif event.kind == "score":
            assert event.numbers == game.rules.said(now)
        elif event.kind == "game":
            assert game.rules.winner(now) == game.colours.index(str(event.colour))


@pytest.mark.slow
def test_counts_reach_beyond_the_vision_window(long: list[Second]) -> None:
    """A tally is 17 s or more behind the one before it, and near enough for a window of some hundred words."""
    gaps = [b - a for (a, _), (b, _) in pairwise(events(long, "tally"))]
    assert min(gaps) > 16
    assert max(gaps) < 150


@pytest.mark.slow
def test_names_and_towns_are_rare(long: list[Second]) -> None:
    rare = [(at, event.name or event.town) for kind in ("game", "match") for at, event in events(long, kind)]
    for word in {word for _, word in rare if word}:
        times = [at for at, said in rare if said == word]
        assert all(b - a > 120 for a, b in pairwise(times))


@pytest.mark.slow
def test_a_reader_of_two_frames_a_second_can_tell_nearly_everything(game: Game) -> None:
    figures = ceiling(game, [31], 300)
    assert figures["micro_f1_strict"] > 0.96
    assert figures["micro_f1"] > 0.98
    assert figures["names"] in (None, 1.0)
    assert figures["chance"]["micro_f1_strict"] < 0.15
    assert set(figures["by_kind"]) - set(COMMON)


@pytest.mark.slow
def test_the_survey_counts_what_is_said(game: Game, long: list[Second]) -> None:
    figures = survey(game, [21], 300)
    counts = Counter(event.kind for second in long[:300] for event in second.events)
    assert figures["per_minute"] == {kind: counts[kind] / 5 for kind in game.language.kinds}
    assert figures["silent"] == sum(not second.text for second in long[:300]) / 300
    points = [at for at, _ in events(long[:300], "point")]
    assert figures["gaps"]["point"][0] == min(b - a for a, b in pairwise(points))


def test_bad_arguments(game: Game) -> None:
    with pytest.raises(ValueError, match="fps"):
        GameStream(game, 1, fps=7)
    with pytest.raises(ValueError, match="seed"):
        GameStream(game, -1)
    with pytest.raises(SourceError, match=f"known: .*{game.name}"):
        find_game("chess")
