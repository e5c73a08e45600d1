"""Fonts of the machine: for every letter the first one that has it.

Where fontconfig is installed it is asked, for it knows which fonts a person prefers and how Han letters look in their
language. Then come fonts that Linux, macOS and Windows bring along, where Pillow finds them.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from PIL import ImageFont, features

from .limits import FONT_SEARCHES

#: A file, or a name that Pillow looks for, and the number of the font in it.
FontFile = tuple[str, int]
#: Names without suffixes: of many alphabets, of Windows, macOS and Linux, then of Han, kana and hangul, then of India
#: and its neighbours.
NAMES = (
    *("DejaVuSans", "NotoSans-Regular", "LiberationSans-Regular", "FreeSans", "segoeui", "arial", "Arial Unicode"),
    *("NotoSansCJK-Regular", "NotoSansJP-Regular", "wqy-microhei", "wqy-zenhei", "DroidSansFallbackFull"),
    *("YuGothM", "msgothic", "msyh", "msjh", "malgun", "Hiragino Sans GB", "AppleSDGothicNeo"),
    *("NotoSansDevanagari-Regular", "Lohit-Devanagari", "Nirmala", "Kohinoor", "NotoSansBengali-Regular"),
    *("NotoSansTamil-Regular", "NotoSansTelugu-Regular", "NotoSansThai-Regular", "LeelawUI", "Thonburi"),
    *("NotoSansArabic-Regular", "NotoSansHebrew-Regular", "GeezaPro"),
)
#: Seconds that fontconfig may take; the first time it reads all fonts.
SECONDS = 20.0
#: No letter: what is drawn for it is drawn for every letter that a font does not have.
_NONE = "\U0010fffe"
_PROBE = 16


def joins_letters() -> bool:
    """Whether letters are joined, stacked and turned round as Arabic, Hebrew and the scripts of India need it.

    Pillow does that with Raqm, which is in its wheels, and FriBiDi, which is not.
    """
    return bool(features.check_feature("raqm"))


@dataclass(slots=True, eq=False)
class Font:
    """One font in one size. ``probe``: the same, letter by letter."""

    face: ImageFont.FreeTypeFont
    probe: ImageFont.FreeTypeFont
    _has: dict[str, bool] = field(default_factory=dict)

    def has(self, letter: str) -> bool:
        """Whether it has a letter of its own for it."""
        if letter not in self._has:
            self._has[letter] = letter == " " or self._ink(letter) != self._ink(_NONE)
        return self._has[letter]

    def _ink(self, letter: str) -> tuple[tuple[int, int], bytes]:
        try:
            mask = self.probe.getmask(letter)
            return mask.size, bytes(mask)
        except (OSError, ValueError):  # a font that is damaged has nothing
            return (0, 0), b""


def ask_fontconfig(letter: str) -> FontFile | None:
    """The font that fontconfig would draw ``letter`` with; None where it is not installed, or does not answer."""
    program = shutil.which("fc-match")
    if program is None:
        return None
    pattern = f"sans-serif:scalable=true:color=false:charset={ord(letter):x}"
    try:
        done = subprocess.run(
            [program, "-f", "%{index} %{file}", pattern], capture_output=True, timeout=SECONDS, check=True
        )
        index, _, file = done.stdout.decode().partition(" ")
        return file, int(index) & 0xFFFF  # above that is the number of a variation
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


class Fonts:
    """Fonts of ``size`` pixels, opened when a letter needs them. ``ask``, ``names``: where they are looked for."""

    def __init__(
        self, size: int, ask: Callable[[str], FontFile | None] = ask_fontconfig, names: tuple[str, ...] = NAMES
    ) -> None:
        self._size = max(size, 1)
        self._ask, self._names = ask, iter(names)
        self._asked = 0
        self._files: set[FontFile] = set()
        self._fonts: list[Font] = []
        self._of: dict[str, Font | None] = {}

    def of(self, letter: str) -> Font | None:
        """The first font that has ``letter``; None if there is none."""
        if letter not in self._of:
            known = (font for font in self._fonts if font.has(letter))
            found = next(known, None) or next((font for font in self._more(letter) if font.has(letter)), None)
            self._of[letter] = found
        return self._of[letter]

    def of_all(self, text: str) -> Font | None:
        """One font that has all letters of ``text``, so that they can be joined and ordered; None if there is none."""
        for letter in text:
            self.of(letter)
        return next((font for font in self._fonts if all(map(font.has, text))), None)

    def _more(self, letter: str) -> Iterator[Font]:
        """Fonts that were not opened yet."""
        if self._asked < FONT_SEARCHES:
            self._asked += 1
            if (file := self._ask(letter)) is not None:
                yield from self._open(file)
        for name in self._names:
            yield from self._open((name, 0))

    def _open(self, file: FontFile) -> Iterator[Font]:
        if file in self._files:
            return
        self._files.add(file)
        with suppress(OSError, ValueError):  # not there, a font of pictures, or damaged
            face = ImageFont.truetype(file[0], self._size, file[1])
            probe = ImageFont.truetype(face.path, _PROBE, file[1], layout_engine=ImageFont.Layout.BASIC)
            font = Font(face, probe)
            self._fonts.append(font)
            yield font
