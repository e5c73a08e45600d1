"""Questions about games: each true option is checked by a second computation from what happened, not from words."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("ale_py")

from arcade_streams.benchmark.inf_streams import BENCHMARK_SEEDS, METADATA, BenchmarkForm, write_benchmark
from arcade_streams.benchmark.play import Play, make_play, read_plays
from arcade_streams.benchmark.questions import AGES, ArcadeQuestions, Cache, age_of, averages, make_items
from arcade_streams.worlds.announcer import Announcer
from arcade_streams.worlds.game import FRAMES_PER_SECOND, HALF, Game, Happening
from arcade_streams.worlds.games import GAMES
from arcade_streams.worlds.games.boxing import BOXING
from arcade_streams.worlds.games.pong import PONG
from streamingvlm.core.errors import OptionError, SourceError
from streamingvlm.data.words import spread
from streamingvlm.evaluate.benchmark import QuestionBenchmark
from streamingvlm.evaluate.questions.items import Item, Reply
from streamingvlm.evaluate.questions.replies import write_replies

#: Of a real game.
SECONDS = 40


class Point(NamedTuple):
    """A point as the referee has it."""

    second: int
    colour: str
    scores: tuple[int, int]


class Made(NamedTuple):
    """A game without pictures: who scored when, what was said in each second, and the data's line."""

    points: list[Point]
    texts: list[str]
    line: dict[str, Any]


def made_up(game: Game, seed: int, seconds: int = 3600) -> Made:
    """Points at random, told by the announcer: hours of matches in no time."""
    return _made_up(game.name, seed, seconds)


@cache
def _made_up(name: str, seed: int, seconds: int) -> Made:
    game = GAMES[name]
    rng = random.Random(seed)
    context = game.context(seed)
    announcer = Announcer(game, context)
    points: list[Point] = []
    scores, second, (counted,) = [0, 0], 3, game.rules.counted
    while second < seconds:
        end = second + rng.randint(4, 45)
        for kind, when in [(counted.since[0], second), *((counted.of[0], k) for k in range(second + 2, end, 3))]:
            colour = rng.choice(game.colours) if "{colour}" in game.language[kind].wordings[0] else None
            zone = rng.choice(game.language[kind].zones) if game.language[kind].zones else None
            announcer.hear(Happening(when * FRAMES_PER_SECOND, kind, colour, zone))
        side = int(rng.random() < 0.4)
        scores[side] += 1
        points.append(Point(end + 1, game.colours[side], (scores[0], scores[1])))
        announcer.hear(_point(points[-1]))
        if game.rules.winner(points[-1].scores) is not None:
            scores = [0, 0]
        second = end + rng.randint(3, 6)
    texts = [game.language.say(announcer.take(k), game.language.plain) for k in range(seconds)]
    points = [point._replace(second=game.second_of(_point(point))) for point in points]
    content = [[*word] for k, text in enumerate(texts) for word in spread(k, k + 1, text)]
    line = {"video": f"videos/{game.name}-{seed}.mp4", "title": context.text, "content": content, "game": game.name}
    return Made(points, texts, line)


def _point(point: Point) -> Happening:
    return Happening(point.second * FRAMES_PER_SECOND, "point", point.colour, scores=point.scores)


