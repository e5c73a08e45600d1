"""Rules as users write them: one line of text each, or a JSON or TOML file.

A line is ``NAME: WHAT`` or ``NAME: says: REGEX``, then any number of ``; key=value``::

    fall: a person is lying on the floor; on_after=2; cooldown=60; until=raised
    goal: says: \\bgoal\\b; off_after=5

A ``;`` that no ``key=value`` follows belongs to the text. A file holds the same as tables, with the options of an asked
rule beside them::

    [[rules]]
    name = "ahead"
    ask = "green is ahead"
    question = "-"
    as_commentary = true
    options = { yes = ["green leads"], no = ["orange leads", "level"] }
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..core.errors import OptionError
from .limits import RULE_FILE, RULES
from .rules import RAISED, VERDICTS, AskedRule, RuleSpec, SaysRule

#: ``; key=value`` at the end of a line.
_OPTION = re.compile(r";\s*([A-Za-z_]+)\s*=([^;]*)$")
#: What a line may set, and how it is read.
_NUMBERS = {"on_after": int, "off_after": int, "cooldown": float, "merge_gap": float, "max_event": float}
_ASKED_NUMBERS = {"every": float, "threshold": float}
_TABLE_KEYS = ("name", "ask", "says", "options")


def parse_rule(line: str) -> RuleSpec:
    """The rule that a line says. OptionError, in one line, if it says none."""
    name, colon, rest = line.partition(":")
    if not colon:
        raise OptionError(f"a rule is 'NAME: WHAT' or 'NAME: says: REGEX', not {line[:200]!r}")
    values: dict[str, str] = {}
    while (found := _OPTION.search(rest)) is not None:
        if found[1] in values:
            raise OptionError(f"rule {name.strip()!r}: {found[1]} is set twice")
        values[found[1]], rest = found[2].strip(), rest[: found.start()]
    text = rest.strip()
    said = re.match(r"says\s*:", text)
    kind = AskedRule if said is None else SaysRule
    numbers: Mapping[str, type] = _NUMBERS if said is not None else _NUMBERS | _ASKED_NUMBERS
    name = name.strip()
    _check_keys(name, values, [*numbers, "until"])
    options = {key: _number(name, key, value, numbers[key]) for key, value in values.items() if key != "until"}
    if "until" in values:
        until = values["until"]
        options["until"] = until if until in ("", RAISED) else _number(name, "until", until, float)
    return kind(name=name, text=text if said is None else text[said.end() :].strip(), **options)


def read_rules(path: Path) -> list[RuleSpec]:
    """The rules of a file: TOML if it is called so, else JSON. OptionError, in one line, for what is none."""
    try:
        if path.stat().st_size > RULE_FILE:
            raise OptionError(f"{path} has more than {RULE_FILE} bytes, too many for a file of rules")
        text = path.read_text(encoding="utf-8")
        value = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except OSError as error:
        raise OptionError(f"cannot read the rules in {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        wanted = "TOML" if path.suffix.lower() == ".toml" else "JSON (a file of TOML is called .toml)"
        raise OptionError(f"{path} is no {wanted}: {error}") from None
    tables = value.get("rules") if isinstance(value, dict) and value.keys() == {"rules"} else value
    if not isinstance(tables, list):
        raise OptionError(f'{path} must hold a list of rules: {{"rules": [...]}} or [[rules]]')
    try:
        return check_rules([parse_rule(one) if isinstance(one, str) else rule_of(one) for one in tables])
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from None


def rule_of(table: object) -> RuleSpec:
    """The rule that a table of a file says; also what :attr:`RuleSpec.record` gives. OptionError if it says none."""
    if not isinstance(table, Mapping):
        raise OptionError(f"a rule is a table or a line of text, not {table!r}")
    name = table.get("name")
    if not isinstance(name, str) or ("ask" in table) == ("says" in table):
        raise OptionError(f"a rule has a name, and either 'ask' or 'says', not {sorted(map(str, table))}")
    kind: type[AskedRule] | type[SaysRule] = AskedRule if "ask" in table else SaysRule
    known = [one.name for one in fields(kind) if one.name not in ("name", "text")]
    extra = ["ask", "options"] if kind is AskedRule else ["says"]
    _check_keys(name, table, ["name", *extra, *known])
    values = {key: _field(name, key, value) for key, value in table.items() if key not in _TABLE_KEYS}
    if "options" in table:
        values |= _options(name, table["options"])
    text = table["ask" if kind is AskedRule else "says"]
    if not isinstance(text, str):
        raise OptionError(f"rule {name!r}: what it watches for is a text, not {text!r}")
    return kind(name=name, text=text, **values)


def check_rules(rules: Iterable[RuleSpec]) -> list[RuleSpec]:
    """``rules`` as a list. OptionError for more than ``RULES`` of them, or two of one name."""
    checked = list(rules)
    names = [rule.name for rule in checked]
    if len(names) > RULES:
        raise OptionError(f"a stream has at most {RULES} rules, not {len(names)}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"two rules are called {twice!r}")
    return checked


def _check_keys(name: str, given: Iterable[Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise OptionError(f"rule {name!r} has an unknown key {key!r} (known: {', '.join(known)})")


def _number(name: str, key: str, text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        more = f" or '{RAISED}'" if key == "until" else ""
        raise OptionError(f"rule {name!r}: {key} must be {what}{more}, not {text!r}") from None


def _field(name: str, key: str, value: Any) -> Any:
    """A value of a table as the rule's field holds it; numbers are checked by the rule."""
    if key in VERDICTS:
        return _texts(name, key, value)
    if key in ("question", "prefix") and not isinstance(value, str):
        raise OptionError(f"rule {name!r}: {key} must be a text, not {value!r}")
    if key == "as_commentary" and not isinstance(value, bool):
        raise OptionError(f"rule {name!r}: as_commentary must be true or false, not {value!r}")
    return value


def _options(name: str, value: Any) -> dict[str, tuple[str, ...]]:
    """Options by verdict: a table, or a list of the one that means yes, the one that means no, and unknown."""
    if isinstance(value, list) and len(value) in (2, 3):
        value = dict(zip(VERDICTS, value, strict=False))
    if not isinstance(value, dict) or not {"yes", "no"} <= value.keys() <= set(VERDICTS):
        raise OptionError(f"rule {name!r}: options is a table with yes, no and unknown, or a list of three texts")
    return {one: _texts(name, one, value.get(one, [])) for one in VERDICTS}


def _texts(name: str, key: str, value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(one, str) for one in texts):
        raise OptionError(f"rule {name!r}: {key} must be a text or a list of texts, not {value!r}")
    return tuple(texts)
