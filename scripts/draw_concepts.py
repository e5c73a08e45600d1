"""The drawing of docs/concepts.md, as an SVG: ``python scripts/draw_concepts.py -o docs/concepts.svg``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT = 940, 400
COLOURS = {
    "preamble": "#5b8def",
    "sink": "#b26fd6",
    "text": "#d49be8",
    "instruction": "#e2b93b",
    "turn": "#46b9c4",
    "vision": "#58b368",
    "new": "#e07a5f",
    "gone": "#c9ccd1",
}
INK = "#24292f"


@dataclass(frozen=True)
class Box:
    """A part of the cache: its left edge and width (pixels), its key in COLOURS, and what is written on it."""

    left: int
    width: int
    colour: str
    label: str


#: The stream as it was written, oldest first: turns of video and text.
TURNS = [Box(60 + 52 * number, 48, "gone" if number < 8 else "vision", "") for number in range(15)]
STREAM = (*TURNS, Box(840, 48, "new", ""))
#: What the cache holds before the new turn is prefilled.
CACHE = (
    Box(20, 70, "preamble", "system"),
    Box(94, 120, "sink", "sink|512 tokens"),
    Box(218, 120, "text", "text window|512 tokens"),
    Box(342, 92, "instruction", "instruction"),
    Box(438, 352, "vision", "last 16 s: video, time stamps, replies"),
    Box(794, 126, "new", "new turn"),
)


def box(one: Box, top: int, height: int) -> Iterator[str]:
    """A rectangle with one or two lines of text in its middle."""
    yield (
        f'<rect x="{one.left}" y="{top}" width="{one.width}" height="{height}" rx="4" '
        f'fill="{COLOURS[one.colour]}" fill-opacity="0.85"/>'
    )
    lines = one.label.split("|")
    for number, line in enumerate(lines):
        yield label(one.left + one.width // 2, top + height // 2 + 5 + 16 * number - 8 * (len(lines) - 1), line)


def label(x: int, y: int, text: str, anchor: str = "middle", bold: bool = False) -> str:
    """A line of text; ``anchor``: start, middle or end."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{weight}>{text}</text>'


def arrow(x1: int, y1: int, x2: int, y2: int) -> str:
    """A line with a head at its end."""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{INK}" marker-end="url(#head)"/>'


def drawing() -> Iterator[str]:
    """The lines of the SVG."""
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
    yield f"<style>text {{ font: 13px sans-serif; fill: {INK}; }}</style>"
    yield '<rect width="100%" height="100%" fill="white"/>'
    yield '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
    yield f'<path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>'
    yield label(20, 28, "Stream: one turn per second (time stamp, video, reply)", "start", bold=True)
    for one in STREAM:
        yield from box(one, 44, 40)
    yield label(262, 68, "older than 16 s: video is dropped")
    yield label(656, 68, "vision window: 16 s")
    yield label(864, 68, "now")
    yield label(20, 166, "KV cache: bounded, rows in this order", "start", bold=True)
    yield arrow(300, 88, 300, 184)
    yield label(310, 132, "their replies move into the history", "start")
    yield arrow(640, 88, 640, 184)
    yield label(650, 132, "keys and values are reused", "start")
    yield arrow(864, 88, 864, 184)
    yield label(852, 112, "prefill", "end")
    for one in CACHE:
        yield from box(one, 188, 64)
    yield f'<path d="M94,262 v8 h244 v-8" fill="none" stroke="{INK}"/>'
    yield label(216, 288, "history: tokens between the two are dropped")
    yield label(20, 322, "Positions: numbered again without gaps after every eviction", "start", bold=True)
    yield arrow(20, 340, 920, 340)
    yield label(20, 362, "0", "start")
    yield label(920, 362, "at most the size of the cache", "end")
    yield label(
        20, 388, "Keys are stored before rotation; rows that moved are rotated once, from the raw keys.", "start"
    )
    yield "</svg>"


def main() -> None:
    """Write the drawing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/concepts.svg"))
    output = parser.parse_args().output
    output.write_text("\n".join(drawing()) + "\n", encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main()