class Truth:
    """What is true at a second, counted from the points alone."""

    def __init__(self, game: Game, points: list[Point], title: str, second: int) -> None:
        self.points = [point for point in points if point.second < second]
        self.names = dict(re.findall(r"player (\w+) (\w+)", title))
        self.towns = dict(re.findall(r"home (\w+) (\w+)", title))
        length = int(title.split("first to ")[1].split()[0])
        self.tally = dict.fromkeys(game.colours, 0)
        self.game = self.match = None
        self.opens = True
        for point in self.points:
            if max(point.scores) == game.rules.points_to_win:
                self.game, self.opens = point.colour, not any(self.tally.values())
                self.tally[point.colour] += 1
                if self.tally[point.colour] == length:
                    self.match = point.colour
                    self.tally = dict.fromkeys(game.colours, 0)
        last = self.points[-1] if self.points else None
        self.score = None if last is None or max(last.scores) == game.rules.points_to_win else last.scores
        self.scorer = last.colour if last else None
        colours = [point.colour for point in reversed(self.points)]
        self.streak = next((n for n, colour in enumerate(colours) if colour != self.scorer), len(colours))

    def holds(self, kind: str, option: str) -> bool:
        """Whether what an option says of its kind's fact is true."""
        words = option.split()
        numbers = tuple(int(word) for word in words if word.isdigit())
        match kind:
            case "score":
                return numbers == self.score
            case "scorer":
                return words[0] == self.scorer
            case "streak":
                return (words[0], numbers) == (self.scorer, (self.streak,))
            case "tally":
                return numbers == tuple(self.tally.values())
            case "game" if "player" in words:
                return self.opens and (words[-2], words[-1]) == (self.game, self.names[words[-2]])
            case "game":
                return not self.opens and words[-1] == self.game
            case "match":
                return (words[-2], words[-1]) == (self.match, self.towns[words[-2]])
            case "name":
                return words[-1] == self.names[words[-2]]
            case "town":
                return words[-1] == self.towns[words[-2]]
        raise AssertionError(kind)


def true_option(item: Item) -> str:
    return item.options["ABCD".index(item.answer)]


RECALLS = {"score", "scorer", "streak", "tally", "game", "match", "name", "town", "past"}
NEXTS = {"score", "scorer", "streak", "tally", "name", "town", "first", "match"}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("game", [PONG, BOXING], ids=lambda game: game.name)
def test_exactly_one_option_is_true_now(game: Game, seed: int) -> None:
    made = made_up(game, seed)
    items = make_items(make_play(made.line), each=8, ask="question")
    for item in items:
        kind, second = item.about["kind"], round(item.time) - 1
        assert made.texts[second] == ""
        assert len(set(item.options)) == len(item.options) >= 2
        if kind == "past":
            ago = int(item.question.split()[2])
            said = [text.split(" ; ") for text in made.texts]
            assert true_option(item) in said[second - ago]
            lately = {clause for clauses in said[max(0, second - ago - 5) : second + 1] for clause in clauses}
            assert [option for option in item.options if option in lately] == [true_option(item)]
        else:
            truth = Truth(game, made.points, made.line["title"], second)
            assert [option for option in item.options if truth.holds(kind, option)] == [true_option(item)]
    assert {item.about["kind"] for item in items} == RECALLS


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("game", [PONG, BOXING], ids=lambda game: game.name)
def test_exactly_one_option_is_said_next(game: Game, seed: int) -> None:
    made = made_up(game, seed)
    items = make_items(make_play(made.line), each=8)
    for item in items:
        kind, second = item.about["kind"], round(item.time) - 1
        assert len(set(item.options)) == len(item.options) >= 2
        if not kind.startswith("next-"):
            assert made.texts[second] == ""
            truth = Truth(game, made.points, made.line["title"], second)
            assert [option for option in item.options if truth.holds(kind, option)] == [true_option(item)]
            continue
        assert [option for option in item.options if option == made.texts[second]] == [true_option(item)]
        right = set(true_option(item).split(" ; "))
        for option in set(item.options) - {true_option(item)}:
            # One fact differs: a clause in the place of another, one too much or one too few.
            assert 1 <= len(set(option.split(" ; ")) ^ right) <= (4 if kind == "next-scorer" else 2)
            assert len(game.language.parse(option)) == len(option.split(" ; "))
    counted = game.rules.counted[0].kind
    assert {item.about["kind"] for item in items} == {f"next-{kind}" for kind in NEXTS | {counted}} | {
        "name", "town",
    }  # fmt: skip


