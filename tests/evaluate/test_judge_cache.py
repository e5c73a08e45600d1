"""Verdicts that are kept by content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import SourceError
from streamingvlm.evaluate.judging.cache import Cache, verdict_key

IDENTITY: dict[str, Any] = {"judge": "j", "host": "h", "prompt": "p", "parameters": {"seed": 1, "temperature": 0.0}}


def test_a_key_is_of_all_that_a_verdict_depends_on() -> None:
    base = verdict_key(IDENTITY, "one", "two", "three", 0)
    assert base == verdict_key(dict(reversed(IDENTITY.items())), "one", "two", "three", 0)
    others = [
        *(verdict_key(IDENTITY | {name: "other"}, "one", "two", "three", 0) for name in IDENTITY),
        verdict_key(IDENTITY, "two", "one", "three", 0),
        verdict_key(IDENTITY, "onetwo", "", "three", 0),
        verdict_key(IDENTITY, "one", "two", "four", 0),
        verdict_key(IDENTITY, "one", "two", "three", 1),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_what_was_put_is_there_after_any_cut(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.jsonl"
    cache = Cache(path)
    assert not path.exists()
    for number in range(3):
        cache.put(f"k{number}", {"winner": "A", "call": {"reply": "é" * number}})
    cache.close()
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        again = Cache(path)
        kept = [number for number in range(3) if again.get(f"k{number}")]
        assert len(kept) >= whole[:length].count(b"\n")
        again.put("k9", {"winner": "B"})
        again.close()
        after = Cache(path)
        assert [number for number in range(3) if after.get(f"k{number}")] == kept
        assert after.get("k9") == {"key": "k9", "winner": "B"}


def test_a_folder_is_no_cache(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        Cache(tmp_path)
