"""The picture with words on it: each on its frames, playable at every moment, and nothing waits for the encoder."""

from __future__ import annotations

import itertools
import os
import resource
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from streamingvlm.cli.plan import Watched
from streamingvlm.core.errors import OutputError
from streamingvlm.core.events import (
    Alert,
    Chunk,
    Closed,
    Commentary,
    Delta,
    Event,
    FrameSink,
    Gap,
    RuleChanged,
    SourceStatus,
    StepFailed,
    StepInput,
    StreamOpened,
)
from streamingvlm.engine.engine import Engine
from streamingvlm.runtime.clock import Pace
from streamingvlm.runtime.rules import AskedRule
from streamingvlm.runtime.runtime import Runtime
from streamingvlm.sinks import burned, film, lettering
from streamingvlm.sinks.burned import Alerts, BurnedOutput, Captions, canvas, fit
from streamingvlm.sinks.files import FileOutput, PieceFile
from streamingvlm.sinks.film import FragmentFile, whole_fragments
from streamingvlm.sinks.lettering import Lettering
from streamingvlm.sinks.outputs import open_outputs, wait_for
from streamingvlm.testing import ScriptedModel, ScriptedSource
from support import media
from support.fonts import only

GREY = 100


@pytest.fixture(autouse=True)
def _no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are the same on every machine."""
    monkeypatch.setattr(lettering, "Fonts", only())


def mend(path: Path) -> None:
    """Cut off what is no whole fragment."""
    os.truncate(path, whole_fragments(path.read_bytes()))


def step(start: float, frames: int = 2, width: int = 640, height: int = 360, shade: int = GREY) -> StepInput:
    times = tuple(start + index / frames for index in range(frames))
    return StepInput(Chunk(np.full((frames, height, width, 3), shade, np.uint8), times, start, start + 1))


def feed(output: BurnedOutput, *said: str, begin: int = 0) -> None:
    for index, text in enumerate(said, begin):
        output.see(step(index))
        output.write(Commentary(index, index + 1, text))


def finish(output: BurnedOutput) -> list[Frame]:
    output.close()
    assert output.wait(120)
    return frames_of(output.path)


@dataclass
class Frame:
    time: float
    picture: NDArray[np.uint8]

    @property
    def has_words(self) -> bool:
        return bool((self.picture[280:] > 200).any())


def frames_of(path: Path) -> list[Frame]:
    with av.open(str(path)) as container:
        return [Frame(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def test_words_stand_on_the_frames_of_their_step(tmp_path: Path) -> None:
    output = BurnedOutput(tmp_path / "out.mp4")
    assert isinstance(output, FrameSink)
    feed(output, "", "green scores.", "", "", "", "", "one nil")
    frames = finish(output)
    assert [frame.time for frame in frames] == [index / 2 for index in range(14)]
    # A sentence of the second from 1 to 2 stays for three seconds.
    assert [frame.has_words for frame in frames] == [1 <= frame.time < 5 or frame.time >= 6 for frame in frames]
    assert abs(frames[0].picture.astype(int) - GREY).max() < 8
    assert output.dropped == 0


def test_what_is_drawn_is_what_was_said(tmp_path: Path) -> None:
    output = BurnedOutput(tmp_path / "out.mp4")
    words = "100% 'x': caf\xe9; a\\b {c} \x1b[31m"
    feed(output, words)
    picture = finish(output)[0].picture
    ink = Lettering(1).mask("100% 'x': caf\xe9; a\\b {c} ?[31m") > 0
    height, width = ink.shape
    left = (640 - width) // 2
    found = [
        top
        for top in range(260, 360 - height)
        if ((picture[top : top + height, left : left + width].mean(-1) > 140) == ink).mean() > 0.97
    ]
    assert found, "the letters are where they belong"


def test_it_can_be_played_while_it_is_written_and_when_it_was_cut(tmp_path: Path) -> None:
    """A run that is killed at any moment behind the first key frame leaves a video."""
    output = BurnedOutput(tmp_path / "out.mp4")
    feed(output, *["word"] * 6)
    until = time.monotonic() + 60
    content = b""
    while b"mdat" not in content[: film.whole_fragments(content)] and time.monotonic() < until:
        time.sleep(0.01)
        content = output.path.read_bytes() if output.path.exists() else b""
    running = tmp_path / "running.mp4"
    running.write_bytes(content)
    mend(running)  # it may have been read within a write
    assert len(frames_of(running)) >= 4
    whole = finish(output)
    content = output.path.read_bytes()
    assert len(whole) == 12
    first = content.index(b"moof", content.index(b"mdat")) - 4
    counts = []
    for length in [*range(first, first + 120, 9), *range(first + 120, len(content), 397), len(content)]:
        part = tmp_path / "part.mp4"
        part.write_bytes(content[:length])
        mend(part)
        frames = frames_of(part)
        for one, other in zip(frames, whole, strict=False):
            assert np.array_equal(one.picture, other.picture)
        counts.append(len(frames))
    assert set(counts) == {4, 8, 12}
    assert counts == sorted(counts)


def test_what_is_on_the_disk_is_whole_fragments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a fragment, one call writes it, so that no kill can end within one."""
    sizes: list[int] = []
    counts: list[int] = []
    write = PieceFile.write

    def noted(self: PieceFile, piece: bytes, hidden: bytes = b"") -> None:
        write(self, piece, hidden)
        sizes.append(len(piece))
        counts.append(len(frames_of(tmp_path / "out.mp4")))

    monkeypatch.setattr(PieceFile, "write", noted)
    output = BurnedOutput(tmp_path / "out.mp4", patient=True)
    noise = np.random.default_rng(0)
    for index in range(6):
        frames = noise.integers(0, 255, (2, 360, 640, 3)).astype(np.uint8)
        output.see(StepInput(Chunk(frames, (index, index + 0.5), index, index + 1)))
        output.write(Commentary(index, index + 1, "a"))
    assert len(finish(output)) == 12
    assert counts == [0, 4, 8, 12], "the head, three fragments"
    assert min(sizes[1:4]) > 100_000