def test_a_scorer_that_might_have_been() -> None:
    """The reply about the other side is what the announcer would have said, had it made the point."""
    made = made_up(PONG, 0)
    seen = 0
    for item in make_items(make_play(made.line), each=50):
        if item.about["kind"] == "next-scorer":
            seen += 1
            second = round(item.time) - 1
            before = [point for point in made.points if point.second < second]
            (now,) = (point for point in made.points if point.second == second)
            other = "orange" if now.colour == "green" else "green"
            side = PONG.colours.index(other)
            last = before[-1].scores
            point = Point(now.second, other, (last[0] + (side == 0), last[1] + (side == 1)))
            announcer = Announcer(PONG, PONG.context(0))
            for one in [*before, point]:
                announcer.hear(_point(one))
            (option,) = set(item.options) - {true_option(item)}
            assert option == PONG.language.say(announcer.take(second), PONG.language.plain)
    assert seen > 10


@pytest.mark.parametrize("game", GAMES.values(), ids=lambda game: game.name)
def test_of_a_real_game(game: Game, tmp_path: Path) -> None:
    """Against the console: the score that is drawn, and the points as the world tells them."""
    form = BenchmarkForm(seconds=SECONDS, videos="locator", begin=0, window=20)
    write_benchmark(tmp_path, [game.name], [BENCHMARK_SEEDS], form)
    benchmark = ArcadeQuestions(tmp_path, each="20", ask="question")
    world, points, drawn = game.world(BENCHMARK_SEEDS), [], []
    while world.frame < SECONDS * FRAMES_PER_SECOND:
        told = [one for one in world.advance() if one.kind == "point"]
        points += [Point(game.second_of(one), str(one.colour), one.scores) for one in told]
        if world.frame % FRAMES_PER_SECOND == HALF:  # the last frame of a second that is seen
            drawn.append(world.label().scores)
    assert points
    for item in benchmark.items:
        kind, second = item.about["kind"], round(item.time) - 1
        if kind == "score":
            assert f"score {drawn[second][0]} to {drawn[second][1]}" == true_option(item)
        if kind in ("score", "scorer", "streak", "tally", "name", "town"):
            truth = Truth(game, points, game.context(BENCHMARK_SEEDS).text, second)
            assert [option for option in item.options if truth.holds(kind, option)] == [true_option(item)]
    assert {"score", "scorer", "name", "town", "past"} <= {item.about["kind"] for item in benchmark.items}
    (video,) = benchmark.videos
    assert str(video.path) == video.key == f"arcade:{game.name}?seed={BENCHMARK_SEEDS}"
    assert 0 < video.seconds <= SECONDS


@pytest.mark.parametrize("ask", ["question", "continuation"])
def test_age_of_the_evidence(ask: str) -> None:
    made = made_up(PONG, 5)
    for item in make_items(make_play(made.line), each=8, ask=ask):
        kind, second, told = item.about["kind"], round(item.time) - 1, round(item.truth_time or 0) - 1
        assert item.about["age_s"] == second - told
        low, high = AGES[item.about["age"]]
        assert low <= item.about["age_s"] <= high
        assert item.group == item.about["age"]
        assert told == _told(made, kind, second) if kind != "past" else true_option(item) in made.texts[told]


def _told(made: Made, kind: str, second: int) -> int:
    """The second that told what is asked about, found in the texts and the points."""
    before = [point for point in made.points if point.second < second]
    match kind:
        case "name" | "town" | "next-name" | "next-town":
            return -1
        case "next-score" | "next-scorer":
            return second
        case "score" | "scorer":
            return before[-1].second
        case "streak":
            return _last(made.texts[:second], "in a row")
        case "tally" | "next-tally" | "next-first" | "next-match":
            return max(_last(made.texts[:second], words) for words in ("games ", "match "))
        case "next-rally":
            return _last(made.texts[:second], "serves")
        case "game" | "match":
            return _last(made.texts[:second], f"{kind} ", but="game point")
    (now,) = (point for point in made.points if point.second == second)
    run = list(takewhile(lambda point: point.colour == now.colour, reversed(before)))
    if "in a row" not in made.texts[second]:
        return before[-len(run) - 1].second
    return run[0].second if len(run) > 2 else run[-1].second


