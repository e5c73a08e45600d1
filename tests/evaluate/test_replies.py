"""Replies on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingvlm.core.errors import OutputError, SourceError
from streamingvlm.evaluate.questions.items import Reply
from streamingvlm.evaluate.questions.replies import read_replies, write_replies


def test_what_is_written_is_read(tmp_path: Path) -> None:
    replies = [
        Reply("1", "B"),
        Reply("2_0", "Ja, “è”", 3.5),
        Reply("3", None, None, {"A": 0.25, "B": 0.75}),
        Reply("4", ""),
    ]
    write_replies(tmp_path / "new" / "r.jsonl", replies)
    assert list(read_replies(tmp_path / "new" / "r.jsonl").values()) == replies
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["r.jsonl"]


def test_ids_may_be_numbers_and_lines_blank(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(b'\xef\xbb\xbf{"id": 7, "reply": "A", "more": 1}\n\n{"id": "8", "reply": null}')
    assert read_replies(tmp_path / "r.jsonl") == {"7": Reply("7", "A"), "8": Reply("8", None)}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "r.jsonl:2: not a JSON line"),
        ("[1]", "r.jsonl:2: not a reply; it has to be"),
        ('{"id": "2"}', "r.jsonl:2: not a reply"),
        ('{"id": null, "reply": "A"}', "r.jsonl:2: not a reply"),
        ('{"id": "2", "reply": ["A"]}', "r.jsonl:2: the reply has to be a text or null, not list"),
        ('{"id": "2", "reply": "A", "time": "3"}', "r.jsonl:2: the time has to be seconds or null, not '3'"),
        ('{"id": "2", "reply": "A", "time": NaN}', "r.jsonl:2: the time"),
        ('{"id": "2", "reply": "A", "time": true}', "r.jsonl:2: the time"),
        ('{"id": "2", "reply": "A", "probabilities": [1]}', "r.jsonl:2: the probabilities"),
        ('{"id": "2", "reply": "A", "probabilities": {"A": "1"}}', "r.jsonl:2: the probabilities"),
        ('{"id": "1", "reply": "A"}', "r.jsonl:2: item '1' has a reply already"),
        ("\xff", "not UTF-8"),
    ],
)
def test_a_bad_line_is_one_error(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "r.jsonl").write_bytes(b'{"id": "1", "reply": "A"}\n' + line.encode("latin-1"))
    with pytest.raises(SourceError, match=complaint):
        read_replies(tmp_path / "r.jsonl")


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        read_replies(tmp_path / "none.jsonl")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the folder"):
        write_replies(tmp_path / "file" / "r.jsonl", [])
