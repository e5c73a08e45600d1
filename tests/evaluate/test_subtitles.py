"""Subtitles beside a benchmark's videos: what is read, and which lines a prompt shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingvlm.core.errors import SourceError
from streamingvlm.evaluate.questions.subtitles import Line, as_prompt, clock, read_longvideobench, read_srt, shown


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [("00:00:01.500", 1.5), ("01:02:03,25", 3723.25), ("02:03", 123.0), (" 0:00:00 ", 0.0), ("10:00:00.0", 36000.0)],
)
def test_times_of_both_kinds(stamp: str, seconds: float) -> None:
    assert clock(stamp) == seconds


@pytest.mark.parametrize("stamp", ["", "12", "a:b:c", "00:00:00:00", "-1:00"])
def test_what_is_no_time(stamp: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        clock(stamp)


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("1\n00:00:01,000 --> 00:00:02,000\nhello\n", [Line(1, 2, "hello")]),
        ("1\r\n00:00:01,000 --> 00:00:02,000\r\nhello\r\nyou\r\n", [Line(1, 2, "hello you")]),
        ("00:00:01.0 --> 00:00:02.0 align:start\n<b>no number</b>", [Line(1, 2, "no number")]),
        ("1\n00:00:01,000 --> 00:00:02,000\n\n\n2\n00:03 --> 00:04\nlate", [Line(3, 4, "late")]),
        ("no times at all", []),
        ("", []),
    ],
)
def test_srt(tmp_path: Path, content: str, lines: list[Line]) -> None:
    (tmp_path / "a.srt").write_bytes(content.encode())
    assert read_srt(tmp_path / "a.srt") == lines


def test_srt_that_is_no_utf8_is_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_bytes(b"1\n00:01 --> 00:02\ncaf\xe9\n")
    assert read_srt(tmp_path / "a.srt") == [Line(1, 2, "caf\ufffd")]


def test_files_that_are_missing_or_of_another_form_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a\.srt"):
        read_srt(tmp_path / "a.srt")
    (tmp_path / "a.json").write_text('{"text": "x"}')
    with pytest.raises(SourceError, match="no list of subtitles"):
        read_longvideobench(tmp_path / "a.json", 0, 10)


@pytest.mark.parametrize(
    ("line", "duration", "is_shown"),
    [
        (Line(0, 2, "x"), 10, True),
        (Line(1.2, 1.8, "x"), 10, False),  # 1.0 to 2.0 s: both frames stand at its edges
        (Line(1.3, 1.8, "x"), 10, True),  # 1.05 to 2.05 s
        (Line(0.1, 0.3, "x"), 10, True),  # -0.3 to 0.7 s: the frame at 0
        (Line(9, 11, "x"), 10, False),  # 10 s is behind the last frame, 9 s at the edge
        (Line(8.5, 11, "x"), 10, True),
        (Line(10, 12, "x"), 10, False),
        (Line(-5, -3, "x"), 10, False),  # before the video's beginning
        (Line(0, 2, ""), 10, False),
    ],
)
def test_a_line_is_shown_if_a_frame_lies_in_it(line: Line, duration: float, is_shown: bool) -> None:
    assert shown([line], duration) == ([line] if is_shown else [])


def test_more_frames_show_more_lines() -> None:
    line = Line(1.2, 1.8, "x")
    assert shown([line], 10, fps=2.0) == [line]


def test_lines_stand_in_the_order_of_their_middles() -> None:
    lines = [Line(4, 6, "second"), Line(0, 9, "first"), Line(8, 9.5, "third")]
    assert as_prompt(shown(lines, 10)) == "[4.5 s] first\n[5.0 s] second\n[8.8 s] third"
