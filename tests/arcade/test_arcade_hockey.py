"""Ice Hockey: every byte of the console's memory that is used against the picture, the play, what is told of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("ale_py")

from arcade_streams.score.ceiling import ceiling
from arcade_streams.worlds.game import FrameLabel, Happening
from arcade_streams.worlds.games.hockey import HOCKEY
from arcade_streams.worlds.games.hockey.plans import CORES, SPOT
from arcade_streams.worlds.games.hockey.reader import Reader
from arcade_streams.worlds.games.hockey.referee import outcome, wing_of
from arcade_streams.worlds.games.hockey.rink import (
    BLUE_BACK,
    BLUE_FRONT,
    REST,
    SKATER_HEIGHT,
    YELLOW_BACK,
    YELLOW_FRONT,
    Rink,
    Stick,
    speed_for,
    travel,
)
from arcade_streams.worlds.games.hockey.rules import COLOURS, POINTS_TO_WIN, WINGS
from arcade_streams.worlds.games.hockey.skaters import SWAY
from arcade_streams.worlds.games.hockey.world import NAMES, World
from arcade_streams.worlds.language import GameEvent
from arcade_streams.worlds.stream import GameStream, Second

Screen = NDArray[np.uint8]
BLUE, RED, YELLOW, GREEN = (45, 50, 184), (184, 50, 50), (232, 204, 99), (82, 126, 45)
CLOTHES = {"blue": (BLUE, RED), "yellow": (YELLOW, GREEN)}
DIGITS = ((44, 56), (108, 120))
"""Columns of the two scores, blue's and yellow's, in rows 12 to 22."""
SECONDS = 600


@pytest.fixture(scope="module")
def long() -> list[Second]:
    return list(islice(GameStream(HOCKEY, 21, render=False), SECONDS))


@pytest.fixture(scope="module")
def seen() -> list[tuple[Screen, FrameLabel]]:
    """Frames of four minutes of two streams, half a second apart."""
    seconds = [second for seed in (7, 8) for second in islice(GameStream(HOCKEY, seed), 120)]
    return [pair for second in seconds for pair in zip(second.frames, second.labels, strict=True)]


@pytest.fixture
def rink() -> Rink:
    """A rink a moment after a face-off."""
    rink = Rink()
    rink.resume()
    for _ in range(3):
        rink.step(REST, REST)
    assert rink.playing
    return rink


def said(stream: list[Second], kind: str) -> list[tuple[int, GameEvent]]:
    return [(second.index, event) for second in stream for event in second.events if event.kind == kind]


def skaters(label: FrameLabel) -> dict[str, tuple[int, int]]:
    places = {name: label.places[name] for name in NAMES}
    return {name: place for name, place in places.items() if place is not None}


def worn(screen: Screen, name: str, left: int, top: int) -> NDArray[np.bool_]:
    """Where the clothes of a skater's side are in his box of 8 x SKATER_HEIGHT pixels and one pixel around it."""
    box = screen[top - 1 : top + SKATER_HEIGHT + 1, left - 1 : left + 9]
    mask: NDArray[np.bool_] = np.logical_or(*((box == colour).all(-1) for colour in CLOTHES[name.split("_")[0]]))
    return mask


def black_on_ice(screen: Screen) -> NDArray[np.bool_]:
    """Where the ice is black, the mouths of the goals left out."""
    mask: NDArray[np.bool_] = (screen == 0).all(-1)
    mask[:42] = mask[187:] = mask[:, :32] = mask[:, 128:] = False
    mask[42:46, 64:96] = mask[184:187, 64:96] = False
    return mask


def alone(label: FrameLabel, name: str) -> bool:
    """Whether no other skater is near."""
    x, y = skaters(label)[name]
    others = [place for other, place in skaters(label).items() if other != name]
    return all(abs(x - a) > 26 or abs(y - b) > SKATER_HEIGHT + 2 for a, b in others)


def test_the_puck_is_where_the_label_says(seen: list[tuple[Screen, FrameLabel]]) -> None:
    free = hidden = 0
    for screen, label in seen:
        puck = label.places["puck"]
        on_ice = black_on_ice(screen)
        if puck is None:
            hidden += 1
            assert not on_ice.any()
            assert not label.in_play
            continue
        x, y = puck
        if all(not (-20 < x - a < 20 and -4 < y - b < SKATER_HEIGHT + 4) for a, b in skaters(label).values()):
            free += 1
            rows, columns = np.nonzero(on_ice)
            assert (columns.min(), rows.min(), len(rows)) == (x, y, 4)
    assert free > 25
    assert hidden > 4


def test_the_skaters_are_where_the_label_says(seen: list[tuple[Screen, FrameLabel]]) -> None:
    checked: Counter[str] = Counter()
    for screen, label in seen:
        for name, (x, y) in skaters(label).items():
            if alone(label, name):
                checked[name] += 1
                mask = worn(screen, name, x, y)
                assert mask[4:, 1:9].sum() > 20
                assert mask[-4:-1].any(), "his skates"
                assert mask.any(0).nonzero()[0].max() >= 6
    assert min(checked[name] for name in NAMES) > 100


