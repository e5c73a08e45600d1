"""Helpers of the tests of training."""

from __future__ import annotations

from functools import cache
from typing import Any

from arcade_streams.recipe import tokens
from arcade_streams.recipe.habits import Habits
from arcade_streams.recipe.record import Recording, record
from arcade_streams.worlds.games import GAMES
from streamingvlm.core.grammar import Grammar, Marks
from streamingvlm.models.checkpoint import HFTokenizer

ALL = tuple(GAMES.values())


@cache
def arcade_tokenizer() -> Any:
    """A freshly trained tokenizer."""
    corpus, words = tokens.arcade_corpus(ALL, lines=1000)
    return tokens.build(corpus, words, 2048)


def arcade_grammar() -> Grammar:
    """The grammar of inference with it."""
    tokenizer = arcade_tokenizer()
    names = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
    marks = Marks(*(tokenizer.convert_tokens_to_ids(name) for name in names))
    return Grammar(HFTokenizer(tokenizer), marks, system="")


@cache
def recorded(name: str, seconds: int = 90) -> Recording:
    """The beginning of a stream of a game, without pictures."""
    return record(GAMES[name], 5, seconds, render=False)


@cache
def habits_of(name: str) -> Habits:
    """How a game goes in that recording."""
    return Habits.of(GAMES[name], [recorded(name).events])
