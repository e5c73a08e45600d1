"""From bytes of a terminal to keys, and from keys to a line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies

from streamingvlm.cli.line_editor import MAX_HISTORY, MAX_LINE, PASTE_PATIENCE, Key, KeyDecoder, LineEditor


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"hi", ["hi"]),
        ("\u00e9\u4f60\U0001f600".encode(), ["\u00e9\u4f60\U0001f600"]),
        (b"a\rb\n", ["a", Key.ENTER, "b", Key.ENTER]),
        (b"a\x7f\x08", ["a", Key.BACKSPACE, Key.BACKSPACE]),
        (b"\x01\x05\x02\x06\x10\x0e", [Key.HOME, Key.END, Key.LEFT, Key.RIGHT, Key.UP, Key.DOWN]),
        (b"\x15\x0b\x17\x04", [Key.CLEAR, Key.CLEAR_END, Key.CLEAR_WORD, Key.DELETE]),
        (b"\x1b[A\x1b[B\x1b[C\x1b[D\x1b[H\x1b[F", [Key.UP, Key.DOWN, Key.RIGHT, Key.LEFT, Key.HOME, Key.END]),
        (b"\x1bOA\x1bOD\x1b[1~\x1b[4~\x1b[3~", [Key.UP, Key.LEFT, Key.HOME, Key.END, Key.DELETE]),
        (b"a\tb", ["a b"]),
        (b"\x00\x07\x1f\x0c", []),
        ("\u202eab\u2069".encode(), ["ab"]),
        (b"\x1b[1;5Cx\x1b[?25h\x1bfy", ["x", "y"]),  # nothing is known of these keys
        (b"\x1b\x1b[A", [Key.UP]),
        (b"\x1b[\x01x", [Key.HOME, "x"]),
        (b"\x1b[200~one\r\ntwo\tand \x1b[31mred\x1b[201~!", ["one  two and [31mred", "!"]),
        (b"\x1b[200~\x1b[201~\r", [Key.ENTER]),
        (b"\xff\xfe", ["\ufffd\ufffd"]),
    ],
)
def test_keys_however_they_are_cut(data: bytes, keys: list[Any]) -> None:
    assert KeyDecoder().feed(data) == keys
    pieces, one = list[Any](), KeyDecoder()
    for at in range(len(data)):
        pieces += one.feed(data[at : at + 1])
    assert joined(pieces) == joined(keys)


def joined(keys: list[Any]) -> list[Any]:
    """Pieces of text that follow each other as one."""
    out: list[Any] = []
    for key in keys:
        if out and not isinstance(key, Key) and not isinstance(out[-1], Key):
            out[-1] += key
        else:
            out.append(key)
    return out


def test_a_key_that_is_no_sequence_is_given_up() -> None:
    decoder = KeyDecoder()
    assert decoder.patience is None
    assert decoder.feed(b"\x1b") == []
    assert 0 < (decoder.patience or 0) < 0.2
    decoder.flush()
    assert (decoder.patience, decoder.feed(b"[A")) == (None, ["[A"])
    assert decoder.feed(b"\x1b[" + b"1;" * 100) == []
    assert decoder.feed(b"x") == ["x"]


def test_a_paste_whose_end_is_lost_ends_after_a_while() -> None:
    decoder = KeyDecoder()
    assert decoder.feed(b"\x1b[200~long\r") == ["long "]
    assert decoder.patience == PASTE_PATIENCE
    decoder.flush()
    assert decoder.feed(b"\r") == [Key.ENTER]


@given(strategies.lists(strategies.sampled_from([b"\x1b", b"[", b"200~", b"201~", b"O", b"A", b"\r", b"\xe4", b"x"])))
def test_nothing_typed_can_break_it_or_be_kept_without_bound(pieces: list[bytes]) -> None:
    decoder, editor = KeyDecoder(), LineEditor()
    for piece in pieces:
        for key in decoder.feed(piece):
            assert isinstance(key, Key) or (key and key.isprintable()) or "\ufffd" in key
            editor.feed(key)
        assert len(decoder._rest) <= 32
    assert 0 <= editor.cursor <= len(editor.text)


@pytest.mark.parametrize(
    ("keys", "text", "cursor"),
    [
        (["abc"], "abc", 3),
        (["abc", Key.LEFT, Key.LEFT, "x"], "axbc", 2),
        (["abc", Key.HOME, Key.LEFT, Key.BACKSPACE], "abc", 0),
        (["abc", Key.HOME, Key.DELETE, Key.RIGHT, Key.RIGHT, Key.RIGHT], "bc", 2),
        (["abc", Key.LEFT, Key.BACKSPACE, Key.END], "ac", 2),
        (["one two  ", Key.CLEAR_WORD], "one ", 4),
        (["one two", Key.LEFT, Key.CLEAR], "o", 0),
        (["one two", Key.HOME, Key.RIGHT, Key.CLEAR_END], "o", 1),
        (["x" * MAX_LINE, "yz"], "x" * MAX_LINE, MAX_LINE),
        ([Key.UP, Key.DOWN], "", 0),
        (["a", Key.ENTER, "b", Key.ENTER, "draft", Key.UP], "b", 1),
        (["a", Key.ENTER, "b", Key.ENTER, "draft", Key.UP, Key.UP, Key.UP], "a", 1),
        (["a", Key.ENTER, "b", Key.ENTER, "draft", Key.UP, Key.UP, Key.DOWN, Key.DOWN, Key.DOWN], "draft", 5),
        (["a", Key.ENTER, "a", Key.ENTER, " ", Key.ENTER, "b", Key.ENTER, Key.UP, Key.UP, Key.UP], "a", 1),
    ],
)
def test_a_line_is_edited(keys: list[Any], text: str, cursor: int) -> None:
    editor = LineEditor()
    for key in keys:
        editor.feed(key)
    assert (editor.text, editor.cursor) == (text, cursor)


def test_enter_gives_the_line_and_leaves_an_empty_one() -> None:
    editor = LineEditor()
    assert editor.feed("hello") is None
    assert editor.feed(Key.HOME) is None
    assert editor.feed(Key.ENTER) == "hello"
    assert (editor.text, editor.cursor, editor.feed(Key.ENTER)) == ("", 0, "")


def test_what_has_no_room_is_told_and_the_history_has_a_bound() -> None:
    editor = LineEditor()
    editor.feed("x" * (MAX_LINE + 1))
    assert (len(editor.text), editor.full) == (MAX_LINE, True)
    editor.feed(Key.BACKSPACE)
    assert editor.full is False
    for number in range(MAX_HISTORY + 5):
        editor.feed(Key.CLEAR)
        editor.feed(str(number))
        editor.feed(Key.ENTER)
    for _ in range(MAX_HISTORY + 20):
        editor.feed(Key.UP)
    assert editor.text == "5"
