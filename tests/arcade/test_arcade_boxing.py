"""Boxing: the console's memory against the picture, what its code says of a punch, what is said when."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("ale_py")

from arcade_streams.worlds.game import FrameLabel, Happening, Place
from arcade_streams.worlds.games.boxing import BOXING
from arcade_streams.worlds.games.boxing.ring import BOXER_HEIGHT, BOXER_WIDTH, MAX_X, MAX_Y, MIN_X, MIN_Y, Ring
from arcade_streams.worlds.games.boxing.rules import ARMS, COLOURS
from arcade_streams.worlds.games.boxing.watch import Sight, Watch
from arcade_streams.worlds.games.boxing.world import POINT_FRAMES, World
from arcade_streams.worlds.stream import GameStream

PIXELS = {"white": (214, 214, 214), "black": (0, 0, 0)}
TOP, LEFT = 37, 32


def box(screen: NDArray[np.uint8], colour: str) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a colour inside the ropes; right and bottom are the first pixels outside."""
    ys, xs = np.nonzero((screen[TOP:176, LEFT:128] == PIXELS[colour]).all(-1))
    return int(xs.min()) + LEFT, int(ys.min()) + TOP, int(xs.max()) + LEFT + 1, int(ys.max()) + TOP + 1


def stand(ring: Ring, white: Place, black: Place, frames: int = 60) -> None:
    for _ in range(frames):
        ring.put(0, white)
        ring.put(1, black)
        ring.step()


def test_labels_agree_with_the_picture() -> None:
    seen = exact = 0
    for second in islice(GameStream(BOXING, 8), 120):
        for frame, label in zip(second.frames, second.labels, strict=True):
            places = [label.places[colour] or (0, 0) for colour in COLOURS]
            if any(label.facts.values()) or abs(places[0][0] - places[1][0]) < BOXER_WIDTH:
                continue  # arms stick out, and boxers cover each other
            seen += 1
            for colour, place in zip(COLOURS, places, strict=True):
                left, top, right, bottom = box(frame, colour)
                # An arm on its way in is drawn up to 2 pixels behind the body; who has just been hit moves by 2.
                assert max(abs(left - place[0]), abs(top - place[1]), abs(right - left - BOXER_WIDTH)) <= 2
                exact += place == (left, top)
                assert BOXER_HEIGHT - 1 <= bottom - top <= BOXER_HEIGHT
    assert seen > 100
    assert exact > 1.8 * seen


def test_an_arm_that_is_out_is_seen() -> None:
    seen: Counter[tuple[str, int, int]] = Counter()
    for second in islice(GameStream(BOXING, 8), 120):
        for frame, label in zip(second.frames, second.labels, strict=True):
            for colour in COLOURS:
                place = label.places[colour]
                assert place is not None
                high, low = (label.facts[f"{colour}_{arm}"] for arm in ARMS)
                ys, xs = np.nonzero((frame[TOP:176, LEFT:128] == PIXELS[colour]).all(-1))
                out = (xs + LEFT < place[0] - 2) | (xs + LEFT >= place[0] + BOXER_WIDTH + 2)
                assert out.any() == bool(high or low)
                if out.any():
                    upper = (ys[out] + TOP).mean() < place[1] + BOXER_HEIGHT / 2
                    assert upper == bool(high)
                    seen[colour, high, low] += 1
    assert set(seen) == {(colour, *arms) for colour in COLOURS for arms in ((0, 1), (0, 2), (1, 0), (2, 0))}


@pytest.mark.parametrize("left", [0, 1])
def test_writes_reach_the_picture(left: int) -> None:
    ring = Ring()
    ring.begin()
    for one, other in (((MIN_X, MIN_Y), (MAX_X, MAX_Y)), ((60, 80), (75, 80)), ((40, MAX_Y), (80, MIN_Y))):
        places = (one, other) if left == 0 else (other, one)
        stand(ring, *places, frames=5)
        assert ring.places == places
        assert tuple(box(ring.screen(), colour)[:2] for colour in COLOURS) == ring.drawn


def test_nobody_moves_untold_and_the_clock_stands() -> None:
    ring = Ring()
    ring.begin()
    stand(ring, (40, 30), (90, 60))
    before = ring.screen()
    for _ in range(600):
        ring.step()
    assert (ring.screen() == before).all()
    ring.rest()
    ring.step()
    changed = np.argwhere((ring.screen() != before).any(-1))
    assert changed[:, 0].min() > 14  # the clock, below the scores
    assert changed[:, 0].max() < 26


