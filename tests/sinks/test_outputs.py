"""Cues that can be read, files that are valid at every moment, nothing in them that a terminal would obey."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import unicodedata
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from streamingvlm import cli
from streamingvlm.core.errors import OutputError
from streamingvlm.core.events import Commentary, Delta, InstructionUpdated, StreamOpened, Timing
from streamingvlm.sinks import terminal as view
from streamingvlm.sinks.cues import Cue, CueMerger
from streamingvlm.sinks.files import FileOutput, PieceFile, check_writable, write_whole
from streamingvlm.sinks.formats import FORMATS, json_line
from streamingvlm.sinks.outputs import open_outputs
from streamingvlm.sinks.text import json_text, printable
from support import media
from support.command import command, run
from support.subtitles import parse, said


def merge(*events: Commentary) -> list[Cue]:
    merger = CueMerger()
    return [cue for event in events for cue in merger.add(event)] + list(merger.close())


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
    words = ["a <b> & c", "--> d.", "", "", "e", "f " * 70, "", "g"]
    for index, text in enumerate(words):
        output.write(Commentary(index, index + 1, text, timing=Timing(decode=0.5, lag=0.7), rows={"vision": 3}))
        content = path.read_text()
        if suffix == ".jsonl":
            assert len([json.loads(line) for line in content.splitlines()]) == index + 1
        else:
            parse(content, srt=suffix == ".srt")
    output.close()
    if suffix == ".jsonl":
        first = json.loads(path.read_text().splitlines()[0])
        assert first == {
            "type": "commentary.done",
            "start": 0,
            "end": 1,
            "text": "a <b> & c",
            "finish_reason": "stop",
            "dropped": 0,
            "lag": 0.7,
            "work": 0.5,
            "rows": {"vision": 3},
        }
    else:
        assert parse(path.read_text(), srt=suffix == ".srt")[-1].text.endswith("g")


def test_long_times(tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "out.vtt")
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


#: Everything that is told in a way of its own: C0, DEL, C1, line and paragraph ends, directions, halves of a pair.
ODD = [*map(chr, [*range(32), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x2070)])]
ODD += ["\ud800", "\udc80", "\udfff", "\ud83d\ude00", "\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r\n", "--->"]
ODD += [
    "--\u202e>",
    "\ufeff",
    "\xad",
    "\u200d",
    "\U0001f468\u200d\U0001f469",
    "e\u0301",
    "\u05d0",
    "</c>",
    "&#27;",
    "\\u001b",
]
ANY = st.one_of(
    st.text(st.characters(), max_size=40),
    st.lists(st.sampled_from([*ODD, "a", "word", " ", ".", "-->"]), max_size=12).map("".join),
)


def assert_harmless(text: str) -> None:
    """Nothing that a terminal obeys, no half of a pair, no direction that goes on behind the words."""
    for character in text:
        assert character == "\n" or unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp"), ascii(text)
        assert not "\u202a" <= character <= "\u202e", ascii(text)
        assert not "\u2066" <= character <= "\u206f", ascii(text)
    text.encode("utf-8")


@given(ANY)
def test_printable_is_one_harmless_line_that_keeps_what_can_be_seen(text: str) -> None:
    shown = printable(text)
    assert_harmless(shown)
    assert "\n" not in shown
    assert shown == shown.strip()
    assert "  " not in shown
    assert printable(shown) == shown
    unseen = ("Cc", "Cs", "Zs", "Zl", "Zp", "Cf")
    before, after = ([c for c in t if unicodedata.category(c) not in unseen and c != "\ufffd"] for t in (text, shown))
    assert before == after


def test_printable_says_where_something_was() -> None:
    assert printable("a\x1b[31mred\x07 b") == "a\ufffd[31mred\ufffd b"
    assert printable("a\r\nb\x85c\u2028d\te") == "a b c d e"
    assert printable("\u202etxt.exe\u202c \u2066x\u2069") == "txt.exe x"
    assert printable("half \ud83d of a pair") == "half \ufffd of a pair"
    for kept in ("\U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u062e", "caf\xe9", "\u4e16\u754c"):
        assert printable(kept) == kept


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=150, deadline=None)
@given(texts=st.lists(ANY, min_size=1, max_size=6))
@example(texts=["--\u202e>", "--->", "---->", "--\x07>"])
def test_no_file_has_a_control_character(
    suffix: str, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = FileOutput(tmp_path_factory.mktemp("out") / f"out{suffix}")
    for index, text in enumerate(texts):
        output.write(said(index, text))
    output.close()
    content = output.path.read_bytes().decode("utf-8")
    assert_harmless(content)
    if suffix == ".jsonl":
        lines = content.split("\n")
        assert lines == [*content.splitlines(), ""], "one event a line, whatever ends a line elsewhere"
        assert [json.loads(line)["text"] for line in lines[:-1]] == [pairs(text) for text in texts]
    else:
        parse(content, srt=suffix == ".srt")


def pairs(text: str) -> str:
    """Two halves of a pair, one behind the other, are the pair in JSON."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@settings(max_examples=100, deadline=None)
