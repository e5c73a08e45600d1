"""Questions about games while they run, with exact answers: what is known now, and how old the evidence of it is.

Two ways to ask, option ``ask``:

- ``continuation`` (as a rule): the options are whole replies in the announcer's words, exactly one of them true. They
  are weighed as the reply to the step that ends at the item's time (``about["step"]``); the prompt is empty. The
  bundled model was trained on commentary and on no question, so this is how it can be asked. Of the tasks ``next-...``
  the announcer gives the true option in that very step; the others differ from it in one fact and in what follows from
  that. Tasks ``name`` and ``town`` are asked in silent steps: behind its colour a name is the same at any time.
- ``question``: the prompt is a question with lettered options, for models that take questions. Asked in silent steps:
  what the score is, who made the last point, what happened N seconds ago. As continuations these would be wrong
  questions: the announcer never repeats a score or a tally, so the likeliest one in a silent step is the next one.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from streamingvlm import OptionError
from streamingvlm.evaluate.benchmark import Count, Defect, Video
from streamingvlm.evaluate.questions.items import LETTERS, Form, Item, Reply, Score
from streamingvlm.evaluate.questions.metrics import AverageOf, AverageRule, score_replies
from streamingvlm.evaluate.questions.parsers import OFFICIAL, STRICT, Mark, likeliest, pick, strict
from streamingvlm.evaluate.questions.replies import Replies, read_replies

from ..worlds.context import NAMES, TOWNS
from ..worlds.game import Scores
from ..worlds.language import GameEvent
from .inf_streams import METADATA
from .play import Play, State, read_plays

#: Ages of the evidence, in whole seconds from the second that told it to the one that is asked about.
AGES: Mapping[str, tuple[int, int]] = {
    "now": (0, 0),
    "1-15 s": (1, 15),
    "16-60 s": (16, 60),
    "1-5 min": (61, 300),
    "5-60 min": (301, 3600),
}
#: Makes a question about what is known in a second.
Recall = Callable[["Play", int, random.Random], "Ask | None"]
#: How items are meant to be asked.
CONTINUATION, QUESTION = "continuation", "question"
#: Items of one task and age of one video.
EACH = 4
#: Silent seconds that are looked at for an event of one age.
TRIES = 300
#: Nothing that is no answer to "N seconds ago" has happened this close before it either.
MARGIN = 5
#: Events that only words tell, not a picture of the moment.
_WORDS_ONLY = ("streak", "tally", "match")


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache that ``held_by`` is told for; usually that of the bundled model.

    ``vision``: seconds of pictures and turns, the asked one included; ``sink`` and ``text``: the first and the last
    tokens of older text.
    """

    vision: int = 16
    sink: int = 96
    text: int = 256


@dataclass(frozen=True, slots=True)
class Ask:
    """A question before it is an item.

    ``second``: the one that is asked about; ``told``: the one that told the evidence (None: the context); ``true`` and
    ``others``: what is said if it is right, and if it is not; ``seen``: whether pictures show the evidence, the newest
    of them at ``seen`` (None: only words tell it).
    """

    task: str
    second: int
    told: int | None
    question: str
    true: str
    others: tuple[str, ...]
    seen: int | None = None

    @property
    def age(self) -> int:
        """Seconds from the evidence to the asked second; of the context, to which nothing was shown yet, one more."""
        return self.second - (-1 if self.told is None else self.told)


def age_of(seconds: int) -> str | None:
    """The name of an age; None above an hour."""
    return next((name for name, (low, high) in AGES.items() if low <= seconds <= high), None)


def held_by(play: Play, ask: Ask, cache: Cache) -> str:
    """The part of the cache that can still hold the evidence, the first of: ``vision`` (pictures), ``recent text``
    (words of the turns that stand beside pictures), ``long text`` (the window of older words), ``sink`` (context and
    first words), ``nothing``."""
    first = max(0, ask.second - cache.vision + 1)
    if ask.seen is not None and ask.seen >= first:
        return "vision"
    if ask.told is None:
        return "sink"
    if ask.told >= first:
        return "recent text"
    if play.words[first] - play.words[ask.told] <= cache.text:
        return "long text"
    context = len(play.context.text.split())
    return "sink" if context + play.words[ask.told + 1] <= cache.sink else "nothing"


