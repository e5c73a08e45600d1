"""Votes on disk: what is taken up, what is refused, what is pooled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import OutputError, SourceError
from streamingvlm.evaluate.judging.votes import Vote
from streamingvlm.evaluate.judging.votes_file import Place, VotesFile, pool, read_votes

SETTINGS: dict[str, Any] = {
    "task": "inf-streams",
    "revision": "r1",
    "a": {"name": "ours", "digest": "1"},
    "b": {"name": "theirs", "digest": "2"},
    "judge": "gpt",
    "host": "api.example",
    "prompt": "inf-streams/1#ab",
    "parameters": {"temperature": 0.0, "seed": 42},
    "repeats": 1,
    "accepted": {"temperature": True},
}
PLACES = [Place("w1", "v", "golf", 0.0, 100.0), Place("w2", "v", "golf", 100.0, 200.0)]
VOTE = Vote("w1", "v", "golf", 0.0, 100.0, "ab", 0, "a", "key", words_a=3, words_b=4, call={"reply": "ü\u2028\n"})
ERROR = replace(VOTE, choice=None, error="server: 500")


def write(path: Path, *votes: Vote, settings: dict[str, Any] = SETTINGS) -> Path:
    file = VotesFile(path, settings, PLACES)
    for vote in votes:
        file.add(vote)
    file.close()
    return path


def test_votes_come_back_as_they_were_written(tmp_path: Path) -> None:
    found = read_votes(write(tmp_path / "new" / "votes.jsonl", VOTE, replace(ERROR, order="ba")))
    assert found.settings == SETTINGS
    assert found.places == PLACES
    assert found.votes == [VOTE, replace(ERROR, order="ba")]
    assert (found.expected, found.judged) == (4, 1)


def test_an_error_gives_way_to_a_vote_and_never_the_other_way(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.jsonl", ERROR, VOTE, ERROR)
    assert read_votes(path).votes == [VOTE]


@pytest.mark.parametrize("more", [{"extra": 1}, {"note": None}])
def test_fields_of_later_versions_are_passed_over(tmp_path: Path, more: dict[str, Any]) -> None:
    path = write(tmp_path / "votes.jsonl", VOTE)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], json.dumps(json.loads(lines[-1]) | more), ""]))
    assert read_votes(path).votes == [VOTE]


def test_a_file_that_was_cut_anywhere_is_taken_up(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.jsonl", VOTE, replace(VOTE, order="ba", choice="b")).read_bytes()
    heads = whole.index(b"\n", whole.index(b"\n") + 1) + 1  # settings and windows are written at once
    for length in range(heads, len(whole) + 1, 7):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(whole[:length])
        before = len(read_votes(path).votes)
        write(path, replace(VOTE, window="w2"))
        assert len(read_votes(path).votes) == before + 1
        assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("change", [{"choice": "c"}, {"order": "aa"}])
def test_a_vote_for_nobody_is_none(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path / "votes.jsonl", replace(VOTE, **change))
    with pytest.raises(SourceError, match="no file of votes"):
        read_votes(path)


def test_an_empty_file_is_begun(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    path.touch()
    assert read_votes(write(path, VOTE)).votes == [VOTE]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}\n",
        "[1]\n",
        "no json\n{}\n",
        '{"settings": {}}\n{"windows": []}\n',
        '{"settings": {"repeats": 1}}\n{"windows": [[1]]}\n',
        '{"settings": {"repeats": 1}}\n{"windows": []}\n{"window": "w1"}\n',
        '{"settings": {"repeats": 1}}\n{"windows": []}\nbroken\n{"window": "w1"}\n',
    ],
)
def test_anything_else_is_no_votes_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"other\.jsonl"):
        read_votes(path)


OTHER = [
    ({"judge": "another"}, 'judge is "gpt" and "another"'),
    ({"host": "localhost"}, "host"),
    ({"prompt": "inf-streams/2#cd"}, "prompt"),
    ({"parameters": {"seed": 42}}, "parameters is"),
    ({"revision": "r2"}, "revision"),
    ({"a": {"name": "ours", "digest": "3"}}, "a is"),
    ({"repeats": 3}, "repeats is 1 and 3"),
]


@pytest.mark.parametrize(("change", "named"), OTHER)
def test_votes_of_other_settings_are_refused_by_name(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    path = write(tmp_path / "votes.jsonl", VOTE)
    before = path.read_bytes()
    with pytest.raises(SourceError, match=named):
        write(path, VOTE, settings=SETTINGS | change)
    assert path.read_bytes() == before
    other = write(tmp_path / "other.jsonl", replace(VOTE, order="ba"), settings=SETTINGS | change)
    with pytest.raises(SourceError, match=f"cannot be pooled: {named}"):
        pool([path, other])


def test_what_an_endpoint_takes_may_have_been_found_out_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.jsonl", VOTE)
    write(path, replace(VOTE, order="ba"), settings=SETTINGS | {"accepted": {}})
    assert read_votes(path).judged == 2


def test_other_windows_are_other_data(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.jsonl", VOTE)
    with pytest.raises(SourceError, match="it has 2 windows, the data 1"):
        VotesFile(path, SETTINGS, PLACES[:1])


def test_pooled_votes_count_once(tmp_path: Path) -> None:
    one = write(tmp_path / "1.jsonl", VOTE, replace(ERROR, order="ba"))
    other = write(tmp_path / "2.jsonl", VOTE, replace(VOTE, order="ba", choice="b"))
    found = pool([one, other])
    assert [vote.choice for vote in found.votes] == ["a", "b"]
    assert (found.expected, found.judged) == (4, 2)
    third = write(tmp_path / "3.jsonl", replace(VOTE, choice="tie"))
    with pytest.raises(SourceError, match="window w1, order ab, repeat 0 has two different votes"):
        pool([one, other, third])
    with pytest.raises(SourceError, match="no file of votes"):
        pool([])


def test_one_process_at_a_time(tmp_path: Path) -> None:
    file = VotesFile(tmp_path / "votes.jsonl", SETTINGS, PLACES)
    with pytest.raises(OutputError, match="another process is judging into"):
        VotesFile(tmp_path / "votes.jsonl", SETTINGS, PLACES)
    file.close()
    write(tmp_path / "votes.jsonl", VOTE)
