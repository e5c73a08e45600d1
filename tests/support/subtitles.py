"""Reading what subtitles say, strictly."""

from __future__ import annotations

import re
from itertools import pairwise

from streamingvlm.core.events import Commentary
from streamingvlm.sinks.cues import Cue

CUE = re.compile(r"(\d\d+):(\d\d):(\d\d)[.,](\d{3}) --> (\d\d+):(\d\d):(\d\d)[.,](\d{3})")


def said(start: float, text: str, step: float = 1.0) -> Commentary:
    return Commentary(start, start + step, text)


def parse(text: str, srt: bool = False) -> list[Cue]:
    """A strict little parser of both formats."""
    if not srt:
        assert text.startswith("WEBVTT\n\n")
        text = text[8:]
    assert text == "" or text.endswith("\n\n")
    cues = []
    blocks = [block for block in text.split("\n\n")[:-1] if srt or not block.startswith("NOTE ")]
    for number, block in enumerate(blocks, 1):
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