class ArcadeQuestions:
    """The questions of the games that ``arcade-benchmark`` wrote; the same for the same data.

    ``data``: its folder or metadata file; ``videos``: the folder that its videos' names start from (None: beside the
    data; not needed for locators). Options, as texts: ``each``, items of a task and age of one video; ``seconds``, the
    part of each game that is asked about (default: all of it); ``ask``, ``continuation`` or ``question``. OptionError,
    SourceError.
    """

    name = "arcade-questions"
    defects: Sequence[Defect] = ()

    def __init__(
        self,
        data: Path,
        videos: Path | None = None,
        *,
        each: str = str(EACH),
        seconds: str = "",
        ask: str = CONTINUATION,
    ) -> None:
        if ask not in (CONTINUATION, QUESTION):
            raise OptionError(f"ask is continuation or question, not {ask!r}")
        file = data / METADATA if data.is_dir() else data
        self._videos = videos or file.parent
        self._plays = read_plays(file)
        limit = _number("seconds", seconds) if seconds else None
        made = [make_items(play, _number("each", each), limit, ask=ask) for play in self._plays]
        self.items: Sequence[Item] = tuple(item for items in made for item in items)
        settings = f"each={each} seconds={seconds} ask={ask}".encode()
        self.revision = hashlib.sha256(file.read_bytes() + settings).hexdigest()[:16]

    @property
    def counts(self) -> Sequence[Count]:
        """Items of each task and age. How many there are depends on the games that were written."""
        tasks = dict.fromkeys(item.task for item in self.items)
        return [Count(task, sum(item.task == task for item in self.items)) for task in tasks]

    @property
    def videos(self) -> Sequence[Video]:
        """Each as far as it is asked about. The path of a locator is the locator itself (``arcade:pong?seed=N``)."""
        last = {key: max(item.time for item in self.items if item.video == key) for key in self._keys()}
        return [Video.find(key, self._videos, last[key]) for key in last]

    @property
    def averages(self) -> Sequence[AverageOf]:
        """Of each age, of each kind of question, and the mean of the ages."""
        return averages(self.items)

    def _keys(self) -> list[str]:
        return list(dict.fromkeys(item.video for item in self.items))

    def replies(self, path: Path) -> Replies:
        """See :class:`~streamingvlm.evaluate.benchmark.QuestionBenchmark`; lines as ``eval generate`` writes them."""
        return read_replies(path)

    def score(self, replies: Mapping[str, Reply], parser: str = OFFICIAL, *, without_defects: bool = False) -> Score:
        """What replies are worth. ``official``: the likeliest option where likelihoods are told, else as ``strict``.

        Averages: of each age, of each kind of question, and the mean of the ages. ``without_defects`` changes nothing:
        none are known.
        """
        del without_defects
        rule = pick({OFFICIAL: official, STRICT: strict}, parser)
        return score_replies(self.items, replies, rule, self.averages, parser=parser)

    def by_part(self, score: Score) -> dict[tuple[str, str], tuple[float, int]]:
        """(``held_by``, age) -> right answers, items: what each part of the cache is worth."""
        found: dict[tuple[str, str], tuple[float, int]] = {}
        for item in self.items:
            if item.id in score.right:
                key = (item.about["held_by"], item.about["age"])
                right, items = found.get(key, (0.0, 0))
                found[key] = (right + score.right[item.id], items + 1)
        return found


def official(item: Item, reply: Reply) -> Mark:
    """The likeliest option where likelihoods are told, else what the text says."""
    if not reply.probabilities:
        return strict(item, reply)
    choice = likeliest(reply.probabilities, item.choices)
    return Mark(float(choice == item.answer), choice is not None)


def averages(items: Sequence[Item]) -> list[AverageOf]:
    """Of all tasks of an age, of all ages of a kind, and the mean of the ages."""
    found = []
    for what in ("age", "kind"):
        for name in dict.fromkeys(item.about[what] for item in items):
            tasks = tuple(dict.fromkeys(item.task for item in items if item.about[what] == name))
            found.append(AverageOf(f"{what} {name}", AverageRule.TASKS, tasks))
    return [*found, AverageOf("all", AverageRule.GROUPS, headline=True)]


