"""Text on pictures, with the letters that FFmpeg brings along: no font and no library has to be there for them.

FFmpeg's decoder of "binary text" draws the 256 characters of code page 437, as a PC's screen once did: ASCII, most
letters of Western Europe, some Greek ones. Others are shown without their accents, or as a question mark.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

#: Pixels of a character before it is enlarged.
HEIGHT, WIDTH = 16, 8
#: What typographers write where code page 437 has something plainer.
_SIMPLER = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "•": "*", "€": "EUR"})
#: A character and its colour, white on black.
_COLOUR = 0x0F


class Lettering:
    """Draws lines of text into pictures."""

    def __init__(self) -> None:
        decoder = av.CodecContext.create("bintext", "r")
        decoder.extradata = bytes([HEIGHT, 0])
        decoder.width, decoder.height = 256 * WIDTH, HEIGHT
        packet = av.Packet(bytes(value for character in range(256) for value in (character, _COLOUR)))
        frame: Any = [*decoder.decode(packet), *decoder.decode(None)][0]
        #: ``(256, HEIGHT, WIDTH)``, true where there is ink.
        self._glyphs: NDArray[np.bool_] = frame.to_ndarray(format="gray").reshape(HEIGHT, 256, WIDTH).swapaxes(0, 1) > 0

    def mask(self, line: str, scale: int) -> NDArray[np.bool_]:
        """``(HEIGHT * scale, n * WIDTH * scale)``: where the ink of ``line`` is; see :func:`plain`."""
        codes = np.frombuffer(plain(line).encode("cp437"), np.uint8)
        ink = self._glyphs[codes].swapaxes(0, 1).reshape(HEIGHT, -1)
        return ink.repeat(scale, axis=0).repeat(scale, axis=1)

    def draw(self, picture: NDArray[np.uint8], lines: list[str], scale: int, middle: float) -> None:
        """Draw ``lines`` one under the other, white on a dark box, into ``(height, width, 3)`` RGB.

        ``middle``: where the middle of the box is, as a share of the height; the box stays within the picture. What is
        wider than the picture is cut off.
        """
        masks = [self.mask(line, scale)[:, : picture.shape[1]] for line in lines]
        if not masks:
            return
        height, margin = sum(len(mask) for mask in masks), WIDTH * scale // 2
        top = round(picture.shape[0] * middle - height / 2)
        top = max(min(top, picture.shape[0] - height - margin), 0)
        width = max(mask.shape[1] for mask in masks) + 2 * margin
        left = max((picture.shape[1] - width) // 2, 0)
        box = picture[max(top - margin, 0) : top + height + margin, left : left + width]
        box //= 4
        for mask in masks:
            left = (picture.shape[1] - mask.shape[1]) // 2
            part = picture[top : top + len(mask), left : left + mask.shape[1]]
            part[mask[: len(part)]] = 255
            top += len(mask)


def plain(text: str) -> str:
    """``text`` in characters that can be drawn, a question mark for each other one."""
    return "".join(map(_plain, text.translate(_SIMPLER)))


def _plain(character: str) -> str:
    if character.isprintable():
        for one in character + unicodedata.normalize("NFKD", character):
            if _known(one):
                return one
    return "" if unicodedata.category(character) in ("Mn", "Me", "Cf") else "?"


def _known(character: str) -> bool:
    try:
        return len(character.encode("cp437")) == 1
    except UnicodeEncodeError:
        return False