@given(ANY, ANY)
def test_no_view_prints_a_control_character(text: str, name: str) -> None:
    event = Commentary(0.0, 1.0, text, rows={"vision": 3}, capacity=9, dropped=1)
    for screen in (view.Plain(), view.Plain(lambda *_: name), view.JsonStdout()):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            screen.write(event)
        assert_harmless(out.getvalue())


@settings(max_examples=50, deadline=None)
@given(ANY, ANY)
@example("a \x1b[2J b", "x\x1b]0;owned\x07.mp4")
def test_the_live_view_prints_no_control_character_of_others(text: str, name: str) -> None:
    event = Commentary(0.0, 1.0, text, rows={"vision": 3}, capacity=9)
    console = Console(file=io.StringIO())
    screen = view.Terminal(lambda *_: name, console)
    shown: list[str] = []
    try:
        screen.write(StreamOpened(name, ""))
        screen.write(Delta(0.0, 1.0, ""))
        for start in range(0, len(text), 3):
            screen.write(Delta(0.0, 1.0, text[start : start + 3]))
            shown.append(render(screen))
        screen.write(event)
        shown += [console.file.getvalue(), render(screen)]  # type: ignore[attr-defined]
    finally:
        screen.close()
    for frame in shown:
        assert_harmless(frame)


def render(screen: view.Terminal) -> str:
    """What the live view would draw, without rich's own control codes."""
    console = Console(file=io.StringIO(), color_system=None, width=100, legacy_windows=False)
    console.print(screen.render())
    text: Any = console.file
    return str(text.getvalue())