def make_items(
    play: Play, each: int = EACH, seconds: int | None = None, cache: Cache | None = None, ask: str = CONTINUATION
) -> list[Item]:
    """The items of one game, in the order of their times: ``each`` of a task and age, or as many as there are."""
    silent = [second for second in play.silent if seconds is None or second < seconds]
    rng = random.Random(f"questions of {play.video}")
    asks = list(_recalls(play, silent, each, rng, _RECALLS if ask == QUESTION else _SAYABLE))
    asks += _past(play, silent, each, rng) if ask == QUESTION else _nexts(play, seconds, each, rng)
    items = [_item(play, one, age, cache or Cache(), ask, rng) for one in asks if (age := age_of(one.age))]
    return sorted(items, key=lambda item: (item.time, item.id))


def _item(play: Play, one: Ask, age: str, cache: Cache, ask: str, rng: random.Random) -> Item:
    options = [one.true, *one.others]
    rng.shuffle(options)
    asked = ask == QUESTION
    return Item(
        id=f"{play.video}/{one.second + 1}/{one.task}/{one.age}",
        video=play.video,
        task=f"{one.task}, {age}",
        group=age,
        time=one.second + 1.0,
        question=one.question,
        answer=LETTERS[options.index(one.true)],
        prompt=_prompt(one.question, options) if asked else "",
        form=Form.CHOICE,
        options=tuple(options),
        truth_time=0.0 if one.told is None else one.told + 1.0,
        about={
            "as": ask,
            "kind": one.task,
            "age": age,
            "age_s": one.age,
            "held_by": held_by(play, one, cache),
            "step": (float(one.second), one.second + 1.0),
            "game": play.game.name,
            # What the stream has to be opened with: names stand nowhere else.
            "context": play.context.text,
        },
    )


def _prompt(question: str, options: Sequence[str]) -> str:
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, *lines, "Reply with the letter of the one sentence that is true."])


def _recalls(
    play: Play, silent: Sequence[int], each: int, rng: random.Random, kinds: Sequence[tuple[str, Recall]]
) -> Iterator[Ask]:
    """What is known in a silent second."""
    for field, make in kinds:
        by_age: dict[str, list[int]] = {}
        for second in silent:
            found = getattr(play.before[second], field) if field else (-1,)
            if found is not None and (age := age_of(second - found[0])) is not None:
                by_age.setdefault(age, []).append(second)
        for seconds in by_age.values():
            asks = (make(play, second, rng) for second in rng.sample(seconds, len(seconds)))
            yield from islice((one for one in asks if one is not None and one.others), each)


def _say(play: Play, *events: GameEvent) -> str:
    return play.game.language.say(events, play.game.language.plain)


def _some(rng: random.Random, others: set[str], true: str, most: int = 3) -> tuple[str, ...]:
    """At most ``most`` of what is not true."""
    left = sorted(others - {true})
    return tuple(rng.sample(left, min(most, len(left))))


def _other(play: Play, colour: str) -> str:
    one, other = play.game.colours
    return other if colour == one else one


def _score(play: Play, second: int, rng: random.Random) -> Ask | None:
    state = play.before[second]
    if state.score is None:
        return None
    told, numbers = state.score
    true = _say(play, GameEvent("score", numbers=numbers))
    others = {_say(play, GameEvent("score", numbers=near)) for near in near_scores(play, numbers)}
    # The score is drawn: the picture of this very second shows it.
    return Ask("score", second, told, "What is the score now?", true, _some(rng, others, true), seen=second)


def near_scores(play: Play, numbers: Scores) -> set[Scores]:
    """Scores of a game that goes on, one point off or the other way round."""
    a, b = numbers
    near = {(b, a), (a + 1, b), (a, b + 1), (a - 1, b), (a, b - 1)} - {numbers, (0, 0)}
    return {one for one in near if min(one) >= 0 and play.game.rules.winner(one) is None}


def _scorer(play: Play, second: int, rng: random.Random) -> Ask | None:
    del rng
    state = play.before[second]
    if state.scorer is None:
        return None
    told, colour = state.scorer
    true, other = (_say(play, GameEvent("point", side)) for side in (colour, _other(play, colour)))
    return Ask("scorer", second, told, "Who made the last point?", true, (other,), seen=told)


