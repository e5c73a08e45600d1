"""Tennis: the RAM against the picture, the court under control, what is said when."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("ale_py")

from arcade_streams.worlds.game import HALF, FrameLabel, Place
from arcade_streams.worlds.games.tennis import TENNIS
from arcade_streams.worlds.games.tennis.court import FEET, SWING_TICKS, Court, height_of, spot
from arcade_streams.worlds.games.tennis.players import at_net
from arcade_streams.worlds.games.tennis.rules import COLOURS, POINTS_TO_WIN
from arcade_streams.worlds.games.tennis.watch import LOB
from arcade_streams.worlds.games.tennis.world import FARTHER, FRAMES_PER_TICK, NEARER, RUN, World
from arcade_streams.worlds.stream import GameStream, Second

WHITE, GREY = (236, 236, 236), (74, 74, 74)
PAINT = {"pink": (240, 128, 128), "blue": (117, 128, 240)}
COURT, SCORE = slice(18, 190), slice(4, 13)
BASES: tuple[Place, Place] = ((76, 144), (76, 5))
Picture = NDArray[np.uint8]
Box = tuple[int, int, int, int]


def box(where: NDArray[np.bool_], top: int = 0) -> Box | None:
    """Left, top, right and bottom of what is set."""
    ys, xs = np.nonzero(where)
    return (int(xs.min()), int(ys.min()) + top, int(xs.max()), int(ys.max()) + top) if len(xs) else None


def dots(screen: Picture, paint: tuple[int, int, int]) -> Box | None:
    return box((screen[COURT] == paint).all(-1), COURT.start)


@pytest.fixture(scope="module")
def clip() -> list[Second]:
    return list(islice(GameStream(TENNIS, 8, fps=10), 60))


@pytest.fixture(scope="module")
def long() -> list[Second]:
    return list(islice(GameStream(TENNIS, 23, render=False), 600))


def frames(clip: list[Second]) -> list[tuple[Picture, FrameLabel]]:
    return [(frame, label) for second in clip for frame, label in zip(second.frames, second.labels, strict=True)]


def figures(clip: list[Second], colour: str) -> list[NDArray[np.bool_]]:
    """Where a player is drawn in each frame: everything of the colour that is not always there."""
    masks = np.stack([(frame == PAINT[colour]).all(-1) for frame, _ in frames(clip)])
    masks &= masks.mean(0) < 0.9
    masks[:, : COURT.start] = masks[:, COURT.stop :] = False
    return list(masks)


def test_ball_and_shadow_are_where_the_label_says(clip: list[Second]) -> None:
    seen = Counter[bool]()
    for frame, label in frames(clip):
        players = [label.places[colour] for colour in COLOURS]
        for name, paint in (("ball", WHITE), ("shadow", GREY)):
            place, found = label.places[name], dots(frame, paint)
            seen[place is not None] += 1
            if place is None:
                assert found is None or found[1] == found[3] == 98, "half a ball at the net's upper edge"
                continue
            x, y = place
            if not any(p and -10 <= x - p[0] <= 18 and -2 <= y - p[1] <= 23 for p in players):
                assert found is not None, "nothing but a player hides it"
                assert found == (x, y, x + 1, y + 1)
            elif found is not None:
                assert x <= found[0] <= found[2] <= x + 1
                assert y <= found[1] <= found[3] <= y + 1
    assert min(seen.values()) > 100


@pytest.mark.parametrize("colour", COLOURS)
def test_players_are_where_the_label_says(clip: list[Second], colour: str) -> None:
    for where, (_, label) in zip(figures(clip, colour), frames(clip), strict=True):
        place, drawn = label.places[colour], box(where)
        assert place is not None
        assert drawn is not None
        x, y = place
        assert (max(y, COURT.start), y + 22) == (drawn[1], drawn[3])
        # The body is 8 wide; the racket reaches out to one side of it.
        assert (x <= drawn[0] + 1 and x + 8 < drawn[2]) or (drawn[0] < x and drawn[2] - 1 <= x + 8)
        feet = FEET[COLOURS.index(colour)] - y
        assert label.facts[f"net_{colour}"] == at_net(COLOURS.index(colour), feet)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_racket_is_out_when_the_label_says(clip: list[Second], colour: str) -> None:
    """At rest the racket is at rows 1 to 7 of a figure, in a stroke from row 4 on."""
    seen = Counter[int]()
    for where, (_, label) in zip(figures(clip, colour), frames(clip), strict=True):
        place = label.places[colour]
        assert place is not None
        x, y = place
        beside = np.concatenate([where[y : y + 23, max(0, x - 8) : x - 1], where[y : y + 23, x + 9 : x + 16]], axis=1)
        out = int(np.nonzero(beside)[0].min()) >= 4
        assert out == bool(label.facts[f"swing_{colour}"])
        seen[out] += 1
    assert min(seen.values()) > 40


def test_scores_are_drawn() -> None:
    court = Court()
    glyphs: dict[int, list[bytes]] = {}
    for number in range(8):
        court.score((number, 7 - number))
        picture = court.screen()[SCORE].copy()
        for colour, said, half in (("pink", number, slice(0, 80)), ("blue", 7 - number, slice(80, 160))):
            digit = (picture[:, half] == PAINT[colour]).all(-1)
            glyphs.setdefault(said, []).append(digit[:, digit.any(0)].tobytes())
    assert all(one == other for one, other in glyphs.values()), "left and right have the same digits"
    assert len({one for one, _ in glyphs.values()}) == 8


def test_labels_have_the_score_that_is_drawn(clip: list[Second]) -> None:
    drawn: dict[tuple[int, int], set[bytes]] = {}
    for frame, label in frames(clip):
        drawn.setdefault(label.scores, set()).add(frame[SCORE].tobytes())
    assert len(drawn) >= 3
    assert all(len(pictures) == 1 for pictures in drawn.values())
    assert len(set.union(*drawn.values())) == len(drawn)


def serve(court: Court, side: int) -> None:
    """Lets a player serve from the base line, straight ahead."""
    x, y = BASES[side]
    court.bounce(x + 9, y)
    court.tick(BASES)
    assert court.hitter is None
    court.tick(BASES, serve=True)
    assert court.hitter == side


@pytest.mark.parametrize("side", [0, 1])
def test_the_game_moves_the_ball_as_it_is_aimed(side: int) -> None:
    court, toward = Court(), (-1, 1)[side]
    serve(court, side)
    assert court.ball is not None
    court.aim(0.5, 1.5 * toward)
    (x, y, z), climb = court.ball, 2.5
    for tick in range(1, 30):
        court.tick(BASES)
        z, climb = z + climb, climb - 0.125
        assert court.ball is not None
        assert abs(court.ball[0] - (x + 0.5 * tick)) <= 1
        assert abs(court.ball[1] - (y + 1.5 * toward * tick)) <= 1
        assert abs(court.ball[2] - z) <= 1
        assert court.motion == (1, -toward)


@pytest.mark.parametrize("side", [0, 1])
def test_who_is_not_reached_loses_the_point_and_the_game_goes_on(side: int) -> None:
    court = Court()
    for _ in range(3):
        serve(court, side)
        court.aim(-0.6, (-2.0, 2.0)[side])
        scored = [court.tick(BASES) for _ in range(90)]
        assert next(who for who in scored if who is not None) == side
        court.park()
        court.tick(BASES)
        assert court.ball is None
        assert court.hitter is None
        assert dots(court.screen(), WHITE) is dots(court.screen(), GREY) is None


def test_a_ball_in_reach_is_returned_and_the_stroke_is_seen_for_half_a_second() -> None:
    court = Court()
    serve(court, 1)
    assert court.ball is not None
    court.aim((84 - court.ball[0]) / 60, 2.2)
    while court.hitter == 1:
        assert court.tick(BASES) is None
    assert not court.swings(0)
    for _ in range(SWING_TICKS):
        court.tick(BASES)
        assert court.swings(0)
    court.tick(BASES)
    assert not court.swings(0)
    assert SWING_TICKS * FRAMES_PER_TICK == HALF, "one of the frames at 2 a second shows it, and one only"


def test_a_second_bounce_ends_the_point() -> None:
    court = Court()
    serve(court, 0)
    court.aim(0.0, -1.0)
    heights = []
    while court.tick(BASES) is None:
        assert court.ball is not None
        heights.append(court.ball[2])
    assert 75 < len(heights) < 95
    assert court.ball is not None
    assert court.ball[1] > BASES[1][1] + 8, "it has not come to the other base line"


def test_hidden_rows() -> None:
    assert spot(50, 84) is None, "the net"
    assert spot(50, 142) is None, "a base line"
    assert spot(50, 173) is None, "above the picture"
    assert spot(50, 77) == (50, 113)
    assert spot(50, 93) == (50, 96)
    assert height_of((50, 50), (50, 96)) == 46
    assert height_of((50, 96), (50, 113)) == 93 - 77
    assert height_of(None, (50, 96)) is None


def test_colours_stay_for_hours() -> None:
    world = World(random.Random(3))
    world.court.console.write(8, 255)  # the game's idle clock just before it runs over
    world.court.console.write(4, 255)
    for _ in range(600):
        world.advance()
    colours = {tuple(colour) for colour in world.screen().reshape(-1, 3).tolist()}
    assert colours <= {WHITE, GREY, *PAINT.values(), (0, 0, 0), (82, 126, 45), (214, 214, 214)}


def said(stream: list[Second], *kinds: str) -> list[int]:
    return [second.index for second in stream for event in second.events if event.kind in kinds]


@pytest.mark.slow
def test_how_often_things_are_said(long: list[Second]) -> None:
    counts = Counter(event.kind for second in long for event in second.events)
    minutes = len(long) / 60
    ranges = {
        "serve": (4, 6), "return": (9, 16), "volley": (2, 7), "run": (2.5, 7), "lob": (0.4, 2), "net": (1.2, 4.5),
        "rally": (1, 3.5), "point": (4, 6), "streak": (0.4, 2.5), "game_point": (0.4, 2), "game": (0.3, 1),
        "tally": (0.8, 2), "match": (0.05, 0.5),
    }  # fmt: skip
    for kind, (low, high) in ranges.items():
        assert low <= counts[kind] / minutes <= high, kind
    assert counts["score"] == counts["point"]
    assert 38 < counts.total() / minutes < 50
    assert 0.45 < sum(not second.text for second in long) / len(long) < 0.6


def test_strokes_have_no_rhythm(long: list[Second]) -> None:
    times = said(long, "serve", "return", "volley")
    gaps = Counter(b - a for a, b in pairwise(times) if b - a <= 3)
    assert len(gaps) == 3
    assert max(gaps.values()) < 0.65 * gaps.total()


def test_one_frame_at_two_a_second_shows_each_stroke(long: list[Second]) -> None:
    for second in long:
        strokes = [event for event in second.events if event.kind in ("serve", "return", "volley")]
        out = [colour for label in second.labels for colour in COLOURS if label.facts[f"swing_{colour}"]]
        assert out == [event.colour for event in strokes]


def test_who_runs_has_been_far_off_and_who_does_not_has_not(long: list[Second]) -> None:
    """Nothing is near the limit, so that a look at the picture of half a second before the ball came tells it."""
    labels = [(label, second) for second in long for label in second.labels]
    far, hitter, start = [], None, [0, 0]
    for (before, _), (label, second) in pairwise(labels):
        if label.scores != before.scores:
            hitter = None
        for side, colour in enumerate(COLOURS):
            if label.facts[f"swing_{colour}"]:
                place = label.places[colour]
                assert place is not None
                if hitter is not None:
                    way = abs(place[0] - start[side])
                    far.append((way, any(e.kind == "run" and e.colour == colour for e in second.events)))
                hitter, start = side, [before.places[c][0] for c in COLOURS if before.places[c] is not None]
    assert all(ran == (way >= RUN) for way, ran in far)
    assert sum(NEARER + 4 < way < FARTHER - 4 for way, _ in far) < 0.02 * len(far)


def test_who_stays_at_the_net_has_been_seen_there_seven_times(long: list[Second]) -> None:
    for first, second in zip(long, long[4:], strict=False):
        for event in second.events:
            if event.kind == "net":
                assert event.colour is not None
                between = [label for s in long[first.index + 1 : second.index] for label in s.labels]
                assert all(label.facts[f"net_{event.colour}"] for label in between[1:])


def test_a_lob_is_seen_above_its_shadow(long: list[Second]) -> None:
    heights = []
    for second in long:
        seen = [height_of(label.places["ball"], label.places["shadow"]) or 0 for label in second.labels]
        heights += [max(seen)] if said([second], "lob") else []
    assert heights
    assert min(heights) >= LOB


def test_games_end_at_five(long: list[Second]) -> None:
    ends = [second.labels[-1].scores for second in long if said([second], "game")]
    assert ends
    assert all(max(scores) == POINTS_TO_WIN for scores in ends)