def test_an_error_line_has_no_control_character(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a\x1b[2J.mp4", "a\x9b31m.mp4", "a\u202e4pm.exe", "a\nb.mp4", "a\udcff.mp4", "wa\x07ch"):
        arguments = ["watch", str(tmp_path / name)] if name.startswith("a") else [name]
        assert cli.main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert_harmless(err)


def test_json_text_is_what_json_reads_as_the_same() -> None:
    record = {"a\u2028": ["\x7f\x9b\u202e", 1.5, None, True], "b": {"\ud800": "caf\xe9 \u4e16"}}
    line = json_text(record)
    assert_harmless(line)
    assert "\n" not in line
    assert json.loads(line) == record
    assert "caf\xe9 \u4e16" in line, "what can be read stays readable"
    assert json.loads(json_line(said(0, "\x00\x1b")))["text"] == "\x00\x1b"


@pytest.mark.parametrize("text", ["--->", "---->", "-->-->", "- -->", "--\u202e>", "<-->"])
def test_no_arrow_in_the_words_of_a_subrip_file(text: str, tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "out.srt")
    output.write(said(0, f"a {text} b"))
    output.close()
    parse(output.path.read_text(), srt=True)


# Files that are lost, or would be.


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds that pass for a recording of the arcade."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return media.write_clip(path, count=80, title="Ada vs Boris", comment="streamingvlm arcade:pong seed=7")


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    errors = [line for line in done.stderr.splitlines() if line.startswith("streamingvlm: error: ")]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    for word in words:
        assert word in errors[0]


def test_two_names_of_one_file_are_one_output(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").symlink_to(tmp_path / "folder")
    (tmp_path / "link.srt").symlink_to(tmp_path / "a.vtt")
    (tmp_path / "there.vtt").write_text("precious")
    os.link(tmp_path / "there.vtt", tmp_path / "hard.jsonl")
    for one, two in (
        ("a.vtt", "folder/../a.vtt"),
        ("folder/a.vtt", "other/a.vtt"),
        ("a.vtt", "link.srt"),
        ("there.vtt", "hard.jsonl"),
    ):
        for first, second in ((one, two), (two, one)):
            with pytest.raises(OutputError, match="twice"):
                open_outputs([tmp_path / first, tmp_path / second])
    assert len(open_outputs([tmp_path / "a.vtt", tmp_path / "a.srt", tmp_path / "folder" / "a.vtt"])) == 3
    assert (tmp_path / "there.vtt").read_text() == "precious"
    assert (tmp_path / "link.srt").is_symlink()
    assert not (tmp_path / "a.vtt").exists()


@pytest.mark.slow
def test_the_video_is_never_an_output(clip: Path, tmp_path: Path) -> None:
    video, before = tmp_path / "film.vtt", clip.read_bytes()
    video.write_bytes(before)
    (tmp_path / "link.jsonl").symlink_to(video)
    os.link(video, tmp_path / "hard.srt")
    for name in ("film.vtt", "link.jsonl", "hard.srt", "../" + tmp_path.name + "/film.vtt"):
        with pytest.raises(OutputError, match="is the video"):
            open_outputs([tmp_path / name], inputs=[str(video)])
        assert_refused(run("watch", video, "-o", tmp_path / name), name, "is the video")
    assert video.read_bytes() == before
    open_outputs([tmp_path / "out.vtt"], inputs=["arcade:pong?seed=7", "rtsp://127.0.0.1/x", str(tmp_path / "none")])


def test_a_check_leaves_links_and_pipes_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "link.vtt").symlink_to(tmp_path / "not yet.vtt")
    (tmp_path / "loop.vtt").symlink_to(tmp_path / "loop.vtt")
    os.mkfifo(tmp_path / "pipe.jsonl")
    check_writable(tmp_path / "link.vtt")
    assert (tmp_path / "link.vtt").is_symlink()
    assert not (tmp_path / "not yet.vtt").exists()
    check_writable(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "loop.vtt", tmp_path / "a\0b.vtt", tmp_path / f"{'x' * 300}.vtt", tmp_path / "\ud800.vtt"):
        with pytest.raises(OutputError, match="cannot write") as error:
            FileOutput(path)
        assert "\n" not in str(error.value)


def test_a_truth_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out.jsonl").write_text("{}")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        FileOutput(tmp_path / "out.jsonl")


def test_what_was_there_stays_until_something_is_said(tmp_path: Path) -> None:
    path = tmp_path / "out.vtt"
    path.write_text("precious")
    output = FileOutput(path)
    assert path.read_text() == "precious"
    output.close()
    assert path.read_text() == "precious", "a run that ends before its first step leaves everything as it was"
    output = FileOutput(path)
    output.write(said(0, ""))
    output.close()
    assert path.read_text() == "WEBVTT\n\n"


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_file_that_is_removed_while_it_is_written_is_told(tmp_path: Path, suffix: str, whole: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    output = FileOutput(folder / f"out{suffix}")
    output.write(said(0, "a."))
    if whole:
        shutil.rmtree(folder)
    else:
        output.path.unlink()
    with pytest.raises(OutputError, match=f"out{suffix} was removed"):
        output.write(said(1, "b."))
    with pytest.raises(OutputError, match="was removed"):
        output.close()
    output.close()


def test_a_file_that_is_moved_while_it_is_written_is_written_there(tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "out.jsonl")
    output.write(said(0, "a"))
    output.path.rename(tmp_path / "moved.jsonl")
    output.write(said(1, "b"))
    output.close()
    assert [json.loads(line)["text"] for line in (tmp_path / "moved.jsonl").read_text().splitlines()] == ["a", "b"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("limit", [40, 150, 333, 700])
def test_a_disk_that_fills_up_leaves_whole_pieces(tmp_path: Path, suffix: str, limit: int) -> None:
    path = tmp_path / f"out{suffix}"
    output = FileOutput(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):  # noqa: PT012
            for second in range(99):
                output.write(said(second, f"word {second} caf\xe9."))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    content = path.read_text(encoding="utf-8")
    assert len(content.encode()) <= limit
    if suffix == ".jsonl":
        assert content == "" or content.endswith("}\n")
        assert [json.loads(line)["start"] for line in content.splitlines()] == list(range(content.count("\n")))
    elif content:
        parse(content, srt=suffix == ".srt")
    with pytest.raises(OutputError, match="File too large"):
        output.close()


def test_a_file_that_somebody_has_emptied_gets_no_zeros(tmp_path: Path) -> None:
    """As logrotate does with copytruncate; then the disk is full."""
    file = PieceFile(tmp_path / "out.jsonl")
    file.write(b"a" * 1000)
    os.truncate(tmp_path / "out.jsonl", 0)
    file.write(b"b" * 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.write(b"c" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file.write(b"d" * 10)
    file.close()
    assert (tmp_path / "out.jsonl").read_bytes() == b"b" * 10 + b"d" * 10


def test_write_whole_keeps_what_was_there_if_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "figures.json"
    write_whole(path, "old")
    path.chmod(0o640)
    (tmp_path / "link.json").symlink_to(path)
    write_whole(tmp_path / "link.json", "new \ud800")
    assert path.read_text() == "new ?"
    assert path.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "link.json").is_symlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OutputError, match=r"cannot write .*figures\.json \(No space left"):
                write_whole(path, "lost")
    assert path.read_text() == "new ?"
    assert {file.name for file in tmp_path.iterdir()} == {"figures.json", "link.json"}
    with pytest.raises(OutputError, match="No such file"):
        write_whole(tmp_path / "none" / "x.json", "lost")
    write_whole(Path("/dev/null"), "gone")
    assert not Path("/dev/null").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("how", [[], ["--json"]])
def test_standard_output_on_a_full_disk_is_one_line(
    clip: Path, tmp_path: Path, how: list[str], unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    out = tmp_path / "out.jsonl"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("watch", clip, *how, "-o", out), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert_refused(done, "standard output", "No space left")
    assert ("watched" in done.stderr) == (not how)
    # With --json the first line tells that the stream is open: nothing was said yet.
    lines = out.read_text().splitlines() if out.exists() else []
    assert len([line for line in lines if "commentary.done" in line]) == (not how), "what was said is in the file"
    with Path("/dev/full").open("w") as full:
        for arguments in (["--help"], ["--version"], ["eval", "arcade", "--help"], []):
            done = subprocess.run(command(*arguments), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
            assert_refused(done, "standard output", "No space left")


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "closed", [">&-", "<&- >&- 2>&-", *(pytest.param(one, marks=SLOW) for one in ("2>&-", "<&-", ">&- 2>&-"))]
)
def test_closed_standard_streams_do_no_harm(clip: Path, tmp_path: Path, closed: str) -> None:
    outputs = [tmp_path / name for name in ("out.vtt", "out.jsonl")]
    arguments = command("watch", clip, "--json", *(part for path in outputs for part in ("-o", path)))
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *arguments]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = outputs[1].read_text().splitlines()
    assert [json.loads(line)["start"] for line in lines if "commentary.done" in line] == list(range(8))
    parse(outputs[0].read_text())
    assert done.stdout == ("" if ">&-" in closed.replace("2>&-", "") else outputs[1].read_text())
    assert ("watched  8 s" in done.stderr) == ("2>&-" not in closed)


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_an_output_that_vanishes_ends_the_run_with_one_line(clip: Path, tmp_path: Path, first: bool) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other.jsonl"
    folder.mkdir()
    outputs = ["-o", folder / "out.vtt", "-o", other]
    process = subprocess.Popen(
        command("watch", clip, *(outputs if first else [*outputs[2:], *outputs[:2]])),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FAKE_SECONDS": "0.2"},
    )
    assert process.stdout is not None
    process.stdout.readline()
    shutil.rmtree(folder)
    out, err = process.communicate(timeout=60)
    assert_refused(subprocess.CompletedProcess([], process.returncode, out, err), "out.vtt was removed")
    steps = re.search(r"in (\d+) steps", err)
    assert steps
    assert other.read_text().count("commentary.done") == int(steps[1]) >= 2


def test_instructions_are_in_the_json_line() -> None:
    event = replace(said(1, "a"), instructions=(InstructionUpdated(1, "x", None), InstructionUpdated(2, "y", 1.0)))
    (line,) = FORMATS[".jsonl"]().text(event)
    assert json.loads(line)["instructions"] == [
        {"version": 1, "text": "x", "start": None},
        {"version": 2, "text": "y", "start": 1.0},
    ]