def _streak(play: Play, second: int, rng: random.Random) -> Ask | None:
    run = play.before[second].run
    if run is None:
        return None
    told, event = run
    counts = [event.numbers[0] + off for off in (-1, 1, 2)]
    others = {_say(play, replace(event, numbers=(number,))) for number in counts if number >= play.game.rules.streak}
    true = _say(play, event)
    question = f"How many points in a row has {event.colour} made?"
    return Ask("streak", second, told, question, true, _some(rng, others, true))


def _tally(play: Play, second: int, rng: random.Random) -> Ask | None:
    tally = play.before[second].tally
    if tally is None:
        return None
    told, numbers = tally
    true = _say(play, GameEvent("tally", numbers=numbers))
    others = {_say(play, GameEvent("tally", numbers=near)) for near in near_tallies(play, None)}
    question = f"How many {play.context.games} has each side won in this match?"
    return Ask("tally", second, told, question, true, _some(rng, others, true))


def _won(play: Play, second: int, rng: random.Random) -> Ask | None:
    del rng
    won = play.before[second].won
    if won is None:
        return None
    told, event = won
    assert event.colour is not None
    other = play.context.player(_other(play, event.colour))
    false = replace(event, colour=other.colour, name=other.name if event.name else None)
    question = f"Who won the last of the {play.context.games}?"
    return Ask("game", second, told, question, _say(play, event), (_say(play, false),), seen=told)


def _match(play: Play, second: int, rng: random.Random) -> Ask | None:
    del rng
    match = play.before[second].match
    if match is None:
        return None
    told, event = match
    assert event.colour is not None
    other = play.context.player(_other(play, event.colour))
    false = replace(event, colour=other.colour, town=other.town)
    return Ask("match", second, told, "Who won the last match?", _say(play, event), (_say(play, false),))


def _name(play: Play, second: int, rng: random.Random) -> Ask | None:
    colour = rng.choice(play.game.colours)
    names = [play.context.player(colour).name, *other_names(play, colour, rng)]
    true, *others = (_say(play, GameEvent("game", colour, name=name)) for name in names)
    return Ask("name", second, None, f"What is the name of player {colour}?", true, tuple(others))


def other_names(play: Play, colour: str, rng: random.Random) -> list[str]:
    """The name of the other side, and two that nobody has."""
    rival = play.context.player(_other(play, colour)).name
    return [rival, *rng.sample(sorted(set(NAMES) - {player.name for player in play.context.players}), 2)]


def _town(play: Play, second: int, rng: random.Random) -> Ask | None:
    colour = rng.choice(play.game.colours)
    towns = [play.context.player(colour).town, *other_towns(play, colour, rng)]
    true, *others = (_say(play, GameEvent("match", colour, town=town)) for town in towns)
    return Ask("town", second, None, f"Where is {colour} at home?", true, tuple(others))


def other_towns(play: Play, colour: str, rng: random.Random) -> list[str]:
    """The town of the other side, and two that nobody has."""
    rival = play.context.player(_other(play, colour)).town
    return [rival, *rng.sample(sorted(set(TOWNS) - {player.town for player in play.context.players}), 2)]


#: Where the evidence stands in the state (none: in the context), and what makes the question.
_RECALLS: tuple[tuple[str, Recall], ...] = (
    ("score", _score),
    ("scorer", _scorer),
    ("run", _streak),
    ("tally", _tally),
    ("won", _won),
    ("match", _match),
    ("", _name),
    ("", _town),
)
#: Those whose true sentence is as likely to follow as it ever was: what they ask about never changes.
_SAYABLE = tuple((field, make) for field, make in _RECALLS if make in (_name, _town))


def _past(play: Play, silent: Sequence[int], each: int, rng: random.Random) -> Iterator[Ask]:
    """What happened N seconds ago."""
    seconds: dict[GameEvent, list[int]] = {}
    for second, events in enumerate(play.said):
        for event in events:
            seconds.setdefault(event, []).append(second)
    kinds: dict[str, list[GameEvent]] = {}
    for event in sorted(seconds, key=lambda one: _say(play, one)):
        kinds.setdefault(event.kind, []).append(event)
    for low, high in list(AGES.values())[1:]:
        tries = rng.sample(silent, min(len(silent), TRIES))
        asks = (_past_of(play, second, (low, high), seconds, kinds, rng) for second in tries)
        yield from islice((one for one in asks if one is not None), each)


