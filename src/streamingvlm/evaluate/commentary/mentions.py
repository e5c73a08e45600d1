"""Names and numbers that a text says, by a plain rule, and those that nothing else of its window says.

A **name** is a word that begins with a capital, has at least two letters, does not begin a sentence (the text's first
word, and whatever follows ``. ? ! … :`` or a line's end, begins one) and is not one of :data:`COMMON`. ``'s`` at its
end is no part of it. A **number** is a row of digits, or a number word up to ``million``; ``twenty-one`` and ``twenty
one`` are 21, ``2-1`` is 2 and 1. ``one`` alone is no number: it mostly stands for a thing.

A name is supported if the reference or the title has that word, a number if they have that value, all compared in
lower case; there ``one`` is 1. Names at the beginning of sentences are not seen; a name that speech recognition has
misspelt in the reference counts as unsupported. So the shares compare contestants, and are no count of errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_COMMON = (
    "i i'm i've i'll i'd mr mrs ms dr sir oh ok okay yes no wow god tv monday tuesday wednesday thursday friday "
    "saturday sunday january february march april may june july august september october november december"
)
#: Words in lower case that have a capital without being names: "I", titles, exclamations, days, months.
COMMON = frozenset(_COMMON.split())
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
#: Number words and their values.
NUMBERS = {word: value for value, word in enumerate(_SMALL.split())}
NUMBERS |= {word: 10 * tens for tens, word in enumerate(_TENS.split(), 2)}
NUMBERS |= {"nil": 0, "hundred": 100, "thousand": 1000, "million": 1_000_000}
#: A number with its separators ("1,000", "3.5"), or a word of letters ("O'Neill").
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.?!…:\n]")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Mentions:
    """What a text says, in its order, in lower case."""

    names: Sequence[str]
    numbers: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    between: str
    first: bool

    @property
    def low(self) -> str:
        return self.text.lower().replace("’", "'").removesuffix("'s")

    @property
    def begins(self) -> bool:
        return self.first or _SENTENCE_END.search(self.between) is not None


def mentions(text: str) -> Mentions:
    """The names and numbers of a text."""
    tokens = list(_tokens(text))
    names = [token.low for token in tokens if _is_name(token)]
    return Mentions(names, list(_numbers(tokens, alone=False)))


def unsupported(said: Mentions, *sources: str) -> Mentions:
    """Those that none of the texts has."""
    words: set[str] = set()
    values: set[str] = set()
    for source in sources:
        tokens = list(_tokens(source))
        words |= {token.low for token in tokens}
        values |= set(_numbers(tokens, alone=True))
    return Mentions(
        [name for name in said.names if name not in words],
        [number for number in said.numbers if number not in values],
    )


def _tokens(text: str) -> Iterator[_Token]:
    end = 0
    for number, found in enumerate(_TOKEN.finditer(text)):
        yield _Token(found[0], text[end : found.start()], number == 0)
        end = found.end()


def _is_name(token: _Token) -> bool:
    return (
        token.text[0].isupper()
        and len(token.low) > 1
        and not token.begins
        and token.low not in COMMON
        and token.low not in NUMBERS
    )


def _numbers(tokens: Sequence[_Token], *, alone: bool) -> Iterator[str]:
    """Values as texts; ``alone``: whether ``one`` by itself is one of them."""
    tens = 0
    for place, token in enumerate(tokens):
        value = NUMBERS.get(token.low)
        follows = place + 1 < len(tokens) and _joins(tokens[place + 1])
        if token.text[0].isdigit():
            yield _digits(token.text)
        elif value is None:
            pass
        elif 20 <= value <= 90 and follows:
            tens = value
            continue
        elif value != 1 or tens or alone:
            yield str(tens + value)
        tens = 0


def _joins(token: _Token) -> bool:
    """Whether a token is the "one" of "twenty-one"."""
    return 1 <= NUMBERS.get(token.low, 0) <= 9 and token.between.strip(" ") in ("", "-", "‑")


def _digits(text: str) -> str:
    """A number without separators of thousands and zeros in front."""
    plain = text.replace(",", "") if _THOUSANDS.fullmatch(text) else text
    return plain.lstrip("0") or "0" if plain.isascii() and plain.isdigit() else plain