def test_a_kill_within_a_write_leaves_a_film(tmp_path: Path) -> None:
    """A large write ends at any page of it when the process is killed: FFmpeg must not take half a fragment for one."""

    class Killed(Exception):  # noqa: N818
        pass

    class Raw:
        """A file whose process dies behind ``left`` bytes."""

        def __init__(self, file: Any, left: int) -> None:
            self._file, self._left = file, left

        def write(self, data: bytes) -> int:
            part = bytes(data)[: self._left]
            self._file.write(part)
            self._left -= len(part)
            if len(part) < len(data):
                raise Killed
            return len(part)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    output = BurnedOutput(tmp_path / "out.mp4", patient=True)
    noise = np.random.default_rng(0)
    for index in range(6):
        frames = noise.integers(0, 255, (2, 90, 160, 3)).astype(np.uint8)
        output.see(StepInput(Chunk(frames, (index, index + 0.5), index, index + 1)))
        output.write(Commentary(index, index + 1, "a"))
    whole = finish(output)
    content = output.path.read_bytes()
    head, *fragments = (content[begin:end] for begin, end in film.pieces(content))
    size = len(fragments[2])
    for left in [9, 60, *range(96, 150, 9), *range(200, size, 16384), size, size + 3, size + 8]:
        path = tmp_path / "torn.mp4"
        path.unlink(missing_ok=True)
        file = FragmentFile(path)
        for data in (head, *fragments[:2]):
            file.write(data)
        assert file._file is not None
        file._file._file = Raw(file._file._file, left)  # type: ignore[assignment]
        with suppress(Killed):
            file.write(fragments[2])
        frames = frames_of(path)
        assert len(frames) == (12 if left == size + 8 else 8)
        assert all(np.array_equal(one.picture, other.picture) for one, other in zip(frames, whole, strict=False))
        past = film.read_past(path)
        assert past is not None
        assert past.number == len(frames) // 4
    assert path.read_bytes() == content


