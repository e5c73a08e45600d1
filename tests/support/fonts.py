"""Fonts whose letters are known to the pixel, made when a test needs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingvlm.sinks.fonts import Fonts

#: Of a font: units of an em.
EM = 1000
#: Left, bottom, right, top of a letter.
Box = tuple[int, int, int, int]


def make_font(path: Path, letters: dict[str, Box]) -> Path:
    """A TrueType font: each letter is a box as wide as an em, what it does not have a line at the bottom."""
    builder = pytest.importorskip("fontTools.fontBuilder", reason="fontTools comes with matplotlib").FontBuilder(EM)
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")
    names = {letter: f"u{ord(letter):04X}" for letter in letters}
    boxes: dict[str, Box] = {".notdef": (0, 0, EM, 50), **{names[letter]: box for letter, box in letters.items()}}
    glyphs = {}
    for name, (left, bottom, right, top) in boxes.items():
        pen = pens.TTGlyphPen(None)
        pen.moveTo((left, bottom))
        for corner in ((left, top), (right, top), (right, bottom)):
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder.setupGlyphOrder(list(boxes))
    builder.setupCharacterMap({ord(letter): name for letter, name in names.items()})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics({name: (EM, box[0]) for name, box in boxes.items()})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(str(path))
    return path


def only(*paths: Path) -> type[Fonts]:
    """Fonts that are looked for nowhere else."""

    class Only(Fonts):
        def __init__(self, size: int) -> None:
            super().__init__(size, ask=lambda _: None, names=tuple(map(str, paths)))

    return Only
