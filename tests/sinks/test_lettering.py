"""Words in any alphabet that a font of the machine has; what none has is plainer, and counted."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamingvlm.core.events import Chunk, Commentary, StepInput
from streamingvlm.sinks import burned, fonts, lettering
from streamingvlm.sinks.burned import BurnedOutput, Captions
from streamingvlm.sinks.cues import columns, wrap
from streamingvlm.sinks.fonts import Fonts, ask_fontconfig, joins_letters
from streamingvlm.sinks.lettering import Lettering
from support.fonts import make_font, only

WHOLE, UPPER, LOWER = (0, 0, 1000, 800), (0, 400, 1000, 800), (0, 0, 1000, 400)


def drawn(letters: Lettering, *lines: str, width: int = 320, height: int = 100) -> NDArray[np.uint8]:
    """Where there is ink, on black."""
    picture = np.zeros((height, width, 3), np.uint8)
    letters.draw(picture, list(lines), 0.5)
    assert (picture[..., 0] == picture[..., 1]).all()
    return picture[..., 0]


def spans(row: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where a row is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@pytest.fixture
def dejavu() -> Path:
    """A real font that Matplotlib brings along."""
    matplotlib = pytest.importorskip("matplotlib", reason="needs the font that Matplotlib brings along")
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def test_letters_are_drawn_with_the_font_that_has_them(tmp_path: Path) -> None:
    upper = make_font(tmp_path / "upper.ttf", {"Ж": UPPER})
    lower = make_font(tmp_path / "lower.ttf", {"世": LOWER})
    letters = Lettering(2, only(upper, lower)(20))
    assert letters.width("Ж世") == 40
    ink = drawn(letters, "Ж世")
    rows = [spans(row > 128) for row in ink if (row > 128).any()]
    assert rows[1:-1] == sorted(rows[1:-1]), "one above, the other below"
    assert rows[1] == [(140, 160)], "each letter from the font that has it"
    assert rows[-2] == [(160, 180)]
    assert not letters.missing


def test_one_font_that_has_all_draws_a_line(tmp_path: Path) -> None:
    upper = make_font(tmp_path / "upper.ttf", {"Ж": UPPER})
    lower = make_font(tmp_path / "lower.ttf", {"世": LOWER, "Ж": WHOLE})
    letters = Lettering(2, only(upper, lower)(20))
    letters.width("世")  # opens the other one
    rows = [row for row in drawn(letters, "Ж世Ж") if (row > 128).any()]
    assert len(rows) == pytest.approx(16, abs=1), "a whole letter is 0.8 em high"
    assert spans(rows[-1] > 128) == [(130, 190)]
    assert spans(rows[0] > 128) == [(130, 150), (170, 190)]


@pytest.mark.parametrize(
    ("text", "shown", "missing"),
    [
        ("Ж 世", "Ж ?", "世"),
        ("caf\xe9", "caf\xe9", ""),
        ("\u201cnow\u201d \u2013 it\u2019s\u2026", '"now" - it\'s...', ""),
        ("\u010capek", "Capek", "\u010c"),
        ("e\u0301", "\xe9", ""),
        ("a\u200db\u0301\ufffd", "ab?", "\ufffd"),
        ("\U0001f600", "?", "\U0001f600"),
    ],
)
def test_what_no_font_has_is_plainer(tmp_path: Path, text: str, shown: str, missing: str) -> None:
    letters = Lettering(1, only(make_font(tmp_path / "a.ttf", {"Ж": WHOLE}))(10))
    assert letters.plain(text) == shown
    assert letters.missing == set(missing)


def test_a_mark_stays_with_its_letter(tmp_path: Path) -> None:
    base = make_font(tmp_path / "base.ttf", {"क": WHOLE})
    both = make_font(tmp_path / "both.ttf", {"ि": UPPER, "ख": WHOLE})
    letters = Lettering(1, only(base, both)(10))
    assert [(text, font.face.path) for text, font, _ in letters._runs("कखि") if font] == [
        ("क", str(base)),
        ("खि", str(both)),
    ]


@pytest.mark.parametrize("text", ["Мяч у ворот", "Ο διαιτητής", "Խաղը սկսվեց"])
def test_alphabets_of_a_real_font(dejavu: Path, text: str) -> None:
    letters = Lettering(2, only(dejavu)(26))
    ink = drawn(letters, text)
    assert not letters.missing
    assert letters.plain(text) == text
    left, right = np.flatnonzero((ink > 128).any(0))[[0, -1]]
    assert right - left == pytest.approx(letters.width(text), abs=8)
    assert 160 - left == pytest.approx(right - 160, abs=6), "in the middle"
    other = drawn(letters, "?" * len(text))
    assert (ink != other).mean() > 0.01


@pytest.mark.skipif(not joins_letters(), reason="this Pillow cannot join letters: FriBiDi is not installed")
def test_arabic_is_joined_and_goes_to_the_left(dejavu: Path) -> None:
    letters = Lettering(2, only(dejavu)(26))
    assert letters.width("ببببب") < 0.6 * 5 * letters.width("ب"), "joined letters are narrower"
    assert not letters.unjoined
    ink = drawn(letters, "ا ببببب") > 128  # one tall stroke, then a long flat word
    height = ink.any(1)
    columns_ = np.flatnonzero(ink.any(0))
    tall = np.flatnonzero(ink[np.flatnonzero(height)[0]])
    assert tall.min() > columns_.mean(), "what is said first stands at the right"


def test_without_fribidi_that_is_told_once(
    dejavu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lettering, "Fonts", only(dejavu))
    monkeypatch.setattr(lettering, "joins_letters", lambda: False)
    write(tmp_path / "out.mp4", "goal", "هدف", "هدف")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "install FriBiDi" in record.getMessage()


def test_letters_that_are_missing_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lettering, "Fonts", only())
    write(tmp_path / "out.mp4", "goal", "世界", "得点")
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith(f"{tmp_path / 'out.mp4'}: no font on this machine has 世 界; ")
    assert "fonts-noto-cjk" in line


def write(path: Path, *said: str) -> None:
    output = BurnedOutput(path, patient=True)
    for start, text in enumerate(said):
        output.see(StepInput(Chunk(np.zeros((1, 120, 160, 3), np.uint8), (start,), start, start + 1)))
        output.write(Commentary(start, start + 1, text))
    output.close()
    assert output.wait(60)


def test_a_font_that_is_damaged_is_passed_over(tmp_path: Path) -> None:
    bad = tmp_path / "bad.ttf"
    bad.write_bytes(make_font(tmp_path / "a.ttf", {"Ж": WHOLE}).read_bytes()[:200])
    good = make_font(tmp_path / "good.ttf", {"Ж": WHOLE})
    font = only(bad, tmp_path / "none.ttf", good)(10).of("Ж")
    assert font is not None
    assert font.face.path == str(good)


def test_fontconfig_is_asked_first_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "FONT_SEARCHES", 3)
    font = make_font(tmp_path / "a.ttf", {"Ж": WHOLE})
    asked: list[str] = []
    known = Fonts(10, ask=lambda letter: (asked.append(letter), (str(font), 0))[1], names=())
    assert [known.of(letter) is not None for letter in "ЖЖ世界得点"] == [True, True, False, False, False, False]
    assert asked == ["Ж", "世", "界"]


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("printf '2 /fonts/a.ttc'", ("/fonts/a.ttc", 2)),
        ("printf '65538 /fonts/a b.ttf'", ("/fonts/a b.ttf", 2)),
        ("exit 1", None),
        ("printf nothing", None),
        ("sleep 60", None),
    ],
)
def test_what_fontconfig_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: tuple[str, int] | None
) -> None:
    program = tmp_path / "fc-match"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(fonts, "SECONDS", 0.3)
    monkeypatch.setattr("shutil.which", lambda _: str(program))
    assert ask_fontconfig("世") == found
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert ask_fontconfig("世") is None


def test_words_stand_on_the_picture_in_their_own_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the words to the pixels of the video."""
    monkeypatch.setattr(lettering, "Fonts", only(make_font(tmp_path / "a.ttf", {"得": WHOLE, "点": UPPER})))
    write(tmp_path / "out.mp4", "得点")
    with burned.av.open(str(tmp_path / "out.mp4")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="gray")
    rows = [spans(row > 150) for row in picture if (row > 150).any()]
    assert all(part == [(227, 253)] for part in rows[1:5]), "both, next to each other, in the middle of 480"
    assert all(part == [(227, 240)] for part in rows[-4:-1]), "then the lower half of the first"