def _last(texts: list[str], words: str, but: str = "no such words") -> int:
    clauses = ((k, clause) for k, text in enumerate(texts) for clause in text.split(" ; "))
    return max((k for k, clause in clauses if words in clause and but not in clause), default=-1)


def test_ages_have_names() -> None:
    assert [age_of(seconds) for seconds in (0, 1, 15, 16, 60, 61, 300, 301, 3600, 3601)] == [
        "now", "1-15 s", "1-15 s", "16-60 s", "16-60 s", "1-5 min", "1-5 min", "5-60 min", "5-60 min", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "age", "held"),
    [
        ("score", "16-60 s", {"vision"}),
        ("scorer", "1-15 s", {"vision"}),
        ("scorer", "16-60 s", {"long text"}),
        ("tally", "1-15 s", {"recent text"}),
        ("name", "5-60 min", {"sink"}),
        ("match", "5-60 min", {"nothing"}),
        ("next-score", "now", {"vision"}),
        ("next-town", "5-60 min", {"sink"}),
        ("next-rally", "1-15 s", {"vision"}),
        ("next-tally", "1-5 min", {"long text", "nothing"}),
    ],
)
def test_what_can_hold_it(kind: str, age: str, held: set[str]) -> None:
    made = made_up(PONG, 6)
    ask = "continuation" if kind.startswith("next") else "question"
    items = make_items(make_play(made.line), each=50, cache=Cache(text=120), ask=ask)
    assert {item.about["held_by"] for item in items if (item.about["kind"], item.group) == (kind, age)} == held


def test_text_that_is_held_is_counted_in_words() -> None:
    made = made_up(PONG, 6)
    size = Cache(vision=10, sink=30, text=50)
    context = len(made.line["title"].split())
    seen = set()
    for item in make_items(make_play(made.line), each=50, cache=size, ask="question"):
        if item.about["kind"] != "match":
            continue
        second, told = round(item.time) - 1, round(item.truth_time or 0) - 1
        first = second - 9
        behind = " ".join(made.texts[told:first]).split()
        until = context + len(" ".join(made.texts[: told + 1]).split())
        expected = "recent text" if told >= first else "long text" if len(behind) <= 50 else "nothing"
        if expected == "nothing" and until <= 30:
            expected = "sink"
        assert item.about["held_by"] == expected
        seen.add(expected)
    assert seen == {"recent text", "long text", "nothing"}


def test_the_same_for_the_same_data(tmp_path: Path) -> None:
    data = tmp_path / METADATA
    data.write_text("".join(json.dumps(made_up(PONG, seed, 900).line) + "\n" for seed in (1, 2)))
    one, other = ArcadeQuestions(data), ArcadeQuestions(tmp_path)
    assert one.items == other.items
    assert one.revision == other.revision
    assert len(one.revision) == 16
    assert isinstance(one, QuestionBenchmark)
    assert len({item.id for item in one.items}) == len(one.items)
    assert sum(count.found for count in one.counts) == len(one.items)
    assert [video.key for video in one.videos] == ["videos/pong-1.mp4", "videos/pong-2.mp4"]
    assert one.videos[0].path == tmp_path / "videos" / "pong-1.mp4"
    answers = Counter(item.answer for item in one.items if len(item.options) == 4)
    assert min(answers.values()) > answers.total() / 8
    early = ArcadeQuestions(tmp_path, each="2", seconds="120")
    assert 0 < len(early.items) < len(one.items)
    assert all(item.time <= 120 for item in early.items)
    assert early.revision != one.revision