def test_a_hole_is_the_last_picture_dimmed_with_the_reason(tmp_path: Path) -> None:
    output = BurnedOutput(tmp_path / "out.mp4")
    output.write(Gap(-5, 0, "refused"))  # there is no picture yet
    feed(output, "here")
    output.write(Gap(1, 31, "timeout"))
    output.write(Gap(31, 31, "nothing"))
    feed(output, "there", begin=31)
    frames = finish(output)
    assert [frame.time for frame in frames] == [0, 0.5, 1, 11, 21, 31, 31.5]
    for frame in frames[2:5]:
        assert frame.picture[:100].mean() == pytest.approx(GREY // 3, abs=8)
        assert (frame.picture[160:200, 200:440] > 200).any(), "the reason, in the middle"
        assert not frame.has_words
    assert frames[5].picture[:100].mean() == pytest.approx(GREY, abs=8)
    assert frames[5].has_words


def test_a_week_without_video_is_small(tmp_path: Path) -> None:
    output = BurnedOutput(tmp_path / "out.mp4")
    feed(output, "here")
    output.write(Gap(1, 7 * 86400, "timeout"))
    feed(output, "there", begin=7 * 86400)
    frames = finish(output)
    assert len(frames) == 2 + burned.CARDS + 2
    assert frames[-2].time == 7 * 86400
    assert output.path.stat().st_size < 200_000


def test_another_size_is_fitted_into_the_first(tmp_path: Path) -> None:
    output = BurnedOutput(tmp_path / "out.mp4")
    feed(output, "")
    output.see(step(1, width=300, height=480, shade=200))
    output.write(Commentary(1, 2, ""))
    frames = finish(output)
    assert {frame.picture.shape for frame in frames} == {(360, 640, 3)}
    last = frames[-1].picture.astype(int)
    assert last[:, 320].mean() == pytest.approx(200, abs=8)
    assert last[:, 200].max() < 20
    assert last[:, 440].max() < 20


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 360), (640, 360)),
        ((641, 361), (640, 360)),
        ((160, 210), (480, 630)),
        ((1920, 1080), (1280, 720)),
        ((3840, 2160), (1280, 720)),
        ((1080, 1920), (720, 1280)),
        ((4, 4), (480, 480)),
        ((1, 1), (480, 480)),
        ((1, 999), (2, 1280)),
        ((5000, 1), (1280, 2)),
    ],
)
def test_sizes(size: tuple[int, int], expected: tuple[int, int], tmp_path: Path) -> None:
    assert canvas(*size) == expected
    picture = np.full((size[1], size[0], 3), GREY, np.uint8)
    fitted = fit(picture, *expected)
    assert fitted.shape == (expected[1], expected[0], 3)
    if size[0] > 2 < size[1]:
        assert (fitted == GREY).all(), "no bars for a picture of the same shape"
    output = BurnedOutput(tmp_path / "out.mp4")
    output.see(step(0, width=size[0], height=size[1]))
    output.write(Commentary(0, 1, "a word and another one, and so on for a while"))
    assert [frame.picture.shape[1::-1] for frame in finish(output)] == [expected] * 2


@pytest.mark.parametrize(
    ("said", "count", "shown"),
    [
        (["a", "b"], 1, [[["a"]], [["a b"]]]),
        (["a.", "b"], 1, [[["a."]], [["b"]]]),
        (["aaaa bbbb", "cccc dddd"], 1, [[["aaaa bbbb"]], [["aaaa bbbb", "cccc dddd"]]]),
        (["aaaa bbbb cccc dddd", "eeee"], 1, [[["aaaa bbbb", "cccc dddd"]], [["eeee"]]]),
        (["aaaa bbbb cccc dddd eeee"], 2, [[["aaaa bbbb", "cccc dddd"], ["eeee"]]]),
        (["aaaa bbbb cccc dddd eeee"], 1, [[["aaaa bbbb", "cccc dd..."]]]),
        (["a" * 25], 2, [[["a" * 10, "a" * 10], ["a" * 5]]]),
        (["a", "", "", "", ""], 1, [[["a"]], [["a"]], [["a"]], [["a"]], [[]]]),
    ],
)
def test_captions(said: list[str], count: int, shown: list[list[list[str]]]) -> None:
    captions = Captions(10)
    events = [Commentary(index, index + 1, text) for index, text in enumerate(said)]
    assert [captions.lines(event, (event.start,) * count) for event in events] == shown


