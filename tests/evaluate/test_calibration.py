"""Pairs with a known answer, and which judges pass on them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from streamingvlm.core.errors import SourceError
from streamingvlm.engine.endpoint import Endpoint
from streamingvlm.evaluate.judging.cache import Cache
from streamingvlm.evaluate.judging.calibration import (
    KINDS,
    STORED,
    Calibration,
    assess,
    calibration_pairs,
    table,
)
from streamingvlm.evaluate.judging.judge import Judge, Parameters
from streamingvlm.evaluate.judging.prompts import CUT, open_prompt
from support.chat_server import ChatServer, broken
from support.judges import FewGames, JudgeReply, always, fair, first, longest, make_windows

WINDOWS = make_windows()


def by_kind(windows: list | None = None) -> dict[str, list]:
    found: dict[str, list] = {kind.name: [] for kind in KINDS}
    for pair in calibration_pairs(WINDOWS if windows is None else windows, 6):
        found[pair.group].append(pair)
    return found


def test_there_are_pairs_of_every_kind_spread_over_the_data() -> None:
    found = by_kind()
    assert {name: len(pairs) for name, pairs in found.items()} == dict.fromkeys(found, 6)
    for pairs in found.values():
        assert len({pair.video for pair in pairs}) == 4
    assert calibration_pairs(WINDOWS) == calibration_pairs(WINDOWS)


def test_pairs_are_what_their_kind_says() -> None:
    references = {window.reference: window for window in WINDOWS}
    for name, pairs in by_kind().items():
        for pair in pairs:
            assert pair.a == pair.reference
            words, other = pair.a.split(), pair.b.split()
            match name:
                case "other":
                    assert references[pair.b].game != pair.video
                case "shuffled":
                    assert Counter(words) == Counter(other)
                    assert words != other
                case "doubled":
                    assert other == words * 2
                case "numbers":
                    changed = [(one, two) for one, two in zip(words, other, strict=True) if one != two]
                    assert all(one.isdigit() and two.isdigit() for one, two in changed)
                    assert len(changed) == sum(word.isdigit() for word in words)
                case "empty":
                    assert pair.b == ""
                case "same":
                    assert words == other
                    assert pair.a != pair.b


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("It is 2-1, 7 of 10", "It is 5-4, 10 of 13"),
        ("Seven men, twenty seconds", "Ten men, fifty seconds"),
        ("one of those seventeen tens", "one of those twenty tens"),
        ("$43 and 99th of U2", "$46 and 99th of U2"),
    ],
)
def test_every_number_becomes_another(text: str, changed: str) -> None:
    windows = [replace(WINDOWS[0], reference=f"{text} {'and so they go on ' * 5}".strip())]
    (pair,) = by_kind(windows)["numbers"]
    assert pair.b.startswith(changed)


def test_texts_that_give_no_pair_give_none() -> None:
    plain = [replace(window, reference=re.sub(r"\d", "", "a b c d e f " * 4), game="g") for window in WINDOWS]
    found = by_kind(plain)
    assert [name for name, pairs in found.items() if not pairs] == ["other", "shuffled", "numbers"]
    long = [replace(WINDOWS[0], reference="word " * (CUT // 8))]
    assert not by_kind(long)["doubled"]
    assert calibration_pairs([replace(WINDOWS[0], reference="too short")]) == []


@contextmanager
def calibration(reply: JudgeReply, folder: Path, server: ChatServer | None = None) -> Iterator[Calibration]:
    with (
        server or ChatServer(reply) as running,
        closing(Cache(folder / "cache.jsonl")) as cache,
        Endpoint(running.url, "judge", key=None, retries=0) as endpoint,
    ):
        judge = Judge(endpoint, open_prompt("inf-streams/1"), Parameters(), cache, repeats=3)
        judge.prepare()
        yield Calibration(judge, FewGames(), folder)


@pytest.mark.parametrize(
    ("reply", "failed"),
    [
        (fair, []),
        (first, ["other", "shuffled", "doubled", "numbers"]),  # always a tie
        (always("A"), ["other", "shuffled", "doubled", "numbers"]),
        (always("B"), ["other", "shuffled", "doubled", "numbers"]),
        (longest, ["shuffled", "doubled", "numbers"]),
        (lambda request: "Commentary A is better", ["errors"]),  # noqa: ARG005
    ],
)
def test_judges_pass_or_fail_by_kind(reply: JudgeReply, failed: list[str], tmp_path: Path) -> None:
    with calibration(reply, tmp_path) as asked:
        verdict = asked.run()
    shown = table(verdict)
    assert set(failed) <= set(verdict["failed"])
    assert "empty" not in verdict["failed"]
    assert verdict["passed"] == (not failed)
    assert ("FAILED" in shown) == bool(failed)
    assert verdict["kinds"]["empty"]["right"] == 100.0


def test_a_verdict_is_kept_and_not_paid_again(tmp_path: Path) -> None:
    server = ChatServer(fair)
    with calibration(fair, tmp_path, server) as asked:
        plan = asked.plan()
        before = len(server.requests)
        verdict = asked.run()
        paid = len(server.requests) - before
        assert paid == plan.calls == 5 * 20 * 2  # once each, whatever the repeats; the empty ones are never sent
        assert asked.run() == verdict
        assert asked.plan().calls == 0
        (tmp_path / STORED).unlink()
        asked.votes_path.unlink()
        assert asked.run() == verdict
    assert len(server.requests) - before == paid


def test_a_judge_whose_calls_failed_is_asked_again(tmp_path: Path) -> None:
    server = ChatServer(fair)
    with calibration(fair, tmp_path, server) as asked:
        server.faults += [broken()] * 15
        verdict = asked.run()
        assert verdict["failed"] == ["errors"]
        assert asked.stored is None
        assert asked.run()["passed"]
        assert asked.stored is not None


def test_a_broken_file_of_verdicts_is_one_line(tmp_path: Path) -> None:
    (tmp_path / STORED).write_text("{")
    with calibration(fair, tmp_path) as asked, pytest.raises(SourceError, match="remove it to calibrate anew"):
        asked.plan()


def test_data_without_usable_texts_calibrate_nobody(tmp_path: Path) -> None:
    with calibration(fair, tmp_path) as asked:
        empty = Calibration(asked.judge, FewGames(windows=[]), tmp_path)
        with pytest.raises(SourceError, match="no window of 12 words or more"):
            empty.run()


def test_nothing_asked_is_nothing_passed() -> None:
    verdict = assess([])
    assert not verdict["passed"]
    assert "not tested" in table(verdict)
