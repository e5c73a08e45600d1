"""What a reply says: the strict parser, one for every form of answer.

``strict`` is the same for every benchmark: a reply counts as an answer only where exactly one answer can be read from
it. An empty reply, a refusal, or two different answers are *unparsed*, and unparsed is wrong. The rule with which a
benchmark publishes its own figures is called ``official`` and lives in that benchmark's module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ...core.errors import OptionError
from .items import LETTERS, Form, Item, Reply

#: Names of the two parsers that every benchmark has.
OFFICIAL, STRICT = "official", "strict"


class Mark(NamedTuple):
    """What one reply is worth. ``value``: 0 to 1, or None: left out of the count; ``parsed``: an answer was read."""

    value: float | None
    parsed: bool


#: Marks the reply to an item. It is called with replies that are there, ``text`` may be None (a call that failed).
Rule = Callable[[Item, Reply], Mark]

_SPACES = re.compile(r"\s+")
_DECORATION = re.compile(r"[*_`#]+|\\boxed\{|\\text\{")
_EDGES = " \t\r\n.,;:!?\"'()[]{}<>“”‘’"
_LEAD = r"(?:(?:the|my)\s+)?(?:(?:final|correct|best|right)\s+)*(?:answer|option|choice)"
#: Words in front of an answer: "Answer:", "The best option is", "option".
_PHRASE = re.compile(rf"^\s*(?:(?:so|therefore|thus)[, ]+)?{_LEAD}\s*(?:(?:is|would be)\b)?\s*[:=-]?\s*", re.IGNORECASE)
_LETTER = f"([{LETTERS}])"
#: Places where a letter stands for an option, whatever surrounds it.
_MARKED = (
    re.compile(rf"^\W*{_LETTER}\s*(?:[.):,;\]}}]|-\s|$)"),
    re.compile(rf"^\W*option\s+{_LETTER}\b", re.IGNORECASE),
    re.compile(rf"[(\[]{_LETTER}[)\]]"),
    re.compile(rf"(?i:{_LEAD}\s*(?:(?:is|would be)\b)?\s*[:=-]?)\s*[(\[]?{_LETTER}(?![\w'’])(?!\s+[a-z])"),
    re.compile(rf"\b{_LETTER}\s+(?:is|would be)\s+(?:the\s+)?(?:correct|right|best|answer)"),
)
#: A single capital. "A" before a lower-case word is the article (but not in "A or B"); "I" is the speaker.
_CAPITAL = re.compile(r"(?<![\w'’])([B-HJ]|A(?!\s+(?!or\b|and\b)[a-z]))(?![\w'’])")
_DENIED = re.compile(
    rf"(?:\b(?:not|neither|nor|except|rather than|instead of)|n['’]t(?:\s+be)?)\s+(?:option\s+)?[(\[]?{_LETTER}\b"
    rf"|\b{_LETTER}[)\].]?\s+(?:is|are|was|would be)(?:\s+not\b|n['’]t\b|\s+(?:wrong|incorrect|false)\b)"
)
_NO_ANSWER = re.compile(r"^no[\s,.]+(?:idea|answer|comment|information|clue|way to)\b")
_NUMBER = re.compile(r"(?<![\w.,])-?\d+(?:[.,]\d+)*(?!\w)|\d+")
#: "2-3", "2 to 3", "1/2": no single number; "3rd" tells which one, not how many.
_RANGE = re.compile(r"\d\s*(?:[-–~/:]|to)\s*\d|\d(?:st|nd|rd|th)\b")
_NUMBER_WORDS = {"zero": 0, "never": 0, "one": 1, "once": 1, "two": 2, "twice": 2, "three": 3, "four": 4, "five": 5}
_NUMBER_WORDS |= {"six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13}


def strict(item: Item, reply: Reply) -> Mark:
    """The strict rule. For proactive items also the time counts; one that is never answered is wrong, not unparsed."""
    answer = read(item, reply)
    if item.form is Form.PROACTIVE:
        right = answer == item.answer and in_time(item, reply)
        return Mark(float(right), answer is not None or (reply.time is None and reply.text is not None))
    return Mark(float(answer == item.answer), answer is not None)


def read(item: Item, reply: Reply) -> str | None:
    """The one answer that a reply gives, in the form of ``item.answer``; None: none, or more than one.

    Where options were scored by likelihood and there is no text, it is the likeliest choice (None: a tie).
    """
    if reply.text is None:
        return likeliest(reply.probabilities, item.choices)
    match item.form:
        case Form.CHOICE:
            return read_choice(reply.text, item.options)
        case Form.YES_NO:
            return read_yes_no(reply.text)
        case Form.COUNT:
            return read_count(reply.text)
        case Form.PROACTIVE:
            return read_proactive(reply.text, item.answer)


def read_choice(text: str, options: Sequence[str]) -> str | None:
    """The letter of the one option that ``text`` chooses: by its letter, or by its exact words."""
    text = _undecorated(text)
    letters = LETTERS[: len(options)]
    alone = text.strip(_EDGES)
    if len(alone) == 1 and alone.upper() in letters:
        return alone.upper()
    rest = _PHRASE.sub("", text, count=1)
    bare = rest.strip(_EDGES)
    if rest != text and len(bare) == 1 and bare.upper() in letters:
        return bare.upper()
    lead = _MARKED[0].match(rest)
    if lead is not None and lead[1] in letters and lead[1] in _options_equal(rest[lead.end() :], options):
        return lead[1]
    named = _options_equal(rest, options)
    if len(named) == 1 and (lead is None or lead[1] not in letters):
        return named[0]
    marked = {group for pattern in _MARKED for group in pattern.findall(text)}
    if len(marked) != 1 or (letter := marked.pop()) not in letters:
        return named[0] if len(named) == 1 and not marked else None
    return letter if _stands_alone(text, rest, letter, options) else None


def _stands_alone(text: str, rest: str, letter: str, options: Sequence[str]) -> bool:
    """Whether what stands beside the letter does not speak for another option."""
    behind = re.sub(rf"^\W*(?:option\s+)?{letter}\b", "", rest, count=1, flags=re.IGNORECASE)
    named = _options_equal(behind, options)
    if named:
        return letter in named
    if _DENIED.search(text):
        return False
    return not (set(_CAPITAL.findall(text)) - {letter}) & set(LETTERS[: len(options)])


def read_yes_no(text: str) -> str | None:
    """``Yes`` or ``No`` where the reply begins with one of them (Y and N alone too) and does not hold the other."""
    plain = _PHRASE.sub("", _undecorated(text), count=1).strip(_EDGES).lower()
    if plain in {"y", "n"}:
        return {"y": "Yes", "n": "No"}[plain]
    words = re.findall(r"[a-z]+", plain)
    if not words or words[0] not in {"yes", "no"} or _NO_ANSWER.match(plain):
        return None
    return words[0].capitalize() if len({"yes", "no"} & set(words)) == 1 else None


def read_count(text: str) -> str | None:
    """The only whole number in the reply, in digits or as a word ("twice"), without leading zeros."""
    plain = _undecorated(text).lower()
    if _RANGE.search(plain):
        return None
    found = _NUMBER.findall(plain)
    if not all(re.fullmatch(r"\d{1,18}", number) for number in found):
        return None
    said = [_NUMBER_WORDS[word] for word in re.findall(r"[a-z]+", plain) if word in _NUMBER_WORDS]
    numbers = {int(number) for number in found} | set(said)
    return str(numbers.pop()) if len(numbers) == 1 else None


def read_proactive(text: str, answer: str) -> str | None:
    """``answer`` if its words stand together in the reply (no matter what case); None if the reply is empty or only
    other words: what was said is then not what had to be said."""
    said, wanted = _plain_words(text), _plain_words(answer)
    width = len(wanted)
    places = range(len(said) - width + 1)
    return answer if width and any(said[place : place + width] == wanted for place in places) else None


def in_time(item: Item, reply: Reply) -> bool:
    """Whether a proactive reply came within the tolerance (``item.about["tolerance"]``, seconds) of its time."""
    if reply.time is None or item.truth_time is None:
        return False
    return abs(reply.time - item.truth_time) <= float(item.about.get("tolerance", 2.0)) + 1e-9


def likeliest(probabilities: Mapping[str, float], choices: Sequence[str]) -> str | None:
    """The choice with the highest probability; None where two share it or none was scored."""
    scored = [(probabilities[choice], choice) for choice in choices if choice in probabilities]
    if not scored:
        return None
    best = max(scored)[0]
    winners = [choice for value, choice in scored if value == best]
    return winners[0] if len(winners) == 1 else None


def pick(rules: Mapping[str, Rule], parser: str) -> Rule:
    """The rule of that name. OptionError names those that there are."""
    if parser not in rules:
        raise OptionError(f"unknown parser {parser!r}; it is one of: {', '.join(sorted(rules))}")
    return rules[parser]


def _undecorated(text: str) -> str:
    return _DECORATION.sub("", text).strip()


def _plain(text: str) -> str:
    return _SPACES.sub(" ", text).strip(_EDGES).casefold()


def _plain_words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _options_equal(text: str, options: Sequence[str]) -> list[str]:
    """Letters of the options whose words are exactly ``text``."""
    plain = _plain(text.lstrip(" -–:.)];,"))
    return [letter for letter, option in zip(LETTERS, options, strict=False) if plain and _plain(option) == plain]
