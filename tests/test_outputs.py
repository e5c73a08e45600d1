"""Cues that can be read, files that are valid at every moment."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.cli import main
from streamingvlm.errors import OutputError
from streamingvlm.events import Chunk, Commentary, InstructionUpdated, Timing
from streamingvlm.outputs import FORMATS, Cue, CueMerger, FileOutput, open_outputs
from streamingvlm.view import JsonLines, Plain, Tally, Terminal

CUE = re.compile(r"(\d\d+):(\d\d):(\d\d)[.,](\d{3}) --> (\d\d+):(\d\d):(\d\d)[.,](\d{3})")


def said(start: float, text: str, step: float = 1.0) -> Commentary:
    return Commentary(start, start + step, text)


def merge(*events: Commentary) -> list[Cue]:
    merger = CueMerger()
    return [cue for event in events for cue in merger.add(event)] + list(merger.close())


def parse(text: str, srt: bool = False) -> list[Cue]:
    """A strict little parser of both formats."""
    if not srt:
        assert text.startswith("WEBVTT\n\n")
        text = text[8:]
    assert text == "" or text.endswith("\n\n")
    cues = []
    for number, block in enumerate(text.split("\n\n")[:-1], 1):
        lines = block.split("\n")
        if srt:
            assert lines.pop(0) == str(number)
        match = CUE.fullmatch(lines[0])
        assert match, lines[0]
        h, m, s, ms, h2, m2, s2, ms2 = map(int, match.groups())
        words = "\n".join(lines[1:])
        assert words
        assert "-->" not in words
        cues.append(Cue(h * 3600 + m * 60 + s + ms / 1000, h2 * 3600 + m2 * 60 + s2 + ms2 / 1000, words))
    for before, after in pairwise(cues):
        assert before.end <= after.start
    assert all(cue.start < cue.end for cue in cues)
    return cues


def test_words_of_neighbouring_seconds_are_joined() -> None:
    assert merge(said(0, "green"), said(1, "returns"), said(2, "top")) == [Cue(0, 3, "green returns top")]


def test_a_sentence_ends_a_cue() -> None:
    assert merge(said(0, "green"), said(1, "scores."), said(2, "one nil")) == [
        Cue(0, 2, "green scores."),
        Cue(2, 3, "one nil"),
    ]


def test_silence_ends_a_cue() -> None:
    assert merge(said(0, "a"), said(1, ""), said(2, "b")) == [Cue(0, 3, "a b")]
    assert merge(said(0, "a"), said(1, ""), said(2, ""), said(3, "b")) == [Cue(0, 1, "a"), Cue(3, 4, "b")]
    merger = CueMerger()
    assert not list(merger.add(said(0, "a")))
    assert not list(merger.add(said(1, "")))
    assert list(merger.add(said(2, ""))) == [Cue(0, 1, "a")], "known at once, not only when somebody speaks again"


def test_long_talk_is_cut_at_six_seconds() -> None:
    cues = merge(*(said(index, f"w{index}") for index in range(14)))
    assert [(cue.start, cue.end) for cue in cues] == [(0, 6), (6, 12), (12, 14)]


def test_a_flood_of_words_becomes_several_cues() -> None:
    cues = merge(said(0, "word " * 60))
    assert len(cues) > 3
    assert cues[0].start == 0
    assert cues[-1].end == pytest.approx(1)


TEXTS = st.lists(st.text(st.sampled_from("ab .,!?é-<>&\n"), max_size=120), max_size=30)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.sampled_from([0.25, 1.0, 2.0, 8.0]), st.integers(0, 3))
def test_cues_are_readable_and_lose_no_word(texts: list[str], step: float, gap: int) -> None:
    events = [said(index * step * (1 + gap), text, step) for index, text in enumerate(texts)]
    cues = merge(*events)
    letters = "".join("".join(text.split()) for text in texts)
    assert "".join("".join(cue.text.split()) for cue in cues) == letters
    for cue in cues:
        lines = cue.text.split("\n")
        assert len(lines) <= 2
        assert all(0 < len(line) <= 42 for line in lines)
        assert 0 < cue.end - cue.start <= 6 + 1e-6
    for before, after in pairwise(cues):
        assert before.end <= after.start + 1e-9


@pytest.mark.parametrize("suffix", [".vtt", ".srt", ".jsonl"])
def test_valid_after_every_event(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    output = FileOutput(path)
    output.start()
    words = ["a <b> & c", "--> d.", "", "", "e", "f " * 70, "", "g"]
    for index, text in enumerate(words):
        output.write(Commentary(index, index + 1, text, timing=Timing(words=0.5, lag=0.7), rows={"vision": 3}))
        content = path.read_text()
        if suffix == ".jsonl":
            assert len([json.loads(line) for line in content.splitlines()]) == index + 1
        else:
            parse(content, srt=suffix == ".srt")
    output.close()
    if suffix == ".jsonl":
        first = json.loads(path.read_text().splitlines()[0])
        assert first == {
            "start": 0,
            "end": 1,
            "text": "a <b> & c",
            "cut": False,
            "dropped": 0,
            "lag": 0.7,
            "work": 0.5,
            "rows": {"vision": 3},
        }
    else:
        assert parse(path.read_text(), srt=suffix == ".srt")[-1].text.endswith("g")


def test_long_times(tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "out.vtt")
    output.start()
    output.write(said(360_000.25, "still here"))
    output.close()
    assert "100:00:00.250 --> 100:00:01.250" in output.path.read_text()


def test_nothing_is_touched_before_start(tmp_path: Path) -> None:
    old, new = tmp_path / "old.vtt", tmp_path / "new.srt"
    old.write_text("precious")
    outputs = open_outputs([old, new])
    for output in outputs:
        output.close()
    assert old.read_text() == "precious"
    assert not new.exists()


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder.vtt").mkdir()
    (tmp_path / "file").touch()
    for path in (
        tmp_path / "out.txt",
        tmp_path / "out",
        tmp_path / "none" / "out.vtt",
        tmp_path / "folder.vtt",
        tmp_path / "file" / "out.vtt",
        Path("/proc/out.vtt"),
    ):
        with pytest.raises(OutputError) as error:
            FileOutput(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(OutputError, match="twice"):
        open_outputs([tmp_path / "a.vtt", tmp_path / "b.vtt", tmp_path / "a.vtt"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").symlink_to("/dev/full")
    output = FileOutput(tmp_path / "out.jsonl")
    output.start()
    with pytest.raises(OutputError, match="No space left"):
        output.write(said(0, "a"))
    with pytest.raises(OutputError, match="No space left"):
        output.close()


def test_the_truth_of_a_clip_is_never_overwritten(tmp_path: Path) -> None:
    truth = tmp_path / "clip.jsonl"
    truth.write_text('{"video": "clip.mp4", "title": "", "content": [[0, 1, "a"]]}\n')
    with pytest.raises(OutputError, match="holds the true words of a clip"):
        open_outputs([truth])
    assert "content" in truth.read_text()


#: What may not reach a screen or a player as it is.
OBEYED = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    *map(chr, (0xD800, 0xDFFF)),
]
odd_words = st.text(st.one_of(st.sampled_from(OBEYED), st.sampled_from("ab é漢🙂"), st.characters()), max_size=60)


def raw(text: str) -> set[str]:
    return (set(text) & set(OBEYED)) - {"\n"}


@settings(deadline=None, max_examples=150)
@given(texts=st.lists(odd_words, max_size=4))
def test_control_characters_reach_no_file(texts: list[str]) -> None:
    for suffix, make in FORMATS.items():
        written = make()
        pieces = [written.head()]
        for start, text in enumerate(texts):
            pieces += written.text(said(start, text))
        whole = "".join([*pieces, *written.rest()])
        assert not raw(whole)
        if suffix == ".jsonl":
            # Nothing is lost where it can be escaped.
            assert [json.loads(line)["text"] for line in whole.split("\n")[:-1]] == texts
        else:
            parse(whole, srt=suffix == ".srt")


@settings(deadline=None, max_examples=60)
@given(text=odd_words, name=odd_words)
def test_control_characters_reach_no_screen(text: str, name: str) -> None:
    event, tally = replace(said(0, text), dropped=1), Tally()
    tally.add(event)
    chunk = Chunk(np.zeros((1, 2, 2, 3), np.uint8), (0.0,), 0.0, 1.0)
    for view in (Plain(), Plain(lambda *_: name), JsonLines()):
        with redirect_stdout(io.StringIO()) as out:
            view.show(event, tally)
        assert not raw(out.getvalue())
    screen = io.StringIO()
    with redirect_stdout(screen):
        terminal = Terminal(name)
        terminal.begin(chunk)
        terminal.words(text)
        terminal.show(event, tally)
        terminal.close()
    # What is left are the view's own ways to move and to colour.
    assert not raw(re.sub("\x1b\\[[0-9;?]*[a-zA-Z]|\r", "", screen.getvalue()))


def test_control_characters_of_a_name_reach_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "\x1b[31mno\x07 film\x9b.mp4"]) == 2
    assert capsys.readouterr().err.startswith("streamingvlm: error: [31mno film.mp4")


def test_instructions_are_in_the_json_line() -> None:
    event = replace(said(1, "a"), instructions=(InstructionUpdated(1, "x", None), InstructionUpdated(2, "y", 1.0)))
    (line,) = FORMATS[".jsonl"]().text(event)
    assert json.loads(line)["instructions"] == [
        {"version": 1, "text": "x", "start": None},
        {"version": 2, "text": "y", "start": 1.0},
    ]