def test_nothing_waits_for_a_slow_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are left out and counted, words are not."""
    go = slow(monkeypatch)
    monkeypatch.setattr(burned, "FRAME_BYTES", 4 * 640 * 360 * 3)
    output = BurnedOutput(tmp_path / "out.mp4")
    began = time.monotonic()
    feed(output, *[f"w{index}" for index in range(10)])
    output.close()
    assert time.monotonic() - began < 30, "the encoder stands still for longer"
    assert not output.wait(0.05)
    go.set()
    assert output.wait(60)
    assert len(frames_of(output.path)) + output.dropped == 20
    assert output.dropped >= 14


def test_words_do_not_pile_up_before_an_encoder_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = slow(monkeypatch)
    monkeypatch.setattr(burned, "FRAME_BYTES", 4 * 64 * 36 * 3)
    monkeypatch.setattr(burned, "CAPTION_ITEMS", 8)
    output = BurnedOutput(tmp_path / "out.mp4")
    for index in range(50):
        output.see(step(index, width=64, height=36))
        output.write(Commentary(index, index + 1, f"w{index}"))
        output.write(Gap(index, index + 1, "timeout"))
        assert len(output._items) <= 8 + 2
    go.set()
    assert finish(output)


def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An encoder that does nothing until the event is set."""
    go, add = threading.Event(), burned._Encoder.add
    monkeypatch.setattr(burned._Encoder, "add", lambda self, item: (go.wait(60), add(self, item))[1])
    return go


def test_a_patient_output_leaves_nothing_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burned, "PATIENT_BYTES", 4 * 640 * 360 * 3)
    (output,) = open_outputs([tmp_path / "out.mp4"], patient=True)
    assert isinstance(output, BurnedOutput)
    for second in range(10):
        feed(output, "w", begin=second)
        assert output._bytes <= burned.PATIENT_BYTES
    assert len(finish(output)) == 20


def test_frames_without_words_go_on_in_time(tmp_path: Path) -> None:
    output = BurnedOutput(tmp_path / "out.mp4")
    for index in range(9):
        output.see(step(index))
        assert len(output._wordless) <= burned.WORDLESS_STEPS
    output.write(Commentary(8, 9, "late"))
    frames = finish(output)
    assert len(frames) == 18
    assert [frame.has_words for frame in frames] == [frame.time >= 8 for frame in frames]


def test_a_step_that_fails_has_frames_without_words(tmp_path: Path) -> None:
    output = BurnedOutput(tmp_path / "out.mp4")
    output.see(step(0))
    output.write(StepFailed(0, 1, "timeout", "late"))
    assert not output._wordless
    feed(output, "w", begin=1)
    assert [frame.has_words for frame in finish(output)] == [False, False, True, True]


def test_parts_of_a_step_are_one_step(tmp_path: Path) -> None:
    output = BurnedOutput(tmp_path / "out.mp4")
    for part in (0.0, 0.5):
        chunk = Chunk(np.full((2, 360, 640, 3), GREY, np.uint8), (part, part + 0.25), 0, 1)
        output.see(StepInput(chunk, last=part > 0))
    output.write(Commentary(0, 1, "w"))
    frames = finish(output)
    assert [(frame.time, frame.has_words) for frame in frames] == [(index / 4, True) for index in range(4)]


def test_two_frames_of_one_time_are_both_there(tmp_path: Path) -> None:
    output = BurnedOutput(tmp_path / "out.mp4")
    output.see(StepInput(Chunk(np.zeros((3, 360, 640, 3), np.uint8), (0.0, 0.0, 0.0), 0, 1)))
    output.write(Commentary(0, 1, ""))
    assert [frame.time for frame in finish(output)] == [0, 0.001, 0.002]


def test_when_a_file_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    first = BurnedOutput(path)
    feed(first, "a")
    assert len(finish(first)) == 2
    before = path.read_bytes()
    second = BurnedOutput(path)
    for event in (StreamOpened("a", ""), SourceStatus("running"), Delta(0, 1, ""), Closed("broken")):
        second.write(event)
    second.close()
    assert second.wait(0)
    assert path.read_bytes() == before
    third = BurnedOutput(path)
    feed(third, "a", "b")
    assert len(finish(third)) == 4


def resumed(path: Path, *said: str, begin: int, **options: int) -> BurnedOutput:
    (output,) = open_outputs([path], resume=True, patient=True)
    assert isinstance(output, BurnedOutput)
    for index, text in enumerate(said, begin):
        output.see(step(index, **options))
        output.write(Commentary(index, index + 1, text))
    return output