def _past_of(
    play: Play,
    second: int,
    ages: tuple[int, int],
    seconds: Mapping[GameEvent, Sequence[int]],
    kinds: Mapping[str, Sequence[GameEvent]],
    rng: random.Random,
) -> Ask | None:
    """A question about an event that was last said so long before ``second``, or None if there is none to ask for."""
    last = {event: said[at - 1] for event, said in seconds.items() if (at := bisect_left(said, second))}
    known = [event for kind in kinds.values() for event in kind if event in last]
    found = [event for event in known if ages[0] <= second - last[event] <= ages[1]]
    for event in rng.sample(found, len(found)):
        told = last[event]
        others = {_say(play, one) for one in kinds[event.kind] if last.get(one, -MARGIN - 1) < told - MARGIN}
        if len(others) > 1:
            return _happened(play, second, event, told, others, rng)
    return None


def _happened(play: Play, second: int, event: GameEvent, told: int, others: set[str], rng: random.Random) -> Ask:
    true = _say(play, event)
    question = f"What happened {second - told} {'second' if second == told + 1 else 'seconds'} ago?"
    seen = None if event.kind in _WORDS_ONLY else told
    return Ask("past", second, told, question, true, _some(rng, others, true), seen)


def _nexts(play: Play, seconds: int | None, each: int, rng: random.Random) -> Iterator[Ask]:
    """What the announcer says now."""
    found: dict[tuple[str, str], list[Ask]] = {}
    for one in nexts(play, rng):
        age = age_of(one.age)
        if age is not None and one.others and (seconds is None or one.second < seconds):
            found.setdefault((one.task, age), []).append(one)
    for asks in found.values():
        yield from rng.sample(asks, min(each, len(asks)))


def _next(play: Play, task: str, second: int, told: int | None, others: Iterable[Sequence[GameEvent]]) -> Ask:
    """What is said in ``second``, beside ``others`` that might have been said in its place."""
    true = _say(play, *play.said[second])
    false = dict.fromkeys(_say(play, *events) for events in others)
    false.pop(true, None)
    return Ask(task, second, told, "What does the announcer say next?", true, tuple(false))


def _in_place(play: Play, second: int, event: GameEvent, others: Iterable[GameEvent]) -> Iterator[list[GameEvent]]:
    """What is said in ``second`` with each of ``others`` in the place of ``event``."""
    for other in others:
        yield [other if one is event else one for one in play.said[second]]


def nexts(play: Play, rng: random.Random) -> Iterator[Ask]:
    """A question about every fact that is said, and about some that might have been."""
    for second, events in enumerate(play.said):
        kinds = {event.kind: event for event in events}
        for event in events:
            if event.kind in _NEXTS:
                yield from _NEXTS[event.kind](play, second, event, rng)
        if "point" in kinds:
            yield from _next_streak(play, second, kinds["point"], kinds.get("streak"))
    yield from _next_counted(play)


def _next_score(play: Play, second: int, event: GameEvent, rng: random.Random) -> Iterator[Ask]:
    near = sorted(near_scores(play, _pair(event)))
    others = [replace(event, numbers=numbers) for numbers in rng.sample(near, min(3, len(near)))]
    ask = _next(play, "next-score", second, second, _in_place(play, second, event, others))
    yield replace(ask, seen=second)


def _next_scorer(play: Play, second: int, event: GameEvent, rng: random.Random) -> Iterator[Ask]:
    """Who makes this point; only where nothing else follows from it but the score."""
    del rng
    said, state = play.said[second], play.before[second]
    if state.score is None or {"streak", "game_point", "game"} & {one.kind for one in said}:
        return
    assert event.colour is not None
    side = play.game.colours.index(other := _other(play, event.colour))
    scores = (state.score[1][0] + (side == 0), state.score[1][1] + (side == 1))
    rules = play.game.rules
    again = state.scorer is not None and state.scorer[1] == other and state.row + 1 >= rules.streak
    if again or rules.winner(scores) is not None or rules.game_point(scores, side) is not None:
        return
    changed = {"point": replace(event, colour=other), "score": GameEvent("score", numbers=scores)}
    ask = _next(play, "next-scorer", second, second, [[changed.get(one.kind, one) for one in said]])
    yield replace(ask, seen=second)


