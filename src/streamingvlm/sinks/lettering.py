"""Text on pictures, in the fonts of the machine (:mod:`.fonts`).

What no font has is drawn by FFmpeg, whose decoder of "binary text" brings the 256 characters of code page 437 along:
ASCII, most letters of Western Europe, some Greek ones. What is not there either is shown without its accents, or as a
question mark.

Not done: a line that needs several fonts is put together from left to right, also where it is written from right to
left. Without FriBiDi (:func:`.fonts.joins_letters`) Arabic is not joined, and the signs of Indian scripts are not put
in order. Pictures in colours, such as emoji, are no letters.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .fonts import Font, Fonts, joins_letters

#: Pixels of a character before it is enlarged: a line is as high, and as wide as so many characters at least.
HEIGHT, WIDTH = 16, 8
#: Of the height of a line: the size of the letters, and where they stand.
SIZE, BASE = 0.8, 0.76
#: What typographers write where code page 437 has something plainer.
_SIMPLER = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "•": "*", "€": "EUR"})
#: A character and its colour, white on black.
_COLOUR = 0x0F
#: Text that is drawn with one font (None: FFmpeg's), and its width in pixels.
Run = tuple[str, Font | None, float]


class Lettering:
    """Draws lines of text into pictures; letters are ``scale`` times as large as the smallest.

    ``missing``: letters that could not be drawn; ``unjoined``: whether letters stand wrong for want of FriBiDi.
    """

    def __init__(self, scale: int, fonts: Fonts | None = None) -> None:
        self._scale = scale
        self._fonts = fonts or Fonts(round(HEIGHT * scale * SIZE))
        self._glyphs = _glyphs()
        self._joins = joins_letters()
        self.missing: set[str] = set()
        self.unjoined = False

    def width(self, text: str) -> float:
        """Pixels."""
        return sum(width for _, _, width in self._runs(text))

    def draw(
        self, picture: NDArray[np.uint8], lines: list[str], middle: float, tint: tuple[int, int, int] = (0, 0, 0)
    ) -> None:
        """Draw ``lines`` one under the other, white on a dark box, into ``(height, width, 3)`` RGB.

        ``middle``: where the middle of the box is, as a share of the height; the box stays within the picture. What is
        wider than the picture is cut off. ``tint``: what the box has at least of each colour.
        """
        if not lines:
            return
        runs = [self._runs(line) for line in lines]
        height, margin = HEIGHT * self._scale, WIDTH * self._scale // 2
        ink = np.zeros((len(lines) * height + 2 * margin, picture.shape[1]), np.uint8)
        widest = 0
        for index, line in enumerate(runs):
            width = round(sum(part[2] for part in line))
            self._write(ink, line, max((picture.shape[1] - width) // 2, 0), margin + index * height)
            widest = max(widest, width)
        top = round(picture.shape[0] * middle - len(ink) / 2)
        top = max(min(top, picture.shape[0] - len(ink)), 0)
        left = max((picture.shape[1] - widest) // 2 - margin, 0)
        box = picture[top : top + len(ink), left : picture.shape[1] - left]
        box //= 4
        np.maximum(box, np.array(tint, np.uint8), out=box)
        np.maximum(box, ink[: len(box), left : picture.shape[1] - left, None], out=box)

    def _write(self, ink: NDArray[np.uint8], runs: list[Run], left: float, top: int) -> None:
        """Draw one line into ``(height, width)``, where it was dark."""
        canvas = Image.fromarray(ink)
        draw = ImageDraw.Draw(canvas)
        for text, font, width in runs:
            if font is None:
                mask = self.mask(text)
                canvas.paste(255, (round(left), top), Image.fromarray(mask))
            else:
                draw.text((left, top + round(HEIGHT * self._scale * BASE)), text, 255, font.face, anchor="ls")
            left += width
        ink[:] = np.asarray(canvas)

    def _runs(self, text: str) -> list[Run]:
        text = self.plain(text)
        font = self._fonts.of_all(text)
        parts: list[tuple[str, Font | None]] = [(text, font)] if text and font else []
        for letter in "" if font else text:
            before = parts[-1][1] if parts else None
            own = before if before is not None and before.has(letter) else self._fonts.of(letter)
            if parts and own is before:
                parts[-1] = (parts[-1][0] + letter, own)
            else:
                parts.append((letter, own))
        return [(part, own, self._length(part, own)) for part, own in parts]

    def _length(self, text: str, font: Font | None) -> float:
        return float(len(text) * WIDTH * self._scale if font is None else font.face.getlength(text))

    def mask(self, text: str) -> NDArray[np.uint8]:
        """``(height, width)``: where the ink of ``text`` is in code page 437."""
        ink = self._glyphs[np.frombuffer(text.encode("cp437"), np.uint8)].swapaxes(0, 1).reshape(HEIGHT, -1)
        return ink.repeat(self._scale, axis=0).repeat(self._scale, axis=1)

    def plain(self, text: str) -> str:
        """``text`` in letters that can be drawn, a question mark for each other one."""
        text = unicodedata.normalize("NFC", text)
        self.unjoined |= not self._joins and any(map(_is_joined, text))
        if self._fonts.of_all(text) is not None:
            return text
        return "".join(map(self._plain, text))

    def _plain(self, letter: str) -> str:
        category = unicodedata.category(letter)
        simpler: str = letter.translate(_SIMPLER)
        one: str
        for one in (letter, simpler, *unicodedata.normalize("NFKD", letter)):
            if one.isprintable() and all(self._fonts.of(part) is not None or _known(part) for part in one):
                if one not in (letter, simpler):
                    self.missing.add(letter)
                return one
        if category in ("Mn", "Me", "Cf"):
            return ""
        self.missing.add(letter)
        return "?"


def _glyphs() -> NDArray[np.uint8]:
    """``(256, HEIGHT, WIDTH)``: the characters of code page 437, 255 where there is ink."""
    decoder = av.CodecContext.create("bintext", "r")
    decoder.extradata = bytes([HEIGHT, 0])
    decoder.width, decoder.height = 256 * WIDTH, HEIGHT
    packet = av.Packet(bytes(value for character in range(256) for value in (character, _COLOUR)))
    frame: Any = [*decoder.decode(packet), *decoder.decode(None)][0]
    ink = frame.to_ndarray(format="gray").reshape(HEIGHT, 256, WIDTH).swapaxes(0, 1) > 0
    return np.asarray(ink * 255, np.uint8)


def _is_joined(letter: str) -> bool:
    """Whether it is written from right to left, or of a script with signs that are put in order."""
    return unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.category(letter) == "Mc"


def _known(letter: str) -> bool:
    try:
        return len(letter.encode("cp437")) == 1
    except UnicodeEncodeError:
        return False
