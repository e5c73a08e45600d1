"""Pong: the stream that the bundled weights were trained on, the RAM against the picture, what is said when."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("ale_py")

from arcade_streams.worlds.announcer import Announcer
from arcade_streams.worlds.game import Happening
from arcade_streams.worlds.games.pong import PONG
from arcade_streams.worlds.games.pong.court import Court
from arcade_streams.worlds.games.pong.rules import COLOURS, POINTS_TO_WIN
from arcade_streams.worlds.games.pong.world import World, landing
from arcade_streams.worlds.language import GameEvent
from arcade_streams.worlds.stream import GameStream, Second

WHITE, GREEN, ORANGE = (236, 236, 236), (92, 186, 92), (213, 130, 74)
SECONDS = 600


@pytest.fixture(scope="module")
def long() -> list[Second]:
    return list(islice(GameStream(PONG, 21, render=False), SECONDS))


def said(stream: list[Second], kind: str) -> list[tuple[int, GameEvent]]:
    return [(second.index, event) for second in stream for event in second.events if event.kind == kind]


def place(screen: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[int, int] | None:
    """Left and top edge of a colour on the court."""
    ys, xs = np.nonzero((screen[34:194] == colour).all(-1))
    return (int(xs.min()), int(ys.min()) + 34) if len(xs) else None


def test_the_bundled_weights_still_know_this_stream() -> None:
    """Pixels and words of the streams that they were trained on and are measured with."""
    pictures = hashlib.sha256()
    for second in islice(GameStream(PONG, 5), 60):
        pictures.update(second.frames.tobytes())
    assert pictures.hexdigest() == "641e3d99549bf3e0486669f66657b1f8e177c204a89623621678ecde03ad54b9"
    stream = GameStream(PONG, 9_000_007, render=False)
    words = hashlib.sha256(stream.context.text.encode())
    for second in islice(stream, 300):
        words.update(f"{second.text}\n".encode())
    assert words.hexdigest() == "d43b492ecbef7a42e8719ed20d20631a818fa4966033d7c569f29a51b5b84885"


def test_labels_agree_with_the_picture() -> None:
    for second in islice(GameStream(PONG, 8), 90):
        for frame, label in zip(second.frames, second.labels, strict=True):
            ball = place(frame, WHITE)
            true = label.places["ball"]
            assert (ball is None) == (true is None)
            if ball is not None and true is not None:
                assert ball[0] == true[0]
                assert abs(ball[1] - max(34, true[1])) <= 1
            assert [place(frame, GREEN), place(frame, ORANGE)] == [label.places[colour] for colour in COLOURS]


def test_writes_reach_the_picture() -> None:
    court = Court()
    court.serve(100, 1, 0)
    for green, orange in ((60, 121), (150, 41)):
        for _ in range(9):  # whatever the game's own opponent does in its cycle of 8 frames
            court.step(green, orange)
            assert (place(court.screen(), GREEN), place(court.screen(), ORANGE)) == ((140, green), (16, orange))
    assert court.ball == place(court.screen(), WHITE) == (77 + 18, 100)
    digits = court.screen()[:24].copy()
    court._write(14, 4)
    court.step(60, 61)
    court.step(60, 61)  # a score is drawn one frame after it is counted
    changed = np.nonzero((court.screen()[:24] != digits).any(-1))[1]
    assert changed.min() > 80  # the right digit, above the green paddle
    assert court.scores == (4, 0)


def test_flights_are_foreseen() -> None:
    court = Court()
    for y, dy in ((60, 2), (120, -2), (90, 1), (40, -1)):
        court.serve(y, 1, dy)
        for frame in range(1, 40):
            court.step(37, 37)
            assert court.ball is not None
            assert court.ball[1] == landing(y, dy, frame)
        court.clear()
        court.step(37, 37)


def test_colours_stay_for_hours() -> None:
    world = PONG.world(3)
    assert isinstance(world, World)
    world.court._write(9, 255)  # the game's idle clock just before it runs over
    before = {tuple(colour) for colour in world.court.screen().reshape(-1, 3).tolist()}
    for _ in range(600):
        world.advance()
    assert {tuple(colour) for colour in world.court.screen().reshape(-1, 3).tolist()} <= before | {WHITE}


def test_returns_have_no_rhythm(long: list[Second]) -> None:
    times = [at for at, _ in said(long, "return")]
    gaps = Counter(b - a for a, b in pairwise(times) if b - a <= 3)
    assert max(gaps.values()) < 0.65 * gaps.total()
    assert len(gaps) == 3


def test_tallies_keep_their_distance(long: list[Second]) -> None:
    times = [at for at, _ in said(long, "tally")]
    gaps = np.diff(times)
    assert gaps.min() > 16
    assert gaps.max() < 110
    assert np.diff([at for at, _ in said(long, "point")]).min() >= 6


def announce(points: str, games_to_win: int) -> list[list[str]]:
    """What is said after each of some points, one letter for each winner, 20 s apart."""
    context = replace(PONG.context(1), games_to_win=games_to_win)
    announcer, score, heard = Announcer(PONG, context), [0, 0], []
    for i, letter in enumerate(points):
        score = [0, 0] if max(score) == POINTS_TO_WIN else score
        score[letter == "o"] += 1
        colour = "orange" if letter == "o" else "green"
        announcer.hear(Happening(1200 * i, "point", colour, scores=(score[0], score[1])))
        events = [event for second in range(20 * i, 20 * i + 20) for event in announcer.take(second)]
        heard.append([event.kind for event in events])
    return heard


def test_what_follows_a_point() -> None:
    first = announce("googogogg", 2)
    assert first[0] == ["point", "score"]
    assert first[2] == ["point", "score", "tally"]  # three points played
    assert first[6] == ["point", "score", "game_point"]  # 4 to 3
    assert first[7] == ["point", "score", "game_point"]  # 4 to 4: for the side that has caught up or gone ahead
    assert first[8] == ["point", "score", "game", "tally"]
    assert announce("ggggg", 2)[2:] == [
        ["point", "score", "streak", "tally"],
        ["point", "score", "streak", "game_point"],
        ["point", "score", "streak", "game", "tally"],
    ]
    assert announce("ggggg" * 2, 2)[-1] == ["point", "score", "streak", "game", "tally", "match"]
    assert "match" not in announce("ggggg" * 2, 3)[-1]
