"""What other packages register: found by name, and one line where it is broken."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from streamingvlm.core import plugins
from streamingvlm.core.errors import SourceError
from streamingvlm.core.plugins import load, registered


def entry(name: str, value: str, kind: str = "sources") -> EntryPoint:
    return EntryPoint(name, value, f"streamingvlm.{kind}")


def register(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: [one for one in entries if one.group == group])


def test_what_is_registered_is_found_by_its_kind_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, entry("b", "json:loads"), entry("a", "json:dumps"), entry("c", "json:load", "tasks"))
    assert list(registered("sources")) == ["a", "b"]
    assert list(registered("tasks")) == ["c"]
    assert load(registered("sources")["a"], SourceError)([1]) == "[1]"
    assert registered("commands") == {}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no.such.module:opener", "cannot be loaded: ModuleNotFoundError: No module named"),
        ("json:nothing", "cannot be loaded: AttributeError"),
        ("json:__name__", "is no function or class"),
    ],
)
def test_a_broken_one_is_one_line(value: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        load(entry("x", value), SourceError)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"'x' ({value}, of an unknown package) in streamingvlm.sources")
    assert words in line


def test_a_name_that_two_packages_use_is_refused_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, entry("a", "json:loads"), entry("a", "json:dumps"), entry("b", "json:load"))
    found = registered("sources")
    assert callable(load(found["b"], SourceError))
    with pytest.raises(SourceError, match="two packages use this name"):
        load(found["a"], SourceError)
