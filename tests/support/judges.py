"""Judges with known habits, as replies of a :class:`~support.chat_server.ChatServer`; a benchmark made of few words."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from streamingvlm.evaluate.benchmark import Count, Defect, Game, Said, Video, Window
from streamingvlm.evaluate.judging.votes import Pair

Request = Mapping[str, Any]
JudgeReply = Callable[[Request], str]


def sections(request: Request) -> tuple[str, str, str]:
    """Transcript, commentary A and commentary B, as a judge is shown them."""
    text = request["messages"][1]["content"]
    found = [
        re.search(rf"<{tag}>\n(.*?)\n</{tag}>", text, re.DOTALL)
        for tag in ("transcript", "commentary_a", "commentary_b")
    ]
    reference, a, b = (one[1] if one else "" for one in found)
    return reference, a, b


def says(winner: str) -> str:
    return json.dumps({"winner": winner})


def by(score: Callable[[str, str], float]) -> JudgeReply:
    """A judge that prefers the higher ``score(text, reference)``."""

    def reply(request: Request) -> str:
        if len(request["messages"]) == 1:
            return "OK"
        reference, a, b = sections(request)
        difference = score(a, reference) - score(b, reference)
        return says("tie" if abs(difference) < 1e-9 else "A" if difference > 0 else "B")

    return reply


def likeness(text: str, reference: str) -> float:
    """F1 of the pairs of neighbouring words that both texts have."""
    one, other = (Counter(pairwise(words)) for words in (text.split(), reference.split()))
    shared = (one & other).total()
    return 2 * shared / max(1, one.total() + other.total())


fair = by(likeness)
longest = by(lambda text, reference: len(text))  # noqa: ARG005
first = by(lambda text, reference: 0.0)  # noqa: ARG005


def always(winner: str) -> JudgeReply:
    return lambda request: says(winner)  # noqa: ARG005


def game_text(game: int, words: int = 40) -> str:
    """Words of one game: no two games share any; a few numbers among them."""
    draw = random.Random(game)
    return " ".join(
        f"{draw.randint(1, 99)}" if word % 8 == 5 else f"w{game}x{draw.randint(0, 999)}" for word in range(words)
    )


def make_windows(videos: int = 4, each: int = 5) -> list[Window]:
    """Windows of 100 s, ``each`` of every video; texts differ from window to window."""
    found = []
    for v in range(videos):
        for w in range(each):
            about = (f"v{v}-{w}", f"v{v}", f"v{v}", f"game {v}", ("golf", "darts")[v % 2])
            found.append(Window(*about, 100.0 * w, 100.0 * (w + 1), game_text(10 * v + w)))
    return found


def make_pairs(windows: Sequence[Window], a: Callable[[Window], str], b: Callable[[Window], str]) -> list[Pair]:
    return [
        Pair(one.id, one.video, one.group, one.title, one.start, one.end, one.reference, a(one), b(one))
        for one in windows
    ]


def part(share: float) -> Callable[[Window], str]:
    """A contestant that says the first ``share`` of what the human says, in as many words."""

    def text(window: Window) -> str:
        words = window.reference.split()
        right = round(share * len(words))
        return " ".join([*words[:right], *(f"wrong{place}" for place in range(len(words) - right))])

    return text


@dataclass
class FewGames:
    """A benchmark of commentary; prediction files are JSON objects: window id -> text."""

    name: str = "inf-streams"
    revision: str = "0123456789abcdef"
    windows: Sequence[Window] = field(default_factory=make_windows)
    counts: Sequence[Count] = ()
    videos: Sequence[Video] = ()
    defects: Sequence[Defect] = ()

    @property
    def games(self) -> Sequence[Game]:
        return ()

    def published(self, game: Game, said: Sequence[Said]) -> Iterable[Mapping[str, Any]]:
        raise NotImplementedError

    def texts(self, path: Path) -> Mapping[str, str]:
        found: dict[str, str] = json.loads(path.read_text())
        return found