def _next_streak(play: Play, second: int, point: GameEvent, streak: GameEvent | None) -> Iterator[Ask]:
    """How many points in a row, if so many that it is said: whose the points before were."""
    assert point.colour is not None
    state, least = play.before[second], play.game.rules.streak
    if streak is not None:
        told = _run_told(play, second, streak, state)
        counts = [number for number in (streak.numbers[0] - 1, streak.numbers[0] + 1) if number >= least]
    else:
        against = state.against(point.colour)
        told, counts = None if against is None else against[0], [least, least + 1]
    if told is None:
        return
    rest = [one for one in play.said[second] if one.kind != "streak"]
    others = [[*rest, GameEvent("streak", point.colour, numbers=(number,))] for number in counts]
    yield _next(play, "next-streak", second, told, [rest, *others])


def _next_tally(play: Play, second: int, event: GameEvent, rng: random.Random) -> Iterator[Ask]:
    """Its evidence is the tally before: a game that is won in this second is seen, but not how many there were."""
    if (tally := play.before[second].tally) is None:
        return
    winner = next((one.colour for one in play.said[second] if one.kind == "game"), None)
    near = sorted(near_tallies(play, winner) - {event.numbers})
    others = [replace(event, numbers=numbers) for numbers in rng.sample(near, min(3, len(near)))]
    yield _next(play, "next-tally", second, tally[0], _in_place(play, second, event, others))


def near_tallies(play: Play, winner: str | None) -> set[Scores]:
    """Tallies that a match can have; ``winner``: of the game that has just been won, if one has."""
    most, colours = play.context.games_to_win, play.game.colours
    ranges = [range(colour == winner, most + (colour == winner)) for colour in colours]
    return {(a, b) for a in ranges[0] for b in ranges[1]}


def _next_game(play: Play, second: int, event: GameEvent, rng: random.Random) -> Iterator[Ask]:
    """Which name the winner has; whether the game opened its match, so that it is said; whether it ended it."""
    assert event.colour is not None
    player = play.context.player(event.colour)
    if event.name:
        others = [replace(event, name=name) for name in other_names(play, event.colour, rng)]
        yield _next(play, "next-name", second, None, _in_place(play, second, event, others))
    if (tally := play.before[second].tally) is None:
        return
    other = replace(event, name=None if event.name else player.name)
    yield _next(play, "next-first", second, tally[0], _in_place(play, second, event, [other]))
    rest = [one for one in play.said[second] if one.kind != "match"]
    won = [*rest, GameEvent("match", event.colour, town=player.town)]
    yield _next(play, "next-match", second, tally[0], [rest, won])


def _next_town(play: Play, second: int, event: GameEvent, rng: random.Random) -> Iterator[Ask]:
    assert event.colour is not None
    others = [replace(event, town=town) for town in other_towns(play, event.colour, rng)]
    yield _next(play, "next-town", second, None, _in_place(play, second, event, others))


_NEXTS: Mapping[str, Callable[[Play, int, GameEvent, random.Random], Iterator[Ask]]] = {
    "score": _next_score,
    "point": _next_scorer,
    "tally": _next_tally,
    "game": _next_game,
    "match": _next_town,
}


def _next_counted(play: Play) -> Iterator[Ask]:
    """Whether the play that is seen is the one with which so many of it are said to be many (a long rally)."""
    for counted in play.game.rules.counted:
        began: int | None = None
        for second, events in enumerate(play.said):
            kinds = [event.kind for event in events]
            if began is not None and sum(kind in counted.of for kind in kinds) == 1 and began < second:
                rest = [event for event in events if event.kind != counted.kind]
                many = [*rest, GameEvent(counted.kind)]
                yield replace(_next(play, f"next-{counted.kind}", second, began, [rest, many]), seen=began)
            if "point" in kinds:
                began = None
            if set(kinds) & set(counted.since):
                began = second


def _run_told(play: Play, second: int, event: GameEvent, state: State) -> int | None:
    """The second that told the streak so far: its last number, or the first of its points; None: not in the text."""
    if state.run is not None:
        return state.run[0]
    points = 0
    for earlier in range(second, -1, -1):
        points += sum(one.kind == "point" for one in play.said[earlier])
        if points >= event.numbers[0]:
            return earlier
    return None


def _pair(event: GameEvent) -> Scores:
    return event.numbers[0], event.numbers[1]


def _number(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000):
        raise OptionError(f"{what} must be a whole number above 0, not {text!r}")
    return int(text)