def test_a_skater_who_lies_looks_like_no_other(seen: list[tuple[Screen, FrameLabel]]) -> None:
    looks: dict[tuple[str, int], set[bytes]] = defaultdict(set)
    for screen, label in seen:
        for name, (x, y) in skaters(label).items():
            puck = label.places["puck"]
            near = puck is not None and abs(puck[0] - x) < 22 and abs(puck[1] - y) < 24
            if alone(label, name) and not near:
                legs = worn(screen, name, x, y)[-8:-1, 1:9]
                looks[name.split("_")[0], label.facts[f"{name}_down"]].add(legs.tobytes())
    for colour in COLOURS:
        assert len(looks[colour, 1]) == 1
        assert not looks[colour, 1] & looks[colour, 0]


def test_the_one_who_has_the_puck_has_it_on_his_stick(seen: list[tuple[Screen, FrameLabel]]) -> None:
    checked: Counter[int] = Counter()
    for _, label in seen:
        holder, puck = label.facts["holder"], label.places["puck"]
        if not label.in_play or puck is None:
            continue
        on_stick = set()
        for i, (x, y) in enumerate(skaters(label).values()):
            row = y + SKATER_HEIGHT - 1 - 2 * (i % 2)
            # The skaters move before a frame is drawn, the puck after it: a step of 1 by 2 pixels, a push, even rows.
            if abs(puck[1] - row) <= 5 and any(low - 1 <= puck[0] - x <= high + 1 for low, high in SWAY.values()):
                on_stick.add(i)
        if holder >= 0:
            checked[holder] += 1
            assert holder in on_stick
        elif on_stick:
            checked[-1] += 1
    assert min(checked[holder] for holder in range(4)) > 10
    assert checked[-1] < 0.1 * sum(checked.values())


def test_the_scores_are_the_digits_on_the_screen() -> None:
    rink, digits = Rink(), {}
    for score in range(POINTS_TO_WIN + 1):
        for side in (0, 1):
            rink._write(10 + side, score)
        rink.step(REST, REST)
        assert rink.shown_scores == (score, score)
        shapes = [(rink.screen()[12:23, a:b] != 0).any(-1) for a, b in DIGITS]
        assert shapes[0].any()
        assert (shapes[0] == shapes[1]).all()
        digits[score] = shapes[0].tobytes()
    assert len(set(digits.values())) == POINTS_TO_WIN + 1
    rink.reset_scores()
    rink.step(REST, REST)
    left, right = DIGITS
    assert (rink.screen()[12:23, left[0] : left[1]] != 0).any(-1).tobytes() == digits[0]
    assert (rink.screen()[12:23, right[0] : right[1]] != 0).any(-1).tobytes() == digits[0]


def test_the_shown_scores_are_the_labels(seen: list[tuple[Screen, FrameLabel]]) -> None:
    looks: dict[int, set[bytes]] = defaultdict(set)
    for screen, label in seen:
        for score, (a, b) in zip(label.scores, DIGITS, strict=True):
            looks[score].add((screen[12:23, a:b] != 0).any(-1).tobytes())
    assert len(looks) > 3
    assert all(len(shapes) == 1 for shapes in looks.values())
    assert len(set.union(*looks.values())) == len(looks)


def test_joysticks_move_the_skaters_whom_the_game_has_selected(rink: Rink) -> None:
    blue, yellow = rink.selected(0), rink.selected(1)
    rink.bar(yellow)
    before = rink.skaters
    for _ in range(8):
        rink.step(Stick(-1, -1), Stick(1, 1))
    after = rink.skaters
    assert {(i, a[0] - b[0], a[1] - b[1]) for i, (a, b) in enumerate(zip(after, before, strict=True)) if a != b} == {
        (blue, -2, -4),
        (yellow, 2, 4),
    }
    assert rink.faces_left(blue)
    assert not rink.faces_left(yellow)


@pytest.mark.parametrize(("x", "y"), [(40, 300), (-200, 150), (90, -500), (-30, -30)])
def test_flights_are_foreseen(rink: Rink, x: int, y: int) -> None:
    rink.send(x, y)
    assert rink.speed == (x, y)
    start, steps = rink.puck, 0
    for _ in range(40):
        rink.bar(min(range(4), key=lambda i: abs(rink.skater(i)[1] - rink.puck[1])))
        steps += int(rink.ram[4]) % 2 == 0
        rink.step(REST, REST)
        way = rink.puck[0] - start[0], rink.puck[1] - start[1]
        assert way == (travel(x, steps), -travel(-y, steps))  # the game counts upwards


def test_a_puck_is_sent_as_far_as_wanted() -> None:
    for pixels in (-120.0, -31.5, 0.0, 4.0, 77.0):
        for steps in (15, 30, 60):
            assert travel(speed_for(pixels, steps), steps) == pytest.approx(pixels, abs=0.5)


