"""The stream: determinism, the RAM against the picture, the rules of what is said when, the ceiling."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("ale_py")

from streamingvlm.arcade.announcer import Announcer
from streamingvlm.arcade.ceiling import ceiling
from streamingvlm.arcade.context import Context
from streamingvlm.arcade.court import Court
from streamingvlm.arcade.language import Event, parse, say, style
from streamingvlm.arcade.pong import PongStream, Second
from streamingvlm.arcade.world import POINTS_TO_WIN, Happening, World, landing

WHITE, GREEN, ORANGE = (236, 236, 236), (92, 186, 92), (213, 130, 74)
SECONDS = 600


@pytest.fixture(scope="module")
def long() -> list[Second]:
    return list(islice(PongStream(21, render=False), SECONDS))


def said(stream: list[Second], kind: str) -> list[tuple[int, Event]]:
    return [(second.index, event) for second in stream for event in second.events if event.kind == kind]


def place(screen: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[int, int] | None:
    """Left and top edge of a colour on the court."""
    ys, xs = np.nonzero((screen[34:194] == colour).all(-1))
    return (int(xs.min()), int(ys.min()) + 34) if len(xs) else None


def test_the_same_seed_gives_the_same_stream() -> None:
    one, two = (list(islice(PongStream(5), 12)) for _ in range(2))
    assert [s.text for s in one] == [s.text for s in two]
    assert all((a.frames == b.frames).all() for a, b in zip(one, two, strict=True))
    assert [s.labels for s in one] == [s.labels for s in two]
    other = list(islice(PongStream(6), 12))
    assert any((a.frames != b.frames).any() for a, b in zip(one, other, strict=True))


def test_the_rate_changes_only_how_often_frames_are_taken() -> None:
    slow, fast = (list(islice(PongStream(5, fps=fps), 10)) for fps in (2, 30))
    assert [s.text for s in slow] == [s.text for s in fast]
    for a, b in zip(slow, fast, strict=True):
        assert a.frames.shape == (2, 210, 160, 3)
        assert b.frames.shape == (30, 210, 160, 3)
        assert a.times == (a.start, a.start + 0.5)
        assert (a.frames == b.frames[::15]).all()
        assert a.labels == b.labels[::15]


def test_labels_agree_with_the_picture() -> None:
    for second in islice(PongStream(8), 90):
        for frame, label in zip(second.frames, second.labels, strict=True):
            ball = place(frame, WHITE)
            assert (ball is None) == (label.ball is None)
            if ball is not None and label.ball is not None:
                assert ball[0] == label.ball[0]
                assert abs(ball[1] - max(34, label.ball[1])) <= 1
            assert (place(frame, GREEN), place(frame, ORANGE)) == ((140, label.paddles[0]), (16, label.paddles[1]))


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
    world = World.of(3)
    world.court._write(9, 255)  # the game's idle clock just before it runs over
    before = {tuple(colour) for colour in world.court.screen().reshape(-1, 3).tolist()}
    for _ in range(600):
        world.advance()
    assert {tuple(colour) for colour in world.court.screen().reshape(-1, 3).tolist()} <= before | {WHITE}


def test_enough_is_said_and_quiet_seconds_are_silent(long: list[Second]) -> None:
    counts = Counter(event.kind for second in long for event in second.events)
    assert counts.total() * 60 / SECONDS >= 15
    assert min(counts[kind] for kind in ("serve", "return", "point", "score", "tally", "streak", "hold", "rally")) >= 2
    assert sum(not second.text for second in long) > 0.3 * SECONDS
    assert max(len(second.text.split()) for second in long) <= 31
    assert all(parse(second.text) == parse(say(second.events, style(21))) for second in long)
    assert counts["score"] == counts["point"]


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


def test_the_counts_add_up(long: list[Second]) -> None:
    score, run, games = [0, 0], ("", 0), [0, 0]
    for second in long:
        for event in second.events:
            side = int(event.colour == "orange")
            if event.kind == "point":
                if max(score) == POINTS_TO_WIN:
                    score = [0, 0]
                score[side] += 1
                run = (str(event.colour), run[1] + 1 if run[0] == event.colour else 1)
            elif event.kind == "score":
                assert event.numbers == tuple(score)
            elif event.kind == "streak":
                assert (event.colour, event.numbers) == (run[0], (run[1],))
            elif event.kind == "game":
                assert score[side] == POINTS_TO_WIN
                assert (event.name is not None) == (games == [0, 0])
                games[side] += 1
            elif event.kind == "tally":
                assert event.numbers == tuple(games)
            elif event.kind == "match":
                assert games[side] == PongStream(21).context.games_to_win
                games = [0, 0]
    assert said(long, "match")


def announce(points: str, games_to_win: int) -> list[list[str]]:
    """What is said after each of some points, one letter for each winner, 20 s apart."""
    context = Context.draw(1)
    context = Context(context.green, context.orange, games_to_win)
    announcer, score, heard = Announcer(context), [0, 0], []
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


def test_a_reader_of_the_frames_can_tell_nearly_everything() -> None:
    figures = ceiling([31], 300)
    assert figures["micro_f1_strict"] > 0.96
    assert figures["micro_f1"] > 0.98
    assert figures["names"] in (None, 1.0)
    assert figures["chance"]["micro_f1_strict"] < 0.15


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="fps"):
        PongStream(1, fps=7)
    with pytest.raises(ValueError, match="seed"):
        PongStream(-1)
