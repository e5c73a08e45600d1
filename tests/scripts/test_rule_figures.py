"""What the figures of rules are made of: truths, patterns of words, and which alerts are right."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from arcade_streams.worlds.games import GAMES
from arcade_streams.worlds.language import GameEvent

SCRIPT = Path(__file__).parents[2] / "scripts/rule_figures.py"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rule_figures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rule_figures"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", list(GAMES))
def test_every_wording_is_found_and_no_other(figures: ModuleType, name: str) -> None:
    game = GAMES[name]
    one, other = game.colours
    kinds = {kind.name: kind for kind in game.kinds}
    pattern = figures.pattern(kinds["point"], one, game.colours)
    games = figures.pattern(kinds["game"], None, game.colours)
    for seed in range(20):
        style = game.language.draw(random.Random(seed))

        def say(kind: str, colour: str, name: str | None = None, style: object = style) -> str:
            return game.language.say([GameEvent(kind, colour, name=name)], style)

        assert re.search(pattern, say("point", one))
        assert not re.search(pattern, say("point", other))
        assert not re.search(pattern, say("game_point", one))
        for colour in game.colours:
            assert re.search(games, say("game", colour, "Ada"))
            assert re.search(games, say("game", colour))
            assert not re.search(games, say("game_point", colour))


@pytest.mark.parametrize("name", list(GAMES))
def test_every_score_has_its_replies(figures: ModuleType, name: str) -> None:
    game = GAMES[name]
    replies = figures.replies_if_ahead(game)
    most = game.rules.points_to_win
    assert len(set(replies["yes"]) | set(replies["no"])) == 2 * most * most
    assert len(replies["yes"]) == most * (most - 1)
    for case in figures.cases_of(game):
        assert case.spec.cooldown == 0


def test_a_lead_goes_from_its_score_to_the_next(figures: ModuleType) -> None:
    def score(a: int, b: int) -> list[GameEvent]:
        return [GameEvent("score", numbers=(a, b))]

    said = [[], score(1, 0), [], score(1, 1), score(2, 1), [*score(3, 1), GameEvent("game", "x")], []]
    assert figures.of_lead(0)(said) == [(1.0, 3.0), (4.0, 5.0)]
    assert figures.of_lead(1)(said) == []
    assert figures.of_seconds("game", None)(said) == [(5.0, 6.0)]
    assert figures.of_seconds("game", "y")(said) == []


def test_an_alert_is_right_behind_a_truth_that_no_other_has_told(figures: ModuleType) -> None:
    truths = [(10.0, 11.0), (20.0, 30.0)]
    assert figures.matched(truths, [11.0, 12.0, 25.0, 9.0, 19.0], 5.0) == [1.0, 5.0]
    assert figures.matched(truths, [26.0], 5.0) == []
    assert figures.matched([], [1.0], 5.0) == []