def test_who_falls_lies_and_loses_the_puck(rink: Rink) -> None:
    while rink.holder is None:  # the drop goes to one of the fronts, whoever it is
        front = rink.skater(BLUE_FRONT)
        rink.bar(YELLOW_FRONT)
        rink.step(Stick((rink.puck[0] > front[0] + 3) - (rink.puck[0] < front[0] + 3), rink.puck[1] > front[1]), REST)
    holder = rink.holder
    rink.fell(holder, 80)
    assert rink.holder is None
    lain = 0
    for _ in range(120):
        rink.step(REST, REST)
        lain += rink.lying[holder]
    assert 72 <= lain <= 88
    assert not rink.fallen(holder)


def test_the_clock_stands_and_a_pause_lasts() -> None:
    rink = Rink()
    clock = rink.screen()[:12].copy()
    for frame in range(400):
        if frame < 150:
            rink.pause()
        if frame == 150:
            assert rink.puck[1] == SPOT[1]
            rink.resume()
        rink.hold_clock()
        rink.step(REST, REST)
    assert rink.playing
    assert (rink.screen()[:12] == clock).all()


def test_colours_stay_for_hours() -> None:
    world = HOCKEY.world(3)
    assert isinstance(world, World)
    before = {tuple(colour) for colour in world.screen().reshape(-1, 3).tolist()}
    for _ in range(3):
        world.rink._write(12, 127)  # the game's idle counter just before it runs over
        for _ in range(300):
            world.advance()
    assert {tuple(colour) for colour in world.screen().reshape(-1, 3).tolist()} <= before


def test_thirds_and_passes() -> None:
    assert [wing_of(x) for x in (33, 62, 63, 94, 95, 124)] == ["left", "left", "middle", "middle", "right", "right"]
    assert all(wing_of(low) == wing_of(high) == wing for wing, (low, high) in CORES.items())
    assert outcome(BLUE_BACK, BLUE_FRONT) == outcome(YELLOW_BACK, YELLOW_FRONT) == "pass"
    assert outcome(BLUE_FRONT, YELLOW_BACK) == outcome(YELLOW_FRONT, BLUE_BACK) == "save"
    assert outcome(BLUE_FRONT, BLUE_FRONT) == "rebound"
    assert outcome(BLUE_BACK, YELLOW_FRONT) == outcome(BLUE_BACK, YELLOW_BACK) == "intercept"


@pytest.mark.slow
def test_both_sides_do_everything(long: list[Second]) -> None:
    for kind in ("take", "pass", "intercept", "wait", "down", "shot", "save", "rebound", "point", "game"):
        sides = Counter(event.colour for _, event in said(long, kind))
        assert set(sides) == set(COLOURS), kind
    for kind in ("pass", "intercept", "save", "rebound", "origin"):
        wings = Counter(event.zone for _, event in said(long, kind))
        if wings.total() >= 12:
            assert set(wings) == set(WINGS), kind
            assert max(wings.values()) < 0.6 * wings.total(), kind


def test_the_time_of_nothing_follows_from_the_words(long: list[Second]) -> None:
    """From a shot, or from taking the puck, to what comes next it is never the same number of seconds."""
    play = ("drop", "take", "pass", "intercept", "shot", "save", "rebound", "point")
    times = [(second.index, event.kind) for second in long for event in second.events if event.kind in play]
    for kind in ("take", "shot", "save", "drop"):
        gaps = Counter(b - a for (a, first), (b, _) in pairwise(times) if first == kind)
        assert len(gaps) >= 3, kind
        assert max(gaps.values()) < 0.7 * gaps.total(), kind


def test_a_goal_is_told_with_where_it_came_from(long: list[Second]) -> None:
    goals, origins = ([at for at, _ in said(long, kind)] for kind in ("point", "origin"))
    assert goals == origins
    shots = [at for at, _ in said(long, "shot")]
    assert all(any(0 <= at - shot <= 3 for shot in shots) for at in goals)


class Forgetful(Reader):
    """Knows from its words who has the puck, or who has played it, but no picture from before the present second."""

    def see(self, label: FrameLabel) -> list[Happening]:
        if label.time % 1 == 0 and self._before is not None:
            self._before = replace(self._before, places=label.places)
            self._stood, self._lain = 0, [0] * 4
            if self._away is not None:
                self._away.x = SPOT[0]  # the middle is as good a guess as any
        return super().see(label)


@pytest.mark.slow
def test_without_earlier_pictures_the_play_cannot_be_told() -> None:
    games = (HOCKEY, replace(HOCKEY, new_reader=Forgetful))
    whole, forgetful = (ceiling(game, [5], SECONDS)["play"] for game in games)
    print(f"play: {whole:.3f}, from two frames at a time {forgetful:.3f}")
    assert whole > 0.97
    assert forgetful < whole - 0.2