def digits(screen: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return screen[:14, :80] if side == 0 else screen[:14, 80:]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("left", [True, False])
def test_what_becomes_of_a_punch(side: int, above: bool, left: bool) -> None:
    ring = Ring()
    ring.begin()
    for dx, dy, points in ((20, 13, 1), (26, 25, 1), (17, 20, 1), (22, 4, 0), (34, 20, 0), (22, 34, 0)):
        mine: Place = (60, 40)
        other = (60 + (dx if left else -dx), 40 + (dy if above else -dy))
        stand(ring, *((mine, other) if side == 0 else (other, mine)))
        score, before = ring.scores[side], ring.screen()
        ring.punch(side)
        ring.step()
        assert ring.scores[side] - score == points
        after = ring.screen()
        assert (digits(before, side) != digits(after, side)).any() == bool(points)  # drawn in the same frame
        assert (digits(before, 1 - side) == digits(after, 1 - side)).all()
        assert ring.stunned == bool(points)
        assert ring.arms(side)[int(above)] >= 1
        assert ring.arms(side)[int(not above)] == 0


def test_a_vain_punch_is_seen_for_more_than_half_a_second() -> None:
    ring = Ring()
    ring.begin()
    for black in ((62, 44), (75, 60)):
        stand(ring, (40, 40), black)
        ring.punch(0)
        out = 0
        for _ in range(60):
            ring.step()
            out += box(ring.screen(), "white")[2] > 62
        assert 30 < out < 40


def test_colours_stay_for_hours() -> None:
    world = BOXING.world(3)
    assert isinstance(world, World)
    colours = {tuple(colour) for colour in world.screen().reshape(-1, 3).tolist()}
    for frame in range(1200):
        if frame % 100 == 0:  # the game's idle clock just before it runs over
            world.ring._console.write(22, 255)
            world.ring._console.write(0, 250)
        world.advance()
    assert {tuple(colour) for colour in world.screen().reshape(-1, 3).tolist()} == colours


@pytest.fixture(scope="module")
def happenings() -> list[Happening]:
    """What happens in ten minutes."""
    world = BOXING.world(4)
    return [happening for _ in range(36_000) for happening in world.advance()]


@pytest.mark.slow
def test_kinds_come_at_their_rates(happenings: list[Happening]) -> None:
    counts = Counter(happening.kind for happening in happenings)
    for kind, low, high in (
        ("bell", 3, 9), ("corner", 12, 50), ("chase", 8, 28), ("clinch", 6, 24), ("switch", 5, 22),
        ("miss", 60, 130), ("block", 35, 95), ("point", 36, 64),
    ):  # fmt: skip
        assert low <= counts[kind] <= high, (kind, counts[kind])


def test_each_point_is_one_more(happenings: list[Happening]) -> None:
    score, last = (0, 0), -POINT_FRAMES
    for happening in happenings:
        if happening.kind == "bell":
            score = (0, 0)
        if happening.kind == "point":
            side = COLOURS.index(str(happening.colour))
            score = (score[0] + (side == 0), score[1] + (side == 1))
            assert happening.frame - last >= POINT_FRAMES
            last = happening.frame
        assert happening.scores == score
        assert max(score) <= BOXING.most


def test_punches_have_no_rhythm(happenings: list[Happening]) -> None:
    frames = [happening.frame for happening in happenings if happening.kind in ("miss", "block", "point")]
    gaps = [b - a for a, b in pairwise(frames)]
    assert min(gaps) > 42
    halves = Counter(gap // 30 for gap in gaps)
    assert max(halves.values()) < 0.4 * len(gaps)


def label(white: Place, black: Place, in_play: bool = True) -> FrameLabel:
    return FrameLabel(0.0, {"white": white, "black": black}, {}, (0, 0), in_play)


def watch(*places: tuple[Place, Place]) -> list[list[Sight]]:
    watching = Watch()
    return [watching.see(label(*pair)) for pair in places]


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([((60, 80), (73, 82))] * 9, {6: Sight("clinch")}),
        ([((60, 80), (73, 82))] * 6, {}),
        ([((60, 80), (78, 82))] * 9, {}),
        ([((40 + 6 * i, 80), (80 + 6 * i, 80)) for i in range(8)], {6: Sight("chase", "white")}),
        ([((90 - 6 * i, 80), (130 - 6 * i, 80)) for i in range(8)], {6: Sight("chase", "black")}),
        ([((40 + 3 * i, 80), (80 + 3 * i, 80)) for i in range(8)], {}),
        ([((40, 60), (90, 120)), ((60, 60), (70, 120)), ((90, 60), (50, 110))], {2: Sight("switch")}),
        ([((60, 90), (112, 42))] * 9, {4: Sight("corner", "black", "northeast")}),
        ([((36, 120), (70, 90))] * 4, {}),
        ([((36, 120), (70, 90))] * 3 + [((40, 110), (70, 90))] + [((36, 120), (70, 90))] * 3, {}),
    ],
)  # fmt: skip
def test_what_is_seen_over_time(places: list[tuple[Place, Place]], told: dict[int, Any]) -> None:
    assert {i: sights[0] for i, sights in enumerate(watch(*places)) if sights} == told


def test_a_break_is_not_watched() -> None:
    watching = Watch()
    pair = ((60, 80), (73, 82))
    for i in range(12):
        assert watching.see(label(*pair, in_play=i != 5)) == ([Sight("clinch")] if i == 12 else [])
    assert watching.see(label(*pair)) == [Sight("clinch")]