@pytest.mark.parametrize("torn", [b"", b"\0\0\0\x80moof, and the power failed", b"\0" * 5000])
def test_what_is_resumed_is_continued(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "out.mp4"
    output = BurnedOutput(path, patient=True)
    feed(output, *"abc", begin=7)
    first = finish(output)
    for begin in (8, 12):  # some of it is told again
        with path.open("ab") as file:
            file.write(torn)
        before = path.read_bytes()
        after = finish(resumed(path, *"abcdef", begin=begin))
        assert path.read_bytes().startswith(before[: whole_fragments(before)])
        for one, other in zip(first, after, strict=False):
            assert one.time == other.time
            assert np.array_equal(one.picture, other.picture)
        first = after
    assert [frame.time for frame in first] == [index / 2 for index in range(2 * (12 + 6 - 7))]
    assert all(frame.has_words for frame in first)
    assert [one.name for one in tmp_path.iterdir()] == ["out.mp4"]


def test_a_hole_between_two_runs_is_black_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    output = BurnedOutput(path)
    feed(output, "a")
    finish(output)
    (output,) = open_outputs([path], resume=True)
    assert isinstance(output, BurnedOutput)
    output.write(Gap(1, 21, "timeout"))
    feed(output, "b", begin=21)
    frames = finish(output)
    assert [frame.time for frame in frames] == [0, 0.5, 1, 11, 21, 21.5]
    for frame in frames[2:4]:
        assert frame.picture[:100].max() < 20
        assert (frame.picture[160:200, 200:440] > 200).any()


def test_a_film_of_another_size_goes_on_in_its_own(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    output = BurnedOutput(path)
    feed(output, "a")
    finish(output)
    frames = finish(resumed(path, "b", begin=1, width=300, height=480))
    assert {frame.picture.shape for frame in frames} == {(360, 640, 3)}
    assert len(frames) == 4


def test_a_film_of_another_encoder_stays_and_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "out.mp4"
    media.write_clip(tmp_path / "out-2.mp4", count=4)  # somebody's own
    own = (tmp_path / "out-2.mp4").read_bytes()
    monkeypatch.setattr(film, "_ENCODER", {**film._ENCODER, "x264-params": "ref=3"})
    output = BurnedOutput(path)
    feed(output, "a")
    finish(output)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b"\0\0\0\x80moof, and the power failed")
    monkeypatch.undo()
    monkeypatch.setattr(lettering, "Fonts", only())
    for begin in (1, 2):
        output = resumed(path, "b", begin=begin)
        output.close()
        assert output.wait(60)
        assert len(frames_of(tmp_path / "out-3.mp4")) == 2 * begin, "the one beside is continued"
    assert path.read_bytes() == whole
    assert (tmp_path / "out-2.mp4").read_bytes() == own
    assert f"goes on in {tmp_path / 'out-3.mp4'}" in caplog.text


def test_a_head_without_frames_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    output = BurnedOutput(path)
    feed(output, "a")
    finish(output)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moof") - 4])
    assert [frame.time for frame in finish(resumed(path, "b", begin=5))] == [0, 0.5]


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_of_zeros_is_no_film_of_anybody(tmp_path: Path, resume: bool) -> None:
    """A power failure shortly behind the beginning leaves one; the same command must start again by itself."""
    path = tmp_path / "out.mp4"
    path.write_bytes(bytes(100_000))
    (output,) = open_outputs([path], resume=resume)
    assert isinstance(output, BurnedOutput)
    feed(output, "a")
    assert [frame.time for frame in finish(output)] == [0, 0.5]


def test_a_damaged_end_is_cut_off(tmp_path: Path) -> None:
    """The last fragment has its length but not its content, as a power failure can leave it."""
    path = tmp_path / "out.mp4"
    output = BurnedOutput(path, patient=True)
    feed(output, *"abcdef")
    finish(output)
    content = bytearray(path.read_bytes())
    last = content.rindex(b"moof") + 4
    size = content.rindex(b"mdat") - 4 - last
    content[last : last + size] = bytes(size)
    path.write_bytes(content)
    frames = finish(resumed(path, "g", begin=6))
    assert [frame.time for frame in frames] == [*(index / 2 for index in range(8)), 6, 6.5]


def red(frame: Frame) -> int:
    """Lines at the top that are red."""
    column = frame.picture[:, 320].astype(int)
    return round(int(((column[:, 0] > 120) & (column[:, 1] < 90)).sum()) / 16)


def raised(rule: str, time: float, **fields: str) -> Alert:
    return Alert(rule, "raised", 1, time, time, **fields)  # type: ignore[arg-type]


def test_an_alert_stands_on_the_picture_until_it_is_cleared(tmp_path: Path) -> None:
    output = BurnedOutput(tmp_path / "out.mp4", patient=True)
    output.write(RuleChanged("fall", "a person is lying on the floor; every=2; threshold=0.6"))
    feed(output, "he falls")
    output.write(raised("fall", 1.0))
    feed(output, "", begin=1)
    output.write(Alert("fall", "updated", 1, 1.0, 2.0))
    output.write(Gap(2, 12, "timeout"))
    feed(output, "", begin=12)
    output.write(Alert("fall", "cleared", 1, 1.0, 13.0))
    feed(output, "he is up", begin=13)
    frames = finish(output)
    assert [(frame.time, red(frame) > 0) for frame in frames] == [
        *((0, False), (0.5, False), (1, True), (1.5, True), (2, True), (12, True), (12.5, True)),
        *((13, False), (13.5, False)),
    ]
    expected = np.full((360, 640, 3), GREY, np.uint8)
    Lettering(1).draw(expected, ["ALERT fall: a person is lying on the floor"], 0.0, burned.RED)
    top = slice(0, 24)
    assert abs(frames[2].picture[top].astype(int) - expected[top]).mean() < 12
    assert ((frames[2].picture[top, :, 1] > 150) == (expected[top, :, 1] > 150)).mean() > 0.98, "the very words"
    assert abs(frames[2].picture[30:280].astype(int) - GREY).max() < 12, "the rest is the picture"


def test_a_film_that_goes_on_shows_what_an_earlier_run_has_raised(tmp_path: Path) -> None:
    told = [
        *(RuleChanged("fire", "smoke"), raised("fire", 0.5), raised("fall", 1.0)),
        Alert("fire", "cleared", 1, 0.5, 2.0),
    ]
    kept: Any = SimpleNamespace(journal=SimpleNamespace(number=len(told), after=lambda _: told))
    film = BurnedOutput(tmp_path / "out.mp4", resume=True)
    rules = [AskedRule(name="fall", text="a person is lying on the floor", every=5.0)]
    video: Any = None
    Watched("door", video, {}, [film], rules)._catch_up(kept)
    assert film._alerts.lines() == ("ALERT fall: a person is lying on the floor",)
    feed(film, "")
    assert all(red(frame) for frame in finish(film))


@pytest.mark.parametrize(
    ("events", "lines"),
    [
        ([raised("a", 1)], ["ALERT a"]),
        ([raised("a", 1, evidence="she  scores\n")], ["ALERT a: she scores"]),
        ([RuleChanged("a", r"says: \bgoal\b; on_after=2"), raised("a", 1, evidence="goal")], ["ALERT a: goal"]),
        ([RuleChanged("a", "fire; every=2"), raised("a", 1, evidence="goal")], ["ALERT a: fire"]),
        ([RuleChanged("a", "fire; or smoke; every=2"), raised("a", 1)], ["ALERT a: fire; or smoke"]),
        ([raised("a", 1), Alert("a", "cleared", 1, 1, 2)], []),
        ([Alert("a", "cleared", 1, 1, 2)], []),
        ([Alert("a", "updated", 1, 1, 2)], ["ALERT a"]),
        ([raised("a", 1), raised("b", 2)], ["ALERT b", "ALERT a"]),
        ([raised(rule, 1) for rule in "abcde"], ["ALERT e", "ALERT d", "ALERT c", "and 2 more"]),
        ([raised("a", 1), RuleChanged("a", "")], ["ALERT a"]),
    ],
)
def test_lines_of_alerts(events: list[Alert | RuleChanged], lines: list[str]) -> None:
    alerts = Alerts()
    for event in events:
        alerts.add(event)
    assert list(alerts.lines()) == lines


def test_a_long_alert_is_cut_to_the_picture(tmp_path: Path) -> None:
    output = BurnedOutput(tmp_path / "out.mp4")
    output.write(RuleChanged("fall", "word " * 100))
    output.write(raised("fall", 0.0))
    feed(output, "")
    frames = finish(output)
    assert red(frames[0]) in (1, 2)
    assert (frames[0].picture[:24, 0] == frames[0].picture[100, 0]).mean() > 0.3, "it ends before the border"


@pytest.mark.parametrize("content", [b"no video", b"film"])
def test_a_film_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "film.mp4"
    if content == b"film":
        media.write_clip(path, count=4)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="no video with captions of an earlier run"):
        open_outputs([path])
    assert path.read_bytes() == before


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        open_outputs([tmp_path / "none" / "out.mp4"])
    with pytest.raises(OutputError, match=r"\.vtt, \.srt, \.jsonl, \.mp4"):
        open_outputs([tmp_path / "out.mkv"])


