"""How much of a text was said before: repeated lines, distinct n-grams, the longest repeat."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Words with what joins their parts: "don't", "full-back".
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
#: Of the rolling hash: a Mersenne prime, and any base below it.
_PRIME, _BASE = (1 << 61) - 1, 1_000_003
_END = re.compile(r"(?<=[.?!])\s+")


def words_of(text: str) -> list[str]:
    """Words in lower case, without what stands around them."""
    return _WORD.findall(text.lower())


def sentences_of(text: str) -> list[str]:
    """What ends with a full stop, a question or an exclamation mark, and the rest."""
    return [part for part in _END.split(text.strip()) if part]


def repeated_lines(lines: Sequence[str]) -> tuple[int, int]:
    """Lines whose words are those of an earlier one, and all lines; lines without words do not count."""
    spoken = [words for line in lines if (words := tuple(words_of(line)))]
    return len(spoken) - len(set(spoken)), len(spoken)


def distinct(words: Sequence[str], n: int) -> float | None:
    """Different n-grams as a share of all n-grams (None: fewer than n words)."""
    total = len(words) - n + 1
    return len({tuple(words[i : i + n]) for i in range(total)}) / total if total > 0 else None


def longest_repeat(words: Sequence[str]) -> int:
    """Words of the longest sequence that is said again later, not overlapping itself.

    A binary search over the length: if a sequence is repeated, so is any part of it.
    """
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words), 1)}
    sums, powers = [0], [1]
    for word in words:
        sums.append((sums[-1] * _BASE + numbers[word]) % _PRIME)
        powers.append(powers[-1] * _BASE % _PRIME)
    low, high = 0, len(words) // 2
    while low < high:
        middle = (low + high + 1) // 2
        if _has_repeat(sums, powers[middle], middle):
            low = middle
        else:
            high = middle - 1
    return low


def _has_repeat(sums: Sequence[int], power: int, length: int) -> bool:
    first: dict[int, int] = {}
    for start in range(len(sums) - length):
        code = (sums[start + length] - sums[start] * power) % _PRIME
        if start - first.setdefault(code, start) >= length:
            return True
    return False