@pytest.mark.parametrize(
    ("words", "limit", "lines"),
    [
        (["aaa", "bbb"], 7, ["aaa bbb"]),
        (["aaa", "bbb"], 6, ["aaa", "bbb"]),
        (["世界世界世"], 4, ["世界", "世界", "世"]),
        (["a", "世界"], 4, ["a 世", "界"]),
        (["aaaaa", "b"], 3, ["aaa", "aa", "b"]),
        (["a", "bbbbb"], 3, ["a b", "bbb", "b"]),
        (["e\u0301" * 4], 2, ["e\u0301" * 2] * 2),
        ([], 3, []),
        (["ab"], 0, ["a", "b"]),
    ],
)
def test_lines_of_words(words: list[str], limit: int, lines: list[str]) -> None:
    assert wrap(words, limit) == lines
    assert all(columns(line) <= max(limit, 1) for line in lines)


def test_words_without_spaces_are_filled_up_without_any() -> None:
    captions = Captions(8)
    said = [Commentary(index, index + 1, text) for index, text in enumerate(["世界世界世", "界"])]
    assert [captions.lines(one, (one.start,)) for one in said] == [[["世界世界", "世"]], [["世界世界", "世 界"]]]


def test_the_words_fit_the_picture_whatever_their_letters(dejavu: Path) -> None:
    letters = Lettering(1, only(dejavu)(13))
    captions = Captions(336, letters.width)
    for text in ("W" * 200, "WWWW " * 40, "i" * 400, "Щ " * 100):
        (lines,) = captions.lines(Commentary(0, 1, text), (0.0,))
        assert len(lines) == 2
        assert all(letters.width(line) <= 336 for line in lines)
