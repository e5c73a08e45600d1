"""Helpers of the tests of training."""

from __future__ import annotations

from functools import cache
from typing import Any

from streamingvlm.models.checkpoint import HFTokenizer
from streamingvlm.prompt import Grammar, Marks
from streamingvlm.train.arcade import tokens


@cache
def arcade_tokenizer() -> Any:
    """A freshly trained tokenizer."""
    corpus, words = tokens.arcade_corpus(lines=1000)
    return tokens.build(corpus, words, 1400)


def arcade_grammar() -> Grammar:
    """The grammar of inference with it."""
    tokenizer = arcade_tokenizer()
    names = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
    marks = Marks(*(tokenizer.convert_tokens_to_ids(name) for name in names))
    return Grammar(HFTokenizer(tokenizer), marks, system="")