def test_as_a_question_or_as_a_continuation(tmp_path: Path) -> None:
    (tmp_path / METADATA).write_text(json.dumps(made_up(PONG, 1, 300).line))
    for item in ArcadeQuestions(tmp_path).items:
        assert (item.prompt, item.about["as"]) == ("", "continuation")
        assert item.about["step"] == (item.time - 1, item.time)
        assert item.about["context"] == PONG.context(1).text
    for item in ArcadeQuestions(tmp_path, ask="question").items:
        assert item.about["as"] == "question"
        assert item.prompt.startswith(item.question)
        assert item.question.endswith("?")
        assert f"{item.answer}. {true_option(item)}" in item.prompt.splitlines()


def test_score(tmp_path: Path) -> None:
    (tmp_path / METADATA).write_text(json.dumps(made_up(PONG, 1, 900).line))
    benchmark = ArcadeQuestions(tmp_path)

    def likely(item: Item, choice: str) -> Reply:
        return Reply(item.id, None, probabilities={letter: 0.7 if letter == choice else 0.1 for letter in item.choices})

    right = {item.id: likely(item, item.answer) for item in benchmark.items}
    score = benchmark.score(right, "official")
    assert score.complete
    assert {part.accuracy for part in score.parts} == {100.0}
    assert {average.value for average in score.averages} == {100.0}
    assert [average.name for average in score.averages if average.headline] == ["all"]
    assert sum(items for _, items in benchmark.by_part(score).values()) == len(benchmark.items)
    wrong = {item.id: likely(item, "A" if item.answer != "A" else "B") for item in benchmark.items}
    assert {part.accuracy for part in benchmark.score(wrong, "official").parts} == {0.0}
    # A text counts for the strict parser: the letter, or the sentence itself.
    texts = {item.id: Reply(item.id, true_option(item)) for item in benchmark.items if item.group == "now"}
    partial = benchmark.score(texts, "strict")
    assert not partial.complete
    assert [average.value for average in partial.averages if average.name.startswith("age now")] == [100.0]
    assert not any(average.headline for average in partial.averages)
    write_replies(tmp_path / "replies.jsonl", right.values())
    assert dict(benchmark.replies(tmp_path / "replies.jsonl")) == right
    assert {one.name for one in averages(benchmark.items)} >= {"age now", "kind name", "all"}


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[]", '{"video": "a"}', '{"video": "a", "game": "chess", "title": "", "content": []}',
     '{"video": "a", "game": "pong", "title": "a match", "content": []}'],
)  # fmt: skip
def test_data_of_another_form_is_one_line(line: str, tmp_path: Path) -> None:
    (tmp_path / METADATA).write_text(line)
    with pytest.raises(SourceError, match=f"{METADATA}:1 is no arcade game") as caught:
        ArcadeQuestions(tmp_path)
    assert "\n" not in str(caught.value)


def test_options_that_cannot_be_meant(tmp_path: Path) -> None:
    (tmp_path / METADATA).write_text(json.dumps(made_up(PONG, 1, 300).line))
    for wrong in ({"each": "0"}, {"seconds": "x"}, {"ask": "aloud"}):
        with pytest.raises(OptionError):
            ArcadeQuestions(tmp_path, **wrong)
    (tmp_path / METADATA).write_text("")
    with pytest.raises(SourceError, match="holds no games"):
        read_plays(tmp_path / METADATA)
    with pytest.raises(SourceError, match="cannot be read"):
        ArcadeQuestions(tmp_path / "missing")


def test_a_play_is_what_was_said() -> None:
    made = made_up(PONG, 3, 600)
    play: Play = make_play(made.line)
    assert play.seconds <= 600
    assert [PONG.language.say(events, PONG.language.plain) for events in play.said] == made.texts[: play.seconds]
    assert play.words[-1] == len(" ".join(made.texts).split())
    assert play.silent == [k for k, text in enumerate(made.texts[: play.seconds]) if not text]