def test_a_folder_that_vanishes_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    output = BurnedOutput(folder / "out.mp4")
    folder.rmdir()
    check_fails(output, "No such file")


def test_a_disk_that_fills_up_is_one_line_and_leaves_a_video(tmp_path: Path) -> None:
    output = BurnedOutput(tmp_path / "out.mp4")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, before[1]))
    try:
        check_fails(output, "File too large", lambda: np.random.default_rng(0).integers(0, 255, (2, 360, 640, 3)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(frames_of(output.path)) in (4, 8), "whole fragments"


def check_fails(output: BurnedOutput, said: str, noise: Callable[[], NDArray[np.int64]] | None = None) -> None:
    def try_long() -> None:
        until = time.monotonic() + 60
        for index in itertools.takewhile(lambda _: time.monotonic() < until, itertools.count()):
            frames = step(index).chunk.frames if noise is None else noise().astype(np.uint8)
            output.see(StepInput(Chunk(frames, (index, index + 0.5), index, index + 1)))
            output.write(Commentary(index, index + 1, "w"))
            time.sleep(0.01)

    with pytest.raises(OutputError, match=said) as error:
        try_long()
    assert str(output.path) in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(OutputError, match=said):
        output.close()
    with pytest.raises(OutputError, match=said):
        output.wait(1)


def test_an_error_that_nobody_foresaw_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(burned._Encoder, "add", fail)
    output = BurnedOutput(tmp_path / "out.mp4", patient=True)
    feed(output, "a")
    with pytest.raises(ZeroDivisionError):
        output.wait(60)
    with pytest.raises(ZeroDivisionError):
        feed(output, "b")


def test_all_that_have_threads_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = slow(monkeypatch)
    outputs = open_outputs([tmp_path / "a.mp4", tmp_path / "a.vtt"])
    for output in outputs:
        if isinstance(output, BurnedOutput):
            feed(output, "a")
        output.close()
    began = time.monotonic()
    assert wait_for(outputs, 0.1) == outputs[:1]
    assert time.monotonic() - began < 30
    go.set()
    assert wait_for(outputs, 60) == []


class Watcher:
    """A sink that keeps what it is shown and told, in order."""

    def __init__(self) -> None:
        self.log: list[tuple[str, float, int]] = []

    def see(self, step: StepInput) -> None:
        self.log.append(("frames", step.chunk.start, len(step.chunk.frames)))

    def write(self, event: Event) -> None:
        if isinstance(event, Delta | Commentary):
            self.log.append((type(event).__name__, event.start, 0))

    def close(self) -> None: ...


@pytest.mark.parametrize(("parts", "each"), [(False, [4]), (True, [2, 2])])
def test_a_pipeline_shows_every_frame_before_its_words(parts: bool, each: list[int]) -> None:
    watcher = Watcher()
    with Runtime(Engine(ScriptedModel(lambda start, *_: "a" if start else ""))) as runtime:
        source = ScriptedSource(3, frames=4)
        runtime.start(source, fps=4.0, sinks=[watcher], pace=Pace.INLINE, parts=parts, said_until=1.0).wait()
    assert [(start, count) for kind, start, count in watcher.log if kind == "frames"] == [
        (start, count) for start in (1.0, 2.0) for count in each
    ], "what an earlier run has told is not shown again"
    kinds = [kind for kind, start, _ in watcher.log if start == 2.0]
    assert kinds[: len(each)] == ["frames"] * len(each)
    assert kinds[-1] == "Commentary"


def test_a_stream_becomes_a_video(tmp_path: Path) -> None:
    outputs = open_outputs([tmp_path / "out.mp4", tmp_path / "out.srt"], patient=True)
    with Runtime(Engine(ScriptedModel(lambda start, *_: f"at {start:g}"))) as runtime:
        runtime.start(ScriptedSource(5), sinks=outputs).wait()
    assert wait_for(outputs, 60) == []
    frames = frames_of(tmp_path / "out.mp4")
    assert [frame.time for frame in frames] == [index / 2 for index in range(10)]
    assert all((frame.picture > 200).any() for frame in frames)
    assert isinstance(outputs[1], FileOutput)
    assert os.path.getsize(tmp_path / "out.srt")
